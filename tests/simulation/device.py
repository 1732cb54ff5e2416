"""A simulated device: a real database on a real file, with a clock of its own, whose writes the oracle notes."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from tests import canonical, model
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.simulation.cells import EXISTENCE
from tests.simulation.disk import FlakyStore, Killed
from tests.simulation.inner import InnerChange, Op, seen_at, topmost
from tests.simulation.oracle import Truth, Violation

import fieldsync as fs
from fieldsync import clock, copies
from fieldsync.changes import REMOVING
from fieldsync.database import Database
from fieldsync.examine import places
from fieldsync.limits import DRIFT_MS_MAX
from fieldsync.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.simulation.disk import Image

    from fieldsync.sqlite import SQLiteReader
    from fieldsync.store import Scope


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    price: int | None = None
    hours: fs.Counter = 0


class EarlierOrder(fs.Record, table="orders"):
    status: str = "open"
    hours: fs.Counter = fs.field(default=0, index=True)


DECLARATIONS: list[tuple[type[fs.Record], ...]] = [(Order,), (EarlierOrder,), ()]


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

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Files are named by this world's chance: frames name them, and equal seeds give equal frames."""
        with patch.object(copies.os, "urandom", self._names.randbytes):
            yield


class Device:
    """One replica. All it does goes through `database`, or below it through `land`."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        is_hub: bool,
        declared: tuple[type[fs.Record], ...],
        image: Image | None = None,
    ) -> None:
        """image: of another device's file, of which this one is a copy."""
        self.world = world
        self.name = name
        self.is_hub = is_hub
        self.offset_ms = 0
        self.latest_ms = 0  # the furthest that its own clock ever showed
        self.path = world.folder / f"{name}.db"
        self.notes = world.folder / f"{name}.notes"
        if image is not None:
            image.put(self.path, self.notes)
        self.database = self._open(declared)

    def _open(self, declared: tuple[type[fs.Record], ...]) -> Database:
        self.store = FlakyStore(self.path, self.notes)
        with self.world.naming():
            copies.recognise(self.store, self.notes)
        self.replica = Replica(self.store, takes_all=self.is_hub, wall_ms=self.wall_ms, mint=self.world.mint)
        return Database(self.replica, declared)

    def reopen(self, declared: tuple[type[fs.Record], ...], image: Image | None = None) -> None:
        """Close the file and open it again, with another version of the app; image: what the file is by then."""
        self.database.close()
        if image is not None:
            image.put(self.path, self.notes)
        self.database = self._open(declared)

    def wall_ms(self) -> int:
        shown = self.world.now_ms + self.offset_ms
        self.latest_ms = max(self.latest_ms, shown)
        return shown

    # --- looking ---

    def scopes(self) -> list[str]:
        with self.store.reading() as reader:
            return [scope.name for scope in reader.scopes()]

    def context(self, scope: str) -> set[model.Dot]:
        return self.contexts().get(scope, set())

    def contexts(self) -> dict[str, set[model.Dot]]:
        """What is accounted for, by scope."""
        with self.store.reading() as reader:
            return {scope.name: cells.dots_of(reader.context(scope.id)) for scope in reader.scopes()}

    def provisional(self, scope: str) -> set[model.Dot]:
        with self.store.reading() as reader:
            held = reader.scope(scope)
            return set(reader.provisional_dots(held.id)) if held else set()

    def whole(self, scope: str) -> dict[model.Dot, set[tuple[int, int]]]:
        """The changes accounted for of which, by the index, all that was written lives; and the rows named there."""
        with self.store.reading() as reader:
            held = reader.scope(scope)
            rows = [change for change, _ in reader.indexed(held.id)] if held else []
            found = {
                (reader.dictionary.author(row.author), row.seq): places(row.entries)
                for row in rows
                if row.live == row.parts and not row.flags & REMOVING
            }
        return {dot: found[dot] for dot in found.keys() & self.context(scope)}

    def authors(self) -> dict[str, bytes]:
        """By scope, the author under which it is written now, if there is one."""
        with self.store.reading() as reader:
            return {scope.name: reader.dictionary.author(scope.author) for scope in reader.authored()}

    def rows(self, scope: str) -> list[cells.Held]:
        with self.store.reading() as reader:
            held = reader.scope(scope)
            return cells.held(reader, held.id) if held else []

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
        with self._noting(lambda: self._note(ops, before)), self.database.write() as tx:
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

    @contextmanager
    def _noting(self, note: Callable[[], None]) -> Iterator[None]:
        """Tell the oracle of a transaction that is in the file, though its process may have died with it."""
        try:
            yield
        except Killed as killed:
            if killed.has_written:
                note()
            raise
        note()

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

        def note() -> None:
            self._note([op for op in ops if op not in known], before, later=bool(differing))
            self._note(differing, before)

        with self._noting(note):
            self.database.load(of, named, key=lambda row: cast("NamedRow", row).key, scope=lambda row: scope)

    def _of(self, op: Op) -> Any:
        declared = self.database._collections.get(op.collection)
        return declared.record if declared is not None else op.collection

    def _before(self, ops: list[Op]) -> dict[tuple[str, str, str], model.Record]:
        with self.store.reading() as reader:
            return {
                (op.scope, op.collection, op.key): cells.record(reader, op.scope, op.collection, op.key) for op in ops
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
            removing = [op for op in some if op.kind in ("delete", "replace")]
            truth.expect_new(([dot] if writes else []) + ([removal_dot] if removing else []))
            for op in removing:
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
        truth, inner = self.world.truth(scope), None

        def note() -> None:
            if inner is not None:
                inner.note()

        with self._noting(note), self.store.writing() as writer:
            inner = InnerChange(writer, writer.enter(scope), truth, self.wall_ms(), self.world.mint)
            inner.run(ops)


class NamedRow(dict[str, Any]):
    """A row for a bulk load, whose key is none of its fields."""

    def __init__(self, values: dict[str, Any], key: str) -> None:
        super().__init__(values)
        self.key = key
