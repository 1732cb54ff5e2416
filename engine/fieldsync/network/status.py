"""What an app can show of its syncs in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync.trust.rights import Reason, tell

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How things stand with one peer."""

    name: str  # its address where that was configured, else what people call the device, as soon as it is known
    state: str  # "not connected", "connecting", "connected" or "syncing"
    is_connected: bool
    last_success: datetime | None  # the end of the last whole session since the agent began
    why_not: str  # what went wrong last; empty where nothing did
    code: str = ""  # of that, for programs: one of trust.Reason, or of a newer version

    def __str__(self) -> str:
        return f"{self.name}: {self.state}" + (f" ({self.why_not})" if self.why_not else "")


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand: print it, or show what of it fits the screen."""

    peers: list[PeerStatus]
    pending: int  # changes here, own and relayed, that no hub is known to have
    lan: str = ""  # why no peers can be found on the local network; empty where they can, or are not looked for
    is_standing_by: bool = False  # another agent keeps this file in sync; this one waits for its end
    blocked: str = ""  # that one has ended, and why this one cannot work in its place

    @property
    def is_connected(self) -> bool:
        """Whether any peer is connected now."""
        return any(peer.is_connected for peer in self.peers)

    @property
    def last_success(self) -> datetime | None:
        """The end of the last whole session with anybody."""
        return max((peer.last_success for peer in self.peers if peer.last_success is not None), default=None)

    @property
    def why_not(self) -> str:
        """Why nothing is being synced; empty where something is."""
        if self._is_syncing:
            return ""
        if self.is_standing_by:
            return self.blocked or tell(Reason.STANDING_BY)
        reasons = [f"{peer.name}: {peer.why_not}" for peer in self.peers if peer.why_not]
        return "; ".join(filter(None, [*reasons, self.lan])) or tell(self._nobody)

    @property
    def code(self) -> str:
        """Of that, for programs: the first peer's that has one. Empty where something is being synced."""
        if self._is_syncing:
            return ""
        if self.is_standing_by:
            return Reason.FAILED if self.blocked else Reason.STANDING_BY
        codes = [peer.code for peer in self.peers if peer.code]
        return codes[0] if codes else Reason.NO_MULTICAST if self.lan else self._nobody

    @property
    def _is_syncing(self) -> bool:
        """Whether anybody is connected with whom anything may be shared."""
        return any(peer.is_connected and peer.code != Reason.EXPIRED for peer in self.peers)

    @property
    def _nobody(self) -> Reason:
        return Reason.CONNECTING if self.peers else Reason.NOBODY

    def __str__(self) -> str:
        lines = [f"{self.pending:,} changes wait for a hub", *map(str, self.peers)]
        is_whole = self.peers and not self.is_standing_by
        return "\n".join(lines if is_whole else [*lines, self.why_not])
