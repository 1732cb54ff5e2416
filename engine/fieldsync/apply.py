"""Where changes land, local or received: merged into records, added to the digest, entered in the change index."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fieldsync import indexing, named, record
from fieldsync.entries import runs_of
from fieldsync.indexing import Gains
from fieldsync.limits import MERGE_RECORDS_MAX
from fieldsync.store import HEADLESS, ChangeRow, Dot, Entry, OrphanRow, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.record import MergeItem, Outcome, Removal
    from fieldsync.store import Scope, Writer


class Target:
    """One record, or the cells of one headless incarnation, and what is to be merged into it."""

    __slots__ = ("collection", "collection_name", "created", "key", "orphans", "pieces", "removals", "row")

    def __init__(
        self,
        collection: int = HEADLESS,
        collection_name: str = "",
        key: str | None = None,
        row: Row | None = None,
        orphans: tuple[OrphanRow, ...] = (),
        pieces: tuple[bytes, ...] = (),
        removals: tuple[Removal, ...] = (),
        created: dict[Dot, int] | None = None,
    ) -> None:
        self.collection = collection
        self.collection_name = collection_name
        self.key = key
        self.row = row
        self.orphans = orphans
        self.pieces = pieces
        self.removals = removals
        self.created = created  # creating change -> the number of the incarnation in it

    def join(self, other: Target) -> None:
        """Take in what is to be merged into another incarnation of the same record."""
        self.orphans += other.orphans
        self.pieces += other.pieces
        self.removals += other.removals
        self.created = {**(self.created or {}), **(other.created or {})} or None

    def merge_item(self) -> MergeItem:
        """The same as the kernel takes it."""
        olds = tuple([orphan.packed for orphan in self.orphans]) if self.orphans else ()
        if self.row is not None:
            olds = (self.row.packed, *olds)
        name = (self.collection_name, self.key) if self.key is not None else None
        return olds, self.pieces, self.removals, name

    def number_in(self, dot: Dot) -> int:
        """The number of the incarnation that a change created here, or -1."""
        return self.created.get(dot, -1) if self.created else -1


def of_orphan(orphan: OrphanRow, names: dict[int, str], removals: Iterable[Removal]) -> Target:
    """Removals of cells without their existence cell, under the record's name where that is known."""
    target = Target(orphans=(orphan,), removals=tuple(removals))
    if orphan.collection != HEADLESS and orphan.key is not None:
        target.collection, target.key = orphan.collection, orphan.key
        target.collection_name = names[orphan.collection]
    return target


class Arrival(NamedTuple):
    """A change to be entered in the index."""

    dot: Dot
    time: int
    flags: int
    parts: int
    removals: list[Removal]
    may_be_known: bool = False  # the index may hold a part of it already
    live: int = 0  # for land_new: how many cells came


class Touched(NamedTuple):
    """A record that a transaction created (not before), changed, or removed (not after)."""

    collection: int
    scope: str
    key: str
    before: bool
    after: bool
    packed: bytes = b""  # what it is now, where that is at hand


class NewRecords(NamedTuple):
    """Records of one collection that one change creates, where nothing of them is held yet: (n, key, packed) each."""

    arrival: Arrival
    collection: int
    collection_name: str
    records: list[tuple[int, str, bytes]]


Pieces: TypeAlias = "dict[int, tuple[bytes, ...]]"  # by row


class RecordEdits(NamedTuple):
    """What changes edited in records that the index has."""

    rows: dict[int, Pieces]  # by collection
    pieces: dict[Dot, dict[int, dict[int, bytes]]]  # the same by change


class Landed(NamedTuple):
    """What one call of land, or of land_new, did, for the audit log (recording.py)."""

    scope: str
    targets: list[Target]
    outcomes: list[Outcome | None]
    arrivals: list[Arrival]
    news: list[NewRecords]


class _Batch:
    """What the outcomes of one merge ask of the store."""

    def __init__(self, gains: Gains) -> None:
        self.gains = gains
        self.inserts: dict[int, list[Row]] = defaultdict(list)
        self.updates: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self.deletes: dict[int, list[int]] = defaultdict(list)
        self.stale_orphans: list[int] = []
        self.next_rows: dict[int, int] = {}
        self.moved: list[tuple[bytes, Entry, Target | None]] = []  # packed cells and their new row
        self.touched: list[Touched] = []


def land(writer: Writer, scope: Scope, targets: list[Target], arrivals: list[Arrival]) -> tuple[Scope, list[Touched]]:
    """Merge a batch into a scope, inside a write transaction; returns the scope with its new digest, not yet saved."""
    return _land(writer, scope, _Batch(Gains(writer.remembered(scope.id), {})), targets, arrivals)


def _land(
    writer: Writer, scope: Scope, batch: _Batch, targets: list[Target], arrivals: list[Arrival]
) -> tuple[Scope, list[Touched]]:
    """The same, after what a batch has done already."""
    for first in range(0, len(targets), MERGE_RECORDS_MAX):
        scope = _merge(writer, scope, batch, targets[first : first + MERGE_RECORDS_MAX], arrivals)
    if batch.moved:
        batch.gains.add_moved(writer, batch.moved)
    _write_rows(writer, batch)
    names = {
        removal[:3]: (target.collection, target.key)
        for target in targets
        if target.key is not None
        for removal in target.removals
    }
    indexing.enter(writer, scope, batch.gains, arrivals, names)
    return scope, batch.touched


def land_new(writer: Writer, scope: Scope, news: list[NewRecords]) -> tuple[Scope, list[Touched]]:
    """As land, for records of which nothing is held: there is nothing to merge with, so they go straight in."""
    entered: dict[Dot, tuple[Arrival, list[Entry]]] = {}
    touched: list[Touched] = []
    next_rows: dict[int, int] = {}
    for new in news:
        first = next_rows.get(new.collection) or writer.next_row(new.collection)
        next_rows[new.collection] = first + len(new.records)
        numbers, keys, pieces = map(list, zip(*new.records, strict=True))
        places = list(range(first, first + len(keys)))
        writer.insert_rows(new.collection, named.of_columns(Row, len(keys), (places, scope.id, keys, pieces)))
        digest_key = record.digest_key(scope.name)
        difference = record.digest_of_new(writer.dictionary, digest_key, pieces, new.collection_name, keys)
        scope = scope._replace(digest=record.add_digests(scope.digest, difference))
        _, entries = entered.setdefault(new.arrival.dot, (new.arrival, []))
        entries.extend(runs_of(new.collection, numbers, first))
        told = new.collection, scope.name, keys, False, True, pieces
        touched += named.of_columns(Touched, len(keys), told)
    writer.put_changes(
        scope.id,
        [
            ChangeRow(*arrival.dot, arrival.time, arrival.flags, arrival.parts, arrival.live, sorted(entries))
            for arrival, entries in entered.values()
        ],
    )
    writer.note_landed(Landed(scope.name, [], [], [], news))
    return scope, touched


def land_edits(
    writer: Writer, scope: Scope, edits: RecordEdits, arrivals: list[Arrival], others: Callable[[], list[Target]]
) -> tuple[Scope, list[Touched]]:
    """As land, of edits alone, with few objects for each. others: the targets of land, where a record is not there."""
    batch = _Batch(Gains(writer.remembered(scope.id), edits.pieces))
    for collection, pieces in edits.rows.items():
        numbers = sorted(pieces)
        for first in range(0, len(numbers), MERGE_RECORDS_MAX):
            edited = _edit(writer, scope, batch, collection, numbers[first : first + MERGE_RECORDS_MAX], pieces)
            if edited is None:  # what has landed may do so again, which changes nothing
                return _land(writer, scope, batch, others(), arrivals)
            scope = edited
    indexing.enter(writer, scope, batch.gains, arrivals, {})
    return scope, batch.touched


def _edit(
    writer: Writer, scope: Scope, batch: _Batch, collection: int, numbers: list[int], pieces: Pieces
) -> Scope | None:
    """Edit some rows, and write them while their pages are at hand; None, and nothing is, where one is not there."""
    rows = writer.cells_by_id(collection, numbers)
    key = record.digest_key(scope.name)
    edited = record.edit_all(writer.dictionary, key, scope.id, rows, pieces) if len(rows) == len(numbers) else None
    if edited is None:
        return None
    writer.update_rows(collection, edited.updates)
    told = collection, scope.name, edited.keys, True, True, [packed for _, packed in edited.updates]
    batch.touched += named.of_columns(Touched, len(edited.keys), told)
    batch.gains.add_edited(collection, edited)
    return scope._replace(digest=record.add_digests(scope.digest, edited.difference))


def _merge(writer: Writer, scope: Scope, batch: _Batch, targets: list[Target], arrivals: list[Arrival]) -> Scope:
    """Merge some of a batch, so that what came of them is gone before the next; returns the scope, its digest new."""
    items = [target.merge_item() for target in targets]
    outcomes, difference = record.merge_all(writer.dictionary, record.digest_key(scope.name), items)
    for target, outcome in zip(targets, outcomes, strict=True):
        if outcome is not None:
            _settle(writer, scope, batch, target, outcome)
    writer.note_landed(Landed(scope.name, targets, outcomes, arrivals, []))
    return scope._replace(digest=record.add_digests(scope.digest, difference))


def _settle(writer: Writer, scope: Scope, batch: _Batch, target: Target, outcome: Outcome) -> None:
    """Turn what became of one target into rows to write and places to enter in the index."""
    live, headless, events = outcome
    collection, row, key = target.collection, target.row, target.key
    number = row[0] if row is not None else 0
    if live and row is not None:
        batch.updates[collection].append((number, live))
    elif live:
        number = _new_row(writer, batch, collection)
        assert key is not None
        batch.inserts[collection].append(Row(number, scope.id, key, live))
    elif row is not None:
        batch.deletes[collection].append(number)
    if live or row is not None:
        assert key is not None
        batch.touched.append(_touched((collection, scope.name, key, row is not None, bool(live), live)))
    batch.gains.add_merged(target, number, events, lives=bool(live))
    if headless or target.orphans:
        _settle_headless(writer, scope, batch, target, outcome, number)


def _settle_headless(
    writer: Writer, scope: Scope, batch: _Batch, target: Target, outcome: Outcome, number: int
) -> None:
    """Cells moved between a record and the orphans: enter where each change has them now."""
    live, headless, _ = outcome
    remaining = set()
    for author, seq, n, packed in headless:
        orphan = OrphanRow(0, (author, seq, n), target.collection, target.key, packed)
        place = Entry(HEADLESS, -1, writer.put_orphan(scope.id, orphan), 1)
        remaining.add((author, seq, n))
        batch.moved.append((packed, place, None))
    batch.stale_orphans.extend(orphan.id for orphan in target.orphans if orphan.incarnation not in remaining)
    if target.orphans and live:
        batch.moved.append((live, Entry(target.collection, -1, number, 1), target))


def _new_row(writer: Writer, batch: _Batch, collection: int) -> int:
    number = batch.next_rows.get(collection) or writer.next_row(collection)
    batch.next_rows[collection] = number + 1
    return number


def _write_rows(writer: Writer, batch: _Batch) -> None:
    for collection, ids in batch.deletes.items():
        writer.delete_rows(collection, ids)
    for collection, updates in batch.updates.items():
        writer.update_rows(collection, sorted(updates))  # in the order of the file, so that each page is met once
    for collection, rows in batch.inserts.items():
        writer.insert_rows(collection, rows)
    if batch.stale_orphans:
        writer.delete_orphans(batch.stale_orphans)


# past the arguments of __new__, which for each of many records cost more than the tuple
_touched: Callable[[tuple[int, str, str, bool, bool, bytes]], Touched] = partial(tuple.__new__, Touched)
