"""A session in memory: two replicas of one process, frame by frame."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fieldsync.syncing.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report


def join(
    one: Replica,
    other: Replica,
    *,
    scopes: list[str] | None = None,
    cut_after: int | None = None,
    progress: Callable[[Report], object] | None = None,
    enough: Callable[[Report], bool] | None = None,
) -> Report:
    """Sync two replicas of this process; with cut_after, the link dies after so many frames. enough: see Session."""
    began = time.perf_counter()
    sides = (
        Session(one, initiator=True, scopes=scopes, peer=other.id.hex(), enough=enough),
        Session(other, initiator=False),
    )
    try:
        frames, idle, turn = 0, 0, 0
        while idle < 2 and frames != cut_after:
            frame = sides[turn].next_frame()
            if frame is None:
                idle, turn = idle + 1, 1 - turn
                continue
            frames, idle = frames + 1, 0
            sides[1 - turn].receive(frame)
            if turn and progress is not None:
                progress(sides[0].report)
            if sides[0].finished and not sides[0].report.complete:
                break  # it was enough; the other side has not heard of that yet
    finally:
        for side in sides:
            side.close()
    sides[0].report.seconds = time.perf_counter() - began
    return sides[0].report
