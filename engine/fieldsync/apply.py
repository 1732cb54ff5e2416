"""Where changes land, local or received: merged into records, entered in the change index, added to the digest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fieldsync import record
from fieldsync.changes import REMOVING
from fieldsync.store import HEADLESS, ChangeRow, Dot, Entry, OrphanRow, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.record import MergeItem, Outcome, Removal
    from fieldsync.store import Scope, Writer


@dataclass(slots=True)
class Target:
    """One record, or the cells of one headless incarnation, and what is to be merged into it."""

    collection: int = HEADLESS
    collection_name: str = ""
    key: str | None = None
    row: Row | None = None
    orphans: tuple[OrphanRow, ...] = ()
    pieces: tuple[bytes, ...] = ()
    removals: tuple[Removal, ...] = ()
    created: dict[Dot, int] | None = None  # creating change -> the number of the incarnation in it

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


@dataclass(slots=True)
class Arrival:
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


@dataclass(slots=True)
class NewRecords:
    """Records of one collection that one change creates, where nothing of them is held yet: (n, key, packed) each."""

    arrival: Arrival
    collection: int
    collection_name: str
    records: list[tuple[int, str, bytes]]


class Landed(NamedTuple):
    """What one call of land, or of land_new, did, for the audit log (recording.py)."""

    scope: str
    targets: list[Target]
    outcomes: list[Outcome | None]
    arrivals: list[Arrival]
    news: list[NewRecords]


@dataclass(slots=True)
class _Batch:
    """What the outcomes of one merge ask of the store."""

    inserts: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    updates: dict[int, list[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    deletes: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    stale_orphans: list[int] = field(default_factory=list)
    live: dict[Dot, int] = field(default_factory=dict)  # change -> live cells gained, or lost if negative
    places: dict[Dot, list[Entry]] = field(default_factory=lambda: defaultdict(list))  # where it came to have cells
    next_rows: dict[int, int] = field(default_factory=dict)
    moved: list[tuple[bytes, Entry, Target | None]] = field(default_factory=list)  # packed cells and their new row
    touched: list[Touched] = field(default_factory=list)


def land(writer: Writer, scope: Scope, targets: list[Target], arrivals: list[Arrival]) -> tuple[Scope, list[Touched]]:
    """Merge a batch into a scope, inside a write transaction; returns the scope with its new digest, not yet saved."""
    items = [target.merge_item() for target in targets]
    outcomes, difference = record.merge_all(writer.dictionary, record.digest_key(scope.name), items)
    batch = _Batch()
    for target, outcome in zip(targets, outcomes, strict=True):
        if outcome is not None:
            _settle(writer, scope, batch, target, outcome)
    if batch.moved:
        _place_moved(writer, batch)
    _write_rows(writer, batch)
    names = {
        removal[:3]: (target.collection, target.key)
        for target in targets
        if target.key is not None
        for removal in target.removals
    }
    _write_index(writer, scope, batch, arrivals, names)
    writer.note_landed(Landed(scope.name, targets, outcomes, arrivals, []))
    return scope._replace(digest=record.add_digests(scope.digest, difference)), batch.touched


def land_new(writer: Writer, scope: Scope, news: list[NewRecords]) -> tuple[Scope, list[Touched]]:
    """As land, for records of which nothing is held: there is nothing to merge with, so they go straight in."""
    places: dict[Dot, tuple[Arrival, list[Entry]]] = {}
    touched: list[Touched] = []
    next_rows: dict[int, int] = {}
    for new in news:
        first = next_rows.get(new.collection) or writer.next_row(new.collection)
        next_rows[new.collection] = first + len(new.records)
        numbers, keys, pieces = zip(*new.records, strict=True)
        rows = [_row((first + i, scope.id, key, packed)) for i, (_, key, packed) in enumerate(new.records)]
        writer.insert_rows(new.collection, rows)
        digest_key = record.digest_key(scope.name)
        difference = record.digest_of_new(writer.dictionary, digest_key, list(pieces), new.collection_name, list(keys))
        scope = scope._replace(digest=record.add_digests(scope.digest, difference))
        _, entries = places.setdefault(new.arrival.dot, (new.arrival, []))
        entries.extend(_runs(new.collection, numbers, first))
        touched.extend([_touched((new.collection, scope.name, key, False, True)) for key in keys])
    writer.put_changes(
        scope.id,
        [
            ChangeRow(*arrival.dot, arrival.time, arrival.flags, arrival.parts, arrival.live, sorted(entries))
            for arrival, entries in places.values()
        ],
    )
    writer.note_landed(Landed(scope.name, [], [], [], news))
    return scope, touched


def _settle(writer: Writer, scope: Scope, batch: _Batch, target: Target, outcome: Outcome) -> None:
    """Turn what became of one target into rows to write and places to enter in the index."""
    live, headless, _, events = outcome
    collection, row, key = target.collection, target.row, target.key
    number = row.id if row is not None else 0
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
        batch.touched.append(_touched((collection, scope.name, key, row is not None, bool(live))))
    for author, seq, by in events:
        dot = (author, seq)
        batch.live[dot] = batch.live.get(dot, 0) + by
        if by > 0 and live:
            batch.places[dot].append(_entry((collection, target.number_in(dot), number, 1)))
    if headless or target.orphans:
        _settle_headless(writer, scope, batch, target, outcome, number)


def _settle_headless(
    writer: Writer, scope: Scope, batch: _Batch, target: Target, outcome: Outcome, number: int
) -> None:
    """Cells moved between a record and the orphans: enter where each change has them now."""
    live, headless, _, _ = outcome
    remaining = set()
    for author, seq, n, packed in headless:
        orphan = OrphanRow(0, (author, seq, n), target.collection, target.key, packed)
        place = Entry(HEADLESS, -1, writer.put_orphan(scope.id, orphan), 1)
        remaining.add((author, seq, n))
        batch.moved.append((packed, place, None))
    batch.stale_orphans.extend(orphan.id for orphan in target.orphans if orphan.incarnation not in remaining)
    if target.orphans and live:
        batch.moved.append((live, Entry(target.collection, -1, number, 1), target))


def _place_moved(writer: Writer, batch: _Batch) -> None:
    """Enter the changes of cells that stand in other rows now."""
    every = record.stamps(writer.dictionary, [packed for packed, _, _ in batch.moved])
    for (_, place, target), stamps in zip(batch.moved, every, strict=True):
        for _, _, author, seq, _ in stamps:
            dot = (author, seq)
            n = target.number_in(dot) if target else -1
            batch.places[dot].append(place._replace(n=n))


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


def _write_index(
    writer: Writer,
    scope: Scope,
    batch: _Batch,
    arrivals: list[Arrival],
    names: dict[tuple[int, int, int], tuple[int, str]],
) -> None:
    """Enter new changes, and take from older ones the cells that no longer live."""
    rows: list[ChangeRow] = []
    losses: list[tuple[Dot, int]] = []
    for arrival in arrivals:
        known = writer.change(scope.id, arrival.dot) if arrival.may_be_known else None
        gained = batch.live.pop(arrival.dot, 0)
        places = batch.places.pop(arrival.dot, [])
        if arrival.flags & REMOVING:
            kept = writer.removals_by(scope.id, arrival.dot, known.entries) if known else []
            writer.put_removals(scope.id, arrival.dot, arrival.removals, names)
            every = {removal[:3]: removal for removal in [*kept, *arrival.removals]}.values()
            rows.append(_entered(arrival, known, len(every), compress_removals(every)))
            continue
        if known:
            gained += known.live
            places += expand(known.entries)
        if gained > 0:
            rows.append(_entered(arrival, known, gained, compress(places)))
        elif known:  # what was here of it went with what came
            losses.append((arrival.dot, known.live))
    losses += [(dot, -by) for dot, by in batch.live.items() if by < 0 and dot not in batch.places]
    rows.extend(_moved(writer, scope, batch))
    if rows:
        writer.put_changes(scope.id, rows)
    if losses:
        writer.lose_cells(scope.id, losses)


def _entered(arrival: Arrival, known: ChangeRow | None, live: int, entries: list[Entry]) -> ChangeRow:
    """The index's row of a change that came, of which something may have been here.

    Where a repair had to make up of how many parts it was (rebuild.index_row), the numbers may differ: the higher one
    counts, and one above all that is here, so that it is not taken for whole.
    """
    time, parts = arrival.time, arrival.parts
    if known:
        time, parts = max(time, known.time), max(parts, known.parts)
    return ChangeRow(*arrival.dot, time, arrival.flags, parts if live <= parts else live + 1, live, entries)


def _moved(writer: Writer, scope: Scope, batch: _Batch) -> list[ChangeRow]:
    """Earlier changes whose cells now stand in other rows."""
    rows = []
    for dot, places in batch.places.items():
        known = writer.change(scope.id, dot)
        if known:
            entries = compress(places + expand(known.entries))
            rows.append(known._replace(entries=entries, live=max(1, known.live + batch.live.get(dot, 0))))
    return rows


def _runs(collection: int, numbers: Iterable[int], first: int) -> list[Entry]:
    """The entries of new records of those numbers, in rows one after the other."""
    runs: list[Entry] = []
    n = count = 0
    for number in numbers:
        if number != n + count and count:
            runs.append(Entry(collection, n, first, count))
            first, count = first + count, 0
        n = n if count else number
        count += 1
    return [*runs, Entry(collection, n, first, count)]


def compress(entries: Iterable[Entry]) -> list[Entry]:
    """Entries of single rows, which may be there twice, as runs, sorted."""
    runs: list[Entry] = []
    collection = n = row = count = 0
    for place in sorted(set(entries)):
        follows = place[2] == row + count and place[0] == collection
        if count and follows and place[1] == (n + count if n >= 0 else -1):
            count += 1
            continue
        if count:
            runs.append(_entry((collection, n, row, count)))
        collection, n, row, count = place
    if count:
        runs.append(_entry((collection, n, row, count)))
    return runs


def compress_removals(removals: Iterable[Removal]) -> list[Entry]:
    """What the entries of a change of removals say: runs of the incarnations that it names."""
    runs: list[Entry] = []
    for author, seq, n in sorted(removal[:3] for removal in removals):
        if runs and runs[-1][:2] == (author, seq) and n == runs[-1].row + runs[-1].count:
            runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
        else:
            runs.append(Entry(author, seq, n, 1))
    return runs


def expand(entries: Iterable[Entry]) -> list[Entry]:
    """Runs as entries of single rows."""
    return [
        Entry(run.collection, run.n + i if run.n >= 0 else -1, run.row + i, 1)
        for run in entries
        for i in range(run.count)
    ]


# past the arguments of __new__, which for each of many rows cost more than the tuple
_entry: Callable[[tuple[int, int, int, int]], Entry] = partial(tuple.__new__, Entry)
_row: Callable[[tuple[int, int, str, bytes]], Row] = partial(tuple.__new__, Row)
_touched: Callable[[tuple[int, str, str, bool, bool]], Touched] = partial(tuple.__new__, Touched)
