"""Faults on real files and processes: kill -9, two writers, threads, forks, a full disk, files of others."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import apsw
import pytest
from tests.simulation.audit import audit
from tests.talking import state

import fieldsync as fs
from fieldsync.errors import ClosedError, DiskFull, FormatTooNew, StoreError
from fieldsync.sqlite.layout import FORMAT


class Total(fs.Record, table="totals"):
    count: fs.Counter = 0
    last: str = ""


PRELUDE = """
import sys
import fieldsync as fs
from fieldsync.syncing import giving
from tests.test_faults import Total, write_one

giving.CHUNK_CELLS_TARGET = 40
name, path = sys.argv[1:3]

def say(*what):
    print(*what, flush=True)
"""
WRITER = """
with fs.open(path, Total, durability="fast") as db:
    say("ready")
    sys.stdin.readline()
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        write_one(db, name, number)
        say(number)
"""
SERVER = """
with fs.open(path, hub=True, durability="fast") as db, fs.serve(db) as server:
    say(server.url)
    sys.stdin.readline()
"""
CLIENT = """
with fs.open(path, Total, durability="fast") as db:
    for number in range(int(sys.argv[4]), int(sys.argv[4]) + 1_000):
        write_one(db, name, number)
        say(number)
        try:
            db.sync(sys.argv[3])
        except fs.SyncError:
            sys.exit(3)
"""


def write_one(db, name, number):
    """A transaction of a record and a counter that must agree."""
    with db.write() as tx:
        tx.create("notes", scope="job/7", key=f"{name}-{number}", text="x" * 50)
        total = tx.get(Total, "all", scope="job/7")
        total.count += 1
        total.last = name


def create_total(path):
    with fs.open(path, Total, durability="fast") as db, db.write() as tx:
        tx.create(Total, scope="job/7", key="all")


@contextmanager
def process(code, *arguments):
    """A child that runs some code; killed in the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def said(child, least):
    """What a child has said before it ends, killed a moment after it has said so many things."""
    lines = list(islice(child.stdout, least))
    time.sleep(random.random() / 100)
    child.send_signal(signal.SIGKILL)
    return [int(line) for line in [*lines, *child.stdout] if line.endswith("\n") and line[:1].isdigit()]


def check_total(db):
    """All follows from the cells, and each transaction is there whole."""
    assert audit(db.replica.store) == []
    notes = {note.key for note in db["notes"]}
    assert db[Total].get("all").count == len(notes)
    return notes


# --- processes ---


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    path = tmp_path / "a.db"
    create_total(path)
    acknowledged, first = set(), 0
    for run in range(8):
        with process(WRITER, "w", path, first, first + 100_000) as child:
            child.stdout.readline()
            child.stdin.write("\n")
            child.stdin.flush()
            numbers = said(child, random.randrange(1, 40))
        acknowledged |= {f"w-{number}" for number in numbers}
        with fs.open(path, Total, durability="fast") as db:
            notes = check_total(db)
            assert acknowledged <= notes
            assert len(notes - acknowledged) <= run + 1  # committed, and killed before it could say so
            first = len(notes)


def test_kill_9_in_the_middle_of_a_sync(tmp_path):
    hub, device = tmp_path / "hub.db", tmp_path / "device.db"
    create_total(device)
    with fs.open(device, Total, durability="fast") as db:
        db.load("notes", [{"n": n} for n in range(300)], key="x-{n}", scope="job/8")
    acknowledged = set()
    for run in range(6):
        with process(SERVER, "hub", hub) as server:
            url = server.stdout.readline().strip()
            with process(CLIENT, "d", device, url, len(acknowledged)) as client:
                if run % 2:
                    numbers = said(client, random.randrange(1, 8))
                else:
                    numbers = [int(client.stdout.readline())]
                    time.sleep(random.random() / 20)
                    server.kill()
                    numbers += [int(line) for line in client.stdout]
                    assert client.wait() == 3
        with fs.open(device, Total, durability="fast") as db, fs.open(hub, hub=True, durability="fast") as other:
            assert audit(other.replica.store) == []
            notes = {note.key for note in db["notes"].where(scope="job/7")}
            assert acknowledged | {f"d-{number}" for number in numbers} <= notes
            db.sync(other)
            assert state(db.replica) == state(other.replica)
            acknowledged = notes
            assert len(acknowledged) == db[Total].get("all").count
            assert audit(db.replica.store) == []


def test_two_processes_write_one_file(tmp_path):
    path, count = tmp_path / "a.db", 150
    create_total(path)
    with process(WRITER, "one", path, 0, count) as one, process(WRITER, "two", path, 0, count) as two:
        for child in (one, two):
            child.stdout.readline()
        for child in (one, two):
            child.stdin.write("\n")
            child.stdin.flush()
        for child in (one, two):
            assert [int(line) for line in child.stdout] == list(range(count))
            assert child.wait() == 0
    with fs.open(path, Total, durability="fast") as db:
        assert check_total(db) == {f"{name}-{number}" for name in ("one", "two") for number in range(count)}
        with db.replica.store.reading() as reader:
            scope = reader.scope("job/7")
            assert scope.seq == 2 * count + 1
            assert [interval[1:] for interval in reader.context(scope.id).intervals()] == [(1, 2 * count + 1)]


def test_a_fork_is_told_to_open_again(tmp_path):
    code = """
import os
db = fs.open(path, Total)
with db.write() as tx:
    tx.create("notes", scope="s", key="before")
child = os.fork()
if child == 0:
    refused = 0
    for use in (lambda: db.write().__enter__(), lambda: db["notes"].get("before"), lambda: db.sql("select 1"),
                lambda: db.enter("t"), db.scopes):
        try:
            use()
        except fs.ClosedError as error:
            refused += "fork" in str(error)
    db.close()
    with fs.open(path, Total) as own, own.write() as tx:
        tx.create("notes", scope="s", key="child")
    os._exit(refused)
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with db.write() as tx:
    tx.create("notes", scope="s", key="after")
say(sorted(note.key for note in db["notes"]))
"""
    with process(code, "x", tmp_path / "a.db") as child:
        assert child.stdout.read().splitlines() == ["5", "['after', 'before', 'child']"]


# --- threads ---


def test_many_threads_share_a_database(tmp_path):
    create_total(tmp_path / "a.db")
    failed = []
    with fs.open(tmp_path / "a.db", Total, durability="fast") as db:

        def work(name):
            try:
                for number in range(20):
                    write_one(db, name, number)
                    assert db["notes"].get(f"{name}-{number}").text
                    (seen,) = db.sql("select (select count from totals), (select count(*) from notes)")
                    assert seen[0] == seen[1]  # of one moment
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(check_total(db)) == 160
    with pytest.raises(ClosedError), db.write():
        pass


# --- the disk ---


def limit_pages(db, count):
    """The size at which the disk is full, in pages more than are used now; SQLite says the same as for a real one."""
    writer = db.replica.store._writer
    used = writer.execute("PRAGMA page_count").get
    writer.execute(f"PRAGMA max_page_count={used + count if count is not None else 1 << 30}")


def write_much(db):
    """More than fits a few pages, with a new collection and a new scope among it."""
    with db.write() as tx:
        tx.get(Total, "all").count += 1
        tx.create("others", scope="t", key="new collection and scope", text="x")
        for number in range(100):
            tx.create("notes", scope="s", key=str(number), text="x" * 1_000)


def test_a_full_disk_undoes_a_transaction_whole(tmp_path):
    with fs.open(tmp_path / "a.db", Total) as db:
        with db.write() as tx:
            tx.create(Total, scope="s", key="all")
        before = state(db.replica)
        limit_pages(db, 2)
        with pytest.raises(DiskFull):
            write_much(db)
        assert state(db.replica) == before
        with pytest.raises(DiskFull):
            db.load("notes", [{"text": "x" * 1_000}] * 100, key=lambda row: os.urandom(5).hex(), scope=lambda row: "s")
        assert state(db.replica) == before
        assert db[Total].get("all").count == 0
        with db.write() as tx:
            tx.get(Total, "all").count += 1
        limit_pages(db, None)
        with db.write() as tx:
            tx.create("others", scope="t", key="room again", text="x" * 10_000)
        assert audit(db.replica.store) == []
        with db.replica.store.reading() as reader:
            assert reader.scope("s").seq == 2


def test_a_full_disk_in_a_sync_costs_nothing_that_landed(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_TARGET", 40)
    with fs.open(tmp_path / "a.db") as db, fs.open(tmp_path / "b.db") as other:
        for number in range(20):
            with db.write() as tx:
                for part in range(20):
                    tx.create("notes", scope="s", key=f"{number}-{part}", text="x" * 200)
        other.enter("s")
        limit_pages(other, 12)
        with pytest.raises(DiskFull):
            other.sync(db)
        landed = len(list(other["notes"]))
        assert 0 < landed < 400
        assert landed % 20 == 0
        for one in (db, other):
            assert not one.replica.store._lent
            assert audit(one.replica.store) == []
        limit_pages(other, None)
        report = other.sync(db)
        assert report.changes_received == (400 - landed) // 20
        assert state(db.replica) == state(other.replica)


def test_a_file_of_a_newer_format_is_refused_untouched(tmp_path):
    path = tmp_path / "a.db"
    fs.open(path).close()
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version={FORMAT + 41}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(FormatTooNew, match=f"{FORMAT + 41}.*{FORMAT}"):
        fs.open(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]
    assert path.read_bytes() == before


def sqlite_file(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: sqlite_file(path, "CREATE TABLE theirs(a)"),
        lambda path: sqlite_file(path, "PRAGMA application_id=7"),
        lambda path: path.write_bytes(b"a few words"),
        lambda path: path.write_bytes(random.Random(1).randbytes(20_000)),
    ],
    ids=["another app's tables", "another app's file", "text", "garbage"],
)
def test_files_of_others_are_refused_untouched(tmp_path, make):
    path = tmp_path / "theirs"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="Fieldsync"):
        fs.open(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]
    assert path.read_bytes() == before
