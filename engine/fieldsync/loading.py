"""Loading many rows: batches a scope, several batches a commit."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.errors import DataError, LimitExceeded, MissingDependency
from fieldsync.limits import (
    CHANGE_BYTES_MAX,
    CHANGE_RECORDS_MAX,
    LOAD_BUFFER_ROWS_MAX,
    LOAD_COMMIT_ROWS,
    REJECTED_ROWS_KEPT,
)
from fieldsync.tables import fill_template
from fieldsync.transaction import KINDS, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.schema import Collection
    from fieldsync.store import Row

    Namer = str | Callable[[Mapping[str, Any]], str]


@dataclass(slots=True)
class LoadReport:
    """What a load did."""

    loaded: int = 0  # rows created or updated
    unchanged: int = 0  # rows that said what was there already
    rejected: list[tuple[int, str]] = field(default_factory=list)  # (row number from 1, reason); the first ones
    rejected_count: int = 0
    scopes: set[str] = field(default_factory=set)
    seconds: float = 0.0


def load(
    replica: Replica,
    collection: Collection,
    rows: Iterable[Mapping[str, Any]],
    *,
    key: Namer,
    scope: Namer,
    progress: bool | Callable[[int], object] = False,
) -> LoadReport:
    """See Database.load."""
    began = time.perf_counter()
    with _progress(progress) as tell:
        loader = _Loader(replica, collection, _namer(key), _namer(scope), tell)
        for row in rows:
            loader.add(row)
        loader.flush()
    loader.report.seconds = time.perf_counter() - began
    return loader.report


def _namer(name: Namer) -> Callable[[Mapping[str, Any]], str]:
    return fill_template(name) if isinstance(name, str) else name


@contextmanager
def _progress(progress: bool | Callable[[int], object]) -> Iterator[Callable[[int], object]]:
    if not progress:
        yield lambda _: None
        return
    if callable(progress):
        yield progress
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        raise MissingDependency('a progress bar needs the package rich: pip install "fieldsync[cli]"') from None
    with Progress(TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done: bar.update(task, completed=done)


class _Loader:
    """Gathers rows a scope, so that changes are full, and commits several changes at a time."""

    def __init__(
        self,
        replica: Replica,
        collection: Collection,
        key: Callable[[Mapping[str, Any]], str],
        scope: Callable[[Mapping[str, Any]], str],
        tell: Callable[[int], object],
    ) -> None:
        self.report = LoadReport()
        self._replica = replica
        self._collection = collection
        self._key = key
        self._scope = scope
        self._tell = tell
        self._counters = {one.name for one in collection.fields if one.kind == "counter"}
        self._number = 0
        self._waiting: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {}
        self._ready: list[tuple[str, dict[str, tuple[int, dict[str, Any]]]]] = []
        self._waiting_rows = 0
        self._ready_rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row in, or report why not."""
        self._number += 1
        try:
            key, scope = self._key(row), self._scope(row)
            check_names(scope, key)
            values = self._collection.check_new(row)
        except (DataError, TypeError, ValueError, KeyError) as error:
            self._reject(self._number, error)
            return
        batch = self._waiting.setdefault(scope, {})
        self._waiting_rows += key not in batch
        batch[key] = (self._number, values)  # the last row of a key is the one that counts
        if len(batch) >= CHANGE_RECORDS_MAX:
            self._move(scope)
        if self._waiting_rows >= LOAD_BUFFER_ROWS_MAX:
            self._move(max(self._waiting, key=lambda name: len(self._waiting[name])))
        if self._ready_rows >= LOAD_COMMIT_ROWS:
            self._commit()

    def flush(self) -> None:
        """Write what is still waiting."""
        for scope in sorted(self._waiting):
            self._move(scope)
            if self._ready_rows >= LOAD_COMMIT_ROWS:
                self._commit()
        self._commit()

    def _reject(self, number: int, error: Exception) -> None:
        self.report.rejected_count += 1
        if len(self.report.rejected) < REJECTED_ROWS_KEPT:
            self.report.rejected.append((number, str(error)))

    def _move(self, scope: str) -> None:
        batch = self._waiting.pop(scope)
        self._waiting_rows -= len(batch)
        self._ready_rows += len(batch)
        self._ready.append((scope, batch))

    def _commit(self) -> None:
        if not self._ready:
            return
        with self._replica.writing() as writing:
            for scope, batch in self._ready:
                self.report.scopes.add(scope)
                for part in self._parts(batch):
                    self._stage(writing, scope, part)
                    writing.land(self._replica.wall_ms(), self._replica.mint)
        self._ready, self._ready_rows = [], 0
        self._tell(self._number)

    def _parts(
        self, batch: dict[str, tuple[int, dict[str, Any]]]
    ) -> Iterator[dict[str, tuple[int, dict[str, Any]]]]:
        """The batch in parts whose values surely fit a change; a row that fits none is rejected."""
        part: dict[str, tuple[int, dict[str, Any]]] = {}
        size = 0
        for key, (number, values) in batch.items():
            weight = 64 + len(key) + sum(map(_weight, values.values()))
            if weight > CHANGE_BYTES_MAX:
                self._reject(number, LimitExceeded(f"a row of more than {CHANGE_BYTES_MAX} bytes"))
                continue
            if size + weight > CHANGE_BYTES_MAX and part:
                yield part
                part, size = {}, 0
            part[key] = (number, values)
            size += weight
        if part:
            yield part

    def _stage(self, writing: WriteBatch, scope: str, part: dict[str, tuple[int, dict[str, Any]]]) -> None:
        """Put rows into the write transaction: create, or update what differs."""
        (number,) = writing.writer.collection_ids([self._collection.name])
        change = writing.scope(scope)
        known = {row.key: row for row in writing.writer.by_key(number, change.scope.id, list(part))}
        for key, (_, values) in part.items():
            row = known.get(key)
            if row is None:
                fields = {self._pair(name): value for name, value in values.items() if value is not None}
            else:
                fields = self._differences(writing, row, values)
            if row is not None and not fields:
                self.report.unchanged += 1
                continue
            pending = change.add(number, self._collection.name, key, row)
            pending.creates = row is None
            pending.fields = fields
            self.report.loaded += 1

    def _pair(self, name: str) -> tuple[str, int]:
        return name, KINDS["counter" if name in self._counters else "register"]

    def _differences(self, writing: WriteBatch, row: Row, values: dict[str, Any]) -> dict[tuple[str, int], Any]:
        before = record.read_all(writing.writer.dictionary, row.packed)
        fields = {}
        for name, value in values.items():
            old = before.get(name, 0 if name in self._counters else None)
            if type(old) is type(value) and old == value:
                continue
            amount = value - old if name in self._counters else value
            if name not in self._counters or amount:
                fields[self._pair(name)] = amount
        return fields


def _weight(value: Any) -> int:
    """An upper bound of a value's encoded bytes, cheap for the common ones."""
    if isinstance(value, str):
        return 4 * len(value) + 8
    if isinstance(value, bytes):
        return len(value) + 8
    return 16 if isinstance(value, int | float) or value is None else len(repr(value)) * 4 + 600
