from typing import Any, TypeVar

_T = TypeVar("_T", bound=tuple[int, ...])
_Dot = tuple[int, int]  # a change's author id and seq
_Rows = dict[int, bytes]

def compress(places: list[Any], kind: type[_T]) -> list[_T]: ...
def file_edits(
    pieces: list[Any],
    at: int,
    creations: dict[_Dot, Any],
    mine: dict[int, _Rows],
    rows: dict[int, dict[int, tuple[bytes, ...]]],
    several: list[tuple[_Rows, int]],
) -> int: ...
