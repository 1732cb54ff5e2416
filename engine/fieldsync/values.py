"""The door that values pass: what a record can hold, and how it is stored.

Values come back as they left the door: a subclass of a supported type (an enum of texts) becomes the plain type, a
datetime becomes UTC, and an int in a float or Decimal field becomes one if nothing is lost.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from fieldsync import codec
from fieldsync.limits import VALUE_DEPTH_MAX

Value: TypeAlias = (
    "bool | int | float | Decimal | str | bytes | date | list[Value] | dict[str, Value] | frozenset[Value] | None"
)
Number: TypeAlias = int | float | Decimal
Check: TypeAlias = Callable[[object, int], Value]  # (value, depth) -> as stored, or a Refusal


class Refusal(TypeError):
    """Why a value is refused: the end of a sentence that starts with the field's name. No app sees it."""


def check_value(name: str, value: object) -> Value:
    """The value as it is stored where no type is declared; TypeError, naming `name`, if it cannot be held."""
    try:
        return check_any(value, 0)
    except Refusal as refusal:
        raise TypeError(f"{name}{refusal}") from None


def check_any(value: object, depth: int) -> Value:
    """What a register of no declared type can hold."""
    check = CHECKS.get(type(value))
    if check is None:
        if value is None:
            return None
        check = next((check for kind, check in CHECKS.items() if isinstance(value, kind)), None)
    if check is None:
        raise _wrong(f"one of {SUPPORTED}", value)
    return check(value, depth)


def check_number(value: object, depth: int) -> Value:
    """What a counter can hold: an int, or a finite float or Decimal."""
    if isinstance(value, bool) or not isinstance(value, Number):
        raise _wrong("a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal(f" wants a finite number, got {value}")
    return check_any(value, depth)


def nested(kind: type[list[Any]] | type[dict[Any, Any]], item: Check) -> Check:
    """A list or dict, as a new one, each of whose elements passes `item`."""

    def check(value: object, depth: int) -> Value:
        if not isinstance(value, kind):
            raise _wrong(kind.__name__, value)
        if depth >= VALUE_DEPTH_MAX:
            raise Refusal(f" is nested deeper than {VALUE_DEPTH_MAX} levels")
        try:
            if isinstance(value, dict):
                return {_str(key, depth): item(element, depth + 1) for key, element in value.items()}
            return [item(element, depth + 1) for element in value]
        except Refusal as refusal:
            raise Refusal(f"[...]{refusal}") from None

    return check


def elements(item: Check) -> Check:
    """A set, as a frozen one, each of whose elements passes `item` and can be in a set."""

    def check(value: object, depth: int) -> Value:
        if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
            raise _wrong("a set", value)
        try:
            return frozenset([item(element, depth + 1) for element in value])
        except Refusal as refusal:
            raise Refusal(f"[...]{refusal}") from None
        except TypeError:
            raise Refusal(" wants elements that can be in a set; lists and dicts cannot") from None

    return check


def single(item: Check) -> Check:
    """A value that passes `item`, or a tuple of just that."""

    def check(value: object, depth: int) -> Value:
        if not isinstance(value, tuple):
            return item(value, depth)
        if len(value) != 1:
            raise Refusal(f" wants one value, got {len(value)}: of those that it keeps one has to be chosen")
        return item(value[0], depth)

    return check


def or_none(check: Check) -> Check:
    """The same, or None."""
    return lambda value, depth: None if value is None else check(value, depth)


def _wrong(wanted: str, value: object) -> Refusal:
    return Refusal(f" wants {wanted}, got {type(value).__name__}")


def _plain(kind: type[bool] | type[bytes]) -> Check:
    def check(value: object, _depth: int) -> Value:
        if type(value) is kind:
            return value
        if isinstance(value, kind):
            return kind(value)
        raise _wrong(kind.__name__, value)

    return check


def _int(value: object, _depth: int) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("int", value)
    if not -(2**63) <= value < 2**63:
        raise Refusal(f" wants an int of 64 bits, got one of {value.bit_length() + 1}")
    return int.__int__(value)


def _float(value: object, depth: int) -> float:
    if isinstance(value, float):
        return value if type(value) is float else float.__float__(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("float", value)
    number = float(_int(value, depth))
    if number != value:
        raise Refusal(f" wants float, got the int {value}, which no float equals")
    return number


def _decimal(value: object, depth: int) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(_int(value, depth))
    if not isinstance(value, Decimal):
        raise _wrong("Decimal", value)
    if not value.is_finite():
        raise Refusal(f" wants a finite Decimal, got {value}")
    try:
        codec.encode(value)
    except TypeError as error:
        raise Refusal(f" is {error}") from None
    return value if type(value) is Decimal else Decimal(value)


def _str(value: object, _depth: int) -> str:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise _wrong("str", value)
    try:
        str.encode(value)
    except UnicodeEncodeError:
        raise Refusal(" wants text, got a lone surrogate, which UTF-8 cannot hold") from None
    return value if type(value) is str else str.__str__(value)


def _datetime(value: object, _depth: int) -> datetime:
    if not isinstance(value, datetime):
        raise _wrong("datetime", value)
    if value.utcoffset() is None:
        raise Refusal(" wants a datetime with a time zone, got a naive one: attach one, such as tzinfo=datetime.UTC")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise Refusal(" wants a datetime of the years 1 to 9999 in UTC") from None
    return moment if type(moment) is datetime else datetime.combine(moment.date(), moment.time(), UTC)


def _date(value: object, _depth: int) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _wrong("date", value)
    return value if type(value) is date else date(value.year, value.month, value.day)


CHECKS: dict[type, Check] = {  # a datetime is a date too, so it comes first
    bool: _plain(bool),
    int: _int,
    float: _float,
    Decimal: _decimal,
    str: _str,
    bytes: _plain(bytes),
    datetime: _datetime,
    date: _date,
    list: nested(list, check_any),
    dict: nested(dict, check_any),
}
SUPPORTED = ", ".join(kind.__name__ for kind in CHECKS)
