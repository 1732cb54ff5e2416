"""Random histories of one record: replicas that write, delete, dismiss and hear of each other, all on the model.

Whatever happens here is honest: a cell's seen is what its author truly had seen. So what the replicas made may be
merged in any portions and any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from tests import canonical, model
from tests.model import Address, Cell, Dot, Incarnation, Name, Record, Removal, Stamp

from fieldsync._native.codec import Unknown

if TYPE_CHECKING:
    import random

AUTHORS = [bytes.fromhex(h * 8) for h in ("0f", "c3", "01", "fe")]
FIELDS = [
    ("price", model.REGISTER),
    ("status", model.REGISTER),
    ("hours", model.COUNTER),
    ("price", model.COUNTER),
    ("tags", model.SET),
    ("notes", model.TEXT),
    ("rights", model.BOUNDED),
    ("new", 0x40),  # kinds of a later version, which merge by their flags
    ("new tags", 0x43),
    ("new own", 0x45),
    ("new own sub", 0x46),
]
WRITTEN = [FIELDS[i] for i in (0, 0, 0, 1, 1, 2, 5, 6, 7, 3, 4, 8, 9, 10, 5)]  # a few often, so that writes meet
SUBS = [canonical.encode(value) for value in ("urgent", 7, None)]
VALUES = [canonical.encode(value) for value in ("open", "done", 5, 5.0, None, ["a", {"b": 1}], Unknown(200, b"new"))]
NUMBERS = model.Numbers.of(AUTHORS, FIELDS)
OTHER_NUMBERS = model.Numbers.of(AUTHORS[::-1], FIELDS[::-1])
RECORD = ("orders", "o-17")
RECORD_NAME = canonical.encode([*RECORD])
KEY = bytes(range(16))
EVERY_BYTE = range(0, 256, 1 if settings().max_examples >= 100 else 15)


@dataclass(frozen=True)
class Change:
    dot: Dot
    time: int
    piece: Record
    removals: list[Removal]

    @property
    def parts(self) -> int:
        """Of how many cells and removals it was made."""
        return len(model.live_dots(self.piece)) + len(self.removals)


@dataclass
class Replica:
    author: bytes
    clock: int = 1_000
    seq: int = 0
    record: Record = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)
    context: set[Dot] = field(default_factory=set)

    def hear(self, piece: Record, removals: list[Removal], context: set[Dot]) -> None:
        self.removals += [removal for removal in removals if removal not in self.removals]
        self.record = model.remove(model.merge(self.record, piece), self.removals)
        self.context |= context

    def knows_all_before(self, dot: Dot) -> bool:
        return all((dot[0], seq) in self.context for seq in range(1, dot[1] + 1))


class History:
    """Steps, each four small numbers, played on as many replicas as there are authors."""

    def __init__(self, steps: list[tuple[int, int, int, int]]) -> None:
        self.replicas = [Replica(author) for author in AUTHORS]
        self.changes: list[Change] = []
        for who, what, a, b in steps:
            self.step(self.replicas[who % len(self.replicas)], what, a, b)

    def step(self, one: Replica, what: int, a: int, b: int) -> None:
        live = model.living(one.record)
        if what < 46 and live:
            self.write(one, live, {WRITTEN[a]: b, WRITTEN[a + b]: b + 1} if b % 2 else {WRITTEN[a]: b})
        elif what < 51 and live:
            self.commit(one, {}, [model.removal_of(name, inc) for name, inc in live.items()])
        elif what < 55 and len(live) < len(one.record):
            dead = [(name, inc) for name, inc in one.record.items() if name not in live]
            self.commit(one, {}, [model.removal_of(name, inc) for name, inc in dead])
        elif 55 <= what < 58:
            one.clock = 1 << 62 if b == 6 else max(1, one.clock + a * 1_000 - 3_000)
        elif 58 <= what < 61 or not self.changes:
            self.create(one, a, b)
        elif what < 92:
            other = self.replicas[b % len(self.replicas)]
            one.hear(other.record, other.removals, other.context)
        else:
            change = self.changes[(8 * a + b) % len(self.changes)]
            one.hear(change.piece, change.removals, {change.dot})

    def commit(self, one: Replica, piece: Record, removals: list[Removal]) -> None:
        one.seq += 1
        dot = one.author, one.seq
        self.changes.append(Change(dot, one.clock, piece, removals))
        one.hear(piece, removals, {dot})
        one.clock += 1

    def create(self, one: Replica, a: int, b: int) -> None:
        stamp = Stamp(one.clock, one.author, one.seq + 1)
        chosen = [pair for i, pair in enumerate(FIELDS) if (a * 37 + b * 11) >> i & 1]
        cells = [
            Cell(Address(*pair, SUBS[a % 3] if pair[1] & model.HAS_SUB else b""), stamp, number_or_value(pair[1], b))
            for pair in chosen
        ]
        names = [Name(*stamp.dot, n) for n in range(1 + (b == 7))]
        self.commit(one, {name: Incarnation(stamp.time, frozenset(cells)) for name in names}, [])

    def write(self, one: Replica, live: Record, targets: dict[tuple[str, int], int]) -> None:
        stamp = Stamp(one.clock, one.author, one.seq + 1)
        piece: dict[Name, set[Cell]] = {}
        top = max(live, key=lambda name: Stamp(live[name].time or 0, *name.dot))
        for pair, choice in targets.items():
            address = Address(*pair, SUBS[choice % 3] if pair[1] & model.HAS_SUB else b"")
            plain = not address.kind & (model.SIDE_BY_SIDE | model.PER_AUTHOR)
            for name in live if plain else [top]:
                cell = model.overwrite(live, name, address, stamp, number_or_value(address.kind, choice))
                if address.kind == model.TEXT and choice > 4:
                    cell = self.compaction(one, live[name], cell)
                piece.setdefault(name, set()).add(cell)
        self.commit(one, {name: Incarnation(None, frozenset(cells)) for name, cells in piece.items()}, [])

    def compaction(self, one: Replica, inc: Incarnation, cell: Cell) -> Cell:
        """A cell that covers all that lives at its address, if nothing before that is still to come."""
        here = [c for c in inc.cells if c.address == cell.address]
        if not all(one.knows_all_before(c.stamp.dot) for c in here):
            return cell
        seen = model.join(*(c.seen for c in here), [c.stamp.dot for c in here])
        return model.replace(cell, seen=tuple(dot for dot in seen if dot[0] != one.author or dot[1] < cell.stamp.seq))

    @property
    def removals(self) -> list[Removal]:
        return [removal for change in self.changes for removal in change.removals]

    def portions(self, chance: random.Random, count: int) -> list[Record]:
        """What was written, dealt out at random, some of it to several; and what replicas held at the end."""
        records = [change.piece for change in self.changes] + [replica.record for replica in self.replicas]
        dealt = [chance.sample(records, chance.randint(0, len(records))) for _ in range(count)]
        return [model.merge(*some) for some in dealt]


def number_or_value(kind: int, choice: int) -> bytes:
    return canonical.encode(choice * 3) if kind & model.PER_AUTHOR else VALUES[choice % len(VALUES)]


numbers = st.integers(0, 7)
histories = st.lists(st.tuples(numbers, st.integers(0, 99), numbers, numbers), min_size=10, max_size=40).map(History)

# A history by hand with some of everything: writes at once, and over each other having seen them, times that overtake a
# wrong clock, elements, texts with a compaction, counters, later kinds, several incarnations, one killed while it was
# written to, a dismissal.
EVERYTHING = [
    *((0, 58, 7, 7), (1, 70, 0, 0), (2, 70, 0, 0), (1, 0, 0, 2), (2, 0, 2, 5), (0, 70, 0, 1), (0, 70, 0, 2)),
    *((0, 0, 0, 4), (3, 70, 0, 0), (3, 0, 6, 1), (1, 70, 0, 3), (1, 0, 6, 5), (1, 0, 5, 3), (2, 55, 0, 6)),
    *((2, 0, 3, 3), (0, 70, 0, 2), (0, 0, 3, 2), (0, 0, 7, 3), (3, 70, 0, 0), (3, 0, 7, 7), (2, 58, 3, 5)),
    *((2, 0, 4, 6), (0, 46, 0, 0), (3, 70, 0, 0), (3, 51, 0, 0), (1, 70, 0, 2), (1, 0, 0, 7), (1, 0, 4, 6)),
    *((2, 70, 0, 1), (2, 0, 5, 5)),
]
