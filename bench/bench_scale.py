"""Building, and taking all of it, with a tenth of the records, with all, and (--large) with ten times as many."""

import os
import sys
from pathlib import Path

from bench.runner import Result, run

CONTENDERS = ("fieldsync", "pycrdt", "loro")
NOTES = {
    "_tenth, _large": "with a tenth of the records; with ten times as many, which takes the option --large",
    "build_us, take_us": "a record: s of the topic build, first_s of the topic apply",
    "build_bytes": "of memory a record: build's peak_mb",
}
TARGETS = ()
RUNS = 1
LARGE = "FIELDSYNC_BENCH_LARGE"  # in the environment, for the processes that measure


def measure(contender: str, count: int, _folder: Path) -> Result:
    """Run other topics with several numbers of records."""
    sizes = {"_tenth": max(count // 10, 1), "": count}
    if os.environ.get(LARGE):
        sizes["_large"] = count * 10
    figures: dict[str, float] = {}
    digests = []
    for suffix, some in sizes.items():
        built, applied = (run(topic, contender, some) for topic in ("build", "apply"))
        figures[f"build_us{suffix}"] = built.figures["s"] / some * 1e6
        figures[f"build_bytes{suffix}"] = built.figures["peak_mb"] / some * 1e6
        figures[f"take_us{suffix}"] = applied.figures["first_s"] / some * 1e6
        digests += [built.digest, applied.digest]
    return Result(figures, " ".join(digests))


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "scale", *sys.argv[1:]]))
