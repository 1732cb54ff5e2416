"""The hub moves 1,000 of 10,000 records to another scope; a device that holds both takes that."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import data, pairs
from bench.peers import SCOPE
from bench.runner import Result, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENDERS = ("fieldsync",)
NOTES = {
    "bytes": "of all frames, both ways, of the sync after the moves",
    "bytes_over_entering": "the same over the bytes of a sync that brings the same records, new in that scope",
    "round_trips": "the hello's included",
    "_worst": "of 20 seeds, which choose the records that move, where the other figure is their median",
}
TARGETS = (Target("fieldsync_bytes_over_entering", 1.2), Target("fieldsync_round_trips", 2))
RECORDS_MAX = 10_000
SHARE = 10  # one in so many moves
TARGET = "territory/new"
SEEDS = 20
RUNS = 1


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Move records, at copies of one hub, and sync copies of one device with it."""
    records = data.records(min(count, RECORDS_MAX))
    pair = pairs.synced(folder / "before", records)
    for replica in pair:
        replica.db.enter(TARGET)
    pairs.sync(pair[1], pair[0])
    pairs.close(*pair)
    ratios, sizes, trips, digests = [], [], [], set()
    for seed in range(SEEDS):
        moving = dict(Random(seed).sample(records, len(records) // SHARE))
        with _copies(folder / "before") as (hub, device):
            _move(hub, moving)
            report = pairs.sync(device, hub)
            assert {held.name: held.records for held in device.db.scopes()}[TARGET] == len(moving)
            pairs.assert_equal(hub, device)
            digests.add(pairs.agreed(dict(records), hub, device))
        with _copies(folder / "before") as (hub, device):
            _create(hub, moving)
            entering = pairs.size(pairs.sync(device, hub))
        sizes.append(pairs.size(report))
        trips.append(report.round_trips)
        ratios.append(sizes[-1] / entering)
    (digest,) = digests
    figures = pairs.spread("bytes", sizes) | pairs.spread("bytes_over_entering", ratios)
    return Result(figures | pairs.spread("round_trips", trips), digest)


@contextmanager
def _copies(before: Path) -> Iterator[pairs.Pair]:
    with TemporaryDirectory(dir=before.parent) as name:
        place = before.parent / name
        hub, device = (
            pairs.copied(before / "hub", place / "hub", hub=True),
            pairs.copied(before / "device", place / "d"),
        )
        yield hub, device
        pairs.close(hub, device)


def _move(hub: pairs.Fieldsync, rows: dict[str, data.Row]) -> None:
    with hub.db.write() as tx:
        for key in rows:
            tx.move(hub.thing, key, scope=SCOPE, to=TARGET)


def _create(hub: pairs.Fieldsync, rows: dict[str, data.Row]) -> None:
    with hub.db.write() as tx:
        for key, row in rows.items():
            tx.create(hub.thing, scope=TARGET, key=f"+{key}", **row)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "move", *sys.argv[1:]]))
