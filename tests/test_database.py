"""The public face, as the developer of an app meets it."""

from __future__ import annotations

import enum
import queue
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from itertools import count
from random import Random
from time import sleep

import pytest

import fieldsync as fs
from fieldsync import watch as watches
from fieldsync.reading import SCOPE_NAME
from fieldsync.writing import KEY_RANDOM_BITS, new_key


class Order(fs.Record, table="orders"):
    customer: str
    status: str = fs.field(default="open", index=True)
    price: Decimal | None = None
    hours: fs.Counter = 0
    tags: list[str] = fs.field(default_factory=list)


class Renamed(fs.Record, table="orders"):
    """The same collection in another version of the app."""

    customer: str = fs.field(default="", index=True)
    state: str = "new"
    hours: fs.Counter = 0
    price: Decimal | None = None


@pytest.fixture
def path(tmp_path):
    return tmp_path / "field.db"


@pytest.fixture
def db(path):
    with fs.open(path, Order, durability="fast") as db:
        yield db


@pytest.fixture
def other(tmp_path):
    with fs.open(tmp_path / "other.db", Order, durability="fast") as db:
        yield db


def fill(db, scope="job/7", **customers):
    with db.write() as tx:
        for key, customer in customers.items():
            tx.create(Order, scope=scope, key=key, customer=customer)


def held(db):
    return {(scope, key) for key, scope in db.sql("SELECT key, scope FROM orders")}


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


# --- writing ---


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


# --- reading ---


@pytest.fixture
def orders(db):
    with db.write() as tx:
        for number in range(10):
            status = ("open", "done")[number % 2]
            price = None if number == 9 else Decimal(number) / 2
            scope = f"job/{number % 3}"
            tx.create(Order, scope=scope, key=f"o-{number}", customer="ABC"[number % 3], status=status, price=price)
            tx.create("notes", scope=scope, key=f"o-{number}", customer="ABC"[number % 3], status=status, price=price)
    return db


def keys(query):
    return "".join(record.key[2:] for record in query)


@pytest.mark.parametrize("of", [Order, "notes"])
def test_queries_find_records_in_order(orders, of):
    table = orders[of]
    assert sorted(keys(table)) == list("0123456789")
    assert keys(table.order_by("key")) == "0123456789"
    assert keys(table.where(status="open").order_by("-price")) == "86420"
    assert keys(table.where(status="open", price__gt=1, scope="job/0").order_by("key")) == "6"
    assert keys(table.where(price__in=[0, 0.5, None]).order_by("-key")) == "910"
    assert keys(table.where(scope__ne="job/0").where(customer__le="B").order_by("customer", "-key")) == "741"
    assert keys(table.order_by("-price", "key").limit(3)) == "876"
    assert keys(table.order_by("key").limit(3).offset(8)) == "89"
    assert keys(table.order_by("key").offset(7)) == "789"
    assert keys(table.where(key="o-3")) == "3"
    assert keys(table.where(status="lost")) == keys(table.where(scope="elsewhere")) == keys(table.limit(0)) == ""


@pytest.mark.parametrize("of", [Order, "notes"])
def test_queries_count_and_give_the_first(orders, of):
    table = orders[of]
    done = table.where(status="done")
    assert (table.count(), done.count(), done.limit(3).count(), table.offset(8).count()) == (10, 5, 3, 2)
    assert done.order_by("-key").first().key == "o-9"
    assert done.where(status="open").first() is None
    assert [record.key for record in done.order_by("key").limit(2).all()] == ["o-1", "o-3"]
    assert isinstance(table.first(), fs.Snapshot if of == "notes" else Order)
    assert (orders["nothing"].count(), orders["nothing"].where(a=1).all(), orders["nothing"].first()) == (0, [], None)


def test_a_query_does_not_change(orders):
    done = orders[Order].where(status="done")
    done.where(customer="A").order_by("-key").limit(1).all()
    assert done.count() == 5


def test_queries_that_mean_nothing_are_refused(db):
    for ask, kind, message in (
        (lambda: db[Order].where(staus="open"), fs.SchemaError, "did you mean 'status'"),
        (lambda: db[Order].where(price__above=1), fs.SchemaError, "'above' is none of eq, ne, in"),
        (lambda: db[Order].where(price__gt=None), TypeError, "nothing is greater or less than None"),
        (lambda: db[Order].where(price={1}), TypeError, "orders.price wants"),
        (lambda: db[Order].order_by("nothing"), fs.SchemaError, "no field 'nothing'"),
        (lambda: db[Order].where().limit(-1), ValueError, "from 0 on"),
        (lambda: db[Order].where(key__in=map(str, count())), fs.LimitExceeded, "up to 1000 values"),
    ):
        with pytest.raises(kind, match=message):
            ask()


def test_queries_and_sql_use_the_indexes(orders):
    def plan(query):
        with orders.replica.store.reading() as reader:
            numbers = {scope.name: scope.id for scope in reader.scopes()}
            tail, binds = query._plan.sql(numbers.get, SCOPE_NAME)
            return str(reader.sql(f"EXPLAIN QUERY PLAN SELECT * FROM fs_record_1 {tail}", binds)[1])

    assert "USING INDEX fs_record_1_1 (status=?)" in plan(orders[Order].where(status="open"))
    assert "USING INDEX fs_record_1_1 (status=?)" in plan(orders[Order].where(status__in=["open", "done"]))
    assert "(status>?)" in plan(orders[Order].where(status__gt="open"))
    assert "(_scope=? AND _key=?)" in plan(orders[Order].where(scope="job/1", key="o-1"))
    assert "(_scope=?)" in plan(orders[Order].where(scope="job/1", customer="A"))
    assert "SCAN" in plan(orders[Order].where(customer="A"))
    sql = "EXPLAIN QUERY PLAN SELECT key, scope FROM orders WHERE status = 'open'"
    assert "USING INDEX fs_record_1_1 (status=?)" in str(orders.sql(sql))


def test_sql_reads_views_of_the_collections(orders):
    assert orders.sql("SELECT status, count(*), sum(price) FROM orders GROUP BY 1 ORDER BY 1") == [
        ("done", 5, 8.0),
        ("open", 5, 10.0),
    ]
    names = "SELECT name FROM pragma_table_info(?)"
    assert orders.sql(names, ["orders"]) == [(n,) for n in ("key", "scope", *Order._collection.places)]
    assert orders.sql(names, ["notes"]) == [("key",), ("scope",)]
    assert orders.sql("SELECT key, scope, tags, hours FROM orders WHERE key = :key", {"key": "o-4"}) == [
        ("o-4", "job/1", "[]", 0)
    ]


@pytest.mark.parametrize(
    "statement",
    [
        *("DELETE FROM fs_record_1", "INSERT INTO orders VALUES(1)", "DROP VIEW orders", "CREATE TEMP TABLE t(x)"),
        *("VACUUM", "SELEC 1", "SELECT nothing", "SELECT ?, ?", "PRAGMA user_version = 9"),
        *("PRAGMA query_only = 0", "PRAGMA query_only = 0; DELETE FROM fs_record_1; COMMIT"),
        *("COMMIT", "ATTACH '' AS other"),
    ],
)
def test_sql_that_is_wrong_or_writes_is_refused(orders, statement):
    before = orders.scopes()
    with pytest.raises(fs.DataError):
        orders.sql(statement)
    assert orders.scopes() == before
    assert orders[Order].count() == 10


# --- declared fields come and go ---


def test_other_declared_fields_rebuild_the_columns(path):
    with fs.open(path, Order) as db:
        rows = [{"customer": f"c{n}", "hours": n} for n in range(7000)]
        db.load(Order, rows, key="customer", scope=lambda _: "job/7")
        with db.write() as tx:
            tx.update("orders", "c5", price=Decimal("2.50"))
    told = []
    with fs.open(path, Renamed, progress=lambda done, total: told.append((done, total))) as db:
        assert told == sorted(told)
        assert told[-1] == (7000, 7000)
        assert db.sql("SELECT customer, state, hours, price FROM orders WHERE key = 'c5'") == [("c5", "new", 5, 2.5)]
        assert db[Renamed].where(customer="c7").count() == 1
        assert "USING INDEX" in str(db.sql("EXPLAIN QUERY PLAN SELECT key FROM orders WHERE customer = 'c7'"))
        with db.write() as tx:
            tx.update(Renamed, "c5", state="seen")
    told.clear()
    with fs.open(path, Renamed, progress=lambda *at: told.append(at)) as db:
        assert told == []
        assert db[Renamed].where(state="seen").first().key == "c5"
    with fs.open(path, Order) as db:  # and back: nothing was lost
        assert db[Order].get("c5").status == "open"
        assert db[Order].where(status="open").count() == 7000


def test_columns_follow_what_is_written_without_a_declaration(path, db, other):
    fill(other, a="Acme", b="Bolt")
    db.enter("job/7")
    db.sync(other)
    db.close()
    with other.write() as tx:
        tx.update(Order, "a", customer="Acme & Co", hours=3)
        tx.delete(Order, "b")
        tx.create(Order, scope="job/7", key="c", customer="Corn", status="done")
    with fs.open(path) as plain:
        plain.sync(other)
        with plain.write() as tx:
            tx.update("orders", "c", price=Decimal(4))
            tx.create("orders", scope="job/7", key="d", customer="Dune", status="lost")
    told = []
    with fs.open(path, Order, progress=lambda *at: told.append(at)) as again:
        rows = again.sql("SELECT key, customer, status, price, hours FROM orders ORDER BY key")
        assert rows == [
            ("a", "Acme & Co", "open", None, 3),
            ("c", "Corn", "done", 4.0, 0),
            ("d", "Dune", "lost", None, 0),
        ]
        assert again[Order].where(status="lost").first().customer == "Dune"
        assert told == []


def test_an_app_of_another_version_beside_this_one_breaks_no_query(path, db):
    fill(db, a="Acme", b="Bolt")
    with fs.open(path, Renamed) as newer, newer.write() as tx:
        tx.update(Renamed, "b", customer="Corn")
    assert [order.customer for order in db[Order].where(status="open").order_by("-customer")] == ["Corn", "Acme"]
    assert db[Order].where(status="open").count() == 2
    fill(db, c="Dune")
    assert db[Order].where(status="open", customer__gt="Bolt").count() == 2


# --- watching ---


class Heard:
    """Collects the events of a watch."""

    def __init__(self):
        self.events = queue.Queue()

    def __call__(self, event):
        self.events.put(event)

    def next(self):
        event = self.events.get(timeout=10)
        records = [sorted(record.key for record in some) for some in (event.created, event.updated)]
        return *records, sorted(event.removed)


@pytest.fixture
def heard():
    return Heard()


def test_a_watch_hears_local_commits(db, heard):
    fill(db, a="Acme")
    watch = db[Order].where(status="open").watch(heard)
    fill(db, b="Bolt", c="Corn")
    assert heard.next() == (["b", "c"], [], [])
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n")  # of no interest
    with db.write() as tx:
        tx.get(Order, "a").hours += 1
        tx.update(Order, "b", status="done")
        tx.delete(Order, "c")
    assert heard.next() == ([], ["a"], [("job/7", "b"), ("job/7", "c")])
    watch.close()
    last = Heard()
    db[Order].watch(last)
    fill(db, d="Dune")
    assert last.next() == (["d"], [], [])
    assert heard.events.empty()


def test_a_watch_hears_what_a_sync_brings(db, other, heard):
    fill(other, a="Acme", b="Bolt")
    db.enter("job/7")
    db["orders"].where(scope="job/7").watch(heard)
    db.sync(other)
    assert heard.next() == (["a", "b"], [], [])
    with other.write() as tx:
        tx.update(Order, "a", status="done")
        tx.delete(Order, "b")
    other.sync(db)
    assert heard.next() == ([], ["a"], [("job/7", "b")])


WRITER = """
import sys, fieldsync
with fieldsync.open(sys.argv[1]) as db, db.write() as tx:
    tx.update("orders", "a", status="done")
    tx.delete("orders", "b")
    tx.create("orders", scope="job/7", key="c", customer="Corn")
"""


def test_a_watch_hears_commits_of_other_processes(path, db, heard):
    fill(db, a="Acme", b="Bolt")
    db[Order].watch(heard)
    subprocess.run([sys.executable, "-c", WRITER, path], check=True)
    assert heard.next() == (["c"], ["a"], [("job/7", "b")])
    with fs.open(path, Order) as second:
        fill(second, "job/8", d="Dune")
    assert heard.next() == (["d"], [], [])
    fill(db, e="East")  # its own commits are heard once
    assert heard.next() == (["e"], [], [])
    fill(db, f="Far")
    assert heard.next() == (["f"], [], [])


def test_callbacks_run_where_the_app_wants(db):
    scheduled, events = queue.Queue(), []
    db[Order].watch(lambda event: events.append((event, threading.current_thread())), via=scheduled.put)
    fill(db, a="Acme")
    deliver = scheduled.get(timeout=10)
    assert events == []
    deliver()
    ((event, thread),) = events
    assert (event.created[0].key, thread) == ("a", threading.current_thread())


def test_events_of_a_slow_watcher_become_one(db, monkeypatch):
    monkeypatch.setattr(watches, "WATCH_QUEUE_EVENTS_MAX", 2)
    scheduled, events = queue.Queue(), []
    db[Order].watch(events.append, via=scheduled.put)
    fill(db, a="Acme")
    deliver = scheduled.get(timeout=10)
    fill(db, b="Bolt")
    for number in range(8):
        with db.write() as tx:
            tx.update(Order, "b", customer=f"Bolt {number}")
        with db.write() as tx:
            tx.delete(Order, "a") if number == 7 else tx.update(Order, "a", status="late")
    deliver()
    assert len(events) <= 3
    assert [record.key for event in events for record in event.created] == ["b"]  # and "a" came and went unseen
    assert {record.customer for event in events for record in event.created + event.updated} == {"Bolt 7"}


def test_a_callback_that_fails_does_not_end_the_watch(db, heard, caplog):
    def fail(event):
        raise ValueError("in the app")

    db[Order].watch(fail)
    db[Order].watch(heard)
    fill(db, a="Acme")
    assert heard.next()[0] == ["a"]
    fill(db, b="Bolt")
    assert heard.next()[0] == ["b"]
    assert "in the app" in caplog.text


def test_a_callback_may_read_and_write(db, heard):
    def answer(event):
        with db.write() as tx:
            for order in event.created:
                tx.create("notes", scope=order.scope, key=order.key, text=db[Order].get(order.key).customer)

    db[Order].watch(answer)
    db["notes"].watch(heard)
    fill(db, a="Acme")
    assert heard.next() == (["a"], [], [])
    assert db["notes"].get("a").text == "Acme"


# --- loading ---


def load(db, rows, **options):
    return db.load(Order, rows, **({"key": "id", "scope": "job/{job}"} | options))


def test_a_load_creates_updates_what_differs_and_counts(db):
    rows = [{"id": f"o-{n}", "job": n % 2, "customer": "Acme", "price": Decimal(n), "hours": 2} for n in range(20)]
    report = load(db, rows)
    assert (report.loaded, report.unchanged, report.rejected_count, report.scopes) == (20, 0, 0, {"job/0", "job/1"})
    assert db[Order].get("o-3").as_dict() == {
        "key": "o-3",
        "scope": "job/1",
        "customer": "Acme",
        "status": "open",
        "price": Decimal(3),
        "hours": 2,
        "tags": [],
    }
    changes = [scope.changes for scope in db.scopes()]
    report = load(db, rows)
    assert (report.loaded, report.unchanged) == (0, 20)
    assert [scope.changes for scope in db.scopes()] == changes
    rows[3] |= {"customer": "Bolt", "hours": 5}
    rows[4] |= {"price": Decimal("4.0")}  # equal, and another value
    report = load(db, rows)
    assert (report.loaded, report.unchanged) == (2, 18)
    assert (db[Order].get("o-3").customer, db[Order].get("o-3").hours) == ("Bolt", 5)
    assert repr(db[Order].get("o-4").price) == "Decimal('4.0')"


def test_a_load_leaves_alone_what_its_rows_do_not_name(db):
    load(db, [{"id": "a", "job": 7, "customer": "Acme", "status": "done", "tags": ["x"]}])
    report = load(db, [{"id": "a", "job": 7, "customer": "Acme & Co"}])
    assert report.loaded == 1
    order = db[Order].get("a")
    assert (order.customer, order.status, order.tags) == ("Acme & Co", "done", ["x"])


class Sparse(fs.Record):
    level: int | None = 5


def test_a_load_writes_none_where_the_default_is_something_else(path):
    with fs.open(path, Sparse) as db:
        db.load(Sparse, [{"id": "a", "level": None}], key="id", scope=lambda _: "s")
        assert db[Sparse].get("a").level is None


def test_rejected_rows_have_their_numbers_and_reasons(db):
    rows = [
        {"id": "a", "job": 7, "customer": "Acme"},
        {"id": "b", "job": 7, "customer": 5},
        {"id": "c", "customer": "Corn"},
        {"id": None, "job": 7, "customer": "Dune"},
        {"id": "e", "job": 7},
        {"id": "f", "job": 7, "customer": "Far", "colour": "red"},
        {"id": "g" * 600, "job": 7, "customer": "Gold"},
        {"id": "h", "job": 7, "customer": "x" * (1 << 20)},
        {"id": "i", "job": 7, "customer": "Iris", "hours": 1},
    ]
    report = load(db, rows)
    assert (report.loaded, report.rejected_count) == (2, 7)
    reasons = dict(report.rejected)
    assert sorted(reasons) == [2, 3, 4, 5, 6, 7, 8]
    for number, reason in (
        (2, "orders.customer wants str, got int"),
        (3, "there is no column 'job'"),
        (4, "'id' has no value"),
        (5, "orders.customer is required"),
        (6, "orders has no field 'colour'"),
        (7, "a key has 1 to 512 bytes"),
        (8, "at most 1048576 bytes"),
    ):
        assert reason in reasons[number]
    report = load(db, [{"id": "i", "job": 7, "hours": Decimal(2), "customer": "x"}, {"id": "i", "job": 8}])
    assert report.rejected_count == 1


def test_one_bad_value_among_many_costs_its_row_alone(db):
    rows = [{"id": str(n), "x": n if n != 777 else {n}, "y": 2**63 if n == 778 else 1} for n in range(1500)]
    report = db.load("notes", rows, key="id", scope=lambda _: "job/7")
    assert (report.loaded, report.rejected_count) == (1498, 2)
    assert [number for number, _ in sorted(report.rejected)] == [778, 779]
    assert dict(report.rejected)[778].startswith("notes.x wants one of")
    assert db["notes"].count() == 1498
    report = db.load("notes", rows, key="id", scope=lambda _: "job/7")
    assert (report.loaded, report.unchanged, report.rejected_count) == (0, 1498, 2)


def test_rows_too_large_for_one_change_are_parted(db):
    rows = [{"id": str(n), "text": str(n) * (1 << 17)} for n in range(1, 25)]
    report = db.load("notes", rows, key="id", scope=lambda _: "job/7")
    assert (report.loaded, report.rejected_count) == (24, 0)
    assert db.scopes()[0].changes > 2
    for row in rows:
        row["text"] += "!"
    assert db.load("notes", rows, key="id", scope=lambda _: "job/7").loaded == 24
    assert db["notes"].get("9").text.endswith("9!")


def test_the_last_row_of_a_key_counts(db):
    rows = [{"id": "a", "job": 7, "customer": str(n)} for n in range(5)]
    report = load(db, rows)
    assert (report.loaded, report.repeated) == (1, 4)
    assert db[Order].get("a").customer == "4"


def test_keys_and_scopes_may_be_functions_and_progress_is_told(db):
    told = []
    rows = ({"customer": f"c{n}"} for n in range(25_000))
    report = load(
        db,
        rows,
        key=lambda row: row["customer"].upper(),
        scope=lambda row: f"by/{row['customer'][-1]}",
        progress=told.append,
    )
    assert (report.loaded, len(report.scopes)) == (25_000, 10)
    assert told == sorted(told)
    assert (told[-1], len(told) > 1) == (25_000, True)
    assert db[Order].get("C77").scope == "by/7"
    assert report.seconds > 0


def test_progress_can_be_a_bar(db, capsys):
    load(db, [{"id": "a", "job": 7, "customer": "Acme"}], progress=True)
    assert "rows" in capsys.readouterr().out


def test_what_was_read_can_be_loaded_elsewhere(orders, other):
    report = other.load(Order, (order.as_dict() for order in orders[Order]), key="key", scope="scope")
    assert (report.loaded, report.rejected) == (10, [])
    report = other.load("notes", (note.as_dict() for note in orders["notes"]), key="key", scope="scope")
    assert (report.loaded, report.rejected) == (10, [])
    assert other[Order].order_by("key").all() == orders[Order].order_by("key").all()
    for note in orders["notes"]:
        said = {name: value for name, value in note.as_dict().items() if value is not None}
        assert other["notes"].get(note.key).as_dict() == said  # a load leaves out what is None


def test_a_load_that_breaks_off_keeps_what_it_committed(db):
    def rows():
        for number in range(12_000):
            yield {"id": str(number), "job": 7, "customer": "Acme"}
        raise OSError("the file has ended")

    with pytest.raises(OSError, match="has ended"):
        load(db, rows())
    assert db[Order].count() == 10_000


def test_templates_that_cannot_be_are_refused(db):
    with pytest.raises(fs.SchemaError, match="neither a column nor a template"):
        load(db, [], key="{")


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


def in_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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


def test_watchers_hear_every_commit_of_many_threads_once(db, monkeypatch):
    heard, announce = [], db.replica.watches.announce

    def announce_late(touched):
        sleep(0.02)  # so that the watch's thread looks at the file just then
        announce(touched)

    monkeypatch.setattr(db.replica.watches, "announce", announce_late)
    db[Order].watch(lambda event: heard.extend(record.key for record in event.created))

    def work(name):
        for number in range(10):
            fill(db, **{f"{name}-{number}": "Acme"})

    in_threads(*(partial(work, name) for name in range(4)))
    last = Heard()
    db["notes"].watch(last)
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n")
    last.next()
    assert sorted(heard) == sorted(f"{name}-{number}" for name in range(4) for number in range(10))


def test_two_databases_of_one_file_write_in_turns(path, db):
    fill(db, a="Acme")
    with fs.open(path, Order, durability="fast") as second:

        def work(database):
            for _ in range(50):
                with database.write() as tx:
                    tx.get(Order, "a").hours += 1

        in_threads(partial(work, db), partial(work, second))
        assert db[Order].get("a").hours == second[Order].get("a").hours == 100
