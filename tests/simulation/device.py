"""A simulated device: a real database on a real file, with a clock of its own, whose writes the oracle notes."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from tests import canonical, model
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.simulation.cells import EXISTENCE, Cid
from tests.simulation.oracle import Truth, Violation

import fieldsync as fs
from fieldsync import clock
from fieldsync.apply import Arrival, Target, land
from fieldsync.changes import GROUPED, REMOVING
from fieldsync.database import Database
from fieldsync.errors import DiskFull
from fieldsync.limits import DRIFT_MS_MAX
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fieldsync.sqlite import SQLiteReader, SQLiteWriter
    from fieldsync.store import Scope


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    price: int | None = None
    hours: fs.Counter = 0


class EarlierOrder(fs.Record, table="orders"):
    status: str = "open"
    hours: fs.Counter = fs.field(default=0, index=True)


DECLARATIONS: list[tuple[type[fs.Record], ...]] = [(Order,), (EarlierOrder,), ()]
TAGS = model.Address("tags", model.SET)
TEXT = model.Address("notes", model.TEXT)
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


class FlakyStore(SQLiteStore):
    """A store whose disk is full when told so."""

    is_full = False

    @contextmanager
    def writing(self) -> Iterator[SQLiteWriter]:
        with super().writing() as writer:
            yield writer
            if self.is_full:
                self.is_full = False
                raise DiskFull("simulated")


class World:
    """What all devices share: the true time, what was truly written, and names for authors."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self._names = random.Random(chance.random())  # apart: what the engine draws does not change the schedule
        self.now_ms = 1_700_000_000_000
        self.truths: dict[str, Truth] = {}

    def truth(self, scope: str) -> Truth:
        return self.truths.setdefault(scope, Truth())

    def mint(self) -> bytes:
        return self._names.randbytes(8)


class Device:
    """One replica. All it does goes through `database`, or below it through `land`."""

    def __init__(self, world: World, name: str, *, is_hub: bool, declared: tuple[type[fs.Record], ...]) -> None:
        self.world = world
        self.name = name
        self.is_hub = is_hub
        self.offset_ms = 0
        self.latest_ms = 0  # the furthest that its own clock ever showed
        self.database = self._open(declared)
        with self.store.writing() as writer:  # frames name it: equal seeds, equal frames
            writer.set_meta("replica", world.mint() * 2)
        self.replica.id = self._meta("replica")

    def _open(self, declared: tuple[type[fs.Record], ...]) -> Database:
        self.store = FlakyStore(self.world.folder / f"{self.name}.db", full=False)
        self.replica = Replica(self.store, takes_all=self.is_hub, wall_ms=self.wall_ms, mint=self.world.mint)
        return Database(self.replica, declared)

    def reopen(self, declared: tuple[type[fs.Record], ...]) -> None:
        """Close the file and open it again, with another version of the app."""
        self.database.close()
        self.database = self._open(declared)

    def wall_ms(self) -> int:
        shown = self.world.now_ms + self.offset_ms
        self.latest_ms = max(self.latest_ms, shown)
        return shown

    def _meta(self, name: str) -> Any:
        with self.store.reading() as reader:
            return reader.meta(name)

    # --- looking ---

    def scopes(self) -> list[str]:
        with self.store.reading() as reader:
            return [scope.name for scope in reader.scopes()]

    def context(self, scope: str) -> set[model.Dot]:
        with self.store.reading() as reader:
            held = reader.scope(scope)
            return cells.dots_of(reader.context(held.id)) if held else set()

    def rows(self, scope: str) -> list[cells.Held]:
        with self.store.reading() as reader:
            held = reader.scope(scope)
            return cells.held(reader, held.id) if held else []

    def record(self, reader: SQLiteReader, scope: str, collection: str, key: str) -> model.Record:
        """The live incarnations of a key."""
        known, held = reader.collection(collection), reader.scope(scope)
        rows = reader.by_key(known.id, held.id, [key]) if known and held else []
        return cells.unpack(rows[0].packed, reader.dictionary) if rows else {}

    def keys(self, scope: str, collection: str) -> list[str]:
        with self.store.reading() as reader:
            known, held = reader.collection(collection), reader.scope(scope)
            if known is None or held is None:
                return []
            sql = f"SELECT _key FROM fs_record_{known.id} WHERE _scope=? ORDER BY _key"
            return [key for (key,) in reader._db.execute(sql, (held.id,))]

    def check(self) -> None:
        """Violation unless all that is held is what its contexts say, and what follows from it follows."""
        for fault in audit(self.store):
            raise Violation(f"{self.name}: {fault}")
        with self.store.reading() as reader:
            for scope in reader.scopes():
                self._check_scope(reader, scope)

    def _check_scope(self, reader: SQLiteReader, scope: Scope) -> None:
        truth = self.world.truth(scope.name)
        rows = cells.held(reader, scope.id)
        known = cells.dots_of(reader.context(scope.id))
        partly = set(reader.provisional_dots(scope.id))
        live = cells.all_cells(rows)
        try:
            truth.check_cells(live, known, partly)
            for row in rows:
                if not row.is_orphan and not partly:
                    truth.check_reading(row.record, known)
        except Violation as violation:
            raise Violation(f"{self.name}, {scope.name}: {violation}") from None
        if clock.to_ms(scope.time) > self.latest_ms + DRIFT_MS_MAX:
            raise Violation(f"{self.name}, {scope.name}: the clock was moved to {clock.to_ms(scope.time)}")

    # --- writing ---

    def transact(self, ops: list[Op]) -> None:
        """A transaction through the public interface, each record at most once in it."""
        before = self._before(ops)
        with self.database.write() as tx:
            for op in ops:
                if op.kind in ("delete", "replace"):
                    tx.delete(self._of(op), op.key, scope=op.scope)
                if op.kind in ("create", "replace"):
                    more = {"hours": op.hours} if op.hours else {}
                    tx.create(self._of(op), scope=op.scope, key=op.key, **op.values, **more)
                if op.kind == "update":
                    draft = tx.get(self._of(op), op.key, scope=op.scope)
                    for name, value in op.values.items():
                        setattr(draft, name, value)
                    if op.hours:
                        draft.hours += op.hours
        self._note(ops, before)

    def load(self, scope: str, collection: str, rows: dict[str, dict[str, Any]]) -> None:
        """A bulk load: new keys in one change, differing ones in another."""
        ops = [Op("create", scope, collection, key, values) for key, values in rows.items()]
        before = self._before(ops)
        known = [op for op in ops if before[scope, collection, op.key]]
        differing = []
        for op in known:
            read = model.read_all(before[scope, collection, op.key])
            changed = {name: value for name, value in op.values.items() if read.get(name) != value}
            differing += [replace(op, kind="update", values=changed)] if changed else []
        named = [NamedRow(op.values, op.key) for op in ops]
        of = self._of(Op("load", scope, collection, ""))
        self.database.load(of, named, key=lambda row: cast("NamedRow", row).key, scope=lambda row: scope)
        self._note([op for op in ops if op not in known], before, later=bool(differing))
        self._note(differing, before)

    def _of(self, op: Op) -> Any:
        declared = self.database._collections.get(op.collection)
        return declared.record if declared is not None else op.collection

    def _before(self, ops: list[Op]) -> dict[tuple[str, str, str], model.Record]:
        with self.store.reading() as reader:
            return {
                (op.scope, op.collection, op.key): self.record(reader, op.scope, op.collection, op.key) for op in ops
            }

    def _note(self, ops: list[Op], before: dict[tuple[str, str, str], model.Record], later: bool = False) -> None:
        """Tell the oracle what a transaction did. later: one more change of the scope was made after it."""
        for scope in dict.fromkeys(op.scope for op in ops):
            some = [op for op in ops if op.scope == scope]
            with self.store.reading() as reader:
                held = reader.scope(scope)
                assert held is not None
                author = reader.dictionary.author(held.author)
            writes = [op for op in some if op.kind != "delete"]
            dot = author, held.seq - later
            removal_dot = author, held.seq - later - bool(writes)
            truth = self.world.truth(scope)
            for op in some:
                if op.kind in ("delete", "replace"):
                    for name, inc in before[scope, op.collection, op.key].items():
                        truth.delete(removal_dot, name, cells.cells_of({name: inc}))
            creates = [op for op in writes if op.kind != "update"]
            for op in writes:
                if op.kind == "update":
                    self._note_update(truth, op, before[scope, op.collection, op.key], dot)
                else:
                    self._note_create(truth, op, model.Name(*dot, creates.index(op)))

    def _note_create(self, truth: Truth, op: Op, name: model.Name) -> None:
        truth.write((name, EXISTENCE, name.dot), canonical.encode([op.collection, op.key]))
        for field_name, value in op.values.items():
            truth.write((name, model.Address(field_name, model.REGISTER), name.dot), canonical.encode(value))
        if op.hours:
            truth.write((name, model.Address("hours", model.COUNTER), name.dot), canonical.encode(op.hours))
            truth.increments.append((name.dot, name, "hours", op.hours))

    def _note_update(self, truth: Truth, op: Op, record: model.Record, dot: model.Dot) -> None:
        for field_name, value in op.values.items():
            address = model.Address(field_name, model.REGISTER)
            for name in record:
                truth.write((name, address, dot), canonical.encode(value), *seen_at(truth, record, name, address))
        if op.hours:
            name = topmost(record)
            address = model.Address("hours", model.COUNTER)
            own = [c for c in record[name].cells if c.address == address and c.stamp.author == dot[0]]
            total = sum(canonical.decode(cell.value) for cell in own) + op.hours
            truth.write(
                (name, address, dot), canonical.encode(total), [(name, address, cell.stamp.dot) for cell in own]
            )
            truth.increments.append((dot, name, "hours", op.hours))

    # --- writing below the public interface ---

    def inner(self, scope: str, ops: list[Op]) -> None:
        """A transaction of set elements, texts, kinds of a later version and dismissals, in one scope."""
        with self.store.writing() as writer:
            inner = _Inner(self, writer, writer.enter(scope))
            inner.run(ops)
        for cid, value, replaces, rivals in inner.written:
            self.world.truth(scope).write(cid, value, replaces, rivals)
        self.world.truth(scope).remove(inner.removal_dot, inner.removed)


class NamedRow(dict[str, Any]):
    """A row for a bulk load, whose key is none of its fields."""

    def __init__(self, values: dict[str, Any], key: str) -> None:
        super().__init__(values)
        self.key = key


def topmost(record: model.Record) -> model.Name:
    """The incarnation that was created last."""
    return max(record, key=lambda name: model.Stamp(record[name].time or 0, *name.dot))


class _Inner:
    """Builds the pieces and removals of one inner transaction with the model, and lands them as a transaction does."""

    def __init__(self, device: Device, writer: SQLiteWriter, scope: Scope) -> None:
        self.device, self.writer = device, writer
        if not scope.author:
            (author,) = writer.author_ids([device.world.mint()])
            scope = scope._replace(author=author, seq=0)
        self.scope = scope
        self.author = writer.dictionary.author(scope.author)
        self.truth = device.world.truth(scope.name)
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
        self.time = clock.tick(self.scope.time, self.device.wall_ms())
        removing = [op for op in ops if op.kind in ("untag", "dismiss")]
        for op in removing:
            getattr(self, f"_{op.kind}")(op)
        self.stamp = model.Stamp(self.time, self.author, self.scope.seq + 1 + bool(self.removed))
        for op in ops:
            if op not in removing:
                getattr(self, f"_{op.kind}")(op, self._record(op))
        self._land()

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
            target.removals.append(numbers.removal(removal))
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
            target.pieces.append(numbers.pack(self.pieces[collection, key]))
        target.removals += [numbers.removal(removal) for removal in self.removals.get((collection, key), ())]
        return target

    def _record(self, op: Op) -> model.Record:
        return self.device.record(self.writer, self.scope.name, op.collection, op.key)

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


def seen_at(
    truth: Truth, record: model.Record, name: model.Name, address: model.Address
) -> tuple[list[Cid], list[Cid]]:
    """What a write at a register replaces in one incarnation, and all that its author sees of the field."""
    rivals = [(other, cell.address, cell.stamp.dot) for other, cell in model.cells_at(record, *address[:2])]
    return [cid for cid in rivals if cid[:2] == (name, address)] + truth.creation(name, address), rivals
