"""What a peer may do here. The network's grants will decide it; until then, and in tests, this one object does."""

from __future__ import annotations

from dataclasses import dataclass

from fieldsync.limits import DROPS_FREE_MAX, DROPS_SHARE_MAX


@dataclass(frozen=True, slots=True)
class Trust:
    """In one session: whether the peer is a hub, whether it may write, and how much it may take away unseen."""

    is_hub: bool = False
    may_write: bool = True
    drops_share_max: float = DROPS_SHARE_MAX

    def may_drop(self, dropped: int, held: int) -> bool:
        """Whether so many of the records held may go because the peer has them no more.

        A hub's word counts for all of them. Of anybody else's, what is more than a share waits for a hub.
        """
        if not self.may_write:
            return not dropped
        return self.is_hub or dropped <= max(DROPS_FREE_MAX, self.drops_share_max * held)


def trust_all(_replica: bytes, says_hub: bool) -> Trust:
    """Believe who calls itself a hub, and let everybody write."""
    return Trust(is_hub=says_hub)
