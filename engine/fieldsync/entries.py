"""Entries of the change index, in which rows a change has live cells: as runs of rows, and one by one."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from fieldsync._native import entries as kernel
from fieldsync.store import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.record import Removal
    from fieldsync.store import Dot

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
    return kernel.compress(entries if isinstance(entries, list) else list(entries), Entry)


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


class Filing:
    """Files the pieces of edits under the rows of the records that they are of."""

    def __init__(self, creations: Callable[[Dot], list[Entry]]) -> None:
        self._find = creations  # where a change created records
        self.creations: dict[Dot, list[Entry]] = {}
        self.rows: dict[int, dict[int, tuple[bytes, ...]]] = {}  # by collection and row, what comes of all changes
        self._several: list[tuple[dict[int, bytes], int]] = []

    def file(self, pieces: list[Any]) -> dict[int, dict[int, bytes]] | None:
        """Pieces of one change (changes.Piece) by collection and row; None where one is no edit of what is held."""
        mine: dict[int, dict[int, bytes]] = {}
        at = 0
        while at < len(pieces):
            at = kernel.file_edits(pieces, at, self.creations, mine, self.rows, self._several)
            if at < 0:
                return None
            if at < len(pieces):
                dot = pieces[at][:2]
                self.creations[dot] = self._find(dot)
        return mine

    def drop_several(self) -> None:
        """Take out pieces of records of two incarnations: too seldom to be remembered."""
        for pieces, row in self._several:
            pieces.pop(row, None)
