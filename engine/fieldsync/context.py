"""Contexts: the sets of dots a replica has accounted for, in one canonical form of bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, TypeVar

from fieldsync._native import diff
from fieldsync.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
Interval = tuple[bytes, int, int]  # author (8 bytes), lowest and highest seq


def _checked(operation: Callable[..., T], *args: object) -> T:
    try:
        return operation(*args)
    except ValueError as error:
        raise DecodeError(str(error)) from None


class Context:
    """An immutable set of dots. Operations raise DecodeError where the bytes are not the canonical form."""

    __slots__ = ("data",)

    def __init__(self, data: bytes = b"") -> None:
        self.data: Final = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Context({self.data!r})"

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> Context:
        """The context of (author, low, high) intervals in any order."""
        return cls(diff.build(list(intervals)))

    def __or__(self, other: Context) -> Context:
        return Context(_checked(diff.join, self.data, other.data)) if other.data else self

    def __sub__(self, other: Context) -> Context:
        return Context(_checked(diff.lacks, self.data, other.data))

    def __and__(self, other: Context) -> Context:
        return Context(_checked(diff.common, self.data, other.data))

    def __bool__(self) -> bool:
        return bool(self.data)

    def covers(self, author: bytes, seq: int) -> bool:
        """Whether the dot (author, seq) is in the set."""
        return _checked(diff.covers, self.data, author, seq)

    def intervals(self) -> list[Interval]:
        """The set as (author, low, high), ascending."""
        return _checked(diff.intervals, self.data)

    def authors(self) -> bytes:
        """The authors of its dots, ascending, 8 bytes each."""
        return b"".join(dict.fromkeys(author for author, _, _ in self.intervals()))

    def count(self) -> int:
        """How many dots there are."""
        return sum(high - low + 1 for _, low, high in self.intervals())

    def contiguous(self) -> Context:
        """Its version vector: of each author the dots from 1 on, up to the first that lacks."""
        return Context.of(interval for interval in self.intervals() if interval[1] == 1)

    def check(self) -> Context:
        """Itself, if its bytes are canonical; else DecodeError."""
        _checked(diff.join, self.data, b"")
        return self

    def hash(self) -> bytes:
        """Eight bytes that name the set."""
        return hashlib.blake2b(self.data, digest_size=8).digest()
