"""Values <-> canonical bytes (docs/format.md, Values), and sums of numbers."""

from __future__ import annotations

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any

from fieldsync._native import codec as _kernel
from fieldsync._native.codec import Unknown, Updates
from fieldsync.errors import DecodeError

__all__ = ["Unknown", "Updates", "add", "decode", "encode", "subtract"]

EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)  # sums and differences of Decimals are not rounded
Number = int | float | Decimal


def encode(value: Any) -> bytes:
    """The one canonical form of a value. TypeError for a type that Fieldsync cannot hold."""
    return _kernel.encode(value)


def decode(data: bytes) -> Any:
    """The value of canonical bytes. DecodeError for any others; a value of an unknown tag is an Unknown."""
    try:
        return _kernel.decode(data)
    except ValueError as error:
        raise DecodeError(str(error)) from None


def add(a: Number, b: Number) -> Number:
    """The sum of two numbers, exact for int and Decimal; of a float and a Decimal it is a Decimal."""
    if isinstance(a, Decimal) or isinstance(b, Decimal):
        return EXACT.add(Decimal(a), Decimal(b))
    return a + b


def subtract(a: Number, b: Number) -> Number:
    """The difference of two numbers, as `add`."""
    if isinstance(a, Decimal) or isinstance(b, Decimal):
        return EXACT.subtract(Decimal(a), Decimal(b))
    return a - b
