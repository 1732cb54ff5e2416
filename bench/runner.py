"""Measures one contender in one topic, in this process alone (python -m bench.runner TOPIC CONTENDER RECORDS).

Prints the result as one line of JSON. `collect` starts such processes and takes the medians.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import data, peers

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_SECONDS_MAX = 3_600  # of one measurement
RU_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
TOPICS = (
    *("build", "open", "edit", "delta", "apply", "first_sync", "delete", "query", "kernels", "scale", "sketch", "idle"),
    *("lone", "bulk", "rejoin", "move", "cuts", "text", "set", "field_day", "fleet", "lan"),
)


class Result(NamedTuple):
    """One measurement: figures, and a digest of the values that the contender held at the end."""

    figures: dict[str, float]
    digest: str


class Target(NamedTuple):
    """What a metric may be at most (or at least): so much, or so many times another metric."""

    metric: str
    limit: float
    of: str | None = None


def peak_mb() -> float:
    """The most memory that this process has ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RU_MAXRSS_BYTES / 1e6


def checked(peer: Any, wanted: Mapping[str, data.Row]) -> str:
    """The digest of what a contender holds; AssertionError unless it is exactly what it should hold."""
    found, right = data.digest(peer.rows()), data.digest(wanted)
    assert found == right, f"{type(peer).__name__} holds other values than those it was given"
    return found


def topic(name: str) -> Any:
    """The module of a topic."""
    return import_module(f"bench.bench_{name}")


def skipped(name: str) -> str:
    """Why a topic cannot be measured here; empty where it can."""
    why: str = getattr(topic(name), "is_skipped", str)()
    return why


def runs(name: str, repeat: int) -> int:
    """How often a topic is measured: what counts bytes, over seeds of its own, gains nothing from being repeated."""
    return min(repeat, getattr(topic(name), "RUNS", repeat))


def run(name: str, contender: str, records: int) -> Result:
    """One measurement in a new process; RuntimeError, with what it said, if it fails or does not end."""
    command = [sys.executable, "-m", "bench.runner", name, contender, str(records)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} of {contender} took more than {RUN_SECONDS_MAX} s") from None
    if done.returncode:
        raise RuntimeError(f"{name} of {contender} failed:\n{done.stderr}")
    return Result(*json.loads(done.stdout))


def collect(name: str, records: int, repeat: int) -> dict[str, float]:
    """The medians of a topic: contender_figure -> number. Contenders take turns, so that a slow minute hits all.

    AssertionError if any two of them ended with different values.
    """
    found: dict[str, list[float]] = defaultdict(list)
    digests = set()
    present = [contender for contender in topic(name).CONTENDERS if not peers.is_missing(contender)]
    for turn in range(runs(name, repeat)):
        for contender in present:
            print(f"{name}, run {turn + 1} of {runs(name, repeat)}: {contender}", file=sys.stderr)
            result = run(name, contender, records)
            digests.add(result.digest)
            for figure, value in result.figures.items():
                found[f"{contender}_{figure}"].append(value)
    assert len(digests) == 1, f"{name}: contenders ended with different values"
    return {metric: median(values) for metric, values in found.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fieldsync-bench-") as folder:
        os.environ["XDG_STATE_HOME"] = folder  # where databases keep notes of their files
        print(json.dumps(topic(sys.argv[1]).measure(sys.argv[2], int(sys.argv[3]), Path(folder))))
