"""A first sync over a link that dies 100 times, at random: what travels, over what does without a cut."""

import sys
from pathlib import Path
from random import Random

from bench import data, pairs
from bench.peers import Fieldsync
from bench.runner import Result, Target
from fieldsync.syncing.session import Session

CONTENDERS = ("fieldsync",)
NOTES = {
    "bytes_uninterrupted": "of all frames, both ways: 20,000 records at most, created 10 a transaction, then every "
    "second one overwritten, all its fields, 10 records a transaction",
    "bytes_over_uninterrupted": "the same over a link that dies at 100 moments, drawn evenly over the bytes of a whole "
    "sync, and then lasts; what it had carried of the frame it cut counts, and is lost; a new session after each",
    "_worst": "of 20 seeds, where the other figure is their median",
}
TARGETS = (Target("fieldsync_bytes_over_uninterrupted", 1.15),)
RECORDS_MAX = 20_000
TRANSACTION = 10
CUTS = 100
SEEDS = 20
RUNS = 1


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Bring one device after the other up to date from one hub."""
    records = data.records(min(count, RECORDS_MAX))
    edits = _overwrites(records)
    hub = pairs.opened(folder / "hub", hub=True)
    for start in range(0, len(records), TRANSACTION):
        hub.create(records[start : start + TRANSACTION])
    for batch in data.batches(edits, TRANSACTION * len(data.FIELDS)):
        hub.edit(batch)
    wanted = data.edited(records, edits)
    whole = _bytes(hub, folder / "whole", [], wanted)
    ratios = []
    for seed in range(SEEDS):
        chance = Random(seed)
        moments = sorted(chance.uniform(0, whole) for _ in range(CUTS))
        stretches = [int(end - start) for start, end in zip([0, *moments], moments, strict=False)]
        ratios.append(_bytes(hub, folder / f"{seed}", stretches, wanted) / whole)
    digest = pairs.agreed(wanted, hub)
    pairs.close(hub)
    figures: dict[str, float] = {"bytes_uninterrupted": whole} | pairs.spread("bytes_over_uninterrupted", ratios)
    return Result(figures, digest)


def _bytes(hub: Fieldsync, place: Path, stretches: list[int], wanted: dict[str, data.Row]) -> int:
    """What travels until a new device is up to date, over a link that lasts for so many bytes at a time, then well."""
    device = pairs.opened(place)
    travelled = sum(_talk(device, hub, stretch) for stretch in stretches) + _talk(device, hub, None)
    pairs.assert_equal(hub, device)
    pairs.agreed(wanted, device)
    pairs.close(device)
    return travelled


def _talk(device: Fieldsync, hub: Fieldsync, stretch: int | None) -> int:
    """A session, begun by the device, whose link dies after so many bytes; how many travelled."""
    one, other = device.db.replica, hub.db.replica
    sides = Session(one, initiator=True, peer=other.id.hex()), Session(other, initiator=False)
    travelled = idle = turn = 0
    while idle < 2:
        frame = sides[turn].next_frame()
        if frame is None:
            idle, turn = idle + 1, 1 - turn
            continue
        if stretch is not None and travelled + len(frame) > stretch:
            travelled = stretch  # the link carried some of the frame, for nothing
            break
        travelled, idle = travelled + len(frame), 0
        sides[1 - turn].receive(frame)
    for side in sides:
        side.close()
    return travelled


def _overwrites(records: data.Records) -> list[data.Edit]:
    """New values of all fields of every second record."""
    others = data.records(len(records), seed=2)
    return [
        data.Edit(key, name, value)
        for (key, _), (_, row) in zip(records[::2], others, strict=False)
        for name, value in row.items()
    ]


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "cuts", *sys.argv[1:]]))
