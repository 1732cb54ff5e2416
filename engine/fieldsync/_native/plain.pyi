from typing import Any, TypeVar

_Table = tuple[int, int, tuple[int, ...], tuple[Any, ...]]  # scope id, first row, of each column place and absence
_T = TypeVar("_T", bound=tuple[Any, ...])
_Built = tuple[list[tuple[Any, ...]], bytes, int, int]  # rows, digest, cells, bytes

def pick(row: object, names: tuple[str, ...], kinds: bytes, others: int) -> tuple[Any, ...] | None: ...
def name_each(kind: type[_T], before: tuple[Any, ...], keys: list[str], after: tuple[Any, ...]) -> list[_T]: ...
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
