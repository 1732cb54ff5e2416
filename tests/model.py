"""The engine's data model in slow, obvious Python: the oracle that the kernels and the simulator are held against.

It shares no code with the engine. Values are kept as canonical bytes, because in
Python 5 == 5.0; authors and fields by name, and only `Numbers` knows the ids that one file gives them.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.canonical import Source, decode, encode, signed, siphash, sized, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE_BY_SIDE, HAS_SUB, PER_AUTHOR = 1, 2, 4
EXISTENCE, REGISTER, COUNTER, SET, BOUNDED, TEXT = 0x00, 0x08, 0x14, 0x1B, 0x22, 0x29
UPDATED = (TEXT, 0x31, 0x39)  # texts, lists, maps
TIME_MAX = 2**63 - 1
SEQ_MAX = 2**63 - 2

# Records --------------------------------------------------------------------------------------------------------------

Dot = tuple[bytes, int]  # author, seq
Vector = tuple[Dot, ...]  # sorted, one entry an author
Write = tuple[str, int, Any]  # field, kind, value or amount


class Stamp(NamedTuple):
    """Tuples compare as stamps do: by time, then author, then seq."""

    time: int
    author: bytes
    seq: int

    @property
    def dot(self) -> Dot:
        return self.author, self.seq


class Name(NamedTuple):
    """Of an incarnation: the n-th of its creating change."""

    author: bytes
    seq: int
    n: int

    @property
    def dot(self) -> Dot:
        return self.author, self.seq


class Address(NamedTuple):
    field: str
    kind: int
    sub: bytes = b""


@dataclass(frozen=True)
class Cell:
    address: Address
    stamp: Stamp
    value: bytes
    seen: Vector = ()


@dataclass(frozen=True)
class Incarnation:
    time: int | None  # of the existence cell, None where there is none
    cells: frozenset[Cell]


Record = dict[Name, Incarnation]


@dataclass(frozen=True)
class Removal:
    """Of a whole incarnation, or of some cells: for each address (what is covered, what is named)."""

    name: Name
    kills: bool
    seen: dict[Address, tuple[Vector, frozenset[Dot]]]


def join(*vectors: Vector | list[Dot]) -> Vector:
    return tuple(dict(sorted(dot for vector in vectors for dot in vector)).items())  # the last of an author counts


def covers(vector: Vector, dot: Dot) -> bool:
    return any(author == dot[0] and seq >= dot[1] for author, seq in vector)


def sees(name: Name, cell: Cell, other: Cell) -> bool:
    """The one merge rule: whether a cell replaces another of its incarnation."""
    kind, dot = cell.address.kind, other.stamp.dot
    if cell.address != other.address or (kind & PER_AUTHOR and cell.stamp.author != other.stamp.author):
        return False
    if cell.stamp.dot == dot:
        return False
    if kind & SIDE_BY_SIDE:
        return covers(cell.seen, dot)
    if cell.stamp.author == other.stamp.author:
        return cell.stamp.seq > other.stamp.seq
    return dot == name.dot or covers(cell.seen, dot)


def settle(name: Name, cells: frozenset[Cell]) -> frozenset[Cell]:
    """What lives of some cells. One dot with two contents (nobody honest makes that) counts with the heavier."""
    heaviest: dict[tuple[Address, Dot], Cell] = {}
    for cell in sorted(cells, key=lambda c: (c.stamp.time, c.value, len(c.seen), c.seen)):
        heaviest[cell.address, cell.stamp.dot] = cell
    return frozenset(c for c in heaviest.values() if not any(sees(name, other, c) for other in heaviest.values()))


def merge(*records: Record) -> Record:
    out: Record = {}
    for record in records:
        for name, inc in record.items():
            old = out.get(name, Incarnation(None, frozenset()))
            times = [time for time in (old.time, inc.time) if time is not None]
            out[name] = Incarnation(max(times, default=None), settle(name, old.cells | inc.cells))
    return out


def removal_of(name: Name, inc: Incarnation) -> Removal:
    """The removal of all that lives in an incarnation. Killing it removes all of its creation, so that is not named."""
    kills = inc.time is not None
    seen: dict[Address, tuple[Vector, frozenset[Dot]]] = {}
    for address in {cell.address for cell in inc.cells}:
        cells = [cell for cell in inc.cells if cell.address == address]
        dots = {cell.stamp.dot for cell in cells} - ({name.dot} if kills else set())
        implied = set() if kills or address.kind & PER_AUTHOR else {name.dot}
        vectors = [cell.seen for cell in cells]
        if address.kind & SIDE_BY_SIDE:
            entry = join(*vectors), frozenset(dots)
        else:
            entry = join(*vectors, list(dots | implied)), frozenset()
        if any(entry):
            seen[address] = entry
    return Removal(name, kills, seen)


def removals_of(record: Record) -> list[Removal]:
    return [removal_of(name, inc) for name, inc in record.items()]


def remove(record: Record, removals: list[Removal]) -> Record:
    """What is left of a record; the same whether a removal comes before or after what it removes."""
    out = dict(record)
    for removal in removals:
        if removal.name in out:
            inc = out[removal.name]
            cells = frozenset(cell for cell in inc.cells if not removes(removal, cell))
            out[removal.name] = Incarnation(None if removal.kills else inc.time, cells)
    return {name: inc for name, inc in out.items() if inc.cells or inc.time is not None}


def removes(removal: Removal, cell: Cell) -> bool:
    vector, exact = removal.seen.get(cell.address, ((), frozenset()))
    dot = cell.stamp.dot
    return (removal.kills and dot == removal.name.dot) or covers(vector, dot) or dot in exact


def living(record: Record) -> Record:
    """The incarnations that have their existence cell; the others hold the edits that a delete had not seen."""
    return {name: inc for name, inc in record.items() if inc.time is not None}


def cells_at(record: Record, field: str, kind: int) -> list[tuple[Name, Cell]]:
    return [(name, c) for name, inc in record.items() for c in inc.cells if c.address[:2] == (field, kind)]


def events(before: Record, after: Record) -> dict[Dot, int]:
    """For each change, by how much its number of live cells rose or fell."""
    counts = Counter(live_dots(after))
    counts.subtract(Counter(live_dots(before)))
    return {dot: by for dot, by in counts.items() if by}


def live_dots(record: Record) -> list[Dot]:
    """The dot of each live cell, existence among them."""
    return [name.dot for name in living(record)] + [c.stamp.dot for inc in record.values() for c in inc.cells]


# Writing and reading --------------------------------------------------------------------------------------------------


def overwrite(record: Record, name: Name, address: Address, stamp: Stamp, value: bytes) -> Cell:
    """A new cell: its time is above that field's cells in all incarnations; its seen inherits, without the implied."""
    time = stamp.time
    for _, cell in cells_at(record, address.field, address.kind):
        time = max(time, min(cell.stamp.time + 1, TIME_MAX))
    seen: Vector = ()
    if not address.kind & (PER_AUTHOR | SIDE_BY_SIDE):
        here = [cell for cell in record[name].cells if cell.address == address]
        every = join(*(cell.seen for cell in here), [cell.stamp.dot for cell in here])
        seen = tuple(dot for dot in every if dot[0] != stamp.author and dot != name.dot)
    return Cell(address, stamp._replace(time=time), value, seen)


def topmost(record: Record) -> Name:
    """The incarnation that was created last."""
    return max(record, key=lambda name: Stamp(record[name].time or 0, *name.dot))


Side = tuple[Address, bytes, bool, dict[bytes, int] | None]  # value, whether it replaces those there, within limits


def beside(record: Record, name: Name, stamp: Stamp, side: Side) -> Cell:
    """A new cell beside others; it sees none of them, or all that lie within limits, with what those had seen."""
    address, value, replaces, limits = side
    here = [cell for cell in record[name].cells if cell.address == address and replaces]
    some = [c for c in here if limits is None or c.stamp.seq <= limits.get(c.stamp.author, 0)]
    return Cell(address, stamp, value, join(*(cell.seen for cell in some), [cell.stamp.dot for cell in some]))


def write(
    record: Record, stamp: Stamp, registers: list[Write], increments: list[Write], sides: list[Side] | None = None
) -> Record:
    """A local write over a live record: registers to every incarnation, increments and sides to the topmost."""
    out: dict[Name, set[Cell]] = {}
    for field, kind, value in registers:
        for name in record:
            cell = overwrite(record, name, Address(field, kind), stamp, encode(value))
            out.setdefault(name, set()).add(cell)
    top = topmost(record)
    for side in sides or []:
        out.setdefault(top, set()).add(beside(record, top, stamp, side))
    for field, kind, amount in increments:
        address = Address(field, kind)
        own = [c for c in record[top].cells if c.address == address and c.stamp.author == stamp.author]
        total = sum((decode(cell.value) for cell in own), 0) + amount
        out.setdefault(top, set()).add(overwrite(record, top, address, stamp, encode(total)))
    return {name: Incarnation(None, frozenset(cells)) for name, cells in out.items()}


def carried(record: Record) -> Iterator[tuple[int, Name, Cell]]:
    """The cells that follow a record elsewhere: all that live side by side, each in a change of its own; else the top.

    Counters stay.
    """
    every = [(name, cell) for name, inc in record.items() for cell in inc.cells if not cell.address.kind & PER_AUTHOR]
    for address in {cell.address for _, cell in every}:
        here = sorted((pair for pair in every if pair[1].address == address), key=lambda pair: pair[1].stamp)
        beside = address.kind & SIDE_BY_SIDE and not address.kind & HAS_SUB
        for place, (name, cell) in enumerate(here if beside else here[-1:]):
            yield place, name, cell


def move(
    record: Record, name: Name, born: int, dot: Dot, without: tuple[str, int] | None
) -> tuple[list[Record], Record]:
    """A record under another name: what each of the changes from `dot` on writes, and which cells were edited ones.

    The first change creates it, with what it was created with. What was edited since goes into the second one.
    """
    changes: dict[int, set[Cell]] = {0: set()}
    edited: dict[Name, set[Cell]] = {}
    for place, old, cell in carried(record):
        if cell.address[:2] == without:
            continue
        if not cell.address.kind & SIDE_BY_SIDE and (len(record) > 1 or cell.stamp.dot != old.dot):
            place = 1
            edited.update({other: edited.get(other, set()) | {c} for other, c in likes(record, cell)})
        stamp = Stamp(cell.stamp.time if place else born, dot[0], dot[1] + place)
        changes.setdefault(place, set()).add(Cell(cell.address, stamp, cell.value))
    pieces = [{name: Incarnation(None if place else born, frozenset(changes[place]))} for place in sorted(changes)]
    return pieces, {old: Incarnation(None, frozenset(cells)) for old, cells in edited.items()}


def likes(record: Record, cell: Cell) -> Iterator[tuple[Name, Cell]]:
    """What one change wrote at an address, in all incarnations, without values."""
    for name, inc in record.items():
        if any((other.address, other.stamp) == (cell.address, cell.stamp) for other in inc.cells):
            yield name, Cell(cell.address, cell.stamp._replace(time=0), encode(None))


def follow(record: Record, name: Name, dot: Dot, sees: dict[Address, set[Dot]]) -> list[Record]:
    """Late cells under another name, with their times; at some addresses they see what lives there."""
    changes: dict[int, set[Cell]] = {}
    for place, _, cell in carried(record):
        seen = join([other for other in sees.get(cell.address, ()) if other[0] != dot[0]])
        new = Cell(cell.address, Stamp(cell.stamp.time, dot[0], dot[1] + place), cell.value, seen)
        changes.setdefault(place, set()).add(new)
    return [{name: Incarnation(None, frozenset(changes[place]))} for place in sorted(changes)]


def stripped(record: Record, value: Any) -> Record:
    """The registers alone, all of one value."""
    return {
        name: Incarnation(
            None,
            frozenset(
                replace(cell, stamp=cell.stamp._replace(time=0), value=encode(value))
                for cell in inc.cells
                if not cell.address.kind & (SIDE_BY_SIDE | PER_AUTHOR)
            ),
        )
        for name, inc in record.items()
    }


def read(record: Record, field: str, kind: int, default: Any) -> Any:
    """A register's topmost value, a counter's sum, a set's elements; the updates of a text's topmost incarnation."""
    cells = cells_at(record, field, kind)
    if kind & SIDE_BY_SIDE:
        if kind & HAS_SUB:
            found = tuple(decode(sub) for sub in sorted({cell.address.sub for _, cell in cells}))
        else:
            some = [cell for name, cell in cells if name == topmost(record)]
            found = tuple(decode(cell.value) for cell in sorted(some, key=lambda cell: cell.stamp))
        return found or default
    if not cells:
        return default
    if kind & PER_AUTHOR:
        return add_up([decode(cell.value) for _, cell in cells])
    return decode(max((cell for _, cell in cells), key=lambda cell: cell.stamp).value)


def read_all(record: Record) -> dict[str, Any]:
    """All fields of known types by name; of kinds of one name the lowest. Names with _ are not the app's."""
    pairs = sorted({cell.address[:2] for inc in record.values() for cell in inc.cells}, reverse=True)
    readable = {0, SIDE_BY_SIDE | HAS_SUB}
    known = [(f, kind) for f, kind in pairs if kind & (SIDE_BY_SIDE | HAS_SUB) in readable or kind in UPDATED]
    shown = [(f, kind) for f, kind in known if not f.startswith("_")]
    values = [(f, kind, read(record, f, kind, None)) for f, kind in shown]
    return {f: value for f, kind, value in values if value is not None or kind not in UPDATED}


def add_up(totals: list[Any]) -> Any:
    """The exact sum of all that is a finite number; a float is rounded once, at the end."""
    numbers = [n for n in totals if type(n) in (int, Decimal) or (type(n) is float and math.isfinite(n))]
    total = sum(map(Fraction, numbers), Fraction(0))
    if all(type(n) is int for n in numbers):
        return int(total)
    if not any(type(n) is Decimal for n in numbers):
        try:
            return float(total)
        except OverflowError:
            return math.inf if total > 0 else -math.inf
    exponent = min(0, *(int(Decimal(n).as_tuple().exponent) for n in numbers))
    whole = Decimal(int(total * 10**-exponent)).as_tuple()
    return Decimal((whole.sign, whole.digits, exponent))


# The packed form ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """The ids that one file gives to authors and fields: their places in these lists."""

    authors: list[bytes]
    fields: list[tuple[str, int]]

    @classmethod
    def of(cls, authors: list[bytes], fields: list[tuple[str, int]]) -> Numbers:
        """Ids from 1 on; 0 is reserved."""
        return cls([bytes(8), *authors], [("", EXISTENCE), *fields])

    @property
    def author_bytes(self) -> bytes:
        return b"".join(self.authors)

    @property
    def field_bytes(self) -> bytes:
        names = [name.encode() for name, _ in self.fields]
        starts = [8 * len(names) + sum(map(len, names[:i])) for i in range(len(names))]
        rows = zip(starts, names, self.fields, strict=True)
        return b"".join(struct.pack("<IHBB", at, len(name), kind, 0) for at, name, (_, kind) in rows) + b"".join(names)

    def dot(self, dot: Dot) -> tuple[int, int]:
        return self.authors.index(dot[0]), dot[1]

    def dots(self, dots: Vector | frozenset[Dot]) -> bytes:
        pairs = sorted(self.dot(dot) for dot in dots)
        return varint(len(pairs)) + b"".join(varint(author) + varint(seq) for author, seq in pairs)

    def address(self, address: Address) -> tuple[int, bytes]:
        return self.fields.index(address[:2]), address.sub

    def pack_cell(self, cell: Cell, index: int) -> bytes:
        field, sub = self.address(cell.address)
        head = min(index, 31) | (32 if cell.seen else 0)
        out = varint(field) + bytes([head]) + (varint(index - 31) if index >= 31 else b"")
        out += sized(sub) if cell.address.kind & HAS_SUB else b""
        return out + (self.dots(cell.seen) if cell.seen else b"") + cell.value

    def pack_incarnation(self, name: Name, inc: Incarnation) -> bytes:
        stamps = sorted({(*self.dot(c.stamp.dot), c.stamp.time) for c in inc.cells})
        out = bytes([inc.time is not None]) + b"".join(map(varint, (*self.dot(name.dot), name.n)))
        last = 0
        if inc.time is not None:
            birth = (*self.dot(name.dot), inc.time)
            stamps = [birth, *(stamp for stamp in stamps if stamp != birth)]
            out += inc.time.to_bytes(8, "big")
            last = inc.time
        written = stamps[inc.time is not None :]
        out += varint(len(written))
        for author, seq, time in written:
            out += varint(author) + varint(seq) + signed(time - last)
            last = time
        cells = sorted(inc.cells, key=lambda c: (self.address(c.address), self.dot(c.stamp.dot)))
        index = {stamp: i for i, stamp in enumerate(stamps)}
        return sized(out + b"".join(self.pack_cell(c, index[(*self.dot(c.stamp.dot), c.stamp.time)]) for c in cells))

    def number(self, name: Name) -> tuple[int, int, int]:
        return (*self.dot(name.dot), name.n)

    def pack(self, record: Record) -> bytes:
        return b"".join(self.pack_incarnation(name, record[name]) for name in sorted(record, key=self.number))

    def pack_removal(self, removal: Removal) -> bytes:
        out = bytes([removal.kills]) + varint(len(removal.seen))
        for address in sorted(removal.seen, key=self.address):
            field, sub = self.address(address)
            out += varint(field) + (sized(sub) if address.kind & HAS_SUB else b"")
            out += b"".join(map(self.dots, removal.seen[address]))
        return out

    def removal(self, removal: Removal) -> tuple[int, int, int, bytes]:
        """A removal as the kernels take it."""
        return (*self.number(removal.name), self.pack_removal(removal))


# Digests --------------------------------------------------------------------------------------------------------------


def canonical_cells(record: Record, record_name: bytes) -> list[bytes]:
    """The bytes of each live cell that a digest takes in; `record_name` is the encoded [collection, key]."""

    def start(name: Name, stamp: Stamp, kind: int) -> bytes:
        numbers = struct.pack(">8sQQ8sQQ", *name, stamp.author, stamp.seq, stamp.time)
        return numbers + bytes([kind])

    out = []
    for name, inc in record.items():
        if inc.time is not None:
            out.append(start(name, Stamp(inc.time, *name.dot), EXISTENCE) + record_name)
        for cell in inc.cells:
            field, kind, sub = cell.address
            seen = varint(len(cell.seen)) + b"".join(struct.pack(">8sQ", *dot) for dot in cell.seen)
            out.append(start(name, cell.stamp, kind) + sized(field.encode()) + sized(sub) + seen + cell.value)
    return out


def digest(record: Record, record_name: bytes, key: bytes) -> int:
    return sum(siphash(key, data) for data in canonical_cells(record, record_name)) % 2**128


# Contexts -------------------------------------------------------------------------------------------------------------


def intervals(dots: set[Dot]) -> list[tuple[bytes, int, int]]:
    """(author, low, high) of each run of numbers, ascending."""
    out = []
    for _, run in groupby(enumerate(sorted(dots)), key=lambda pair: (pair[1][0], pair[1][1] - pair[0])):
        some = [dot for _, dot in run]
        out.append((some[0][0], some[0][1], some[-1][1]))
    return out


def pack_context(runs: list[tuple[bytes, int, int]]) -> bytes:
    """The canonical bytes of ascending runs."""
    out = b""
    for author, group in groupby(runs, key=lambda run: run[0]):
        some = list(group)
        out += author + varint(len(some))
        last = 0
        for _, low, high in some:
            out += varint(low - last - 1) + varint(high - low)
            last = high
    return out


def context(dots: set[Dot]) -> bytes:
    return pack_context(intervals(dots))


def unpack_context(data: bytes) -> list[tuple[bytes, int, int]]:
    """The runs of canonical bytes; ValueError for any others."""
    source, out = Source(data), []
    while source.at < len(data):
        author, last = source.take(8), 0
        for _ in range(source.varint()):
            low = last + source.varint() + 1
            last = low + source.varint()
            out.append((author, low, last))
    apart = all((a[0], a[2] + 1) < b[:2] for a, b in pairwise(out))
    if pack_context(out) != data or not apart or any(high > SEQ_MAX for _, _, high in out):
        raise ValueError("not canonical")
    return out


def only(record: Record, dot: Dot) -> Record:
    """What of a record one change wrote."""
    out = {}
    for name, inc in record.items():
        time = inc.time if name.dot == dot else None
        cells = frozenset(cell for cell in inc.cells if cell.stamp.dot == dot)
        if cells or time is not None:
            out[name] = replace(inc, time=time, cells=cells)
    return out
