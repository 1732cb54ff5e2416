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
    "drops_before_done": 800,
    "edits_of_the_dead_vanish": 10,
    "enough_is_done": 100,
    "every_hub_moves": 150,
    "floors_stay": 300,
    "floors_unchecked": 20,
    "forwards_forgotten": 60,
    "gaps_joined_midstream": 40,
    "giver_moves": 50,
    "incarnations_only": 50,
    "late_edits_of_one_author": 60,
    "late_edits_overwrite": 60,
    "late_edits_unremembered": 200,
    "late_edits_unseeing": 100,
    "late_removals_end": 150,
    "late_totals_count_whole": 500,
    "left_with_relayed": 50,
    "many_streams": 100,
    "one_incarnation_written": 10,
    "parts_are_held_back": 40,
    "parts_are_wholes": 40,
    "provisional_uncompared": 600,
    "removals_forget": 20,
    "repairs_claim_all": 10,
    "repairs_claim_parts": 40,
    "repairs_keep_floors": 40,
    "repairs_keep_givers": 600,
    "repairs_keep_streams": 600,
    "seen_is_direct": 200,
    "trimmed_unguarded": 600,
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
