"""Where records live on that were moved: the chain of their moves, and what was seen on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fieldsync import carrying, record
from fieldsync.limits import MOVES_FOLLOWED_MAX

if TYPE_CHECKING:
    from fieldsync.carrying import Seen
    from fieldsync.record import Removal
    from fieldsync.store import Forward, Incarnation, Row, Writer

Place: TypeAlias = tuple[str, int, str]  # scope, collection, key


class Heir(NamedTuple):
    """As what an incarnation that was moved lives on."""

    place: Place
    row: Row
    incarnation: Incarnation

    @property
    def living(self) -> bytes:
        """Its cells."""
        return record.incarnation(self.row.packed, self.incarnation) or b""


class Heirs:
    """Follows moves within one transaction of a hub."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def chain(self, source: int, incarnation: Incarnation) -> list[Forward]:
        """The moves of an incarnation from a scope on, one after the other; none where they have no end."""
        chain: list[Forward] = []
        for _ in range(MOVES_FOLLOWED_MAX):
            forward = self._writer.forward(source, incarnation)
            if forward is None:
                return chain
            chain.append(forward)
            scope = self._writer.scope(forward.target)
            if scope is None:
                return chain
            source, incarnation = scope.id, forward.heir
        return []

    def heir(self, chain: list[Forward]) -> Heir | None:
        """As what an incarnation lives now that was moved so; None where it does not."""
        last = chain[-1] if chain else None
        scope = self._writer.scope(last.target) if last else None
        if last is None or scope is None:
            return None
        for row in self._writer.by_key(last.collection, scope.id, [last.key]):
            (living,) = record.incarnations(self._writer.dictionary, [row.packed])
            if last.heir in living:
                return Heir((scope.name, last.collection, last.key), row, last.heir)
        return None

    def add_seen(
        self,
        sees: Seen,
        chain: list[Forward],
        heir: Heir,
        pieces: tuple[bytes, ...] = (),
        removals: tuple[Removal, ...] = (),
    ) -> None:
        """Add what something that came late had seen of what lives at the end of its moves, and what that had seen."""
        dictionary = self._writer.dictionary
        found = carrying.seen(dictionary, chain[0], pieces, removals)
        for forward in chain:
            found = carrying.translated(dictionary, forward, found)
        for cell in carrying.registers(dictionary, heir.living) if found else ():
            if cell[:2] in found:
                sees[cell.at].update((cell.dot, *cell.seen))
