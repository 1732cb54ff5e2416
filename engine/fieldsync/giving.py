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
    FETCH_ROWS_TARGET,
)
from fieldsync.store import HEADLESS, ChangeRow, OrphanRow, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.changes import Name
    from fieldsync.context import Context
    from fieldsync.store import Reader, Scope

Held = dict[tuple[int, int], Row | OrphanRow]  # by (collection, row number)


@dataclass(slots=True)
class _Load:
    """Changes gathered for one chunk, and the numbers it gives to collections."""

    changes: list[GivenChange] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    parts: int = 0
    cells_target: int = CHUNK_CELLS_TARGET
    weight: int = 0  # bytes of the packed records read, and of names

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
    for rows in _slices(reader.changes(scope.id, dots)):
        held = _fetch(reader, rows)
        for row in rows:
            if not load.has_room(row):
                yield chunk_of(load)
                target = next_size(target)
                load = _Load(cells_target=target)
            _add(reader, scope, row, held, load)
    if load.changes:
        yield chunk_of(load)


def _slices(rows: Iterator[ChangeRow]) -> Iterator[list[ChangeRow]]:
    """Changes whose records are fetched together: few at a time, for records may be large."""
    some: list[ChangeRow] = []
    places = 0
    for row in rows:
        some.append(row)
        places += sum(entry.count for entry in row.entries)
        if places >= FETCH_ROWS_TARGET:
            yield some
            some, places = [], 0
    if some:
        yield some


def _fetch(reader: Reader, rows: list[ChangeRow]) -> Held:
    """The rows that changes name, by (collection, row number)."""
    wanted: dict[int, set[int]] = {}
    for row in rows:
        if not row.flags & REMOVING:
            for entry in row.entries:
                wanted.setdefault(entry.collection, set()).update(range(entry.row, entry.row + entry.count))
    held: Held = {}
    for collection, ids in wanted.items():
        found = reader.orphans_by_id(sorted(ids)) if collection == HEADLESS else reader.by_id(collection, sorted(ids))
        held.update({(collection, row.id): row for row in found})
    return held


def _add(reader: Reader, scope: Scope, row: ChangeRow, held: Held, load: _Load) -> None:
    """Add one change, as the kernel takes it, to a chunk's load."""
    records: list[tuple[bytes, Name | None]] = []
    removals = []
    if row.flags & REMOVING:
        removals = reader.removals_by(scope.id, (row.author, row.seq), row.entries)
    else:
        # a row once, though entries may name it twice: as where the change created a record, and where it has cells
        created = {(run.collection, run.row + i) for run in row.entries if run.n >= 0 for i in range(run.count)}
        for place in dict.fromkeys([(run.collection, run.row + i) for run in row.entries for i in range(run.count)]):
            found = held.get(place)
            if isinstance(found, OrphanRow):
                known = found.key is not None and found.collection != HEADLESS
                number = load.numbers.setdefault(found.collection, len(load.numbers)) if known else 0
                records.append((found.packed, (number, found.key or "") if known else None))
            elif found is not None and found.scope == scope.id:
                # others know it by its incarnation; a row may be another record's by now
                named = place in created and (row.live == row.parts or _creates(reader, row, found.packed))
                name = (load.numbers.setdefault(place[0], len(load.numbers)), found.key) if named else None
                records.append((found.packed, name))
    load.changes.append((row.author, row.seq, row.time, row.flags, row.parts, records, removals))
    load.parts += row.live
    load.weight += sum([len(packed) + len(name[1] if name else "") for packed, name in records])
    load.weight += sum([len(item) for *_, item in removals])


def _creates(reader: Reader, row: ChangeRow, packed: bytes) -> bool:
    """Whether a record has an incarnation that a change created."""
    (names,) = record.incarnations(reader.dictionary, [packed])
    return any(name[:2] == row[:2] for name in names)
