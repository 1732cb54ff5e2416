from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

from typing_extensions import disjoint_base

_Side = tuple[int, bytes, Any, bool, dict[int, int] | None]  # field id, sub, value, replaces those there, within limits

class Unknown:
    tag: Final[int]
    data: Final[bytes]
    def __init__(self, tag: int, data: bytes) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Updates(tuple[Any, ...]):
    kind: int
    stamps: tuple[tuple[int, int, int], ...]
    def __new__(cls, iterable: Iterable[Any] = (), /) -> Self: ...

def encode(value: Any) -> bytes: ...
def decode(data: bytes) -> Any: ...
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
def rivals(
    records: list[bytes], fields: bytes, authors: bytes
) -> list[list[tuple[int, list[tuple[int, int, int, Any]]]]]: ...
def stamps(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[str, int, int, int, int]]]: ...
def updates(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[int, Updates]]]: ...
def incarnations(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[int, int, int]]]: ...
