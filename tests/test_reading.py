"""Queries, SQL, and columns that follow what is declared and what is written."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

import pytest
from tests.orders import Order, Renamed, fill

import fieldsync as fs
from fieldsync.reading import SCOPE_NAME

# --- queries and SQL ---


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
