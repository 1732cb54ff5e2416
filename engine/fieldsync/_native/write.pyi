from typing import Any

_Side = tuple[int, bytes, Any, bool, dict[int, int] | None]  # field id, sub, value, replaces those there, within limits

def create(
    author: int,
    seq: int,
    time: int,
    rows: list[tuple[int, tuple[int, ...], tuple[Any, ...]]],
    fields: bytes,
) -> list[bytes]: ...
def write(
    items: list[tuple[bytes, tuple[tuple[int, Any], ...], tuple[tuple[int, Any], ...], tuple[_Side, ...]]],
    author: int,
    seq: int,
    time: int,
    fields: bytes,
    authors: bytes,
) -> list[tuple[bytes, int, int]]: ...
