"""The connections of one file: who may read and write when, and what SQLite's errors mean."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from fieldsync.errors import Busy, ClosedError, Corrupt, DiskFull, FormatTooNew, StoreError
from fieldsync.limits import BUSY_MS_MAX, READERS_MAX
from fieldsync.record import Dictionary
from fieldsync.sqlite.checkpoints import Checkpoints
from fieldsync.sqlite.lately import Lately
from fieldsync.sqlite.layout import APPLICATION_ID, FORMAT, TABLES, load_columns
from fieldsync.sqlite.reader import SQLiteReader
from fieldsync.sqlite.writer import SQLiteWriter
from fieldsync.store import CollectionRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fieldsync.sqlite.writer import Left


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """SQLite's errors as the project's own."""
    try:
        yield
    except apsw.FullError:
        raise DiskFull(f"{path}: no room on the disk; the transaction was undone whole") from None
    except apsw.BusyError:
        raise Busy(f"{path}: another process has been writing for {BUSY_MS_MAX / 1000:.0f} s; try again") from None
    except apsw.NotADBError:
        raise StoreError(f"{path} is not a Fieldsync file") from None
    except (apsw.CorruptError, apsw.FormatError, apsw.SQLError) as error:  # the last of tables that are not there
        raise Corrupt(f"{path}: damaged ({error})") from None
    except apsw.NoMemError:
        raise StoreError(f"{path}: out of memory; what is searched may be damaged, which db.verify() tells") from None
    except apsw.IOError as error:
        raise StoreError(f"{path}: the disk answered with an error ({error})") from None
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StoreError(f"{path}: cannot be opened for writing ({error})") from None


class Schema(NamedTuple):
    """What tables a file has, at one version of its schema."""

    version: int
    collections: dict[str, CollectionRow]
    is_audited: bool
    has_tails: bool


class SQLiteStore:
    """One SQLite file; see store.Store. Threads share it; other processes may have it open too."""

    def __init__(self, path: str | os.PathLike[str], *, full: bool = True, page_bytes: int = 8192) -> None:
        # as SQLite calls it, with its log beside it; connections are opened later too, wherever the app works by then
        self.path = os.path.realpath(os.fspath(path))
        self._full = full
        self._page_bytes = page_bytes
        self._pid = os.getpid()
        self._closed = False
        self._write_lock = threading.RLock()
        self._pool_lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._lent: set[apsw.Connection] = set()
        self.on_issue: Callable[[Mapping[int, tuple[int, int]]], None] | None = None  # before own changes are committed
        self._dictionary = Dictionary()
        self._left: Left | None = None
        self.lately = Lately()
        self._current: SQLiteWriter | None = None  # the write transaction that is open
        self._schema = Schema(-1, {}, False, False)
        with _translated(self.path):
            self._writer = self._open(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            self._checkpoints = Checkpoints(self.path, self._writer)
            self._prepare()

    def _open(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(self.path, flags=flags)
        try:
            connection.set_busy_timeout(BUSY_MS_MAX)
            self._refuse_foreign(connection)
            connection.execute(f"PRAGMA page_size={self._page_bytes}")
            connection.execute("PRAGMA journal_mode=WAL").get  # noqa: B018
            connection.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")
            connection.execute("PRAGMA cache_size=-16000; PRAGMA journal_size_limit=67108864")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_foreign(self, connection: apsw.Connection) -> None:
        """A file that is not ours, or newer than this version, stays as it is: nothing is written before this."""
        version = connection.execute("PRAGMA user_version").get
        application = connection.execute("PRAGMA application_id").get
        if application == APPLICATION_ID and version > FORMAT:
            raise FormatTooNew(
                f"{self.path} has format {version}; this version of Fieldsync reads up to {FORMAT}: upgrade fieldsync"
            )
        if application != APPLICATION_ID and (
            application or connection.execute("SELECT count(*) FROM sqlite_schema").get
        ):
            raise StoreError(f"{self.path} is an SQLite file, but not a Fieldsync one")

    def _prepare(self) -> None:
        """Make the tables of a new file."""
        if self._writer.execute("PRAGMA application_id").get == APPLICATION_ID:
            return
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            if self._writer.execute("PRAGMA application_id").get != APPLICATION_ID:  # nor made by another since
                self._writer.execute(TABLES)
                self._writer.execute("INSERT INTO fs_meta VALUES('replica', ?)", (os.urandom(16),))
                self._writer.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}")
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path} was closed")
        if os.getpid() != self._pid:
            raise ClosedError(f"{self.path} was opened before a fork; open it again in the child process")

    def latest_dictionary(self, connection: apsw.Connection) -> Dictionary:
        """The dictionary as the connection's transaction sees it; remembered only as far as it is committed."""
        known = self._dictionary
        authors: Any = connection.execute(
            "SELECT name FROM fs_author WHERE id>=? ORDER BY id", (known.author_count,)
        ).fetchall()
        fields: Any = connection.execute(
            "SELECT name, kind FROM fs_field WHERE id>=? ORDER BY id", (len(known.field_names),)
        ).fetchall()
        if authors:
            known = known.with_authors([name for (name,) in authors])
        if fields:
            known = known.with_fields(fields)
        if authors or fields:
            self._dictionary = known
        return known

    def latest_schema(self, connection: apsw.Connection) -> Schema:
        """What tables there are, as the connection's transaction sees them: read anew when that has changed."""
        known, version = self._schema, connection.execute("PRAGMA schema_version").get
        if known.version != version:
            rows: Any = connection.execute("SELECT id, name, columns, signature FROM fs_collection ORDER BY id")
            names = {name: CollectionRow(number, name, load_columns(text), sig) for number, name, text, sig in rows}
            late: Any = connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('fs_audit', 'fs_tail')")
            tables = {name for (name,) in late}
            known = self._schema = Schema(version, names, "fs_audit" in tables, "fs_tail" in tables)
        return known

    def snapshot(self) -> SQLiteReader:
        """A reader that stays at this moment until it is closed; for streams that last."""
        self._check_open()
        with self._pool_lock:
            connection = self._idle.pop() if self._idle else None
        with _translated(self.path):
            if connection is None:
                connection = self._open(apsw.SQLITE_OPEN_READONLY)
            with self._pool_lock:
                self._lent.add(connection)
            return SQLiteReader(self, connection, "BEGIN")

    def release(self, connection: apsw.Connection) -> None:
        """Take a reader's connection back."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._pool_lock:
            self._lent.discard(connection)
            keep = not self._closed and len(self._idle) < READERS_MAX
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[SQLiteReader]:
        """A consistent moment, for the length of a with block."""
        reader = self.snapshot()
        try:
            with _translated(self.path):
                yield reader
        finally:
            reader.close()

    @contextmanager
    def writing(self) -> Iterator[SQLiteWriter]:
        """The write transaction, for the length of a with block: durable at its end, undone whole by an exception."""
        with self._locked():
            if self._current is not None:
                raise StoreError("a write transaction is open in this thread already; finish it first")
            yield from self._write()

    @contextmanager
    def looking(self) -> Iterator[SQLiteWriter]:
        """A writer for a look that changes nothing: of the write transaction that is open in this thread, if one is."""
        with self._locked():
            if self._current is not None:
                yield self._current
                return
            writer = SQLiteWriter(self, self._writer)
            try:
                yield writer
            finally:
                writer.rollback()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._check_open()
        if not self._write_lock.acquire(timeout=BUSY_MS_MAX / 1000):
            raise Busy(f"{self.path}: another thread has been writing for {BUSY_MS_MAX / 1000:.0f} s; try again")
        try:
            with _translated(self.path):
                self._check_open()
                yield
        finally:
            self._write_lock.release()

    def _write(self) -> Iterator[SQLiteWriter]:
        writer = self._current = SQLiteWriter(self, self._writer)
        try:
            yield writer
            if writer.issued and self.on_issue:
                self.on_issue(writer.issued)
            writer.commit()
        except BaseException:
            writer.rollback()
            raise
        finally:
            self._current = None
        self._dictionary = writer.dictionary

    def take_left(self, version: int) -> Left | None:
        """What the last write transaction left, if it was this process's; it is given once, so that none fails with it.

        version: of the file, as the write transaction that asks sees it.
        """
        left, self._left = self._left, None
        return left if left is not None and left.version == version else None

    def leave(self, left: Left) -> None:
        """Keep what a write transaction leaves to the next one."""
        self._left = left

    def foreign_commits(self) -> int | None:
        """A number that differs after a commit of another process; None while a thread of this one writes."""
        self._check_open()
        if not self._write_lock.acquire(blocking=False):
            return None
        try:
            return int(self._writer.execute("PRAGMA data_version").get)
        finally:
            self._write_lock.release()

    def declare(self, collections: list[CollectionRow], progress: Callable[[int, int], None] | None) -> None:
        """Give collections their declared columns; see Writer.declare."""
        with self.reading() as reader:
            known = {row.name: row for row in reader.collections()}
        if all(row.name in known and known[row.name].serves(row) for row in collections):
            return
        with self.writing() as writer:
            for row in collections:
                writer.declare(row, progress)

    def sync_log(self) -> None:
        """Make all commits durable, for a store that is not so at each commit; before own dots leave the device."""
        from pathlib import Path  # which takes as long to load as a tenth of all else

        log = Path(self.path + "-wal")
        if self._full or not log.exists():
            return
        with log.open("rb") as file:
            os.fsync(file.fileno())  # of the file, whoever wrote to it

    def size(self) -> int:
        """The bytes of the file and its log."""
        from pathlib import Path

        return sum(path.stat().st_size for path in (Path(self.path), Path(self.path + "-wal")) if path.exists())

    def close(self) -> None:
        """Close all connections; readers still lent are closed when they come back."""
        if self._closed or os.getpid() != self._pid:
            self._closed = True
            return
        with self._write_lock:
            self._closed = True
            with self._pool_lock:
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            try:
                self._checkpoints.close()
            finally:
                self._writer.close()  # the last one, which empties the log
            self.on_issue = None
