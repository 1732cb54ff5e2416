from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T", bound=tuple[int, ...])

def pack(tables: list[Sequence[Sequence[int]]], columns: int) -> list[bytes]: ...
def unpack(data: bytes, columns: int, kind: type[_T]) -> list[_T]: ...
