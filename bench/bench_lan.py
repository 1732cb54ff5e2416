"""Two devices that worked apart meet on a local network: from the start of their agents until both hold the same."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from bench import data, network, pairs
from bench.link import OFFICE, converse
from bench.network import Member
from bench.runner import Result
from fieldsync.network.agent import Agent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONTENDERS = ("fieldsync",)
NOTES = {
    "s": "from the first agent's start, over TLS: both hold one scope, of a hundredth of the records, and each has "
    "edited a twentieth of it since they synced with the hub, which is not there; of 5 meetings, in one process",
    "by_multicast": "1 where they found each other by mDNS on this machine's networks; 0 where they did not, and one "
    "was told the other's address",
}
TARGETS = ()
RUNS = 1
MEETINGS = 5
SHARE, EDITED = 100, 20
FIND_SECONDS, PATIENCE_SECONDS = 15, 60


class Meeting(NamedTuple):
    """What came of one."""

    seconds: float
    by_multicast: bool


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Bring two devices up to date from a hub; then let them meet again and again."""
    hub = Member(folder / "hub", network.found(folder), hub=True)
    rows = dict(data.records(max(count // SHARE, 2 * EDITED)))
    hub.build(list(rows.items()))
    pair = [_member(hub, folder, name) for name in ("ada", "ben")]
    for member in pair:
        converse(OFFICE, member, hub)
    _work(rows, pair, seed=0)
    for member in pair * 2:  # so that each has heard of the other
        converse(OFFICE, member, hub)
    meetings: list[Meeting] = []
    for number in range(1, MEETINGS + 1):
        _work(rows, pair, seed=number)
        meetings.append(_meet(pair, by_multicast=all(one.by_multicast for one in meetings)))
    digest = pairs.agreed(rows, *pair)
    pairs.close(hub, *pair)
    figures = pairs.spread("s", [one.seconds for one in meetings])
    return Result(figures | {"by_multicast": float(meetings[-1].by_multicast)}, digest)


def _member(hub: Member, folder: Path, name: str) -> Member:
    member = Member(folder / name, network.admit(hub, folder, name))
    member.db.enter(*member.scopes)
    return member


def _work(rows: dict[str, data.Row], pair: Sequence[Member], seed: int) -> None:
    """Let each edit some records, which the other does not, in one transaction."""
    keys = list(rows)
    for number, member in enumerate(pair):
        edits = data.edits(keys[number::2], len(keys) // EDITED, 2 * seed + number)
        member.edit(edits)
        for edit in edits:
            rows[edit.key][edit.field] = edit.value


def _meet(pair: Sequence[Member], *, by_multicast: bool) -> Meeting:
    """Start two agents and wait until both replicas are equal; without multicast where that brings nothing."""
    ada, ben = pair
    with ExitStack() as stack:
        began = time.perf_counter()
        if by_multicast:
            for member in pair:
                stack.enter_context(Agent(member.db, lan=True, identity=member.identity))
            if _are_equal_within(FIND_SECONDS, ada, ben):
                return Meeting(time.perf_counter() - began, True)
            stack.close()
            began = time.perf_counter()
        listening = stack.enter_context(Agent(ada.db, listen=("127.0.0.1", 0), identity=ada.identity))
        address = f"wss://127.0.0.1:{listening.port}"
        stack.enter_context(Agent(ben.db, peers=[address], identity=ben.identity))
        assert _are_equal_within(PATIENCE_SECONDS, ada, ben), "two agents did not converge"
        return Meeting(time.perf_counter() - began, False)


def _are_equal_within(seconds: float, *pair: Member) -> bool:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        one, other = ([(scope.name, scope.digest) for scope in member.db.scopes()] for member in pair)
        if one == other:
            return True
        time.sleep(0.005)
    return False


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "lan", *sys.argv[1:]]))
