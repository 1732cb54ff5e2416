"""What a sync tells the app that asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What a session did. Bytes are those of frames; a round trip is an answer that had to be waited for."""

    bytes_sent: int = 0
    bytes_received: int = 0
    round_trips: int = 0
    seconds: float = 0.0
    changes_sent: int = 0
    changes_received: int = 0
    records_changed: int = 0
    scopes: list[str] = field(default_factory=list)  # shared, and equal to the peer's at the end or on the way there
    refused: list[str] = field(default_factory=list)  # scopes on offer here that the peer does not hold
    waiting: list[str] = field(default_factory=list)  # scopes of which the peer would take away more than it may
    superseded: list[str] = field(default_factory=list)  # scopes that a newer session of either side took over
    complete: bool = False  # all was said that there was to say
