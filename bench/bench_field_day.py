"""A device that was away for three days syncs its part of a large hub, over a slow mobile link."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING

from bench import data, network, pairs, peers
from bench.link import Link, converse
from bench.network import Member
from bench.runner import Result, Target, checked
from fieldsync.clock import now_ms

if TYPE_CHECKING:
    from pathlib import Path

CONTENDERS = ("fieldsync",)
NOTES = {
    "records": "the hub holds ten times as many, in 100 scopes; the device one of these; of so many records in it as "
    "100,000 make 10,000, colleagues changed 500 fields and the device 100, each a transaction of its own",
    "virtual_s": "of a link of 300 ms a round trip and 1 Mbit/s both ways, with TCP's slow start, without loss; from "
    "the first packet until both ends have ended the session; computing takes none, and is cpu_s, of both ends",
    "bytes": "of all TLS records, both ways; frame_bytes is the session's share of them",
    "round_trips": "of TCP, TLS 1.3 with both certificates, WebSocket's upgrade and the session",
    "full_copy": "a plain SQLite file of the scope's records, which is what a rebuild would bring",
    "first_sync": "the device's first sync of its scope, over the same link; its columns are compressed",
}
TARGETS = (Target("fieldsync_virtual_s", 3), Target("fieldsync_share_of_full_copy", 0.01))
RUNS = 1
LINK = Link(round_trip_s=0.3, bits_per_s=1_000_000)
TIMES, SCOPES = 10, 100  # as many records as the option says, and in so many scopes
MINE = "territory/00"
COLLEAGUES = 5
THEIR_EDITS, OUR_EDITS = 20, 100  # one for so many records in the scope
DAY_MS = 86_400_000


class _Clock:
    """The wall clock of all of them."""

    def __init__(self, days_ago: int) -> None:
        self.ms = now_ms() - days_ago * DAY_MS

    def __call__(self) -> int:
        return self.ms


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Build a hub, let the device and its colleagues work and sync, and then work alone for three days, and sync."""
    clock = _Clock(days_ago=6)
    hub = Member(folder / "hub", network.found(folder), hub=True, scopes=SCOPES)
    hub.db.replica.wall_ms = clock
    rows = _built(hub, count)
    device, *colleagues = members = [_member(hub, folder, f"device{number}") for number in range(1 + COLLEAGUES)]
    for member in members:
        member.db.replica.wall_ms = clock
    first, *_ = [converse(LINK, member, hub) for member in members]
    _work(rows, members, [1] * len(members), clock, days=3)
    for member in members * 2:  # so that all have what the others made
        converse(LINK, member, hub)
    ours, theirs = max(len(rows) // OUR_EDITS, 1), max(len(rows) // THEIR_EDITS // COLLEAGUES, 1)
    _work(rows, members, [ours] + [theirs] * COLLEAGUES, clock, days=3)
    for colleague in colleagues:
        converse(LINK, colleague, hub)
    cost = converse(LINK, device, hub)
    table = peers.contender("sqlite3")(folder)
    table.build(list(rows.items()))
    table_bytes = table.size()
    table.close()
    digest = checked(device, rows)
    assert _digest(device) == _digest(hub)
    pairs.close(hub, *members)
    figures = {
        "virtual_s": cost.seconds,
        "bytes": cost.bytes,
        "round_trips": cost.round_trips,
        "share_of_full_copy": cost.bytes / table_bytes,
        "share_of_first_sync": cost.bytes / first.bytes,
        "frame_bytes": cost.frame_bytes,
        "cpu_s": cost.cpu_seconds,
        "full_copy_bytes": table_bytes,
        "first_sync_bytes": first.bytes,
        "first_sync_s": first.seconds,
    }
    return Result(figures, digest)


def _digest(member: Member) -> str:
    """Of the cells in the device's scope."""
    (found,) = (scope.digest for scope in member.db.scopes() if scope.name == MINE)
    return str(found)


def _built(hub: Member, count: int) -> dict[str, data.Row]:
    """Load the hub; what of it is in the device's scope."""
    rows: dict[str, data.Row] = {}
    for part in range(TIMES):
        records = data.records(count, seed=part)
        hub.build(records)
        rows |= {key: row for key, row in records if hub.scope_of(key) == MINE}
    return rows


def _member(hub: Member, folder: Path, name: str) -> Member:
    member = Member(folder / name, network.admit(hub, folder, name), scopes=SCOPES)
    member.db.enter(MINE)
    return member


def _work(rows: dict[str, data.Row], members: list[Member], edits: list[int], clock: _Clock, days: int) -> None:
    """Let each edit so many fields, at any time in these days, of records that nobody else edits."""
    keys, began = list(rows), clock.ms
    for number, (member, many) in enumerate(zip(members, edits, strict=True)):
        chance = Random(began * len(members) + number)
        moments = sorted(chance.randrange(days * DAY_MS) for _ in range(many))
        for edit, moment in zip(data.edits(keys[number :: len(members)], many, began + number), moments, strict=True):
            clock.ms = began + moment
            member.edit([edit])
            rows[edit.key][edit.field] = edit.value
    clock.ms = began + days * DAY_MS


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "field_day", *sys.argv[1:]]))
