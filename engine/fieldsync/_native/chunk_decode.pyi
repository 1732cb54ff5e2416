_Name = tuple[int, str]  # collection number, key
_Removal = tuple[int, int, int, bytes]
_Piece = tuple[int, int, int, _Name | None, bytes]
_Taken = tuple[int, int, int, int, int, list[_Piece], list[_Removal], int]

def decode(
    streams: list[bytes],
    count: int,
    author_ids: list[int],
    field_ids: list[int],
    collections: int,
    pieces_max: int,
    fields: bytes,
) -> list[_Taken]: ...
