from collections.abc import Iterable
from typing import Any, Final, Self

from typing_extensions import disjoint_base

class Unknown:
    tag: Final[int]
    data: Final[bytes]
    def __init__(self, tag: int, data: bytes) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Updates(tuple[Any, ...]):
    kind: int
    stamps: tuple[tuple[int, int, int], ...]
    def __new__(cls, iterable: Iterable[Any] = (), /) -> Self: ...

__pyx_capi__: dict[str, Any]  # what other kernels call: codec.pxd

def encode(value: Any) -> bytes: ...
def decode(data: bytes) -> Any: ...
