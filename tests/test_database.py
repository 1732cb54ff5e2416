"""The public face, as the developer of an app meets it: a file opened and closed, synced, and shared by threads."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from functools import partial

import pytest
from tests.orders import Order, Renamed, fill, held, in_threads

import fieldsync as fs

# --- opening and closing ---


def test_a_database_opens_with_and_without_declarations(path):
    with fs.open(path) as db:
        assert db.path == str(path)
        with db.write() as tx:
            tx.create("notes", scope="job/7", key="n1", text="as you like", size=1)
    with fs.open(str(path), Order) as db:
        fill(db, a="Acme")
        note = db["notes"].get("n1")
        assert isinstance(note, fs.Snapshot)
        assert (note.text, note["size"], note.key, note.scope) == ("as you like", 1, "n1", "job/7")
        assert db["orders"].get("a") == db[Order].get("a")
        assert isinstance(db["orders"].get("a"), Order)


def test_a_database_stays_where_it_was_opened(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    with fs.open(there / "field.db", Order) as other:
        fill(other, b="Bolt")
    monkeypatch.chdir(here)
    with fs.open("field.db", Order, durability="fast") as db:
        fill(db, a="Acme")
        monkeypatch.chdir(there)
        with db.replica.store.reading(), db.replica.store.reading():  # two connections, and the next one is a third
            assert [one.key for one in db[Order].where().all()] == ["a"]
        synced = []
        monkeypatch.setattr("fieldsync.sqlite.store.os.fsync", lambda number: synced.append(os.fstat(number).st_ino))
        db.replica.before_leaving()
        assert synced == [(here / "field.db-wal").stat().st_ino]


def test_a_link_to_a_database_is_the_database(path, tmp_path, monkeypatch):
    """SQLite's log lies beside the file, and not beside the link."""
    synced = []
    (tmp_path / "link.db").symlink_to(path)
    with fs.open(tmp_path / "link.db", Order, durability="fast") as db:
        fill(db, a="Acme")
        monkeypatch.setattr("fieldsync.sqlite.store.os.fsync", lambda number: synced.append(os.fstat(number).st_ino))
        db.replica.before_leaving()
        assert synced == [path.with_name(path.name + "-wal").stat().st_ino]
    with fs.open(path, Order) as db:
        assert db[Order].get("a") is not None


def test_what_cannot_be_opened_says_why(path, tmp_path):
    path.write_text("no database" * 1000)
    with pytest.raises(fs.StoreError, match="is not a Fieldsync file"):
        fs.open(path)
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE t(x)")
    foreign.close()
    with pytest.raises(fs.StoreError, match="not a Fieldsync one"):
        fs.open(tmp_path / "foreign.db")
    with pytest.raises(fs.StoreError, match="cannot be opened"):
        fs.open(tmp_path / "nowhere" / "field.db")
    for name in ("", ":memory:"):
        with pytest.raises(ValueError, match="a database is a file"):
            fs.open(name)
    with pytest.raises(ValueError, match='"full" or "fast", not \'slow\''):
        fs.open(tmp_path / "new.db", durability="slow")
    with pytest.raises(fs.SchemaError, match="two classes declare the collection 'orders'"):
        fs.open(tmp_path / "new.db", Order, Renamed)


def test_only_declared_classes_are_known(db):
    with pytest.raises(fs.SchemaError, match=r"Renamed was not given to fieldsync\.open"):
        db[Renamed]
    with db.write() as tx, pytest.raises(fs.SchemaError, match="was not given"):
        tx.create(Renamed, scope="s")
    for wrong in (int, fs.Record, None):
        with pytest.raises(fs.SchemaError):
            db[wrong]


def test_use_after_close_is_refused(db, other):
    fill(db, a="Acme")
    table, query = db[Order], db[Order].where(status="open")
    db.close()
    db.close()
    uses = [
        lambda: table.get("a"),
        query.all,
        query.count,
        lambda: query.watch(print),
        lambda: db.sql("SELECT 1"),
        db.scopes,
        lambda: db.enter("s"),
        lambda: db.load(Order, [{"customer": "x"}], key=lambda _: "k", scope=lambda _: "s"),
        lambda: db.sync(other),
        lambda: other.sync(db),
        lambda: db.write().__enter__(),
    ]
    for use in uses:
        with pytest.raises(fs.ClosedError, match="was closed"):
            use()


def test_a_forked_child_has_to_open_the_file_itself(path):
    code = """
import os, sys, fieldsync
with fieldsync.open(sys.argv[1]) as db:
    child = os.fork()
    if not child:
        try:
            db.scopes()
        except fieldsync.ClosedError as error:
            os._exit(0 if "before a fork" in str(error) else 1)
        os._exit(2)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=False).returncode == 0


def test_durability_is_full_unless_told(path):
    for options, level in (({}, 2), ({"durability": "full"}, 2), ({"durability": "fast"}, 1)):
        with fs.open(path, **options) as db, db.replica.store.writing() as writer:
            assert writer._db.execute("PRAGMA synchronous").get == level


def test_a_hub_takes_every_scope_and_stays_one(path, db, tmp_path):
    fill(db, "job/1", a="Acme")
    fill(db, "job/2", b="Bolt")
    fs.open(tmp_path / "hub.db", hub=True).close()
    with fs.open(tmp_path / "hub.db") as hub:
        report = db.sync(hub)
        assert (report.refused, report.scopes) == ([], ["job/1", "job/2"])
        assert [scope.name for scope in hub.scopes()] == ["job/1", "job/2"]


# --- syncing in one process ---


def test_a_sync_reports_what_it_did(db, other):
    fill(db, a="Acme", b="Bolt")
    fill(db, "job/8", c="Corn")
    other.enter("job/7")
    report = other.sync(db)
    assert (report.changes_received, report.changes_sent, report.records_changed) == (1, 0, 2)
    assert (report.scopes, report.refused, report.round_trips) == (["job/7"], [], 2)
    assert report.bytes_received > report.bytes_sent > 0
    told = []
    again = other.sync(db, progress=lambda report: told.append(report.bytes_received))
    assert told == [again.bytes_received]
    assert (again.changes_received, again.records_changed, again.round_trips) == (0, 0, 1)
    assert db.sync(other).refused == ["job/8"]


def test_a_sync_of_some_scopes_leaves_the_others_alone(db, other):
    fill(db, "job/1", a="Acme")
    fill(db, "job/2", b="Bolt")
    other.enter("job/1", "job/2")
    assert other.sync(db, scopes=["job/2"]).scopes == ["job/2"]
    assert held(other) == {("job/2", "b")}
    assert {scope.name: scope.state for scope in other.scopes()} == {"job/1": "filling", "job/2": "ready"}


def test_a_sync_with_nobody_or_of_nothing_is_refused(db, other):
    fill(db, a="Acme")
    with pytest.raises(fs.NotFound, match=r"the scope 'job/8' is not held here; db\.enter"):
        db.sync(other, scopes=["job/7", "job/8"])
    with pytest.raises(TypeError, match="a list of names, not one name"):
        db.sync(other, scopes="job/7")
    for peer in (None, 5, b"ws://127.0.0.1"):
        with pytest.raises(TypeError, match="a peer is a Database or an address"):
            db.sync(peer)
    assert other.scopes() == []


def test_what_is_deleted_stays_deleted_and_concurrent_edits_do_not_revive_it(db, other):
    fill(db, a="Acme")
    other.enter("job/7")
    other.sync(db)
    with db.write() as tx:
        tx.delete(Order, "a")
    with other.write() as tx:
        tx.update(Order, "a", customer="late")
    for one, another in ((db, other), (other, db)):
        one.sync(another)
        assert held(db) == set()
    assert db.scopes() == other.scopes()


# --- threads ---


def test_threads_share_a_database(db):
    fill(db, a="Acme")
    errors = []

    def work(name):
        try:
            for number in range(50):
                with db.write() as tx:
                    tx.get(Order, "a").hours += 1
                    tx.create(Order, scope=f"job/{name}", key=f"{name}-{number}", customer=name)
                assert db[Order].get(f"{name}-{number}").customer == name
        except BaseException as error:
            errors.append(error)

    in_threads(*(partial(work, str(name)) for name in range(8)))
    assert errors == []
    assert db[Order].get("a").hours == 400
    assert db[Order].count() == 401
    assert sum(scope.changes for scope in db.scopes()) >= 8 * 50


def test_two_databases_of_one_file_write_in_turns(path, db):
    fill(db, a="Acme")
    with fs.open(path, Order, durability="fast") as second:

        def work(database):
            for _ in range(50):
                with database.write() as tx:
                    tx.get(Order, "a").hours += 1

        in_threads(partial(work, db), partial(work, second))
        assert db[Order].get("a").hours == second[Order].get("a").hours == 100
