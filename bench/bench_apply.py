"""Merging what came of 10,000 edits of random fields into another replica, and all of it into an empty one."""

import sys
from pathlib import Path

from bench.bench_delta import delivered
from bench.runner import Result, Target

CONTENDERS = ("fieldsync", "fieldsync_full", "pycrdt", "loro")
NOTES = {
    "ms": "into a replica opened from what it keeps at rest, its app told of each record, and one of these read",
    "bare_ms": "into one that has just taken all the records, and nobody is told",
    "fieldsync": "into the file and durable, by Session.receive of the taker; its app is told the records as they are",
    "first": "all of it, from nothing",
}
TARGETS = (Target("fieldsync_ms", 150), Target("fieldsync_ms", 1 / 3, "loro_ms"))


def measure(contender: str, count: int, folder: Path) -> Result:
    """Make the edits at one side, bring others up to date."""
    first, bare, opened, digest = delivered(contender, count, folder)
    return Result({"ms": opened.apply_s * 1e3, "bare_ms": bare.apply_s * 1e3, "first_s": first.apply_s}, digest)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "apply", *sys.argv[1:]]))
