"""Random moves on the real engine: a port of the design's move_model.py, its mode in which a hub alone moves records.

A hub holds all scopes, devices hold some. They write, count, wish, delete and trim one record, sync in any pairs, over
links that are cut, and some are lost. An increment counts if its change reached the hub; then it counts once. A name is
read if it is the latest that reached the hub, and no name is left beside it that somebody had read and replaced.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests import canonical, model
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Talk, open_replica

import fieldsync as fs
from fieldsync import clock
from fieldsync.apply import Arrival, Target, land
from fieldsync.context import Context
from fieldsync.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from fieldsync.replica import Replica

    Piece = Callable[[model.Stamp], model.Record]

SCOPES = ("x", "y", "z")
KEY = "c-1"
NAME = model.Address("name", model.REGISTER)


class Customer(fs.Record, table="customers"):
    name: str = ""
    visits: fs.Counter = 0


@dataclass
class Deed:
    """What somebody wrote, and the change that it was."""

    scope: str
    author: bytes
    seq: int
    amount: int = 0
    name: str = ""
    time: int = 0  # of the name
    saw: frozenset[str] = frozenset()  # the names that it replaced
    deletes: bool = False


@dataclass
class World:
    """A hub and its devices, the first replica being the hub."""

    folder: Path
    seed: int
    now_ms: int = NOW_MS
    deeds: list[Deed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = chance = random.Random(self.seed)
        self.deletes = chance.random() < 0.3
        self.loses = chance.random() < 0.5
        self.databases = [self.open("hub", list(SCOPES))]
        for number in range(3):
            self.databases.append(self.open(f"device{number}", chance.sample(SCOPES, chance.choice([1, 2, 2, 3]))))
        self.hub = self.databases[0]
        self.write(self.hub, "x", creates=True)

    def open(self, name: str, scopes: list[str]) -> Database:
        replica = open_replica(self.folder / f"{name}.db", hub=name == "hub", seed=self.seed)
        replica.wall_ms = lambda: self.now_ms
        database = Database(replica, (Customer,))
        database.enter(*scopes)
        return database

    def close(self) -> None:
        for database in self.databases:
            database.close()

    # --- what happens ---

    def step(self) -> None:
        chance = self.chance
        self.now_ms += chance.choice([0, 1, 1_000, 100_000])
        database, what = chance.choice(self.databases), chance.random()
        if what < 0.3:
            self.edit(database)
        elif what < 0.34 and self.deletes:
            self.delete(database)
        elif what < 0.37 and self.loses and database is not self.hub and len(self.databases) > 2:
            self.databases.remove(database)
            database.close()
        elif what < 0.42:
            trims = self.hub if self.deletes else database  # a removal that nobody remembers no hub can follow
            trims.replica.trim(None, before_ms=self.now_ms, keep=chance.choice([None, 0]))
        else:
            self.sync(
                database, chance.choice(self.databases), cut_after=chance.choice([None, None, chance.randrange(9)])
            )

    def edit(self, database: Database) -> None:
        for record in database[Customer].all():
            some = self.chance.randrange(1, 16)
            to = self.chance.choice(SCOPES) if some & 1 else ""
            self.write(database, record.scope, amount=some & 2, name=f"n{len(self.deeds)}" if some & 4 else "", to=to)

    def write(
        self, database: Database, scope: str, *, creates: bool = False, amount: int = 0, name: str = "", to: str = ""
    ) -> None:
        if not (creates or amount or name or to):
            return
        before = last_change(database.replica, scope)
        saw = frozenset(names(database, scope)) if name else frozenset()
        with database.write() as tx:
            record = tx.create(Customer, key=KEY, scope=scope) if creates else tx.get(Customer, KEY, scope=scope)
            if amount:
                record.visits += amount
            if name:
                record.name = name
            if to:
                tx.move(Customer, KEY, to=to, scope=scope)
        time = max((names(database, one).get(name, 0) for one in SCOPES), default=0)
        self.note(database, scope, before, Deed(scope, b"", 0, amount, name, time, saw))

    def delete(self, database: Database) -> None:
        for record in database[Customer].all():
            before = last_change(database.replica, record.scope)
            with database.write() as tx:
                tx.delete(Customer, KEY, scope=record.scope)
            self.note(database, record.scope, before, Deed(record.scope, b"", 0, deletes=True))

    def note(self, database: Database, scope: str, before: tuple[bytes, int], deed: Deed) -> None:
        """Of what one transaction did in a scope, the first change is the app's own; a hub's moves follow."""
        deed.author, seq = last_change(database.replica, scope)
        deed.seq = before[1] + 1 if before[0] == deed.author else 1
        assert deed.seq <= seq
        self.deeds.append(deed)

    def sync(self, one: Database, other: Database, cut_after: int | None = None) -> None:
        if one is not other:
            Talk.between(one.replica, other.replica).run(cut_after)

    # --- the end ---

    def settle(self) -> None:
        for _ in range(3):
            for one in self.databases:
                for other in self.databases:
                    self.sync(one, other)

    def wrong_names(self, record: Customer, deeds: list[Deed]) -> Iterator[str]:
        named = [deed for deed in deeds if deed.name]
        latest = max((deed.time for deed in named), default=0)
        if record.name not in ({deed.name for deed in named if deed.time == latest} or {""}):
            yield f"the name {record.name!r} at {names(self.hub, record.scope)}, not that of {latest}: {named}"
        saw = {deed.name: deed.saw for deed in self.deeds}  # a deed that reached nobody saw what others did not
        replaced = {name for deed in named for name in everything_seen(deed, saw)}
        for name in replaced & set(names(self.hub, record.scope)):
            yield f"the name {name!r} was replaced: {named}"

    def faults(self) -> list[str]:
        with self.hub.replica.store.reading() as reader:
            contexts = {scope.name: reader.context(scope.id) for scope in reader.scopes()}
        deeds = [deed for deed in self.deeds if contexts[deed.scope].covers(deed.author, deed.seq)]
        records = self.hub[Customer].all()
        found = []
        alive = 0 if any(deed.deletes for deed in deeds) else 1
        if len(records) != alive:
            found.append(f"{len(records)} records where {alive} should be: {records}")
        late = [scope for scope in SCOPES if alive and headless(self.hub, scope)]
        found += [f"what came late is still aside in {late}"] if late else []
        total = sum(deed.amount for deed in deeds)
        found += [f"counted {record.visits}, not {total}" for record in records if record.visits != total]
        found += [fault for record in records for fault in self.wrong_names(record, deeds)]
        states = {scope.name: (scope.records, scope.digest) for scope in self.hub.scopes()}
        for database in self.databases:
            found += [f"{database.path}: {fault}" for fault in audit(database.replica.store)]
            for scope in database.scopes():
                if (scope.records, scope.digest) != states[scope.name]:
                    found.append(f"{database.path} differs in {scope}")
        return found


def names(database: Database, scope: str) -> dict[str, int]:
    """The names that live side by side, and their times."""
    cells_of_names = model.cells_at(held(database, scope), *NAME[:2])
    return {canonical.decode(cell.value): cell.stamp.time for _, cell in cells_of_names}


def last_change(replica: Replica, scope: str) -> tuple[bytes, int]:
    """The own author and the number of its last change in a scope."""
    with replica.store.reading() as reader:
        held = reader.scope(scope)
        return (reader.dictionary.author(held.author), held.seq) if held else (b"", 0)


def everything_seen(deed: Deed, saw: dict[str, frozenset[str]]) -> set[str]:
    """What a name replaced, and what that had."""
    found: set[str] = set()
    new = set(deed.saw)
    while new:
        found |= new
        new = {other for name in new for other in saw[name]} - found
    return found


def play(folder: Path, seed: int) -> list[str]:
    """What is wrong at the end of a random run."""
    world = World(folder, seed)
    try:
        for _ in range(world.chance.randrange(30, 90)):
            world.step()
        world.settle()
        return world.faults()
    finally:
        world.close()


# Below the public interface -------------------------------------------------------------------------------------------


def held(database: Database, scope: str, key: str = KEY, collection: str = "customers") -> model.Record:
    """The live incarnations of a key."""
    with database.replica.store.reading() as reader:
        return cells.record(reader, scope, collection, key)


def headless(database: Database, scope: str) -> model.Record:
    """All cells of a scope that are kept aside."""
    with database.replica.store.reading() as reader:
        found = reader.scope(scope)
        rows = cells.held(reader, found.id) if found else []
    return model.merge(*(row.record for row in rows if row.is_orphan))


def edit(name: model.Name, *some: tuple[model.Address, bytes]) -> Piece:
    """Cells of one incarnation, with the stamp of the change that they are made for."""
    return lambda stamp: {
        name: model.Incarnation(None, frozenset(model.Cell(address, stamp, value) for address, value in some))
    }


def inject(
    database: Database,
    scope: str,
    pieces: Iterable[tuple[str, Piece]],
    *,
    dot: model.Dot | None = None,
    collection: str = "customers",
) -> None:
    """Write changes of any cells into a file, whole and accounted for: its own next one, or under any dot.

    Nobody honest writes under a dot of his choice, with cells that see nothing, or with more than a change may hold.
    """
    with database.replica.store.writing() as writer:
        scope_now = writer.enter(scope)
        if dot is None and not scope_now.author:
            (number,) = writer.author_ids([database.replica.mint()])
            scope_now = scope_now._replace(author=number, seq=0)
        author, seq = dot or (writer.dictionary.author(scope_now.author), scope_now.seq + 1)
        time = clock.tick(scope_now.time, database.replica.wall_ms())
        made = [(key, piece(model.Stamp(time, author, seq))) for key, piece in pieces]
        counts = Counter(stamp for _, record in made for stamp in model.live_dots(record))
        authors = sorted({name for name, _ in counts} | {name.author for _, record in made for name in record})
        numbers_of = dict(zip(authors, writer.author_ids(authors), strict=True))
        incarnations = [inc for _, record in made for inc in record.values()]
        writer.field_ids(sorted({cell.address[:2] for inc in incarnations for cell in inc.cells}))
        (table,) = writer.collection_ids([collection])
        numbers = cells.numbers(writer.dictionary)
        targets: dict[str, Target] = {}
        for key, record in made:
            row = next(iter(writer.by_key(table, scope_now.id, [key])), None)
            target = targets.setdefault(key, Target(table, collection, key, row))
            target.pieces += (numbers.pack(record),)
            created = {
                (numbers_of[name.author], name.seq): name.n for name, inc in record.items() if inc.time is not None
            }
            target.created = {**(target.created or {}), **created}
        writer.account(scope_now.id, Context.of((name, low, low) for name, low in counts))
        if dot is None and (author, seq) in counts:
            scope_now = scope_now._replace(seq=seq, time=time)
        arrivals = [Arrival((numbers_of[one[0]], one[1]), time, 0, parts, []) for one, parts in sorted(counts.items())]
        scope_now, _ = land(writer, scope_now._replace(ready=True), list(targets.values()), arrivals)
        writer.save_scope(scope_now)
