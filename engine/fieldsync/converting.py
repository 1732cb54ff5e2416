"""How a field reads values that are not of its type: those that earlier versions of an app wrote.

    size: int = fs.field(converts=str)                       # "12" of version 1 reads as 12
    state: int = fs.field(converts={"open": 0, "done": 1})   # these values read as those
    name: str = fs.field(converts=())                        # nothing is converted: what is no str reads as the default

Cells stay as they came until somebody writes the field. A conversion is data, not code: every process that has the file
open fills its columns alike, with or without the app. What is not listed, or cannot be read, is a misfit.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final, NamedTuple

from fieldsync import codec
from fieldsync.errors import SchemaError
from fieldsync.values import CHECKS

MISFIT: Final = object()  # what a value reads as that a field cannot show
NUMBER = r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?"
INTEGER = r"[+-]?[0-9]{1,19}"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
DATETIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Conversion(NamedTuple):
    """What a register of a declared type makes of other values. Immutable, and the same wherever it is applied."""

    type: str  # the name of the field's type
    is_optional: bool
    sources: tuple[str, ...] = ()  # names of the types that are converted
    values: tuple[tuple[bytes, bytes], ...] = ()  # single values, ascending, and what they read as, as canonical bytes

    def read(self, value: object) -> Any:
        """What the field shows for a value; MISFIT if it cannot."""
        if self.values and not isinstance(value, codec.Unknown):
            stored = codec.encode(value)
            place = bisect_left(self.values, (stored,))
            if place < len(self.values) and self.values[place][0] == stored:
                return codec.decode(self.values[place][1])
        if value is None:
            return None if self.is_optional else MISFIT
        name = type(value).__name__
        if name == self.type:
            return value
        if name not in self.sources:
            return MISFIT
        try:
            return READERS[self.type](value)
        except (ValueError, OverflowError, ArithmeticError):
            return MISFIT

    def as_json(self) -> list[Any]:
        """As a file keeps it; of_json is the inverse."""
        values = [[stored.hex(), read.hex()] for stored, read in self.values]
        return [self.type, self.is_optional, list(self.sources), values]

    @classmethod
    def of_json(cls, given: list[Any]) -> Conversion:
        """The inverse of as_json."""
        name, is_optional, sources, values = given
        pairs = tuple((bytes.fromhex(stored), bytes.fromhex(read)) for stored, read in values)
        return cls(name, is_optional, tuple(sources), pairs)


def conversion(label: str, kind: type, is_optional: bool, given: Any, check: Callable[[object], Any]) -> Conversion:
    """What field(converts=...) asks for, of a field of type `kind`; SchemaError if there is no such conversion."""
    if kind not in CHECKS:
        raise SchemaError(f"{label}: converts= is for a field of one of the types {', '.join(map(_name, CHECKS))}")
    if isinstance(given, Mapping):
        try:
            pairs = tuple((codec.encode(stored), codec.encode(check(read))) for stored, read in given.items())
        except TypeError as refusal:
            raise SchemaError(f"{label}: converts= names values that cannot be: {refusal}") from None
        return Conversion(_name(kind), is_optional, (), tuple(sorted(pairs)))
    sources = given if isinstance(given, tuple) else (given,)
    for source in sources:
        if source not in CONVERTED[kind]:
            known = ", ".join(map(_name, CONVERTED[kind])) or "nothing"
            raise SchemaError(
                f"{label}: {source!r} is not converted to {_name(kind)}: {known} is; name values and what they become, "
                'such as converts={"small": 1}, or read it under another name (docs/schema.md)'
            )
    return Conversion(_name(kind), is_optional, tuple(sorted(map(_name, sources))))


def _name(kind: type) -> str:
    return kind.__name__


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        value = TRUTHS.get(value.strip().lower())
    if value not in (0, 1):
        raise ValueError(value)
    return bool(value)


def _int(value: Any) -> int:
    if isinstance(value, str):
        value = _matched(INTEGER, value)
    number = int(value)
    if (not isinstance(value, str) and number != value) or not -(2**63) <= number < 2**63:
        raise ValueError(value)
    return number


def _float(value: Any) -> float:
    number = float(_matched(NUMBER, value) if isinstance(value, str) else value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _decimal(value: Any) -> Decimal:
    number = Decimal(_matched(NUMBER, value) if isinstance(value, str) else repr(value))
    if not number.is_finite():
        raise ValueError(value)
    return number


def _str(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return value.isoformat() if isinstance(value, date) else str(value)


def _date(value: Any) -> date:
    return value.date() if isinstance(value, datetime) else date.fromisoformat(_matched(DATE, value))


def _datetime(value: Any) -> datetime:
    if isinstance(value, str):
        return datetime.fromisoformat(_matched(DATETIME, value)).astimezone(UTC)
    return datetime.combine(value, time(), UTC)


def _matched(form: str, value: str) -> str:
    text = value.strip()
    if not re.fullmatch(form, text):  # compiled by the first that needs it
        raise ValueError(text)
    return text


READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "Decimal": _decimal,
    "str": _str,
    "bytes": str.encode,
    "date": _date,
    "datetime": _datetime,
    "list": lambda value: [value],
}
CONVERTED: Final[dict[type, tuple[type, ...]]] = {  # type of a field -> the types of values that it can read
    bool: (int, float, Decimal, str),
    int: (bool, float, Decimal, str),
    float: (int, Decimal, str),
    Decimal: (int, float, str),
    str: (bool, int, float, Decimal, date, datetime),
    bytes: (str,),
    date: (datetime, str),
    datetime: (date, str),
    list: (bool, int, float, Decimal, str, bytes, date, datetime),
    dict: (),
}
