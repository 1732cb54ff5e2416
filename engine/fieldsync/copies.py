"""Recognising a copied or restored file when it is opened, before anything is written under a name used elsewhere.

A note outside the file's folder, one for each path, has the name of the replica that was last opened there, and the
number of its last own change in each scope, written before each commit. A file of another name, or one that is behind
its note, or has none, is a copy, an older state, or in doubt: its own authors are dropped, so that the next write mints
new ones, and it gets a new name. So whatever happens to a note costs new authors at most; only one that was put back
together with its file is believed wrongly.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.limits import NOTES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fieldsync.sqlite import SQLiteReader, SQLiteStore, SQLiteWriter

NAME_BYTES = 16
LAST = struct.Struct("<QQ")  # author id and seq of the own last change in a scope, by the scope's number
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


def recognise(store: SQLiteStore, notes: str | os.PathLike[str] | None = None) -> None:
    """Rename a store whose file is not the one last opened at its path; to be called at each open.

    notes: the folder of the notes, the user's own if None.
    """
    note = Note.of(store.path, default_folder() if notes is None else Path(notes))
    if not _is_known(store, note):
        with store.writing() as writer:
            if note is None or not note.agrees(writer):  # as it may by now, or has while nobody was writing
                name = _rename(writer)
                if note is not None:  # before the commit: a crash in between leaves a doubt, never a belief
                    note.begin(name)
    store.on_issue = note.issue if note is not None else None


def _is_known(store: SQLiteStore, note: Note | None) -> bool:
    """Without waiting for writers: a note is ahead of its file for a moment in each commit."""
    if note is None:
        return False
    with store.reading() as reader:
        return note.agrees(reader)


def _rename(writer: SQLiteWriter) -> bytes:
    """Make a file write under names that no other file has; its own new one."""
    for scope in writer.authored():
        writer.save_scope(scope._replace(author=0, seq=0))
    name = os.urandom(NAME_BYTES)
    writer.set_meta("replica", name)
    return name


def default_folder() -> Path | None:
    """Where the user's programs keep state; XDG_STATE_HOME names another place. None where there is no home."""
    chosen = Path(os.environ.get("XDG_STATE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "fieldsync"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "fieldsync"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "fieldsync"
    return home / ".local" / "state" / "fieldsync"


class Note:
    """The note of one path. It is written under the file's writer lock only, so processes take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, FLAGS, 0o600)

    @classmethod
    def of(cls, file: str, folder: Path | None) -> Note | None:
        """The note of a file, made if there is none; None where none can be kept."""
        if folder is None:
            return None
        place = os.path.normcase(os.path.realpath(file))
        path = folder / (hashlib.blake2b(os.fsencode(place), digest_size=16).hexdigest() + ".note")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                _make_room(folder)
            return cls(path)
        except OSError:
            return None

    def agrees(self, reader: SQLiteReader) -> bool:
        """Whether a file is the one last opened here, and not older than its own changes that the note knows of."""
        try:
            os.lseek(self._handle, 0, os.SEEK_SET)
            with os.fdopen(self._handle, "rb", closefd=False) as file:
                data = file.read()
        except OSError:
            return False
        if len(data) < NAME_BYTES or data[:NAME_BYTES] != reader.meta("replica"):
            return False
        noted = LAST.iter_unpack(data[NAME_BYTES : len(data) - (len(data) - NAME_BYTES) % LAST.size])
        lasts = {scope: last for scope, last in enumerate(noted) if last != (0, 0)}
        # without an own author there is no number to be given twice
        return all(not author or (author, seq) >= lasts[scope] for scope, author, seq in reader.lasts(list(lasts)))

    def begin(self, name: bytes) -> None:
        """Note a file's new name; nothing was written under it yet."""
        try:
            os.ftruncate(self._handle, 0)
            self._put(0, name)
            os.fsync(self._handle)
        except OSError:
            self._spoil()

    def issue(self, numbers: Mapping[int, tuple[int, int]]) -> None:
        """Note own changes that are about to be committed: scope's number -> (author id, seq) of the last."""
        try:
            for scope, last in numbers.items():
                self._put(NAME_BYTES + LAST.size * scope, LAST.pack(*last))
        except OSError:
            self._spoil()

    def _put(self, at: int, data: bytes) -> None:
        os.lseek(self._handle, at, os.SEEK_SET)
        if os.write(self._handle, data) != len(data):
            raise OSError("no room for the note")

    def _spoil(self) -> None:
        """A note that could not be written must not be believed."""
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
        with suppress(OSError):
            self._path.unlink()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def _make_room(folder: Path) -> None:
    """Keep the notes from growing without end: those that were not used for longest go."""
    notes = list(folder.glob("*.note"))
    if len(notes) < NOTES_MAX:
        return
    for path in sorted(notes, key=_last_used)[: len(notes) - NOTES_MAX + 1]:
        path.unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
