from collections.abc import Sequence
from typing import Any

_Dots = tuple[int, int, int]  # an incarnation's author id, seq and n; or a change's author id, seq and a difference
_Removal = tuple[int, int, int, bytes]
_Item = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[_Removal, ...], tuple[str, str] | None]
_Outcome = tuple[bytes, tuple[tuple[int, int, int, bytes], ...], tuple[_Dots, ...]]

def merge(items: list[_Item], key: bytes, fields: bytes, authors: bytes) -> tuple[list[_Outcome | None], bytes]: ...
def edit(
    rows: Sequence[tuple[int, int, str, bytes]],
    pieces: dict[int, tuple[bytes, ...]],
    scope: int,
    key: bytes,
    fields: bytes,
    authors: bytes,
) -> tuple[list[tuple[int, bytes]], list[str], dict[tuple[int, int], list[Any]], bytes] | None: ...
