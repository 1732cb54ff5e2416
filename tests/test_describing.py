"""What a file holds, and what a declaration would make of it."""

import sys
from decimal import Decimal

import pytest
from typer.testing import CliRunner

import fieldsync as fs
from fieldsync.cli import app
from fieldsync.describing import TableChange

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


class Note(fs.Record, table="notes"):
    body: str | None = fs.field(default=None, stored_as="text")
    size: int = fs.field(default=7, converts=Decimal)
    label: str = fs.field(default="", converts=())


@pytest.fixture
def db(tmp_path):
    with fs.open(tmp_path / "t.db", Order, durability="fast") as db:
        with db.write() as tx:
            tx.create(Order, scope=SCOPE, key="a", hours=1, tags={"x", "y"})
            tx.create(Order, scope="job/8", key="b", status="done")
            tx.create("notes", scope=SCOPE, key="n", text="hello", size=Decimal("1.5"))
            tx.create("notes", scope=SCOPE, key="m", text=None, size=Decimal(2), label=5)
        yield db


def fields(found, name):
    (one,) = [collection for collection in found if collection.name == name]
    return {(info.name, info.kind): info for info in one.fields}


def test_all_fields_are_described(db):
    told = []
    found = db.describe(progress=lambda done, total: told.append((done, total)))
    assert [(one.name, one.records, one.changes) for one in found] == [("notes", 2, []), ("orders", 2, [])]
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
    assert set(orders.changes) == {
        TableChange("column", "status", "filled anew"),
        TableChange("index", "status", "dropped"),
        TableChange("column", "hours", "filled anew"),
        TableChange("column", "colour", "made"),
    }
    assert orders.rows_rebuilt == 2
    assert str(orders).startswith("orders: 2 records; 2 rows would be written anew: column status filled anew, ")
    notes = {pair: info.notes for pair, info in fields(found, "orders").items()}
    assert notes == {
        ("colour", "register"): ["declared, held by none"],
        ("hours", "counter"): ["declared as a register: kept, not shown"],
        ("hours", "register"): ["declared, held by none"],
        ("status", "register"): ["declared as int: str is shown as it is"],
        ("tags", "set"): ["not declared: kept, and passed on"],
    }
    (new,) = [one for one in found if one.name == "new"]
    assert (new.records, new.changes, new.rows_rebuilt) == (0, [TableChange("table", "new", "made")], 0)
    assert db[Order].where(status="done").count() == 1


def test_fields_of_another_version_come_through_and_read_as_they_are(db):
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


def test_renamed_fields_and_values_that_cannot_be_shown_are_told(db):
    notes = fields(db.describe(Note), "notes")
    body, size, label = (notes[name, "register"] for name in ("body", "size", "label"))
    assert (body.stored_as, body.records, body.misfits, body.notes) == ("text", 2, 0, [])
    assert str(body).startswith("body (stored as text): register of 2 records")
    assert (size.misfits, size.misfit_keys) == (1, ["n"])
    assert size.notes == ["declared as int: Decimal is converted", "1 cannot be, and read as 7: n"]
    assert label.notes == ["1 cannot be, and read as '': m"]


def test_a_field_that_may_be_an_old_one_renamed_is_pointed_out(db):
    class Renamed(fs.Record, table="notes"):
        body: str | None = None
        size: Decimal | None = None
        label: Decimal | None = None

    (hint,) = fields(db.describe(Renamed), "notes")["body", "register"].notes
    assert hint.startswith("declared, held by none; if it was called text before, say so: stored_as=")


def test_a_field_of_another_type_is_no_old_one_renamed(db):
    class Other(fs.Record, table="notes"):
        weight: float = 0.0
        amount: int = fs.field(default=0, converts=Decimal)

    notes = {pair[0]: info.notes for pair, info in fields(db.describe(Other), "notes").items()}
    assert notes["weight"] == ["declared, held by none"]
    assert "if it was called label or size before" in notes["amount"][0]


def test_an_index_that_is_not_declared_is_told(db):
    class Unindexed(fs.Record, table="orders"):
        status: str = "open"

    notes = {pair[0]: info.notes for pair, info in fields(db.describe(Unindexed), "orders").items()}
    assert notes["status"] == ["has an index that is not declared"]
    assert fields(db.describe(Order), "orders")["status", "register"].notes == []


def test_what_is_told_is_what_is_done(tmp_path):
    """Columns, before and after, for each of a chain of declarations."""

    class First(fs.Record, table="things"):
        a: int = 0
        b: str = fs.field(default="", index=True)

    class Second(fs.Record, table="things"):
        a: str = ""
        c: str = fs.field(default="", index=True)

    class Third(fs.Record, table="things"):
        d: str = ""

    class Fourth(fs.Record, table="things"):
        e: str = ""

    told = []
    for one in (First, Second, Third, Fourth, Third):
        with fs.open(tmp_path / "t.db", durability="fast") as db:
            (info,) = db.describe(one)
            before = columns(db, "things")
        with fs.open(tmp_path / "t.db", one, durability="fast") as db:
            after = columns(db, "things")
            assert db.describe()[0].changes == []
        made = {change.name for change in info.changes if (change.what, change.action) == ("column", "made")}
        gone = {change.name for change in info.changes if (change.what, change.action) == ("column", "dropped")}
        assert (made, gone) == ((after - before, before - after) if before else (set(), set()))
        told.append(after)
    assert told == [{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d"}, {"a", "c", "d", "e"}, {"a", "c", "d", "e"}]


def columns(db, table):
    return {name for (name,) in db.sql("SELECT name FROM pragma_table_info(?)", [table])} - {"key", "scope"}


def test_the_command_tells_of_a_module_or_of_one_class(db, tmp_path, monkeypatch):
    (tmp_path / "some_models.py").write_text(
        "import fieldsync as fs\n"
        "class Old(fs.Record, table='orders'):\n    status: str = 'open'\n"
        "class New(fs.Record, table='orders'):\n    status: str = fs.field(default='open', converts=())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as an installed command has it
    run = CliRunner().invoke
    shown = run(app, ["schema", db.path, "--app", "some_models:New"])
    assert shown.exit_code == 0
    assert "orders: 2 records; 2 rows would be written anew: column status filled anew" in shown.output
    assert run(app, ["schema", db.path, "--app", "some_models:New", "--app", "some_models:New"]).exit_code == 0
    for wrong in ("some_models", "some_models:Missing", "no_such_module"):
        assert run(app, ["schema", db.path, "--app", wrong]).exit_code == 2
    del sys.modules["some_models"]
