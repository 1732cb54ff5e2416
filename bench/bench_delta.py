"""What travels to another replica after 10,000 edits of random fields, and to one that has nothing."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from bench import clock, data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "fieldsync_full", "pycrdt", "loro")
NOTES = {
    "bytes": "in fieldsync all frames both ways; the edits were made 1,000 a transaction",
    "ms": "by the replica that has just made them; in fieldsync Session.next_frame of the giver's stream",
    "opened_ms": "by the same, just opened from what it keeps at rest",
    "first": "all of it, to one that has nothing",
}
TARGETS = (Target("fieldsync_bytes", 150_000), Target("fieldsync_ms", 20))
EDITS = 10_000


class Delivered(NamedTuple):
    """What it took to bring replicas up to date."""

    first: peers.Delivery  # from nothing
    bare: peers.Delivery  # after edits, from who made them, where all the records have just come, and nobody is told
    opened: peers.Delivery  # the same between two that were just opened; the taker's app is told, and reads a record
    digest: str  # of what all of them hold


def measure(contender: str, count: int, folder: Path) -> Result:
    """Make the edits at one side, bring others up to date."""
    first, bare, opened, digest = delivered(contender, count, folder)
    figures = {
        "bytes": bare.size,
        "ms": bare.make_s * 1e3,
        "opened_ms": opened.make_s * 1e3,
        "first_bytes": first.size,
        "first_s": first.make_s,
    }
    return Result(figures, digest)


def delivered(contender: str, count: int, folder: Path) -> Delivered:
    """Bring a replica up to date from nothing, and two after edits, of which one was closed meanwhile."""
    records = data.records(count)
    edits = data.edits([key for key, _ in records], min(count, EDITS), 2)
    wanted = data.edited(records, edits)
    make = peers.contender(contender)
    data.set_aside()
    places = [folder / name for name in ("giver", "closed", "taker")]
    for place in places:
        place.mkdir()
    giver = make(places[0])
    giver.build(records)
    closed = make(places[1])
    first = giver.give(closed)
    closed.close()
    del closed  # what libraries hold in memory, two at a time
    taker = make(places[2])
    giver.give(taker)
    for batch in data.batches(edits):
        giver.edit(batch)
    bare = giver.give(taker)
    digests = {checked(taker, wanted)}
    for peer in (giver, taker):
        peer.close()
    del giver, taker, peer
    giver, taker = map(make, places[:2])
    opened = _told(giver, taker, {key for key, row in records if row != wanted[key]})
    digests |= {checked(peer, wanted) for peer in (giver, taker)}
    (digest,) = digests
    for peer in (giver, taker):
        peer.close()
    return Delivered(first, bare, opened, digest)


def _told(giver: Any, taker: Any, changed: set[str]) -> peers.Delivery:
    """Bring a replica up to date, until its app has been told of what changed, and has read one of these records."""
    taker.listen()
    delivery: peers.Delivery = giver.give(taker)
    began = clock.now()
    taker.hear(changed)
    taker.get(min(changed))
    return delivery._replace(apply_s=delivery.apply_s + clock.now() - began)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "delta", *sys.argv[1:]]))
