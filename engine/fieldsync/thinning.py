"""What was taken out of a record that was moved, by who had not heard of that: elements of sets, and erased fields.

It is taken out where the record lives now if who did it had seen just what moved. Who had seen less leaves what he had
not seen; who had seen more, as one who dismisses a late edit has, does not speak of what moved alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.documents import as_varint
from fieldsync.errors import Corrupt
from fieldsync.types import HAS_SUB, SIDE_BY_SIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fieldsync.record import Dictionary
    from fieldsync.store import Dot

    Address = tuple[int, bytes]  # field id, sub


def named(dictionary: Dictionary, item: bytes) -> dict[Address, set[Dot]]:
    """The dots that a packed removal names, address by address. Corrupt where it is damaged."""
    try:
        return dict(_read(dictionary, item))
    except (IndexError, KeyError):
        raise Corrupt("a packed removal is damaged") from None


def _read(dictionary: Dictionary, item: bytes) -> Iterator[tuple[Address, set[Dot]]]:
    count, at = record.varint(item, 1)  # behind the flags
    for _ in range(count):
        number, at = record.varint(item, at)
        sub, dots = b"", set()
        if dictionary.field_names[number][1] & HAS_SUB:
            size, at = record.varint(item, at)
            sub, at = item[at : at + size], at + size
        for _ in ("vector", "exact"):
            pairs, at = record.varint(item, at)
            for _ in range(pairs):
                author, at = record.varint(item, at)
                seq, at = record.varint(item, at)
                dots.add((author, seq))
        yield (number, sub), dots


def of_what_moved(dictionary: Dictionary, late: bytes, moved: bytes, creation: Dot) -> set[Address]:
    """Where a late removal had seen just what the move had, which removed the record that `creation` made."""
    there = named(dictionary, moved)  # which leaves out what the creation wrote
    taken = named(dictionary, late).items()
    return {at for at, dots in taken if dots - {creation} == there.get(at, set()) - {creation}}


def untouched(dictionary: Dictionary, moved: bytes, heir: Dot, some: Iterable[Address]) -> set[Address]:
    """Those of some addresses at which nobody had written to an heir when it was moved on itself."""
    there = named(dictionary, moved)
    return {at for at in some if there.get(at, set()) <= brought(heir)}


def brought(heir: Dot) -> set[Dot]:
    """The changes by which a move made an heir: it creates it, and the next one brings what had been edited."""
    return {heir, (heir[0], heir[1] + 1)}


def removing(dictionary: Dictionary, living: bytes, heir: Dot, some: Iterable[Address]) -> bytes:
    """The removal of what a move brought to some addresses of an heir, which is packed; empty where nothing is left."""
    parts = []
    for number, sub in sorted(some):
        kind = dictionary.field_names[number][1]
        dots = sorted(_brought(_living(dictionary, living, (number, sub)), kind, heir))
        pairs = [as_varint(len(dots)), *(as_varint(part) for dot in dots for part in dot)]
        head = [as_varint(number), *([as_varint(len(sub)), sub] if kind & HAS_SUB else [])]
        if dots:
            parts.append(b"".join([*head, b"\0", *pairs] if kind & SIDE_BY_SIDE else [*head, *pairs, b"\0"]))
    return b"\0" + as_varint(len(parts)) + b"".join(parts) if parts else b""


def _brought(here: set[Dot], kind: int, heir: Dot) -> set[Dot]:
    """Those that a move brought; of a text, which is one cell then, only if nobody has built on it."""
    if kind & SIDE_BY_SIDE and not kind & HAS_SUB and here != {heir}:
        return set()
    return here & brought(heir)


def _living(dictionary: Dictionary, living: bytes, at: Address) -> set[Dot]:
    """The dots of the cells at an address."""
    field = dictionary.field_names[at[0]]
    if field[1] & HAS_SUB:
        removals = record.removals_at(dictionary, living, {at})
        return {dot for *_, item in removals for dot in named(dictionary, item)[at]}
    (stamps,) = record.stamps(dictionary, [living])
    return {stamp[2:4] for stamp in stamps if stamp[:2] == field}
