"""The simulator from the command line: `python -m tests.simulation --seeds 20000 --jobs 2` is the long run."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from tests.simulation import outcomes, replay
from tests.simulation.rules import RULES


def main() -> int:
    """Play seeds; print what failed, and how to replay it. 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print what happened, step by step")
    parser.add_argument("--without", choices=RULES, default=[], action="append", help="switch a rule off")
    options = parser.parse_args()
    jobs = 1 if options.without else options.jobs  # patches are of one process
    began, failed = time.monotonic(), []
    with ExitStack() as rules:
        for name in options.without:
            rules.enter_context(RULES[name]())
        for done, outcome in enumerate(outcomes(options.first, options.seeds, jobs), 1):
            if options.trace:
                print("\n".join(outcome.trace))
            if outcome.violation:
                failed.append(outcome.seed)
                print(f"\rseed {outcome.seed}: {outcome.violation}\n  {replay(outcome.seed, options.without)}")
            if sys.stderr.isatty() or done % 100 == 0:
                print(f"\r{done} of {options.seeds}, {len(failed)} failed ", end="", file=sys.stderr, flush=True)
    print(f"\n{len(failed)} of {options.seeds} seeds failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
