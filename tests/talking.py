"""Two sessions of one process talking, frame by frame, for tests that stop, twist and replay what they say."""

from __future__ import annotations

import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
from tests.simulation import cells
from tests.simulation.audit import audit

import fieldsync as fs
from fieldsync.database import Database
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore
from fieldsync.syncing.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW_MS = 1_700_000_000_000


def open_replica(path: Path, *, hub: bool = False, seed: int = 0) -> Replica:
    """A replica whose clock stands still and whose chance is seeded: equal files, equal frames."""
    chance = random.Random(f"{path.name} {seed}")
    store = SQLiteStore(path, full=False)
    return Replica(store, takes_all=hub, wall_ms=lambda: NOW_MS, mint=lambda: chance.randbytes(8))


@dataclass
class Talk:
    """A conversation: `frames` are all that were said, in the order in which they arrived, as (side, frame)."""

    sides: tuple[Session, Session]
    frames: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    def between(cls, one: Replica, other: Replica, scopes: list[str] | None = None, peer: str | None = None) -> Talk:
        return cls((Session(one, initiator=True, scopes=scopes, peer=peer), Session(other, initiator=False)))

    def run(self, cut_after: int | None = None, deliver: Callable[[Session, bytes], None] = Session.receive) -> Talk:
        """Take turns until nobody has more to say, or the link dies; the sides are closed in any case."""
        turn, idle = 0, 0
        try:
            while idle < 2 and len(self.frames) != cut_after:
                frame = self.sides[turn].next_frame()
                if frame is None:
                    turn, idle = 1 - turn, idle + 1
                    continue
                idle = 0
                self.frames.append((turn, frame))
                deliver(self.sides[1 - turn], frame)
        finally:
            for side in self.sides:
                side.close()
        return self

    @property
    def types(self) -> list[tuple[int, int]]:
        """Who said what."""
        return [(side, frame[0]) for side, frame in self.frames]


State = tuple[bytes, bytes, dict[cells.Cid, bytes]]


def state(replica: Replica) -> dict[str, State]:
    """Of each scope the digest, the context and the cells."""
    with replica.store.reading() as reader:
        return {
            scope.name: (scope.digest, reader.context(scope.id).data, cells.all_cells(cells.held(reader, scope.id)))
            for scope in reader.scopes()
        }


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    hours: fs.Counter = 0


@contextmanager
def hands(db: Database) -> Iterator[apsw.Connection]:
    """SQL at the tables, as no app has it."""
    connection = apsw.Connection(db.path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def make_files(folder: Path) -> Path:
    """a.db and b.db share the scopes new, old and same, of which same is equal; a.db alone holds private."""
    one, other = open_replica(folder / "a.db"), open_replica(folder / "b.db")
    a, b = Database(one, (Order,)), Database(other, (Order,))
    b.enter("new", "old", "same")
    with a.write() as tx:
        for scope in ("new", "old", "same"):
            for number in range(5):
                tx.create(Order, scope=scope, key=f"o-{number}", status="open", hours=number)
        tx.create("notes", scope="private", key="n-1", text="mine")
    a.sync(b)
    for number in range(4):
        with a.write() as tx:
            tx.create(Order, scope="new", key=f"a-{number}", status="a", hours=number)
        with b.write() as tx:
            tx.create(Order, scope="new", key=f"b-{number}", status="b")
    with a.write() as tx:
        tx.delete(Order, "o-0", scope="old")
        tx.delete(Order, "o-3", scope="new")
        tx.get(Order, "o-1", scope="old").status = "done"
        tx.create("notes", scope="old", key="n-2", text="new", many=[1, {"b": 2.5}])
    with b.write() as tx:
        tx.get(Order, "o-0", scope="old").status = "seen by nobody"
        tx.get(Order, "o-2", scope="old").hours += 2
    with b.write() as tx:
        tx.get(Order, "o-3", scope="new").status = "x" * 100
        tx.delete(Order, "o-4", scope="old")
    a.close()
    b.close()
    return folder


class Pair:
    """Fresh copies of both files."""

    def __init__(self, files: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.a = open_replica(Path(shutil.copy(files / "a.db", folder / "a.db")))
        self.b = open_replica(Path(shutil.copy(files / "b.db", folder / "b.db")))

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.a.close()
        self.b.close()

    def states(self) -> list[dict[str, State]]:
        """Of both the scopes they share."""
        shared = ("new", "old", "same")
        return [{name: state(replica)[name] for name in shared} for replica in (self.a, self.b)]


def record_talk(files: Path, folder: Path) -> tuple[list[tuple[int, bytes]], dict[str, State]]:
    """All frames of a conversation between the two, and the state that both are in after it."""
    with Pair(files, folder) as pair:
        frames = Talk.between(pair.a, pair.b).run().frames
        ends = pair.states()
        assert ends[0] == ends[1]
        return frames, ends[0]


def check_usable(replica: Replica, scope: str = "old") -> None:
    """Nothing is left open, all follows from the cells, and writing goes on."""
    assert not replica.store._lent
    assert audit(replica.store) == []
    with Database(replica).write() as tx:
        tx.create("notes", scope=scope, key="after", text="still here")


def greet(pair):
    """For a fixture: the responder of a conversation in which both have said hello, and the frames it has sent."""
    session = Session(pair.b, initiator=False)
    session.receive(Session(pair.a, initiator=True).next_frame())
    frames = []
    while frame := session.next_frame():
        frames.append(frame)
    yield session, frames
    session.close()
    check_usable(pair.b)


def open_three(folder, *declared):
    """A hub, and two devices."""
    return [
        fs.open(folder / f"{name}.db", *declared, hub=name == "hub", durability="fast") for name in ("hub", "a", "b")
    ]


def meet(hub, *devices):
    """Each device syncs with the hub, twice, so that all hold the same."""
    for device in devices * 2:
        device.sync(hub)


def met(hub, devices, scope):
    """For a fixture: a hub and devices that hold the hub's scope, sound to the end, and closed then."""
    for device in devices:
        device.enter(scope)
    meet(hub, *devices)
    yield hub, *devices
    for database in (hub, *devices):
        assert database.verify().faults == []
        database.close()
