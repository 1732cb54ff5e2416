from typing import Any

_Table = tuple[int, int, tuple[int, ...], tuple[Any, ...]]  # scope id, first row, of each column place and absence
_Built = tuple[list[tuple[Any, ...]], bytes, int, int]  # rows, digest, cells, bytes

def pick(row: object, names: tuple[str, ...], kinds: bytes, others: int) -> tuple[Any, ...] | None: ...
def build(
    change: tuple[int, int, int],
    first: int,
    keys: list[str],
    records: list[tuple[Any, ...]],
    ids: tuple[int, ...],
    table: _Table,
    collection: str,
    key: bytes,
    fields: bytes,
    authors: bytes,
) -> _Built | None: ...
