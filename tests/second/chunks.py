"""Chunks (docs/protocol.md, Chunks): changes as columns, read and written."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests import model
from tests.canonical import Source, signed, sized, varint
from tests.model import Address, Cell, Dot, Incarnation, Name, Record, Removal, Stamp, Vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COLUMNS = 6
REMOVING = 2  # flag of a change
MASK = (1 << 64) - 1


@dataclass
class Change:
    """One change, or what is left of it."""

    dot: Dot
    time: int
    flags: int
    parts: int
    pieces: Record = field(default_factory=dict)
    names: dict[Name, tuple[str, str]] = field(default_factory=dict)  # collection and key, where they are told
    removals: list[Removal] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return len(self.removals) + len(model.live_dots(self.pieces)) == self.parts


class ChunkReader:
    """Reads the changes of a chunk."""

    def __init__(self, body: dict[str, Any], authors: bytes = b"") -> None:
        names = authors + body.get("a", b"")
        self.authors = [names[at : at + 8] for at in range(0, len(names), 8)]
        self.fields, self.collections = body.get("f", []), body.get("k", [])
        self.columns = [Source(column) for column in self._columns(body)]
        self.seqs: defaultdict[int, int] = defaultdict(int)
        self.time = 0
        self.last, self.next_n = (0, 0, 0), 0
        self.count = body.get("n", 1) if self.columns else 0

    def _columns(self, body: dict[str, Any]) -> Iterator[bytes]:
        small = Source(body.get("y", b""))
        while "z" not in body and small.at < len(small.data):
            yield small.sized()
        for size, data in body.get("z", ()):
            yield zlib.decompress(data) if size else data

    def read(self) -> list[Change]:
        changes = [self._change() for _ in range(self.count)]
        assert all(column.at == len(column.data) for column in self.columns)
        return changes

    def _change(self) -> Change:
        head = self.columns[0]
        author = head.varint()
        seq = self.seqs[author] = self.seqs[author] + 1 + head.signed() & MASK
        self.time = self.time + head.signed() & MASK
        flags, parts, pieces, removals = (head.varint() for _ in range(4))
        change = Change((self.authors[author], seq), self.time, flags, parts)
        self.next_n = 0
        for _ in range(pieces):
            self._piece(change)
        change.removals = [self._removal() for _ in range(removals)]
        return change

    def _reference(self, column: Source, dot: Dot) -> Name:
        form = column.varint()
        if form < 2:
            n = column.varint() if form else self.next_n
            self.next_n = n + 1
            return Name(*dot, n)
        author, seq = form - 2, self.last[1] + column.signed() & MASK
        n = self.last[2] + column.signed() if (author, seq) == self.last[:2] else column.varint()
        self.last = author, seq, n
        return Name(self.authors[author], seq, n)

    def _piece(self, change: Change) -> None:
        name, (count, flags) = self._reference(self.columns[1], change.dot), divmod(self.columns[1].varint(), 4)
        if flags & 2:
            collection = self.collections[self.columns[2].varint()]
            change.names[name] = collection, self.columns[2].sized().decode()
        cells = frozenset(self._cell(change) for _ in range(count))
        change.pieces[name] = Incarnation(change.time if flags & 1 else None, cells)

    def _cell(self, change: Change) -> Cell:
        number, flags = divmod(self.columns[3].varint(), 4)
        later = self.columns[3].varint() if flags & 1 else 0
        address = self._address(number, self.columns[4])
        seen = self._dots(self.columns[4]) if flags & 2 else ()
        values = self.columns[COLUMNS + number]
        begin = values.at
        values.value()
        stamp = Stamp(change.time + later, *change.dot)
        return Cell(address, stamp, values.data[begin : values.at], tuple(sorted(seen)))

    def _address(self, number: int, column: Source) -> Address:
        name, kind = self.fields[number]
        return Address(name, kind, column.sized() if kind & model.HAS_SUB else b"")

    def _dots(self, column: Source) -> Vector:
        return tuple((self.authors[column.varint()], column.varint()) for _ in range(column.varint()))

    def _removal(self) -> Removal:
        column = self.columns[5]
        name, (kills,) = self._reference(column, (b"", 0)), column.take(1)
        seen = {}
        for _ in range(column.varint()):
            address = self._address(column.varint(), column)
            seen[address] = tuple(sorted(self._dots(column))), frozenset(self._dots(column))
        return Removal(name, bool(kills), seen)


class ChunkWriter:
    """Writes changes as a chunk."""

    def __init__(self) -> None:
        self.authors: list[bytes] = []
        self.fields: list[tuple[str, int]] = []
        self.collections: list[str] = []
        self.columns: defaultdict[int, bytes] = defaultdict(bytes)
        self.seqs: defaultdict[int, int] = defaultdict(int)
        self.time = 0
        self.last, self.next_n = (0, 0, 0), 0

    def write(self, changes: list[Change]) -> dict[str, Any]:
        """The keys of the chunk; none where there is nothing to write."""
        for change in changes:
            self._change(change)
        if not changes:
            return {}
        columns = [self.columns[number] for number in range(COLUMNS + len(self.fields))]
        packed = [(len(column), zlib.compress(column)) if len(column) > 99 else (0, column) for column in columns]
        names = {"a": b"".join(self.authors), "f": self.fields, "k": self.collections}
        return {"n": len(changes), **{key: value for key, value in names.items() if value}, "z": packed}

    @staticmethod
    def _number(table: list[Any], name: Any) -> int:
        if name not in table:
            table.append(name)
        return table.index(name)

    def _change(self, change: Change) -> None:
        author, seq = self._number(self.authors, change.dot[0]), change.dot[1]
        self.columns[0] += varint(author) + signed(seq - self.seqs[author] - 1) + signed(change.time - self.time)
        self.seqs[author], self.time = seq, change.time
        for number in (change.flags, change.parts, len(change.pieces), len(change.removals)):
            self.columns[0] += varint(number)
        self.next_n = 0
        for name, inc in sorted(change.pieces.items()):
            self._piece(change, name, inc)
        for removal in change.removals:
            self._removal(removal)

    def _own(self, name: Name) -> bytes:
        is_next, self.next_n = name.n == self.next_n, name.n + 1
        return varint(0) if is_next else varint(1) + varint(name.n)

    def _reference(self, name: Name) -> bytes:
        author = self._number(self.authors, name.author)
        is_same = (author, name.seq) == self.last[:2]
        n = signed(name.n - self.last[2]) if is_same else varint(name.n)
        out = varint(author + 2) + signed(name.seq - self.last[1]) + n
        self.last = author, name.seq, name.n
        return out

    def _piece(self, change: Change, name: Name, inc: Incarnation) -> None:
        is_own, lives, named = name.dot == change.dot, inc.time is not None, change.names.get(name)
        self.columns[1] += self._own(name) if is_own else self._reference(name)
        self.columns[1] += varint(4 * len(inc.cells) + lives + 2 * bool(named))
        if named:
            self.columns[2] += varint(self._number(self.collections, named[0])) + sized(named[1].encode())
        for cell in inc.cells:
            number, later = self._number(self.fields, cell.address[:2]), cell.stamp.time - change.time
            self.columns[3] += varint(4 * number + (later > 0) + 2 * bool(cell.seen)) + (
                varint(later) if later else b""
            )
            self.columns[4] += self._sub(cell.address) + (self._dots(cell.seen) if cell.seen else b"")
            self.columns[COLUMNS + number] += cell.value

    @staticmethod
    def _sub(address: Address) -> bytes:
        return sized(address.sub) if address.kind & model.HAS_SUB else b""

    def _dots(self, some: Iterable[Dot]) -> bytes:
        pairs = sorted((self._number(self.authors, author), seq) for author, seq in some)
        return varint(len(pairs)) + b"".join(varint(author) + varint(seq) for author, seq in pairs)

    def _removal(self, removal: Removal) -> None:
        self.columns[5] += self._reference(removal.name) + bytes([removal.kills]) + varint(len(removal.seen))
        for address, (vector, exact) in removal.seen.items():
            number = self._number(self.fields, address[:2])
            self.columns[5] += varint(number) + self._sub(address) + self._dots(vector) + self._dots(exact)
