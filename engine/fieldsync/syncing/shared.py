"""One scope of a conversation, as one side sees it: what both declared, how far the streams are, what was settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync.limits import ROUNDS_MAX

if TYPE_CHECKING:
    from fieldsync.store import Reader, Scope
    from fieldsync.syncing import existence
    from fieldsync.syncing.exchange import Declaration
    from fieldsync.syncing.frames import Begun, Settled
    from fieldsync.syncing.report import Mended
    from fieldsync.trust.rights import Reason


@dataclass(slots=True, eq=False)
class Shared:
    """One scope of the conversation. Declarations, streams and settlements make a round; mending takes more of them."""

    name: str
    state: bytes  # the peer's, as its greeting has it
    token: bytes = b""
    moment: tuple[Reader, Scope] | None = None  # what this side declares, gives and compares is of then
    own: Declaration | None = None
    peer: Declaration | None = None
    begun: Begun | None = None  # what the peer has of a chunk that was cut
    gone: existence.Taker | None = None  # finds out what the peer has no more, where it forgot removals
    lives: existence.Giver | None = None  # the same, for the peer
    is_busy: bool = False  # another stream writes this scope at the peer, which takes nothing of ours
    sent: bool = False  # our stream is done
    received: bool = False  # theirs is done
    taken: bool = False  # and joined
    told: Settled | None = None
    heard: Settled | None = None
    dropped: bool = False  # nothing of this stream is joined: another one writes this scope, or something was refused
    refused: Reason | None = None  # why
    along: int | None = None  # so many of our changes answered the peer's greeting; all is said if they have landed
    round: int = 0
    compared_in: int = 0  # the round in which all that lives is compared; 0 before it
    mended: Mended | None = None  # from the second round on

    @property
    def differs(self) -> bool:
        """Whether the two sides have anything to tell each other here."""
        return bool(self.token)

    @property
    def is_over(self) -> bool:
        """Whether both sides have said how it ended."""
        return self.told is not None and self.heard is not None

    @property
    def compares_all(self) -> bool:
        """Whether this is the round in which all that lives is compared."""
        return self.compared_in == self.round > 1

    def begin(self, token: bytes) -> None:
        """Begin the next round: a stream of that name is the one that may write the scope."""
        self.token, self.round, self.moment = token, self.round + 1, None
        self.own = self.peer = self.begun = self.gone = self.lives = self.told = self.heard = None
        self.sent = self.received = self.taken = False

    def meet(self, peer: Declaration, begun: Begun | None, *, is_busy: bool = False) -> None:
        """Take the peer's declaration. A mending round compares all where both hold the same changes, once a session.

        Only there: where one has more, what it replaced lives at one side by right. The last round brings back what
        went by comparing.
        """
        self.peer, self.begun, self.is_busy = peer, begun, is_busy
        if 1 < self.round < ROUNDS_MAX and not self.compared_in and self.own is not None:
            is_all_whole = not (self.own.provisional or peer.provisional)
            if is_all_whole and self.own.context == peer.context:
                self.compared_in = self.round

    @property
    def is_mismatch(self) -> bool:
        """Whether the last settlements are of the same changes, all of them whole, and of unequal records."""
        told, heard = self.told, self.heard
        if told is None or heard is None or told.is_superseded or heard.is_superseded:
            return False
        is_same = told.context_hash == heard.context_hash and not (told.is_provisional or heard.is_provisional)
        return is_same and told.digest != heard.digest

    @property
    def is_equal(self) -> bool:
        """Whether the last settlements are the same."""
        if self.told is None or self.heard is None:
            return False
        return (self.told.context_hash, self.told.digest) == (self.heard.context_hash, self.heard.digest)

    @property
    def is_apart(self) -> bool:
        """Whether the last settlements differ, though nothing was refused."""
        is_refused = any(said is not None and said.refused for said in (self.told, self.heard))
        return self.is_over and not (self.is_equal or is_refused)

    @property
    def needs_round(self) -> bool:
        """Whether to go on after the last settlements; both sides judge by the same two, and so alike."""
        told, heard = self.told, self.heard
        if told is None or heard is None or told.is_superseded or heard.is_superseded or self.round >= ROUNDS_MAX:
            return False
        if self.round == 1 or told.context_hash == heard.context_hash:
            return self.is_mismatch and not self.compared_in
        return True  # something was forgotten, to be fetched back
