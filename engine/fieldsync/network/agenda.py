"""Which peer to dial, when, and when to begin a session: an agent's decisions, without sockets and clocks.

Told what happens, it says what to do now and when to ask again. Times are seconds of one clock that never goes back.

    RESTING --Dial--> DIALLING --link_up--> LINKED --Begin--> BUSY --session_over--> LINKED
       ^                 |                    |                 |
       +-----------------+----- link_down ----+-----------------+     and a pause that doubles with each failure

A device may be known by several names: an address, and what it announces itself as, each time anew. While it is dialled
or linked by one of them, the others are COVERED.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from fieldsync.limits import (
    CROWDED_SECONDS_MAX,
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
    COVERED = "connected by another name"


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
    partial: int = 0  # sessions in a row after which the two had not the same
    is_crowded: bool = False  # after the last of them, for another one took a scope over, or kept it
    not_before: float = -math.inf  # of the next dial, or session
    last_dial: float = -math.inf
    last_success: float = -math.inf
    again_at: float = -math.inf  # the next session, though nothing should happen
    why_not: str = ""  # what went wrong last; empty where nothing did
    code: str = ""  # of that, for programs


@dataclass(slots=True)
class Agenda:
    """All peers of an agent. chance: draws from [0, 1), so that a crowd of agents does not dial in step."""

    chance: Callable[[], float]
    peers: dict[str, Standing] = field(default_factory=dict)
    quiet_until: float = -math.inf  # nothing begins before

    def phase(self, peer: str) -> Phase:
        """Where things stand with a peer."""
        return self.peers[peer].phase if peer in self.peers else Phase.RESTING

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

    def cover(self, peer: str) -> None:
        """A peer is dialled or linked by another name."""
        if peer in self.peers:
            self.peers[peer].phase = Phase.COVERED
            self._tidy(peer)

    def uncover(self, peer: str, now: float) -> None:
        """It is not any more: this name may be dialled, too."""
        standing = self.peers.get(peer)
        if standing is not None and standing.phase is Phase.COVERED:
            standing.phase, standing.not_before = Phase.RESTING, now + self._pause(max(standing.failures, 1))
            self._tidy(peer)

    def link_down(self, peer: str, now: float, why_not: str = "", code: str = "") -> None:
        """A connection ended, or was not made."""
        standing = self.peers.get(peer)
        if standing is None:
            return
        standing.failures = 1 if standing.is_proven else standing.failures + 1
        standing.phase, standing.is_proven = Phase.RESTING, False
        if why_not:
            standing.why_not, standing.code = why_not, code
        standing.not_before = now + self._pause(standing.failures)
        self._tidy(peer)

    def news(self, peer: str) -> None:
        """There is something that a session with this peer would bring, one way or the other."""
        if peer in self.peers:
            self.peers[peer].is_wanted = True

    def session_over(self, peer: str, now: float, *, is_partial: bool = False, is_crowded: bool = False) -> None:
        """A session went well, whoever began it. is_partial: the two had not the same in the end.

        Another session brought something, or took a scope over. It may be cut, with nobody left who knows that anything
        is lacking, or is there; so this one is held again before long. is_crowded: one took a scope over; where many do
        that to each other none gets done, so they draw back like stations on an Ethernet.
        """
        standing = self.peers.get(peer)
        if standing is None:
            return
        standing.failures, standing.last_success, standing.is_proven = 0, now, True
        standing.why_not = standing.code = ""
        standing.partial = standing.partial + 1 if is_partial else 0
        standing.is_crowded = is_partial and is_crowded
        if standing.phase is Phase.BUSY:
            standing.phase = Phase.LINKED
            standing.not_before = now + SESSIONS_APART_SECONDS
        standing.again_at = now + REFRESH_SECONDS
        if is_partial:
            bound = CROWDED_SECONDS_MAX if is_crowded else REFRESH_SECONDS
            standing.again_at = now + self._doubled(standing.partial, bound)
        if standing.is_crowded:
            standing.not_before = standing.again_at

    def rest(self, peer: str, until: float, why_not: str, code: str = "") -> None:
        """Nothing begins before then, as a session with this peer has shown."""
        self.quiet_until = until
        self.note(peer, why_not, code)

    def note(self, peer: str, why_not: str, code: str) -> None:
        """What is wrong with a peer, though nothing has failed."""
        if peer in self.peers:
            self.peers[peer].why_not, self.peers[peer].code = why_not, code

    def wake(self) -> None:
        """The device woke up, its network changed, or the app asks: try all at once, as if none had failed before."""
        self.quiet_until = -math.inf
        for standing in self.peers.values():
            standing.failures, standing.not_before, standing.is_wanted = 0, -math.inf, True

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
        if self.quiet_until > since and standing.phase in (Phase.RESTING, Phase.LINKED):
            return True  # for nothing begins any more
        if standing.is_crowded and standing.last_success >= since:
            return False  # it is held again before long
        if standing.phase is Phase.RESTING:
            return not standing.is_expected or standing.last_dial >= since
        if standing.phase is Phase.LINKED:
            return not standing.is_ours or (standing.last_success >= since and not standing.is_wanted)
        return standing.phase is Phase.COVERED

    def _free_dials(self) -> int:
        return DIALLING_MAX - sum(standing.phase is Phase.DIALLING for standing in self.peers.values())

    def _due(self, standing: Standing) -> float:
        """When there is something to do about a peer."""
        at = math.inf
        if standing.phase is Phase.RESTING and standing.is_expected:
            at = standing.not_before
        elif standing.phase is Phase.LINKED and standing.is_ours:
            at = standing.not_before if standing.is_wanted else standing.again_at
        return max(at, self.quiet_until)

    def _pause(self, failures: int) -> float:
        """Seconds before the next dial."""
        return self._doubled(failures, RETRY_SECONDS_MAX)

    def _doubled(self, failures: int, bound: float) -> float:
        """Seconds, twice as many after each failure, half of them by chance."""
        if not failures:
            return 0.0
        most = min(RETRY_FIRST_SECONDS * 2.0 ** min(failures - 1, 30), bound)
        return most / 2 + most / 2 * self.chance()

    def _tidy(self, peer: str) -> None:
        """Forget a peer that is neither there nor expected."""
        if not self.peers[peer].is_expected and self.peers[peer].phase in (Phase.RESTING, Phase.COVERED):
            del self.peers[peer]


@dataclass(slots=True)
class Budget:
    """How many bytes an agent may use in each period, where the link is dear."""

    bytes_max: int
    period_seconds: float = 86_400.0
    _used: int = field(default=0, init=False)
    _since: float = field(default=-math.inf, init=False)

    def __post_init__(self) -> None:
        """ValueError for a budget that says nothing."""
        if self.bytes_max < 0 or not 0 < self.period_seconds < math.inf:
            raise ValueError("a budget is a number of bytes, and of seconds in which they may be used")

    def left(self, now: float) -> int:
        """How many bytes may still be used in this period."""
        if now >= self.renewed_at:
            self._since, self._used = now, 0
        return max(self.bytes_max - self._used, 0)

    def resume(self, used: int, seconds_ago: float, now: float) -> None:
        """Go on with a period that began so long ago, if it still lasts.

        One that begins in the future is over: a device whose clock starts anew with it would never be done with it.
        """
        if 0 <= seconds_ago < self.period_seconds:
            self._since, self._used = now - seconds_ago, used

    def kept(self, now: float) -> tuple[int, float]:
        """What is used of this period, and how many seconds ago it began."""
        return self._used, max(now - self._since, 0.0)

    def use(self, count: int) -> None:
        """Count bytes that went over a link."""
        self._used += count

    @property
    def renewed_at(self) -> float:
        """When the next period begins."""
        return self._since + self.period_seconds
