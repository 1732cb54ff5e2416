"""Leaving a scope with an escrow, and a hub that forgets old removals by itself."""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

import apsw
import pytest
from tests.talking import Talk

import fieldsync as fs
from fieldsync.bundles import bundle
from fieldsync.database import Database
from fieldsync.errors import NotDelivered
from fieldsync.leaving import pending
from fieldsync.limits import REMOVALS_KEPT_MS, TRIM_PAUSE_MS
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore

SCOPE = "job/7"
STREAM = 3


@pytest.fixture
def db(tmp_path, hub):
    """A device with a change that the hub has, and two that it has not."""
    with fs.open(tmp_path / "a.db", durability="fast") as db:
        put(db, "o-1", "o-2")
        db.sync(hub)
        put(db, "o-3")
        with db.write() as tx:
            tx.delete("orders", "o-1")
        yield db


def put(db, *keys, scope=SCOPE):
    with db.write() as tx:
        for key in keys:
            tx.create("orders", scope=scope, key=key, text="x")


def keys(db):
    return sorted(order.key for order in db["orders"])


def test_an_escrow_has_what_no_hub_has(db, hub, tmp_path):
    path = tmp_path / "left.bundle"
    with pytest.raises(fs.NotDelivered):
        db.leave(SCOPE)
    told = []
    report = db.leave(SCOPE, escrow=path, progress=lambda report: told.append(report.bytes))
    assert (report.changes, report.scopes, db.scopes()) == (2, [SCOPE], [])
    assert report.bytes == path.stat().st_size
    assert told == sorted(told)
    assert keys(hub) == ["o-1", "o-2"]
    assert hub.import_bundle(path).scopes == [SCOPE]
    assert keys(hub) == ["o-2", "o-3"]


def test_an_escrow_of_what_a_hub_has_is_empty(db, hub, tmp_path):
    db.sync(hub)
    assert db.leave(SCOPE, escrow=tmp_path / "left.bundle").changes == 0
    assert db.scopes() == []


@pytest.mark.parametrize("trimmed", [False, True])
def test_a_whole_escrow_brings_the_scope_back_and_a_sync_just_what_changed(db, hub, tmp_path, trimmed):
    with hub.write() as tx:
        for key in [f"n-{number}" for number in range(500)]:
            tx.create("notes", scope=SCOPE, key=key, text=blake2b(key.encode(), digest_size=10).hexdigest())
    first = db.sync(hub)
    report = db.leave(SCOPE, escrow=tmp_path / "whole.bundle", whole=True)
    assert report.bytes > 3_000
    assert not db.scopes()
    with hub.write() as tx:
        tx.delete("notes", "n-0", scope=SCOPE)
        tx.update("notes", "n-1", scope=SCOPE, text="changed")
    if trimmed:
        assert hub.trim(older_than=timedelta(0), keep=0)
    db.import_bundle(tmp_path / "whole.bundle")
    assert db["notes"].get("n-0")
    with db.write() as tx:
        tx.update("notes", "n-2", scope=SCOPE, text="after it came back")
    again = db.sync(hub)
    assert again.bytes_received < first.bytes_received / 5
    assert (db["notes"].get("n-0"), db["notes"].get("n-1").text) == (None, "changed")
    assert hub["notes"].get("n-2").text == "after it came back"
    assert {scope.digest for database in (db, hub) for scope in database.scopes() if scope.name == SCOPE} == {
        db.scopes()[0].digest
    }


def test_whole_is_about_an_escrow(db):
    with pytest.raises(ValueError, match="name its file"):
        db.leave(SCOPE, whole=True)


def test_an_escrow_replaces_no_file(db, tmp_path):
    path = tmp_path / "left.bundle"
    path.write_text("of another scope")
    with pytest.raises(FileExistsError, match="is there already"):
        db.leave(SCOPE, escrow=path)
    assert (path.read_text(), keys(db)) == ("of another scope", ["o-2", "o-3"])


@pytest.mark.parametrize("place", ["no/where.bundle", "left.bundle"])
def test_without_an_escrow_nothing_is_left(db, tmp_path, monkeypatch, place):
    """Where the bundle cannot be written to its end."""

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr("fieldsync.files.os.fsync", fail)
    with pytest.raises(OSError, match=r"no room|No such file"):
        db.leave(SCOPE, escrow=tmp_path / place)
    assert keys(db) == ["o-2", "o-3"]
    assert not list(tmp_path.glob("left*"))
    with pytest.raises(fs.NotDelivered):
        db.leave(SCOPE)


def test_scopes_go_together_or_not_at_all(db, hub, tmp_path):
    put(db, "p-1", scope="job/8")
    with pytest.raises(fs.NotFound, match="'job/9' is not held here"):
        db.leave(SCOPE, "job/9", escrow=tmp_path / "none.bundle")
    assert not (tmp_path / "none.bundle").exists()
    report = db.leave(SCOPE, "job/8", escrow=tmp_path / "left.bundle")
    assert (report.changes, report.scopes, db.scopes()) == (3, [SCOPE, "job/8"], [])
    hub.import_bundle(tmp_path / "left.bundle")
    assert keys(hub) == ["o-2", "o-3", "p-1"]


def test_what_is_written_meanwhile_is_not_lost(db, tmp_path, monkeypatch):
    write = bundle.write

    def slow(*arguments):
        report = write(*arguments)
        put(db, f"late {len(keys(db))}")
        return report

    monkeypatch.setattr(bundle, "write", slow)
    with pytest.raises(fs.NotDelivered, match="holds 1 changes"):
        db.leave(SCOPE, escrow=tmp_path / "first.bundle")
    assert keys(db) == ["late 2", "o-2", "o-3"]
    with db.replica.store.reading() as reader:  # what is only in a file is at no hub
        assert pending(reader, reader.scope(SCOPE)).count() == 3
    db.leave(SCOPE, escrow=tmp_path / "second.bundle", lose_pending=True)
    assert db.scopes() == []


# A hub forgets by itself ----------------------------------------------------------------------------------------------

START_MS = 1_700_000_000_000


class Clock:
    def __init__(self):
        self.now_ms = START_MS

    def __call__(self):
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(tmp_path, clock):
    """Opens databases on the clock, each with one deleted record."""
    opened = []

    def open_(name, *, hub):
        store = SQLiteStore(tmp_path / f"{name}.db", full=False)
        opened.append(Database(Replica(store, takes_all=hub, wall_ms=clock)))
        put(opened[-1], "o-1", "o-2")
        with opened[-1].write() as tx:
            tx.delete("orders", "o-1")
        return opened[-1]

    yield open_
    for db in opened:
        db.close()


def removals(db):
    with db.replica.store.reading() as reader:
        return len(reader.removing(reader.scope(SCOPE).id))


def test_a_hub_forgets_old_removals(timed, clock):
    hub = timed("hub", hub=True)
    assert (hub.replica.tidy(), removals(hub)) == (0, 1)
    clock.now_ms += REMOVALS_KEPT_MS + 1
    assert (hub.replica.tidy(), removals(hub)) == (1, 0)


def test_a_hub_keeps_so_many_removals(timed, monkeypatch):
    hub = timed("hub", hub=True)
    put(hub, "o-3")
    with hub.write() as tx:
        tx.delete("orders", "o-3")
    monkeypatch.setattr("fieldsync.replica.REMOVALS_KEPT_MAX", 1)
    assert (hub.replica.tidy(), removals(hub)) == (1, 1)


def test_a_hub_forgets_now_and_then(timed, clock):
    hub = timed("hub", hub=True)
    clock.now_ms += REMOVALS_KEPT_MS - 1_000
    assert hub.replica.tidy() == 0
    clock.now_ms += TRIM_PAUSE_MS - 1
    assert (hub.replica.tidy(), removals(hub)) == (0, 1)
    clock.now_ms += 1
    assert (hub.replica.tidy(), removals(hub)) == (1, 0)


def test_a_clock_that_was_ahead_does_not_stop_a_hub(timed, clock):
    hub = timed("hub", hub=True)
    clock.now_ms += 10 * REMOVALS_KEPT_MS
    with hub.replica.store.writing() as writer:
        writer.set_meta("tidied", clock.now_ms + 1)
    assert hub.replica.tidy() == 1


def test_only_a_hub_forgets_by_itself(timed, clock):
    db = timed("a", hub=False)
    clock.now_ms += 2 * REMOVALS_KEPT_MS
    assert (db.replica.tidy(), removals(db)) == (0, 1)


def test_what_a_repair_left_is_not_erased_before_a_hub_has_it(hub, tmp_path):
    """Of a change that lost a record, the other record is still here: provisional, and nobody else's."""
    with fs.open(tmp_path / "b.db", durability="fast") as db:
        put(db, "lost", "sound")
    with apsw.Connection(str(tmp_path / "b.db")) as file:
        file.execute("UPDATE fs_record_1 SET _cells=CAST(x'ff'||substr(_cells,2) AS BLOB) WHERE _key='lost'")
    with fs.open(tmp_path / "b.db", durability="fast") as db:
        assert db.verify(repair=True).fetching == {SCOPE: 1}
        assert keys(db) == ["sound"]
        with pytest.raises(NotDelivered):
            db.leave(SCOPE)
        db.leave(SCOPE, escrow=tmp_path / "left.bundle")
    hub.import_bundle(tmp_path / "left.bundle")
    assert keys(hub) == ["sound"]


def test_what_a_hub_has_by_way_of_others_waits_for_nobody(hub, tmp_path):
    """A peer brings what the hub brings, and takes the scope over: what both end with is delivered all the same."""
    with (
        fs.open(tmp_path / "a.db", durability="fast") as ada,
        fs.open(tmp_path / "b.db", durability="fast") as ben,
    ):
        put(ben, "b")
        ben.sync(hub)
        put(ada, "a")

        def meet_ben_first(side, frame):
            if frame[0] == STREAM and side is talk.sides[0] and not ada["orders"].get("b"):
                with fs.open(ada.path, durability="fast") as beside:  # as another process, which knows of no session
                    beside.sync(ben)
            side.receive(frame)

        talk = Talk.between(ada.replica, hub.replica)
        report = talk.run(deliver=meet_ben_first).sides[0].report
        assert (report.superseded, report.apart) == ([SCOPE], [])
        assert [held.pending for held in ada.scopes()] == [0]
