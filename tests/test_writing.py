"""Transactions, as the developer of an app meets them: records, keys, values, and what undoes all of it."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from random import Random

import pytest
from tests.orders import Order, fill, held

import fieldsync as fs
from fieldsync.writing import KEY_RANDOM_BITS, new_key


def test_a_record_is_created_read_changed_and_deleted(db):
    with db.write() as tx:
        new = tx.create(Order, scope="job/7", key="o-1", customer="Acme", price=Decimal("5.00"))
        assert (new.key, new.scope, new.status, new.hours) == ("o-1", "job/7", "open", 0)
        new.tags = ["urgent"]
    order = db[Order].get("o-1")
    assert isinstance(order, Order)
    assert order.as_dict() == {
        "key": "o-1",
        "scope": "job/7",
        "customer": "Acme",
        "status": "open",
        "price": Decimal("5.00"),
        "hours": 0,
        "tags": ["urgent"],
    }
    with db.write() as tx:
        draft = tx.get(Order, "o-1")
        draft.status, draft.hours = "done", draft.hours + 1.5
        draft.tags.append("paid")
        tx.update(Order, "o-1", customer="Acme & Co", price=None)
        assert tx.get(Order, "o-1") is draft
        assert draft.customer == "Acme & Co"
    assert order.status == "open"  # a snapshot of then
    order = db[Order].get("o-1", scope="job/7")
    assert (order.status, order.hours, order.customer, order.price) == ("done", 1.5, "Acme & Co", None)
    assert order.tags == ["urgent", "paid"]
    with db.write() as tx:
        tx.delete(Order, "o-1")
        with pytest.raises(fs.NotFound, match="orders has no 'o-1'"):
            tx.get(Order, "o-1")
    assert db[Order].get("o-1") is None
    assert db[Order].count() == 0


@pytest.mark.parametrize("of", [Order, "orders", "notes"])
def test_what_is_not_there_is_not_found(db, of):
    for scope in (None, "job/7", "elsewhere"):
        with db.write() as tx:
            for act in (tx.get, tx.update, tx.delete):
                with pytest.raises(fs.NotFound, match="has no 'x'"):
                    act(of, "x", scope=scope)
        assert db[of].get("x", scope=scope) is None
    assert db.scopes() == []
    assert db.sql("SELECT name FROM fs_collection WHERE name = 'notes'") == []


def test_a_key_that_lives_exists_already(db):
    fill(db, a="Acme")
    with db.write() as tx:
        with pytest.raises(fs.AlreadyExists, match=r"'a' exists in scope 'job/7'; use tx\.update"):
            tx.create(Order, scope="job/7", key="a", customer="Bolt")
        tx.create(Order, scope="job/7", key="b", customer="Bolt")
        with pytest.raises(fs.AlreadyExists):
            tx.create(Order, scope="job/7", key="b", customer="Bolt")
        tx.create("notes", scope="job/7", key="a")
        tx.create(Order, scope="job/8", key="a", customer="Corn")
    assert held(db) == {("job/7", "a"), ("job/7", "b"), ("job/8", "a")}
    assert db[Order].get("a", scope="job/7").customer == "Acme"


def test_a_key_of_two_scopes_is_ambiguous(db):
    fill(db, "job/1", a="Acme")
    with db.write() as tx:
        tx.create(Order, scope="job/2", key="a", customer="Bolt")
        for act in (tx.get, tx.update, tx.delete):
            with pytest.raises(fs.AmbiguousKey, match="lives in the scopes job/1, job/2; pass scope="):
                act(Order, "a")
        tx.update(Order, "a", scope="job/2", status="done")
    for read in (db[Order].get, db[Order].__getitem__):
        with pytest.raises(fs.AmbiguousKey):
            read("a")
    assert [db[Order].get("a", scope=f"job/{n}").status for n in (1, 2)] == ["open", "done"]
    with db.write() as tx:
        tx.delete(Order, "a", scope="job/1")
        tx.update(Order, "a", status="late")
    assert db[Order].get("a").status == db[Order]["a"].status == "late"
    assert db[Order].get("b") is None
    with pytest.raises(fs.NotFound, match="orders has no 'b'"):
        db[Order]["b"]


def test_generated_keys_sort_by_time():
    chance = Random(7)
    keys = [new_key(wall_ms, chance.getrandbits(KEY_RANDOM_BITS)) for wall_ms in (0, 1, 63, 64, 10**12, 2**48 - 1)]
    assert keys == sorted(keys, key=str.encode)
    assert {len(key) for key in keys} == {22}


def test_a_record_without_a_key_gets_one(db):
    db.replica.wall_ms = count(10**12).__next__
    with db.write() as tx:
        keys = [tx.create(Order, scope="job/7", customer="Acme").key for _ in range(50)]
    assert keys == sorted(set(keys))
    assert held(db) == {("job/7", key) for key in keys}


def test_a_transaction_that_is_over_changes_nothing_more(db):
    fill(db, a="Acme")
    with db.write() as tx:
        draft, gone = tx.get(Order, "a"), tx.create(Order, scope="job/7", key="b", customer="Bolt")
        tx.delete(Order, "b")
        with pytest.raises(AttributeError, match="is over"):
            gone.status = "late"
    with pytest.raises(AttributeError, match="transaction of this draft is over"):
        draft.status = "late"
    for act in (
        lambda: tx.create(Order, scope="job/7", customer="x"),
        lambda: tx.get(Order, "a"),
        lambda: tx.update(Order, "a", status="late"),
        lambda: tx.delete(Order, "a"),
    ):
        with pytest.raises(fs.DataError, match=r"over; begin another with db\.write"):
            act()
    assert db[Order].get("a").status == "open"


def test_an_exception_undoes_all_of_it(db):
    fill(db, a="Acme")
    before = db.scopes()

    def fail():
        with db.write() as tx:
            tx.update(Order, "a", status="done")
            tx.create(Order, scope="job/8", key="b", customer="Bolt")
            tx.create("notes", scope="job/7", key="n", text="x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.scopes() == before
    assert db[Order].get("a").status == "open"
    assert held(db) == {("job/7", "a")}
    fill(db, b="Bolt")  # and the next one works


def test_a_refused_create_leaves_nothing_behind(db):
    with db.write() as tx:
        with pytest.raises(TypeError, match=r"orders\.customer is required"):
            tx.create(Order, scope="job/7", key="a")
        with pytest.raises(fs.SchemaError, match="did you mean 'status'"):
            tx.create(Order, scope="job/8", key="b", customer="x", staus="y")
    assert db.scopes() == []
    assert held(db) == set()


def test_transactions_do_not_nest(db):
    with db.write(), pytest.raises(fs.StoreError, match="finish it first"), db.write():
        pass


def test_a_transaction_over_several_scopes_is_one(db, other):
    with db.write() as tx:
        for number in range(5):
            tx.create(Order, scope=f"job/{number}", key=f"o-{number}", customer="Acme")
    assert [(scope.name, scope.records, scope.changes, scope.state) for scope in db.scopes()] == [
        (f"job/{number}", 1, 1, "ready") for number in range(5)
    ]
    other.enter("job/1", "job/3")
    assert {scope.state for scope in other.scopes()} == {"filling"}
    report = other.sync(db)
    assert report.scopes == ["job/1", "job/3"]
    assert held(other) == {("job/1", "o-1"), ("job/3", "o-3")}
    ours = {scope.name: scope for scope in db.scopes()}
    assert all(scope == ours[scope.name] for scope in other.scopes())


def test_a_transaction_is_bounded_and_points_to_the_loader(db):
    def create(records):
        with db.write() as tx:
            for number in range(records):
                tx.create(Order, scope="job/7", key=str(number), customer="Acme")

    with pytest.raises(fs.LimitExceeded, match=r"at most 1000 records .*use db\.load"):
        create(1001)
    assert held(db) == set()
    create(1000)
    with pytest.raises(fs.LimitExceeded, match=r"at most 1048576 bytes .*use db\.load"), db.write() as tx:
        tx.create("notes", scope="job/7", text="x" * (1 << 20))
    assert len(held(db)) == 1000


def test_records_that_are_only_read_do_not_count(db):
    rows = [{"id": str(number), "customer": "Acme"} for number in range(1005)]
    db.load(Order, rows, key="id", scope=lambda _: "job/7")
    with db.write() as tx:
        drafts = [tx.get(Order, row["id"]) for row in rows]
        drafts[-1].status = "done"
    assert [order.key for order in db[Order].where(status="done")] == ["1004"]


def test_a_key_can_be_deleted_and_made_anew_in_one_transaction(db, other):
    fill(db, a="Acme")
    other.enter("job/7")
    other.sync(db)
    with db.write() as tx:
        tx.update(Order, "a", hours=3, price=Decimal(7))
        tx.delete(Order, "a")
        tx.create(Order, scope="job/7", key="a", customer="Bolt")
    for one in (db, other):
        one.sync(db)
        assert held(one) == {("job/7", "a")}
        order = one[Order].get("a")
        assert (order.customer, order.hours, order.price) == ("Bolt", 0, None)
    with db.write() as tx:
        tx.create(Order, scope="job/7", key="b", customer="x")
        tx.delete(Order, "b")
        tx.delete(Order, "a")
        tx.create(Order, scope="job/7", key="a", customer="y")
        tx.delete(Order, "a")
    other.sync(db)
    assert held(db) == held(other) == set()


def test_counters_add_up(db, other):
    fill(db, a="Acme")
    other.enter("job/7")
    other.sync(db)
    for one, amounts in ((db, (1, 2, -5)), (other, (10, 0.5))):
        for amount in amounts:
            with one.write() as tx:
                tx.get(Order, "a").hours += amount
    other.sync(db)
    assert db[Order].get("a").hours == other[Order].get("a").hours == 8.5
    with db.write() as tx:
        tx.update(Order, "a", hours=0)
    assert db[Order].get("a").hours == 0
    with db.write() as tx, pytest.raises(TypeError, match=r"orders\.hours wants a number, got str"):
        tx.update(Order, "a", hours="many")


class Color(enum.StrEnum):
    RED = "red"


def test_values_come_back_as_they_went_in(db):
    values = [None, True, 5, 5.0, Decimal("5.00"), "5", b"5", date(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC)]
    values += [[1, [True]], {"a": {"b": 1.0}}, -(2**63), 2**63 - 1, ""]
    fields = {f"field {number}": value for number, value in enumerate(values)}
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n", color=Color.RED, **fields)
    note = db["notes"].get("n")
    assert [repr(note[name]) for name in fields] == [repr(value) for value in values]
    assert type(note.color) is str


@pytest.mark.parametrize("value", [{1}, (1,), object(), 2**63, 1j, datetime(2024, 5, 1), "\ud800", Decimal("NaN")])
def test_a_value_that_cannot_be_held_is_a_type_error_that_names_the_field(db, value):
    fill(db, a="Acme")
    with db.write() as tx:
        with pytest.raises(TypeError, match=r"^notes\.x wants"):
            tx.create("notes", scope="job/7", key="n", x=value)
        with pytest.raises(TypeError, match=r"^orders\.price wants Decimal|^orders\.price wants a"):
            tx.update(Order, "a", price=1.5 if isinstance(value, int) else value)
    assert db["notes"].count() == 0


@pytest.mark.parametrize(
    ("scope", "key", "kind"),
    [
        *((7, "k", TypeError), ("s", 7, TypeError), ("\ud800", "k", TypeError)),
        *(("", "k", fs.LimitExceeded), ("s", "", fs.LimitExceeded)),
        *(("s" * 257, "k", fs.LimitExceeded), ("s", "k" * 513, fs.LimitExceeded)),
    ],
)
def test_names_of_records_are_texts_within_bounds(db, scope, key, kind):
    with db.write() as tx, pytest.raises(kind):
        tx.create(Order, scope=scope, key=key, customer="Acme")
    assert db.scopes() == []


def test_a_key_is_looked_up_as_a_text(db):
    fill(db, **{"5": "Acme"})
    with pytest.raises(TypeError, match="a key is a text, not int"):
        db[Order].get(5)
    with db.write() as tx, pytest.raises(TypeError, match="a key is a text"):
        tx.get(Order, 5)


def test_a_field_may_have_the_name_of_a_parameter(db):
    with db.write() as tx:
        tx.create("notes", scope="s", key="n", of="a", self="b")
        tx.update("notes", "n", of="c")
    assert db["notes"].get("n").as_dict() == {"key": "n", "scope": "s", "of": "c", "self": "b"}
