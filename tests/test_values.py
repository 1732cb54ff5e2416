"""The door that values pass: what comes back as it went in, and what is refused."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.declared import ORDERS, SAMPLES, SCALARS, Color, exactly, nested

from fieldsync.limits import VALUE_DEPTH_MAX
from fieldsync.values import check_value


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
