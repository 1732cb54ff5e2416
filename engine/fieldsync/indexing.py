"""The change index: which changes are here, and in which rows they have live cells, as batches land."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

from fieldsync import record
from fieldsync.changes import REMOVING
from fieldsync.entries import compress, compress_removals, entry, expand
from fieldsync.errors import Corrupt
from fieldsync.store import HEADLESS, ChangeRow, Edits

if TYPE_CHECKING:
    from fieldsync.apply import Arrival, Target
    from fieldsync.record import Edited, Events
    from fieldsync.store import Dot, Entry, Scope, Writer

Names: TypeAlias = dict[tuple[int, int, int], tuple[int, str]]  # incarnation -> collection and key
Pieces: TypeAlias = "dict[Dot, dict[int, dict[int, bytes]]]"  # of edits: by change, collection and row


class Gains:
    """Where changes came to have live cells by a batch, and lost them."""

    def __init__(self, remembered: set[Dot], pieces: Pieces) -> None:
        self.remembered = remembered  # changes whose edits are remembered
        self.pieces = pieces
        self.live: dict[Dot, int] = {}  # change -> live cells gained, or lost if negative
        self.places: dict[Dot, list[Entry]] = defaultdict(list)  # where it came to have cells
        self.stale: list[tuple[Dot, int, int]] = []  # of what is remembered: change, collection, row that has less now

    def add_merged(self, target: Target, number: int, events: Events, *, lives: bool) -> None:
        """Note what a merge did to changes; number: of the record's row, if it lives."""
        collection, created, gained = target.collection, target.created, self.live
        for author, seq, by in events:
            dot = (author, seq)
            gained[dot] = gained.get(dot, 0) + by
            if by > 0 and lives:
                n = created.get(dot, -1) if created else -1
                self.places[dot].append(entry((collection, n, number, 1)))
                if n < 0 and len(target.pieces) == 1:
                    self.pieces.setdefault(dot, {}).setdefault(collection, {})[number] = target.pieces[0]
            elif dot in self.remembered:
                self.stale.append((dot, collection, number))

    def add_edited(self, collection: int, edited: Edited) -> None:
        """Note what edits of records of a collection did to changes."""
        for dot, (by, gained, lost) in edited.events.items():
            self.live[dot] = self.live.get(dot, 0) + by
            if gained:
                # plain tuples, through which the garbage collector goes but once
                self.places[dot] += cast("list[Entry]", [(collection, -1, number, 1) for number in gained])
            if dot in self.remembered:
                self.stale += [(dot, collection, number) for number in lost]

    def add_moved(self, writer: Writer, moved: list[tuple[bytes, Entry, Target | None]]) -> None:
        """Note that packed cells stand in other rows now."""
        every = record.stamps(writer.dictionary, [packed for packed, _, _ in moved])
        for (_, place, target), stamps in zip(moved, every, strict=True):
            for _, _, author, seq, _ in stamps:
                dot = (author, seq)
                n = target.number_in(dot) if target else -1
                self.places[dot].append(place._replace(n=n))
                if dot in self.remembered:  # what is remembered of that row is less than what stands there now
                    self.stale.append((dot, place.collection, place.row))


def enter(writer: Writer, scope: Scope, gains: Gains, arrivals: list[Arrival], names: Names) -> None:
    """Enter new changes, and take from older ones the cells that no longer live. names: of what they remove."""
    rows: list[ChangeRow] = []
    losses: list[tuple[Dot, int]] = []
    edits: dict[Dot, Edits] = {}  # changes whose cells all live
    for arrival in arrivals:
        known = writer.change(scope.id, arrival.dot) if arrival.may_be_known else None
        gained = gains.live.pop(arrival.dot, 0)
        places = gains.places.pop(arrival.dot, [])
        runs = compress(places)
        is_in_rows = all(run[0] != HEADLESS for run in runs)
        if gained == arrival.parts and is_in_rows and arrival.dot in gains.pieces:
            edits[arrival.dot] = Edits(arrival.parts, gains.pieces[arrival.dot])
        if arrival.flags & REMOVING:
            rows.append(_entered_removals(writer, scope, arrival, known, names))
            continue
        if known:
            gained += known.live
            runs = compress(places + expand(known.entries))
        if gained > 0:
            rows.append(_entered(arrival, known, gained, runs))
        elif known:  # what was here of it went with what came
            losses.append((arrival.dot, known.live))
    losses += [(dot, -by) for dot, by in gains.live.items() if by < 0 and dot not in gains.places]
    rows.extend(_elsewhere(writer, scope, gains))
    if rows:
        writer.put_changes(scope.id, rows)
    lose(writer, scope, losses)
    writer.note_edits(scope.id, edits, gains.stale)


def lose(writer: Writer, scope: Scope, losses: list[tuple[Dot, int]]) -> None:
    """Take live cells from changes that are in the index."""
    if losses:
        _thin(writer, scope, writer.lose_cells(scope.id, losses))


def _entered_removals(
    writer: Writer, scope: Scope, arrival: Arrival, known: ChangeRow | None, names: Names
) -> ChangeRow:
    """The index's row of a change that removes, with what it removes put aside."""
    kept = writer.removals_by(scope.id, arrival.dot, known.entries) if known else []
    writer.put_removals(scope.id, arrival.dot, arrival.removals, names)
    every = {removal[:3]: removal for removal in [*kept, *arrival.removals]}.values()
    return _entered(arrival, known, len(every), compress_removals(every))


def _entered(arrival: Arrival, known: ChangeRow | None, live: int, entries: list[Entry]) -> ChangeRow:
    """The index's row of a change that came, of which something may have been here.

    Where a repair had to make up of how many parts it was (rebuild.index_row), the numbers may differ: the higher one
    counts, and one above all that is here, so that it is not taken for whole.
    """
    time, parts = arrival.time, arrival.parts
    if known:
        time, parts = max(time, known.time), max(parts, known.parts)
    return ChangeRow(*arrival.dot, time, arrival.flags, parts if live <= parts else live + 1, live, entries)


def _elsewhere(writer: Writer, scope: Scope, gains: Gains) -> list[ChangeRow]:
    """Earlier changes whose cells now stand in other rows."""
    rows = []
    for dot, places in gains.places.items():
        known = writer.change(scope.id, dot)
        if known:
            entries = compress(places + expand(known.entries))
            rows.append(known._replace(entries=entries, live=max(1, known.live + gains.live.get(dot, 0))))
    return rows


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
