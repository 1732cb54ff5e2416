"""Values <-> canonical bytes (docs/format.md, Values)."""

from __future__ import annotations

from typing import Any

from fieldsync._native import codec
from fieldsync._native.codec import Unknown
from fieldsync.errors import DecodeError

__all__ = ["Unknown", "decode", "encode"]


def encode(value: Any) -> bytes:
    """The one canonical form of a value. TypeError for a type that Fieldsync cannot hold."""
    return codec.encode(value)


def decode(data: bytes) -> Any:
    """The value of canonical bytes. DecodeError for any others; a value of an unknown tag is an Unknown."""
    try:
        return codec.decode(data)
    except ValueError as error:
        raise DecodeError(str(error)) from None
