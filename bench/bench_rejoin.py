"""A device comes back to a hub that deleted records meanwhile and forgot that it did: what finding them costs."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from bench import data, pairs
from bench.peers import SCOPE, Fieldsync
from bench.runner import Result, Target
from fieldsync.syncing import exchange, existence
from fieldsync.syncing.reconcile import ITEM_BYTES, Asker, answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENDERS = ("fieldsync", "ranges", "copy")
NOTES = {
    "_10, _100, _1000": "so many records deleted, a quarter at most, as many edited, as many created; removals trimmed",
    "bytes_over_changes": "of all frames, less those of the same sync where nothing was deleted, which brings just "
    "the edits and the new records; a sync with the removals kept would bring them too, and make this look smaller",
    "round_trips": "the hello's included",
    "ranges": "questions and answers about ranges of the items that the sketch is made of, and nothing else",
    "copy": "a first sync of the whole scope, less the changes",
    "_worst": "of 20 seeds, where the other figure is their median; ranges and copy, which vary little, have 1",
}
BUDGETS = {10: 500, 100: 3_000, 1_000: 24_000}  # bytes
TARGETS = (
    *(Target(f"fieldsync_bytes_over_changes_{removals}", limit) for removals, limit in BUDGETS.items()),
    *(Target(f"fieldsync_round_trips_{removals}", 2) for removals in BUDGETS),
)
SEEDS = {"fieldsync": 20, "ranges": 1, "copy": 1}
RUNS = 1
TRIM_ALL_MS = 1 << 62


class Absence(NamedTuple):
    """What happened at the hub while the device was away."""

    deleted: list[str]
    edits: list[data.Edit]
    created: data.Records

    def rows(self, records: data.Records) -> dict[str, data.Row]:
        """What lives after it."""
        found = data.edited([*records, *self.created], self.edits)
        for key in self.deleted:
            del found[key]
        return found


class Cost(NamedTuple):
    """What it took to learn what is gone."""

    bytes: int
    round_trips: int


def absence(records: data.Records, number: int, seed: int) -> Absence:
    """So many records deleted, as many edits of others, as many new ones."""
    number = min(number, len(records) // 4)
    keys = Random(seed).sample([key for key, _ in records], len(records))
    return Absence(keys[:number], data.edits(keys[number:], number, seed), data.records(number, 1_000 + seed))


@contextmanager
def after(before: Path, missed: Absence) -> Iterator[pairs.Pair]:
    """A hub where that happened, its removals trimmed, and the device that was away: from copies of their files."""
    with TemporaryDirectory(dir=before.parent) as name:
        place = before.parent / name
        hub = pairs.copied(before / "hub", place / "hub", hub=True)
        device = pairs.copied(before / "device", place / "device")
        hub.edit(missed.edits)
        hub.delete(missed.deleted)
        hub.create(missed.created)
        hub.db.replica.trim(None, before_ms=TRIM_ALL_MS)
        yield hub, device
        pairs.assert_equal(hub, device)
        pairs.close(hub, device)


def changes(before: Path, missed: Absence) -> int:
    """Bytes of the sync where nothing was deleted."""
    with after(before, missed._replace(deleted=[])) as (hub, device):
        return pairs.size(pairs.sync(device, hub))


def by_sync(hub: Fieldsync, device: Fieldsync) -> Cost:
    """What the engine does; the changes come along."""
    report = pairs.sync(device, hub)
    return Cost(pairs.size(report), report.round_trips)


def by_copy(hub: Fieldsync, device: Fieldsync) -> Cost:
    """A first sync of an empty file; the changes come along."""
    fresh = pairs.opened(device.path.parent / "fresh")
    cost = by_sync(hub, fresh)
    fresh.close()
    pairs.sync(device, hub)
    return cost


def by_ranges(hub: Fieldsync, device: Fieldsync) -> Cost:
    """Questions and answers about the items that the engine would make a sketch of."""
    theirs, ours = _items(hub, device)
    asker, size, round_trips = Asker(ours), 0, 1
    while question := asker.question():
        reply = answer(theirs, question)
        asker.receive(reply)
        size, round_trips = size + len(question) + len(reply), round_trips + 1
    gone = pairs.sync(device, hub)
    found = asker.difference
    assert not found.theirs
    assert len(found.ours) == len(ours) - len(theirs) > 0
    assert gone.records_changed * ITEM_BYTES >= len(found.ours)
    return Cost(size, round_trips)


def _items(hub: Fieldsync, device: Fieldsync) -> tuple[bytes, bytes]:
    with hub.db.replica.store.reading() as giver, device.db.replica.store.reading() as taker:
        theirs, ours = giver.scope(SCOPE), taker.scope(SCOPE)
        dots = existence.compared(giver.context(theirs.id), exchange.declare(taker, ours))
        key = bytes(existence.KEY_BYTES)
        return existence.items(giver, theirs, dots, key), existence.items(taker, ours, dots, key)


METHODS = {"fieldsync": by_sync, "ranges": by_ranges, "copy": by_copy}


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build a hub and a device once; bring the device back from one absence after the other."""
    records, before = data.records(count), folder / "before"
    pairs.close(*pairs.synced(before, records))
    figures: dict[str, float] = {}
    digest = ""
    for removals in BUDGETS:
        costs: list[Cost] = []
        extra: list[float] = []
        for seed in range(SEEDS[contender]):
            missed = absence(records, removals, seed)
            with after(before, missed) as (hub, device):
                costs.append(METHODS[contender](hub, device))
                if seed == 0 and removals == max(BUDGETS):  # the others by their digests alone
                    digest = pairs.agreed(missed.rows(records), hub, device)
            extra.append(costs[-1].bytes - (changes(before, missed) if contender != "ranges" else 0))
        figures |= pairs.spread(f"bytes_over_changes_{removals}", extra)
        figures |= pairs.spread(f"round_trips_{removals}", [cost.round_trips for cost in costs])
    return Result(figures, digest)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "rejoin", *sys.argv[1:]]))
