"""The simulator: the real engine on real files, in one thread, under one seeded source of chance.

3 to 6 devices, some with wildly wrong clocks or an older version of the app, hold one to three scopes; often one is a
hub that takes them all. They write (records, counters, deletes, bulk loads, set elements, texts, fields of a later
version) and sync frame by frame, in several conversations at a time, which are cut anywhere. Disks are full, files are
closed and opened again, devices are lost for ever. At any moment (`Device.check`, `Schedule.check_pairs`):

- what a scope holds is what its context says, by an oracle that knows true causality (oracle.py): nothing lost, nothing
  risen; registers read what was written last, counters the sum of their increments;
- digest, columns and change index are what they are when computed again from the record blobs (audit.py);
- equal contexts and nothing provisional mean equal digests; no stamp far ahead has moved a clock.

Then the faults stop, each pair syncs once, and all must hold the same; another sync moves nothing and takes one round
trip; all go on working, and sync once more.

rules.py switches rules of the protocol off, one at a time, and tests/test_simulation.py wants the simulator to notice:
TRIES there has for each rule the seeds that suffice, twice those that the first to notice took.
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
