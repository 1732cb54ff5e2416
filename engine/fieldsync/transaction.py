"""Local writes: what an app creates, changes and deletes in a transaction becomes one change a scope, or two."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import clock, record
from fieldsync.apply import Arrival, NewRecords, Target, Touched, land, land_new
from fieldsync.changes import GROUPED, REMOVING
from fieldsync.context import Context
from fieldsync.errors import LimitExceeded
from fieldsync.limits import (
    CHANGE_BYTES_MAX,
    CHANGE_INCARNATIONS_MAX,
    CHANGE_RECORDS_MAX,
    KEY_BYTES_MAX,
    SCOPE_NAME_BYTES_MAX,
)
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.record import Removal
    from fieldsync.store import Dot, Row, Scope, Writer

KINDS = {"register": int(Kind.REGISTER), "counter": int(Kind.COUNTER)}


class Creation(NamedTuple):
    """A new record: fields as (name, kind), and a value for each; one of Ellipsis is left out."""

    collection: int
    collection_name: str
    key: str
    fields: tuple[tuple[str, int], ...]
    values: tuple[Any, ...]


@dataclass(slots=True)
class Pending:
    """What a transaction does to one key of one scope; the parts follow each other in this order."""

    collection: int
    collection_name: str
    key: str
    row: Row | None
    deletes: bool = False
    creates: bool = False
    fields: dict[tuple[str, int], Any] = field(default_factory=dict)  # (name, kind) -> value, or amount of a counter

    def as_creation(self) -> Creation:
        """The same, where all that is pending is a new record."""
        fields, values = tuple(self.fields), tuple(self.fields.values())
        return Creation(self.collection, self.collection_name, self.key, fields, values)

    @property
    def is_live(self) -> bool:
        """Whether the transaction reads a record here."""
        return self.creates or (self.row is not None and not self.deletes)


def check_names(scope: str, key: str) -> None:
    """TypeError or LimitExceeded unless the names of a record are texts within bounds."""
    for what, name, most in (("scope", scope, SCOPE_NAME_BYTES_MAX), ("key", key, KEY_BYTES_MAX)):
        if not isinstance(name, str):
            raise TypeError(f"a {what} is a text, not {type(name).__name__}")
        try:
            size = len(name) if name.isascii() else len(name.encode())
        except UnicodeEncodeError:
            raise TypeError(f"a {what} with a lone surrogate, which UTF-8 cannot hold") from None
        if not 0 < size <= most:
            raise LimitExceeded(f"a {what} has 1 to {most} bytes; this one has {size}")


class LocalChange:
    """Collects what a transaction does in one scope, and lands it."""

    def __init__(self, writer: Writer, scope: Scope) -> None:
        self.writer = writer
        self.scope = scope
        self.pending: dict[tuple[int, str], Pending] = {}
        self.dots = Context()  # of the changes that landed

    def at(self, collection: int, collection_name: str, key: str, row: Row | None = None) -> Pending:
        """What is pending for a key; begun with what the store holds there, which is looked up if it is not given."""
        pending = self.pending.get((collection, key))
        if pending is None:
            if row is None:
                row = next(iter(self.writer.by_key(collection, self.scope.id, [key])), None)
            pending = self.add(collection, collection_name, key, row)
        return pending

    def add(self, collection: int, collection_name: str, key: str, row: Row | None) -> Pending:
        """Begin what is pending for a key whose row is known."""
        if len(self.pending) >= CHANGE_RECORDS_MAX:
            raise LimitExceeded(
                f"a transaction changes at most {CHANGE_RECORDS_MAX} records of a scope; "
                "use db.load(...) for more, it commits in batches"
            )
        pending = Pending(collection, collection_name, key, row)
        self.pending[collection, key] = pending
        return pending

    def create(self, creations: list[Creation], wall_ms: int, mint: Callable[[], bytes]) -> list[Touched]:
        """Land records at once, none of whose keys lives here. A LimitExceeded or TypeError leaves nothing written."""
        scope = self.begin(wall_ms, mint)
        time = scope.time
        dot = (scope.author, scope.seq + 1)
        shapes = {
            fields: tuple(self.writer.field_ids(fields)) for fields in dict.fromkeys(one.fields for one in creations)
        }
        rows = [(n, shapes[one.fields], one.values) for n, one in enumerate(creations)]
        pieces = record.create(self.writer.dictionary, *dot, time, rows)
        _check_size(sum(map(len, pieces)) + sum(len(one.key) for one in creations))
        parts = len(creations) + sum(len(one.values) - one.values.count(...) for one in creations)
        arrival = Arrival(dot, time, 0, parts, [], live=parts)
        news: dict[int, NewRecords] = {}
        for n, (one, piece) in enumerate(zip(creations, pieces, strict=True)):
            if one.collection not in news:
                news[one.collection] = NewRecords(arrival, one.collection, one.collection_name, [])
            news[one.collection].records.append((n, one.key, piece))
        self.writer.account_own(scope.id, *dot)
        scope, touched = land_new(self.writer, scope._replace(seq=dot[1]), list(news.values()))
        self._landed(scope, 1)
        return touched

    def land(self, wall_ms: int, mint: Callable[[], bytes]) -> list[Touched]:
        """Write all of it into the store; returns the records touched."""
        removing = [p for p in self.pending.values() if p.deletes and p.row]
        writing = [p for p in self.pending.values() if p.creates or (p.fields and not p.deletes)]
        if not removing and not writing:
            return []
        if not removing and all(p.creates and p.row is None for p in writing):
            return self.create([p.as_creation() for p in writing], wall_ms, mint)
        scope = self.begin(wall_ms, mint)
        time = scope.time
        targets: dict[tuple[int, str], Target] = {}
        arrivals = []
        if removing:
            scope = scope._replace(seq=scope.seq + 1)
            arrivals.append(self._remove(removing, targets, (scope.author, scope.seq), time))
        if writing:
            scope = scope._replace(seq=scope.seq + 1)
            grouped = GROUPED if removing else 0
            arrivals.append(self._write(writing, targets, (scope.author, scope.seq), time, grouped))
        return self.put(scope, list(targets.values()), arrivals)

    def begin(self, wall_ms: int, mint: Callable[[], bytes]) -> Scope:
        """The scope with an author, at the time of what is written next; for `put`, which saves it."""
        scope = self._with_author(mint)
        return scope._replace(time=clock.tick(scope.time, wall_ms))

    def put(self, scope: Scope, targets: list[Target], arrivals: list[Arrival]) -> list[Touched]:
        """Land own changes, whose last number the scope has; returns the records touched."""
        self.writer.account_own(scope.id, scope.author, scope.seq)
        scope, touched = land(self.writer, scope, targets, arrivals)
        self._landed(scope, len(arrivals))
        return touched

    def _landed(self, scope: Scope, changes: int) -> None:
        author = self.writer.dictionary.author(scope.author)
        self.dots = Context.of([(author, scope.seq - changes + 1, scope.seq)])
        self.writer.save_scope(scope)
        self.scope, self.pending = scope, {}

    def _with_author(self, mint: Callable[[], bytes]) -> Scope:
        if self.scope.author:
            return self.scope
        (author,) = self.writer.author_ids([mint()])
        return self.scope._replace(author=author, seq=0)

    def _remove(self, removing: list[Pending], targets: dict[tuple[int, str], Target], dot: Dot, time: int) -> Arrival:
        every: list[Removal] = []
        for pending in removing:
            assert pending.row is not None
            removals = record.removals(self.writer.dictionary, pending.row.packed)
            _target(targets, pending).removals += tuple(removals)
            every.extend(removals)
        _check_incarnations(len(every))
        _check_size(sum(len(item) for *_, item in every))
        return Arrival(dot, time, REMOVING, len(every), every)

    def _write(
        self, writing: list[Pending], targets: dict[tuple[int, str], Target], dot: Dot, time: int, flags: int
    ) -> Arrival:
        names = sorted({pair for pending in writing for pair in pending.fields})
        ids = dict(zip(names, self.writer.field_ids(names), strict=True))
        creating = [pending for pending in writing if pending.creates]
        rows = [
            (n, tuple([ids[pair] for pair in pending.fields]), tuple(pending.fields.values()))
            for n, pending in enumerate(creating)
        ]
        dictionary = self.writer.dictionary
        size = 0
        for n, (pending, piece) in enumerate(zip(creating, record.create(dictionary, *dot, time, rows), strict=True)):
            target = _target(targets, pending)
            target.pieces += (piece,)
            target.created = {dot: n}
            size += len(piece) + len(pending.key)
        parts = sum(1 + len(pending.fields) for pending in creating)
        incarnations = len(creating)
        updating = [pending for pending in writing if not pending.creates]
        items = [_write_item(pending, ids) for pending in updating]
        for pending, (piece, touched, cells) in zip(updating, record.write(dictionary, *dot, time, items), strict=True):
            _target(targets, pending).pieces += (piece,)
            size += len(piece)
            parts += cells
            incarnations += touched
        _check_incarnations(incarnations)
        _check_size(size)
        return Arrival(dot, time, flags, parts, [])


def _write_item(pending: Pending, ids: dict[tuple[str, int], int]) -> record.WriteItem:
    """An update as the kernel takes it."""
    assert pending.row is not None
    registers = tuple((ids[pair], value) for pair, value in pending.fields.items() if pair[1] == Kind.REGISTER)
    increments = tuple((ids[pair], value) for pair, value in pending.fields.items() if pair[1] == Kind.COUNTER)
    return pending.row.packed, registers, increments


def _target(targets: dict[tuple[int, str], Target], pending: Pending) -> Target:
    place = pending.collection, pending.key
    if place not in targets:
        targets[place] = Target(pending.collection, pending.collection_name, pending.key, pending.row)
    return targets[place]


def _check_incarnations(count: int) -> None:
    if count > CHANGE_INCARNATIONS_MAX:
        raise LimitExceeded(
            f"a transaction touches at most {CHANGE_INCARNATIONS_MAX} incarnations of records in a scope; this one "
            f"{count}, for devices created the same keys apart: change fewer records at a time"
        )


def _check_size(size: int) -> None:
    if size > CHANGE_BYTES_MAX:
        raise LimitExceeded(
            f"a transaction writes at most {CHANGE_BYTES_MAX} bytes in a scope; this one has {size}; "
            "use db.load(...) for more, it commits in batches"
        )


def mint_name() -> bytes:
    """A new name, of an author or a stream: 8 random bytes, never all zero."""
    name = os.urandom(8)
    return name if any(name) else mint_name()
