"""Moving a file's write-ahead log into the file, in a thread of its own: commits do not wait for the disk."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import apsw

from fieldsync.limits import LOG_PAGES_FIRST, LOG_PAGES_MAX, LOG_PAGES_STEP

# Held for what threads here do in SQLite, one file at a time, and by who forks: a child would find a checkpoint that
# nobody ends in SQLite's own tables of locks, and never move a log again.
_working = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_working.acquire, after_in_parent=_working.release, after_in_child=_working.release)


class Checkpoints:
    """Of one file that a process writes; SQLite's autocheckpoint does the same within the commit that finds much."""

    def __init__(self, path: str, writer: apsw.Connection) -> None:
        """writer: the connection that commits, which has just been opened."""
        self._path = path
        self._file = _identity(path)
        self._thread: threading.Thread | None = None
        self._connection: apsw.Connection | None = None  # the thread's
        self._pages = 0  # of the log after the last commit
        self._last = 0  # the same when a thread was last begun, unless it moved all
        writer.set_wal_hook(self._after_commit)

    def close(self) -> None:
        """Wait for what is being moved, and let the file go."""
        if self._thread is not None:
            self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def _after_commit(self, writer: apsw.Connection, _: str, pages: int) -> int:
        """The writer's hook, which is told how many pages the log has.

        A log that grows too long in spite of the thread is moved here: all its writers wait, so it can start over.
        """
        self._pages = pages
        if pages < LOG_PAGES_FIRST:
            self._last = 0
        elif pages >= LOG_PAGES_MAX:
            self._move(writer)
        elif pages >= self._last + LOG_PAGES_STEP and not self._is_working():
            self._last = pages
            self._begin(writer)
        return apsw.SQLITE_OK

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
        with _working, suppress(apsw.Error):  # as below
            if self._connection is None:
                self._connection = self._open()
            self._move(self._connection)

    def _open(self) -> apsw.Connection:
        """The thread's connection; CantOpenError where another file is in the place of the writer's by now."""
        if self._file != _identity(self._path):
            raise apsw.CantOpenError("another file")
        connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA schema_version").get  # noqa: B018 - a look, which opens the log
        except BaseException:
            connection.close()
            raise
        return connection

    def _move(self, connection: apsw.Connection) -> None:
        """Move what no reader still needs in the log. A disk that fails is met by the next one, or by a commit."""
        with _working, suppress(apsw.Error):
            if connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE) == (self._pages, self._pages):
                self._last = 0  # the log starts over with the next commit, however much that writes


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at a path, if any is."""
    with suppress(OSError):
        found = os.stat(path)  # noqa: PTH116 - pathlib takes long to load
        return found.st_dev, found.st_ino
    return None
