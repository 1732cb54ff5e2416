"""What follows from the cells of a file, computed again from them: columns, digests and the change index.

docs/format.md (What follows from what) lists both. verify.py compares by the same means, and mends.
"""

from __future__ import annotations

from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import record
from fieldsync.changes import GROUPED, REMOVING
from fieldsync.columns import convert
from fieldsync.entries import compress, compress_removals, expand
from fieldsync.limits import TIME_MAX
from fieldsync.query import column_value
from fieldsync.sqlite.sorting import Sorter
from fieldsync.store import HEADLESS, ChangeRow, Dot, Entry, Incarnation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fieldsync.record import Dictionary, Name, Removal
    from fieldsync.store import Reader, Scope, Writer


class Held(NamedTuple):
    """One row of records, or of orphans."""

    collection: int  # HEADLESS for an orphan, as in the index
    id: int
    name: Name | None  # collection and key; of an orphan None while they are not known
    packed: bytes
    orphan: Incarnation | None

    @property
    def place(self) -> tuple[int, int]:
        """How the index names it."""
        return self.collection, self.id


class Living(NamedTuple):
    """Where a change has cells: how many, the index's entries, and (row, time) of what it created."""

    cells: int
    entries: list[Entry]
    born: list[tuple[Entry, int]]


class Indexed(NamedTuple):
    """One change, by all that tells of it."""

    dot: Dot
    change: ChangeRow | None  # as the index has it
    is_readable: bool  # whether its entries were
    living: Living | None
    removals: list[Removal]


def rebuild(writer: Writer, scopes: Sequence[Scope] | None = None, tell: Callable[[int], object] | None = None) -> None:
    """Compute columns, digests and the change index of some scopes, or all, again from nothing but the cells.

    Of all, SQLite's indexes too. Corrupt where cells cannot be read. tell(rows) is called with how many more were done.
    """
    if scopes is None:
        writer.reindex()
    writer.forget_edits()
    for scope in writer.scopes() if scopes is None else scopes:
        tally = Tally(writer.dictionary, scope)
        for some in held_rows(writer, scope):
            tally.add(some)
            _refill(writer, some)
            if tell:
                tell(len(some))
        different = [(one, right) for one in indexed(writer, scope, tally) if (right := index_row(one)) != one.change]
        writer.delete_changes(scope.id, [one.dot for one, right in different if right is None])
        writer.put_changes(scope.id, [right for _, right in different if right is not None])
        writer.save_scope(scope._replace(digest=tally.digest))


def held_rows(reader: Reader, scope: Scope) -> Iterator[list[Held]]:
    """All rows of a scope, some at a time; those of one list are of one collection."""
    names = {row.id: row.name for row in reader.collections()}
    for collection, rows in reader.records(scope.id):
        yield [Held(collection, row.id, (names[collection], row.key), row.packed, None) for row in rows]
    for orphans in reader.all_orphans(scope.id):
        yield [
            Held(HEADLESS, one.id, (names.get(one.collection, ""), one.key or ""), one.packed, one.incarnation)
            for one in orphans
        ]


class Tally:
    """What the cells of a scope add up to: its digest, and where each change has cells."""

    def __init__(self, dictionary: Dictionary, scope: Scope) -> None:
        self.digest = bytes(16)
        self._dictionary = dictionary
        self._key = record.digest_key(scope.name)
        self._places = Sorter(7)  # author, seq, collection, row, n, cells, time of creation

    def add(self, some: list[Held]) -> None:
        """Take rows in; Corrupt, and nothing taken, where one cannot be read."""
        counts, difference = weigh(self._dictionary, self._key, some)
        self.digest = record.add_digests(self.digest, difference)
        for one, shares in zip(some, counts, strict=True):
            born = {} if one.orphan else {birth[:2]: birth for birth in record.births(one.packed)}
            nothing = record.Birth(0, 0, -1, 0)
            self._places.add(
                (author, seq, *one.place, birth.n, cells, birth.time)
                for author, seq, cells in shares
                for birth in (born.get((author, seq), nothing),)
            )

    def __iter__(self) -> Iterator[tuple[Dot, Living]]:
        for dot, rows in groupby(self._places, key=itemgetter(0, 1)):
            cells, entries, born = 0, [], []
            for _, _, collection, row, n, count, time in rows:
                cells += count
                entries.append(Entry(collection, n, row, 1))
                if n >= 0:
                    born.append((entries[-1], time))
            yield dot, Living(cells, compress(entries), born)


def weigh(dictionary: Dictionary, key: bytes, some: list[Held]) -> tuple[list[record.Events], bytes]:
    """Of each row (author id, seq, cells) of the changes that live in it, and what all add to the digest."""
    items: list[record.MergeItem] = [((), (one.packed,), (), one.name) for one in some]
    outcomes, difference = record.merge_all(dictionary, key, items)
    return [outcome[2] if outcome else () for outcome in outcomes], difference


def misfits(reader: Reader, some: list[Held]) -> list[Held]:
    """The records whose columns do not show what their cells say."""
    collection = next((row for row in reader.collections() if some and row.id == some[0].collection), None)
    if collection is None or not collection.columns:
        return []
    ids = reader.dictionary.field_ids
    wanted = tuple(ids.get(column.cell, 0) for column in collection.columns)
    absent = tuple(column_value(column.default) for column in collection.columns)
    right = record.widen(reader.dictionary, [(one.packed,) for one in some], wanted, absent, column_value)
    right = list(convert(reader.dictionary, collection.columns, wanted, right))
    shown = reader.shown(collection, [one.id for one in some])
    return [one for one, row in zip(some, right, strict=True) if shown.get(one.id) != row[:-1]]


def _refill(writer: Writer, some: list[Held]) -> None:
    wrong = misfits(writer, some)
    if wrong:
        writer.update_rows(wrong[0].collection, [(one.id, one.packed) for one in wrong])


def indexed(reader: Reader, scope: Scope, tally: Tally) -> Iterator[Indexed]:
    """Every change of which anything lives, is kept or is in the index, in the order of dots."""
    streams: list[Iterator[tuple[Dot, str, Any]]] = [
        (((change.author, change.seq), "index", (change, readable)) for change, readable in reader.indexed(scope.id)),
        ((dot, "living", living) for dot, living in tally),
        ((dot, "removals", list(map(itemgetter(1), some))) for dot, some in _by_dot(reader, scope)),
    ]
    for dot, group in groupby(merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        told = {what: value for _, what, value in group}
        change, readable = told.get("index", (None, True))
        yield Indexed(dot, change, readable, told.get("living"), told.get("removals", []))


def _by_dot(reader: Reader, scope: Scope) -> Iterator[tuple[Dot, Iterator[tuple[Dot, Removal]]]]:
    return groupby(reader.removal_log(scope.id), key=itemgetter(0))


def index_row(one: Indexed) -> ChangeRow | None:
    """What the index has to say of a change; None where nothing of it is here."""
    if one.living:
        live, entries, flags = one.living.cells, one.living.entries, 0
    elif one.removals:
        live, entries, flags = len(one.removals), compress_removals(one.removals), REMOVING
    else:
        return None
    change = one.change
    if change is None or not has_facts(one):
        # what is not known makes it a change that is not here whole: nobody vouches for it
        return ChangeRow(*one.dot, _birthday(one) or 0, flags, live + 1, live, entries)
    return change._replace(live=live, entries=entries, time=_birthday(one) or change.time)


def has_facts(one: Indexed) -> bool:
    """Whether the index has of a change what does not follow from its cells."""
    change = one.change
    if change is None or change.flags & ~(GROUPED | REMOVING) or not 0 <= change.time <= TIME_MAX:
        return False
    live = one.living.cells if one.living else len(one.removals)
    return bool(change.flags & REMOVING) == (one.living is None) and live <= change.parts < TIME_MAX


def is_behind(one: Indexed) -> bool:
    """Whether the index leaves out, or miscounts, what lives of a change whose facts it has."""
    change, birthday = one.change, _birthday(one)
    assert change is not None
    if not one.is_readable or (birthday is not None and birthday != change.time):
        return True
    if one.living is None:
        named = {(run.collection, run.n, run.row + i) for run in change.entries for i in range(run.count)}
        return named != {removal[:3] for removal in one.removals} or change.live != len(one.removals)
    if change.live < one.living.cells:
        return True
    if change.entries == one.living.entries:
        return False
    entries = set(expand(change.entries))
    places = {(entry.collection, entry.row) for entry in entries}
    return any(
        (entry.collection, entry.row) not in places or (entry.n >= 0 and entry not in entries)
        for entry in expand(one.living.entries)
    )


def _birthday(one: Indexed) -> int | None:
    """The time of a change by what it created, if that lives and is of one mind."""
    times = {time for _, time in one.living.born} if one.living else set()
    return times.pop() if len(times) == 1 else None
