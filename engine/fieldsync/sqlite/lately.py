"""What changes edited lately, in memory, so that a giver reads few records: random ones are on nearly all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.limits import LATELY_BYTES_MAX

if TYPE_CHECKING:
    from fieldsync.store import Dot, Edits

PIECE_BYTES = 128  # that a piece takes besides its own


class Lately:
    """The edits of the last changes that landed in this process, by scope and dot. One thread writes, others read."""

    def __init__(self) -> None:
        self._edits: dict[tuple[int, Dot], Edits] = {}
        self._dots: dict[int, set[Dot]] = {}  # the same, by scope
        self._bytes = 0

    def get(self, scope: int, dot: Dot) -> Edits | None:
        """What a change edited, as far as it is known."""
        return self._edits.get((scope, dot))

    def dots(self, scope: int) -> set[Dot]:
        """The changes of whose edits any are known, as long as nothing else is put."""
        return self._dots.setdefault(scope, set())

    def put(self, scope: int, landed: dict[Dot, Edits]) -> None:
        """Keep what landed; of very much, the latest."""
        for dot, edits in landed.items():
            self._forget((scope, dot))
            self._edits[scope, dot] = edits
            self.dots(scope).add(dot)
            self._bytes += _size(edits)
        while self._bytes > LATELY_BYTES_MAX:
            self._forget(next(iter(self._edits)))

    def drop(self, scope: int, stale: list[tuple[Dot, int, int]]) -> None:
        """Forget what some changes edited in one row each: (change, collection, row)."""
        for dot, collection, row in stale:
            edits = self._edits.get((scope, dot))
            piece = edits.pieces.get(collection, {}).pop(row, None) if edits else None
            if piece is not None:
                self._bytes -= len(piece) + PIECE_BYTES

    def clear(self) -> None:
        """Forget all of it."""
        self._edits, self._dots, self._bytes = {}, {}, 0

    def _forget(self, name: tuple[int, Dot]) -> None:
        edits = self._edits.pop(name, None)
        if edits is not None:
            self._dots[name[0]].discard(name[1])
            self._bytes -= _size(edits)


def _size(edits: Edits) -> int:
    return sum(sum(map(len, rows.values())) + PIECE_BYTES * len(rows) for rows in edits.pieces.values())
