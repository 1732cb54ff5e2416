"""What a sync tells the app that asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fieldsync.trust.rights import tell


@dataclass(slots=True)
class Mended:
    """A scope of which both held the same changes and not the same records, and what became of it here."""

    scope: str
    faults: int = 0  # that a look at the own file found
    fetching: int = 0  # damaged records that were dropped, to come again
    removed: int = 0  # records that went, into the trash, because the peer had them no more
    replaced: int = 0  # records that went, into the trash, because the peer's were others; these come in their place
    is_equal: bool = False  # both hold the same records now

    def __str__(self) -> str:
        counts = (
            (self.faults, "faults found here"),
            (self.fetching, "damaged records dropped here"),
            (self.removed, "records removed here, which the peer had no more"),
            (self.replaced, "records replaced by the peer's"),
        )
        done = "; ".join(f"{count:,} {what}" for count, what in counts if count) or "nothing to be done here"
        return f"{self.scope}: {done}; {'now equal' if self.is_equal else 'not equal yet'}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Something of a scope that one side did not take from the other, or would not tell of."""

    scope: str
    code: str  # one of trust.Reason, or of a newer version
    is_ours: bool  # the peer refused what is here; else it was refused here

    def __str__(self) -> str:
        return f"{self.scope}: {'refused by the peer' if self.is_ours else 'refused here'}: {tell(self.code)}"


@dataclass(slots=True)
class Report:
    """What a session did. Bytes are those of frames; a round trip is an answer that had to be waited for."""

    bytes_sent: int = 0
    bytes_received: int = 0
    round_trips: int = 0
    seconds: float = 0.0
    changes_sent: int = 0
    changes_received: int = 0
    changes_ahead: int = 0  # of these, the ones stamped over 5 minutes ahead of this clock: one of the two is wrong
    records_changed: int = 0
    scopes: list[str] = field(default_factory=list)  # shared, and equal to the peer's at the end or on the way there
    refused: list[str] = field(default_factory=list)  # scopes on offer here that the peer does not share
    refusals: list[Refused] = field(default_factory=list)  # why, and what either side did not take of the other
    waiting: list[str] = field(default_factory=list)  # scopes of which the peer would take away more than it may
    superseded: list[str] = field(default_factory=list)  # scopes that another session of either side writes
    apart: list[str] = field(default_factory=list)  # scopes that were not the same at the end: something came meanwhile
    mended: list[Mended] = field(default_factory=list)  # scopes that were damaged here or at the peer
    complete: bool = False  # all was said that there was to say
