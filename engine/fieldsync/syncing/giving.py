"""Giving the changes of one scope: from the index and the records, in chunks, oldest first and whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldsync import changes, record
from fieldsync.changes import GROUPED, REMOVING, Chunk, GivenChange
from fieldsync.limits import (
    CHUNK_BYTES_TARGET,
    CHUNK_CELLS_FIRST,
    CHUNK_CELLS_TARGET,
    CHUNK_CHANGES_MAX,
    FETCH_BYTES_TARGET,
    FETCH_ROWS_FIRST,
    FETCH_ROWS_MAX,
)
from fieldsync.store import HEADLESS, ChangeRow, OrphanRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.changes import Name
    from fieldsync.context import Context
    from fieldsync.record import Removal
    from fieldsync.store import Cells, Reader, Scope

Places = dict[int, dict[int, bool]]  # collection -> row -> whether the change created the record there
Pieces = dict[int, dict[int, bytes]]  # collection -> row -> what a change edited there
Given = tuple[ChangeRow, Places, Pieces]  # these as far as they are remembered


@dataclass(slots=True)
class _Load:
    """Changes gathered for one chunk, and the numbers it gives to collections."""

    changes: list[GivenChange] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    parts: int = 0
    cells_target: int = CHUNK_CELLS_TARGET
    weight: int = 0  # bytes of the packed records read, and of names

    def name(self, collection: int, key: str | None) -> Name | None:
        """A record's name, under the chunk's number for its collection, where it is known."""
        if key is None or collection == HEADLESS:
            return None
        self.weight += len(key)
        return self.numbers.setdefault(collection, len(self.numbers)), key

    def add(self, row: ChangeRow, records: list[tuple[bytes, Name | None]], removals: list[Removal]) -> None:
        """One change, as the kernel takes it."""
        self.changes.append((row.author, row.seq, row.time, row.flags, row.parts, records, removals))
        self.parts += row.live
        self.weight += sum([len(packed) for packed, _ in records]) + sum([len(item) for *_, item in removals])

    def has_room(self, row: ChangeRow) -> bool:
        """Whether a change may join; a second part of a group has to."""
        if not self.changes or row.flags & GROUPED:
            return True
        is_full = self.parts + row.live > self.cells_target or self.weight > CHUNK_BYTES_TARGET
        return not is_full and len(self.changes) < CHUNK_CHANGES_MAX - 1


def size_of(first: int = 0) -> int:
    """How many cells the first chunk of a stream has, about; first: that many, within bounds."""
    return min(first or CHUNK_CELLS_FIRST, CHUNK_CELLS_TARGET)


def next_size(cells: int) -> int:
    """How many cells the chunk after one of so many has."""
    return min(2 * cells, CHUNK_CELLS_TARGET)


def give(reader: Reader, scope: Scope, dots: Context, first: int = 0) -> Iterator[tuple[Chunk, int]]:
    """Chunks of the changes of those dots, oldest first and whole, with the number of changes in each.

    The first are small, so that a link that is cut soon has brought something that stays; first: of so many cells.
    """
    names = {row.id: row.name for row in reader.collections()}

    def chunk_of(load: _Load) -> tuple[Chunk, int]:
        return changes.encode(reader.dictionary, load.changes, [names[number] for number in load.numbers]), len(
            load.changes
        )

    target = size_of(first)
    load = _Load(cells_target=target)
    for given, held in _Fetcher(reader, scope).fetch(reader.changes(scope.id, dots)):
        for row, places, edits in given:
            if not load.has_room(row):
                yield chunk_of(load)
                target = next_size(target)
                load = _Load(cells_target=target)
            removals = reader.removals_by(scope.id, row[:2], row.entries) if row.flags & REMOVING else []
            records = _edited(scope, places, edits, held) if edits else _records(reader, scope, row, places, held, load)
            load.add(row, records, removals)
    if load.changes:
        yield chunk_of(load)


@dataclass(slots=True)
class _Held:
    """What is at the places of some changes, by row number."""

    rows: dict[int, dict[int, Cells]] = field(default_factory=dict)  # by collection
    orphans: dict[int, OrphanRow] = field(default_factory=dict)


@dataclass(slots=True)
class _Fetcher:
    """Reads the records of several changes at a time: as many as fit into memory, so that each page is met seldom."""

    reader: Reader
    scope: Scope
    rows: int = FETCH_ROWS_FIRST  # how many are read next; the first ones tell how large they are

    def fetch(self, rows: Iterator[ChangeRow]) -> Iterator[tuple[list[Given], _Held]]:
        """Changes with their places, what is remembered of these, and what is at the others."""
        some: list[Given] = []
        count = 0
        for row in rows:
            places = {} if row.flags & REMOVING else _places(row)
            some.append((row, places, self._remembered(row, places)))
            count += sum(map(len, places.values()))
            if count >= self.rows:
                yield some, self._held(some)
                some, count = [], 0
        if some:
            yield some, self._held(some)

    def _remembered(self, row: ChangeRow, places: Places) -> Pieces:
        """What a change edited, as far as that is remembered; nothing where it did more than to edit records."""
        edits = self.reader.edits(self.scope.id, row[:2])
        if edits is None or edits.parts != row.parts or HEADLESS in places:
            return {}
        is_edit = not any(any(numbers.values()) for numbers in places.values())
        # copies, for a write may drop some meanwhile
        return {collection: rows.copy() for collection, rows in edits.pieces.items()} if is_edit else {}

    def _held(self, every: list[Given]) -> _Held:
        wanted: dict[int, set[int]] = {}
        for _, places, edits in every:
            for collection, numbers in places.items():
                wanted.setdefault(collection, set()).update(numbers.keys() - edits.get(collection, {}).keys())
        held = _Held()
        held.orphans = {row.id: row for row in self.reader.orphans_by_id(sorted(wanted.pop(HEADLESS, ())))}
        for collection, ids in wanted.items():
            held.rows[collection] = {row[0]: row for row in self.reader.cells_by_id(collection, sorted(ids))}
        sizes = [len(row[3]) for rows in held.rows.values() for row in rows.values()]
        sizes += [len(orphan.packed) for orphan in held.orphans.values()]
        if sizes:
            self.rows = min(max(FETCH_ROWS_FIRST, FETCH_BYTES_TARGET * len(sizes) // sum(sizes)), FETCH_ROWS_MAX)
        return held


def _places(row: ChangeRow) -> Places:
    """The rows that a change names, each once, though entries may name it twice: as created there, and as edited."""
    found: Places = {}
    for collection, n, first, count in row.entries:
        numbers = found.setdefault(collection, {})
        if n >= 0:
            numbers.update(dict.fromkeys(range(first, first + count), True))
        elif count == 1:
            numbers.setdefault(first, False)
        else:
            for number in range(first, first + count):
                numbers.setdefault(number, False)
    return found


def _records(
    reader: Reader, scope: Scope, row: ChangeRow, places: Places, held: _Held, load: _Load
) -> list[tuple[bytes, Name | None]]:
    """What is at the places of a change, with the names of records that it created."""
    records: list[tuple[bytes, Name | None]] = []
    for collection, numbers in places.items():
        if collection == HEADLESS:
            orphans = [held.orphans[number] for number in numbers if number in held.orphans]
            records += [(orphan.packed, load.name(orphan.collection, orphan.key)) for orphan in orphans]
            continue
        there = map(held.rows[collection].get, numbers)
        here = [found for found in there if found and found[1] == scope.id]  # a row may be another record's by now
        if not any(numbers.values()):  # others know it by its incarnation
            records += [(found[3], None) for found in here]
            continue
        for number, _, key, packed in here:
            named = numbers[number] and (row.live == row.parts or _creates(reader, row, packed))
            records.append((packed, load.name(collection, key) if named else None))
    return records


def _edited(scope: Scope, places: Places, edits: Pieces, held: _Held) -> list[tuple[bytes, Name | None]]:
    """The same of a change that only edited records, of which others know the incarnations."""
    records: list[tuple[bytes, Name | None]] = []
    for collection, numbers in places.items():
        rows, pieces = held.rows[collection], edits.get(collection, {})
        for number in numbers:
            packed = pieces.get(number)
            if packed is None and number in rows and rows[number][1] == scope.id:
                packed = rows[number][3]
            if packed is not None:
                records.append((packed, None))
    return records


def _creates(reader: Reader, row: ChangeRow, packed: bytes) -> bool:
    """Whether a record has an incarnation that a change created."""
    (names,) = record.incarnations(reader.dictionary, [packed])
    return any(name[:2] == row[:2] for name in names)
