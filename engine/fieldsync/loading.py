"""Loading many rows: batches a scope, several batches a commit."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.errors import DataError, LimitExceeded, MissingDependency
from fieldsync.limits import (
    CHANGE_RECORDS_MAX,
    LOAD_BUFFER_ROWS_MAX,
    LOAD_COMMIT_ROWS,
    REJECTED_ROWS_KEPT,
)
from fieldsync.tables import fill_template
from fieldsync.transaction import KINDS, LocalChange, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.schema import Collection
    from fieldsync.store import Row

    Fields = tuple[tuple[str, int], ...]  # (name, kind)
    Waiting = tuple[int, str, Fields, tuple[Any, ...]]  # row number, key, fields, values
    Namer = str | Callable[[Mapping[str, Any]], str]

SHAPES_MAX = 1_000  # sets of field names whose checks are remembered


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
        self._shapes: dict[tuple[str, ...], Fields] = {}
        self._counters = {one.name for one in collection.fields if one.kind == "counter"}
        self._number = 0
        self._waiting: dict[str, dict[str, Waiting]] = {}
        self._ready: list[tuple[str, list[Waiting]]] = []
        self._waiting_rows = 0
        self._ready_rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row in, or report why not."""
        self._number += 1
        try:
            key, scope = self._key(row), self._scope(row)
            check_names(scope, key)
            # nothing declared: the kernel checks the values when it packs them
            values = row if self._collection.record is None else self._collection.check_new(row)
            fields = self._fields(tuple(values))
        except (DataError, TypeError, ValueError, KeyError) as error:
            self._reject(self._number, error)
            return
        batch = self._waiting.setdefault(scope, {})
        self._waiting_rows += key not in batch
        batch[key] = (self._number, key, fields, tuple(values.values()))  # the last row of a key is the one that counts
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

    def _fields(self, names: tuple[str, ...]) -> Fields:
        fields = self._shapes.get(names)
        if fields is None:
            for name in names:
                self._collection.field(name)
            fields = tuple((name, KINDS["counter" if name in self._counters else "register"]) for name in names)
            if len(self._shapes) < SHAPES_MAX:
                self._shapes[names] = fields
        return fields

    def _reject(self, number: int, error: Exception) -> None:
        self.report.rejected_count += 1
        if len(self.report.rejected) < REJECTED_ROWS_KEPT:
            self.report.rejected.append((number, str(error)))

    def _move(self, scope: str) -> None:
        batch = self._waiting.pop(scope)
        self._waiting_rows -= len(batch)
        self._ready_rows += len(batch)
        self._ready.append((scope, list(batch.values())))

    def _commit(self) -> None:
        if not self._ready:
            return
        with self._replica.writing() as writing:
            for scope, batch in self._ready:
                self.report.scopes.add(scope)
                self._write(writing, scope, batch)
        self._ready, self._ready_rows = [], 0
        self._tell(self._number)

    def _write(self, writing: WriteBatch, scope: str, batch: list[Waiting]) -> None:
        """Create the rows whose keys are new in the scope, and update those that differ from what is there."""
        writer = writing.writer
        (number,) = writer.collection_ids([self._collection.name])
        entered = writer.enter(scope)
        known = {row.key: row for row in writer.by_key(number, entered.id, [key for _, key, _, _ in batch])}
        self._split([one for one in batch if one[1] not in known], partial(self._create, writing, number, scope))
        if known:
            update = partial(self._update, writing, number, scope, known)
            self._split([one for one in batch if one[1] in known], update)

    def _split(self, batch: list[Waiting], write: Callable[[list[Waiting]], None]) -> None:
        """One change of these rows; in halves where they are too large together or one has a value that none may."""
        if not batch:
            return
        try:
            write(batch)
        except (LimitExceeded, TypeError) as error:
            if len(batch) == 1:
                self._reject(batch[0][0], error)
                return
            self._split(batch[: len(batch) // 2], write)
            self._split(batch[len(batch) // 2 :], write)

    def _create(self, writing: WriteBatch, number: int, scope: str, batch: list[Waiting]) -> None:
        change = LocalChange(writing.writer, writing.writer.enter(scope))
        rows = [(key, fields, values) for _, key, fields, values in batch]
        touched = change.create(number, self._collection.name, rows, self._replica.wall_ms(), self._replica.mint)
        writing.note(change, touched)
        self.report.loaded += len(batch)

    def _update(
        self, writing: WriteBatch, number: int, scope: str, known: dict[str, Row], batch: list[Waiting]
    ) -> None:
        change = LocalChange(writing.writer, writing.writer.enter(scope))
        for _, key, fields, values in batch:
            differing = self._differences(writing, known[key], fields, values)
            if differing:
                change.add(number, self._collection.name, key, known[key]).fields = differing
        updated = len(change.pending)
        writing.note(change, change.land(self._replica.wall_ms(), self._replica.mint))
        self.report.loaded += updated
        self.report.unchanged += len(batch) - updated

    def _differences(self, writing: WriteBatch, row: Row, fields: Fields, values: tuple[Any, ...]) -> dict[Any, Any]:
        before = record.read_all(writing.writer.dictionary, row.packed)
        differing = {}
        for (name, kind), value in zip(fields, values, strict=True):
            is_counter = name in self._counters
            old = before.get(name, 0 if is_counter else None)
            if type(old) is not type(value) or old != value:
                amount = value - old if is_counter else value
                if amount or not is_counter:
                    differing[name, kind] = amount
        return differing
