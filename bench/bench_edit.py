"""Edits of single fields, each its own transaction or 1,000 in one, and what many overwrites leave behind."""

import sys
from itertools import chain
from pathlib import Path

from bench import clock, data, peers
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
    singles = data.edits(keys, min(count, SINGLES), 2)
    rounds = [data.overwrites(keys, seed) for seed in range(ROUNDS)]
    make = peers.contender(contender)
    data.set_aside()
    peer = make(folder)
    peer.build(records)
    timed = SINGLES_FULL if contender.endswith("_full") else SINGLES
    figures = {"per_s": _per_s(peer, [[edit] for edit in singles[:timed]])}
    _per_s(peer, data.batches(singles[timed:]))
    before = peer.size()
    figures["batch_per_s"] = _per_s(peer, [batch for edits in rounds for batch in data.batches(edits)])
    figures["growth_x"] = peer.size() / before
    digest = checked(peer, data.edited(records, chain(singles, *rounds)))
    peer.close()
    return Result(figures, digest)


def _per_s(peer: peers.Peer, transactions: list[list[data.Edit]]) -> float:
    """Make the edits, a list a transaction; how many a second."""
    began = clock.now()
    for edits in transactions:
        peer.edit(edits)
    return sum(map(len, transactions)) / (clock.now() - began)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "edit", *sys.argv[1:]]))
