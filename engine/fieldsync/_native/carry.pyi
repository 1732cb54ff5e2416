_Incarnation = tuple[int, int, int]  # author id, seq, n
_Pieces = list[tuple[bytes, int]]  # packed, and how many cells it has

def carry(
    items: list[tuple[bytes, _Incarnation, int, bool]],
    author: int,
    seq: int,
    without: int,
    fields: bytes,
    authors: bytes,
) -> list[tuple[_Pieces, int]]: ...
def totals(records: list[bytes], fields: bytes, authors: bytes) -> list[list[tuple[_Incarnation, int, int, bytes]]]: ...
