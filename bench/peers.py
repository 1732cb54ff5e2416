"""The contenders, each behind the same few verbs. A package is imported when its contender is asked for."""

# ruff: noqa: D102 - the verbs are described once, in Peer

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby, repeat
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from zlib import crc32

from bench.clock import now
from bench.data import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from bench.data import Edit, Records

SCOPE = "bench"
BATCH = 1_000
HEAR_SECONDS_MAX = 60


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """The keys of one transaction each."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


class Delivery(NamedTuple):
    """What it took to bring a peer up to date."""

    size: int  # bytes that travelled
    make_s: float
    apply_s: float


class Peer(Protocol):
    """One contender: records of 10 fields, kept in a folder."""

    def build(self, records: Records) -> None:
        """Create all records."""
        ...

    def edit(self, edits: Iterable[Edit]) -> None:
        """Make edits in one transaction, durable, or as an update that could be stored and sent, when it returns."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete records, in as many transactions as suits it best."""
        ...

    def get(self, key: str) -> Mapping[str, Any]:
        """The fields of one record."""
        ...

    def read_all(self) -> Any:
        """All values of all records, as the contender likes to give them."""
        ...

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The same by key and field, for checks."""
        ...

    def size(self) -> int:
        """Bytes of the files, or of the document encoded whole."""
        ...

    def close(self) -> None:
        """Leave all of it in the folder."""
        ...


class Replica(Peer, Protocol):
    """A contender that merges."""

    def give(self, other: Any) -> Delivery:
        """Bring another replica up to date."""
        ...

    def listen(self) -> None:
        """Have the app told, from now on, of what others changed."""
        ...

    def hear(self, keys: AbstractSet[str]) -> None:
        """Take in what the app is told, until that was all of these records."""
        ...


class Fieldsync:
    """This engine: one declared collection, in one scope, or spread over several by key."""

    def __init__(self, folder: Path, *, full: bool = False, hub: bool = False, scopes: int = 1) -> None:
        import fieldsync

        self.thing = self.declared()
        self.path = folder / "things.db"
        self.scopes = [SCOPE] if scopes == 1 else [f"territory/{number:02}" for number in range(scopes)]
        self._open = partial(fieldsync.open, self.path, self.thing, durability="full" if full else "fast", hub=hub)
        self.db: Any = self._open()
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()  # the app's loop, in which its callbacks run
        self.heard: dict[str, Any] = {}

    def declared(self, *, indexed: bool = False) -> Any:
        """The class of the records, its quantity with an index or without."""
        import fieldsync

        class Thing(fieldsync.Record, table="things"):
            customer: str
            street: str
            city: str
            phone: str
            code: str
            status: str
            quantity: int = fieldsync.field(index=indexed)
            priority: int
            price: float
            urgent: bool

        return Thing

    def scope_of(self, key: str) -> str:
        """The scope of a record."""
        return self.scopes[crc32(key.encode()) % len(self.scopes)] if len(self.scopes) > 1 else SCOPE

    def by_scope(self, keys: Sequence[str]) -> Iterable[tuple[str, Iterable[str]]]:
        """Keys by the scopes of their records."""
        if len(self.scopes) == 1:
            return [(SCOPE, keys)]
        return groupby(sorted(keys, key=self.scope_of), self.scope_of)

    def build(self, records: Records) -> None:
        keys = iter([key for key, _ in records])
        rows = (row for _, row in records)
        scopes = map(self.scope_of, [key for key, _ in records]) if len(self.scopes) > 1 else repeat(SCOPE)
        report = self.db.load(self.thing, rows, key=lambda _: next(keys), scope=lambda _: next(scopes))
        assert report.loaded == len(records)

    def create(self, records: Records) -> None:
        """Create records in one transaction."""
        with self.db.write() as tx:
            for key, row in records:
                tx.create(self.thing, scope=self.scope_of(key), key=key, **row)

    def edit(self, edits: Iterable[Edit]) -> None:
        with self.db.write() as tx:
            for key, name, value in edits:
                tx.update(self.thing, key, scope=self.scope_of(key), **{name: value})

    def delete(self, keys: Sequence[str]) -> None:
        for some in batches(keys):
            with self.db.write() as tx:
                for scope, held in self.by_scope(some):
                    tx.delete(self.thing, *held, scope=scope)

    def get(self, key: str) -> Mapping[str, Any]:
        found: dict[str, Any] = self.db[self.thing].get(key, scope=self.scope_of(key)).as_dict()
        return found

    def read_all(self) -> Any:
        return self.db[self.thing].where().all()

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {record.key: record.as_dict() for record in self.read_all()}

    def size(self) -> int:
        self.db.close()  # which empties the log into the file
        self.db = self._open()
        return self.path.stat().st_size

    def close(self) -> None:
        self.db.close()

    def give(self, other: Fieldsync) -> Delivery:
        """A session in memory, begun by the taker; the clock runs for frames of the giver's stream alone."""
        from fieldsync.syncing import messages
        from fieldsync.syncing.frames import Part, Stream
        from fieldsync.syncing.session import Session

        other.db.enter(*other.scopes)
        taker, giver = Session(other.db.replica, initiator=True), Session(self.db.replica, initiator=False)
        size, make, apply, idle = 0, 0.0, 0.0, 0
        sender, receiver = taker, giver
        while idle < 2:
            began = now()
            frame = sender.next_frame()
            made = now()
            if frame is None:
                sender, receiver, idle = receiver, sender, idle + 1
                continue
            size, idle = size + len(frame), 0
            streams = sender is giver and isinstance(messages.decode(frame), Part | Stream)
            sent = now()
            receiver.receive(frame)
            if streams:
                make, apply = make + made - began, apply + now() - sent
        taker.close()
        giver.close()
        return Delivery(size, make, apply)

    def listen(self) -> None:
        self.db[self.thing].watch(self._take_in, via=self.calls.put)

    def _take_in(self, event: Any) -> None:
        self.heard |= {record.key: record for record in (*event.created, *event.updated)}

    def hear(self, keys: AbstractSet[str]) -> None:
        while not keys <= self.heard.keys():
            self.calls.get(timeout=HEAR_SECONDS_MAX)()


class FieldsyncSingle(Fieldsync):
    """The same, created record by record."""

    def build(self, records: Records) -> None:
        for start in range(0, len(records), BATCH):
            self.create(records[start : start + BATCH])


class Sqlite:
    """A plain table of 10 columns and a key, through the engine's driver and with its pages and cache."""

    def __init__(self, folder: Path, *, full: bool = False) -> None:
        import apsw

        self.path = folder / "plain.db"
        self.db = apsw.Connection(str(self.path))
        for setting in (
            "page_size=8192",
            "journal_mode=WAL",
            f"synchronous={'FULL' if full else 'NORMAL'}",
            "cache_size=-16000",
            "wal_autocheckpoint=4000",
        ):
            self.db.execute(f"PRAGMA {setting}").fetchall()
        self.db.execute(f"CREATE TABLE IF NOT EXISTS things(key TEXT PRIMARY KEY, {', '.join(FIELDS)})")

    def build(self, records: Records) -> None:
        with self.db:
            self.db.executemany(
                f"INSERT INTO things VALUES(?{', ?' * len(FIELDS)})", ((key, *row.values()) for key, row in records)
            )

    def edit(self, edits: Iterable[Edit]) -> None:
        with self.db:
            for key, name, value in edits:
                self.db.execute(f"UPDATE things SET {name}=? WHERE key=?", (value, key))

    def delete(self, keys: Sequence[str]) -> None:
        for some in batches(keys):
            with self.db:
                self.db.executemany("DELETE FROM things WHERE key=?", [(key,) for key in some])

    def get(self, key: str) -> Mapping[str, Any]:
        row = self.db.execute("SELECT * FROM things WHERE key=?", (key,)).fetchone()
        assert row is not None
        return dict(zip(FIELDS, row[1:], strict=True))

    def read_all(self) -> Any:
        return self.db.execute("SELECT * FROM things").fetchall()

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {row[0]: dict(zip(FIELDS, row[1:], strict=True)) for row in self.read_all()}

    def size(self) -> int:
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return self.path.stat().st_size

    def close(self) -> None:
        self.db.close()


class Document:
    """What the CRDT libraries have in common: in memory, a map of maps, its whole history encoded into one file."""

    def __init__(self, folder: Path) -> None:
        self.heard: dict[str, Any] = {}
        self.path = folder / "document"
        if self.path.exists():
            self.take(self.path.read_bytes())

    def encode(self) -> bytes:
        """The whole document."""
        raise NotImplementedError

    def take(self, update: bytes) -> None:
        """Merge an update, or a whole document."""
        raise NotImplementedError

    def delta(self, other: Any) -> bytes:
        """What another replica lacks."""
        raise NotImplementedError

    def size(self) -> int:
        return len(self.encode())

    def close(self) -> None:
        self.path.write_bytes(self.encode())

    def give(self, other: Document) -> Delivery:
        began = now()
        delta = self.delta(other)
        made = now()
        other.take(delta)
        return Delivery(len(delta), made - began, now() - made)

    def hear(self, keys: AbstractSet[str]) -> None:
        assert keys <= self.heard.keys()  # documents tell it before they return


class Pycrdt(Document):
    """Yjs's engine: a Map of Maps. Transactions of 1,000 records, because its very long ones never end."""

    def __init__(self, folder: Path) -> None:
        from pycrdt import Doc, Map

        self.doc: Any = Doc()
        self.things: Any = self.doc.get("things", type=Map)
        self.subscription: Any = None
        super().__init__(folder)

    def build(self, records: Records) -> None:
        from pycrdt import Map

        for start in range(0, len(records), BATCH):
            with self.doc.transaction():
                for key, row in records[start : start + BATCH]:
                    self.things[key] = Map(row)

    def edit(self, edits: Iterable[Edit]) -> None:
        if self.subscription is None:
            self.subscription = self.doc.observe(lambda event: event.update and None)
        with self.doc.transaction():
            for key, name, value in edits:
                self.things[key][name] = value

    def delete(self, keys: Sequence[str]) -> None:
        with self.doc.transaction():  # in many it takes six times as long
            for key in keys:
                del self.things[key]

    def get(self, key: str) -> Mapping[str, Any]:
        row: dict[str, Any] = self.things[key].to_py()
        return row

    def read_all(self) -> Any:
        return self.things.to_py()

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, dict[str, Any]] = self.read_all()
        return found

    def encode(self) -> bytes:
        encoded: bytes = self.doc.get_update()
        return encoded

    def take(self, update: bytes) -> None:
        self.doc.apply_update(update)

    def delta(self, other: Pycrdt) -> bytes:
        update: bytes = self.doc.get_update(other.doc.get_state())
        return update

    def listen(self) -> None:
        self.subscription = self.things.observe_deep(self._take_in)

    def _take_in(self, events: list[Any]) -> None:
        for event in events:  # of a record, or of all
            self.heard |= {event.path[0]: event.keys} if event.path else event.keys


class Loro(Document):
    """Loro: a map of map containers."""

    def __init__(self, folder: Path) -> None:
        self.loro: Any = import_module("loro")  # its classes have no types
        self.doc: Any = self.loro.LoroDoc()
        self.things: Any = self.doc.get_map("things")
        self.subscription: Any = None
        super().__init__(folder)

    def build(self, records: Records) -> None:
        for start in range(0, len(records), BATCH):
            for key, row in records[start : start + BATCH]:
                thing = self.things.insert_container(key, self.loro.LoroMap())
                for name, value in row.items():
                    thing.insert(name, value)
            self.doc.commit()

    def edit(self, edits: Iterable[Edit]) -> None:
        if self.subscription is None:
            self.subscription = self.doc.subscribe_local_update(lambda _: True)
        for key, name, value in edits:
            self.things.get(key).container.insert(name, value)
        self.doc.commit()

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.things.delete(key)
        self.doc.commit()

    def get(self, key: str) -> Mapping[str, Any]:
        row: dict[str, Any] = self.things.get(key).container.get_deep_value()
        return row

    def read_all(self) -> Any:
        return self.things.get_deep_value()

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, dict[str, Any]] = self.read_all()
        return found

    def encode(self) -> bytes:
        encoded: bytes = self.doc.export(self.loro.ExportMode.Snapshot())
        return encoded

    def take(self, update: bytes) -> None:
        self.doc.import_(update)

    def delta(self, other: Loro) -> bytes:
        update: bytes = self.doc.export(self.loro.ExportMode.Updates(other.doc.oplog_vv))
        return update

    def listen(self) -> None:
        self.subscription = self.doc.subscribe_root(self._take_in)

    def _take_in(self, event: Any) -> None:
        for one in event.events:
            updated = one.diff.diff.updated
            self.heard |= {one.path[-1].index.key: updated} if len(one.path) > 1 else updated


CONTENDERS: dict[str, tuple[str, Callable[[Path], Any]]] = {  # name -> package, adapter
    "fieldsync": ("fieldsync", Fieldsync),
    "fieldsync_full": ("fieldsync", partial(Fieldsync, full=True)),
    "fieldsync_single": ("fieldsync", FieldsyncSingle),
    "sqlite3": ("apsw", Sqlite),
    "sqlite3_full": ("apsw", partial(Sqlite, full=True)),
    "pycrdt": ("pycrdt", Pycrdt),
    "loro": ("loro", Loro),
}


def package_of(name: str) -> str:
    """The package that a contender is made of: one without an adapter here is another way of this engine's."""
    return CONTENDERS[name][0] if name in CONTENDERS else "fieldsync"


def is_missing(name: str) -> bool:
    """Whether a contender's package is not installed."""
    return find_spec(package_of(name)) is None


def contender(name: str) -> Callable[[Path], Any]:
    """What opens a contender in a folder, its package imported already."""
    import_module(package_of(name))
    return CONTENDERS[name][1]
