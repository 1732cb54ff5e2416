"""A simulated device: a real database on a real file, with a clock of its own, whose writes the oracle notes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tests import canonical, model
from tests.simulation import cells, fields
from tests.simulation.audit import audit
from tests.simulation.cells import EXISTENCE
from tests.simulation.disk import FlakyStore, Killed
from tests.simulation.glance import Glance, Settled, note
from tests.simulation.inner import InnerChange, NamedRow, Op, seen_at, topmost
from tests.simulation.mover import WISH
from tests.simulation.oracle import Violation
from tests.simulation.world import OWNER

import fieldsync as fs
from fieldsync import clock, copies, record
from fieldsync.changes import REMOVING
from fieldsync.database import Database
from fieldsync.examine import places
from fieldsync.limits import DRIFT_MS_MAX
from fieldsync.replica import Replica
from fieldsync.trash import TrashEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.disk import Image
    from tests.simulation.oracle import Truth
    from tests.simulation.world import World

    from fieldsync.conflicts import LateEdit
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.store import Scope


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
        self._meant: dict[tuple[str, str, str], dict[str, Any]] = {}  # what texts, lists and maps are to read
        self.minted: set[bytes] = set()  # names, of authors among others
        self.path = world.folder / f"{name}.db"
        self.notes = world.folder / f"{name}.notes"
        if image is not None:
            image.put(self.path, self.notes)
        self.database = self._open(declared)

    def _open(self, declared: tuple[type[fs.Record], ...]) -> Database:
        self.store = FlakyStore(self.path, self.notes)
        with self.world.naming():
            copies.recognise(self.store, self.notes)
        self.replica = Replica(
            self.store, takes_all=self.is_hub, wall_ms=self.wall_ms, mint=self.mint, owns=lambda _: self.is_owner
        )
        return Database(self.replica, declared)

    def reopen(self, declared: tuple[type[fs.Record], ...], image: Image | None = None) -> None:
        """Close the file and open it again, with another version of the app; image: what the file is by then."""
        self.database.close()
        if image is not None:
            image.put(self.path, self.notes)
        self.database = self._open(declared)

    @property
    def is_owner(self) -> bool:
        """Whether it is the hub that executes moves, of which there is one."""
        return self.is_hub and self.name == OWNER

    def mint(self) -> bytes:
        name = self.world.mint()
        self.minted.add(name)
        return name

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
                if not row.is_orphan:
                    self._check_shared(truth, row.record, record.read_all(reader.dictionary, row.packed))
        except Violation as violation:
            raise Violation(f"{self.name}, {scope.name}: {violation}") from None
        if clock.to_ms(scope.time) > self.latest_ms + DRIFT_MS_MAX:
            raise Violation(f"{self.name}, {scope.name}: the clock was moved to {clock.to_ms(scope.time)}")

    def _check_shared(self, truth: Truth, held: model.Record, shown: dict[str, Any]) -> None:
        """Texts, lists and maps read what the updates that live make."""
        for name, kind in {cell.address[:2] for cell in held[topmost(held)].cells if cell.address.kind in fields.ROOTS}:
            wanted = fields.read(held, name, kind, truth.rank)
            if shown[name] != wanted:
                raise Violation(f"{name} reads {shown[name]!r}, not {wanted!r}")

    # --- writing ---

    def transact(self, ops: list[Op]) -> None:
        """A transaction through the public interface, each record at most once in it."""
        before, began = self._before(ops), self._changes()
        self._meant = {}
        with self._noting(lambda: self._note(ops, before, began)), self.database.write() as tx:
            for op in ops:
                if op.kind in ("delete", "replace"):
                    tx.delete(self._of(op), op.key, scope=op.scope)
                if op.kind in ("create", "replace"):
                    more = {"hours": op.hours} if op.hours else {}
                    draft = tx.create(self._of(op), scope=op.scope, key=op.key, **op.values, **more)
                    self._edit(draft, op)
                if op.kind == "update":
                    draft = tx.get(self._of(op), op.key, scope=op.scope)
                    if op.settles is not None:
                        tx.settle(*op.settles)
                    for name, value in op.values.items() if op.settles is None else ():
                        setattr(draft, name, value)
                    if op.hours:
                        draft.hours += op.hours
                    self._edit(draft, op)
                    if op.to:
                        tx.move(self._of(op), op.key, to=op.to, scope=op.scope)

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
        self.world.movers.flush()

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

    def amend(self, one: LateEdit | TrashEntry, what: str, meant: dict[str, Any]) -> None:
        """Dismiss or recreate a late edit, or restore a record; meant: what the record is to read then."""
        truth, before, (known, first) = self.world.truth(one.scope), self._glance(), self._changes()[one.scope]

        def note_amended() -> None:
            author, last = self._last_change(one.scope)
            done = Settled(self.name, False, 0, before, self.store.began_at or self._glance(), set())
            done.dots[one.scope] = {(author, seq) for seq in range(first * (author == known) + 1, last + 1)}
            note(truth, one.scope, done)
            made = [cid[0] for cid in done.new(one.scope) if cid[1] == EXISTENCE]
            if len(made) != (what != "dismiss"):
                raise Violation(f"{self.name}: to {what} {one} made {made}")
            for name in made:
                row = done.after.row_of((one.scope, name))
                shown = model.read_all(row.record) if row else {}
                if wrong := {field for field, value in meant.items() if value and shown.get(field) != value}:
                    raise Violation(f"{self.name}: {one} reads {shown} when made again, other {sorted(wrong)}")

        with self._noting(note_amended):
            if isinstance(one, TrashEntry):
                self.database.restore(one)
            else:
                with self.database.write() as tx:
                    getattr(tx, what)(one)

    def _glance(self) -> Glance:
        with self.store.reading() as reader:
            return Glance.at(reader)

    def _of(self, op: Op) -> Any:
        declared = self.database._collections.get(op.collection)
        return declared.record if declared is not None else op.collection

    def _before(self, ops: list[Op]) -> dict[tuple[str, str, str], model.Record]:
        with self.store.reading() as reader:
            return {
                (op.scope, op.collection, op.key): cells.record(reader, op.scope, op.collection, op.key) for op in ops
            }

    def _note(
        self,
        ops: list[Op],
        before: dict[tuple[str, str, str], model.Record],
        began: dict[str, tuple[bytes, int]] | None = None,
        later: bool = False,
    ) -> None:
        """Tell the oracle what a transaction did. later: one more change of the scope was made after it."""
        for scope in dict.fromkeys(op.scope for op in ops):
            some = [op for op in ops if op.scope == scope]
            author, last = self._last_change(scope)
            deleting = [op for op in some if op.kind in ("delete", "replace")]
            gone = [cid for op in some for cid in fields.going(op, before[scope, op.collection, op.key])]
            writes = [op for op in some if op.kind != "delete"]
            removes = bool(deleting or gone)
            if began is not None:
                known, first = began.get(scope, (author, 0))
                count = last - (first if known == author else 0)
                if count not in (removes, removes + bool(writes)):
                    raise Violation(f"{self.name}, {scope}: {some} made {count} changes")
                writes = writes if count > removes else []
            dot = author, last - later
            removal_dot = author, last - later - bool(writes)
            truth = self.world.truth(scope)
            truth.expect_new(([dot] if writes else []) + ([removal_dot] if removes else []))
            for op in deleting:
                for name, inc in before[scope, op.collection, op.key].items():
                    truth.delete(removal_dot, name, cells.cells_of({name: inc}))
            if gone:
                truth.remove(removal_dot, gone)
            creates = [op for op in writes if op.kind != "update"]
            for op in writes:
                record = before[scope, op.collection, op.key] if op.kind == "update" else {}
                if op.kind == "update":
                    self._note_update(truth, op, record, dot)
                else:
                    self._note_create(truth, op, model.Name(*dot, creates.index(op)))
                if op.edits:
                    self._note_edits(truth, op, record, dot)

    def _note_edits(self, truth: Truth, op: Op, record: model.Record, dot: model.Dot) -> None:
        """Of texts, lists and maps nobody but pycrdt knows what an update is: it is what the file has."""
        after = self._written(op)
        top = topmost(record or {name: inc for name, inc in after.items() if name.dot == dot})
        for address in fields.coming(op, record):
            truth.write((top, address, dot), canonical.encode(None))
        was, now = cells.cells_of(record), cells.cells_of(after)
        for cid, value in now.items():
            if cid[2] == dot and cid[1].kind in fields.ROOTS:
                truth.write(cid, value, [old for old in was if old[:2] == cid[:2] and old not in now])
        for name, meant in self._meant.get((op.scope, op.collection, op.key), {}).items():
            kind = fields.KINDS[name]
            shown = fields.read(after, name, kind, truth.rank)
            if shown != meant:
                raise Violation(f"{self.name}: {op.key!r} was to read {meant!r} in {name}, and reads {shown!r}")

    def _written(self, op: Op) -> model.Record:
        """What a record holds after an app's last transaction; a hub's own changes may have followed."""
        if self.store.began_with is None:
            with self.store.reading() as reader:
                return cells.record(reader, op.scope, op.collection, op.key)
        name = canonical.encode([op.collection, op.key])
        rows = self.store.began_at.rows[op.scope]
        return next((row.record for row in rows if row.name == name and not row.is_orphan), {})

    def _changes(self) -> dict[str, tuple[bytes, int]]:
        """By scope, the own author and the number of its last change."""
        with self.store.reading() as reader:
            return {scope.name: (reader.dictionary.author(scope.author), scope.seq) for scope in reader.scopes()}

    def _last_change(self, scope: str) -> tuple[bytes, int]:
        """The author and the number of an app's last change in a scope; a hub's own may have followed it."""
        if self.store.began_with is not None:
            return self.store.began_with[scope]
        with self.store.reading() as reader:
            held = reader.scope(scope)
            assert held is not None
            return reader.dictionary.author(held.author), held.seq

    def _edit(self, draft: Any, op: Op) -> None:
        """Edit sets, texts, lists and maps, and remember what is to come of it."""
        if op.edits:
            fields.edit(draft, op.edits)
            self._meant[op.scope, op.collection, op.key] = fields.meant(draft)

    def _note_create(self, truth: Truth, op: Op, name: model.Name) -> None:
        truth.write((name, EXISTENCE, name.dot), canonical.encode([op.collection, op.key]))
        for field_name, value in op.values.items():
            truth.write((name, model.Address(field_name, model.REGISTER), name.dot), canonical.encode(value))
        if op.hours:
            truth.write((name, model.Address("hours", model.COUNTER), name.dot), canonical.encode(op.hours))
            truth.increments.append((name.dot, name, "hours", op.hours))

    def _note_update(self, truth: Truth, op: Op, record: model.Record, dot: model.Dot) -> None:
        wish = {WISH.field: op.to} if op.to else {}
        for field_name, value in {**op.values, **wish}.items():
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
            inner = InnerChange(writer, writer.enter(scope), truth, self.wall_ms(), self.mint)
            inner.run(ops)
