"""The types of a table's columns: what reads the text of one, and what the texts of a sample let one guess.

A guessed type never changes what a value says: codes with a leading zero or a plus sign (zip, phone), integers
beyond 64 bits, times finer than microseconds and times without a zone stay text. A type that the caller gives
is taken at its word and reads those it can.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from fieldsync.limits import NUMBER_CHARS_MAX, SAMPLE_ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    Reader = Callable[[str], object]  # text -> value; ValueError if it does not fit

_is_integer = re.compile(r"[+-]?[0-9]+").fullmatch
_is_number = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?").fullmatch
_is_code = re.compile(r"\+|-?0[0-9]").match
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_datetime = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
).fullmatch
_NOT_FINITE = frozenset(["nan", "NaN", "inf", "Inf", "-inf", "-Inf"])
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def guess(
    names: Sequence[str], rows: Iterable[Sequence[str]], nulls: Collection[str], sample_rows: int
) -> dict[str, tuple[str, Reader]]:
    """Column -> the name of its type, and what reads it, by the first rows of texts."""
    kinds = [list(_GUESSES) for _ in names]
    empty = set(range(len(kinds)))
    for count, fields in enumerate(rows):
        if count >= sample_rows and (not empty or count >= SAMPLE_ROWS_MAX):
            break
        for number, text in enumerate(fields):
            if text not in nulls:
                empty.discard(number)
                kinds[number] = [kind for kind in kinds[number] if _fits(_GUESSES[kind], text)]
    guesses = ["str" if number in empty or not left else left[0] for number, left in enumerate(kinds)]
    return {name: (kind, _GUESSED[kind]) for name, kind in zip(names, guesses, strict=True)}


def looks_typed(text: str) -> bool:
    """Whether a text would be guessed to be other than text."""
    return any(_fits(read, text) for read in _GUESSES.values())


def _fits(read: Reader, text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _int(text: str) -> int:
    if len(text) > NUMBER_CHARS_MAX or not _is_integer(text) or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError(text)
    return value


def _float(text: str) -> float:
    if text in _NOT_FINITE:
        return float(text)
    if len(text) > NUMBER_CHARS_MAX or not _is_number(text) or math.isinf(value := float(text)):
        raise ValueError(text)
    return value


def _exact_float(text: str) -> float:
    value = _float(text)
    if _is_integer(text) and int(text) != value:
        raise ValueError(text)
    return value


def _int_or_float(text: str) -> int | float:
    return _int(text) if _is_integer(text) else _float(text)


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_CHARS_MAX or not _is_number(text):
        raise ValueError(text)
    return Decimal(text)


def _bool(text: str) -> bool:
    if (value := _BOOLS.get(text.lower())) is None:
        raise ValueError(text)
    return value


def _date(text: str) -> date:
    if not _is_date(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _datetime(text: str) -> datetime:
    if not _is_datetime(text):
        raise ValueError(text)
    value = datetime.fromisoformat(text)
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def _zoned(text: str) -> datetime:
    if not (match := _is_datetime(text)) or not match[1]:
        raise ValueError(text)
    return _datetime(text)


def _not_code(read: Reader) -> Reader:
    """The same for a guessed type: 007 and +49 are names (zip, phone), whose digits must stay as they are."""

    def guarded(text: str) -> object:
        if _is_code(text):
            raise ValueError(text)
        return read(text)

    return guarded


GIVEN: dict[str, Reader] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": _date,
    "datetime": _datetime,
    "decimal": _decimal,
    "str": str,
}
_GUESSES: dict[str, Reader] = {
    "int": _not_code(_int),
    "float": _not_code(_exact_float),
    "bool": _bool,
    "date": _date,
    "datetime": _zoned,
}
_GUESSED = _GUESSES | {"int": _not_code(_int_or_float), "str": str}
EXPECTED = {
    "int": "an integer of 64 bits",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2013-01-31",
    "datetime": "a time with its zone such as 2013-01-31T05:00:00Z",
    "decimal": "a decimal number",
}
