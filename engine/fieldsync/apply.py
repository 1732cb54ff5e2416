"""Where changes land, local or received: merged into records, entered in the change index, added to the digest."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fieldsync import record
from fieldsync.changes import REMOVING
from fieldsync.entries import compress, compress_removals, entry, expand, runs_of
from fieldsync.errors import Corrupt
from fieldsync.limits import MERGE_RECORDS_MAX
from fieldsync.store import HEADLESS, ChangeRow, Dot, Edits, Entry, OrphanRow, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.record import Edited, MergeItem, Outcome, Removal
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


@dataclass(slots=True)
class RecordEdits:
    """What changes edited in records that the index has."""

    rows: dict[int, dict[int, tuple[bytes, ...]]] = field(default_factory=dict)  # collection -> row -> pieces
    pieces: dict[Dot, dict[int, dict[int, bytes]]] = field(default_factory=dict)  # the same by change


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
    pieces: dict[Dot, dict[int, dict[int, bytes]]] = field(default_factory=dict)  # of edits, by collection and row
    edits: dict[Dot, Edits] = field(default_factory=dict)  # changes whose cells all live
    remembered: set[Dot] = field(default_factory=set)  # earlier ones whose edits are remembered
    stale: list[tuple[Dot, int, int]] = field(default_factory=list)  # of these, pieces of which less lives now


def land(writer: Writer, scope: Scope, targets: list[Target], arrivals: list[Arrival]) -> tuple[Scope, list[Touched]]:
    """Merge a batch into a scope, inside a write transaction; returns the scope with its new digest, not yet saved."""
    batch = _Batch(remembered=writer.remembered(scope.id))
    for first in range(0, len(targets), MERGE_RECORDS_MAX):
        scope = _merge(writer, scope, batch, targets[first : first + MERGE_RECORDS_MAX], arrivals)
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
    writer.note_edits(scope.id, batch.edits, batch.stale)
    return scope, batch.touched


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
        entries.extend(runs_of(new.collection, numbers, first))
        touched.extend([touched_of((new.collection, scope.name, key, False, True)) for key in keys])
    writer.put_changes(
        scope.id,
        [
            ChangeRow(*arrival.dot, arrival.time, arrival.flags, arrival.parts, arrival.live, sorted(entries))
            for arrival, entries in places.values()
        ],
    )
    writer.note_landed(Landed(scope.name, [], [], [], news))
    return scope, touched


def land_edits(
    writer: Writer, scope: Scope, edits: RecordEdits, arrivals: list[Arrival]
) -> tuple[Scope, list[Touched]] | None:
    """As land, of edits alone, with few objects for each; None, and nothing is written, where a record is not there."""
    batch = _Batch(remembered=writer.remembered(scope.id), pieces=edits.pieces)
    key, digest = record.digest_key(scope.name), scope.digest
    for collection, pieces in edits.rows.items():
        rows = writer.by_id(collection, sorted(pieces))
        if len(rows) < len(pieces):
            return None
        for first in range(0, len(rows), MERGE_RECORDS_MAX):
            some = rows[first : first + MERGE_RECORDS_MAX]
            edited = record.edit_all(writer.dictionary, key, scope.id, some, pieces)
            if edited is None:
                return None
            digest = record.add_digests(digest, edited.difference)
            batch.updates[collection] += edited.updates
            batch.touched += [touched_of((collection, scope.name, name, True, True)) for name in edited.keys]
            _add_events(batch, collection, edited)
    _write_rows(writer, batch)
    _write_index(writer, scope, batch, arrivals, {})
    writer.note_edits(scope.id, batch.edits, batch.stale)
    return scope._replace(digest=digest), batch.touched


def _add_events(batch: _Batch, collection: int, edited: Edited) -> None:
    """Where changes came to have cells, and lost them."""
    for dot, (by, gained, lost) in edited.events.items():
        batch.live[dot] = batch.live.get(dot, 0) + by
        if gained:
            batch.places[dot] += [entry((collection, -1, number, 1)) for number in gained]
        if dot in batch.remembered:
            batch.stale += [(dot, collection, number) for number in lost]


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
    live, headless, _, events = outcome
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
        batch.touched.append(touched_of((collection, scope.name, key, row is not None, bool(live))))
    gained, created = batch.live, target.created
    for author, seq, by in events:
        dot = (author, seq)
        gained[dot] = gained.get(dot, 0) + by
        if by > 0 and live:
            n = created.get(dot, -1) if created else -1
            batch.places[dot].append(entry((collection, n, number, 1)))
            if n < 0 and len(target.pieces) == 1:
                batch.pieces.setdefault(dot, {}).setdefault(collection, {})[number] = target.pieces[0]
        elif dot in batch.remembered:
            batch.stale.append((dot, collection, number))
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
            if dot in batch.remembered:  # what is remembered of that row is less than what stands there now
                batch.stale.append((dot, place.collection, place.row))


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
        is_in_rows = all(place[0] != HEADLESS for place in places)
        if gained == arrival.parts and is_in_rows and arrival.dot in batch.pieces:
            batch.edits[arrival.dot] = Edits(arrival.parts, batch.pieces[arrival.dot])
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
        _thin(writer, scope, writer.lose_cells(scope.id, losses))


def _thin(writer: Writer, scope: Scope, dots: list[Dot]) -> None:
    """Take the rows in which no cell of a change lives any more out of its entries, so that these follow what lives."""
    rows = []
    for dot in dots:
        change = writer.change(scope.id, dot)
        assert change is not None
        places = expand(change.entries)
        with suppress(Corrupt):  # of another record: that is for who reads it, and for a repair
            living = _living(writer, scope, dot, places)
            rows.append(change._replace(entries=compress(place for place in places if (place[0], place[2]) in living)))
    if rows:
        writer.put_changes(scope.id, rows)


def _living(writer: Writer, scope: Scope, dot: Dot, places: list[Entry]) -> set[tuple[int, int]]:
    """Of some rows, as (collection, row), those in which a change has cells."""
    numbers = defaultdict(set)
    for collection, _, row, _ in places:
        numbers[collection].add(row)
    orphans = writer.orphans_by_id(sorted(numbers.pop(HEADLESS, ())))
    held = [(HEADLESS, one.id, one.packed) for one in orphans]
    for collection, ids in numbers.items():
        found = writer.by_id(collection, sorted(ids))
        held += [(collection, row.id, row.packed) for row in found if row.scope == scope.id]
    packed = [one for *_, one in held]
    stamps, names = record.stamps(writer.dictionary, packed), record.incarnations(writer.dictionary, packed)
    return {
        (collection, row)
        for (collection, row, _), cells, incarnations in zip(held, stamps, names, strict=True)
        if any(cell[2:4] == dot for cell in cells)
        or (collection != HEADLESS and any(name[:2] == dot for name in incarnations))
    }


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


# past the arguments of __new__, which for each of many rows cost more than the tuple
_row: Callable[[tuple[int, int, str, bytes]], Row] = partial(tuple.__new__, Row)
touched_of: Callable[[tuple[int, str, str, bool, bool]], Touched] = partial(tuple.__new__, Touched)
