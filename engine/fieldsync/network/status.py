"""What an app can show of its syncs in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def __str__(self) -> str:
        return f"{self.name}: {self.state}" + (f" ({self.why_not})" if self.why_not else "")


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand: print it, or show what of it fits the screen."""

    peers: list[PeerStatus]
    pending: int  # changes here, own and relayed, that no hub is known to have
    lan: str = ""  # why no peers can be found on the local network; empty where they can, or are not looked for

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
        if self.is_connected:
            return ""
        reasons = [f"{peer.name}: {peer.why_not}" for peer in self.peers if peer.why_not]
        nobody = "connecting" if self.peers else "no hub is named, and no peer was seen"
        return "; ".join(filter(None, [*reasons, self.lan])) or nobody

    def __str__(self) -> str:
        lines = [f"{self.pending:,} changes wait for a hub", *map(str, self.peers)]
        return "\n".join(lines if self.peers else [*lines, self.why_not])
