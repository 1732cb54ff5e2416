"""The library's front door: what fieldsync.open returns."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import apsw

from fieldsync import loading, record
from fieldsync.errors import AlreadyExists, AmbiguousKey, DataError, NotFound, SchemaError
from fieldsync.limits import IDLE_SECONDS_MAX
from fieldsync.query import Plan
from fieldsync.replica import Replica
from fieldsync.schema import BaseRecord, Collection, Draft, Record, Snapshot
from fieldsync.session import Report, Session
from fieldsync.sqlite import SQLiteStore
from fieldsync.store import CollectionRow
from fieldsync.transaction import KINDS, check_names
from fieldsync.watch import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from fieldsync.apply import Touched
    from fieldsync.loading import LoadReport
    from fieldsync.replica import WriteBatch
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.store import Row
    from fieldsync.transaction import LocalChange, Pending
    from fieldsync.watch import Watch
    from fieldsync.websocket import Server

R = TypeVar("R", bound=BaseRecord)
KEY_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"  # in the order of their codes


def open(  # noqa: A001 - reads as fieldsync.open
    path: str | os.PathLike[str],
    *declared: type[Record],
    durability: str = "full",
    hub: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Database:
    """Open a database file, made if it does not exist, with the collections that the app declares, if any.

    durability: "full" (each transaction survives a power cut) or "fast" (it survives a crash of the app; a power cut
    may cost the last ones). hub: take every scope that a peer offers. progress(done, total) is called while columns
    are rebuilt because declared fields changed.
    """
    if durability not in ("full", "fast"):
        raise ValueError(f'durability is "full" or "fast", not {durability!r}')
    store = SQLiteStore(path, full=durability == "full")
    try:
        return Database(Replica(store, takes_all=hub), declared, progress)
    except BaseException:
        store.close()
        raise


def serve(database: Database, host: str = "127.0.0.1", port: int = 0) -> Server:
    """Serve a database to peers over WebSocket, from a thread in the background; port 0 takes a free one."""
    from fieldsync.websocket import Server

    return Server(database.replica, host, port)


@dataclass(frozen=True, slots=True)
class ScopeInfo:
    """What a database holds of one scope."""

    name: str
    records: int
    state: str  # "ready", or "filling" before a first sync is complete
    digest: str  # equal digests at equal contexts: equal records
    changes: int  # in the index, which syncs read


class Database:
    """A replica with its records, queries, watches and syncs. Thread-safe; the file may be open in other processes."""

    def __init__(
        self,
        replica: Replica,
        declared: Iterable[type[Record]] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.replica = replica
        self.path = replica.store.path
        self._collections = {}
        for record_class in declared:
            collection = Collection.of(record_class)
            if self._collections.setdefault(collection.name, collection) is not collection:
                raise SchemaError(f"two classes declare the collection {collection.name!r}")
        replica.store.declare([_row(collection) for collection in self._collections.values()], progress)

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watches and close the file."""
        self.replica.close()

    # --- writing ---

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A write transaction: durable when the block ends, undone whole if an exception leaves it."""
        transaction = Transaction(self)
        with self.replica.writing() as batch:
            transaction.begin(batch)
            try:
                yield transaction
                transaction.collect()
            finally:
                transaction.close()

    def load(
        self,
        of: type[Record] | str,
        rows: Iterable[Mapping[str, Any]],
        *,
        key: str | Callable[[Mapping[str, Any]], str],
        scope: str | Callable[[Mapping[str, Any]], str],
        progress: bool | Callable[[int], object] = False,
    ) -> LoadReport:
        """Load many rows, in batches of their own: new keys are created, known ones updated where values differ.

        key and scope: a column's name, a template such as "{origin}/{carrier}", or a function of the row. progress:
        True for a bar on the terminal, or a function that is called with the number of rows done.
        """
        return loading.load(self.replica, self.collection(of), rows, key=key, scope=scope, progress=progress)

    def enter(self, *scopes: str) -> None:
        """Hold these scopes from now on: the next syncs fill them."""
        for name in scopes:
            check_names(name, "-")
        with self.replica.store.writing() as writer:
            for name in scopes:
                writer.enter(name)

    # --- reading ---

    def collection(self, of: type[Record] | str) -> Collection:
        """The collection that a class or a name stands for."""
        if isinstance(of, str):
            return self._collections.get(of) or Collection(of)
        collection = Collection.of(of)
        if self._collections.get(collection.name) is not collection:
            raise SchemaError(f"{of.__name__} was not given to fieldsync.open(...)")
        return collection

    @overload
    def __getitem__(self, of: type[R]) -> Table[R]: ...
    @overload
    def __getitem__(self, of: str) -> Table[Snapshot]: ...
    def __getitem__(self, of: Any) -> Table[Any]:
        return Table(self, self.collection(of))

    def sql(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that only reads; each collection is a view with key, scope and its fields."""
        with self.replica.store.reading() as reader:
            try:
                return reader.sql(statement, parameters)[1]
            except apsw.ReadOnlyError:
                raise DataError("db.sql(...) only reads; write with db.write()") from None
            except (apsw.SQLError, apsw.BindingsError) as error:
                raise DataError(f"SQL: {error}") from None

    def scopes(self) -> list[ScopeInfo]:
        """The scopes held here, by name."""
        with self.replica.store.reading() as reader:
            return [
                ScopeInfo(
                    scope.name,
                    reader.count_records(scope.id),
                    "ready" if scope.ready else "filling",
                    scope.digest.hex(),
                    reader.count_changes(scope.id),
                )
                for scope in reader.scopes()
            ]

    # --- syncing ---

    def sync(
        self, peer: Database | str, *, scopes: list[str] | None = None, timeout: float = IDLE_SECONDS_MAX
    ) -> Report:
        """Sync with a database of this process, or with a peer's address such as "ws://127.0.0.1:8765".

        scopes: only these; all that both hold if None. timeout: seconds without any progress before the link counts
        as cut. What had landed by then stays, and the next sync goes on from there.
        """
        if isinstance(peer, Database):
            return join(self.replica, peer.replica, scopes=scopes)
        from fieldsync.websocket import connect  # the transport's packages load on first use

        return connect(self.replica, peer, scopes=scopes, timeout=timeout)


def join(one: Replica, other: Replica, *, scopes: list[str] | None = None, cut_after: int | None = None) -> Report:
    """Sync two replicas of this process in memory; with cut_after, the link dies after so many frames."""
    began = time.perf_counter()
    sides = (Session(one, initiator=True, scopes=scopes), Session(other, initiator=False))
    try:
        frames, idle, turn = 0, 0, 0
        while idle < 2 and frames != cut_after:
            frame = sides[turn].next_frame()
            if frame is None:
                idle, turn = idle + 1, 1 - turn
                continue
            frames, idle = frames + 1, 0
            sides[1 - turn].receive(frame)
    finally:
        for side in sides:
            side.close()
    sides[0].report.seconds = time.perf_counter() - began
    return sides[0].report


def _row(collection: Collection) -> CollectionRow:
    columns = tuple((one.name, KINDS[one.kind], one.indexed, one.absent) for one in collection.fields)
    return CollectionRow(0, collection.name, columns, collection.signature())


def snapshot(collection: Collection, reader: SQLiteReader, key: str, scope: str, packed: bytes) -> BaseRecord:
    """The frozen record of a packed one."""
    return collection.snapshot(key, scope, values_of(collection, reader, packed))


def values_of(collection: Collection, reader: SQLiteReader, packed: bytes) -> Any:
    """The values of a packed record as its collection's records hold them: a tuple if declared, else a dict."""
    if collection.record is None:
        return record.read_all(reader.dictionary, packed)
    ids = reader.dictionary.field_ids
    wanted = tuple([ids.get((one.name, KINDS[one.kind]), 0) for one in collection.fields])
    return record.read(reader.dictionary, packed, wanted, collection.absent)


class Transaction:
    """What `db.write()` gives: reads see its own writes; all of it lands together, or nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batch: WriteBatch | None = None
        self._drafts: dict[tuple[str, str, str], Draft] = {}

    def begin(self, batch: WriteBatch) -> None:
        """The write transaction has begun."""
        self._batch = batch

    def close(self) -> None:
        """Refuse further use."""
        self._batch = None
        for draft in self._drafts.values():
            draft.close()

    @overload
    def create(self, of: type[R], *, scope: str, key: str | None = None, **fields: Any) -> R: ...
    @overload
    def create(self, of: str, *, scope: str, key: str | None = None, **fields: Any) -> Snapshot: ...
    def create(self, of: Any, *, scope: str, key: str | None = None, **fields: Any) -> Any:
        """A new record, as a draft. Without a key it gets one that sorts by time. AlreadyExists where the key lives."""
        collection = self._database.collection(of)
        key = self._new_key() if key is None else key
        check_names(scope, key)
        change, pending = self._pending(collection, scope, key)
        if pending.is_live:
            raise AlreadyExists(f"{collection.name} {key!r} exists in scope {scope!r}; use tx.update(...)")
        pending.creates = True
        draft = Draft.create(collection, key, scope, fields)
        self._drafts[collection.name, change.scope.name, key] = draft
        return draft.record

    @overload
    def get(self, of: type[R], key: str, *, scope: str | None = None) -> R: ...
    @overload
    def get(self, of: str, key: str, *, scope: str | None = None) -> Snapshot: ...
    def get(self, of: Any, key: str, *, scope: str | None = None) -> Any:
        """A record as a draft: set its attributes. NotFound without one, AmbiguousKey with several in other scopes."""
        return self._draft(self._database.collection(of), key, scope).record

    def update(self, of: type[Record] | str, key: str, *, scope: str | None = None, **fields: Any) -> None:
        """Set some fields of a record. NotFound, AmbiguousKey as get."""
        draft = self._draft(self._database.collection(of), key, scope)
        for name, value in fields.items():
            draft.assign(name, value)

    def delete(self, of: type[Record] | str, key: str, *, scope: str | None = None) -> None:
        """Delete a record. NotFound, AmbiguousKey as get."""
        collection = self._database.collection(of)
        draft = self._draft(collection, key, scope)
        _, pending = self._pending(collection, draft.record.scope, key)
        pending.deletes = pending.row is not None
        pending.creates = False
        pending.fields = {}
        del self._drafts[collection.name, draft.record.scope, key]
        draft.close()

    def collect(self) -> None:
        """Hand what the drafts were given to the write transaction."""
        for (name, scope, key), draft in self._drafts.items():
            collection = draft.collection
            _, pending = self._pending(collection, scope, key)
            assert pending.collection_name == name
            for field_name, value in draft.changes().items():
                pending.fields[field_name, KINDS["register"]] = value
            for field_name, amount in draft.increments().items():
                pending.fields[field_name, KINDS["counter"]] = amount

    def _open_batch(self) -> WriteBatch:
        if self._batch is None:
            raise DataError("this transaction is over; begin another with db.write()")
        return self._batch

    def _pending(self, collection: Collection, scope: str, key: str) -> tuple[LocalChange, Pending]:
        batch = self._open_batch()
        (number,) = batch.writer.collection_ids([collection.name])
        change = batch.scope(scope)
        return change, change.at(number, collection.name, key)

    def _draft(self, collection: Collection, key: str, scope: str | None) -> Draft:
        scope = self._scope_of(collection, key) if scope is None else scope
        draft = self._drafts.get((collection.name, scope, key))
        if draft is not None:
            return draft
        batch = self._open_batch()
        if batch.writer.scope(scope) is None:
            raise NotFound(f"{collection.name} {key!r}: scope {scope!r} is not held here")
        _, pending = self._pending(collection, scope, key)
        if not pending.is_live or pending.row is None:
            raise NotFound(f"{collection.name} has no {key!r} in scope {scope!r}")
        draft = Draft(collection, key, scope, values_of(collection, batch.writer, pending.row.packed))
        self._drafts[collection.name, scope, key] = draft
        return draft

    def _scope_of(self, collection: Collection, key: str) -> str:
        """The one scope in which the key lives, this transaction's own writes taken in."""
        batch = self._open_batch()
        found = {scope for name, scope, other in self._drafts if (name, other) == (collection.name, key)}
        known = batch.writer.collection(collection.name)
        if known is not None:
            names = {scope.id: scope.name for scope in batch.writer.scopes()}
            for row in batch.writer.by_key_anywhere(known.id, key):
                _, pending = self._pending(collection, names[row.scope], key)
                if pending.is_live:
                    found.add(names[row.scope])
        return _only(collection, key, sorted(found))

    def _new_key(self) -> str:
        """A key of 22 characters that sorts by time: 48 bits of milliseconds, 84 random ones."""
        number = (self._database.replica.wall_ms() & ((1 << 48) - 1)) << 84 | secrets.randbits(84)
        return "".join(KEY_ALPHABET[number >> shift & 63] for shift in range(126, -1, -6))


def _only(collection: Collection, key: str, scopes: list[str]) -> str:
    if not scopes:
        raise NotFound(f"{collection.name} has no {key!r}")
    if len(scopes) > 1:
        raise AmbiguousKey(f"{collection.name} {key!r} lives in the scopes {', '.join(scopes)}; pass scope=")
    return scopes[0]


class Table(Generic[R]):
    """The records of one collection."""

    def __init__(self, database: Database, collection: Collection) -> None:
        self._database = database
        self._collection = collection

    def get(self, key: str, *, scope: str | None = None) -> R | None:
        """The record of a key, or None. AmbiguousKey where it lives in several scopes and none is named."""
        with self._database.replica.store.reading() as reader:
            known = reader.collection(self._collection.name)
            if known is None:
                return None
            if scope is not None:
                held = reader.scope(scope)
                rows = reader.by_key(known.id, held.id, [key]) if held else []
            else:
                rows = reader.by_key_anywhere(known.id, key)
            return self._one(reader, key, rows)

    def _one(self, reader: SQLiteReader, key: str, rows: list[Row]) -> Any:
        if not rows:
            return None
        names = {scope.id: scope.name for scope in reader.scopes()}
        scope = _only(self._collection, key, sorted(names[row.scope] for row in rows))
        return snapshot(self._collection, reader, key, scope, rows[0].packed)

    def where(self, **conditions: Any) -> Query[R]:
        """The records that fulfil all conditions, such as status="open", price__gt=10, scope="job/7"."""
        return Query(self._database, Plan.of(self._collection)).where(**conditions)

    def order_by(self, *names: str) -> Query[R]:
        """All records in an order; "-price" for descending."""
        return self.where().order_by(*names)

    def __iter__(self) -> Iterator[R]:
        return iter(self.where())

    def count(self) -> int:
        """How many records there are."""
        return self.where().count()

    def watch(self, callback: Callable[[Event], object], *, via: Any = None) -> Watch:
        """Be called after each commit that touches the collection; see Query.watch."""
        return self.where().watch(callback, via=via)


@dataclass(frozen=True, slots=True)
class Query(Generic[R]):
    """Records by conditions, in an order. Immutable: each method gives a new query."""

    _database: Database
    _plan: Plan = field()

    def where(self, **conditions: Any) -> Query[R]:
        """With further conditions: field=value, or field__gt, __ge, __lt, __le, __ne, __in; also key and scope."""
        return Query(self._database, self._plan.where(conditions))

    def order_by(self, *names: str) -> Query[R]:
        """In another order; "-price" for descending."""
        return Query(self._database, self._plan.order_by(names))

    def limit(self, count: int) -> Query[R]:
        """At most so many."""
        return Query(self._database, self._plan.only(limit=count))

    def offset(self, count: int) -> Query[R]:
        """Without the first so many."""
        return Query(self._database, self._plan.only(offset=count))

    def __iter__(self) -> Iterator[R]:
        return iter(self.all())

    def all(self) -> list[R]:
        """The records, as frozen snapshots of one moment."""
        with self._database.replica.store.reading() as reader:
            return self._select(reader, self._plan)

    def first(self) -> R | None:
        """The first record, or None."""
        found = self.limit(1).all()
        return found[0] if found else None

    def count(self) -> int:
        """How many records there are."""
        collection = self._plan.conditions.collection
        with self._database.replica.store.reading() as reader:
            known = reader.collection(collection.name)
            if known is None:
                return 0
            if collection.record is None and self._plan.conditions.terms:
                return len(self._select(reader, self._plan))
            return reader.count(known.id, *self._sql(reader, self._plan))

    def _sql(self, reader: SQLiteReader, plan: Plan) -> tuple[str, list[Any]]:
        numbers = {scope.name: scope.id for scope in reader.scopes()}
        return plan.sql(numbers.get, "(SELECT name FROM fs_scope WHERE id=_scope)")

    def _select(self, reader: SQLiteReader, plan: Plan) -> list[R]:
        collection = plan.conditions.collection
        known = reader.collection(collection.name)
        if known is None:
            return []
        names = {scope.id: scope.name for scope in reader.scopes()}
        tail, bindings = self._sql(reader, plan) if collection.record is not None else ("", [])
        found: Any = [
            snapshot(collection, reader, key, names[scope], packed)
            for key, scope, packed in reader.query(known.id, tail, bindings)
        ]
        return found if collection.record is not None else plan.select(found)  # type: ignore[return-value]

    def watch(self, callback: Callable[[Event], object], *, via: Any = None) -> Watch:
        """Be called with an Event after each commit, local, synced or of another process, that touches the query.

        The callback runs in a thread of the library's, one call at a time; via, a function that schedules another
        (such as root.after_idle or loop.call_soon_threadsafe), runs it where the app wants. Conditions count, order
        and limit do not; a record that no longer fulfils them counts as removed.
        """
        plan = Plan.of(self._plan.conditions.collection)._replace(conditions=self._plan.conditions)
        query: Query[R] = Query(self._database, plan)
        return self._database.replica.watches.add(query._event, callback, via)

    def _event(self, touched: list[Touched]) -> Event:
        """What touched keys mean for the query, as the records are now."""
        collection = self._plan.conditions.collection
        event = Event()
        with self._database.replica.store.reading() as reader:
            known = reader.collection(collection.name)
            if known is None:
                return event
            scopes = {scope.name: scope.id for scope in reader.scopes()}
            latest = {(one.scope, one.key): one for one in touched if one.collection == known.id}
            for (scope, key), one in latest.items():
                rows = reader.by_key(known.id, scopes[scope], [key])
                found = snapshot(collection, reader, key, scope, rows[0].packed) if rows else None
                if found is not None and self._plan.conditions.matches(found):
                    (event.updated if one.before else event.created).append(found)
                elif one.before:
                    event.removed.append((scope, key))
        return event
