"""Pairs of this engine's replicas, for the topics that measure single syncs: a hub, and a device that it knows."""

from __future__ import annotations

import shutil
from statistics import median
from typing import TYPE_CHECKING

from bench.peers import Fieldsync
from bench.runner import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.data import Records, Row
    from fieldsync import Report

Pair = tuple[Fieldsync, Fieldsync]  # hub, device


def opened(folder: Path, *, hub: bool = False, scopes: int = 1) -> Fieldsync:
    """A replica in a folder of its own, made if there is none; it holds the scopes."""
    folder.mkdir(parents=True, exist_ok=True)
    replica = Fieldsync(folder, hub=hub, scopes=scopes)
    replica.db.enter(*replica.scopes)
    return replica


def synced(folder: Path, records: Records, scopes: int = 1) -> Pair:
    """A hub that loaded the records, and a device that took them from it."""
    hub, device = opened(folder / "hub", hub=True, scopes=scopes), opened(folder / "device", scopes=scopes)
    hub.build(records)
    sync(device, hub)
    return hub, device


def copied(replica: Path, folder: Path, *, hub: bool = False) -> Fieldsync:
    """A replica of its own from the folder of a closed one: it knows a copied file, and writes under another name."""
    shutil.copytree(replica, folder)
    return Fieldsync(folder, hub=hub)


def sync(device: Fieldsync, hub: Fieldsync) -> Report:
    """A session in memory, begun by the device."""
    report: Report = device.db.sync(hub.db)
    return report


def size(report: Report) -> int:
    """Bytes of all frames, both ways."""
    return report.bytes_sent + report.bytes_received


def assert_equal(one: Fieldsync, other: Fieldsync) -> None:
    """Both hold the same cells, as their own digests say."""
    held, others = ([(scope.name, scope.records, scope.digest) for scope in each.db.scopes()] for each in (one, other))
    assert held == others, "a sync left two replicas with other values"


def agreed(wanted: Mapping[str, Row], *replicas: Fieldsync) -> str:
    """The digest of the values that replicas hold; AssertionError unless they are just these."""
    (digest,) = {checked(replica, wanted) for replica in replicas}
    return digest


def close(*replicas: Fieldsync) -> None:
    """Leave their files whole."""
    for replica in replicas:
        replica.close()


def spread(figure: str, values: Sequence[float]) -> dict[str, float]:
    """The median and the worst."""
    return {figure: median(values), f"{figure}_worst": max(values)}
