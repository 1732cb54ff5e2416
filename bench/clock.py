"""The clock of the benchmarks: seconds, or (--cpu) those of the processor, which a busy machine changes less."""

from __future__ import annotations

import os
import resource
import time

CPU = "FIELDSYNC_BENCH_CPU"  # in the environment, for the processes that measure


def processor_seconds() -> float:
    """What all threads of this process have used, and the processes that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


now = processor_seconds if os.environ.get(CPU) else time.perf_counter
