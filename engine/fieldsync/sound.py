"""Whether rows and removals are sound: the same again after the way they would take to a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from fieldsync import changes, record
from fieldsync.changes import REMOVING
from fieldsync.errors import Corrupt, DecodeError

if TYPE_CHECKING:
    from fieldsync.rebuild import Held, Indexed
    from fieldsync.store import Reader, Scope

UNREADABLE = (Corrupt, DecodeError, ValueError, TypeError, LookupError, apsw.CorruptError)


def are_sound(reader: Reader, scope: Scope, some: list[Held]) -> bool:
    """Whether rows are what a taker would make of them, if each of their changes were streamed to it.

    That decodes every value and holds each cell against the others. Raises one of UNREADABLE where it does not get
    that far.
    """
    dictionary, key = reader.dictionary, record.digest_key(scope.name)
    if any(not one.packed or not isinstance(one.packed, bytes) for one in some):
        return False
    first: list[record.MergeItem] = [((), (one.packed,), (), one.name) for one in some]
    outcomes, _ = record.merge_all(dictionary, key, first)
    given: list[changes.GivenChange] = []
    owners: list[int] = []
    for place, (one, outcome) in enumerate(zip(some, outcomes, strict=True)):
        times = {birth[:2]: birth.time for birth in record.births(one.packed)}
        name = (0, one.name[1]) if one.name else None
        for author, seq, cells in outcome[2] if outcome else ():
            given.append((author, seq, times.get((author, seq), 0), 0, cells, [(one.packed, name)], []))
            owners.append(place)
    pieces: list[list[bytes]] = [[] for _ in some]
    for place, taken in zip(owners, changes.decode(dictionary, changes.encode(dictionary, given, ["-"])), strict=True):
        pieces[place] += [piece[4] for piece in taken.pieces]
    second: list[record.MergeItem] = [((), tuple(parts), (), one.name) for one, parts in zip(some, pieces, strict=True)]
    again, _ = record.merge_all(dictionary, key, second)
    return all(_is_same(one, outcome) for one, outcome in zip(some, again, strict=True))


def _is_same(row: Held, outcome: record.Outcome | None) -> bool:
    if outcome is None:
        return False
    live, headless, _ = outcome
    return headless == ((*row.orphan, row.packed),) and not live if row.orphan else live == row.packed and not headless


def travel_removals(reader: Reader, one: Indexed) -> bool:
    """Whether a taker would make the same of removals."""
    if not one.removals:
        return True
    given: changes.GivenChange = (*one.dot, 0, REMOVING, len(one.removals), [], one.removals)
    try:
        (taken,) = changes.decode(reader.dictionary, changes.encode(reader.dictionary, [given], []))
    except UNREADABLE:
        return False
    return set(taken.removals) == set(one.removals)
