"""What got worse between two runs: figures over those of peers in the same run, so that the machine's speed is out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Metrics = dict[str, dict[str, float]]  # by topic
OWN = re.compile(r"(fieldsync(?:_full|_single)?)_(.+)")
PEERS = ("sqlite3", "sqlite3_full", "pycrdt", "loro", "memcpy")
MORE_IS_BETTER = re.compile(r"per_s$")
WORSE_SHARE = 0.1  # which is noise, for times


class Worse(NamedTuple):
    """A figure that got worse, over that of a peer if there is one."""

    topic: str
    metric: str
    over: str  # the peer's metric; empty for what is the same on any machine: bytes and round trips
    before: float
    now: float

    def __str__(self) -> str:
        over = f" / {self.over}" if self.over else ""
        share = abs(self.now / self.before - 1) if self.before else float("inf")
        return f"{self.topic}: {self.metric}{over}: {self.before:.4g} -> {self.now:.4g}, {share:.0%} worse"


def worse(now: Metrics, before: Metrics) -> Iterator[Worse]:
    """The figures that both runs have, where this one is worse by more than WORSE_SHARE."""
    for topic in now.keys() & before.keys():
        one, other = now[topic], before[topic]
        for metric in sorted(one.keys() & other.keys()):
            if own := OWN.fullmatch(metric):
                for over in _over(own[2], one, other):
                    values = [found[metric] / found[over] if over else found[metric] for found in (other, one)]
                    found = Worse(topic, metric, over, *values)
                    if _is_worse(own[2], *values):
                        yield found


def _over(figure: str, one: dict[str, float], other: dict[str, float]) -> list[str]:
    """The peers' metrics that a figure is held against."""
    every = [f"{peer}_{figure}" for peer in PEERS]
    peers = [metric for metric in every if one.get(metric) and other.get(metric)]
    return peers or ([""] if "bytes" in figure or "round_trips" in figure else [])


def _is_worse(figure: str, before: float, now: float) -> bool:
    if MORE_IS_BETTER.search(figure):
        return now < before * (1 - WORSE_SHARE)
    return now > before * (1 + WORSE_SHARE)
