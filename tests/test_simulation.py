"""The simulator (tests/simulation) finds nothing; and it would, if there were something."""

import os
import subprocess
import sys

import pytest
from tests.simulation import outcomes, replay
from tests.simulation.rules import RULES
from tests.simulation.schedule import run

SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))  # how many schedules; CI: 2000
TRIES = {  # rule -> seeds among which one is sure to notice that it is off
    "anyone_is_hub": 100,
    "author_again": 10,
    "context_joined_midstream": 10,
    "copies_unrecognised": 50,
    "drops_before_done": 400,
    "edits_of_the_dead_vanish": 10,
    "enough_is_done": 100,
    "floors_stay": 100,
    "floors_unchecked": 10,
    "giver_moves": 50,
    "incarnations_only": 50,
    "left_with_relayed": 50,
    "many_streams": 100,
    "one_incarnation_written": 10,
    "parts_are_held_back": 10,
    "parts_are_wholes": 10,
    "provisional_uncompared": 300,
    "removals_forget": 10,
    "repairs_claim_all": 10,
    "repairs_claim_parts": 20,
    "repairs_keep_floors": 20,
    "repairs_keep_givers": 300,
    "repairs_keep_streams": 100,
    "seen_is_direct": 100,
    "trimmed_unguarded": 300,
    "unsynced_leaves": 50,
}


@pytest.mark.timeout(0)  # as long as the seeds take
def test_no_schedule_breaks_a_promise():
    failed = [outcome for outcome in outcomes(0, SEEDS, jobs=os.cpu_count() or 1) if outcome.violation]
    assert not failed, "".join(f"\n{one.violation}\n{replay(one.seed, [])}" for one in failed[:3])


def test_a_seed_gives_the_same_trace_in_every_process():
    code = "from tests.simulation.schedule import run; print(*run(5).trace, sep='\\n')"
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    ]
    assert traces[0] == traces[1] == ("\n".join(run(5).trace) + "\n").encode()
    assert traces[0] != ("\n".join(run(6).trace) + "\n").encode()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("rule", TRIES)
def test_a_rule_that_is_off_is_noticed(rule):
    if TRIES[rule] > SEEDS:
        pytest.skip(f"wants FIELDSYNC_SEEDS={TRIES[rule]}")
    with RULES[rule]():
        assert any(run(seed).violation for seed in range(TRIES[rule]))
