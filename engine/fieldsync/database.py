"""The library's front door: what fieldsync.open returns."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import apsw

from fieldsync.copies import recognise
from fieldsync.errors import DataError, NotFound, SchemaError
from fieldsync.leaving import pending
from fieldsync.limits import IDLE_SECONDS_MAX, REMOVALS_KEPT_MS
from fieldsync.query import Plan
from fieldsync.reading import Table
from fieldsync.replica import Replica
from fieldsync.schema import BaseRecord, Collection
from fieldsync.sqlite import SQLiteStore
from fieldsync.store import CollectionRow
from fieldsync.transaction import KINDS, check_names
from fieldsync.writing import KEY_RANDOM_BITS, Transaction, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from fieldsync.bundle import BundleReport
    from fieldsync.comparing import Comparison
    from fieldsync.conflicts import Conflict, LateEdit
    from fieldsync.describing import CollectionInfo
    from fieldsync.examine import VerifyReport
    from fieldsync.loading import LoadReport
    from fieldsync.report import Report
    from fieldsync.schema import Record, Snapshot
    from fieldsync.store import Reader, Scope
    from fieldsync.trash import TrashEntry
    from fieldsync.websocket import Server
    from fieldsync.why import Why

R = TypeVar("R", bound=BaseRecord)


def open(  # noqa: A001 - reads as fieldsync.open
    path: str | os.PathLike[str],
    *declared: type[Record],
    durability: str = "full",
    hub: bool = False,
    notes: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Database:
    """Open a database file, made if it does not exist, with the collections that the app declares, if any.

    durability: "full" (each transaction survives a power cut) or "fast" (it survives a crash of the app; a power cut
    may cost the last ones). hub: take every scope that a peer offers. notes: the folder of the notes by which a
    copied or restored file is recognised, the user's state folder if None. progress(done, total) is called while
    columns are rebuilt because declared fields changed.
    """
    if durability not in ("full", "fast"):
        raise ValueError(f'durability is "full" or "fast", not {durability!r}')
    if os.fspath(path) in ("", ":memory:"):
        raise ValueError(f"a database is a file that several connections share, not {path!r}; give it a path")
    store = SQLiteStore(path, full=durability == "full")
    try:
        recognise(store, notes)
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
    pending: int  # changes, own and relayed, that no hub is known to have


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
        self._collections: dict[str, Collection] = {}
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
        with self.replica.writing() as batch:
            transaction = Transaction(batch, self.collection, self._generate_key)
            try:
                yield transaction
                transaction.collect()
            finally:
                transaction.close()

    def _generate_key(self) -> str:
        return new_key(self.replica.wall_ms(), int.from_bytes(os.urandom(16)) >> (128 - KEY_RANDOM_BITS))

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

        key and scope: a column's name, a template such as "{origin}/{carrier}", or a function of the row; a column that
        one of them names need not be a declared field. progress: True for a bar on the terminal, or a function that is
        called with the number of rows done.
        """
        from fieldsync.loading import load  # loading and syncing load on first use, so that an import is quick

        return load(self.replica, self.collection(of), rows, key=key, scope=scope, progress=progress)

    def enter(self, *scopes: str, priority: int | None = None) -> None:
        """Hold these scopes from now on: the next syncs fill them.

        priority: scopes of higher numbers sync first; 0 at first, and as it was if None.
        """
        for name in scopes:
            check_names(name, "-")
        with self.replica.store.writing() as writer:
            for name in scopes:
                scope = writer.enter(name)
                if priority is not None:
                    writer.save_scope(scope._replace(priority=priority))

    def leave(
        self,
        *scopes: str,
        lose_pending: bool = False,
        escrow: str | os.PathLike[str] | None = None,
        whole: bool = False,
        progress: Callable[[BundleReport], object] | None = None,
    ) -> BundleReport | None:
        """Hold these scopes no longer: their records go from this file, and stay wherever else they are.

        NotDelivered while a hub is not known to have all that is here, other devices' changes included: sync with it
        first. lose_pending: leave all the same, and lose what nobody else has. escrow: the path of a new bundle into
        which what no hub is known to have is written before the scopes go; a hub takes it by import_bundle.
        whole: write all of the scopes into it, so that import_bundle brings them back as they were, and the next sync
        just what has changed since.
        """
        if escrow is None and whole:
            raise ValueError("whole=True is about an escrow: name its file")
        if escrow is None:
            self.replica.leave(list(scopes), lose_pending=lose_pending)
            return None
        from fieldsync.escrow import leave_with_escrow

        return leave_with_escrow(
            self.replica, list(scopes), escrow, lose_pending=lose_pending, whole=whole, progress=progress
        )

    def trim(
        self, *scopes: str, older_than: timedelta = timedelta(milliseconds=REMOVALS_KEPT_MS), keep: int | None = None
    ) -> int:
        """Forget removals older than that, and all but the `keep` latest of each scope; returns how many changes went.

        A deleted record then takes no room here, and a device that comes back after any absence still learns of it: by
        comparing what lives. Removals that name changes which have not come here yet stay. All scopes if none is named.
        """
        self._check_held(list(scopes))
        before_ms = self.replica.wall_ms() - older_than // timedelta(milliseconds=1)
        return self.replica.trim(list(scopes) or None, before_ms=before_ms, keep=keep)

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
        return Table(self.replica, Plan.of(self.collection(of)))

    def sql(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that only reads; each collection is a view with key, scope and its fields."""
        with self.replica.store.reading() as reader:
            try:
                return reader.sql(statement, parameters)[1]
            except (apsw.ReadOnlyError, apsw.AuthError):
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
                    0 if self.replica.takes_all else pending(reader, scope).count(),
                )
                for scope in reader.scopes()
            ]

    def why(self, of: type[Record] | str, key: str, *, scope: str | None = None) -> Why:
        """Why a record is here or is not: print(db.why("orders", "o-17")). All scopes are asked if none is named."""
        from fieldsync.why import why

        self._check_held([scope] if scope is not None else [])
        with self.replica.store.reading() as reader:
            asked = [held for held in reader.scopes() if scope in (None, held.name)]
            is_hub, wall_ms = self.replica.takes_all, self.replica.wall_ms()
            return why(reader, self.collection(of).name, key, asked, is_hub=is_hub, wall_ms=wall_ms)

    def compare(
        self, other: Database, *scopes: str, progress: Callable[[int, int], object] | None = None
    ) -> Comparison:
        """Whether two replicas agree on scopes, all that both hold if none is named, and where they do not. NotFound.

        Every cell of both is looked at. progress(done, total) is called with numbers of rows.
        """
        from fieldsync.comparing import compare

        with self.replica.store.reading() as one, other.replica.store.reading() as two:
            return compare((one, two), (self.path, other.path), list(scopes), progress)

    # --- the ledger ---

    def conflicts(self, of: type[Record] | str | None = None, /, *, scope: str | None = None) -> list[Conflict]:
        """The fields that were written apart and not since by anybody who had seen that; tx.settle(...) ends one.

        The same on all replicas that hold the scope. Of one collection, or all; of one scope, or all that are held.
        """
        from fieldsync.conflicts import conflicts

        with self.replica.store.reading() as reader:
            return list(conflicts(reader, self._asked(reader, scope), self.collection(of).name if of else None))

    def late_edits(self, of: type[Record] | str | None = None, /, *, scope: str | None = None) -> list[LateEdit]:
        """What was written to deleted records by who had not heard of that; tx.dismiss(...) or tx.recreate(...) it."""
        from fieldsync.conflicts import late_edits

        with self.replica.store.reading() as reader:
            return list(late_edits(reader, self._asked(reader, scope), self.collection(of).name if of else None))

    def _asked(self, reader: Reader, scope: str | None) -> list[Scope]:
        if scope is not None:
            self._check_held([scope])
        return [held for held in reader.scopes() if scope in (None, held.name)]

    # --- the trash ---

    def trash(self, *, scope: str | None = None) -> list[TrashEntry]:
        """The records that went because a peer had them no more, the latest first; of all scopes if none is named.

        They stay for TRASH_KEPT_MS, and not more than TRASH_ROWS_MAX of them (limits.py).
        """
        from fieldsync.trash import entries

        self._check_held([scope] if scope is not None else [])
        with self.replica.store.reading() as reader:
            return entries(reader, [held for held in reader.scopes() if scope in (None, held.name)])

    def restore(self, *some: TrashEntry) -> None:
        """Make records of the trash again, in one transaction: new records with the values that they had.

        AlreadyExists where a record of the key lives; NotFound where the trash has it no more.
        """
        from fieldsync.trash import restore

        with self.replica.writing() as batch:
            restore(batch, some)

    # --- looking after the file ---

    def verify(self, *, repair: bool = False, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """Look at every record and all that follows from it; with repair, mend what can be mended.

        A repair holds the writer lock while it lasts. Records that were damaged go, and come back with the next syncs
        from replicas that hold them. progress(done, total) is called with numbers of rows.
        """
        from fieldsync import verify

        with self.replica.store.reading() as reader:
            report = verify.verify(reader, progress)
        if not repair:
            return report
        report.repaired, report.left = True, list(report.faults)
        if not report.is_mendable:
            return report
        with self.replica.writing() as batch:
            report, dropped = verify.repair(batch.writer, progress)
            batch.touched.extend(dropped)
        return report

    def describe(
        self, *declared: type[Record], progress: Callable[[int, int], object] | None = None
    ) -> list[CollectionInfo]:
        """What the file holds, collection by collection and field by field: print(*db.describe(), sep="\\n").

        declared: record classes to hold it against, those that this database was opened with if none is given. Nothing
        is changed by that. progress(done, total) is called with numbers of records.
        """
        from fieldsync.describing import describe

        wanted = [Collection.of(one) for one in declared] or list(self._collections.values())
        with self.replica.store.reading() as reader:
            return describe(reader, wanted, progress)

    # --- syncing ---

    def sync(
        self,
        peer: Database | str,
        *,
        scopes: list[str] | None = None,
        timeout: float = IDLE_SECONDS_MAX,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        progress: Callable[[Report], object] | None = None,
    ) -> Report:
        """Sync with a database of this process, or with a peer's address such as "ws://127.0.0.1:8765".

        scopes: only these, NotFound if one is not held here; all that both hold if None. timeout: seconds without any
        news from the peer before the link counts as cut. What had landed by then stays, and the next sync goes on from
        there. max_bytes, max_seconds: a budget, after which the sync stops with report.complete False; scopes of higher
        priority (see enter) come first, what has landed stays, and the rest waits. progress is called with the report
        so far, after each frame of the peer's.
        """
        if scopes is not None:
            self._check_held(scopes)
        enough = _budget(max_bytes, max_seconds)
        if isinstance(peer, Database):
            from fieldsync.memory import join

            return join(self.replica, peer.replica, scopes=scopes, progress=progress, enough=enough)
        if not isinstance(peer, str):
            raise TypeError(f"a peer is a Database or an address, not {type(peer).__name__}")
        from fieldsync.websocket import connect

        return connect(self.replica, peer, scopes=scopes, timeout=timeout, progress=progress, enough=enough)

    def export(
        self,
        path: str | os.PathLike[str],
        *scopes: str,
        known_to: str | None = None,
        progress: Callable[[BundleReport], object] | None = None,
    ) -> BundleReport:
        """Write scopes, all if none is named, into a bundle: a file that any replica can import, to be carried by hand.

        known_to: the address of a peer that this database has synced with; the bundle then holds just what that peer
        did not have at the end of the last sync, and builds on that.
        """
        from fieldsync import bundle

        self._check_held(list(scopes))
        names = list(scopes) or [scope.name for scope in self.scopes()]
        bases = self.replica.agreed_with(known_to, names) if known_to is not None else {}
        return bundle.replace_file(path, lambda file: bundle.write(self.replica, file, names, bases, progress))

    def import_bundle(
        self, path: str | os.PathLike[str], *, progress: Callable[[BundleReport], object] | None = None
    ) -> BundleReport:
        """Take a bundle in: the same end as a sync with its writer. Scopes that are not held are entered.

        report.incomplete: scopes of which changes that the bundle builds on are not here, or of which it would take
        away too much for somebody who is no hub; what it had has landed, and the next sync or bundle brings the rest.
        DecodeError where the file is damaged; then nothing was taken.
        """
        from fieldsync import bundle

        with Path(path).open("rb") as file:
            return bundle.read(self.replica, file, progress)

    def _check_held(self, scopes: list[str]) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of names, not one name")
        with self.replica.store.reading() as reader:
            for name in scopes:
                if reader.scope(name) is None:
                    raise NotFound(f"the scope {name!r} is not held here; db.enter(...) it first")


def _budget(max_bytes: int | None, max_seconds: float | None) -> Callable[[Report], bool] | None:
    """Whether a sync that began now has used up what it may."""
    if max_bytes is None and max_seconds is None:
        return None
    end = math.inf if max_seconds is None else time.monotonic() + max_seconds
    most = math.inf if max_bytes is None else max_bytes
    return lambda report: report.bytes_sent + report.bytes_received >= most or time.monotonic() >= end


_NOTHING = {"set": "[]", "list": "[]", "map": "{}"}  # as a column shows it


def _row(collection: Collection) -> CollectionRow:
    columns = tuple(
        (one.name, KINDS[one.kind], one.indexed, _NOTHING.get(one.kind, one.absent)) for one in collection.fields
    )
    return CollectionRow(0, collection.name, columns, collection.signature)
