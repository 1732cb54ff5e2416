"""Where the incarnations of received changes live: by the index, by their key, or among the orphans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.apply import RecordEdits, Target
from fieldsync.changes import REMOVING
from fieldsync.entries import Filing
from fieldsync.store import HEADLESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.changes import Name, TakenChange
    from fieldsync.record import Removal
    from fieldsync.store import Dot, Entry, Incarnation, OrphanRow, Row, Scope, Writer

Place = tuple[int, str | None]  # collection, key
NOWHERE: Place = (HEADLESS, None)


@dataclass(slots=True)
class _Coming:
    """What comes of each incarnation that changes touch."""

    pieces: dict[Incarnation, tuple[bytes, ...]] = field(default_factory=dict)
    removals: dict[Incarnation, tuple[Removal, ...]] = field(default_factory=dict)
    named: dict[Incarnation, Name] = field(default_factory=dict)
    created: set[Incarnation] = field(default_factory=set)

    def add(self, change: TakenChange) -> None:
        """All of one change."""
        dot, pieces = (change.author, change.seq), self.pieces
        for author, seq, n, name, packed in change.pieces:
            incarnation = (author, seq, n)
            pieces[incarnation] = (*pieces[incarnation], packed) if incarnation in pieces else (packed,)
            if name is not None:
                self.named.setdefault(incarnation, name)
            if (author, seq) == dot:
                self.created.add(incarnation)
        for removal in change.removals:
            self.remove(removal[:3], [removal])

    def remove(self, incarnation: Incarnation, removals: list[Removal]) -> None:
        """Removals of one incarnation."""
        self.removals[incarnation] = (*self.removals.get(incarnation, ()), *removals)

    def incarnations(self) -> list[Incarnation]:
        """Each once."""
        return list(dict.fromkeys((*self.pieces, *self.removals)) if self.removals else self.pieces)

    def target(
        self, incarnation: Incarnation, orphans: tuple[OrphanRow, ...], place: Place, name: str, row: Row | None
    ) -> Target:
        """What comes of one, and what is there of its record."""
        created = {incarnation[:2]: incarnation[2]} if incarnation in self.created else None
        pieces, removals = self.pieces.get(incarnation, ()), self.removals.get(incarnation, ())
        return Target(place[0], name, place[1], row, orphans, pieces, removals, created)


def locate(writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]) -> list[Target]:
    """The records that changes touch, each once, with all that is to be merged into it.

    ids and names: the collections of the chunk, by its own numbers for them.
    """
    coming = _Coming()
    for change in taken:
        coming.add(change)
    wanted = coming.incarnations()
    kept = writer.removals_of(scope.id, {one[:2] for one in wanted})
    for incarnation in kept.keys() & set(wanted) if kept else ():
        coming.remove(incarnation, kept[incarnation])
    return _Finder(writer, scope, ids, names).find(coming, wanted)


def locate_edits(writer: Writer, scope: Scope, taken: list[TakenChange]) -> RecordEdits | None:
    """What changes edit, where they do nothing else and the index has all of the records; None for any others."""
    if writer.is_audited() or writer.has_orphans(scope.id) or any(change.removals for change in taken):
        return None
    filing = Filing(_Finder(writer, scope, [], []).creations)
    pieces: dict[Dot, dict[int, dict[int, bytes]]] = {}
    for change in taken:
        mine = filing.file(change.pieces)
        if mine is None:
            return None
        pieces[change.author, change.seq] = mine
    filing.drop_several()
    return RecordEdits(filing.rows, pieces) if not writer.removals_of(scope.id, filing.creations) else None


class _Finder:
    """Looks incarnations up, a few queries a batch."""

    def __init__(self, writer: Writer, scope: Scope, ids: list[int], names: list[str]) -> None:
        self._writer = writer
        self._scope = scope
        self._collections = {HEADLESS: "", **dict(zip(ids, names, strict=True))}
        self._numbers = ids
        self._rows: dict[Place, Row] = {}

    def find(self, coming: _Coming, wanted: list[Incarnation]) -> list[Target]:
        """Say of each incarnation where it is; those of one record become one target."""
        orphans = {}
        if self._writer.has_orphans(self._scope.id):
            orphans = {row.incarnation: row for row in self._writer.orphans(self._scope.id, wanted)}
        places = self._places({one: (self._numbers[name[0]], name[1]) for one, name in coming.named.items()}, orphans)
        places = self._look_up(wanted, places)
        targets: list[Target] = []
        by_place: dict[Place, Target] = {}
        for incarnation in wanted:
            orphan = (orphans[incarnation],) if incarnation in orphans else ()
            place = places.get(incarnation, NOWHERE)
            one = coming.target(incarnation, orphan, place, self._name(place[0]), self._rows.get(place))
            first = by_place.setdefault(place, one) if place is not NOWHERE else one
            if first is one:
                targets.append(one)
            else:
                first.join(one)
        return targets

    def _places(
        self, named: dict[Incarnation, Place], orphans: dict[Incarnation, OrphanRow]
    ) -> dict[Incarnation, Place]:
        """Where those are of which that is said."""
        for incarnation, orphan in orphans.items():
            if orphan.key is not None and orphan.collection != HEADLESS:
                named.setdefault(incarnation, (orphan.collection, orphan.key))
        return named

    def _look_up(self, wanted: list[Incarnation], said: dict[Incarnation, Place]) -> dict[Incarnation, Place]:
        """The same of all, as far as that can be known; what is there of their records is read."""
        # what comes again stays where it is, whatever it is called now
        again = self._provisional() if said else set()
        indexed = self._by_index([one for one in wanted if one not in said or one[:2] in again] if said else wanted)
        known = said | indexed
        # what comes late for a record that was removed here is still that record's
        unknown = [one for one in wanted if one not in known] if len(known) < len(wanted) else []
        removed = self._writer.names_of_removed(self._scope.id, unknown)
        self._fetch({place for place in (*said.values(), *removed.values()) if place not in self._rows})
        return known | removed

    def _provisional(self) -> set[Dot]:
        """The changes of which something is here, and which may come again."""
        ids = self._writer.dictionary.author_ids
        return {(ids[author], seq) for author, seq in self._writer.provisional_dots(self._scope.id)}

    def _name(self, collection: int) -> str:
        if collection not in self._collections:
            self._collections.update({row.id: row.name for row in self._writer.collections()})
        return self._collections[collection]

    def _fetch(self, places: Iterable[Place]) -> None:
        """Look rows up by their keys."""
        keys: dict[int, list[str]] = {}
        for collection, key in places:
            if key is not None:
                keys.setdefault(collection, []).append(key)
        for collection, some in keys.items():
            rows = self._writer.by_key(collection, self._scope.id, some)
            self._rows.update({(collection, row.key): row for row in rows})

    def _by_index(self, wanted: list[Incarnation]) -> dict[Incarnation, Place]:
        """Where the index says that incarnations were created, if they still are there: row numbers are used again."""
        found: dict[Incarnation, Place] = {}
        for collection, expected in self._indexed(wanted).items():
            rows = [row for row in self._writer.by_id(collection, sorted(expected)) if row[1] == self._scope.id]
            names = record.incarnations(self._writer.dictionary, [row[3] for row in rows])
            for row, here in zip(rows, names, strict=True):
                for incarnation in expected[row[0]]:
                    if incarnation in here:
                        found[incarnation] = place = (collection, row[2])
                        self._rows[place] = row
        return found

    def _indexed(self, wanted: list[Incarnation]) -> dict[int, dict[int, list[Incarnation]]]:
        """By collection, rows and the incarnations that the index has in each."""
        expected: dict[int, dict[int, list[Incarnation]]] = {}
        creations: dict[Dot, list[Entry]] = {}
        for incarnation in wanted:
            author, seq, n = incarnation
            entries = creations.get((author, seq))
            if entries is None:
                entries = creations[author, seq] = self.creations((author, seq))
            for collection, first, row, count in entries:
                if first <= n < first + count:
                    expected.setdefault(collection, {}).setdefault(row + n - first, []).append(incarnation)
        return expected

    def creations(self, dot: Dot) -> list[Entry]:
        """Where a change created records."""
        change = self._writer.change(self._scope.id, dot)
        known = change is not None and not change.flags & REMOVING
        return [entry for entry in change.entries if entry.n >= 0] if change and known else []
