"""Carrying records over to other incarnations: what a move between scopes, and what follows it, writes.

Values are copied as the bytes that they are, so what a later version's types hold comes along. Counters are not: who
carries them writes under an author of its own, so it writes their sums, or by how much they differ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from itertools import zip_longest
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fieldsync import codec, record
from fieldsync._native import carry as _kernel
from fieldsync.apply import Arrival
from fieldsync.changes import GROUPED
from fieldsync.limits import CHANGE_RECORDS_MAX, MOVED_BYTES_MAX, MOVED_INCARNATIONS_MAX, MOVED_UPDATES_MAX
from fieldsync.types import HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.apply import Target, Touched
    from fieldsync.context import Context
    from fieldsync.record import Dictionary
    from fieldsync.store import Incarnation, Scope
    from fieldsync.transaction import LocalChange

T = TypeVar("T")
WISH = ("_scope", int(Kind.REGISTER))  # the field that says where a record is to move
Totals = dict[tuple[str, bytes], Any]  # (counter's field, author) -> total


class News(NamedTuple):
    """What a change of the hub's own did in one scope."""

    scope: str
    touched: list[Touched]
    dots: Context


class Carried(NamedTuple):
    """A record under another name: a piece for each of several changes, as (packed, cells), and the lowest time."""

    pieces: list[tuple[bytes, int]]
    lowest: int


class Parts:
    """How many cells several changes are made of, one change after the other."""

    def __init__(self) -> None:
        self._counts: list[int] = []

    def add(self, carried: Carried, more: int) -> None:
        """Add what was carried, and some more cells of the first change."""
        counts = [cells for _, cells in carried.pieces] or [0]
        counts[0] += more
        self._counts = [sum(pair) for pair in zip_longest(self._counts, counts, fillvalue=0)]

    def __bool__(self) -> bool:
        return any(self._counts)

    def put(self, change: LocalChange, scope: Scope, targets: list[Target], time: int) -> News:
        """Land those changes, as one group."""
        arrivals = [
            Arrival((scope.author, scope.seq + 1 + place), time, GROUPED if place else 0, count, [])
            for place, count in enumerate(self._counts)
        ]
        touched = change.put(scope._replace(seq=scope.seq + len(arrivals)), targets, arrivals)
        return News(scope.name, touched, change.dots)


def weight(dictionary: Dictionary, packed: bytes) -> int:
    """How many bytes of a change cells take: written in one place, removed in another."""
    return max(len(packed), sum(len(item) for *_, item in record.removals(dictionary, packed)))


def can_be_carried(dictionary: Dictionary, packed: bytes) -> bool:
    """Whether changes within their bounds can carry cells, and none of them is a counter's of an unknown type."""
    (stamps,) = record.stamps(dictionary, [packed])
    if weight(dictionary, packed) > MOVED_BYTES_MAX:
        return False
    if any(kind & PER_AUTHOR and kind != Kind.COUNTER for _, kind, *_ in stamps):
        return False
    updates = Counter((name, kind) for name, kind, *_ in stamps if kind & SIDE_BY_SIDE and not kind & HAS_SUB)
    if updates and max(updates.values()) > MOVED_UPDATES_MAX:
        return False
    return len(record.births(packed)) <= MOVED_INCARNATIONS_MAX


def carry(
    dictionary: Dictionary, items: list[tuple[bytes, Incarnation, int, bool]], author: int, seq: int
) -> list[Carried]:
    """Records (packed, new name, its time, whether it lives already) under that name, by changes seq, seq + 1 ..."""
    without = dictionary.field_ids.get(WISH, 0)
    return [Carried(*one) for one in _kernel.carry(items, author, seq, without, dictionary.fields, dictionary.authors)]


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
