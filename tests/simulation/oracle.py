"""What was truly written, replaced and removed in one scope, and so the only state that a context allows.

True causality: a write replaces what its author's replica showed there, a removal takes what its author's replica
showed, each with all that those had replaced. Nothing here looks at a seen vector or a stamp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests import model
from tests.simulation.cells import EXISTENCE, Cid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.model import Address, Dot, Name


class Violation(AssertionError):
    """A promise of the design was broken."""


@dataclass
class Truth:
    """One scope."""

    written: dict[Cid, bytes] = field(default_factory=dict)
    replaced: dict[Cid, frozenset[Cid]] = field(default_factory=dict)  # directly or through what those had replaced
    rivals: dict[Cid, frozenset[Cid]] = field(default_factory=dict)  # what its author saw of the field
    removed: dict[Dot, set[Cid]] = field(default_factory=dict)
    increments: list[tuple[Dot, Name, str, float]] = field(default_factory=list)
    by_dot: dict[Dot, list[Cid]] = field(default_factory=dict)
    rank: dict[Cid, int] = field(default_factory=dict)  # in which order cells were written
    doubtful: set[Cid] = field(default_factory=set)  # they went, and may live again: see doubt()

    def dots(self) -> set[Dot]:
        """All changes that were ever made, and were not undone before anybody had seen them."""
        return self.by_dot.keys() | self.removed.keys()

    def expect_new(self, dots: Iterable[Dot]) -> None:
        """Violation where a change is named as another one was."""
        for dot in dots:
            if dot in self.by_dot or dot in self.removed:
                raise Violation(f"two changes are named {dot}")

    def undo(self, dots: Iterable[Dot]) -> None:
        """Changes went without a trace before anybody had seen them; their names may be given again."""
        for dot in dots:
            for cid in self.by_dot.pop(dot, ()):
                del self.written[cid], self.replaced[cid], self.rivals[cid]
            self.removed.pop(dot, None)
            self.increments = [one for one in self.increments if one[0] != dot]

    def write(self, cid: Cid, value: bytes, replaces: Iterable[Cid] = (), rivals: Iterable[Cid] = ()) -> None:
        """A cell was written by somebody who saw those it replaces, and those of other incarnations of the key."""
        self.written[cid] = value
        self.rank[cid] = len(self.rank)
        self.replaced[cid] = self._with_replaced(replaces)
        self.rivals[cid] = frozenset(rivals)
        self.by_dot.setdefault(cid[2], []).append(cid)

    def remove(self, dot: Dot, cids: Iterable[Cid]) -> None:
        """A change removed cells, and with them what they had replaced."""
        self.removed.setdefault(dot, set()).update(self._with_replaced(cids))

    def delete(self, dot: Dot, name: Name, cids: Iterable[Cid]) -> None:
        """A change removed an incarnation of which its author saw those cells; all of its creation goes too."""
        born = [cid for cid in self.by_dot[name.dot] if cid[0] == name]
        self.remove(dot, [*cids, *born, (name, EXISTENCE, name.dot)])

    def creation(self, name: Name, address: Address) -> list[Cid]:
        """The cell there of the creating change, which every later write at a register has seen."""
        cid = (name, address, name.dot)
        return [cid] if cid in self.written else []

    def at(self, name: Name, address: Address, known: Iterable[Dot]) -> list[Cid]:
        """The cells that some changes wrote at an address."""
        return [cid for dot in known for cid in self.by_dot.get(dot, ()) if cid[:2] == (name, address)]

    def doubt(self, given_up: set[Dot], known: set[Dot], kept: set[Dot], live: Iterable[Cid]) -> None:
        """Damage has taken some changes out of a context, and with that the last trace of what became of them.

        What of them the changes that are still accounted for had replaced or removed comes again and is taken for new,
        unless a removal that is kept, or a cell that lives, tells of it.
        """
        told = set().union(*(self.removed.get(dot, set()) for dot in kept), *(self.replaced[cid] for cid in live))
        self.doubtful |= {cid for dot in given_up for cid in self.by_dot.get(dot, ())} & self.gone(known) - told

    def _with_replaced(self, cids: Iterable[Cid]) -> frozenset[Cid]:
        some = frozenset(cids)
        return some.union(*(self.replaced[cid] for cid in some))

    def gone(self, dots: Iterable[Dot]) -> set[Cid]:
        """What some changes replaced or removed."""
        out: set[Cid] = set()
        for dot in dots:
            out |= self.removed.get(dot, set())
            for cid in self.by_dot.get(dot, ()):
                out |= self.replaced[cid]
        return out

    def expected(self, dots: set[Dot]) -> set[Cid]:
        """What lives where just these changes are known."""
        return {cid for dot in dots for cid in self.by_dot.get(dot, ())} - self.gone(dots)

    def check_cells(self, live: dict[Cid, bytes], known: set[Dot], partly: set[Dot]) -> None:
        """Violation unless that is what lives where some changes are accounted for, and others are held in part."""
        lost = self.expected(known) - self.gone(partly) - live.keys()
        if lost:
            raise Violation(f"lost: {sorted(lost)[:3]}")
        held = {cid for dot in known | partly for cid in self.by_dot.get(dot, ())}
        risen = live.keys() - (held - self.gone(known)) - self.doubtful
        if risen:
            raise Violation(f"risen: {sorted(risen)[:3]}")
        wrong = {cid for cid, value in live.items() if value != self.written[cid]}
        if wrong:
            raise Violation(f"other values: {sorted(wrong)[:3]}")

    def check_reading(self, record: model.Record, known: set[Dot]) -> None:
        """Violation unless a live record reads as it must: no overwritten value on top, counters the sum."""
        for field_name, kind in {cell.address[:2] for inc in record.values() for cell in inc.cells}:
            some = model.cells_at(record, field_name, kind)
            if kind == model.COUNTER:
                # a total that is here counts what it replaced, though a stream was cut before that was accounted for
                totals = [(name, cell.address, cell.stamp.dot) for name, cell in some]
                counted = known.union(*({cid[2] for cid in self.replaced[total]} for total in totals))
                total = sum(
                    amount
                    for dot, name, counter, amount in self.increments
                    if dot in counted and name in record and counter == field_name
                )
                has_risen = any(name in record for name, *_ in self.doubtful)
                if model.read(record, field_name, kind, 0) != total and not has_risen:
                    raise Violation(f"{field_name} counts {model.read(record, field_name, kind, 0)}, not {total}")
            elif not kind & (model.SIDE_BY_SIDE | model.HAS_SUB):
                name, top = max(some, key=lambda pair: pair[1].stamp)
                cid = name, top.address, top.stamp.dot
                named = [(n, c.address, c.stamp.dot) for n, c in some]
                if any(one in self.rivals[other] for one in named for other in named) and not self.doubtful:
                    raise Violation(f"{field_name} was written knowingly, and is a conflict")
                if cid not in self.doubtful and any(cid in self.rivals[n, c.address, c.stamp.dot] for n, c in some):
                    raise Violation(f"{field_name} reads a value that was overwritten")
