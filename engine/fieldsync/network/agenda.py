"""Which peer to dial, when, and when to begin a session: an agent's decisions, without sockets and clocks.

Told what happens, it says what to do now and when to ask again. Times are seconds of one clock that never goes back.

    RESTING --Dial--> DIALLING --link_up--> LINKED --Begin--> BUSY --session_over--> LINKED
       ^                 |                    |                 |
       +-----------------+----- link_down ----+-----------------+     and a pause that doubles with each failure
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from fieldsync.limits import (
    DIALLING_MAX,
    PEERS_MAX,
    REFRESH_SECONDS,
    RETRY_FIRST_SECONDS,
    RETRY_SECONDS_MAX,
    SESSIONS_APART_SECONDS,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Phase(Enum):
    """Where things stand with a peer."""

    RESTING = "not connected"
    DIALLING = "connecting"
    LINKED = "connected"
    BUSY = "syncing"


class Dial(NamedTuple):
    """Connect to this peer now."""

    peer: str


class Begin(NamedTuple):
    """Begin a session with this peer now."""

    peer: str


@dataclass(slots=True)
class Standing:
    """What an agenda knows of one peer."""

    phase: Phase = Phase.RESTING
    is_expected: bool = False  # configured, or announced: worth dialling
    is_urgent: bool = False  # dialled before others
    is_ours: bool = False  # this side dialled, and so begins the sessions
    is_wanted: bool = False  # there may be news that a session would bring
    is_proven: bool = False  # a session went well over this link
    failures: int = 0  # in a row
    not_before: float = -math.inf  # of the next dial, or session
    last_dial: float = -math.inf
    last_success: float = -math.inf
    why_not: str = ""  # what went wrong last; empty where nothing did


@dataclass(slots=True)
class Agenda:
    """All peers of an agent. chance: draws from [0, 1), so that a crowd of agents does not dial in step."""

    chance: Callable[[], float]
    peers: dict[str, Standing] = field(default_factory=dict)
    quiet_until: float = -math.inf  # nothing begins before

    # --- what happens ---

    def see(self, peer: str, now: float, *, is_urgent: bool = False) -> None:
        """A peer is configured, or announced: it is to be dialled now, or after a pause if that has failed before."""
        if peer not in self.peers and len(self.peers) >= PEERS_MAX:
            return  # anybody can announce any number of them
        standing = self.peers.setdefault(peer, Standing())
        standing.is_expected, standing.is_urgent = True, is_urgent
        standing.not_before = min(standing.not_before, now + self._pause(standing.failures))

    def lose(self, peer: str) -> None:
        """A peer is announced no more. A link that is up stays."""
        if peer in self.peers:
            self.peers[peer].is_expected = False
            self._tidy(peer)

    def link_up(self, peer: str, *, is_ours: bool) -> None:
        """A connection stands; who dialled begins a session on it."""
        standing = self.peers.setdefault(peer, Standing())
        standing.phase, standing.is_ours, standing.is_wanted, standing.is_proven = Phase.LINKED, is_ours, True, False
        standing.not_before = -math.inf

    def link_down(self, peer: str, now: float, why_not: str = "") -> None:
        """A connection ended, or was not made."""
        standing = self.peers.get(peer)
        if standing is None:
            return
        standing.failures = 1 if standing.is_proven else standing.failures + 1
        standing.phase, standing.is_proven = Phase.RESTING, False
        standing.why_not = why_not or standing.why_not
        standing.not_before = now + self._pause(standing.failures)
        self._tidy(peer)

    def news(self, peer: str) -> None:
        """There is something that a session with this peer would bring, one way or the other."""
        if peer in self.peers:
            self.peers[peer].is_wanted = True

    def session_over(self, peer: str, now: float) -> None:
        """A session went well, whoever began it."""
        standing = self.peers.get(peer)
        if standing is None:
            return
        standing.failures, standing.why_not, standing.last_success, standing.is_proven = 0, "", now, True
        if standing.phase is Phase.BUSY:
            standing.phase = Phase.LINKED
            standing.not_before = now + SESSIONS_APART_SECONDS

    def wake(self) -> None:
        """The device woke up, its network changed, or the app asks: try all at once."""
        self.quiet_until = -math.inf
        for standing in self.peers.values():
            standing.not_before, standing.is_wanted = -math.inf, True

    # --- what to do ---

    def decide(self, now: float) -> list[Dial | Begin]:
        """What to do now; it counts as begun."""
        decisions: list[Dial | Begin] = []
        free = self._free_dials()
        for peer, standing in sorted(self.peers.items(), key=lambda item: (not item[1].is_urgent, item[1].not_before)):
            if self._due(standing) > now:
                continue
            if standing.phase is Phase.LINKED:
                standing.phase, standing.is_wanted = Phase.BUSY, False
                decisions.append(Begin(peer))
            elif free:
                free -= 1
                standing.phase, standing.last_dial = Phase.DIALLING, now
                decisions.append(Dial(peer))
        return decisions

    def next_at(self) -> float:
        """When to decide again if nothing happens before; math.inf for never."""
        can_dial = self._free_dials() > 0
        return min(
            (self._due(one) for one in self.peers.values() if can_dial or one.phase is not Phase.RESTING),
            default=math.inf,
        )

    def is_settled(self, since: float) -> bool:
        """Whether every peer has been synced with since then, or cannot be now."""
        return all(self._is_settled(standing, since) for standing in self.peers.values())

    def _is_settled(self, standing: Standing, since: float) -> bool:
        if standing.phase is Phase.RESTING:
            return not standing.is_expected or standing.last_dial >= since
        if standing.phase is Phase.LINKED:
            return not standing.is_ours or (standing.last_success >= since and not standing.is_wanted)
        return False

    def _free_dials(self) -> int:
        return DIALLING_MAX - sum(standing.phase is Phase.DIALLING for standing in self.peers.values())

    def _due(self, standing: Standing) -> float:
        """When there is something to do about a peer."""
        at = math.inf
        if standing.phase is Phase.RESTING and standing.is_expected:
            at = standing.not_before
        elif standing.phase is Phase.LINKED and standing.is_ours:
            at = standing.not_before if standing.is_wanted else standing.last_success + REFRESH_SECONDS
        return max(at, self.quiet_until)

    def _pause(self, failures: int) -> float:
        """Seconds before the next dial: twice as many after each failure, half of them by chance."""
        if not failures:
            return 0.0
        most = min(RETRY_FIRST_SECONDS * 2.0 ** min(failures - 1, 30), RETRY_SECONDS_MAX)
        return most / 2 + most / 2 * self.chance()

    def _tidy(self, peer: str) -> None:
        """Forget a peer that is neither there nor expected."""
        if not self.peers[peer].is_expected and self.peers[peer].phase is Phase.RESTING:
            del self.peers[peer]


@dataclass(slots=True)
class Budget:
    """How many bytes an agent may use in each period, where the link is dear."""

    bytes_max: int
    period_seconds: float = 86_400.0
    _used: int = field(default=0, init=False)
    _since: float = field(default=-math.inf, init=False)

    def left(self, now: float) -> int:
        """How many bytes may still be used in this period."""
        if now >= self.renewed_at:
            self._since, self._used = now, 0
        return max(self.bytes_max - self._used, 0)

    def use(self, count: int) -> None:
        """Count bytes that went over a link."""
        self._used += count

    @property
    def renewed_at(self) -> float:
        """When the next period begins."""
        return self._since + self.period_seconds
