"""Writes below the public interface: kinds of a later version, set elements, dismissals of many late edits at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests import canonical, model
from tests.simulation import cells

from fieldsync import clock
from fieldsync.apply import Arrival, Target, land
from fieldsync.changes import GROUPED, REMOVING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cells import Cid
    from tests.simulation.oracle import Truth

    from fieldsync.conflicts import Claim, Conflict
    from fieldsync.sqlite import SQLiteWriter
    from fieldsync.store import Scope

TAGS = model.Address("tags", model.SET)
TEXT = model.Address("sketch", 0x49)  # of a later type that merges as texts do, of any value
LATER = model.Address("later", 0x40)


@dataclass(frozen=True)
class Op:
    """What a transaction does to one record: create, update, delete or replace it.

    Below the public interface: tag, untag, write, compact, later, dismiss.
    """

    kind: str
    scope: str
    collection: str
    key: str
    values: dict[str, Any] = field(default_factory=dict)  # of registers
    hours: int = 0  # added to the counter
    to: str = ""  # the scope that it is to move to
    edits: tuple[tuple[Any, ...], ...] = ()  # of sets, texts, lists and maps: (field, what, with what)
    settles: tuple[Conflict, Claim] | None = None  # which is what writes the values


class NamedRow(dict[str, Any]):
    """A row for a bulk load, whose key is none of its fields."""

    def __init__(self, values: dict[str, Any], key: str) -> None:
        super().__init__(values)
        self.key = key


def topmost(record: model.Record) -> model.Name:
    """The incarnation that was created last."""
    return max(record, key=lambda name: model.Stamp(record[name].time or 0, *name.dot))


def seen_at(
    truth: Truth, record: model.Record, name: model.Name, address: model.Address
) -> tuple[list[Cid], list[Cid]]:
    """What a write at a register replaces in one incarnation, and all that its author sees of the field."""
    rivals = [(other, cell.address, cell.stamp.dot) for other, cell in model.cells_at(record, *address[:2])]
    return [cid for cid in rivals if cid[:2] == (name, address)] + truth.creation(name, address), rivals


class InnerChange:
    """Builds the pieces and removals of one inner transaction with the model, and lands them as a transaction does."""

    def __init__(
        self, writer: SQLiteWriter, scope: Scope, truth: Truth, wall_ms: int, mint: Callable[[], bytes]
    ) -> None:
        self.writer, self.truth, self.wall_ms = writer, truth, wall_ms
        if not scope.author:
            (author,) = writer.author_ids([mint()])
            scope = scope._replace(author=author, seq=0)
        self.scope = scope
        self.author = writer.dictionary.author(scope.author)
        self.known = cells.dots_of(writer.context(scope.id))
        self.contiguous = cells.contiguous(writer.context(scope.id))
        self.pieces: dict[tuple[str, str], model.Record] = {}
        self.removals: dict[tuple[str, str], list[model.Removal]] = {}
        self.dismissed: list[tuple[Target, model.Removal]] = []
        self.removed: list[Cid] = []
        self.written: list[tuple[Cid, bytes, list[Cid], list[Cid]]] = []
        self.removal_dot = self.author, scope.seq + 1

    def run(self, ops: list[Op]) -> None:
        """Removals first: they take the first dot, if there are any."""
        self.time = clock.tick(self.scope.time, self.wall_ms)
        removing = [op for op in ops if op.kind in ("untag", "dismiss")]
        for op in removing:
            getattr(self, f"_{op.kind}")(op)
        self.stamp = model.Stamp(self.time, self.author, self.scope.seq + 1 + bool(self.removed))
        for op in ops:
            if op not in removing:
                getattr(self, f"_{op.kind}")(op, self._record(op))
        self._land()

    def note(self) -> None:
        """Tell the oracle, once it is committed."""
        self.truth.expect_new({cid[2] for cid, *_ in self.written} | ({self.removal_dot} if self.removed else set()))
        for cid, value, replaces, rivals in self.written:
            self.truth.write(cid, value, replaces, rivals)
        if self.removed:
            self.truth.remove(self.removal_dot, self.removed)

    def _land(self) -> None:
        writer = self.writer
        made = [inc for piece in self.pieces.values() for inc in piece.values()]
        writer.field_ids(sorted({cell.address[:2] for inc in made for cell in inc.cells}))
        numbers = cells.numbers(writer.dictionary)
        every = [removal for some in self.removals.values() for removal in some]
        items = [numbers.removal(removal) for removal in every + [removal for _, removal in self.dismissed]]
        arrivals = []
        if items:
            arrivals.append(Arrival(self._next(), self.time, REMOVING, len(items), items))
        if made:
            parts = sum(len(inc.cells) for inc in made)
            arrivals.append(Arrival(self._next(), self.time, GROUPED if items else 0, parts, []))
        if not arrivals:
            return
        targets = [self._target(numbers, *place) for place in {**self.removals, **self.pieces}]
        for target, removal in self.dismissed:
            target.removals += (numbers.removal(removal),)
            targets.append(target)
        writer.account_own(self.scope.id, self.scope.author, self.scope.seq)
        scope, _ = land(writer, self.scope._replace(time=self.time, ready=True), targets, arrivals)
        writer.save_scope(scope)

    def _next(self) -> tuple[int, int]:
        self.scope = self.scope._replace(seq=self.scope.seq + 1)
        return self.scope.author, self.scope.seq

    def _target(self, numbers: model.Numbers, collection: str, key: str) -> Target:
        (number,) = self.writer.collection_ids([collection])
        (row,) = self.writer.by_key(number, self.scope.id, [key])
        target = Target(number, collection, key, row)
        if (collection, key) in self.pieces:
            target.pieces = (numbers.pack(self.pieces[collection, key]),)
        target.removals += tuple(numbers.removal(removal) for removal in self.removals.get((collection, key), ()))
        return target

    def _record(self, op: Op) -> model.Record:
        return cells.record(self.writer, self.scope.name, op.collection, op.key)

    def _add(self, op: Op, name: model.Name, cell: model.Cell, replaces: list[Cid], rivals: list[Cid]) -> None:
        """One more cell, unless this transaction has written there already."""
        piece = self.pieces.setdefault((op.collection, op.key), {})
        others = piece[name].cells if name in piece else frozenset()
        if all(other.address != cell.address for other in others):
            piece[name] = model.Incarnation(None, others | {cell})
            self.written.append(((name, cell.address, cell.stamp.dot), cell.value, replaces, rivals))

    def _tag(self, op: Op, record: model.Record) -> None:
        """Add an element to the set of the topmost incarnation."""
        if record:
            address = TAGS._replace(sub=canonical.encode(op.values["tag"]))
            self._add(op, topmost(record), model.Cell(address, self.stamp, canonical.encode(None)), [], [])

    def _write(self, op: Op, record: model.Record) -> None:
        """Add an update to a text."""
        if record:
            self._add(op, topmost(record), model.Cell(TEXT, self.stamp, canonical.encode(op.values["text"])), [], [])

    def _compact(self, op: Op, record: model.Record) -> None:
        """Write a text anew over what of it is contiguously known, which its seen covers."""
        for name, inc in record.items():
            here = [cell for cell in inc.cells if cell.address == TEXT]
            some = [c for c in here if c.stamp.seq <= self.contiguous.get(c.stamp.author, 0)]
            if len(some) > 1:
                seen = model.join(*(cell.seen for cell in some), [cell.stamp.dot for cell in some])
                value = canonical.encode(b"".join(sorted(cell.value for cell in some)))
                covered = [cid for cid in self.truth.at(name, TEXT, self.known) if model.covers(seen, cid[2])]
                self._add(op, name, model.Cell(TEXT, self.stamp, value, seen), covered, [])

    def _later(self, op: Op, record: model.Record) -> None:
        """Write a field of a kind that only a later version knows, which merges as a register."""
        for name in record:
            cell = model.overwrite(record, name, LATER, self.stamp, canonical.encode(op.values["later"]))
            replaces, rivals = seen_at(self.truth, record, name, LATER)
            self._add(op, name, cell, replaces, rivals)

    def _untag(self, op: Op) -> None:
        """Remove an element from the sets of all incarnations."""
        address = TAGS._replace(sub=canonical.encode(op.values["tag"]))
        for name, inc in self._record(op).items():
            dots = frozenset(cell.stamp.dot for cell in inc.cells if cell.address == address)
            if dots and all(name != other.name for other in self.removals.get((op.collection, op.key), ())):
                removal = model.Removal(name, False, {address: ((), dots)})
                self.removals.setdefault((op.collection, op.key), []).append(removal)
                self.removed += [(name, address, dot) for dot in sorted(dots)]

    def _dismiss(self, op: Op) -> None:
        """Remove all edits of deleted records that their deleters had not seen."""
        rows = [row for row in cells.held(self.writer, self.scope.id) if row.is_orphan]
        for row in rows if not self.dismissed else ():
            ((name, inc),) = row.record.items()
            if name.dot in self.known:
                collection = canonical.decode(row.name)[0] if row.name else ""
                target = Target(row.collection, collection, row.key, orphans=self.writer.orphans_by_id([row.id]))
                self.dismissed.append((target, model.removal_of(name, inc)))
                self.removed += cells.cells_of({name: inc})
