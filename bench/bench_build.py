"""Building a database of records of 10 fields: time, peak memory, bytes at the end."""

import sys
from pathlib import Path

from bench import clock, data, peers
from bench.runner import Result, Target, checked, peak_mb

CONTENDERS = ("fieldsync", "fieldsync_full", "fieldsync_single", "sqlite3", "sqlite3_full", "pycrdt", "loro")
NOTES = {
    "fieldsync": "db.load, durability fast; fieldsync_full: durability full; fieldsync_single: by tx.create",
    "peak_mb": "above what the process had with packages imported and records made",
    "bytes": "of the file, checkpointed; of the documents encoded whole",
}
TARGETS = (
    Target("fieldsync_s", 2.5, "sqlite3_s"),
    Target("fieldsync_single_s", 1.0, "pycrdt_s"),
    Target("fieldsync_peak_mb", 1 / 3, "pycrdt_peak_mb"),
    Target("fieldsync_bytes", 2.5, "sqlite3_bytes"),
)


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build once."""
    records = data.records(count)
    make = peers.contender(contender)
    data.set_aside()
    before_mb = peak_mb()
    peer = make(folder)
    began = clock.now()
    peer.build(records)
    figures = {"s": clock.now() - began, "peak_mb": peak_mb() - before_mb, "bytes": peer.size()}
    digest = checked(peer, dict(records))
    peer.close()
    return Result(figures, digest)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "build", *sys.argv[1:]]))
