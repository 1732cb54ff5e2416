"""Declarations, the door that values pass, snapshots and drafts."""

from __future__ import annotations

import copy
import enum
import json
import math
import os
import pickle
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync import schema as fs
from fieldsync.converting import CONVERTED, MISFIT, Conversion
from fieldsync.draft import Draft
from fieldsync.errors import SchemaError
from fieldsync.limits import VALUE_DEPTH_MAX
from fieldsync.values import CHECKS, check_value


class Order(fs.Record, table="orders"):
    MOST: ClassVar[int] = 40
    customer: str
    status: str = fs.field(default="open", index=True)
    price: Decimal | None = None
    weight: float = 0.5
    placed: Optional[datetime]  # noqa: UP045 (the older spelling)
    tags: list[str] = fs.field(default_factory=list)
    extra: dict[str, Any] | None = None
    hours: fs.Counter = 0
    visits: fs.Counter

    def label(self) -> str:
        return f"{self.customer}, {self.status}"


class Sample(fs.Record):
    a_bool: bool
    an_int: int
    a_float: float
    a_decimal: Decimal
    a_str: str
    a_bytes: bytes
    a_date: date
    a_datetime: datetime
    a_list: list
    a_dict: dict
    numbers: list[int | None]
    a_note: Annotated[str, "for people"]
    anything: Any


ORDERS = fs.Collection.of(Order)
SAMPLES = fs.Collection.of(Sample)
NOTES = fs.Collection("notes")
VALUES = ("Acme", "open", Decimal("5.00"), 0.5, None, ["a"], None, 2, 3)
SCALARS = {
    "a_bool": st.booleans(),
    "an_int": st.integers(-(2**63), 2**63 - 1),
    "a_float": st.floats(),
    "a_decimal": st.decimals(allow_nan=False, allow_infinity=False),
    "a_str": st.text(st.characters(exclude_categories=["Cs"])),
    "a_bytes": st.binary(),
    "a_date": st.dates(),
    "a_datetime": st.datetimes(timezones=st.just(UTC)),
}


nested = st.recursive(
    st.none() | st.one_of(*SCALARS.values()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS["a_str"], inner, max_size=4),
    max_leaves=12,
)


def exactly(value: object) -> object:
    """What tells 1, True, 1.0 and Decimal("1.0") apart, and NaN from nothing."""
    return repr(value)


def declare(body: dict[str, Any], name: str = "Thing", **keywords: Any) -> fs.Collection:
    annotations = {field: annotation for field, (annotation, *_) in body.items()}
    defaults = {field: rest[0] for field, (_, *rest) in body.items() if rest}
    made = type(fs.Record)(name, (fs.Record,), {"__annotations__": annotations, **defaults}, **keywords)
    return fs.Collection.of(made)


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


# --- the door ---


@given(st.data(), st.sampled_from(sorted(SCALARS)))
def test_a_scalar_comes_back_as_it_went_in(data, name):
    value = data.draw(SCALARS[name])
    assert exactly(SAMPLES.field(name).check(value)) == exactly(value)
    assert exactly(check_value("x", value)) == exactly(value)
    assert exactly(SAMPLES.field("anything").check(value)) == exactly(value)


@given(st.lists(nested), st.dictionaries(SCALARS["a_str"], nested))
def test_lists_and_dicts_come_back_as_new_ones(a_list, a_dict):
    for name, value in (("a_list", a_list), ("a_dict", a_dict)):
        checked = SAMPLES.field(name).check(value)
        assert exactly(checked) == exactly(value)
        assert checked is not value


REFUSED = {
    "a_bool": [1, 0, None, "yes"],
    "an_int": [True, 1.0, "1", None, 2**63, -(2**63) - 1, Decimal(1)],
    "a_float": [True, "1", None, Decimal(1), 2**53 + 1, 2**63],
    "a_decimal": [1.5, True, "1", Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1e100001"), 2**63],
    "a_str": [b"x", 1, None, "\ud800"],
    "a_bytes": ["x", bytearray(b"x"), memoryview(b"x")],
    "a_date": [datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01"],
    "a_datetime": [
        date(2024, 5, 1),
        datetime(2024, 5, 1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
    "a_list": [("a",), {"a"}, "ab", [{1, 2}], [("a",)], [2**63], [datetime(2024, 5, 1)]],
    "a_dict": [[], {1: 2}, {"a": {None: 1}}, {"\ud800": 1}, {"a": object()}],
    "numbers": [["a"], [True], [1.0], 5],
    "a_note": [5],
    "anything": [object(), ("a",), 2**63, complex(1, 2), [Decimal("7" * 2_000)]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_cannot_be_held_is_a_type_error_that_names_the_field(name, value):
    with pytest.raises(TypeError, match=rf"^samples\.{name}(\[\.\.\.\])* (wants|is)") as refused:
        SAMPLES.field(name).check(value)
    assert type(refused.value) is TypeError
    with pytest.raises(TypeError, match=rf"^samples\.{name}"):
        SAMPLES.check_new(required_before(name) | {name: value})


def required_before(name: str) -> dict[str, object]:
    """Good values for the fields that are checked before `name`."""
    good = (True, 1, 1.0, Decimal(1), "", b"", date(1, 1, 1), datetime(2000, 1, 1, tzinfo=UTC), [], {}, [], "")
    names = list(SAMPLES.places)
    return dict(zip(names[: names.index(name)], good, strict=False))


def test_refusals_say_the_type_wanted_the_type_got_and_what_helps():
    with pytest.raises(TypeError, match=r"^orders\.price wants Decimal, got float$"):
        ORDERS.field("price").check(1.5)
    with pytest.raises(TypeError, match=r"^orders\.tags\[\.\.\.\] wants str, got int$"):
        ORDERS.field("tags").check(["a", 5])
    with pytest.raises(TypeError, match=r"^orders\.placed .* naive .* attach"):
        ORDERS.field("placed").check(datetime(2024, 5, 1))
    with pytest.raises(TypeError, match=r"^notes\.n wants one of bool, int, .*, got set$"):
        check_value("notes.n", {1})


def test_an_optional_field_holds_none_and_others_do_not():
    assert ORDERS.field("price").check(None) is None
    assert SAMPLES.field("numbers").check([1, None]) == [1, None]
    with pytest.raises(TypeError, match=r"orders\.status wants str, got NoneType"):
        ORDERS.field("status").check(None)


def test_an_int_becomes_the_declared_float_or_decimal_where_nothing_is_lost():
    assert exactly(SAMPLES.field("a_float").check(2**53)) == exactly(float(2**53))
    assert exactly(SAMPLES.field("a_decimal").check(5)) == exactly(Decimal(5))
    assert exactly(check_value("x", 5)) == "5"


def test_an_aware_datetime_becomes_utc():
    there = datetime(2024, 5, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert exactly(SAMPLES.field("a_datetime").check(there)) == exactly(datetime(2024, 4, 30, 23, 30, tzinfo=UTC))
    assert exactly(check_value("x", [there])) == exactly([datetime(2024, 4, 30, 23, 30, tzinfo=UTC)])


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class OldColor(str, enum.Enum):  # noqa: UP042 (its str() is another text)
    RED = "red"


def subclass(base: type) -> type:
    return type("Sub", (base,), {})


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("a_str", Color.RED, "red"),
        ("a_str", OldColor.RED, "red"),
        ("an_int", Level.HIGH, 3),
        ("a_float", subclass(float)(1.5), 1.5),
        ("a_decimal", subclass(Decimal)("5.00"), Decimal("5.00")),
        ("a_bytes", subclass(bytes)(b"x"), b"x"),
        ("a_date", subclass(date)(2024, 5, 1), date(2024, 5, 1)),
        ("a_datetime", subclass(datetime)(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
        ("a_list", subclass(list)([1]), [1]),
        ("a_dict", subclass(dict)({Color.RED: Level.HIGH}), {"red": 3}),
    ],
)
def test_a_subclass_becomes_the_plain_type(name, value, plain):
    for checked in (SAMPLES.field(name).check(value), check_value("x", value)):
        assert exactly(checked) == exactly(plain)
        assert type(checked) is type(plain)


def nest(levels: int, leaf: Any, wrap: Any) -> Any:
    for _ in range(levels):
        leaf = wrap(leaf)
    return leaf


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_depth_is_bounded(wrap):
    deepest = nest(VALUE_DEPTH_MAX, Decimal(1), wrap)
    assert check_value("x", deepest) == deepest
    with pytest.raises(TypeError, match="nested deeper than 32"):
        check_value("x", wrap(deepest))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="nested deeper"):
        check_value("x", endless)


# --- create ---


def test_create_fills_in_defaults_that_say_something():
    assert ORDERS.check_new({"customer": "Acme"}) == {"customer": "Acme", "status": "open", "weight": 0.5, "tags": []}
    given_none = ORDERS.check_new({"customer": "Acme", "price": None, "hours": 0})
    assert given_none["price"] is None
    assert given_none["hours"] == 0
    first, second = (ORDERS.check_new({"customer": "Acme"})["tags"] for _ in range(2))
    assert first is not second


def test_create_wants_what_is_required_and_knows_no_other_names():
    with pytest.raises(TypeError, match=r"^orders\.customer is required$"):
        ORDERS.check_new({"status": "open"})
    with pytest.raises(SchemaError, match="orders has no field 'staus'; did you mean 'status'"):
        ORDERS.check_new({"customer": "Acme", "staus": "done"})
    with pytest.raises(TypeError, match=r"^orders\.status wants str, got int"):
        ORDERS.check_new({"customer": "Acme", "status": 1})


def test_what_a_factory_makes_is_checked():
    bad = declare({"size": (int, fs.field(default_factory=str))})
    with pytest.raises(TypeError, match=r"^things\.size wants int, got str"):
        bad.check_new({})


def test_an_undeclared_collection_takes_any_plain_name():
    values = {"text": "x", "a b": 1, "price__gt": [1], "Größe": None}
    assert NOTES.check_new(values) == values
    for name in ("key", "scope", "_x", "as_dict", "a\nb", ""):
        with pytest.raises(SchemaError, match=r"field .* of notes"):
            NOTES.check_new({name: 1})
    with pytest.raises(TypeError, match=r"^notes\.text wants one of"):
        NOTES.check_new({"text": {1}})


def test_values_that_a_record_lacks_read_as_their_default():
    assert ORDERS.fill({"customer": "Acme", "status": None, "later": 5}) == (
        *("Acme", None, None, 0.5, None, None, None),
        *(0, 0),
    )
    assert NOTES.fill({"later": 5}) == {"later": 5}


# --- snapshots ---


def test_a_snapshot_is_an_instance_of_its_class():
    order = ORDERS.snapshot("o-1", "job/7", VALUES)
    assert isinstance(order, Order)
    assert (order.key, order.scope, order.collection) == ("o-1", "job/7", "orders")
    assert (order.customer, order.price, order.tags, order.hours, order.visits) == (
        "Acme",
        Decimal("5.00"),
        ["a"],
        2,
        3,
    )
    assert (order["status"], order["key"], order["scope"]) == ("open", "o-1", "job/7")
    assert order.label() == "Acme, open"
    assert "status" in order
    assert "staus" not in order
    assert order.as_dict() == {"key": "o-1", "scope": "job/7", **dict(zip(ORDERS.places, VALUES, strict=True))}
    assert repr(order).startswith(
        "Order(key='o-1', scope='job/7', customer='Acme', status='open', price=Decimal('5.00')"
    )
    with pytest.raises(KeyError, match="orders 'o-1' has no field 'staus'"):
        order["staus"]


def test_an_undeclared_snapshot_reads_by_attribute_and_by_name():
    note = NOTES.snapshot("n1", "job/7", {"text": "x", "a b": 1})
    assert (note.text, note["a b"], note["key"], note.collection) == ("x", 1, "n1", "notes")
    assert note.as_dict() == {"key": "n1", "scope": "job/7", "text": "x", "a b": 1}
    assert repr(note) == "Snapshot(key='n1', scope='job/7', text='x', a b=1)"
    assert not hasattr(note, "missing")
    with pytest.raises(AttributeError, match="no field txet; did you mean 'text'"):
        _ = note.txet
    with pytest.raises(KeyError, match="no field 'txet'"):
        note["txet"]


def test_fields_of_foreign_names_hide_nothing():
    note = NOTES.snapshot("n1", "job/7", {"key": "fake", "scope": "fake", "as_dict": 1})
    assert (note.key, note["key"], note.scope) == ("n1", "n1", "job/7")
    assert note.as_dict() == {"key": "n1", "scope": "job/7", "as_dict": 1}
    sly = NOTES.snapshot("n1", "job/7", {"_draft": "mine", "_secret": 1})
    assert sly["_secret"] == 1
    for name in ("_draft", "_secret"):
        with pytest.raises(AttributeError):
            getattr(sly, name)
    with pytest.raises(AttributeError, match="frozen"):
        sly.text = "x"


@pytest.mark.parametrize("name", ["status", "key", "scope", "staus", "_values"])
@pytest.mark.parametrize("values", [VALUES, {"status": "open"}])
def test_a_snapshot_is_frozen(name, values):
    collection = NOTES if isinstance(values, dict) else ORDERS
    record = collection.snapshot("o-1", "job/7", values)
    before = record.as_dict()
    with pytest.raises(AttributeError, match=r"frozen snapshot of (orders|notes) 'o-1'.*db\.write\(\)"):
        setattr(record, name, "done")
    with pytest.raises(AttributeError):
        delattr(record, name)
    assert record.as_dict() == before


def test_snapshots_are_equal_by_what_they_say():
    order = ORDERS.snapshot("o-1", "job/7", VALUES)
    same = ORDERS.snapshot("o-1", "job/7", VALUES)
    assert order == same
    assert hash(order) == hash(same)
    note = NOTES.snapshot("o-1", "job/7", {"a": 1})
    assert note == fs.Collection("notes").snapshot("o-1", "job/7", {"a": 1})
    others = [
        ORDERS.snapshot("o-2", "job/7", VALUES),
        ORDERS.snapshot("o-1", "job/8", VALUES),
        ORDERS.snapshot("o-1", "job/7", ("Bolt", *VALUES[1:])),
        fs.Collection("memos").snapshot("o-1", "job/7", {"a": 1}),
        NOTES.snapshot("o-1", "job/7", {"a": 2}),
        note,
        "o-1",
    ]
    assert order not in others
    assert others.count(note) == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))])
def test_records_can_be_copied_and_pickled_as_snapshots(duplicate):
    for collection, values in ((ORDERS, VALUES), (NOTES, {"text": ["x"]})):
        for record in (collection.snapshot("k", "s", values), Draft(collection, "k", "s", values).record):
            twin = duplicate(record)
            assert twin == record
            assert type(twin) is type(record)
            with pytest.raises(AttributeError, match="frozen"):
                twin.status = "done"


def test_apps_do_not_make_records_themselves():
    with pytest.raises(TypeError, match=r"tx\.create"):
        Order(customer="Acme")
    with pytest.raises(TypeError, match=r"tx\.create"):
        fs.Snapshot()


# --- drafts ---


def test_a_draft_reads_its_own_writes_and_tells_them():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    order = draft.record
    assert isinstance(order, Order)
    order.status, order.hours = "done", order.hours + 1.5
    order.visits += 1
    order.visits += 1
    order.weight = 2
    assert (order.status, order["status"], order.as_dict()["status"]) == ("done", "done", "done")
    assert (order.hours, order.visits) == (3.5, 5)
    assert exactly(draft.changes()) == exactly({"status": "done", "weight": 2.0})
    assert draft.increments() == {"hours": 1.5, "visits": 2}


def test_an_equal_value_is_a_write_and_an_equal_total_is_none():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    draft.record.status = "open"
    draft.record.hours += 5
    draft.record.hours -= 5
    assert draft.changes() == {"status": "open"}
    assert draft.increments() == {}


def test_a_draft_refuses_names_and_values_that_cannot_be():
    order = Draft(ORDERS, "o-1", "job/7", VALUES).record
    with pytest.raises(AttributeError, match="orders has no field 'staus'; did you mean 'status'"):
        order.staus = "done"
    with pytest.raises(TypeError, match=r"orders\.status wants str, got int"):
        order.status = 5
    for name in ("key", "scope", "_values"):
        with pytest.raises(AttributeError, match="has no field"):
            setattr(order, name, "x")
    with pytest.raises(SchemaError, match="did you mean 'status'"):
        Draft(ORDERS, "o-1", "job/7", VALUES).assign("staus", "done")
    assert order == ORDERS.snapshot("o-1", "job/7", VALUES)


def test_an_undeclared_draft_takes_any_name():
    draft = Draft(NOTES, "n1", "job/7", {"text": "x", "size": 1})
    note = draft.record
    note.text = "y"
    note.color = Color.RED
    assert note.color == "red"
    assert draft.changes() == {"text": "y", "color": "red"}
    assert draft.increments() == {}
    with pytest.raises(AttributeError, match="every record has this attribute"):
        note.key = "n2"
    with pytest.raises(TypeError, match=r"notes\.text wants one of"):
        note.text = object()


@pytest.mark.parametrize(("collection", "values"), [(ORDERS, VALUES), (NOTES, {"tags": ["a"], "n": 1})])
def test_a_list_changed_in_place_is_a_write_and_is_checked(collection, values):
    def draft() -> Draft:
        return Draft(collection, "k", "s", copy.deepcopy(values))

    untouched, appended, retyped, bad = draft(), draft(), draft(), draft()
    appended.record.tags.append("b")
    retyped.record.tags[:] = [Color.RED]
    bad.record.tags.append({1})
    assert untouched.changes() == {}
    assert appended.changes() == {"tags": ["a", "b"]}
    assert exactly(retyped.changes()) == exactly({"tags": ["red"]})
    with pytest.raises(TypeError, match=r"\.tags\[\.\.\.\] wants"):
        bad.changes()
    replaced = draft()
    replaced.record.tags = mine = ["x"]
    mine.append("not stored")
    replaced.record.tags.append("y")
    assert replaced.changes() == {"tags": ["x", "y"]}


def test_a_list_that_changes_its_types_alone_is_a_write():
    draft = Draft(NOTES, "k", "s", {"tags": [1]})
    draft.record.tags[0] = True
    assert exactly(draft.changes()) == "{'tags': [True]}"


def test_a_new_record_writes_what_it_was_given_and_its_defaults():
    draft = Draft.create(ORDERS, "o-1", "job/7", {"customer": "Acme", "hours": 2.5})
    assert draft.record == ORDERS.snapshot("o-1", "job/7", ("Acme", "open", None, 0.5, None, [], None, 2.5, 0))
    draft.record.visits += 2
    draft.record.tags.append("new")
    assert draft.changes() == {"customer": "Acme", "status": "open", "weight": 0.5, "tags": ["new"]}
    assert draft.increments() == {"hours": 2.5, "visits": 2}
    assert Draft.create(NOTES, "n1", "s", {"text": "x"}).changes() == {"text": "x"}


def test_a_draft_is_closed_with_its_transaction():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    draft.record.status = "done"
    draft.close()
    with pytest.raises(AttributeError, match="transaction of this draft is over"):
        draft.record.status = "late"
    assert draft.record.status == "done"


counts = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.decimals(-(10**9), 10**9, places=4)


@given(counts, st.lists(counts, max_size=5))
def test_increments_carry_the_total_from_what_was_read_to_what_was_set(total, totals):
    draft = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], total))
    order = draft.record
    for value in totals:
        if {type(total), type(value)} == {float, Decimal}:
            with pytest.raises(TypeError, match=r"orders\.visits counts in"):
                order.visits = value
        else:
            order.visits = value
    increment = draft.increments().get("visits", 0)
    if isinstance(order.visits, float) or isinstance(increment, float):
        rounding = 1e-6 + 1e-15 * abs(float(total))  # of the increment, which is as large as the total was
        assert math.isclose(total + increment, order.visits, rel_tol=1e-12, abs_tol=rounding)
    else:
        assert total + increment == order.visits  # int and Decimal count exactly
    assert type(increment) is not bool
    assert draft.changes() == {}


@pytest.mark.parametrize("value", [True, None, "1", math.nan, math.inf, Decimal("NaN"), 2**63, [1]])
def test_a_counter_counts_in_finite_numbers(value):
    order = Draft(ORDERS, "o-1", "job/7", VALUES).record
    with pytest.raises(TypeError, match=r"^orders\.hours wants"):
        order.hours = value
    assert order.hours == 2


def test_decimals_count_exactly():
    digits = Decimal("12345678901234567890123456789012345678901234567890.01")
    draft = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], 1))
    draft.record.visits = digits
    assert draft.increments() == {"visits": Decimal("12345678901234567890123456789012345678901234567889.01")}


def test_a_difference_beyond_64_bits_is_refused():
    order = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], -5)).record
    with pytest.raises(TypeError, match=r"^orders\.visits wants an int of 64 bits"):
        order.visits = 2**63 - 1


operations = st.lists(st.tuples(st.sampled_from(["text", "size", "tags"]), nested), max_size=8)


@given(st.dictionaries(st.sampled_from(["text", "size"]), nested), operations)
def test_a_draft_is_what_was_read_with_the_last_writes_on_top(values, writes):
    draft = Draft(NOTES, "n1", "s", copy.deepcopy(values))
    for name, value in writes:
        setattr(draft.record, name, value)
    assert exactly(draft.changes()) == exactly(dict(writes))
    assert exactly({"key": "n1", "scope": "s"} | values | dict(writes)) == exactly(draft.record.as_dict())


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


def mypy(path: Path, text: str) -> str:
    path.write_text(text)
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={path.parent}"]
    root = Path(fs.__file__).parent.parent
    environment = os.environ | ({} if root.name == "site-packages" else {"MYPYPATH": str(root)})
    command = [sys.executable, "-m", "mypy", *options, path.name]
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False).stdout


def test_declarations_type_check(tmp_path):
    assert mypy(tmp_path / "app.py", TYPED_APP).startswith("Success")
    found = mypy(tmp_path / "app.py", TYPED_APP + MISTAKES)
    first = (TYPED_APP + MISTAKES).splitlines().index("def mistakes(order: Order) -> None:") + 1
    assert [int(line.split(":")[1]) - first for line in found.splitlines() if " error: " in line] == [1, 2, 3, 4, 7]
