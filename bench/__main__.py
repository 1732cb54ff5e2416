"""All benchmarks in one run: prints tables of medians and ratios, and writes them as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import clock, compare, peers, plot
from bench.bench_scale import LARGE
from bench.runner import TOPICS, collect, runs, skipped, topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runner import Target

EPILOG = """\
example:
  python -m bench --only build,apply --records 20000 --repeat 1 --json bench.json

which writes {"build": {"fieldsync_s": 1.2, ...}, "apply": {...}}. One topic alone: python -m bench.bench_build
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0, or 1 if a contender failed or held other values than the rest."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name in TOPICS:
            print(f"{name:<12}{topic(name).__doc__.strip()}")
        return 0
    if options.large:
        os.environ[LARGE] = "1"
    if options.cpu:
        os.environ[clock.CPU] = "1"
    before = json.loads(options.compare.read_text()) if options.compare else {}  # which may be the file to write
    found: compare.Metrics = {}
    failed = [name for name in options.only if not _measure(name, options, found)]
    if options.compare:
        _print_worse(found, before)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measure(name: str, options: argparse.Namespace, found: compare.Metrics) -> bool:
    """Measure a topic, print it, and write what was found so far; False, with what went wrong printed, if it failed."""
    if why := skipped(name):
        print(f"\n{name}: skipped, for {why}")
        return True
    began = time.monotonic()
    try:
        found[name] = collect(name, options.records, options.repeat)
    except (AssertionError, RuntimeError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return False
    what = f"{options.records:,} records, medians of {runs(name, options.repeat)}"
    what += ", seconds of the processor" if options.cpu else ""
    print(f"\n{name}: {what} (in parentheses: times fieldsync's); measured in {time.monotonic() - began:.0f} s")
    _print_table(name, found[name])
    sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot.draw(options.plot, found)
    return True


def _print_worse(found: compare.Metrics, before: compare.Metrics) -> None:
    every = list(compare.worse(found, before))
    print(f"\n{len(every)} figures got worse" if every else "\nnothing got worse")
    for one in every:
        print(f"  {one}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_topics, default=TOPICS, metavar="TOPIC,...", help="not all topics, but these")
    parser.add_argument("--records", type=_count, default=100_000, help="how many records (default: %(default)s)")
    parser.add_argument("--repeat", type=_count, default=3, help="medians of so many runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics to a file")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="say what got worse since --json wrote that file")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the plots of docs/performance.md")
    parser.add_argument("--large", action="store_true", help="topic scale: ten times as many records, too")
    parser.add_argument("--cpu", action="store_true", help="seconds of the processor, where a topic has one process")
    parser.add_argument("--list", action="store_true", help="list the topics and stop")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _topics(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(TOPICS):
        raise argparse.ArgumentTypeError(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    return names


def _print_table(name: str, metrics: dict[str, float]) -> None:
    """A line a figure, a column a contender; in parentheses how many times fieldsync's figure it is."""
    contenders = [contender for contender in topic(name).CONTENDERS if not peers.is_missing(contender)]
    own_metrics = [metric for metric in metrics if re.match("fieldsync_(?!(full_(?!copy)|single_))", metric)]
    width = max([12, *(len(metric) - len("fieldsync_") + 2 for metric in own_metrics)])
    print(f"  {'':<{width}}" + "".join(f"{contender:>22}" for contender in contenders))
    for metric in own_metrics:
        own, figure, cells = metrics[metric], metric.removeprefix("fieldsync_"), []
        for contender in contenders:
            value = metrics.get(f"{contender}_{figure}")
            ratio = f" ({value / own:.2f}x)" if value is not None and own and contender != "fieldsync" else " " * 8
            cells.append(f"{'' if value is None else plot.shown(value) + ratio:>22}")
        print(f"  {figure:<{width}}" + "".join(cells))
    for figure, note in topic(name).NOTES.items():
        print(f"  {figure}: {note}")
    for contender in topic(name).CONTENDERS:
        if peers.is_missing(contender):
            print(f"  {contender} is missing: pip install {peers.package_of(contender)}")
    for target in topic(name).TARGETS:
        _print_target(target, metrics)


def _print_target(target: Target, metrics: dict[str, float]) -> None:
    if target.of is not None and target.of not in metrics:
        return
    limit = target.limit * (metrics[target.of] if target.of else 1)
    value = metrics[target.metric]
    of = f" x {target.of}" if target.of else ""
    verdict = "met" if value <= limit else f"missed: {value / limit:.2f} times that"
    print(f"  target {target.metric} <= {target.limit:.4g}{of} = {plot.shown(limit)}: {plot.shown(value)}, {verdict}")


if __name__ == "__main__":
    sys.exit(main())
