"""Copied, restored and moved files: recognised when they are opened; nothing is lost, and all converge."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from tests.simulation.audit import audit
from tests.talking import state

import fieldsync as fs
from fieldsync import copies
from fieldsync.syncing.memory import join

SIDES = ("", "-wal", "-shm")


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "state" / "notes"


@pytest.fixture
def start(notes):
    """Opens files with notes of their own, and closes what a test leaves open."""
    opened = []

    def start(path):
        opened.append(fs.open(path, durability="fast", notes=notes))
        return opened[-1]

    yield start
    for db in opened:
        db.close()


def put(db, *keys, scope="s"):
    for key in keys:
        with db.write() as tx:
            tx.create("notes", scope=scope, key=key, text=f"of {key}")


def keys(db):
    return {note.key for note in db["notes"]}


def author(db, scope="s"):
    """The own author of a scope, and its last number."""
    with db.replica.store.reading() as reader:
        held = reader.scope(scope)
        return reader.dictionary.author(held.author) if held.author else None, held.seq


def copy(path, to):
    """All of a file, as it stands on the disk."""
    for side in SIDES:
        Path(f"{to}{side}").unlink(missing_ok=True)
        if Path(f"{path}{side}").exists():
            shutil.copy(f"{path}{side}", f"{to}{side}")


def check_together(*dbs):
    """All write, all sync in pairs, and all hold what any of them held."""
    for number, db in enumerate(dbs):
        db.enter("s")
        put(db, f"last-{number}-{os.urandom(4).hex()}")
    expected = set().union(*map(keys, dbs))
    for _ in range(2):
        for one, other in combinations(dbs, 2):
            join(one.replica, other.replica)
    assert [keys(db) for db in dbs] == [expected] * len(dbs)
    assert len({str(state(db.replica)["s"]) for db in dbs}) == 1
    assert [audit(db.replica.store) for db in dbs] == [[]] * len(dbs)
    assert len({db.replica.id for db in dbs}) == len(dbs)


def test_a_file_opened_again_goes_on_under_its_names(start, tmp_path):
    names = set()
    for number in range(4):
        with start(tmp_path / "a.db") as db:
            put(db, f"k{number}")
            names.add((db.replica.id, author(db)[0]))
    assert len(names) == 1
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    with start(tmp_path / "link.db") as db:
        assert (db.replica.id, author(db)[0]) in names


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_copy_gets_names_of_its_own(start, tmp_path, is_open):
    one = start(tmp_path / "a.db")
    put(one, "k1", "k2")
    if not is_open:
        one.close()
    copy(tmp_path / "a.db", tmp_path / "b.db")
    if not is_open:
        one = start(tmp_path / "a.db")
    other = start(tmp_path / "b.db")
    assert author(one)[1] == 2
    assert author(other) == (None, 0)
    third = start(tmp_path / "c.db")
    check_together(one, other, third)


def test_an_older_backup_is_recognised(start, tmp_path):
    path, hub = tmp_path / "a.db", start(tmp_path / "hub.db")
    hub.enter("s")
    with start(path) as db:
        put(db, "k1", "k2")
        copy(path, tmp_path / "backup.db")
    with start(path) as db:
        put(db, "k3", "k4")
        join(db.replica, hub.replica)
    copy(tmp_path / "backup.db", path)
    db = start(path)
    assert author(db) == (None, 0)
    assert keys(db) == {"k1", "k2"}
    check_together(db, hub)
    assert {"k1", "k2", "k3", "k4"} <= keys(db)


def test_a_backup_of_the_same_opening_is_recognised(start, tmp_path):
    path, hub = tmp_path / "a.db", start(tmp_path / "hub.db")
    hub.enter("s")
    db = start(path)
    put(db, "k1")
    copy(path, tmp_path / "backup.db")
    put(db, "k2", "k3")
    join(db.replica, hub.replica)
    db.close()
    copy(tmp_path / "backup.db", path)
    db = start(path)
    assert author(db) == (None, 0)
    check_together(db, hub)
    assert {"k1", "k2", "k3"} <= keys(db)


def test_a_backup_after_which_nothing_was_written_goes_on(start, tmp_path):
    with start(tmp_path / "a.db") as db:
        put(db, "k1")
        before = db.replica.id, author(db)
    copy(tmp_path / "a.db", tmp_path / "backup.db")
    copy(tmp_path / "backup.db", tmp_path / "a.db")
    db = start(tmp_path / "a.db")
    assert (db.replica.id, author(db)) == before


def test_moved_and_exchanged_files(start, tmp_path):
    for name in "ab":
        with start(tmp_path / f"{name}.db") as db:
            put(db, name)
    (tmp_path / "a.db").rename(tmp_path / "c.db")
    (tmp_path / "b.db").rename(tmp_path / "a.db")
    one, other = start(tmp_path / "c.db"), start(tmp_path / "a.db")
    assert author(one) == author(other) == (None, 0)
    put(start(tmp_path / "b.db"), "new where another was")
    check_together(one, other, start(tmp_path / "d.db"))


def test_a_file_used_elsewhere_and_brought_back(start, tmp_path):
    path, away = tmp_path / "a.db", tmp_path / "stick.db"
    with start(path) as db:
        put(db, "k1")
    copy(path, away)
    with start(away) as db:
        put(db, "k2")
    copy(away, path)
    one, other = start(path), start(away)
    assert author(one) == (None, 0)
    assert author(other)[1] == 1
    check_together(one, other)


def test_a_lost_or_damaged_note_costs_a_new_author(start, tmp_path, notes):
    path = tmp_path / "a.db"
    names = set()
    for number, damage in enumerate(
        [Path.unlink, lambda note: note.write_bytes(b""), lambda note: os.truncate(note, 9)]
    ):
        with start(path) as db:
            put(db, f"k{number}")
            names.add(author(db)[0])
        (note,) = notes.iterdir()
        damage(note)
    db = start(path)
    assert author(db) == (None, 0)
    assert len(names) == 3
    check_together(db, start(tmp_path / "b.db"))


def test_a_home_where_nothing_can_be_kept(start, tmp_path, notes, monkeypatch):
    notes.parent.mkdir()
    notes.write_text("a file where the folder should be")
    names = set()
    for number in range(2):
        with start(tmp_path / "a.db") as db:
            put(db, f"k{number}")
            names.add(author(db)[0])
    assert len(names) == 2
    check_together(start(tmp_path / "a.db"), start(tmp_path / "b.db"))
    monkeypatch.setattr(copies, "default_folder", lambda: None)
    with fs.open(tmp_path / "a.db") as db:
        assert author(db) == (None, 0)


def test_a_note_that_cannot_be_written_is_not_believed_later(start, tmp_path, monkeypatch):
    with start(tmp_path / "a.db") as db:
        put(db, "k1")
        with monkeypatch.context() as patch:
            patch.setattr(copies.Note, "_put", lambda *_: (_ for _ in ()).throw(OSError("no room")))
            put(db, "k2")
        put(db, "k3")
    db = start(tmp_path / "a.db")
    assert author(db) == (None, 0)
    assert keys(db) == {"k1", "k2", "k3"}


def test_notes_are_private_and_few(start, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(copies, "NOTES_MAX", 5)
    for number in range(9):
        start(tmp_path / f"{number}.db").close()
        for note in notes.iterdir():
            os.utime(note, (note.stat().st_mtime - 10,) * 2)  # older than the next
    assert len(list(notes.iterdir())) == 5
    if os.name == "posix":
        assert notes.stat().st_mode & 0o777 == 0o700
        assert {note.stat().st_mode & 0o777 for note in notes.iterdir()} == {0o600}
    with start(tmp_path / "8.db") as db:
        put(db, "k")
    assert author(start(tmp_path / "8.db"))[1] == 1


def test_where_notes_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert copies.default_folder() == tmp_path / "fieldsync"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(sys, "platform", "linux")
        assert copies.default_folder() == tmp_path / "home" / ".local" / "state" / "fieldsync"
        monkeypatch.setattr(sys, "platform", "darwin")
        assert copies.default_folder() == tmp_path / "home" / "Library" / "Application Support" / "fieldsync"
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
        assert copies.default_folder() == tmp_path / "local" / "fieldsync"


# --- processes ---


def test_several_openings_at_once_share_their_names(start, tmp_path):
    path = tmp_path / "a.db"
    dbs = [start(path) for _ in range(3)]
    for number, db in enumerate(dbs * 2):
        put(db, f"k{number}")
    code = "import sys, fieldsync as fs\nwith fs.open(sys.argv[1], notes=sys.argv[2]) as db, db.write() as tx:\n"
    code += "    tx.create('notes', scope='s', key='child')"
    subprocess.run([sys.executable, "-c", code, path, tmp_path / "state" / "notes"], check=True)
    put(dbs[0], "after")
    dbs.append(start(path))
    assert len({author(db) for db in dbs}) == 1
    assert author(dbs[0])[1] == 8
    for db in dbs:
        db.close()
    assert author(start(path))[1] == 8


CRASH = """
import os, signal, sys
import fieldsync as fs
from fieldsync import copies
from fieldsync.sqlite import SQLiteWriter

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

path, notes, where = sys.argv[1:]
if where == "before a new name is noted":
    copies.Note.begin = die
elif where == "after a new name was noted":
    SQLiteWriter.commit = die
db = fs.open(path, notes=notes)
with db.write() as tx:
    tx.create("notes", scope="s", key="known")
if where == "before an own change":
    SQLiteWriter.commit = die
elif where == "after an own change":
    SQLiteWriter.commit = lambda writer, commit=SQLiteWriter.commit: (commit(writer), die())
elif where == "within the note":
    copies.Note._put = die
with db.write() as tx:
    tx.create("notes", scope="s", key="crash")
die()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize(
    ("where", "goes_on"),
    [
        ("before a new name is noted", False),
        ("after a new name was noted", False),
        ("within the note", True),
        ("before an own change", False),
        ("after an own change", True),
        ("in the middle of nothing", True),
    ],
)
def test_kill_9_at_any_point_costs_a_new_author_at_most(start, tmp_path, notes, where, goes_on):
    path, hub = tmp_path / "a.db", start(tmp_path / "hub.db")
    hub.enter("s")
    with start(path) as db:
        put(db, "k1")
        before = author(db)[0]
        join(db.replica, hub.replica)
    if "new name" in where:
        path = path.rename(tmp_path / "moved.db")
    done = subprocess.run([sys.executable, "-c", CRASH, path, notes, where], check=False)
    assert done.returncode == -signal.SIGKILL
    db = start(path)
    assert author(db)[0] == (before if goes_on else None)
    assert "k1" in keys(db)
    check_together(db, hub)


# --- anything, in any order ---


@pytest.mark.parametrize("seed", range(12))
def test_files_that_are_copied_restored_and_moved_at_random(start, tmp_path, seed):
    chance = random.Random(seed)
    paths = [tmp_path / f"{number}.db" for number in range(3)]
    dbs = {path: start(path) for path in paths}
    kept = []  # backups
    for step in range(60):
        path = chance.choice(paths)
        match chance.choice(
            ["write", "write", "write", "reopen", "back up", "restore", "copy", "swap", "sync", "sync"]
        ):
            case "write":
                put(dbs[path], f"{path.stem}-{step}")
            case "reopen":
                dbs[path].close()
                dbs[path] = start(path)
            case "back up":
                kept.append(tmp_path / f"backup-{step}.db")
                copy(path, kept[-1])
            case "restore" if kept:
                dbs[path].close()
                copy(chance.choice(kept), path)
                dbs[path] = start(path)
            case "copy":
                other = chance.choice([one for one in paths if one != path])
                dbs[other].close()
                copy(path, other)
                dbs[other] = start(other)
            case "swap":
                other = chance.choice([one for one in paths if one != path])
                for one in (path, other):
                    dbs[one].close()
                for one, to in ((path, tmp_path / "spare"), (other, path), (tmp_path / "spare", other)):
                    one.rename(to)
                for one in (path, other):
                    dbs[one] = start(one)
            case "sync":
                other = chance.choice([one for one in paths if one != path])
                for one in (path, other):
                    dbs[one].enter("s")
                join(dbs[path].replica, dbs[other].replica)
    check_together(*dbs.values())
