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
    "author_again": 100,
    "context_joined_midstream": 10,
    "drops_before_done": 100,
    "edits_of_the_dead_vanish": 10,
    "floors_stay": 10,
    "floors_unchecked": 10,
    "giver_moves": 20,
    "incarnations_only": 10,
    "many_streams": 1_500,
    "one_incarnation_written": 10,
    "parts_are_held_back": 500,
    "parts_are_wholes": 50,
    "provisional_uncompared": 700,
    "removals_forget": 100,
    "seen_is_direct": 50,
    "trimmed_unguarded": 50,
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
