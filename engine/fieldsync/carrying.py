"""Carrying records over to other incarnations: what a move between scopes, and what follows it, writes.

Values are copied as the bytes that they are, so what a later version's types hold comes along. Counters are not: who
carries them writes under an author of its own, so it writes their sums, or by how much they differ. A text moves as
one update, where all of its updates can be read; each takes a change of its own otherwise.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fieldsync import codec, record, texts
from fieldsync._native import carry as _kernel
from fieldsync.apply import Arrival
from fieldsync.changes import GROUPED
from fieldsync.documents import as_varint
from fieldsync.limits import (
    CHANGE_RECORDS_MAX,
    MOVED_BYTES_MAX,
    MOVED_INCARNATIONS_MAX,
    MOVED_UPDATES_MAX,
    TEXT_BYTES_MAX,
)
from fieldsync.store import KILLS
from fieldsync.types import HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.apply import Target, Touched
    from fieldsync.context import Context
    from fieldsync.record import Dictionary, Removal
    from fieldsync.store import Dot, Forward, Incarnation, OrphanRow, Scope
    from fieldsync.transaction import LocalChange

T = TypeVar("T")
WISH = ("_scope", int(Kind.REGISTER))  # the field that says where a record is to move
Totals = dict[tuple[str, bytes], Any]  # (counter's field, author) -> total
Address = tuple[int, bytes]  # field id, sub
Seen = dict[Address, set[tuple[int, int]]]  # dots, in the numbers of the file


class News(NamedTuple):
    """What a change of the hub's own did in one scope."""

    scope: str
    touched: list[Touched]
    dots: Context


class Piece(NamedTuple):
    """What one of several changes writes of a record under another name."""

    packed: bytes
    cells: int
    lowest: int  # time of a cell


class Wholes(NamedTuple):
    """What texts, lists and maps of a record move as that can move as one update each."""

    cells: dict[int, bytes]  # by field id: the value of its one cell
    saved: int  # bytes by which that is less than their updates


NONE_WHOLE = Wholes({}, 0)


class Moved(NamedTuple):
    """A record under another name, and of each incarnation that it had which cells were edited since its creation."""

    pieces: list[Piece]
    edited: dict[Incarnation, bytes]


class Parts:
    """How many cells several changes are made of, one change after the other, and their times."""

    def __init__(self, time: int) -> None:
        self._time = time
        self._cells: list[int] = []
        self._times: list[int] = []

    def add(self, pieces: list[Piece], more: int) -> None:
        """Add what was carried, and some more cells of the first change, of its time."""
        for place, piece in enumerate(pieces):
            self._note(place, piece.cells, piece.lowest)
        if more:
            self._note(0, more, self._time)

    def _note(self, place: int, cells: int, lowest: int) -> None:
        if place == len(self._cells):
            self._cells.append(0)
            self._times.append(self._time)
        self._cells[place] += cells
        self._times[place] = min(self._times[place], lowest)  # no cell's may be below its change's

    def __bool__(self) -> bool:
        return bool(self._cells)

    def put(self, change: LocalChange, scope: Scope, targets: list[Target]) -> News:
        """Land those changes, as one group."""
        arrivals = [
            Arrival((scope.author, scope.seq + 1 + place), time, GROUPED if place else 0, cells, [])
            for place, (cells, time) in enumerate(zip(self._cells, self._times, strict=True))
        ]
        touched = change.put(scope._replace(seq=scope.seq + len(arrivals)), targets, arrivals)
        return News(scope.name, touched, change.dots)


def wholes(dictionary: Dictionary, packed: bytes) -> Wholes:
    """The texts, lists and maps of a record as one update each, where that loses nothing.

    Of several incarnations the texts are several, of which one is read: those are not made one.
    """
    cells: dict[int, bytes] = {}
    saved = 0
    if len(record.births(packed)) > 1:
        return NONE_WHOLE
    for number, updates in record.updates(dictionary, packed).items():
        whole = texts.merged(updates) if len(updates) > 1 else None
        if whole is not None and len(whole) <= TEXT_BYTES_MAX:
            cells[number] = codec.encode(whole)
            saved += sum(map(len, updates)) - len(cells[number])
    return Wholes(cells, saved)


def weight(dictionary: Dictionary, packed: bytes, moved: Wholes = NONE_WHOLE) -> int:
    """How many bytes of a change cells take: written in one place, removed in another."""
    return max(len(packed) - moved.saved, sum(len(item) for *_, item in record.removals(dictionary, packed)))


def can_be_carried(dictionary: Dictionary, packed: bytes, moved: Wholes = NONE_WHOLE) -> bool:
    """Whether changes within their bounds can carry cells, and none of them is a counter's of an unknown type."""
    (stamps,) = record.stamps(dictionary, [packed])
    if weight(dictionary, packed, moved) > MOVED_BYTES_MAX:
        return False
    if any(kind & PER_AUTHOR and kind != Kind.COUNTER for _, kind, *_ in stamps):
        return False
    updates = Counter((name, kind) for name, kind, *_ in stamps if kind & SIDE_BY_SIDE and not kind & HAS_SUB)
    for number in moved.cells:
        del updates[dictionary.field_names[number]]
    if updates and max(updates.values()) > MOVED_UPDATES_MAX:
        return False
    return len(record.births(packed)) <= MOVED_INCARNATIONS_MAX


def move(
    dictionary: Dictionary, items: list[tuple[bytes, Incarnation, int, dict[int, bytes]]], author: int, seq: int
) -> list[Moved]:
    """Records (packed, new name, its time, its wholes) as the changes seq, seq + 1 ... create them under that name."""
    without = dictionary.field_ids.get(WISH, 0)
    every = _kernel.move(items, author, seq, without, dictionary.fields, dictionary.authors)
    return [Moved([Piece(*piece) for piece in pieces], dict(edited)) for pieces, edited in every]


def follow(
    dictionary: Dictionary, items: list[tuple[bytes, Incarnation, Seen]], author: int, seq: int
) -> list[list[Piece]]:
    """What came late (packed, new name, what it sees there) as changes seq, seq + 1 ... write it."""
    every = _kernel.follow(items, author, seq, dictionary.fields, dictionary.authors)
    return [[Piece(*piece) for piece in pieces] for pieces in every]


# What late cells had seen ---------------------------------------------------------------------------------------------
#
# A forward remembers the registers that were edited before the move, and those that came late, without their values. In
# the place of its value, each has the dot under which the hub wrote it elsewhere, or nothing where the move did that.


class Register(NamedTuple):
    """A cell that neither lives side by side with others nor is an author's own."""

    at: Address
    dot: Dot
    value: bytes
    seen: tuple[Dot, ...]  # as it names them: of each author all up to a seq


def registers(dictionary: Dictionary, packed: bytes) -> list[Register]:
    """Those of a packed record."""
    every = _kernel.registers(packed, dictionary.fields, dictionary.authors)
    return [Register((number, sub), dot, value, named) for number, sub, dot, value, named in every]


def seen(
    dictionary: Dictionary, forward: Forward, pieces: tuple[bytes, ...], removals: tuple[Removal, ...]
) -> set[tuple[Address, Dot]]:
    """Which of the cells that a forward remembers late ones had seen, or removals: those that they replace."""
    if not forward.edited:
        return set()
    left = {cell[:2] for cell in registers(dictionary, _merged(dictionary, forward.edited, pieces, removals))}
    return {cell[:2] for cell in registers(dictionary, forward.edited) if cell[:2] not in left}


def translated(dictionary: Dictionary, forward: Forward, found: set[tuple[Address, Dot]]) -> set[tuple[Address, Dot]]:
    """What cells that were seen, or there since the creation, are where the record moved to; and what else was seen."""
    moved = forward.heir[0], forward.heir[1] + 1  # what was edited comes in the change after the creation
    there = {
        (cell.at, moved if (dot := codec.decode(cell.value)) is None else tuple(dot))
        for cell in registers(dictionary, forward.edited)
        if cell[:2] in found or cell.dot == forward.incarnation[:2]
    }
    return found | there


def remembering(dictionary: Dictionary, forward: Forward, packed: bytes, dot: Dot) -> Forward:
    """A forward that knows under which dot late cells were written elsewhere; the same where that is too much."""
    late = _kernel.stripped(packed, codec.encode([*dot]), dictionary.fields, dictionary.authors)
    edited = _merged(dictionary, forward.edited, (late,)) if late else forward.edited
    return forward._replace(edited=edited) if len(edited) <= MOVED_BYTES_MAX else forward


def _merged(
    dictionary: Dictionary, packed: bytes, pieces: tuple[bytes, ...], removals: tuple[Removal, ...] = ()
) -> bytes:
    """What is left of cells without their record."""
    olds = (packed,) if packed else ()
    ((outcome,), _) = record.merge_all(dictionary, bytes(16), [(olds, pieces, removals, None)])
    return b"".join(orphan[3] for orphan in outcome[1]) if outcome else packed


def topmost(dictionary: Dictionary, orphans: list[OrphanRow]) -> list[bytes]:
    """The cells of each, but of registers at one address in all of them the topmost alone; b"" where none is left."""
    every = [registers(dictionary, orphan.packed) for orphan in orphans]
    dots: Seen = defaultdict(set)
    for cell in itertools.chain(*every):
        dots[cell.at].add(cell.dot)
    rivals = {at: some for at, some in dots.items() if len(some) > 1}
    if not rivals:
        return [orphan.packed for orphan in orphans]
    times = {
        (dictionary.field_ids[name, kind], author, seq): time
        for some in record.stamps(dictionary, [orphan.packed for orphan in orphans])
        for name, kind, author, seq, time in some
    }
    top = {
        at: max((times[(at[0], *dot)], dictionary.author(dot[0]), dot) for dot in some)[2]
        for at, some in rivals.items()
    }
    return [
        _without(dictionary, orphan, {cell for cell in some if cell.at in top and cell.dot != top[cell.at]})
        for orphan, some in zip(orphans, every, strict=True)
    ]


def heard(dictionary: Dictionary, orphan: OrphanRow, may_wish: Callable[[bytes, int, str], bool]) -> OrphanRow:
    """Cells without their record, but for wishes (author, seq, scope) that may not be made."""
    number = dictionary.field_ids.get(WISH)
    wishes = [cell for cell in registers(dictionary, orphan.packed) if cell.at[0] == number] if number else []
    unheard = {
        cell
        for cell in wishes
        if type(to := codec.decode(cell.value)) is str and not may_wish(dictionary.author(cell.dot[0]), cell.dot[1], to)
    }
    return orphan._replace(packed=_without(dictionary, orphan, unheard))


def _without(dictionary: Dictionary, orphan: OrphanRow, some: set[Register]) -> bytes:
    """What is left of cells without their record when some are taken away."""
    if not some:
        return orphan.packed
    dots: Seen = defaultdict(set)
    for cell in some:
        dots[cell.at].add(cell.dot)
    named = [bytes([0]), as_varint(len(dots))]
    for (number, sub), few in sorted(dots.items()):
        named.append(as_varint(number))
        if dictionary.field_names[number][1] & HAS_SUB:
            named += [as_varint(len(sub)), sub]
        named += [as_varint(0), as_varint(len(few)), *(as_varint(part) for dot in sorted(few) for part in dot)]
    return _merged(dictionary, orphan.packed, (), ((*orphan.incarnation, b"".join(named)),))


def killing(dictionary: Dictionary, sees: Seen) -> bytes:
    """The removal of an incarnation that had seen what it was created with and, at some addresses, other cells."""
    found = [bytes([KILLS]), as_varint(len(sees))]
    for (number, sub), dots in sorted(sees.items()):
        found.append(as_varint(number))
        if dictionary.field_names[number][1] & HAS_SUB:
            found += [as_varint(len(sub)), sub]
        vector = sorted(dict(sorted(dots)).items())
        found += [as_varint(len(vector)), *(as_varint(part) for dot in vector for part in dot), as_varint(0)]
    return b"".join(found)


def batches(items: Iterable[T], weigh: Callable[[T], int]) -> Iterator[list[T]]:
    """As many items at a time as one change may have, by the bytes that they take."""
    some: list[T] = []
    size = 0
    for item in items:
        more = weigh(item)
        if some and (len(some) == CHANGE_RECORDS_MAX or size + more > MOVED_BYTES_MAX):
            yield some
            some, size = [], 0
        some.append(item)
        size += more
    if some:
        yield some


# Counters -------------------------------------------------------------------------------------------------------------


def counters(dictionary: Dictionary, packed: bytes) -> dict[int, Any]:
    """The sums of a record's counters, by field id; those that are 0 left out."""
    (stamps,) = record.stamps(dictionary, [packed])
    ids = tuple(dict.fromkeys(dictionary.field_ids[name, kind] for name, kind, *_ in stamps if kind == Kind.COUNTER))
    sums = record.read(dictionary, packed, ids, (0,) * len(ids)) if ids else ()
    return {number: total for number, total in zip(ids, sums, strict=True) if total}


def totals(dictionary: Dictionary, records: list[bytes]) -> list[dict[Incarnation, Totals]]:
    """By incarnation, what each author's total of each counter is; what is no number is left out."""
    every = []
    for found in _kernel.totals(records, dictionary.fields, dictionary.authors):
        by_name: dict[Incarnation, Totals] = defaultdict(dict)
        for incarnation, number, author, value in found:
            name, kind = dictionary.field_names[number]
            total = codec.decode(value)
            if kind == Kind.COUNTER and _is_number(total):
                by_name[incarnation][name, dictionary.author(author)] = total
        every.append(dict(by_name))
    return every


def differences(now: Totals, before: Totals) -> dict[str, Any]:
    """By how much each counter is higher than it was. ArithmeticError where no number says that."""
    found: dict[str, Any] = {}
    for (name, author), total in now.items():
        found[name] = codec.add(found.get(name, 0), codec.subtract(total, before.get((name, author), 0)))
    return found


def dump_totals(some: Totals) -> bytes:
    """Totals as a file keeps them."""
    return codec.encode([[name, author, total] for (name, author), total in sorted(some.items())]) if some else b""


def load_totals(data: bytes) -> Totals:
    """The inverse of dump_totals."""
    return {(name, author): total for name, author, total in codec.decode(data)} if data else {}


def _is_number(total: object) -> bool:
    if isinstance(total, float):
        return isfinite(total)
    return type(total) is int or (isinstance(total, Decimal) and total.is_finite())


def bytes_of(totals: Iterable[object]) -> int | None:
    """The bytes that counters' totals take; None where one is none: a finite number that has a code."""
    size = 0
    for total in totals:
        if not _is_number(total):
            return None
        try:
            size += len(codec.encode(total))
        except (TypeError, ValueError, OverflowError):
            return None
    return size
