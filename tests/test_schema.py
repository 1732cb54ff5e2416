"""Declarations: what can be declared, what earlier versions wrote, and what a type checker makes of it."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.checker import mypy
from tests.declared import ORDERS, SAMPLES, Order, declare, exactly, nested

from fieldsync import schema as fs
from fieldsync.converting import CONVERTED, MISFIT, Conversion
from fieldsync.errors import SchemaError
from fieldsync.values import CHECKS

# --- declarations ---


def test_a_class_declares_its_fields_in_order():
    assert ORDERS.name == "orders"
    assert ORDERS.record is Order
    assert [(f.name, f.kind, f.type, f.optional, f.indexed) for f in ORDERS.fields] == [
        ("customer", "register", str, False, False),
        ("status", "register", str, False, True),
        ("price", "register", Decimal, True, False),
        ("weight", "register", float, False, False),
        ("placed", "register", datetime, True, False),
        ("tags", "register", list, False, False),
        ("extra", "register", dict, True, False),
        ("hours", "counter", float, False, False),
        ("visits", "counter", float, False, False),
    ]
    assert repr(ORDERS).startswith("Collection('orders', fields=['customer', 'status',")
    assert ORDERS.absent == (None, "open", None, 0.5, None, None, None, 0, 0)


def test_the_table_is_named_after_the_class_unless_told():
    assert SAMPLES.name == "samples"
    assert declare({}, "OrderLine").name == "orderlines"
    assert declare({}, "OrderLine", table="lines").name == "lines"


def test_a_class_inherits_fields_and_can_declare_them_anew():
    class Dated(fs.Record):
        made: date
        status: str = "new"

    class Visit(Dated, table="visits"):
        place: str
        status: str = "planned"

    visits = fs.Collection.of(Visit)
    assert [field.name for field in visits.fields] == ["made", "status", "place"]
    with pytest.raises(TypeError, match=r"visits\.made wants date, got str"):
        visits.field("made").check("today")
    assert visits.check_new({"made": date(2024, 5, 1), "place": "Bonn"})["status"] == "planned"
    assert fs.Collection.of(Dated).field("status").default == "new"
    with pytest.raises(SchemaError, match="annotate it"):
        type(fs.Record)("Late", (Dated,), {"status": "late"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"_hidden": (int,)}, "start with _"),
        ({"key": (str,)}, "every record has this attribute"),
        ({"scope": (str,)}, "every record has this attribute"),
        ({"collection": (str,)}, "every record has this attribute"),
        ({"as_dict": (dict,)}, "every record has this attribute"),
        ({"size": (complex,)}, r"things\.size: .*complex.* is no type"),
        ({"size": (int | str,)}, "is no type"),
        ({"size": (int | str | None,)}, "is no type"),
        ({"size": (set[complex],)}, "is no type"),
        ({"size": (set[int | str],)}, "is no type"),
        ({"size": (str, fs.field(keep="all"))}, r"declared as tuple\[T"),
        ({"size": (tuple[int, int], fs.field(keep="all"))}, r"declared as tuple\[T"),
        ({"size": (tuple[int, ...],)}, 'is no type of a value; a tuple is for keep="all"'),
        ({"size": (tuple[int, ...], fs.field(keep="some"))}, 'keep is "latest" or "all"'),
        ({"size": (fs.Counter | None,)}, r"things\.size: fieldsync\.Counter is no type of a value; it stands alone"),
        ({"size": (list[fs.Counter],)}, "it stands alone"),
        ({"size": (fs.Text | None,)}, r"fieldsync\.Text is no type of a value; it stands alone, and is never None"),
        ({"size": (dict[str, fs.List],)}, "it stands alone"),
        ({"size": (set[fs.Map],)}, "it stands alone"),
        ({"size": (set[int] | None,)}, "it stands alone, and is empty at first"),
        ({"size": (set[list[int]],)}, "elements of a set cannot be lists or dicts"),
        ({"size": (set[dict[str, int]],)}, "elements of a set cannot be lists or dicts"),
        ({"size": (dict[int, str],)}, "keys of a dict are str"),
        ({"size": (int, "big")}, r"default of things\.size wants int, got str"),
        ({"size": (int, None)}, "wants int, got NoneType"),
        ({"size": (fs.Counter, math.inf)}, "wants a finite number"),
        ({"size": (list, [])}, "use default_factory"),
        ({"size": (int, fs.Options(default=1, default_factory=int))}, "not both"),
        ({"size": (int,), "Size": (int,)}, "upper and lower case"),
        ({"Key": (int,)}, "upper and lower case"),
        ({"size": (int, fs.field(stored_as="_size"))}, r"things\.size: stored_as: names that start with _"),
        ({"size": (int, fs.field(stored_as=""))}, "stored_as: a name has 1 to 128 bytes"),
        ({"size": (int,), "width": (int, fs.field(stored_as="size"))}, "two fields are stored as size"),
        ({"size": (fs.Counter, fs.field(converts=str))}, "for a field that holds one value"),
        ({"size": (set[int], fs.field(converts=str))}, "for a field that holds one value"),
        ({"size": (tuple[int, ...], fs.field(keep="all", converts=str))}, "for a field that holds one value"),
        ({"size": (Any, fs.field(converts=str))}, "for a field of one of the types bool, int"),
        ({"size": (int, fs.field(converts=int))}, "is not converted to int: bool, float, Decimal, str is"),
        ({"size": (int, fs.field(converts=(str, bytes)))}, "bytes.* is not converted to int"),
        ({"size": (dict, fs.field(converts=str))}, "nothing is; name values and what they become"),
        ({"size": (int, fs.field(converts=len))}, "is not converted to int"),
        ({"size": (int, fs.field(converts={"small": "1"}))}, r"values that cannot be: things\.size wants int, got str"),
        ({"size": (int, fs.field(converts={object(): 1}))}, "values that cannot be: a value of type object"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(body, message):
    with pytest.raises(SchemaError, match=message):
        declare(body)


@pytest.mark.parametrize("name", ["", "_x", "key", "sqlite_x", "SQLite_x", "fs_x", "a\0b", "ä" * 65, "\ud800"])
def test_a_collection_has_a_plain_name(name):
    with pytest.raises(SchemaError):
        fs.Collection(name)


def test_options_without_an_annotation_are_refused():
    with pytest.raises(SchemaError, match=r"things\.size is a field; annotate it"):
        type(fs.Record)("Thing", (fs.Record,), {"size": fs.field(default=1)})


def test_an_annotation_that_does_not_resolve_says_where_types_belong():
    with pytest.raises(SchemaError, match=r"things: name 'Missing' is not defined.*not under TYPE_CHECKING"):
        declare({"size": ("Missing",)})


@pytest.mark.parametrize("other", [fs.Record, fs.Snapshot, int, "orders", None])
def test_only_derived_classes_declare_a_collection(other):
    with pytest.raises(SchemaError, match="derived from Record"):
        fs.Collection.of(other)


def test_the_signature_follows_what_columns_and_indexes_follow_from():
    size = declare({"size": (int,)}).row.signature
    assert declare({"size": (int,)}).row.signature == size
    assert declare({"size": (str,)}).row.signature == size  # a column holds what was written, whatever is declared
    same = declare({"size": (int,), "name": (str,)}).row.signature
    assert declare({"name": (str,), "size": (int,)}).row.signature == same
    others = [
        declare({}).row.signature,
        declare({"length": (int,)}).row.signature,
        declare({"size": (fs.Counter,)}).row.signature,
        declare({"size": (int, fs.field(index=True))}).row.signature,
        declare({"size": (int, 5)}).row.signature,
        declare({"size": (float, 5.0)}).row.signature,
        same,
    ]
    assert len({size, *others}) == len(others) + 1


# --- what earlier versions wrote ---


def test_a_field_may_be_stored_under_another_name():
    things = declare({"width": (int, fs.field(stored_as="size")), "size": (str, fs.field(stored_as="label"))})
    assert [cell for cell, _ in things.cells] == ["size", "label"]
    assert (things.name_of(("size", 8)), things.name_of(("label", 8))) == ("width", "size")
    assert things.name_of(("size", 20)) == ""  # another version's counter of that name, which is no "size" of these
    assert things.name_of(("other", 8)) == "other"
    assert declare({"width": (int, fs.field(stored_as="key"))}).cells == (("key", 8),)  # kept since, free before
    assert declare({"n": (fs.Counter,), "old": (int | None, fs.field(stored_as="n"))}).cells == (("n", 20), ("n", 8))


def test_a_class_inherits_the_names_of_cells_and_conversions():
    class Base(fs.Record):
        size: int = fs.field(default=0, stored_as="length", converts=str)

    class Derived(Base, table="derived"):
        name: str

    (size, _) = fs.Collection.of(Derived).fields
    assert size.cell[0] == "length"
    assert size.shown("5") == 5


MOMENT = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
CONVERSIONS = [
    *[
        (int, "12", 12),
        (int, " -3 ", -3),
        (int, "1.5", None),
        (int, "", None),
        (int, "1_0", None),
        (int, "\u0663", None),
    ],
    *[(int, True, 1), (int, 2.0, 2), (int, 2.5, None), (int, math.nan, None), (int, math.inf, None), (int, 1e30, None)],
    *[(int, Decimal("5.00"), 5), (int, Decimal("5.01"), None), (int, "9" * 19, None), (int, "9" * 18, 10**18 - 1)],
    *[(float, "1.5e3", 1500.0), (float, "1e999", None), (float, "nan", None), (float, 3, 3.0), (float, "1,5", None)],
    *[(float, Decimal("0.1"), 0.1), (Decimal, 0.1, Decimal("0.1")), (Decimal, "5.00", Decimal("5.00"))],
    *[(Decimal, 7, Decimal(7)), (Decimal, math.inf, None), (Decimal, "x", None), (Decimal, "5e-2", Decimal("0.05"))],
    *[(str, 5, "5"), (str, 0.1, "0.1"), (str, True, "true"), (str, Decimal("5.00"), "5.00")],
    *[(str, date(2024, 5, 1), "2024-05-01"), (str, MOMENT, "2024-05-01T12:30:00.000000Z")],
    *[(bool, 1, True), (bool, 0.0, False), (bool, 2, None), (bool, "Yes", True), (bool, "maybe", None)],
    *[(bytes, "\xe4", "\xe4".encode()), (date, MOMENT, date(2024, 5, 1)), (date, "2024-05-01", date(2024, 5, 1))],
    *[(date, "20240501", None), (date, "2024-13-01", None), (datetime, "2024-05-01T14:30+02:00", MOMENT)],
    *[(datetime, "2024-05-01 12:30:00Z", MOMENT), (datetime, "2024-05-01T12:30", None)],
    *[(datetime, "0001-01-01T00:00+01:00", None), (datetime, date(2024, 5, 1), MOMENT.replace(hour=0, minute=0))],
    *[(list, "a", ["a"]), (list, 5, [5]), (int, b"5", None), (int, [5], None), (int, None, None)],
]


@pytest.mark.parametrize(("kind", "stored", "read"), CONVERSIONS)
def test_values_of_other_types_are_read_as_the_declared_one(kind, stored, read):
    field = declare({"size": (kind, fs.field(converts=CONVERTED[kind]))}).field("size")
    assert exactly(field.shown(stored)) == exactly(read)


def test_single_values_are_read_as_others_exactly_as_they_were_written():
    things = declare({"size": (int, fs.field(default=-1, converts={"small": 1, 1.5: 10, False: 0, None: 5}))})
    shown = [things.field("size").shown(value) for value in ("small", 1, 1.5, True, False, 0, None, "large")]
    assert shown == [1, 1, 10, -1, 0, 0, 5, -1]
    words = declare({"state": (str, fs.field(default="?", converts={"cancelled": "canceled"}))}).field("state")
    assert [words.shown(value) for value in ("cancelled", "open", 5)] == ["canceled", "open", "?"]


def test_a_field_that_converts_nothing_shows_its_type_or_the_default():
    strict = declare({"size": (int, fs.field(default=7, converts=())), "name": (str | None, fs.field(converts=()))})
    assert [strict.field("size").shown(value) for value in (5, "5", True, None)] == [5, 7, 7, 7]
    assert [strict.field("name").shown(value) for value in ("x", None, 5)] == ["x", None, None]


@given(st.data(), st.sampled_from(sorted(CONVERTED, key=str)))
def test_a_conversion_gives_the_type_or_a_misfit_in_every_process_alike(data, kind):
    """Whatever comes: a value that the door takes, or none; and the same from what a file keeps of the conversion."""
    sources = data.draw(st.lists(st.sampled_from(CONVERTED[kind]), unique=True)) if CONVERTED[kind] else []
    conversion = declare({"size": (kind, fs.field(converts=tuple(sources)))}).field("size").conversion
    assert conversion is not None
    kept = Conversion.of_json(json.loads(json.dumps(conversion.as_json())))
    assert kept == conversion
    value = data.draw(nested | st.from_regex(r"[+-]?[0-9]{1,25}(\.[0-9]*)?(e[0-9]{1,3})?"))
    read = conversion.read(value)
    assert exactly(read) == exactly(kept.read(value))
    if read is not MISFIT:
        assert type(read) is kind
        assert exactly(CHECKS[kind](read, 0)) == exactly(read)
    if type(value) is kind:
        assert read is value


# --- in the eyes of a type checker ---


TYPED_APP = """
from __future__ import annotations
from datetime import datetime
from decimal import Decimal
from typing import Any
from fieldsync import codec
from fieldsync import schema as fs

class Order(fs.Record, table="orders"):
    customer: str
    status: str = fs.field(default="open", index=True)
    price: Decimal | None = None
    tags: list[str] = fs.field(default_factory=list)
    extra: dict[str, Any] = fs.field(default_factory=dict)
    placed: datetime = fs.field(index=True)
    size: int = fs.field(default=0, stored_as="length", converts=(str, float))
    hours: fs.Counter = 0
    visits: fs.Counter

def work(order: Order, note: fs.Snapshot) -> str:
    order.status, order.hours = "done", order.hours + 1.5
    order.visits += 1
    order.tags.append(order.customer.upper())
    order.price = Decimal("5.00") if order.price is None else order.price * 2
    note.anything = note.text
    return order.key + order.scope + order.collection + str(order["status"])
"""
MISTAKES = """
def mistakes(order: Order) -> None:
    order.staus = "done"
    order.status = 5
    order.hours = "many"
    order.price + 1

class Bad(fs.Record):
    size: int = fs.field(default="big")
"""


def test_declarations_type_check(tmp_path):
    assert mypy(tmp_path / "app.py", TYPED_APP).startswith("Success")
    found = mypy(tmp_path / "app.py", TYPED_APP + MISTAKES)
    first = (TYPED_APP + MISTAKES).splitlines().index("def mistakes(order: Order) -> None:") + 1
    assert [int(line.split(":")[1]) - first for line in found.splitlines() if " error: " in line] == [1, 2, 3, 4, 7]
