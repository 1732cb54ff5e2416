"""Templates, which make keys and scopes of the columns of a row."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync.errors import SchemaError
from fieldsync.template import fill_template


def test_templates_and_columns_are_filled():
    row = {"origin": "JFK", "carrier": "9E", "n": 7, "when": datetime(2013, 1, 1, 10, tzinfo=UTC), "a b%s": "x"}
    assert fill_template("origin")(row) == "JFK"
    assert fill_template("n", row)(row) == "7"
    assert fill_template("{origin}/{carrier}", row)(row) == "JFK/9E"
    assert fill_template("100%/{when}/{n}%s", row)(row) == "100%/2013-01-01T10:00:00Z/7%s"
    assert fill_template("{a b%s}{a b%s}")(row) == "xx"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (2.5, "2.5"),
        (Decimal("5.00"), "5.00"),
        (date(2013, 1, 31), "2013-01-31"),
        (datetime(2013, 1, 31, 5, tzinfo=timezone(timedelta(hours=2))), "2013-01-31T05:00:00+02:00"),
        (0, "0"),
    ],
)
def test_plain_values_are_written(value, text):
    assert fill_template("job/{v}")({"v": value}) == f"job/{text}"


@pytest.mark.parametrize("template", ["{nope}/{b}", "{b}/{nope}", "nope", "{nope.__class__}", "{0}", "{b!r}", "{b:>9}"])
def test_unknown_columns_are_listed(template):
    with pytest.raises(SchemaError, match="the columns are a, b"):
        fill_template(template, ["a", "b"])
    with pytest.raises(SchemaError, match="the columns are a, b"):
        fill_template(template)({"a": 1, "b": 2})


@pytest.mark.parametrize("template", ["", "{}", "{a}/{", "}{a}", "{{a}}", "{a", "a}", "x/{a}/{}"])
def test_broken_templates_are_refused(template):
    with pytest.raises(SchemaError):
        fill_template(template, ["a", "b"])


@pytest.mark.parametrize(
    ("value", "hint"),
    [(None, "'b' has no value"), ("", "'b' has no value"), ([1], "'b' has a list"), (b"x", "'b' has a bytes")],
)
@pytest.mark.parametrize("template", ["b", "{a}/{b}", "{b}/{a}"])
def test_rows_without_a_usable_value_say_why(template, value, hint):
    with pytest.raises(ValueError, match=hint):
        fill_template(template, ["a", "b"])({"a": "x", "b": value})


@given(
    st.dictionaries(st.text("abc{}%", min_size=1).filter(lambda name: not {"{", "}"} & set(name)), st.text(min_size=1))
)
def test_any_columns_fill_a_template(row):
    template = "".join(f"/{{{name}}}%" for name in row)
    if row:
        assert fill_template(template, row)(row) == "".join(f"/{value}%" for value in row.values())
