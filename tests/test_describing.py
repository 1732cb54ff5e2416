"""What a file holds, and what a declaration would make of it."""

from decimal import Decimal

import pytest

import fieldsync as fs

SCOPE = "job/7"


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    hours: fs.Counter = 0
    tags: set[str]


class Later(fs.Record, table="orders"):
    status: int = 0
    hours: int = 0
    colour: str = ""


class New(fs.Record, table="new"):
    name: str


@pytest.fixture
def db(tmp_path):
    with fs.open(tmp_path / "t.db", Order, durability="fast") as db:
        with db.write() as tx:
            tx.create(Order, scope=SCOPE, key="a", hours=1, tags={"x", "y"})
            tx.create(Order, scope="job/8", key="b", status="done")
            tx.create("notes", scope=SCOPE, key="n", text="hello", size=Decimal("1.5"))
            tx.create("notes", scope=SCOPE, key="m", text=None)
        yield db


def fields(found, name):
    (one,) = [collection for collection in found if collection.name == name]
    return {(info.name, info.kind): info for info in one.fields}


def test_all_fields_are_described(db):
    told = []
    found = db.describe(progress=lambda done, total: told.append((done, total)))
    assert [(one.name, one.records, one.notes) for one in found] == [("notes", 2, []), ("orders", 2, [])]
    orders = fields(found, "orders")
    assert {pair: (info.records, info.types) for pair, info in orders.items()} == {
        ("hours", "counter"): (1, {"int": 1}),
        ("status", "register"): (2, {"str": 2}),
        ("tags", "set"): (1, {"str": 1}),
    }
    assert fields(found, "notes")["text", "register"].types == {"str": 1, "None": 1}
    assert told[-1] == (4, 4)
    assert "status: register of 2 records (2 str)" in str(found[1])


def test_what_a_declaration_would_change_is_told_and_nothing_changed(db):
    found = db.describe(Later, New)
    (orders,) = [one for one in found if one.name == "orders"]
    assert orders.notes == ["its columns and indexes will be made anew"]
    notes = {pair: info.notes for pair, info in fields(found, "orders").items()}
    assert notes == {
        ("colour", "register"): ["declared, held by none"],
        ("hours", "counter"): ["declared as a register: kept, not shown"],
        ("hours", "register"): ["declared, held by none"],
        ("status", "register"): ["declared as int: str is shown as it is"],
        ("tags", "set"): ["not declared: kept, and passed on"],
    }
    (new,) = [one for one in found if one.name == "new"]
    assert (new.records, new.notes) == (0, ["its table will be made"])
    assert db[Order].where(status="done").count() == 1


def test_fields_of_another_version_come_through_and_read_as_they_are(db, tmp_path):
    """The later app reads a text where it declares an int; what it does not declare stays, and comes back."""
    path = db.path
    db.close()
    with fs.open(path, Later, durability="fast") as later:
        assert later[Later].get("b").status == "done"
        with later.write() as tx:
            tx.update(Later, "b", colour="red")
    with fs.open(path, Order, durability="fast") as again:
        assert (again[Order].get("a").tags, again[Order].get("a").hours) == ({"x", "y"}, 1)
        assert ("colour", "register") in fields(again.describe(), "orders")
