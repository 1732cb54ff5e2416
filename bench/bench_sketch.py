"""Finding what two sets of keyed hashes differ by: the sketch, and the ranges it falls back on."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from bench import clock, data, pairs
from bench.runner import Result, Target
from fieldsync.syncing.reconcile import Asker, Difference, Taker, answer, symbols, symbols_for

CONTENDERS = ("fieldsync", "ranges")
NOTES = {
    "_10, ... _10000": "so many differences, half of them on either side; _x10: between sets ten times as large",
    "bytes": "all that travels, both ways; the sketch begins with as many symbols as that difference needs",
    "round_trips": "messages of the giver",
    "encode_ms": "the giver's time over all messages",
    "decode_ms": "the taker's",
    "_worst": "of 20 seeds; all other figures are medians of them",
}
DIFFERENCES = (10, 100, 1_000, 10_000)
BUDGETS = {10: 500, 100: 3_000, 1_000: 24_000}  # bytes
TARGETS = tuple(Target(f"fieldsync_bytes_{differences}", limit) for differences, limit in BUDGETS.items())
SEEDS = 20
RUNS = 1


class Sides(NamedTuple):
    """Two sets of items, ascending, and what they differ by."""

    taker: bytes
    giver: bytes
    difference: Difference


def sides(common: list[bytes], differences: int, seed: int) -> Sides:
    """Two sets that have these items in common; half of the random differences are on either side."""
    items = drawn(differences, f"{differences} {seed}")
    ours, theirs = items[: differences // 2], items[differences // 2 :]
    return Sides(_row(common + ours), _row(common + theirs), Difference(theirs=_row(theirs), ours=_row(ours)))


def drawn(count: int, seed: str) -> list[bytes]:
    """So many random items."""
    raw = Random(seed).randbytes(8 * count)
    return [raw[at : at + 8] for at in range(0, len(raw), 8)]


def _row(items: list[bytes]) -> bytes:
    return b"".join(sorted(items))


class Meter:
    """Time spent on either side, bytes between them, messages of the giver."""

    def __init__(self) -> None:
        self.encode_s = self.decode_s = 0.0
        self.bytes = self.round_trips = 0

    def give(self, make: Callable[..., bytes], *arguments: Any) -> bytes:
        """A message of the giver."""
        began = clock.now()
        message = make(*arguments)
        self.encode_s += clock.now() - began
        self.bytes += len(message)
        self.round_trips += 1
        return message

    def take(self, step: Callable[..., bytes | None], *arguments: Any) -> bytes | None:
        """A step of the taker, and what it sends, if it does."""
        began = clock.now()
        message = step(*arguments)
        self.decode_s += clock.now() - began
        self.bytes += len(message or b"")
        return message


def by_sketch(both: Sides, differences: int, meter: Meter) -> Difference | None:
    """What the taker finds by symbols, the first batch as large as it should be."""
    taker, count = Taker(both.taker), symbols_for(differences)
    while taker.wanted:
        meter.take(taker.receive, meter.give(symbols, both.giver, taker.held, count))
        count = taker.wanted
    return taker.difference


def by_ranges(both: Sides, _differences: int, meter: Meter) -> Difference:
    """What the taker finds by asking about ranges."""
    asker = Asker(both.taker)
    while question := meter.take(asker.question):
        meter.take(asker.receive, meter.give(answer, both.giver, question))
    return asker.difference


METHODS = {"fieldsync": by_sketch, "ranges": by_ranges}


def measure(contender: str, count: int, _folder: Path) -> Result:
    """Compare sets of so many items, and of ten times as many, that differ by more and more."""
    figures: dict[str, float] = {}
    digest = hashlib.blake2b(digest_size=8)
    for size, suffix in ((count, ""), (10 * count, "_x10")):
        common = sorted(drawn(size, f"{size} in common"))
        for differences in DIFFERENCES:
            name = f"{differences}{suffix}"
            meters = [
                _compare(contender, sides(common, differences, seed), differences, digest) for seed in range(SEEDS)
            ]
            sizes = [meter.bytes for meter in meters]
            figures |= pairs.spread(f"bytes_{name}", sizes)
            figures |= pairs.spread(f"round_trips_{name}", [meter.round_trips for meter in meters])
            figures |= {
                f"bytes_per_difference_{name}": median(sizes) / differences,
                f"encode_ms_{name}": median(meter.encode_s for meter in meters) * 1e3,
                f"decode_ms_{name}": median(meter.decode_s for meter in meters) * 1e3,
            }
    return Result(figures, digest.hexdigest())


def _compare(contender: str, both: Sides, differences: int, digest: Any) -> Meter:
    """What it takes to find the difference, which goes into the digest."""
    meter = Meter()
    data.set_aside()
    found = METHODS[contender](both, differences, meter)
    assert found == both.difference, f"{contender} found other differences than there are"
    digest.update(found.theirs + found.ours)
    return meter


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "sketch", *sys.argv[1:]]))
