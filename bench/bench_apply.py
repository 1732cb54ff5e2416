"""Bringing another replica up to date after 10,000 edits of random fields, and from nothing."""

import sys
from pathlib import Path

from bench import data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "fieldsync_full", "pycrdt", "loro")
NOTES = {
    "delta_bytes": "what travels, in fieldsync all frames both ways; the edits were made 1,000 a transaction",
    "delta_ms": "making it: in fieldsync Session.next_frame of the giver's stream",
    "apply_ms": "merging it: in fieldsync into the file and durable, by Session.receive of the taker",
    "first": "the same from nothing, making and merging",
}
TARGETS = (
    Target("fieldsync_delta_bytes", 150_000),
    Target("fieldsync_delta_ms", 20),
    Target("fieldsync_apply_ms", 150),
)
EDITS = 10_000


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build at one side, bring the other up to date twice."""
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
    figures = {
        "delta_bytes": delta.size,
        "delta_ms": delta.make_s * 1e3,
        "apply_ms": delta.apply_s * 1e3,
        "first_bytes": first.size,
        "first_s": first.make_s + first.apply_s,
    }
    wanted = data.edited(records, edits)
    digests = {checked(peer, wanted) for peer in (giver, taker)}
    for peer in (giver, taker):
        peer.close()
    return Result(figures, digests.pop())


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "apply", *sys.argv[1:]]))
