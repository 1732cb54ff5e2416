from typing import Any

_Dot = tuple[int, int]  # a change's author id and seq
_Group = tuple[int, str, list[Any]]  # collection id, its name, rows as (number, scope id, key, packed)

def delete(
    groups: list[_Group],
    change: tuple[int, int, int],
    key: bytes,
    remembered: set[_Dot],
    fields: bytes,
    authors: bytes,
) -> (
    tuple[
        list[tuple[int, int, int, int, int, int, bytes, int, str]],
        list[tuple[int, int, int, int]],
        dict[_Dot, int],
        list[tuple[_Dot, int, int]],
        bytes,
        int,
    ]
    | None
): ...
