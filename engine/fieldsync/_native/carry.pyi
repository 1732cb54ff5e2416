_Incarnation = tuple[int, int, int]  # author id, seq, n
_Pieces = list[tuple[bytes, int, int]]  # packed, how many cells it has, their lowest time
_Dot = tuple[int, int]  # author id, seq
_Cell = tuple[int, bytes, _Dot, bytes, tuple[_Dot, ...]]  # field id, sub, dot, value, seen

def move(
    items: list[tuple[bytes, _Incarnation, int, dict[int, bytes]]],
    author: int,
    seq: int,
    without: int,
    fields: bytes,
    authors: bytes,
) -> list[tuple[_Pieces, list[tuple[_Incarnation, bytes]]]]: ...
def follow(
    items: list[tuple[bytes, _Incarnation, dict[tuple[int, bytes], set[_Dot]]]],
    author: int,
    seq: int,
    fields: bytes,
    authors: bytes,
) -> list[_Pieces]: ...
def stripped(packed: bytes, value: bytes, fields: bytes, authors: bytes) -> bytes: ...
def registers(packed: bytes, fields: bytes, authors: bytes) -> list[_Cell]: ...
def totals(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[_Incarnation, int, int, bytes]]]: ...
