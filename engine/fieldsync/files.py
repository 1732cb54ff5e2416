"""Files that are there whole or not at all, that only their owner may read, and that survive a power cut."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes that place at the end of the block, instead of one that was there. OSError."""
    with _written(path) as (file, part):
        yield file
        _keep(file)
        part.replace(path)
    _keep_name(path)


def create(path: Path, data: bytes) -> None:
    """Make a file that was not there; FileExistsError where one is, which stays as it is. OSError."""
    with _written(path) as (file, part):
        file.write(data)
        _keep(file)
        path.hardlink_to(part)
    _keep_name(path)


@contextmanager
def _written(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside a place, which is gone after the block unless it has moved; of several writers each has one."""
    number, name = mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file, part
    finally:
        part.unlink(missing_ok=True)


def _keep(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _keep_name(path: Path) -> None:
    """Let a new file's name survive a power cut, where the system syncs folders."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
