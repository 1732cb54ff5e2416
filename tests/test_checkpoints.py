"""The write-ahead log is moved into the file beside the commits, and is bounded where that does not keep up."""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import fieldsync as fs
from fieldsync.sqlite import checkpoints
from fieldsync.sqlite.checkpoints import Checkpoints

if TYPE_CHECKING:
    from pathlib import Path

FIRST, STEP, MOST = 20, 10, 60


class Thing(fs.Record, table="things"):
    text: str = ""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, pages in (("FIRST", FIRST), ("STEP", STEP), ("MAX", MOST)):
        monkeypatch.setattr(checkpoints, f"LOG_PAGES_{name}", pages)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def checkpoints_of(db: fs.Database) -> Checkpoints:
    return db.replica.store._checkpoints  # type: ignore[attr-defined,no-any-return]


def write(db: fs.Database, first: int, count: int = 1) -> None:
    """Transactions of some 10 KB each."""
    for n in range(first, first + count):
        with db.write() as tx:
            tx.create(Thing, key=f"k{n}", scope="s", text=f"{n} " * 2_000)


def rest(db: fs.Database) -> None:
    thread = checkpoints_of(db)._thread
    if thread is not None:
        thread.join()


def forget_connection(db: fs.Database) -> None:
    """What made the tables may have been much, so that a thread has one already."""
    rest(db)
    if (connection := checkpoints_of(db)._connection) is not None:
        connection.close()
        checkpoints_of(db)._connection = None


def moved(path: Path) -> tuple[int, int]:
    """Pages in the log, and how many of them are in the file."""
    other = apsw.Connection(str(path))
    other.execute("PRAGMA schema_version").fetchall()
    log = path.with_name(path.name + "-shm").read_bytes()
    pages = int.from_bytes(log[16:20], "little")  # of the index's header (SQLite, WAL-mode file format, section 2.1)
    done = int.from_bytes(log[96:100], "little")
    other.close()
    return pages, done


def test_a_long_log_is_moved_in_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fs.open(path, Thing) as db:
        db.enter("s")
        monkeypatch.setattr(checkpoints, "LOG_PAGES_MAX", 10_000)
        lengths = [0]
        while lengths == sorted(lengths):  # until it starts over
            assert len(lengths) < 100
            write(db, len(lengths))
            rest(db)
            lengths.append(moved(path)[0])
        assert max(lengths) >= FIRST
        assert len(db[Thing].where().all()) == len(lengths) - 1


def test_a_log_that_grows_faster_than_it_is_moved_stays_within_bounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can begin."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    longest = 0
    with fs.open(path, Thing) as db:
        db.enter("s")
        monkeypatch.setattr(checkpoints.threading.Thread, "start", start)
        for n in range(60):
            write(db, n)
            longest = max(longest, moved(path)[0])
        assert FIRST <= longest < MOST
        assert len(db[Thing].where().all()) == 60


def test_a_commit_moves_what_a_thread_that_hangs_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def work(self: Checkpoints) -> None:
        began.set()
        goes_on.wait(60)

    monkeypatch.setattr(Checkpoints, "_work", work)
    with fs.open(path, Thing) as db:
        db.enter("s")
        longest = 0
        for n in range(60):
            write(db, n)
            longest = max(longest, moved(path)[0])
        assert began.is_set()
        assert MOST <= longest < MOST + 20
        goes_on.set()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError, apsw.BusyError, apsw.CantOpenError])
def test_a_disk_that_fails_a_thread_fails_no_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    asked = []

    class Failing:
        def __init__(self, *args: Any, **options: Any) -> None:
            asked.append(args)
            raise error("no")

    with fs.open(path, Thing) as db:
        db.enter("s")
        forget_connection(db)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.apsw, "Connection", Failing)
            write(db, 0, 8)
            rest(db)
        assert asked
        write(db, 8, 8)  # and the next one gets through
        rest(db)
        assert moved(path)[1] > 0
        assert len(db[Thing].where().all()) == 16


def test_closing_waits_for_what_is_moved_and_leaves_the_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, closing = threading.Event(), threading.Event()
    work = Checkpoints._work

    def slowly(self: Checkpoints) -> None:
        began.set()
        closing.wait(60)
        work(self)

    monkeypatch.setattr(Checkpoints, "_work", slowly)
    db = fs.open(path, Thing)
    db.enter("s")
    write(db, 0, 8)
    assert began.wait(60)
    threading.Timer(0.1, closing.set).start()
    thread = checkpoints_of(db)._thread
    assert thread is not None
    db.close()
    assert not thread.is_alive()
    assert [one.name for one in path.parent.iterdir() if one.name.startswith("a.db-")] == []
    with fs.open(path, Thing) as db:
        assert len(db[Thing].where().all()) == 8


def test_a_reader_at_work_keeps_what_it_sees(path: Path) -> None:
    with fs.open(path, Thing) as db:
        db.enter("s")
        write(db, 0)
        with db.replica.store.reading() as reader:
            number = reader.collection("things").id
            write(db, 1, 40)
            rest(db)
            assert len(reader.by_keys_anywhere(number, [f"k{n}" for n in range(41)])) == 1
        assert len(db[Thing].where().all()) == 41


def test_one_large_transaction_after_the_other_is_moved_in_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins the log anew, and leaves more in it than begins a thread."""
    begun = []
    begin = Checkpoints._begin
    monkeypatch.setattr(Checkpoints, "_begin", lambda self, writer: begun.append(self) or begin(self, writer))
    monkeypatch.setattr(checkpoints, "LOG_PAGES_MAX", 10_000)
    lengths = []
    with fs.open(path, Thing) as db:
        db.enter("s")
        rest(db)
        for first in (0, 20, 40, 60, 80):
            begun.clear()
            with db.write() as tx:
                for n in range(first, first + 20):
                    tx.create(Thing, key=f"k{n}", scope="s", text=f"{n} " * 2_000)
            rest(db)
            assert begun
            lengths.append(moved(path)[0])
    assert FIRST < max(lengths) < 2 * min(lengths)


def test_another_file_in_the_place_of_an_open_one_is_left_alone(path: Path) -> None:
    with fs.open(path.with_name("backup.db"), Thing) as db:
        db.enter("s")
        write(db, 0, 3)
    backup = path.with_name("backup.db").read_bytes()
    with fs.open(path, Thing) as db:
        db.enter("s")
        forget_connection(db)
        path.with_name("backup.db").replace(path)
        write(db, 0, 4)
        rest(db)
        assert checkpoints_of(db)._connection is None
        assert path.read_bytes() == backup


def test_a_look_that_fails_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are no more descriptors: opening alone may work, and what follows would do nothing, silently."""
    opened: list[Any] = []

    class Blind:
        def __init__(self, *args: Any, **options: Any) -> None:
            opened.append(self)
            self.is_closed = False

        def execute(self, sql: str) -> Any:
            raise apsw.CantOpenError(sql)

        def close(self) -> None:
            self.is_closed = True

    with fs.open(path, Thing) as db:
        db.enter("s")
        forget_connection(db)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.apsw, "Connection", Blind)
            write(db, 0, 8)
            rest(db)
        assert opened
        assert all(one.is_closed for one in opened)
        assert checkpoints_of(db)._connection is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_who_forks_waits_for_what_is_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child would find SQLite in the middle of it, for good."""
    began, order = threading.Event(), []
    move = Checkpoints._move

    def slowly(self: Checkpoints, connection: apsw.Connection) -> None:
        began.set()
        time.sleep(0.2)
        move(self, connection)
        order.append("moved")

    with fs.open(path, Thing) as db:
        db.enter("s")
        rest(db)
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "_move", slowly)
            write(db, 0, 4)
            assert began.wait(60)
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of forks among threads
                child = os.fork()
            if child == 0:
                os._exit(0 if checkpoints._working.acquire(blocking=False) else 1)
            order.append("forked")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            rest(db)
        assert order[0] == "moved"
