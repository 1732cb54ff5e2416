"""Moves between scopes: an app wishes one, in a register of the record; the hub that owns the scope executes it.

A move deletes the record in its scope and creates it in another, with the same key and values, in the transaction in
which the wish came. The hub remembers where it went and what its counters were, so that it can follow with what others
wrote meanwhile (forwarding.py). Letting anybody but one hub do this gives two live copies and wrong counters
(data-model.md, Moving between scopes).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import carrying, record
from fieldsync.apply import Target
from fieldsync.carrying import WISH, News
from fieldsync.errors import DataError
from fieldsync.forwarding import follow
from fieldsync.limits import MOVED_BYTES_MAX, MOVES_FOLLOWED_MAX
from fieldsync.store import Forward
from fieldsync.transaction import LocalChange, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.apply import Touched
    from fieldsync.carrying import Moved, Wholes
    from fieldsync.record import Dictionary
    from fieldsync.store import Dot, Row, Scope, Writer

Place = tuple[int, str]  # collection, key


def wish_of(dictionary: Dictionary, packed: bytes) -> str | None:
    """The scope that a packed record is to move to, if anybody wished one."""
    number = dictionary.field_ids.get(WISH)
    if number is None:
        return None
    (name,) = record.read(dictionary, packed, (number,), (None,))
    return name if isinstance(name, str) else None


def settle(
    writer: Writer,
    touched: list[Touched],
    owns: Callable[[str], bool],
    wall_ms: int,
    mint: Callable[[], bytes],
    may_write: Callable[[bytes, str], bool],
    is_heard: Callable[[bytes, int], bool],
) -> list[News]:
    """Execute the moves that a transaction asks for, and follow those of before with what it brought too late.

    may_write: whether an author may write in a scope; who wishes a record there has to. is_heard: see forwarding.py.
    """
    news = follow(writer, owns, wall_ms, mint, may_write, is_heard)
    touched = [*touched, *(one for some in news for one in some.touched)]
    for _ in range(MOVES_FOLLOWED_MAX):
        wishes = _wishes(writer, touched, owns)
        if not wishes:
            break
        executed = [
            one
            for (source, target), places in wishes.items()
            for one in _Move(writer, source, target, wall_ms, may_write).execute(places, mint)
        ]
        news += executed
        touched = [one for some in executed for one in some.touched]
    writer.take_late()  # the removals that this made
    return news


def _wishes(
    writer: Writer, touched: Iterable[Touched], owns: Callable[[str], bool]
) -> dict[tuple[str, str], list[Place]]:
    """(from, to) -> where the records are that are to move so."""
    found: dict[tuple[str, str], list[Place]] = defaultdict(list)
    dictionary = writer.dictionary
    if WISH not in dictionary.field_ids:
        return found
    places: dict[tuple[int, str], list[str]] = defaultdict(list)
    for collection, name, key in dict.fromkeys([one[:3] for one in touched if one.after and owns(one.scope)]):
        places[collection, name].append(key)
    for (collection, source), keys in places.items():
        scope = writer.scope(source)
        for row in writer.by_key(collection, scope.id, keys) if scope else ():
            target = wish_of(dictionary, row.packed)
            if target is not None and target != source:
                found[source, target].append((collection, row.key))
    return found


def _may_go(dictionary: Dictionary, row: Row, target: str, texts: Wholes) -> bool:
    try:
        check_names(target, row.key)
    except (TypeError, DataError):
        return False
    return carrying.can_be_carried(dictionary, row.packed, texts)


class _Leaving(NamedTuple):
    """A record that is to move."""

    collection: int
    row: Row
    counters: dict[int, Any]  # field id -> sum
    weight: int  # in bytes
    texts: dict[int, bytes]  # field id -> the one cell as which it moves


class _Move:
    """Moves records from one scope to another."""

    def __init__(
        self, writer: Writer, source: str, target: str, wall_ms: int, may_write: Callable[[bytes, str], bool]
    ) -> None:
        self._writer = writer
        self._may_write = may_write
        self._source = source
        self._target = target
        self._wall_ms = wall_ms
        self._names = {known.id: known.name for known in writer.collections()}

    def execute(self, places: list[Place], mint: Callable[[], bytes]) -> list[News]:
        """Move what can be moved, as many records at a time as one change may have."""
        return [
            news
            for some in carrying.batches(self._rows(places), lambda one: one.weight)
            for news in self._move(some, mint)
        ]

    def _rows(self, places: list[Place]) -> list[_Leaving]:
        """The records as they are by now: another move may have changed them."""
        scope = self._writer.scope(self._source)
        keys: dict[int, list[str]] = defaultdict(list)
        for collection, key in places:
            keys[collection].append(key)
        return [
            leaving
            for collection, some in keys.items()
            for row in (self._writer.by_key(collection, scope.id, some) if scope else ())
            if scope is not None
            and self._may_move(scope, row)
            and (leaving := self._leaving(collection, row)) is not None
        ]

    def _may_move(self, scope: Scope, row: Row) -> bool:
        """Whether who wished it may write there, as this replica itself always may."""
        dictionary = self._writer.dictionary
        (cells,) = record.stamps(dictionary, [row.packed])
        wishes = [
            (time, dictionary.author(author), author) for name, kind, author, _, time in cells if (name, kind) == WISH
        ]
        _, name, author = max(wishes, default=(0, b"", 0))
        return author == scope.author or self._may_write(name, self._target)

    def _leaving(self, collection: int, row: Row) -> _Leaving | None:
        """What is to move there and can."""
        dictionary = self._writer.dictionary
        if wish_of(dictionary, row.packed) != self._target:
            return None
        texts = carrying.wholes(dictionary, row.packed)
        if not _may_go(dictionary, row, self._target, texts):
            return None
        counters = carrying.counters(dictionary, row.packed)
        more = carrying.bytes_of(counters.values())
        if more is None:
            return None
        weight = carrying.weight(dictionary, row.packed, texts) + more
        return _Leaving(collection, row, counters, weight, texts.cells) if weight <= MOVED_BYTES_MAX else None

    def _move(self, rows: list[_Leaving], mint: Callable[[], bytes]) -> list[News]:
        """Delete here, create there."""
        leaving = LocalChange(self._writer, self._writer.enter(self._source, ready=True))
        for collection, row, *_ in rows:
            leaving.add(collection, self._names[collection], row.key, row).deletes = True
        gone = leaving.land(self._wall_ms, mint)
        arriving = LocalChange(self._writer, self._writer.enter(self._target, ready=True))
        scope = arriving.begin(self._wall_ms, mint)
        author, seq = scope.author, scope.seq + 1
        items = [(one.row.packed, (author, seq, n), scope.time, one.texts) for n, one in enumerate(rows)]
        moved = carrying.move(self._writer.dictionary, items, author, seq)
        self._writer.put_forwards(leaving.scope.id, self._forwards(rows, moved, (author, seq)))
        return [News(self._source, gone, leaving.dots), self._create(arriving, scope, rows, moved)]

    def _forwards(self, rows: list[_Leaving], moved: list[Moved], creation: Dot) -> Iterator[Forward]:
        every = carrying.totals(self._writer.dictionary, [one.row.packed for one in rows])
        for n, ((collection, row, *_), totals, (_, edited)) in enumerate(zip(rows, every, moved, strict=True)):
            heir = (*creation, n)
            for birth in record.births(row.packed):
                kept = carrying.dump_totals(totals.get(birth[:3], {}))
                since = edited.get(birth[:3], b"")
                yield Forward(birth[:3], self._target, heir, collection, row.key, kept, since, self._wall_ms)

    def _create(self, change: LocalChange, scope: Scope, rows: list[_Leaving], moved: list[Moved]) -> News:
        """Create the records, each as it read where it was."""
        dictionary = self._writer.dictionary
        author, seq, time = scope.author, scope.seq + 1, scope.time
        counted = [(n, tuple(one.counters), tuple(one.counters.values())) for n, one in enumerate(rows)]
        sums = record.create(dictionary, author, seq, time, counted)
        parts, targets = carrying.Parts(time), []
        for n, ((collection, row, counters, *_), (carried, _)) in enumerate(zip(rows, moved, strict=True)):
            there = next(iter(self._writer.by_key(collection, scope.id, [row.key])), None)
            pieces = (*[piece.packed for piece in carried], *([sums[n]] if counters else ()))
            target = Target(collection, self._names[collection], row.key, there, pieces=pieces)
            target.created = {(author, seq): n}
            parts.add(carried, len(counters))
            targets.append(target)
        return parts.put(change, scope, targets)
