"""A sync of 50 scopes where nothing changed since the same two replicas synced last."""

import sys
from pathlib import Path

from bench import data, pairs
from bench.runner import Result, Target

CONTENDERS = ("fieldsync",)
NOTES = {"bytes": "of all frames, both ways; without TLS and WebSocket headers"}
TARGETS = (Target("fieldsync_bytes", 1_000), Target("fieldsync_round_trips", 1))
SCOPES = 50
RUNS = 1


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Sync a hub's records once, then again."""
    records = data.records(count)
    hub, device = pairs.synced(folder, records, SCOPES)
    report = pairs.sync(device, hub)
    figures: dict[str, float] = {"bytes": pairs.size(report), "round_trips": report.round_trips}
    digest = pairs.agreed(dict(records), hub, device)
    pairs.close(hub, device)
    return Result(figures, digest)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "idle", *sys.argv[1:]]))
