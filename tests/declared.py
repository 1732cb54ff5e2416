"""Declared records, values of all types, and what tells them apart, for tests of declarations and of values."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Optional

from hypothesis import strategies as st

from fieldsync import schema as fs


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


class Color(enum.StrEnum):
    RED = "red"
