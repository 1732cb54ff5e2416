"""Where the incarnations of received changes live: by the index, by their key, or among the orphans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.apply import Target
from fieldsync.changes import REMOVING
from fieldsync.store import HEADLESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.changes import Name, Piece, TakenChange
    from fieldsync.record import Removal
    from fieldsync.store import Dot, Entry, Incarnation, Row, Scope, Writer

Place = tuple[int, str]  # collection, key


def locate(writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]) -> list[Target]:
    """The records that changes touch, each once, with all that is to be merged into it.

    ids and names: the collections of the chunk, by its own numbers for them.
    """
    pieces: dict[Incarnation, list[Piece]] = {}
    created: dict[Incarnation, Dot] = {}
    removals: dict[Incarnation, list[Removal]] = {}
    for change in taken:
        dot = (change.author, change.seq)
        for piece in change.pieces:
            pieces.setdefault(piece[:3], []).append(piece)
            if piece[:2] == dot:
                created[piece[:3]] = dot
        for removal in change.removals:
            removals.setdefault(removal[:3], []).append(removal)
    wanted = list(dict.fromkeys([*pieces, *removals]))
    kept = writer.removals_of(scope.id, {incarnation[:2] for incarnation in wanted})
    finder = _Finder(writer, scope, ids, names)
    finder.find(wanted, {incarnation: _name_of(found) for incarnation, found in pieces.items()})
    for incarnation in wanted:
        target = finder.target_of(incarnation)
        target.pieces += tuple([piece[4] for piece in pieces.get(incarnation, ())])
        if incarnation in created:
            target.created = {**(target.created or {}), created[incarnation]: incarnation[2]}
        if incarnation in removals or incarnation in kept:
            target.removals += (*removals.get(incarnation, ()), *kept.get(incarnation, ()))
    return finder.targets


def _name_of(found: list[Piece]) -> Name | None:
    return next((piece[3] for piece in found if piece[3] is not None), None)


class _Finder:
    """Looks incarnations up, a few queries a batch."""

    def __init__(self, writer: Writer, scope: Scope, ids: list[int], names: list[str]) -> None:
        self._writer = writer
        self._scope = scope
        self._collections = dict(zip(ids, names, strict=True))
        self._numbers = ids
        self._rows: dict[Place, Row] = {}
        self._by_place: dict[Place, Target] = {}
        self._by_incarnation: dict[Incarnation, Target] = {}
        self.targets: list[Target] = []

    def find(self, wanted: list[Incarnation], named: dict[Incarnation, Name | None]) -> None:
        """Find the targets of all."""
        orphans = {}
        if self._writer.has_orphans(self._scope.id):
            orphans = {row.incarnation: row for row in self._writer.orphans(self._scope.id, wanted)}
        places = {incarnation: (self._numbers[name[0]], name[1]) for incarnation, name in named.items() if name}
        for incarnation, orphan in orphans.items():
            if orphan.key is not None and orphan.collection != HEADLESS:
                places.setdefault(incarnation, (orphan.collection, orphan.key))
        # what comes again stays where it is, whatever it is called now
        again = self._provisional() if places else set()
        places |= self._by_index([one for one in wanted if one not in places or one[:2] in again])
        # what comes late for a record that was removed here is still that record's
        unknown = [incarnation for incarnation in wanted if incarnation not in places]
        places |= self._writer.names_of_removed(self._scope.id, unknown)
        self._fetch(place for place in set(places.values()) if place not in self._rows)
        for incarnation in wanted:
            target = self._target(places.get(incarnation))
            if incarnation in orphans:
                target.orphans += (orphans[incarnation],)
            self._by_incarnation[incarnation] = target

    def _provisional(self) -> set[Dot]:
        """The changes of which something is here, and which may come again."""
        ids = self._writer.dictionary.author_ids
        return {(ids[author], seq) for author, seq in self._writer.provisional_dots(self._scope.id)}

    def target_of(self, incarnation: Incarnation) -> Target:
        """The record that an incarnation belongs to."""
        return self._by_incarnation[incarnation]

    def _target(self, place: Place | None) -> Target:
        if place is None:
            target = Target()
        elif place in self._by_place:
            return self._by_place[place]
        else:
            target = self._by_place[place] = Target(place[0], self._name(place[0]), place[1], self._rows.get(place))
        self.targets.append(target)
        return target

    def _name(self, collection: int) -> str:
        if collection not in self._collections:
            self._collections.update({row.id: row.name for row in self._writer.collections()})
        return self._collections[collection]

    def _fetch(self, places: Iterable[Place]) -> None:
        """Look rows up by their keys."""
        keys: dict[int, list[str]] = {}
        for collection, key in places:
            keys.setdefault(collection, []).append(key)
        for collection, some in keys.items():
            rows = self._writer.by_key(collection, self._scope.id, some)
            self._rows.update({(collection, row.key): row for row in rows})

    def _by_index(self, wanted: list[Incarnation]) -> dict[Incarnation, Place]:
        """Where the index says that incarnations were created, if they still are there: row numbers are used again."""
        numbers: dict[int, dict[int, list[Incarnation]]] = {}  # collection -> row -> who may be there
        for incarnation, collection, number in self._indexed(wanted):
            numbers.setdefault(collection, {}).setdefault(number, []).append(incarnation)
        found: dict[Incarnation, Place] = {}
        for collection, expected in numbers.items():
            rows = [row for row in self._writer.by_id(collection, sorted(expected)) if row.scope == self._scope.id]
            held = record.incarnations(self._writer.dictionary, [row.packed for row in rows])
            for row, here in zip(rows, held, strict=True):
                for incarnation in expected[row.id]:
                    if incarnation in here:
                        found[incarnation] = place = (collection, row.key)
                        self._rows[place] = row
        return found

    def _indexed(self, wanted: list[Incarnation]) -> Iterable[tuple[Incarnation, int, int]]:
        """(incarnation, collection, row) as the index has them."""
        created: dict[Dot, list[Entry]] = {}
        for incarnation in wanted:
            dot, n = incarnation[:2], incarnation[2]
            if dot not in created:
                change = self._writer.change(self._scope.id, dot)
                known = change is not None and not change.flags & REMOVING
                created[dot] = [entry for entry in change.entries if entry.n >= 0] if change and known else []
            for collection, first, row, count in created[dot]:
                if first <= n < first + count:
                    yield incarnation, collection, row + n - first
