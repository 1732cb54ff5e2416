"""What is logged of those who fail at a port: some lines at once, then one in a while: nobody fills a disk."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from fieldsync.limits import WARNINGS_BURST, WARNINGS_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("fieldsync")


class Sparing:
    """Warnings of one kind. What is left out is counted, and told by the next line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(WARNINGS_BURST)
        self._at = clock()
        self._left_out = 0

    def warn(self, message: str, **fields: Any) -> None:
        """Log a warning with these fields, or count it as left out."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) / WARNINGS_PAUSE_SECONDS, WARNINGS_BURST)
        self._at = now
        if self._left < 1:
            self._left_out += 1
            return
        self._left -= 1
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
            message += f" ({fields['left_out']:,} more since the last such line)"
        log.warning("%s", message, extra={"fields": fields})
