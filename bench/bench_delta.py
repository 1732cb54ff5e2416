"""What travels to another replica after 10,000 edits of random fields, and to one that has nothing."""

import sys
from pathlib import Path

from bench import data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "fieldsync_full", "pycrdt", "loro")
NOTES = {
    "bytes": "in fieldsync all frames both ways; the edits were made 1,000 a transaction",
    "ms": "in fieldsync Session.next_frame of the giver's stream",
    "first": "the same from nothing",
}
TARGETS = (Target("fieldsync_bytes", 150_000), Target("fieldsync_ms", 20))
EDITS = 10_000


def measure(contender: str, count: int, folder: Path) -> Result:
    """Make the edits at one side, bring the other up to date."""
    first, delta, digest = delivered(contender, count, folder)
    figures = {
        "bytes": delta.size,
        "ms": delta.make_s * 1e3,
        "first_bytes": first.size,
        "first_s": first.make_s,
    }
    return Result(figures, digest)


def delivered(contender: str, count: int, folder: Path) -> tuple[peers.Delivery, peers.Delivery, str]:
    """What it took to bring a replica up to date from nothing, and after edits; the digest of what both hold."""
    records = data.records(count)
    edits = data.edits([key for key, _ in records], min(count, EDITS), 2)
    make = peers.contender(contender)
    data.set_aside()
    places = [folder / "giver", folder / "taker"]
    for place in places:
        place.mkdir()
    giver, taker = map(make, places)
    giver.build(records)
    first = giver.give(taker)
    for batch in data.batches(edits):
        giver.edit(batch)
    delta = giver.give(taker)
    wanted = data.edited(records, edits)
    (digest,) = {checked(peer, wanted) for peer in (giver, taker)}
    for peer in (giver, taker):
        peer.close()
    return first, delta, digest


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "delta", *sys.argv[1:]]))
