"""A sync that brings 10,000 field edits, a transaction each, by one author and by 20."""

import shutil
import sys
from pathlib import Path

from bench import data, pairs
from bench.runner import Result, Target

CONTENDERS = ("fieldsync",)
NOTES = {
    "bytes_per_edit": "of all frames, both ways, over the number of edits: a tenth of the records, any field of them",
    "_one, _many": "edited by one device, or by 20 in equal parts; a hub has all of it, another device was away",
}
TARGETS = tuple(Target(f"fieldsync_bytes_per_edit_{name}", 15) for name in ("one", "many"))
RUNS = 1
AUTHORS = {"one": 1, "many": 20}
EDITS_SHARE = 10  # edits are a tenth as many as records


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Have the edits made by one device or many, brought to the hub, and taken by one that was away."""
    records = data.records(count)
    edits = data.edits([key for key, _ in records], max(count // EDITS_SHARE, max(AUTHORS.values())), 2)
    pairs.close(*pairs.synced(folder / "before", records))
    figures: dict[str, float] = {}
    wanted, digests = data.edited(records, edits), set()
    for name, authors in AUTHORS.items():
        hub, away = _edited(folder / "before", folder / name, edits, authors)
        report = pairs.sync(away, hub)
        figures[f"bytes_per_edit_{name}"] = pairs.size(report) / len(edits)
        digests.add(pairs.agreed(wanted, hub, away))
        pairs.close(hub, away)
    (digest,) = digests
    return Result(figures, digest)


def _edited(before: Path, place: Path, edits: list[data.Edit], authors: int) -> pairs.Pair:
    """A hub that has the edits of so many devices, one after the other, and a device that has none of them."""
    hub, away = pairs.copied(before / "hub", place / "hub", hub=True), pairs.copied(before / "device", place / "away")
    for number, share in enumerate(data.batches(edits, -(-len(edits) // authors))):
        device = pairs.copied(before / "device", place / f"{number}")
        for batch in data.batches(share, 1):
            device.edit(batch)
        pairs.sync(device, hub)
        pairs.close(device)
        shutil.rmtree(place / f"{number}")
    return hub, away


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "bulk", *sys.argv[1:]]))
