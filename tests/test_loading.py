"""Many rows at once: what is created, updated, left alone and rejected."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.orders import Order

import fieldsync as fs


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
