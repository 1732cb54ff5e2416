"""What a peer may do here: what its rights are, scope by scope, and why not where they end."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from fieldsync.limits import DROPS_FREE_MAX, DROPS_SHARE_MAX

CONTROL = "fieldsync/control"  # the scope that all devices of an organisation hold: who they are and what they may


class Reason(StrEnum):
    """Why something was refused, or why nothing is synced: codes for programs, `tell` for people."""

    NOT_HELD = "not-held"
    NOT_GRANTED = "not-granted"
    READ_ONLY = "read-only"
    EXPIRED = "grant-expired"
    REVOKED = "revoked"
    UNKNOWN_DEVICE = "unknown-device"
    UNKNOWN_AUTHOR = "unknown-author"
    AUTHOR_NOT_GRANTED = "author-not-granted"
    UNREADABLE = "unreadable"
    ISSUER_REVOKED = "issuer-revoked"
    CODE_UNKNOWN = "code-unknown"
    CODE_EXPIRED = "code-expired"
    CODE_USED = "code-used"
    KEY_REVOKED = "key-revoked"
    WRONG_HUB = "wrong-hub"
    CONNECTING = "connecting"
    NOBODY = "nobody"
    UNREACHABLE = "unreachable"
    CUT = "cut"
    BUSY = "busy"
    OTHER_ORGANISATION = "other-organisation"
    CERTIFICATE_EXPIRED = "certificate-expired"
    NO_HUB = "no-hub"
    OWN_DEVICE = "own-device"
    BUDGET_USED = "budget-used"
    STANDING_BY = "standing-by"
    NO_MULTICAST = "no-multicast"
    NOT_ALLOWED = "not-allowed"
    VERSION = "version"
    FILE = "file"
    FAILED = "failed"


SENTENCES = {
    Reason.NOT_HELD: "it is not held there",
    Reason.NOT_GRANTED: "no grant of the device covers it",
    Reason.READ_ONLY: "the device may read it, and not write",
    Reason.EXPIRED: "the device's grant has run out; a sync with a hub renews it",
    Reason.REVOKED: "the device was revoked",
    Reason.UNKNOWN_DEVICE: "nothing is known of the device yet; the next sync knows more",
    Reason.UNKNOWN_AUTHOR: "it holds changes of an author for whom no device answers yet",
    Reason.AUTHOR_NOT_GRANTED: "it holds changes of a device that was never granted to write there",
    Reason.UNREADABLE: "it holds changes with a text, list or map that cannot be read",
    Reason.ISSUER_REVOKED: "who admitted the device was revoked; enrol it anew",
    Reason.CODE_UNKNOWN: "this code was never given out here",
    Reason.CODE_EXPIRED: "this code has run out: ask for another",
    Reason.CODE_USED: "this code was used already: ask for another",
    Reason.KEY_REVOKED: "this key was revoked: enrol with a new one",
    Reason.WRONG_HUB: "who answers there is not the hub that gave out the code",
    Reason.CONNECTING: "a connection is being made",
    Reason.NOBODY: "no hub is named, and no peer was seen",
    Reason.UNREACHABLE: "nobody answers there; it is tried again by itself",
    Reason.CUT: "the connection was cut; what had landed is kept, and it is tried again by itself",
    Reason.BUSY: "too many are connected there; it is tried again by itself",
    Reason.OTHER_ORGANISATION: "who answers there is not one of this device's organisation",
    Reason.CERTIFICATE_EXPIRED: "a certificate has run out, or a clock is ahead",
    Reason.NO_HUB: "who answers there is a device, and no hub",
    Reason.OWN_DEVICE: "that is this device itself",
    Reason.BUDGET_USED: "the budget is used up",
    Reason.STANDING_BY: "another agent keeps this file in sync; this one takes over when that ends",
    Reason.NO_MULTICAST: "peers cannot be found on the local network",
    Reason.NOT_ALLOWED: "what came from there is not allowed in the protocol",
    Reason.VERSION: "no protocol version in common: upgrade the older one",
    Reason.FILE: "this device's file cannot be read or written",
    Reason.FAILED: "the last session failed",
}


def tell(code: str) -> str:
    """A reason in words; that of a newer version is its code."""
    return SENTENCES[Reason(code)] if code in set(Reason) else code


class Rights(Protocol):
    """What a peer may do, scope by scope."""

    @property
    def knows_all(self) -> bool:
        """Whether the peer is believed to have whatever it says that it has."""
        ...

    def why_not_read(self, scope: str, /) -> Reason | None:
        """Why the peer is not told of a scope; None if it is."""
        ...

    def why_not_write(self, scope: str, /) -> Reason | None:
        """Why nothing that the peer gives of a scope is taken; None if it is."""
        ...

    def why_not_take(self, scope: str, author: bytes, /) -> Reason | None:
        """Why a change of an author is not taken from the peer, who may write there; None if it is."""
        ...

    def answers_for(self, author: bytes, /) -> bool:
        """Whether the peer itself writes under an author's name, and nobody else."""
        ...

    def may_claim(self, author: bytes, /) -> bool:
        """Whether a peer that does not know all is believed to have changes of an author that it does not bring."""
        ...


class Everything:
    """The rights of a peer where nobody proves who he is."""

    knows_all = True

    def why_not_read(self, _scope: str, /) -> Reason | None:
        """Never."""
        return None

    def why_not_write(self, _scope: str, /) -> Reason | None:
        """Never."""
        return None

    def why_not_take(self, _scope: str, _author: bytes, /) -> Reason | None:
        """Never."""
        return None

    def answers_for(self, _author: bytes, /) -> bool:
        """Always."""
        return True

    def may_claim(self, _author: bytes, /) -> bool:
        """Always."""
        return True


EVERYTHING = Everything()


class Trust(NamedTuple):
    """In one session: whether the peer is a hub, what it may do, and how much it may take away unseen."""

    is_hub: bool = False
    may_take_away: bool = True
    drops_share_max: float = DROPS_SHARE_MAX
    rights: Rights = EVERYTHING
    device: str | None = None  # who the peer proved to be

    def may_drop(self, dropped: int, held: int) -> bool:
        """Whether so many of the records held may go because the peer has them no more.

        A hub's word counts for all of them. Of anybody else's, what is more than a share waits for a hub.
        """
        if not self.may_take_away:
            return not dropped
        return self.is_hub or dropped <= max(DROPS_FREE_MAX, self.drops_share_max * held)


def trust_all(_replica: bytes, says_hub: bool) -> Trust:
    """Believe who calls itself a hub, and let everybody write."""
    return Trust(is_hub=says_hub)
