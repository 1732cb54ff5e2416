"""Files that are there whole or not at all, that only their owner may read, and that survive a power cut."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes that place at the end of the block, instead of one that was there. OSError."""
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # never into a file, or through a link, that somebody else has put there
        with os.fdopen(os.open(part, FLAGS, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _keep_name(path)


def _keep_name(path: Path) -> None:
    """Let a new file's name survive a power cut, where the system syncs folders."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
