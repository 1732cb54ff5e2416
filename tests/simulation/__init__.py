"""The simulator: the real engine on real files, in one thread, under one seeded source of chance.

3 to 5 devices, some with wildly wrong clocks or an older version of the app, hold one to three scopes, more or less
urgently; up to two of them are hubs that take all. They write (records, counters, sets, texts, lists, maps, deletes,
bulk loads, fields of a later version), settle conflicts, dismiss late edits, make records again from them or from the
trash, wish records into other scopes, and sync frame by frame, in several conversations at a time, which are cut
anywhere, stall one way, double a frame or run out of their budget (traffic.py). Bundles are carried about; scopes are
left, with an escrow or without, and entered again, with a bundle of all that was there or without.

Disasters (disasters.py) strike at any moment: disks are full; processes die before, in or after a commit; power cuts
take what of the log was not synced (disk.py); files are damaged and repaired (damage.py), copied and opened elsewhere,
replaced by older copies; devices are lost for ever. At any moment (`Device.check`, `Schedule.check_pairs`):

- what a scope holds is what its context says, by an oracle that knows true causality (oracle.py): nothing lost, nothing
  risen; registers read what was written last, counters the sum of their increments, texts, lists and maps what pycrdt
  makes of just the updates that live (fields.py); no conflict is between writes one of which had seen the other;
- what the hub that owns the scopes moves lives once, as it was, and what is written to it too late follows (mover.py);
- somebody has every change that was ever made, but for those that disasters took the last of (ledger.py): what a device
  leaves behind a hub has, what was given away is durable, a repair costs what was damaged, no name is given twice;
- digest, columns and change index are what they are when computed again from the record blobs (audit.py);
- equal contexts and nothing provisional mean equal digests; no stamp far ahead has moved a clock.

Then the faults stop, each pair syncs once, and all must hold the same, provisional only what nobody accounts for;
another sync moves nothing and takes one round trip; all go on working, and sync once more.

rules.py switches rules of the protocol off, one at a time, and tests/test_simulation.py wants the simulator to notice:
TRIES there has for each rule the seeds that suffice, at least twice those that the first to notice took.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from tests.simulation.schedule import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.schedule import Outcome


def outcomes(first: int, count: int, jobs: int = 1) -> Iterator[Outcome]:
    """Play seeds one after the other, or in several processes."""
    seeds = range(first, first + count)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run, seeds)


def replay(seed: int, without: list[str]) -> str:
    """The command that plays one seed again."""
    rules = "".join(f" --without {name}" for name in without)
    return f"python -m tests.simulation --first {seed} --seeds 1 --trace{rules}"
