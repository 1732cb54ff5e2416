"""The rounds of a session: scopes are claimed and declared; once streamed, settled; and where records differ, mended.

One round is what nearly all sessions hold. Whether a scope needs another (shared.py) both sides see alike, by the two
settlements that both know; so nobody asks and nobody answers, and a new Declare begins it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.errors import DigestMismatch, SyncError
from fieldsync.limits import MENDED_MAX
from fieldsync.syncing import exchange, mending, parting
from fieldsync.syncing.exchange import State, Turn
from fieldsync.syncing.frames import Declare, Settled
from fieldsync.syncing.report import Mended
from fieldsync.trust.rights import CONTROL, EVERYTHING

if TYPE_CHECKING:
    from fieldsync.replica import Replica
    from fieldsync.store import Reader, Scope, Writer
    from fieldsync.syncing.report import Report
    from fieldsync.syncing.shared import Shared
    from fieldsync.trust.rights import Rights


class Rounds:
    """Those of one session."""

    def __init__(self, replica: Replica, report: Report) -> None:
        self.count = 1
        self._replica = replica
        self._report = report
        self._snapshots: list[Reader] = []
        self._peer = b""
        self._rights: Rights = EVERYTHING
        self._turn = Turn(b"", 0, 0)
        self._tokens: list[bytes] = []

    def meet(self, peer: bytes, rights: Rights) -> None:
        """The greeting is over: who the peer is, as a replica, and what it may do."""
        self._peer, self._rights = peer, rights

    def begin(self, every: list[Shared], some: list[Shared]) -> list[Declare]:
        """Claim some scopes, then fix the moment that is given; returns what to declare.

        every: all that the session shares, whose places number them.
        """
        now_ms = self._replica.wall_ms()
        if not self._tokens:
            self._turn = Turn(self._peer, now_ms, now_ms)
        with self._replica.store.writing() as writer:
            for shared in some:
                scope = writer.scope(shared.name)
                if scope is not None:  # else it was left meanwhile
                    shared.begin(self._replica.mint())
                    self._claim(writer, scope, shared, now_ms)
                elif shared.round:
                    raise SyncError(f"{shared.name!r} was left meanwhile; sync again")
        snapshot = self._replica.store.snapshot()
        self._snapshots.append(snapshot)
        self._replica.before_leaving()
        found = []
        for index, shared in enumerate(every):
            scope = snapshot.scope(shared.name)
            if shared in some and shared.differs and scope is not None:
                shared.moment, shared.own = (snapshot, scope), exchange.declare(snapshot, scope)
                found.append(Declare(index, shared.own, parting.begun(snapshot, scope), shared.dropped))
        return found

    def _claim(self, writer: Writer, scope: Scope, shared: Shared, now_ms: int) -> None:
        """Make this session the only one that writes a scope; unless one does that goes on, which is not interrupted.

        Else many that write one scope at once could stop each other for ever. This one gives, then, and takes nothing.
        Who may bring nothing keeps nobody out, and nobody from the control scope, where all may say little.
        """
        other = self._replica.turns.get(scope.taker)
        if other is not None and other.lasts(self._peer, now_ms):
            shared.dropped = True
            self._report.superseded.append(shared.name)
            return
        if other is not None and other.peer == self._peer:  # who comes again has no longer for it
            self._turn.since_ms = min(self._turn.since_ms, other.since_ms)
        exchange.begin(writer, scope, shared.token)
        if shared.name != CONTROL and not self._rights.why_not_write(shared.name):
            self._replica.turns[shared.token] = self._turn
            self._tokens.append(shared.token)

    def hear(self) -> None:
        """The peer has said something."""
        self._turn.heard_ms = self._replica.wall_ms()

    def close(self) -> None:
        """Let go of the moments of this round, and of the scopes."""
        for snapshot in self._snapshots:
            snapshot.close()
        self._snapshots = []
        for token in self._tokens:
            self._replica.turns.pop(token, None)
        self._tokens = []

    def settle(self, index: int, shared: Shared) -> Settled:
        """The state that came of both streams, to be told."""
        self._replica.before_leaving()  # a settlement is a promise: the peer may leave on it
        state = self._state(shared.name)
        told = state.context_hash, state.digest, state.is_provisional
        shared.told = Settled(index, *told, shared.dropped, shared.refused or "")
        return shared.told

    def _state(self, name: str) -> State:
        with self._replica.store.reading() as reader:
            scope = reader.scope(name)
            if scope is None:  # left meanwhile
                return State(bytes(8), bytes(16), is_provisional=True)
            return exchange.state_of(reader, scope)

    def go_on(self, every: list[Shared]) -> list[Declare]:
        """Once all is settled: begin another round, if any scope needs one; before its first, look at the own file.

        DigestMismatch, in the end, where records differ all the same.
        """
        again = [shared for shared in every if shared.needs_round]
        new = [shared for shared in again if shared.mended is None][: MENDED_MAX - len(self._report.mended)]
        for shared in new:
            shared.mended = Mended(shared.name)
            self._report.mended.append(shared.mended)
            mending.look(self._replica, shared.mended)
        some = [shared for shared in again if shared.mended is not None]
        if some:
            self.count += 1
            self.close()
            return self.begin(every, some)
        for shared in every:
            if shared.mended is not None:
                shared.mended.is_equal = shared.is_equal
        if unequal := [shared.name for shared in every if shared.is_mismatch]:
            names = ", ".join(map(repr, unequal))
            raise DigestMismatch(f"{names}: equal contexts, but not equal records: damage or a bug")
        return []
