_Name = tuple[int, str]  # collection number, key
_Removal = tuple[int, int, int, bytes]
_Given = tuple[int, int, int, int, int, list[tuple[bytes, _Name | None]], list[_Removal]]

def encode(changes: list[_Given], fields: bytes, authors: int) -> tuple[list[bytes], list[int], list[int]]: ...
