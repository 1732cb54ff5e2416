"""A sync after one field of one record was edited, where one scope is shared, and where 50 are."""

import sys
from pathlib import Path

from bench import data, pairs
from bench.peers import Fieldsync
from bench.runner import Result, Target

CONTENDERS = ("fieldsync",)
NOTES = {
    "bytes": "of all frames, both ways; medians and the worst of 20 edits, with a sync after each",
    "_of_50": "one scope of 50 changed",
    "_pulled": "the edit was made at the hub, which answers; else at the device, which begins",
}
SCOPES = {"": 1, "_of_50": 50}
SIDES = ("", "_pulled")
NAMES = tuple(f"{suffix}{side}" for suffix in SCOPES for side in SIDES)
TARGETS = tuple(
    Target(f"fieldsync_{figure}{name}", limit)
    for figure, limit in {"bytes": 130, "round_trips": 1}.items()
    for name in NAMES
)
EDITS = 20
RUNS = 1


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Make one edit at a time, at either side, and sync."""
    records = data.records(count)
    keys = [key for key, _ in records]
    figures: dict[str, float] = {}
    digest = ""
    for suffix, scopes in SCOPES.items():
        hub, device = pairs.synced(folder / str(scopes), records, scopes)
        every = _write_everywhere(device, keys)
        pairs.sync(device, hub)
        for side, writer in zip(SIDES, (device, hub), strict=True):
            edits, reports = data.edits(keys, EDITS, len(every)), []
            for edit in edits:
                writer.edit([edit])
                reports.append(pairs.sync(device, hub))
            figures |= pairs.spread(f"bytes{suffix}{side}", [pairs.size(report) for report in reports])
            figures |= pairs.spread(f"round_trips{suffix}{side}", [report.round_trips for report in reports])
            every += edits
        digest += pairs.agreed(data.edited(records, every), hub, device)
        pairs.close(hub, device)
    return Result(figures, digest)


def _write_everywhere(device: Fieldsync, keys: list[str]) -> list[data.Edit]:
    """Edit a record in each scope: a device's first change somewhere brings a new author, no later one does."""
    some = {device.scope_of(key): key for key in keys}
    edits = [data.Edit(key, "priority", 0) for key in some.values()]
    device.edit(edits)
    return edits


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "lone", *sys.argv[1:]]))
