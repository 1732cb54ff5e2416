"""Values <-> canonical bytes (docs/format.md, Values), and the door to the kernel that packs cells from them."""

from __future__ import annotations

from typing import Any

from fieldsync._native import codec as _kernel
from fieldsync._native.codec import Unknown, conforms, create, incarnations, read, read_all, stamps, widen, write
from fieldsync.errors import DecodeError

__all__ = [
    "Unknown",
    "conforms",
    "create",
    "decode",
    "encode",
    "incarnations",
    "read",
    "read_all",
    "stamps",
    "widen",
    "write",
]


def encode(value: Any) -> bytes:
    """The one canonical form of a value. TypeError for a type that Fieldsync cannot hold."""
    return _kernel.encode(value)


def decode(data: bytes) -> Any:
    """The value of canonical bytes. DecodeError for any others; a value of an unknown tag is an Unknown."""
    try:
        return _kernel.decode(data)
    except ValueError as error:
        raise DecodeError(str(error)) from None
