"""A disk that fails: it is full, the process dies in a commit, the power goes before the log was synced."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.errors import DiskFull
from fieldsync.sqlite import SQLiteStore

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.simulation.glance import Glance

    from fieldsync.sqlite import SQLiteWriter

LOG_HEADER_BYTES = 32
MOMENTS = ["before", "noted", "after"]  # of a commit: before it, after the note of it (copies.py), after it


class Killed(BaseException):
    """The process has died, here and now. Nothing catches this but the schedule."""

    def __init__(self, store: FlakyStore, *, has_written: bool) -> None:
        super().__init__(store.path)
        self.store = store
        self.has_written = has_written  # the transaction in which it died is in the file


@dataclass(frozen=True)
class Image:
    """The bytes of a file, of its log, and of the note by which it is known, if that goes with it."""

    file: bytes
    log: bytes
    note: bytes | None = None

    def put(self, path: Path, notes: Path) -> None:
        """Make this what is on the disk at a path; nobody may have it open."""
        path.write_bytes(self.file)
        Path(f"{path}-wal").write_bytes(self.log)
        Path(f"{path}-shm").unlink(missing_ok=True)
        if self.note is not None:
            for note in notes.iterdir():
                note.write_bytes(self.note)


class FlakyStore(SQLiteStore):
    """A store whose disk is full when told so, and whose process dies when told so. Only what is synced is durable."""

    def __init__(self, path: Path, notes: Path) -> None:
        super().__init__(path, full=False)
        self.is_full = False
        self.began_with: dict[str, tuple[bytes, int]] | None = None  # where a hub's own changes follow: see mover.py
        self.began_at: Glance | None = None
        self._at_commit: list[Callable[[], None]] = []
        self._notes = notes
        self._commits_left = 0
        self._moment = ""
        self._synced = self._log_mark()  # how much of the log is on the disk
        self._synced_note = b""

    @contextmanager
    def writing(self) -> Iterator[SQLiteWriter]:
        self._at_commit = []
        with super().writing() as writer:
            yield writer
            if self.is_full:
                self.is_full = False
                raise DiskFull("simulated")
            moment = self._count_down()
            if moment == "before":
                raise Killed(self, has_written=False)
            if moment == "noted":
                writer.commit = self._die  # type: ignore[method-assign]
        for action in self._at_commit:
            action()
        if moment == "after":
            raise Killed(self, has_written=True)

    def at_commit(self, action: Callable[[], None]) -> None:
        """Do something when the transaction that is under way is in the file."""
        self._at_commit.append(action)

    def _die(self) -> None:
        raise Killed(self, has_written=False)

    def _count_down(self) -> str:
        self._commits_left -= 1
        return self._moment if self._commits_left == 0 else ""

    def die_at(self, commits: int, moment: str) -> None:
        """Die at some commit from now on; 0: do not."""
        self._commits_left, self._moment = commits, moment

    def be_sound(self) -> None:
        """Neither be full nor die, until told again."""
        self.is_full, self._commits_left = False, 0

    def sync_log(self) -> None:
        super().sync_log()
        self._synced, self._synced_note = self._log_mark(), self._note()

    def survive(self, other: FlakyStore) -> None:
        """Know of the log what was known before the process died: the system has not written it out since."""
        self._synced = other._synced

    def _note(self) -> bytes:
        return b"".join(path.read_bytes() for path in self._notes.glob("*.note"))

    def _log(self) -> bytes:
        path = Path(self.path + "-wal")
        return path.read_bytes() if path.exists() else b""

    def _log_mark(self) -> tuple[bytes, int]:
        """Which log it is, since a checkpoint begins another one, and how long."""
        path = Path(self.path + "-wal")
        if not path.exists():
            return b"", 0
        with path.open("rb") as log:
            return log.read(LOG_HEADER_BYTES), path.stat().st_size

    def image(self) -> Image:
        """The file as every process sees it."""
        return Image(Path(self.path).read_bytes(), self._log())

    def image_after_power_cut(self, chance: random.Random) -> Image:
        """The file with some of the log that was not synced, torn anywhere; its note as it is or as it was then.

        A checkpoint syncs the log before it begins another one.
        """
        log = self._log()
        header, size = self._synced
        kept = chance.randint(size if header and header == log[:LOG_HEADER_BYTES] else 0, len(log))
        note = self._synced_note if self._synced_note and chance.random() < 0.5 else None
        return Image(Path(self.path).read_bytes(), log[:kept], note)
