"""Looking for damage and mending it: what is wrong is found and named, mended, and fetched back from a peer."""

from __future__ import annotations

import queue
import random
from pathlib import Path

import apsw
import pytest
from tests.simulation import schedule
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Order, hands, make_files, state

import fieldsync as fs
from fieldsync import examine, verify
from fieldsync.database import Database
from fieldsync.rebuild import rebuild
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore

SHARED = ("new", "old", "same")
SHARED_IDS = "(SELECT id FROM fs_scope WHERE name<>'private')"


class Note(fs.Record, table="notes"):
    text: str = ""
    many: list[object] | None = None


def open_plain(path):
    """A database without a note, whose chance is seeded."""
    chance = random.Random(path.name)
    store = SQLiteStore(path, full=False)
    return Database(Replica(store, wall_ms=lambda: NOW_MS, mint=lambda: chance.randbytes(8)), (Order, Note))


@pytest.fixture
def pair(tmp_path):
    """Two databases of many records, edits and removals, in step."""
    make_files(tmp_path)
    with open_plain(tmp_path / "a.db") as a, open_plain(tmp_path / "b.db") as b:
        a.sync(b)
        yield a, b


def named(report):
    return [(fault.scope, fault.collection, fault.key) for fault in report.faults]


def check_mended(a, b, expected=0):
    """After a repair of a: nothing is left; once it has met b, both are what b was."""
    before = {name: state(b.replica)[name] for name in SHARED}
    report = a.verify(repair=True)
    assert report.fault_count
    assert report.is_sound, report.left
    assert audit(a.replica.store) == []
    assert sum(report.fetching.values()) == expected
    assert a.verify().is_sound
    a.sync(b)
    for db in (a, b):
        assert audit(db.replica.store) == []
        assert {name: state(db.replica)[name] for name in SHARED} == before
        with db.replica.store.reading() as reader:
            assert not any(reader.is_provisional(reader.scope(name).id) for name in SHARED)
    with a.write() as tx:
        tx.create("notes", scope="old", text="still here")
        tx.update(Order, "o-1", scope="same", status="later")
    a.sync(b)
    assert state(a.replica)["old"] == state(b.replica)["old"]
    assert state(a.replica)["same"] == state(b.replica)["same"]
    assert audit(a.replica.store) == audit(b.replica.store) == []
    return report


def test_a_healthy_file_has_no_faults(pair):
    told = []
    for db in pair:
        report = db.verify(progress=lambda done, total: told.append((done, total)))
        assert (report.faults, report.fault_count, report.is_sound, report.repaired) == ([], 0, True, False)
        assert report.records == sum(scope.records for scope in db.scopes())
        assert report.changes == sum(scope.changes for scope in db.scopes())
        before = state(db.replica)
        assert db.verify(repair=True).is_sound
        assert state(db.replica) == before
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules_leave_nothing_to_find(seed, monkeypatch):
    looked = []

    def look(device):
        with device.store.reading() as reader:
            report = verify.verify(reader)
        assert not report.faults
        looked.append(report.records)

    monkeypatch.setattr("tests.simulation.device.Device.check", look)
    outcome = schedule.run(seed)
    assert outcome.violation is None
    assert sum(looked)


def test_what_follows_from_the_cells_is_rebuilt(pair):
    a, _ = pair
    before = state(a.replica)
    with hands(a) as db:
        db.execute("UPDATE fs_scope SET digest=zeroblob(16)")
        db.execute("UPDATE fs_change SET live=1, entries=x''")
        db.execute("UPDATE fs_record_1 SET status='x', hours=-1")
    with a.replica.store.writing() as writer:
        rebuild(writer)
    assert state(a.replica) == before
    assert audit(a.replica.store) == []
    assert a.verify().is_sound


# --- faults, one by one ---


def test_a_column_is_rebuilt(pair):
    a, b = pair
    with hands(a) as db:
        scope = db.execute("SELECT id FROM fs_scope WHERE name='same'").get
        db.execute("UPDATE fs_record_1 SET status='wrong' WHERE _key='o-2' AND _scope=?", (scope,))
    report = a.verify()
    assert named(report) == [("same", "orders", "o-2")]
    assert "columns" in report.faults[0].what
    assert not report.is_sound
    check_mended(a, b)


def test_cells_that_cannot_be_read_are_fetched_back(pair):
    a, b = pair
    with hands(a) as db:
        db.execute(
            "UPDATE fs_record_1 SET _cells=substr(_cells, 1, length(_cells)-3) WHERE _key IN ('o-1', 'a-1') "
            "AND _scope IN (SELECT id FROM fs_scope WHERE name<>'same')"
        )
    report = a.verify()
    assert sorted(named(report)) == [("new", "orders", "a-1"), ("new", "orders", "o-1"), ("old", "orders", "o-1")]
    assert all("cells are damaged" in fault.what for fault in report.faults)
    report = check_mended(a, b, 3)
    assert report.fetching == {"new": 2, "old": 1}


def test_a_damaged_index_is_rebuilt_and_what_it_no_longer_knows_is_fetched(pair):
    a, b = pair
    with hands(a) as db:
        db.execute("UPDATE fs_change SET entries=substr(entries, 1, 1) WHERE length(entries)>1")
    assert all("leaves out" in fault.what or "lost removals" in fault.what for fault in a.verify().faults)
    check_mended(a, b)
    with hands(a) as db:
        db.execute("DELETE FROM fs_change WHERE seq%2")
    assert all("does not know" in fault.what for fault in a.verify().faults)
    check_mended(a, b)


def test_records_lost_together_with_their_index_are_fetched_back(pair):
    a, b = pair
    with hands(a) as db:
        db.execute("UPDATE fs_record_1 SET _cells=x'00' WHERE _key='o-2'")
        db.execute("DELETE FROM fs_change")
    check_mended(a, b, 3)


def test_rows_that_are_gone_are_missed_by_digest_and_index(pair):
    a, b = pair
    with hands(a) as db:
        db.execute("DELETE FROM fs_record_1 WHERE _key='o-2'")
    assert "cells are gone" in a.verify().faults[0].what
    check_mended(a, b)


def test_damaged_orphans_and_removals_are_fetched_back(pair):
    a, b = pair
    with hands(a) as db:
        assert db.execute("SELECT count(*) FROM fs_orphan").get
        assert db.execute("SELECT count(*) FROM fs_removal").get
        db.execute("UPDATE fs_orphan SET cells=substr(cells, 2)")
        db.execute("UPDATE fs_removal SET item=CAST(x'ff' || item AS BLOB)")
    whats = {fault.what.partition(" ")[2] for fault in a.verify().faults}
    assert any("without their record" in what for what in whats)
    check_mended(a, b, 2)
    with hands(a) as db:
        db.execute("DELETE FROM fs_removal")
    assert all("lost removals" in fault.what for fault in a.verify().faults)
    check_mended(a, b)


def test_a_damaged_context_is_fetched_again(pair):
    a, b = pair
    for damage in (
        "UPDATE fs_context SET low=high+1 WHERE author=(SELECT max(author) FROM fs_context)",
        "UPDATE fs_context SET author=99 WHERE author=(SELECT max(author) FROM fs_context)",
        "UPDATE fs_scope SET seq=seq+1 WHERE seq",
        "DELETE FROM fs_context WHERE author=(SELECT max(author) FROM fs_context)",
    ):
        with hands(a) as db:
            db.execute(damage)
        assert not a.verify().is_sound
        check_mended(a, b)


def test_rows_of_no_scope_come_back_to_theirs(pair):
    a, b = pair
    with hands(a) as db:
        db.execute(
            "UPDATE fs_record_1 SET _scope=77 WHERE _key='o-2' AND _scope=(SELECT id FROM fs_scope WHERE name='same')"
        )
    assert any("belong to no scope" in fault.what for fault in a.verify().faults)
    check_mended(a, b)


def test_a_change_whose_time_was_damaged_takes_that_of_what_it_created(pair):
    a, b = pair
    with hands(a) as db:
        db.execute("UPDATE fs_change SET time=time+65536 WHERE NOT flags AND live>2")
    assert not a.verify().is_sound
    check_mended(a, b)


def test_an_index_of_sqlite_is_rebuilt(pair):
    a, b = pair
    with hands(a) as db:
        (index,) = db.execute(
            "SELECT name FROM sqlite_schema WHERE type='index' AND sql IS NOT NULL AND tbl_name='fs_record_1'"
        ).fetchall()
        kept = db.execute("SELECT * FROM sqlite_schema WHERE name=?", index).fetchone()
    with hands(a) as db:
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        db.execute("PRAGMA writable_schema=ON")
        db.execute("DELETE FROM sqlite_schema WHERE name=?", index)
    with hands(a) as db:  # which knows nothing of the index
        db.execute("UPDATE fs_record_1 SET status='wrong' WHERE _key='o-2'")
    with hands(a) as db:
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        db.execute("PRAGMA writable_schema=ON")
        db.execute("INSERT INTO sqlite_schema VALUES(?, ?, ?, ?, ?)", kept)
    a.close()
    with open_plain(Path(a.path)) as a:
        assert any("missing from index" in fault.what for fault in a.verify().faults)
        check_mended(a, b)


def test_a_digest_alone_is_computed_again_but_not_called_mended(pair):
    a, b = pair
    with hands(a) as db:
        db.execute("UPDATE fs_scope SET digest=zeroblob(16) WHERE name='old'")
    assert named(a.verify()) == [("old", "", "")]
    report = a.verify(repair=True)
    assert not report.is_sound
    assert [fault.scope for fault in report.left] == ["old"]
    assert a.verify().is_sound
    a.sync(b)
    assert state(a.replica)["old"] == state(b.replica)["old"]


def test_a_record_that_comes_back_does_not_bring_back_what_was_removed_and_forgotten(tmp_path):
    with open_plain(tmp_path / "a.db") as a, open_plain(tmp_path / "b.db") as b, open_plain(tmp_path / "c.db") as c:
        with a.write() as tx:
            for key in "xyz":
                tx.create(Order, scope="s", key=key)
        for db in (b, c):
            db.enter("s")
            db.sync(a)
        with a.write() as tx:
            tx.delete(Order, "x")
            tx.create(Order, scope="s", key="w")
        b.sync(a)
        for db in (a, b):
            assert db.replica.trim(["s"], before_ms=2 * NOW_MS) == 1
        with hands(a) as db:
            db.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='y'")
        assert a.verify(repair=True).is_sound
        for one, other in ((a, c), (a, b), (b, c), (a, c)):
            one.sync(other)
        for db in (a, b, c):
            assert {order.key for order in db[Order]} == {"w", "y", "z"}
            assert state(db.replica) == state(a.replica)
            assert audit(db.replica.store) == []


def test_a_scope_that_cannot_be_read_is_left_alone(pair):
    a, _ = pair
    with hands(a) as db:
        db.execute("UPDATE fs_scope SET floor=x'ff' WHERE name='old'")
        db.execute("UPDATE fs_record_1 SET hours=-1")
    report = a.verify(repair=True)
    assert not report.is_sound
    assert {fault.scope for fault in report.left} == {"old"}
    assert "the floor is damaged" in report.left[0].what


def test_a_cell_under_the_dot_of_a_removal_is_the_one_that_is_damaged(tmp_path):
    """The index and the log of removals agree on what that change was."""
    with open_plain(tmp_path / "a.db") as a:
        with a.write() as tx:
            tx.create("notes", scope="s", key="kept", text="first")
            tx.create("notes", scope="s", key="gone")
        with a.write() as tx:
            tx.delete("notes", "gone")
        with a.write() as tx:
            tx.update("notes", "kept", text="second")
        path = Path(a.path)
    with apsw.Connection(str(path)) as file:
        (packed,) = file.execute("SELECT _cells FROM fs_record_2 WHERE _key='kept'").fetchone()
        damaged = packed.replace(bytes([1, 1, 3]), bytes([1, 1, 2]), 1)  # one stamp: author 1, seq 3
        assert damaged != packed
        file.execute("UPDATE fs_record_2 SET _cells=? WHERE _key='kept'", (damaged,))
    with open_plain(path) as a:
        report = a.verify(repair=True)
        assert report.fetching == {"s": 1}
        assert audit(a.replica.store) == []
        with a.replica.store.reading() as reader:
            scope = reader.scope("s")
            assert [change.seq for change in reader.removing(scope.id)] == [2]


def test_a_cell_under_another_dot_is_damaged_though_its_change_lives_in_the_record_too(tmp_path):
    """A write goes to each incarnation of a key; in one of them it is under the dot of an earlier one now."""
    with open_plain(tmp_path / "a.db") as a, open_plain(tmp_path / "b.db") as b:
        for one in (a, b):
            with one.write() as tx:
                tx.create("notes", scope="s", key="k", text="first")
        a.sync(b)
        for text in ("second", "third"):
            with a.write() as tx:
                tx.update("notes", "k", text=text)
        path, author = Path(a.path), a["notes"].get("k").stamps()["text"].author
    with apsw.Connection(str(path)) as file:
        (number,) = file.execute("SELECT id FROM fs_author WHERE name=?", (bytes.fromhex(author),)).fetchone()
        (packed,) = file.execute("SELECT _cells FROM fs_record_2").fetchone()
        damaged = packed.replace(bytes([1, number, 3]), bytes([1, number, 2]), 1)  # one stamp: the author, seq 3
        assert damaged != packed
        file.execute("UPDATE fs_record_2 SET _cells=?", (damaged,))
    with open_plain(path) as a:
        assert a.verify(repair=True).fetching == {"s": 1}
        assert audit(a.replica.store) == []


def test_what_an_unreadable_page_holds_is_reported(pair):
    a, _ = pair
    a.replica.store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with hands(a) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name='fs_orphan'").fetchone()
    a.close()
    with Path(a.path).open("r+b") as file:
        file.seek((page - 1) * 8192)
        file.write(b"\x55" * 100)
    with open_plain(Path(a.path)) as a:
        for repair in (False, True):
            report = a.verify(repair=repair)
            assert not report.is_sound
            assert any(fault.what.startswith("SQLite: ") for fault in report.faults)
            assert examine.LEFT in {fault.remedy for fault in report.faults}
            assert report.fetching == {}


def test_watches_hear_of_what_was_dropped(pair):
    a, _ = pair
    heard = queue.Queue()
    a[Order].watch(heard.put)
    with hands(a) as db:
        db.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='o-2'")
    a.verify(repair=True)
    assert set(heard.get(timeout=10).removed) == {("new", "o-2"), ("old", "o-2"), ("same", "o-2")}


def test_the_first_faults_are_described_and_all_are_counted(pair, monkeypatch):
    a, _ = pair
    monkeypatch.setattr(examine, "FAULTS_KEPT", 3)
    with hands(a) as db:
        db.execute("UPDATE fs_record_1 SET hours=-1")
    report = a.verify()
    assert len(report.faults) == 3
    assert report.fault_count == a["orders"].count() > 3
    assert str(report.faults[0]).endswith("the columns do not show what the record's cells say")


# --- any bit ---


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bits_of_a_record_are_found(pair, seed):
    """Where the flip reads well and no column shows it, only the digest knows; then the next sync tells, and mends."""
    a, b = pair
    chance = random.Random(seed)
    with hands(a) as db:
        rows = db.execute(f"SELECT _id, _cells FROM fs_record_1 WHERE _scope IN {SHARED_IDS} ORDER BY _id").fetchall()
        number, cells = chance.choice(rows)
        damaged = bytearray(cells)
        for _ in range(chance.choice([1, 1, 3])):
            damaged[chance.randrange(len(cells))] ^= 1 << chance.randrange(8)
        db.execute("UPDATE fs_record_1 SET _cells=? WHERE _id=?", (bytes(damaged), number))
    if damaged == cells:
        return
    assert not a.verify().is_sound
    report = a.verify(repair=True)
    assert audit(a.replica.store) == []
    assert all("the next sync with an undamaged replica tells which" in fault.what for fault in report.left)
    mended = a.sync(b).mended
    assert bool(mended) is not report.is_sound
    assert all(one.is_equal for one in mended)
    assert all(state(a.replica)[name] == state(b.replica)[name] for name in SHARED)


# --- several things at once ---


DAMAGE = [
    "UPDATE fs_record_1 SET _cells=x'0102' WHERE _id=$n",
    "UPDATE fs_record_1 SET _cells=CAST(substr(_cells, 1, 20) || x'ff' || substr(_cells, 22) AS BLOB) WHERE _id=$n",
    f"UPDATE fs_record_1 SET _scope=55 WHERE _id=$n AND _scope IN {SHARED_IDS}",
    f"DELETE FROM fs_record_1 WHERE _id=$n AND _scope IN {SHARED_IDS}",
    "UPDATE fs_record_1 SET hours=$n WHERE _id=$n",
    "UPDATE fs_orphan SET cells=substr(cells, 2)",
    "DELETE FROM fs_orphan",
    "DELETE FROM fs_change",
    "DELETE FROM fs_change WHERE seq=$n",
    "UPDATE fs_change SET entries=x'ff' WHERE seq<$n",
    "UPDATE fs_change SET live=0 WHERE seq=$n",
    "UPDATE fs_change SET flags=3-flags WHERE seq=$n",
    "UPDATE fs_change SET parts=$n",
    "UPDATE fs_change SET time=time/2 WHERE seq=$n",
    "UPDATE fs_change SET scope=99 WHERE seq=$n",
    "DELETE FROM fs_removal WHERE seq=$n",
    "UPDATE fs_removal SET item=x'0100'",
    "UPDATE fs_removal SET seq=seq+$n",
    "UPDATE fs_removal SET inc_seq=inc_seq+$n",
    "DELETE FROM fs_context WHERE author=$n",
    "UPDATE fs_context SET low=low+1 WHERE author=$n",
    "UPDATE fs_context SET high=0 WHERE author=$n",
    "UPDATE fs_scope SET digest=zeroblob($n)",
    "UPDATE fs_scope SET seq=$n",
    "UPDATE fs_scope SET author=$n%4",
]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_damaged_a_repair_claims_no_more_than_is_so(pair, seed):
    a, b = pair
    chance = random.Random(seed)
    with hands(a) as db:
        for statement in chance.sample(DAMAGE, chance.choice([1, 2, 3])):
            db.execute(statement.replace("$n", str(chance.randrange(1, 9))))
    report = a.verify(repair=True)
    assert a.verify().is_sound
    for db in (a, b):
        assert audit(db.replica.store) == []
    mended = {one.scope for one in a.sync(b).mended}
    assert mended <= set(report.unproven)
    if report.is_sound or mended:
        assert all(state(a.replica)[name] == state(b.replica)[name] for name in SHARED)
    for db in (a, b):
        assert audit(db.replica.store) == []
        assert db.verify().is_sound
