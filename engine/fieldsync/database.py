"""The library's front door: what fieldsync.open returns."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import apsw

from fieldsync.errors import DataError
from fieldsync.history import History
from fieldsync.limits import IDLE_SECONDS_MAX
from fieldsync.query import Plan
from fieldsync.reading import Table
from fieldsync.replica import Replica
from fieldsync.schema import BaseRecord, Collection
from fieldsync.sqlite import SQLiteStore
from fieldsync.trust.rights import CONTROL
from fieldsync.writing import KEY_RANDOM_BITS, Transaction, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.comparing import Comparison
    from fieldsync.describing import CollectionInfo
    from fieldsync.examine import VerifyReport
    from fieldsync.live import LiveText
    from fieldsync.loading import LoadReport
    from fieldsync.network.server import Server
    from fieldsync.references import Followed
    from fieldsync.schema import Record, Snapshot
    from fieldsync.syncing.report import Report
    from fieldsync.trust.identity import Identity

R = TypeVar("R", bound=BaseRecord)


def open(  # noqa: A001 - reads as fieldsync.open
    path: str | os.PathLike[str],
    *declared: type[Record],
    durability: str = "full",
    hub: bool = False,
    audit: bool = False,
    notes: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Database:
    """Open a database file, made if it does not exist, with the collections that the app declares, if any.

    durability: "full" (each transaction survives a power cut) or "fast" (it survives a crash of the app; a power cut
    may cost the last ones). hub: take every scope that a peer offers. audit: keep a log in the file of all that changes
    there, from now on and whoever opens it (docs/audit.md). notes: the folder of the notes by which a copied or
    restored file is recognised, the user's state folder if None. progress(done, total) is called while columns are
    rebuilt because declared fields changed.
    """
    if durability not in ("full", "fast"):
        raise ValueError(f'durability is "full" or "fast", not {durability!r}')
    if os.fspath(path) in ("", ":memory:"):
        raise ValueError(f"a database is a file that several connections share, not {path!r}; give it a path")
    from fieldsync.copies import recognise

    store = SQLiteStore(path, full=durability == "full")
    try:
        recognise(store, notes)
        replica = Replica(store, takes_all=hub)
        if audit:
            replica.keep_audit()
        return Database(replica, declared, progress)
    except BaseException:
        store.close()
        raise


def serve(database: Database, host: str = "127.0.0.1", port: int = 0, *, identity: Identity | None = None) -> Server:
    """Serve a database to peers over WebSocket, from a thread in the background; port 0 takes a free one.

    Without an identity there is no TLS, and only loopback addresses are served.
    """
    from fieldsync.network.server import Server

    return Server(database.replica, host, port, identity=identity)


class Database(History):
    """A replica with its records, queries, watches and syncs. Thread-safe; the file may be open in other processes."""

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def edit(
        self, of: type[Record] | str, key: str, field: str, /, *, scope: str | None = None, via: Any = None
    ) -> LiveText:
        """Open a text for an editor: `with db.edit(Note, "n-1", "body", via=root.after_idle) as live:` live.text.

        What is typed into it is written at each pause, and at the end; what others write comes into it through via, a
        scheduler of the thread that edits (as for watches), or by live.refresh(). Where no scope is named, a record
        that moves is followed. NotFound, AmbiguousKey.
        """
        from fieldsync.live import LiveText

        live = LiveText(self.replica, self.collection(of), key, field, scope, via)
        self._editors.add(live)
        return live

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

    def erase(
        self,
        of: type[Record] | str,
        field: str,
        *,
        scope: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Erase a field in all records of a collection, in transactions of their own; see tx.erase. How many had it.

        In one scope, or all that are held. progress is called with the number of records done.
        """
        from fieldsync.erasing import erase

        with self.replica.store.reading() as reader:
            scopes = self._asked(reader, scope)
        return erase(self.replica, self.collection(of), field, scopes, progress or (lambda _: None))

    # --- reading ---

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

    @overload
    def follow(self, record: BaseRecord, field: str, of: type[R], *, scope: str | None = None) -> Followed[R]: ...
    @overload
    def follow(
        self, record: BaseRecord, field: str, of: str | None = None, *, scope: str | None = None
    ) -> Followed[Any]: ...
    def follow(self, record: BaseRecord, field: str, of: Any = None, *, scope: str | None = None) -> Followed[Any]:
        """The record that a field refers to, or why it is not here: db.follow(visit, "order").record.

        of: the collection, where the field is not declared with references=, or for type checkers. It is looked for in
        the scope of `record`, then in all others; or just in the one that is named.
        """
        return self.follow_all([record], field, of, scope=scope)[0]

    @overload
    def follow_all(
        self, records: Iterable[BaseRecord], field: str, of: type[R], *, scope: str | None = None
    ) -> list[Followed[R]]: ...
    @overload
    def follow_all(
        self, records: Iterable[BaseRecord], field: str, of: str | None = None, *, scope: str | None = None
    ) -> list[Followed[Any]]: ...
    def follow_all(
        self, records: Iterable[BaseRecord], field: str, of: Any = None, *, scope: str | None = None
    ) -> list[Followed[Any]]:
        """The same for many records, in their order: with as few queries as for one."""
        from fieldsync.references import follow, references

        some = references(records, field, None if of is None else self.collection(of), self.collection)
        with self.replica.store.reading() as reader:
            return follow(self._deeds(reader), some, scope)

    def compare(
        self, other: Database, *scopes: str, progress: Callable[[int, int], object] | None = None
    ) -> Comparison:
        """Whether two replicas agree on scopes, all that both hold if none is named, and where they do not. NotFound.

        Every cell of both is looked at. progress(done, total) is called with numbers of rows.
        """
        from fieldsync.comparing import compare

        with self.replica.store.reading() as one, other.replica.store.reading() as two:
            return compare((one, two), (self.path, other.path), list(scopes), progress)

    # --- looking after the file ---

    def verify(self, *, repair: bool = False, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """Look at every record and all that follows from it; with repair, mend what can be mended.

        Where fields are searched, a look takes the writer lock for a moment: so SQLite looks at a search table.
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
        identity: Identity | None = None,
    ) -> Report:
        """Sync with a database of this process, or with a peer's address such as "wss://hub.example.org:8765".

        identity: who this device is, as wss:// needs it; ws:// is for loopback addresses only.

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
            from fieldsync.syncing.memory import join

            return join(self.replica, peer.replica, scopes=scopes, progress=progress, enough=enough)
        if not isinstance(peer, str):
            raise TypeError(f"a peer is a Database or an address, not {type(peer).__name__}")
        from fieldsync.network.websocket import connect

        return connect(
            self.replica, peer, scopes=scopes, timeout=timeout, progress=progress, enough=enough, identity=identity
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *scopes: str,
        known_to: str | None = None,
        identity: Identity | None = None,
        readers: Iterable[str] | None = None,
        plaintext: bool = False,
        progress: Callable[[BundleReport], object] | None = None,
    ) -> BundleReport:
        """Write scopes, all if none is named, into a bundle: a file to be carried by hand, which replicas can import.

        known_to: the address of a peer that this database has synced with, or its name where it proved who it is; the
        bundle then holds just what that peer did not have at the end of the last sync, and builds on that.

        identity: who this device is. The bundle is then signed, and sealed to readers, names or ids of devices; if
        None, to all that may read all the scopes. plaintext: it is not, though the database is an organisation's: for
        a device that has not enrolled yet. IdentityError where a reader may not read a scope, or has no known key.
        """
        from fieldsync.bundles import bundle, parcel

        self._check_held(list(scopes))
        names = list(scopes) or [scope.name for scope in self.scopes()]
        write = parcel.writing(self.replica, identity=identity, readers=readers, plaintext=plaintext)
        bases = {} if known_to is None else parcel.known_to(self.replica, known_to, [CONTROL, *names], identity)
        return bundle.replace_file(path, lambda file: write(file, names, bases, progress))

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        identity: Identity | None = None,
        plaintext: bool = False,
        progress: Callable[[BundleReport], object] | None = None,
    ) -> BundleReport:
        """Take a bundle in: the same end as a sync with its writer. Scopes that are not held are entered.

        report.incomplete: scopes of which changes that the bundle builds on are not here, or of which it would take
        away too much for somebody who is no hub; what it had has landed, and the next sync or bundle brings the rest.
        DecodeError where the file is damaged; then nothing was taken.

        identity: who this device is, for which a sealed bundle is opened; of it is taken what its writer may bring
        (report.refusals). plaintext: take one in that is not sealed, though the database is an organisation's.
        """
        from fieldsync.bundles.parcel import read

        return read(self.replica, path, identity=identity, plaintext=plaintext, progress=progress)


def _budget(max_bytes: int | None, max_seconds: float | None) -> Callable[[Report], bool] | None:
    """Whether a sync that began now has used up what it may."""
    if max_bytes is None and max_seconds is None:
        return None
    end = math.inf if max_seconds is None else time.monotonic() + max_seconds
    most = math.inf if max_bytes is None else max_bytes
    return lambda report: report.bytes_sent + report.bytes_received >= most or time.monotonic() >= end
