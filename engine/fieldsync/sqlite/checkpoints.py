"""Moving a file's write-ahead log into the file, in a thread of its own: commits do not wait for the disk."""

from __future__ import annotations

import threading
from contextlib import suppress

import apsw

from fieldsync.limits import LOG_PAGES_FIRST, LOG_PAGES_MAX, LOG_PAGES_STEP


class Checkpoints:
    """Of one file that a process writes; SQLite's autocheckpoint does the same within the commit that finds much."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._working = threading.Lock()  # held for one checkpoint
        self._thread: threading.Thread | None = None
        self._connection: apsw.Connection | None = None  # the thread's
        self._last = 0  # pages of the log when a thread was last begun

    def after_commit(self, writer: apsw.Connection, _: str, pages: int) -> int:
        """The hook of the connection that commits, which is told how many pages the log has.

        A log that grows too long in spite of the thread is moved here: all its writers wait, so it can start over.
        """
        if pages < LOG_PAGES_FIRST:
            self._last = 0
        elif pages >= LOG_PAGES_MAX:
            self._move(writer)
        elif pages >= self._last + LOG_PAGES_STEP and not self._is_working():
            self._last = pages
            self._begin(writer)
        return apsw.SQLITE_OK

    def close(self) -> None:
        """Wait for what is being moved, and let the file go."""
        if self._thread is not None:
            self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def _is_working(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self, writer: apsw.Connection) -> None:
        self._thread = threading.Thread(target=self._work, name="fieldsync checkpoint")
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends
            self._thread = None
            self._move(writer)

    def _work(self) -> None:
        with suppress(apsw.Error):  # as below
            if self._connection is None:
                self._connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
                self._connection.execute("PRAGMA schema_version").get  # noqa: B018 - a look, which opens the log
            self._move(self._connection)

    def _move(self, connection: apsw.Connection) -> None:
        """Move what no reader still needs in the log. A disk that fails is met by the next one, or by a commit."""
        with self._working, suppress(apsw.Error):
            connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
