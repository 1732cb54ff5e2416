from collections.abc import Callable, Sequence
from typing import Any

from fieldsync._native.codec import Updates

def read(
    records: list[bytes], wanted: tuple[int, ...], defaults: tuple[Any, ...], fields: bytes, authors: bytes
) -> list[tuple[Any, ...]]: ...
def widen(
    rows: Sequence[tuple[Any, ...]],
    wanted: tuple[int, ...],
    defaults: tuple[Any, ...],
    convert: Callable[[Any], Any],
    fields: bytes,
    authors: bytes,
) -> list[tuple[Any, ...]]: ...
def read_all(data: bytes, fields: bytes, authors: bytes) -> dict[str, Any]: ...
def updates(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[int, Updates]]]: ...
