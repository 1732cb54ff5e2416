"""Hybrid logical clock (Kulkarni et al., 2014): 48 bits of milliseconds, 16 bits of counter, in one integer."""

import time
from datetime import UTC, datetime

from fieldsync.limits import DRIFT_MS_MAX, TIME_MAX

COUNTER_BITS = 16


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def tick(last: int, wall_ms: int) -> int:
    """The time of a new change: above `last`, and not behind the wall clock."""
    return min(max(last + 1, wall_ms << COUNTER_BITS), TIME_MAX)


def is_trusted(time: int, wall_ms: int) -> bool:
    """Whether a received time may move the local clock: it is at most DRIFT_MS_MAX ahead of the wall clock."""
    return time >> COUNTER_BITS <= wall_ms + DRIFT_MS_MAX


def observe(last: int, time: int, wall_ms: int) -> int:
    """The clock after a received time: moved forward by it, unless it lies too far ahead."""
    return max(last, time) if is_trusted(time, wall_ms) else last


def to_datetime(time: int) -> datetime:
    """The moment of a hybrid time, in UTC."""
    return datetime.fromtimestamp(to_ms(time) / 1000, UTC)


def to_ms(time: int) -> int:
    """The milliseconds since 1970 of a hybrid time."""
    return time >> COUNTER_BITS
