"""The trash: records that went because a peer had them no more, how long they stay, and making them again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.simulation.audit import audit

import fieldsync as fs
from fieldsync.sqlite import memory as sqlite_memory
from fieldsync.store import TrashRow

SCOPE = "job/7"
HOUR_MS = 3_600_000


class Order(fs.Record, table="orders"):
    status: str = "open"
    price: Decimal | None = None
    hours: fs.Counter = 0


@pytest.fixture
def db(tmp_path, hub):
    """A device on which o-1 and o-2 went: the hub had deleted them, and forgotten that."""
    with fs.open(tmp_path / "a.db", Order, durability="fast") as db:
        with db.write() as tx:
            for number in range(1, 4):
                tx.create(Order, scope=SCOPE, key=f"o-{number}", status="open", price=Decimal("1.50"), hours=number)
            tx.create("notes", scope="job/8", key="n-1", text="not touched")
        with db.write() as tx:
            tx.get(Order, "o-1").hours += 2
        db.sync(hub)
        for key in ("o-1", "o-2"):
            with hub.write() as tx:
                tx.delete("orders", key)
            hub.trim(older_than=timedelta(0), keep=0)
            db.sync(hub)
        yield db
        assert audit(db.replica.store) == []


def test_the_trash_tells_what_went_the_latest_first(db):
    second, first = db.trash()
    assert (first.scope, first.collection, first.key) == (SCOPE, "orders", "o-1")
    assert first.values == {"status": "open", "price": Decimal("1.50"), "hours": 3}
    assert (second.key, second.values["hours"]) == ("o-2", 2)
    assert first.when <= second.when <= datetime.now(UTC)
    assert db[Order].get("o-1") is None


def test_the_trash_of_one_scope(db):
    assert [entry.key for entry in db.trash(scope=SCOPE)] == ["o-2", "o-1"]
    assert db.trash(scope="job/8") == []
    with pytest.raises(fs.NotFound, match="'job/9' is not held here"):
        db.trash(scope="job/9")


def test_a_deletion_that_is_known_of_leaves_no_trash(db, hub):
    with hub.write() as tx:
        tx.delete("orders", "o-3")
    db.sync(hub)
    assert db[Order].get("o-3") is None
    assert [entry.key for entry in db.trash()] == ["o-2", "o-1"]


def test_a_restored_record_is_a_new_one_with_the_same_values(db, hub):
    db.restore(db.trash()[1])
    assert db[Order].get("o-1").as_dict() == {
        "key": "o-1",
        "scope": SCOPE,
        "status": "open",
        "price": Decimal("1.50"),
        "hours": 3,
    }
    assert [entry.key for entry in db.trash()] == ["o-2"]
    with db.write() as tx:
        tx.get(Order, "o-1").hours += 1  # still counts
    db.sync(hub)
    assert hub["orders"].get("o-1")["hours"] == 4
    assert db.compare(hub).agree


def test_several_are_restored_together_or_not_at_all(db):
    entries = db.trash()
    with db.write() as tx:
        tx.create(Order, scope=SCOPE, key="o-1")
    with pytest.raises(fs.AlreadyExists, match="orders 'o-1' exists in scope 'job/7'"):
        db.restore(*entries)
    assert db[Order].get("o-2") is None
    assert db.trash() == entries
    with db.write() as tx:
        tx.delete(Order, "o-1")
    db.restore(*entries)
    assert (db[Order].count(), db.trash()) == (3, [])


def test_a_record_is_restored_once(db):
    entry = db.trash()[0]
    db.restore(entry, entry)
    with pytest.raises(fs.NotFound, match="the trash has orders 'o-2' of 'job/7' no more"):
        db.restore(entry)


def test_a_number_that_was_given_again_is_no_entry(db):
    latest, _ = db.trash()
    with db.replica.store.writing() as writer:
        writer.delete_trash([latest.id])
        (row,) = writer.trash()
        writer.put_trash([row._replace(key="o-9")])
    assert (db.trash()[0].key, db.trash()[0].id) == ("o-9", latest.id)
    with pytest.raises(fs.NotFound):
        db.restore(latest)


def test_the_trash_goes_with_its_scope(db, hub):
    entry = db.trash()[0]
    db.leave(SCOPE)
    assert db.trash() == []
    with pytest.raises(fs.NotFound):
        db.restore(entry)
    assert [scope.name for scope in db.scopes()] == ["job/8"]


def put_trash(db, *hours):
    with db.replica.store.writing() as writer:
        scope = writer.scope(SCOPE).id
        (collection,) = writer.collection_ids(["orders"])
        packed = writer.by_key(collection, scope, ["o-3"])[0].packed
        writer.put_trash([TrashRow(0, scope, collection, f"at {hour}", packed, hour * HOUR_MS) for hour in hours])


def test_what_is_old_goes_when_more_comes(db, monkeypatch):
    monkeypatch.setattr(sqlite_memory, "TRASH_KEPT_MS", 10 * HOUR_MS)
    with db.replica.store.writing() as writer:
        writer.delete_trash([entry.id for entry in db.trash()])
    put_trash(db, 1, 2, 3)
    put_trash(db)
    assert [entry.key for entry in db.trash()] == ["at 3", "at 2", "at 1"]
    put_trash(db, 12)
    assert [entry.key for entry in db.trash()] == ["at 12", "at 3", "at 2"]


def test_of_very_many_the_latest_stay(db, monkeypatch):
    monkeypatch.setattr(sqlite_memory, "TRASH_ROWS_MAX", 2)
    put_trash(db, 500_000, 500_001, 500_002)
    assert [entry.key for entry in db.trash()] == ["at 500002", "at 500001"]
