"""Of several agents that have one file open, in any processes, one works: who holds a lock on a file beside it.

The operating system lets go of the lock when its process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

SUFFIX = "-agent"  # of the file beside the database, in which nothing is
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Place:
    """The place of the agent that works at a file. A file in memory has one for each that asks."""

    def __init__(self, path: str) -> None:
        self._path = "" if path in ("", ":memory:") else os.path.realpath(path) + SUFFIX
        self._file: int | None = None

    def take(self) -> bool:
        """Whether the place is this one's now. Where a system knows no such locks, it is everybody's."""
        if not self._path or self._file is not None:
            return True
        try:
            file = os.open(self._path, FLAGS, 0o600)  # nobody else may open it: who can may keep the lock
        except OSError:
            return True
        if not _is_own(file):
            os.close(file)
            return True
        try:
            _lock(file)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:  # of a file system without locks
            os.close(file)
            return True
        self._file = file
        return True

    def leave(self) -> None:
        """Let the next one take it."""
        if self._file is not None:
            with suppress(OSError):
                _unlock(self._file)  # which a child that was forked meanwhile has open, too
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def _is_own(file: int) -> bool:
    """Whether nobody else can open a file, and keep its lock for good."""
    status = os.fstat(file)
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
