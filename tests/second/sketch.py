"""Sketches (docs/protocol.md, Existence): symbols of sets of items, and what two sets differ by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = (1 << 64) - 1


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def check(item: int) -> int:
    return mix(item ^ 0xD6E8FEB86659FD93) >> 32


def indexes(item: int, end: int) -> Iterator[int]:
    index = step = 0
    while index < end:
        yield index
        step += 1
        chance = (mix(item + step * 0x9E3779B97F4A7C15 & MASK) >> 12) + 1
        index += 1 + math.floor((index + 1.5) * (67108864 / math.sqrt(chance) - 1))


def symbols(items: Iterable[int], count: int) -> list[int]:
    """Symbols as numbers of 96 bits: the sum, then the check."""
    out = [0] * count
    for item in items:
        for index in indexes(item, count):
            out[index] ^= item << 32 | check(item)
    return out


def difference(theirs: list[int], ours: set[int]) -> set[int] | None:
    """What only one side has; None where the symbols do not tell."""
    count, found = len(theirs), set()
    left = [one ^ other for one, other in zip(theirs, symbols(ours, count), strict=True)]
    waiting = list(range(count))
    while waiting:
        index = waiting.pop()
        item = left[index] >> 32
        if left[index] and left[index] & 0xFFFFFFFF == check(item) and index in indexes(item, index + 1):
            found ^= {item}
            for other in indexes(item, count):
                left[other] ^= item << 32 | check(item)
                waiting.append(other)
    return None if any(left) else found
