"""Entries of the change index, in which rows a change has live cells: as runs of rows, and one by one."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from fieldsync.store import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.record import Removal

# past the arguments of __new__, which for each of many rows cost more than the tuple
entry: Callable[[tuple[int, int, int, int]], Entry] = partial(tuple.__new__, Entry)
_incarnation_of = itemgetter(0, 1, 2)


def runs_of(collection: int, numbers: Iterable[int], first: int) -> list[Entry]:
    """The entries of new records of those numbers, in rows one after the other."""
    runs: list[Entry] = []
    n = count = 0
    for number in numbers:
        if number != n + count and count:
            runs.append(Entry(collection, n, first, count))
            first, count = first + count, 0
        n = n if count else number
        count += 1
    return [*runs, Entry(collection, n, first, count)]


def compress(entries: Iterable[Entry]) -> list[Entry]:
    """Entries of single rows, which may be there twice, as runs, sorted."""
    runs: list[Entry] = []
    collection = n = end = -1  # of the run that may go on
    for place in sorted(dict.fromkeys(entries)):  # which mostly are in order
        follows = place[2] == end and place[0] == collection and place[1] == n
        if follows:
            last = runs[-1]
            runs[-1] = entry((last[0], last[1], last[2], last[3] + 1))
        else:
            runs.append(place)
        collection, n, row, _ = place
        n, end = n + 1 if n >= 0 else -1, row + 1
    return runs


def compress_removals(removals: Iterable[Removal]) -> list[Entry]:
    """What the entries of a change of removals say: runs of the incarnations that it names."""
    runs: list[Entry] = []
    creator: tuple[int, int] = (-1, -1)  # of the run that may go on
    end = -1
    for author, seq, n, _ in sorted(removals, key=_incarnation_of):
        if n == end and (author, seq) == creator:
            last = runs[-1]
            runs[-1] = entry((author, seq, last[2], last[3] + 1))
        else:
            runs.append(entry((author, seq, n, 1)))
        creator, end = (author, seq), n + 1
    return runs


def expand(entries: Iterable[Entry]) -> list[Entry]:
    """Runs as entries of single rows."""
    return [
        Entry(run.collection, run.n + i if run.n >= 0 else -1, run.row + i, 1)
        for run in entries
        for i in range(run.count)
    ]
