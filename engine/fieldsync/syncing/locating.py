"""Where the incarnations of received changes live: by the index, by their key, or among the orphans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.apply import Target
from fieldsync.changes import REMOVING
from fieldsync.store import HEADLESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.changes import Name, TakenChange
    from fieldsync.store import Dot, Entry, Incarnation, Row, Scope, Writer

Place = tuple[int, str]  # collection, key


def locate(writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]) -> list[Target]:
    """The records that changes touch, each once, with all that is to be merged into it.

    ids and names: the collections of the chunk, by its own numbers for them.
    """
    targets: dict[Incarnation, Target] = {}
    named: dict[Incarnation, Name] = {}
    for change in taken:
        dot = (change.author, change.seq)
        for author, seq, n, name, packed in change.pieces:
            incarnation = (author, seq, n)
            target = targets.get(incarnation)
            if target is None:
                target = targets[incarnation] = Target()
            target.pieces += (packed,)
            if name is not None:
                named.setdefault(incarnation, name)
            if (author, seq) == dot:
                target.created = {dot: n}
        for removal in change.removals:
            targets.setdefault(removal[:3], Target()).removals += (removal,)
    for incarnation, kept in writer.removals_of(scope.id, {one[:2] for one in targets}).items():
        if incarnation in targets:
            targets[incarnation].removals += tuple(kept)
    return _Finder(writer, scope, ids, names).find(targets, named)


class _Finder:
    """Looks incarnations up, a few queries a batch."""

    def __init__(self, writer: Writer, scope: Scope, ids: list[int], names: list[str]) -> None:
        self._writer = writer
        self._scope = scope
        self._collections = dict(zip(ids, names, strict=True))
        self._numbers = ids
        self._rows: dict[Place, Row] = {}

    def find(self, targets: dict[Incarnation, Target], named: dict[Incarnation, Name]) -> list[Target]:
        """Say of each target where it is; those of one record become one."""
        orphans = {}
        if self._writer.has_orphans(self._scope.id):
            orphans = {row.incarnation: row for row in self._writer.orphans(self._scope.id, list(targets))}
        places = {incarnation: (self._numbers[name[0]], name[1]) for incarnation, name in named.items()}
        for incarnation, orphan in orphans.items():
            targets[incarnation].orphans = (orphan,)
            if orphan.key is not None and orphan.collection != HEADLESS:
                places.setdefault(incarnation, (orphan.collection, orphan.key))
        # what comes again stays where it is, whatever it is called now
        again = self._provisional() if places else set()
        places |= self._by_index([one for one in targets if one not in places or one[:2] in again])
        # what comes late for a record that was removed here is still that record's
        unknown = [incarnation for incarnation in targets if incarnation not in places]
        places |= self._writer.names_of_removed(self._scope.id, unknown)
        self._fetch([place for place in set(places.values()) if place not in self._rows])
        by_place: dict[Place, Target] = {}
        for incarnation, place in places.items():
            target = targets[incarnation]
            first = by_place.setdefault(place, target)
            if first is target:
                collection, target.key = place
                target.collection, target.collection_name = collection, self._name(collection)
                target.row = self._rows.get(place)
            else:
                first.join(targets.pop(incarnation))
        return list(targets.values())

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
            keys.setdefault(collection, []).append(key)
        for collection, some in keys.items():
            rows = self._writer.by_key(collection, self._scope.id, some)
            self._rows.update({(collection, row.key): row for row in rows})

    def _by_index(self, wanted: list[Incarnation]) -> dict[Incarnation, Place]:
        """Where the index says that incarnations were created, if they still are there: row numbers are used again."""
        found: dict[Incarnation, Place] = {}
        for collection, (numbers, expected) in self._indexed(wanted).items():
            rows = [row for row in self._writer.by_id(collection, sorted(set(numbers))) if row[1] == self._scope.id]
            names = record.incarnations(self._writer.dictionary, [row[3] for row in rows])
            held = {row[0]: (row, here) for row, here in zip(rows, names, strict=True)}
            for number, incarnation in zip(numbers, expected, strict=True):
                row, here = held.get(number, (None, ()))
                if row is not None and incarnation in here:
                    found[incarnation] = place = (collection, row[2])
                    self._rows[place] = row
        return found

    def _indexed(self, wanted: list[Incarnation]) -> dict[int, tuple[list[int], list[Incarnation]]]:
        """By collection, rows and the incarnation that the index has in each."""
        expected: dict[int, tuple[list[int], list[Incarnation]]] = {}
        creations: dict[Dot, list[Entry]] = {}
        for incarnation in wanted:
            author, seq, n = incarnation
            entries = creations.get((author, seq))
            if entries is None:
                entries = creations[author, seq] = self._creations((author, seq))
            for collection, first, row, count in entries:
                if first <= n < first + count:
                    numbers, incarnations = expected.setdefault(collection, ([], []))
                    numbers.append(row + n - first)
                    incarnations.append(incarnation)
        return expected

    def _creations(self, dot: Dot) -> list[Entry]:
        """Where a change created records."""
        change = self._writer.change(self._scope.id, dot)
        known = change is not None and not change.flags & REMOVING
        return [entry for entry in change.entries if entry.n >= 0] if change and known else []
