"""Edits of single fields, each its own transaction or 1,000 in one, and what many overwrites leave behind."""

import sys
import time
from pathlib import Path

from bench import data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "fieldsync_full", "sqlite3", "sqlite3_full", "pycrdt", "loro")
NOTES = {
    "per_s": "edits of random fields, a transaction, or for documents an update, each",
    "batch_per_s": "the overwrites, 1,000 a transaction, records in random order",
    "growth_x": "size after one field of every record was overwritten 10 times, over the size before; checkpointed",
}
TARGETS = (Target("fieldsync_growth_x", 1.05),)
SINGLES = 10_000
SINGLES_FULL = 1_000  # each waits for the disk
ROUNDS = 10


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build, then edit."""
    records = data.records(count)
    keys = [key for key, _ in records]
    peer = peers.contender(contender)(folder)
    peer.build(records)
    wanted = data.edited(records, ())
    is_full = contender.endswith("_full")
    singles = data.edits(keys, min(count, SINGLES_FULL if is_full else SINGLES), 2)
    figures = {"per_s": len(singles) / _timed(peer, [[edit] for edit in singles])}
    if is_full:
        checked(peer, data.edited(records, singles))
    ...


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "edit", *sys.argv[1:]]))
