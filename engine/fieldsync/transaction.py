"""Local writes: what an app creates, changes and deletes in a transaction becomes one change a scope, or two."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import clock, codec, deleting, plain, record, texts
from fieldsync.apply import Arrival, NewRecords, Target, Touched, land, land_new, of_orphan
from fieldsync.changes import GROUPED, REMOVING
from fieldsync.context import Context
from fieldsync.errors import DataError, LimitExceeded
from fieldsync.limits import (
    CHANGE_BYTES_MAX,
    CHANGE_INCARNATIONS_MAX,
    CHANGE_RECORDS_MAX,
    KEY_BYTES_MAX,
    SCOPE_NAME_BYTES_MAX,
)
from fieldsync.pending import Creation, Pending, as_batches, removals, write_item
from fieldsync.trust.rights import CONTROL
from fieldsync.types import Kind
from fieldsync.warm import Shared, append, is_edit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.record import Removal
    from fieldsync.store import Dot, OrphanRow, Row, Scope, Writer

KINDS = {
    name: int(Kind[name.upper()])  # as fields are declared
    for name in ("register", "counter", "set", "text", "list", "map")
}
KIND_NAMES = {number: name for name, number in KINDS.items()}


def check_names(scope: str, key: str) -> None:
    """TypeError or LimitExceeded unless a record's names are texts within bounds; DataError in the control scope."""
    if scope == CONTROL:
        raise DataError(f"the scope {CONTROL!r} is the organisation's own")
    is_ascii = type(scope) is str and type(key) is str and scope.isascii() and key.isascii()
    if is_ascii and 0 < len(scope) <= SCOPE_NAME_BYTES_MAX and 0 < len(key) <= KEY_BYTES_MAX:
        return  # nearly always
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
        self.going: deleting.Going = {}  # whole records that are deleted, while that is all there is to land
        self.dismissed: list[OrphanRow] = []  # cells without their record, to be removed
        self.dots = Context()  # of the changes that landed
        self._room = 0  # bytes for texts written anew
        self._shared: Shared | None = None  # of the record whose texts were edited last

    def at(self, collection: int, collection_name: str, key: str, row: Row | None = None) -> Pending:
        """What is pending for a key; begun with what the store holds there, which is looked up if it is not given."""
        if self.going:
            self._part()
        pending = self.pending.get((collection, key))
        if pending is None:
            if row is None:
                rows = self.writer.by_key(collection, self.scope.id, (key,))
                row = rows[0] if rows else None
            pending = self.add(collection, collection_name, key, row)
        return pending

    def dismiss(self, orphan: OrphanRow) -> None:
        """Remove cells that are held without their existence cell."""
        self.dismissed.append(orphan)

    def delete(self, collection: int, collection_name: str, rows: list[Row]) -> None:
        """Delete records whose rows were looked up, none of which was deleted before."""
        if self.pending:
            for pending in [self.at(collection, collection_name, row.key, row) for row in rows]:
                pending.delete()
            return
        self.check_room(len(rows))
        self.going.setdefault((collection, collection_name), []).extend(rows)

    def _part(self) -> None:
        """Turn records that are deleted together into what is pending for each, as something else joins them."""
        going, self.going = self.going, {}
        for (collection, name), rows in going.items():
            for row in rows:
                self.add(collection, name, row.key, row).delete()

    def add(self, collection: int, collection_name: str, key: str, row: Row | None) -> Pending:
        """Begin what is pending for a key whose row is known."""
        self.check_room(1)
        pending = Pending(collection, collection_name, key, row)
        self.pending[collection, key] = pending
        return pending

    def check_room(self, count: int) -> None:
        """LimitExceeded where so many records more would be too many."""
        if len(self.pending) + sum(map(len, self.going.values())) + count > CHANGE_RECORDS_MAX:
            raise LimitExceeded(
                f"a transaction changes at most {CHANGE_RECORDS_MAX} records of a scope; "
                "use db.load(...) for more, it commits in batches"
            )

    def create(self, creations: list[Creation], wall_ms: int, mint: Callable[[], bytes]) -> list[Touched]:
        """Land records at once, none of whose keys lives here. A LimitExceeded or TypeError leaves nothing written."""
        scope = self.begin(wall_ms, mint)
        time = scope.time
        dot = (scope.author, scope.seq + 1)
        rows, parts = self._rows(creations, dot)
        pieces = record.create(self.writer.dictionary, *dot, time, rows)
        _check_size(sum(map(len, pieces)) + sum([len(one.key) for one in creations]))
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

    def create_plain(
        self, batches: list[plain.Batch], wall_ms: int, mint: Callable[[], bytes], *, may_be_there: bool = False
    ) -> list[Touched] | None:
        """As create, of plain values, a batch a collection; None, and nothing is written, where one is not.

        Or if records of these keys may be there, in the one batch, and one is.
        """
        scope = self.begin(wall_ms, mint)
        scope = scope._replace(seq=scope.seq + 1)
        built = plain.build(self.writer, scope, batches)
        if built is None:
            return None
        _check_size(sum([one.size for one in built]))
        landed = plain.land_built(self.writer, scope, built, may_be_there=may_be_there)
        if landed is None:
            return None
        self.writer.account_own(scope.id, scope.author, scope.seq)
        scope, touched = landed
        self._landed(scope, 1)
        return touched

    def _rows(self, creations: list[Creation], dot: Dot) -> tuple[list[tuple[int, tuple[int, ...], Any]], int]:
        """New records as the kernel takes them, and of how many cells they are, existence included."""
        rows, parts = [], len(creations)
        shape = None
        for n, one in enumerate(creations):
            if shape is None or one.fields != shape.fields:  # mostly like the one before, which is quick to see
                shape = _shape(one.fields)
                ids = tuple(self.writer.field_ids(one.fields))
            rows.append((n, ids, self._packable(shape, one.values, dot)))
            parts += _cells(shape, one.values)
        return rows, parts

    def _packable(self, shape: _Shape, values: tuple[Any, ...], dot: Dot) -> tuple[Any, ...]:
        """Values of a new record as the kernel takes them: a set as its elements, a text as its first update."""
        if not shape.sets and not shape.shared:
            return values
        packable = list(values)
        for place in shape.sets:
            if values[place] is not ...:
                packable[place] = tuple(map(codec.encode, values[place]))
        for place in shape.shared:
            if values[place] is not ...:
                packable[place] = texts.begin(shape.fields[place][1], values[place], self._client(dot))
        return tuple(packable)

    def land(self, wall_ms: int, mint: Callable[[], bytes]) -> list[Touched]:
        """Write all of it into the store; returns the records touched."""
        if self.going and not self.dismissed and not self.writer.is_audited():
            touched = self._delete(wall_ms, mint)
            if touched is not None:
                return touched
        self._part()
        removing = [pending for pending in self.pending.values() if pending.removes]
        writing = [pending for pending in self.pending.values() if pending.writes]
        if not removing and not writing and not self.dismissed:
            return []
        if not removing and not self.dismissed and all(p.creates and p.row is None for p in writing):
            return self._create(writing, wall_ms, mint)
        scope = self.begin(wall_ms, mint)
        time = scope.time
        targets: dict[tuple[int, str], Target] = {}
        arrivals = []
        names = {row.id: row.name for row in self.writer.collections()} if self.dismissed else {}
        dictionary = self.writer.dictionary
        late = [of_orphan(orphan, names, record.removals(dictionary, orphan.packed)) for orphan in self.dismissed]
        if removing or late:
            scope = scope._replace(seq=scope.seq + 1)
            arrivals.append(self._remove(removing, late, targets, (scope.author, scope.seq), time))
        if writing:
            scope = scope._replace(seq=scope.seq + 1)
            grouped = GROUPED if arrivals else 0
            arrivals.append(self._write(writing, targets, (scope.author, scope.seq), time, grouped))
        if len(arrivals) == len(writing) == 1 and is_edit(writing[0]):
            return self._put_edit(scope, next(iter(targets.values())), arrivals[0])
        return self.put(scope, [*targets.values(), *late], arrivals)

    def _create(self, creating: list[Pending], wall_ms: int, mint: Callable[[], bytes]) -> list[Touched]:
        batches = as_batches(creating)
        touched = self.create_plain(batches, wall_ms, mint) if batches is not None else None
        return self.create([p.as_creation() for p in creating], wall_ms, mint) if touched is None else touched

    def _delete(self, wall_ms: int, mint: Callable[[], bytes]) -> list[Touched] | None:
        """Land the deletion of records, if that is all; None, and nothing is written, where it is no usual one."""
        scope = self.begin(wall_ms, mint)
        scope = scope._replace(seq=scope.seq + 1)
        made = deleting.delete_all(self.writer, scope, self.going)
        if made is None:
            return None
        _check_incarnations(len(made.removals))
        _check_size(made.size)
        self.writer.account_own(scope.id, scope.author, scope.seq)
        scope, touched = deleting.land_deleted(self.writer, scope, self.going, made)
        self._landed(scope, 1)
        return touched

    def _put_edit(self, scope: Scope, target: Target, arrival: Arrival) -> list[Touched]:
        """As put, of an edit of texts, lists and maps alone; the record is at hand for the next one."""
        shared = self._shared
        assert shared is not None
        if shared.is_at_hand:
            self.writer.account_own(scope.id, scope.author, scope.seq)
            scope, touched = append(self.writer, scope, target, arrival, shared.written)
            self._landed(scope, 1)
        else:
            touched = self.put(scope, [target], [arrival])
        if (warm := shared.warmed(target.collection)) is not None:
            self.writer.keep_at_hand(warm)
        return touched

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
        self.scope, self.pending, self.going, self.dismissed = scope, {}, {}, []

    def _with_author(self, mint: Callable[[], bytes]) -> Scope:
        if not self.scope.author:
            (author,) = self.writer.author_ids([mint()])
            self.scope = self.scope._replace(author=author, seq=0)
        return self.scope

    def _remove(
        self,
        removing: list[Pending],
        late: list[Target],
        targets: dict[tuple[int, str], Target],
        dot: Dot,
        time: int,
    ) -> Arrival:
        every: list[Removal] = [removal for target in late for removal in target.removals]
        for pending in removing:
            removed = removals(self.writer, pending)
            _target(targets, pending).removals += tuple(removed)
            every.extend(removed)
        _check_incarnations(len(every))
        _check_size(sum(len(item) for *_, item in every))
        return Arrival(dot, time, REMOVING, len(every), every)

    def _write(
        self, writing: list[Pending], targets: dict[tuple[int, str], Target], dot: Dot, time: int, flags: int
    ) -> Arrival:
        names = sorted({pair for pending in writing for pair in pending.written})
        ids = dict(zip(names, self.writer.field_ids(names), strict=True))
        creating = [pending for pending in writing if pending.creates]
        created = [pending.as_creation() for pending in creating]
        rows, parts = self._rows(created, dot)
        dictionary = self.writer.dictionary
        size = 0
        pieces = record.create(dictionary, *dot, time, rows) if rows else []
        for n, (pending, piece) in enumerate(zip(creating, pieces, strict=True)):
            target = _target(targets, pending)
            target.pieces += (piece,)
            target.created = {dot: n}
            size += len(piece) + len(pending.key)
        incarnations = len(creating)
        updating = [pending for pending in writing if not pending.creates]
        self._room = CHANGE_BYTES_MAX // 2
        items = [write_item(pending, ids, self._sides(pending, ids, dot)) for pending in updating]
        for pending, (piece, touched, cells) in zip(updating, record.write(dictionary, *dot, time, items), strict=True):
            _target(targets, pending).pieces += (piece,)
            size += len(piece)
            parts += cells
            incarnations += touched
        _check_incarnations(incarnations)
        _check_size(size)
        return Arrival(dot, time, flags, parts, [])

    def _sides(self, pending: Pending, ids: dict[tuple[str, int], int], dot: Dot) -> tuple[record.Side, ...]:
        """The cells of edited texts, lists and maps: their edits, or all anew in the place of what is known."""
        if not pending.splices:
            return ()
        assert pending.row is not None
        self._shared = shared = Shared(self.writer.dictionary, pending.row)
        client = self._client(dot)
        sides: list[record.Side] = []
        for pair, splices in pending.splices.items():
            read = partial(shared.updates, pair)
            written = texts.compose(shared.held(pair), read, splices, client, self._contiguous, self._room)
            self._room -= len(written.value) if written.limits is not None else 0
            sides.append((ids[pair], b"", written.value, written.limits is not None, written.limits))
            shared.written[pair] = written
        return tuple(sides)

    def _contiguous(self) -> texts.Limits:
        """Up to which of each author's changes all are known here."""
        known = self.writer.dictionary.numbered(self.writer.context(self.scope.id))
        return {author: high for author, low, high in known if low == 1}

    def _client(self, dot: Dot) -> int:
        return texts.client_of(self.writer.dictionary.author(dot[0]), dot[1])


class _Shape(NamedTuple):
    """What new records of the same fields share."""

    fields: tuple[tuple[str, int], ...]
    sets: tuple[int, ...]  # their places
    shared: tuple[int, ...]  # those of texts, lists and maps


@lru_cache(maxsize=1024)
def _shape(fields: tuple[tuple[str, int], ...]) -> _Shape:
    kinds = [kind for _, kind in fields]
    shared = tuple([place for place, kind in enumerate(kinds) if kind in texts.KINDS])
    return _Shape(fields, tuple([place for place, kind in enumerate(kinds) if kind == Kind.SET]), shared)


def _cells(shape: _Shape, values: tuple[Any, ...]) -> int:
    """How many cells a new record has beside its existence."""
    count = len(values) - values.count(...)
    if shape.sets:
        count += sum([len(values[place]) - 1 for place in shape.sets if values[place] is not ...])
    return count


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
            "write less at a time; for many records use db.load(...), which commits in batches"
        )


def mint_name() -> bytes:
    """A new name, of an author or a stream: 8 random bytes, never all zero."""
    name = os.urandom(8)
    return name if any(name) else mint_name()
