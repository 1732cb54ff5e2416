"""What two replicas tell each other of a scope before anything is streamed, and what a giver finds that is lacking."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.limits import PROVISIONAL_GROUPS_MAX, TURN_MS_MAX, TURN_QUIET_MS

if TYPE_CHECKING:
    from fieldsync.store import Reader, Scope, Writer


class Superseded(Exception):
    """Another stream has begun to write this scope, so this one may not any more. Never leaves the engine."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a taker says it holds, and a giver what it can give: one moment of one replica's scope."""

    context: Context
    floor: Context
    provisional: list[tuple[Context, Context]]  # (context of the giver they came under, dots)


@dataclass(frozen=True, slots=True)
class State:
    """What two replicas compare: equal contexts must mean equal digests."""

    context_hash: bytes
    digest: bytes
    is_provisional: bool

    def short(self) -> bytes:
        """Eight bytes that differ, all but surely, where two replicas have anything to tell each other."""
        # not whether anything is provisional: where contexts are equal, neither side can account for it
        return hashlib.blake2b(self.context_hash + self.digest, digest_size=8).digest()


@dataclass(slots=True)
class Turn:
    """A session of this process that has claimed scopes: with which replica, when, and when that was heard last."""

    peer: bytes
    since_ms: int
    heard_ms: int

    def lasts(self, peer: bytes, now_ms: int) -> bool:
        """Whether a session with that peer may not claim them now. One with the same peer may: its link was cut."""
        if peer == self.peer:
            return False
        return 0 <= now_ms - self.heard_ms < TURN_QUIET_MS and 0 <= now_ms - self.since_ms < TURN_MS_MAX


def state_of(reader: Reader, scope: Scope) -> State:
    """The state of a scope at the reader's moment."""
    return State(reader.context(scope.id).hash(), scope.digest, reader.is_provisional(scope.id))


def begin(writer: Writer, scope: Scope, token: bytes) -> None:
    """Make a new stream, which random bytes name, the only one that may write this scope."""
    writer.save_scope(scope._replace(taker=token))


def declare(reader: Reader, scope: Scope) -> Declaration:
    """The declaration of a scope at the reader's moment."""
    provisional = reader.provisional(scope.id)
    if len(provisional) > PROVISIONAL_GROUPS_MAX:  # the rest is taken again, but what of it is gone has to be found
        rest = provisional[PROVISIONAL_GROUPS_MAX - 1 :]
        every = Context.of(interval for _, dots in rest for interval in dots.intervals())
        provisional = [*provisional[: PROVISIONAL_GROUPS_MAX - 1], (Context(), every)]
    return Declaration(reader.context(scope.id), Context(scope.floor), provisional)


def lacking(reader: Reader, scope: Scope, own: Context, taker: Declaration) -> Context:
    """The dots that a giver at this moment holds and the taker has not declared."""
    found = (own | provisional_dots(reader, scope)) - taker.context
    for giver, dots in taker.provisional:
        if not giver - own:  # all that this giver's context had is in ours: what it no longer had, we do not lack
            found = found - (dots & giver)  # of what it held only in part itself, we may have more
    return found


def provisional_dots(reader: Reader, scope: Scope) -> Context:
    """The dots that are held but not accounted for."""
    return Context.of((author, seq, seq) for author, seq in reader.provisional_dots(scope.id))
