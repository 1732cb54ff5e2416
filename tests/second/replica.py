"""What a replica holds of a scope, and what it does with what comes (docs/protocol.md, docs/format.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tests import model
from tests.canonical import encode, siphash, sized
from tests.model import Cell, Dot, Name, Record, Removal
from tests.second.chunks import Change

if TYPE_CHECKING:
    from collections.abc import Iterable


def dots_of(data: bytes) -> set[Dot]:
    return {(author, seq) for author, low, high in model.unpack_context(data) for seq in range(low, high + 1)}


def up_to(some: Iterable[Dot]) -> set[Dot]:
    return {(author, number) for author, seq in some for number in range(1, seq + 1)}


@dataclass
class Scope:
    """What the peer holds of one scope."""

    name: str
    record: Record = field(default_factory=dict)  # all incarnations of all keys
    names: dict[Name, tuple[str, str]] = field(default_factory=dict)
    removals: dict[Dot, list[Removal]] = field(default_factory=dict)
    facts: dict[Dot, tuple[int, int, int]] = field(default_factory=dict)  # time, flags, parts of each change
    context: set[Dot] = field(default_factory=set)
    floor: set[Dot] = field(default_factory=set)
    provisional: dict[Dot, frozenset[Dot]] = field(default_factory=dict)  # with the contexts of their givers

    def digest(self) -> bytes:
        key = blake2b(self.name.encode(), digest_size=16).digest()
        every = [(name, inc, encode([*self.names[name]]) if inc.time else b"") for name, inc in self.record.items()]
        total = sum(model.digest({name: inc}, record_name, key) for name, inc, record_name in every)
        return (total % 2**128).to_bytes(16, "little")

    def hash(self) -> bytes:
        return blake2b(model.context(self.context), digest_size=8).digest()

    def state(self) -> bytes:
        return blake2b(self.hash() + self.digest(), digest_size=8).digest()

    def take(self, changes: list[Change], giver: set[Dot]) -> None:
        """Land a chunk."""
        for change in changes:
            if change.dot in self.context:
                continue
            self.facts[change.dot] = change.time, change.flags, change.parts
            self.names |= change.names
            if change.removals:
                self.removals[change.dot] = change.removals
            every = [removal for some in self.removals.values() for removal in some]
            self.record = model.remove(model.merge(self.record, change.pieces), every)
            if change.is_whole and change.dot in giver:
                self.account({change.dot})
            else:
                self.provisional[change.dot] = frozenset(giver)

    def account(self, dots: set[Dot]) -> None:
        self.context |= dots
        self.provisional = {dot: giver for dot, giver in self.provisional.items() if dot not in dots}

    def give(self, lacking: set[Dot]) -> list[Change]:
        """What is here of changes, oldest first."""
        out = []
        for dot, facts in sorted(self.facts.items(), key=lambda item: (item[1][0], item[0])):
            pieces = model.only(self.record, dot)
            if dot in lacking and (pieces or dot in self.removals):
                names = {name: self.names[name] for name, inc in pieces.items() if inc.time is not None}
                out.append(Change(dot, *facts, pieces, names, self.removals.get(dot, [])))
        return out

    def trim(self) -> None:
        """Forget the removals of which nothing can come any more that they must be held against."""
        for dot, some in list(self.removals.items()):
            seen = [each for removal in some for each in removal.seen.values()]
            named = {removal.name.dot for removal in some}.union(*(exact for _, exact in seen))
            if named.union(up_to([dot]), *(up_to(vector) for vector, _ in seen)) <= self.context:
                self.floor |= up_to([dot])
                del self.removals[dot]

    def write(self, dot: Dot, time: int, flags: int, **made: Any) -> None:
        """A change of the peer's own."""
        change = Change(dot, time, flags, 0, **made)
        change.parts = len(change.removals) + len(model.live_dots(change.pieces))
        self.take([change], {dot})

    def items(self, key: bytes, dots: set[Dot]) -> set[int]:
        """The items of all removable cells of some dots."""
        out = {item(key, name) for name, inc in self.record.items() if inc.time is not None and name.dot in dots}
        for name, inc in self.record.items():
            is_named = inc.time is not None and name.dot in dots
            for cell in inc.cells:
                if cell.stamp.dot in dots and (cell.address.kind & model.SIDE_BY_SIDE or not is_named):
                    out.add(item(key, name, cell))
        return out

    def drop(self, key: bytes, dots: set[Dot], alive: set[int]) -> None:
        """Take away what the giver has no more."""
        gone = []
        for name, inc in self.record.items():
            lives, is_held = item(key, name) in alive, inc.time is not None
            killed = is_held and name.dot in dots and not lives
            may_go = not lives and (killed or not is_held)
            seen = {}
            for address in {cell.address for cell in inc.cells}:
                exact = {
                    cell.stamp.dot
                    for cell in inc.cells
                    if cell.address == address and cell.stamp.dot in dots and item(key, name, cell) not in alive
                }
                if exact and (address.kind & model.SIDE_BY_SIDE or may_go):
                    seen[address] = (), frozenset(exact)
            gone.append(Removal(name, killed, seen))
        self.record = model.remove(self.record, gone)


def item(key: bytes, name: Name, cell: Cell | None = None) -> int:
    author, seq, kind = (cell.stamp.author, cell.stamp.seq, cell.address.kind) if cell else (name.author, name.seq, 0)
    data = name.author + name.seq.to_bytes(8) + name.n.to_bytes(8) + author + seq.to_bytes(8) + bytes([kind])
    if cell is not None:
        data += sized(cell.address.field.encode()) + (cell.address.sub if kind & model.HAS_SUB else b"")
    return siphash(key, data) & (1 << 64) - 1


def join(
    scope: Scope, giver: set[Dot], floor: set[Dot], key: bytes, compared: set[Dot], alive: set[int] | None
) -> None:
    """Done: what is gone goes, context and floor are joined."""
    if alive is not None:
        scope.drop(key, compared, alive)
    scope.account(giver)
    scope.floor |= floor
