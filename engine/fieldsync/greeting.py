"""Greeting: which scopes two sides share, and where they differ.

    initiator                                             responder
      Hello (scopes on offer, their states)           ->
                                                      <-  Hello (the shared scopes, their states)
    or, where this pair has met before:
      Again (what changed since), Eager (the changes) ->
                                                      <-  Differ (what still differs), or Forgotten: say Hello

Each side remembers what the initiator last told of its scopes, and which context both had then. So nothing changed
costs a few bytes, and a small change goes along with the greeting: an Eager is a whole stream, with its Done, for a
taker whose declaration is the context that both remember.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync import exchange, giving, taking
from fieldsync.context import Context
from fieldsync.errors import ProtocolError, VersionMismatch
from fieldsync.exchange import Declaration
from fieldsync.leaving import deliver, pending
from fieldsync.limits import EAGER_CELLS_MAX, EAGER_SCOPES_MAX
from fieldsync.messages import VERSION, Again, Differ, Eager, Forgotten, Hello
from fieldsync.replica import peer_id
from fieldsync.store import Pair
from fieldsync.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync import existence
    from fieldsync.exchange import State
    from fieldsync.messages import Message, Settled
    from fieldsync.replica import Replica
    from fieldsync.store import Reader, Scope, Writer

STATE_BYTES = 8


@dataclass(slots=True)
class Shared:
    """One scope of the conversation."""

    name: str
    state: bytes  # the peer's, as its greeting has it
    token: bytes = b""
    own: Declaration | None = None
    peer: Declaration | None = None
    gone: existence.Taker | None = None  # finds out what the peer has no more, where it forgot removals
    lives: existence.Giver | None = None  # the same, for the peer
    sent: bool = False  # our stream is done
    received: bool = False  # theirs is done
    taken: bool = False  # and joined
    told: Settled | None = None
    heard: Settled | None = None
    dropped: bool = False  # a newer stream writes this scope now

    @property
    def differs(self) -> bool:
        """Whether the two sides have anything to tell each other here."""
        return bool(self.token)

    @property
    def is_over(self) -> bool:
        """Whether both sides have said how it ended."""
        return self.told is not None and self.heard is not None


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=8).digest()


def pair_id(replica: bytes, names: Iterable[str], states: Iterable[bytes]) -> bytes:
    """What a responder knows an initiator by, that offered those scopes and told those states."""
    return _hash(bytes([VERSION]), replica, json.dumps(list(names)).encode(), *states)


class Greeting:
    """One side's greeting: `open` or `receive`, until `shared` is known; `remember` at the end of the session."""

    def __init__(self, replica: Replica, *, only: list[str] | None, peer: str | None) -> None:
        self.shared: list[Shared] = []
        self.refused: list[str] = []
        self.states: dict[str, State] = {}  # the own ones
        self.trust = Trust()
        self.is_over = False
        self.changes_sent = self.changes_received = self.records_changed = 0
        self.delay = 0  # round trips beyond the one that a greeting takes
        self._replica = replica
        self._only = only
        self._takes_all = replica.takes_all and only is None
        self._peer = None if only is not None or peer is None else peer_id(peer)
        self._id: bytes | None = None  # of the pair, as this side remembers it
        self._peer_replica = b""  # its id
        self._says_hub = False
        self._pair: Pair | None = None
        self._told: dict[str, bytes] = {}  # the initiator's states, as it told them
        self._contexts: dict[str, Context] = {}  # that both had after an eager change
        self._sent: dict[int, int] = {}  # changes that went along, by scope
        self._eager = 0  # how many are still to come
        self._is_lost = False  # those that come are of no use

    # --- the initiator ---

    def open(self) -> list[Message]:
        """The first messages of the conversation."""
        with self._replica.store.reading() as reader:
            for scope in sorted(reader.scopes(), key=lambda scope: -scope.priority):
                if self._only is None or scope.name in self._only:
                    self.states[scope.name] = exchange.state_of(reader, scope)
            self._told = {name: state.short() for name, state in self.states.items()}
            self._id = self._peer
            self._pair = reader.pair(self._peer) if self._peer else None
            known = self._pair
            if known is None or known.names != list(self.states) or known.was_hub != self._takes_all:
                return [self._hello(self.states)]
            self._trust(known.replica, known.is_hub)
            return self._again(reader, known)

    def _trust(self, replica: bytes, says_hub: bool) -> None:
        self._peer_replica, self._says_hub = replica, says_hub
        self.trust = self._replica.trust(replica, says_hub)

    def _hello(self, names: Iterable[str]) -> Hello:
        states = [(name, self.states[name].short()) for name in names]
        return Hello(self._replica.id, self._replica.wall_ms(), self._takes_all, states)

    def _again(self, reader: Reader, pair: Pair) -> list[Message]:
        changed = [
            (i, now) for i, (now, then) in enumerate(zip(self._told.values(), pair.each(), strict=True)) if now != then
        ]
        eager = [self._eager_of(reader, i, pair.names[i]) for i, _ in changed[:EAGER_SCOPES_MAX]]
        found = [one for one in eager if one is not None]
        if found:
            self._replica.before_leaving()
        return [Again(pair_id(self._replica.id, pair.names, pair.each()), changed, len(found)), *found]

    def _eager_of(self, reader: Reader, index: int, name: str) -> Eager | None:
        """All that a scope has beyond the context that the pair remembers, if that is little."""
        scope = reader.scope(name)
        assert scope is not None
        base = reader.agreed(self._peer or b"", scope.id)
        if base is None or self.states[name].is_provisional:
            return None
        own = reader.context(scope.id)
        news = own - base
        if (
            base - own
            or Context(scope.floor) - base
            or not news
            or reader.count_cells(scope.id, news) > EAGER_CELLS_MAX
        ):
            return None
        chunks = list(giving.give(reader, scope, news))
        if len(chunks) > 1:
            return None
        chunk, count = chunks[0] if chunks else (None, 0)
        self.changes_sent += count
        self._sent[index] = count
        self._contexts[name] = own
        return Eager(index, base.hash(), news, chunk)

    # --- receiving ---

    def receive(self, message: Hello | Again | Differ | Forgotten | Eager, *, initiator: bool) -> list[Message]:
        """Take in a message of the greeting; returns what to say next. `is_over` once all is known."""
        match message:
            case Hello():
                self._check_versions(message)
                self._trust(message.replica, message.takes_all)
                return self._accept(message) if initiator else self._answer(message)
            case Differ() if initiator and self._pair is not None and self._told:
                self._accept_differ(message, self._pair)
                return []
            case Forgotten() if initiator and self._pair is not None and not self.delay:
                self.delay, self._contexts, self.changes_sent = 1, {}, 0
                self._pair = None
                return [self._hello(self.states)]
            case Again() if not initiator and self._pair is None and not self._is_lost:
                return self._recall(message)
            case Eager() if not initiator and self._eager:
                return self._take(message)
        raise ProtocolError(f"a {type(message).__name__} that was not due")

    def _check_versions(self, hello: Hello) -> None:
        low, high = hello.versions
        if not low <= VERSION <= high:
            raise VersionMismatch(
                f"the peer speaks protocol {low} to {high}, this version {VERSION}: upgrade the older"
            )

    def _accept(self, hello: Hello) -> list[Message]:
        """The responder's list numbers the scopes; a replica that takes all enters those that are new to it."""
        theirs = dict(hello.scopes)
        unknown = [name for name in theirs if name not in self.states]
        if unknown and not self._takes_all:
            raise ProtocolError(f"an answer with scopes that were not on offer, such as {unknown[0]!r}")
        self._enter(unknown)
        # what was not on offer differs on both sides, whatever is held here by now
        self.shared = [Shared(name, b"" if name in unknown else state) for name, state in theirs.items()]
        self.refused = [name for name in self.states if name not in theirs and not self._takes_all]
        self.is_over = True
        return []

    def _accept_differ(self, differ: Differ, pair: Pair) -> None:
        """The remembered list numbers the scopes, those that are new to it after them."""
        different = dict(differ.different)
        count = len(pair.names)
        if any(i >= count for i in (*different, *differ.refused)) or (differ.more and not self._takes_all):
            raise ProtocolError("an answer with scopes that were not on offer")
        if any(name in self.states for name, _ in differ.more):
            raise ProtocolError("an answer with a scope that was on offer as one that is new")
        self.refused = [pair.names[i] for i in differ.refused]
        self.changes_sent -= sum(count for i, count in self._sent.items() if i in different)  # they go again
        same = {name: state.short() for name, state in self.states.items()}
        self.shared = [Shared(name, different.get(i, same[name])) for i, name in enumerate(pair.names)]
        self._enter([name for name, _ in differ.more])
        self.shared += [Shared(name, b"") for name, _ in differ.more]
        self.is_over = True

    # --- the responder ---

    def _answer(self, hello: Hello) -> list[Message]:
        self._told = dict(hello.scopes)
        self._look(self._told, every=hello.takes_all)
        # in the order of the initiator, which knows what is urgent
        names = [name for name in self._told if name in self.states]
        names += [name for name in self.states if name not in self._told]
        self.shared = [Shared(name, self._told.get(name, b"")) for name in names]
        self.is_over = True
        return [self._hello(names)]

    def _look(self, names: Iterable[str], *, every: bool) -> None:
        """Read the own states of those of some scopes that are held, of all if every; enter them if this takes all."""
        if self._takes_all:
            self._enter(names)
        with self._replica.store.reading() as reader:
            for scope in reader.scopes():
                if every or scope.name in self._told:
                    self.states[scope.name] = exchange.state_of(reader, scope)

    def _enter(self, names: Iterable[str]) -> None:
        with self._replica.store.reading() as reader:
            new = [name for name in names if reader.scope(name) is None]
        if new:
            with self._replica.store.writing() as writer:
                for name in new:
                    self.states[name] = exchange.state_of(writer, writer.enter(name))

    def _recall(self, again: Again) -> list[Message]:
        with self._replica.store.reading() as reader:
            pair = reader.pair(again.pair)
        self._eager = again.eager
        if pair is None or pair.was_hub != self._takes_all or any(i >= len(pair.names) for i, _ in again.changed):
            self._is_lost, self.delay = True, 1
            return [Forgotten()]
        self._id, self._pair = again.pair, pair
        self._trust(pair.replica, pair.is_hub)
        states = list(pair.each())
        for i, state in again.changed:
            states[i] = state
        self._told = dict(zip(pair.names, states, strict=True))
        return [] if self._eager else [self._differ(pair)]

    def _take(self, eager: Eager) -> list[Message]:
        self._eager -= 1
        if not self._is_lost and self._pair is not None:
            if eager.scope >= len(self._pair.names):
                raise ProtocolError(f"a change of scope {eager.scope} of {len(self._pair.names)}")
            self._land(self._pair.names[eager.scope], eager)
            if not self._eager:
                if self._contexts:
                    self._replica.before_leaving()  # the answer is a promise: the peer may leave on it
                return [self._differ(self._pair)]
        return []

    def _land(self, name: str, eager: Eager) -> None:
        """Land a change that came along, where nothing stands against it; else it comes again in a stream."""
        with self._replica.writing() as batch:
            writer = batch.writer
            scope = writer.scope(name)
            base = writer.agreed(self._id or b"", scope.id) if scope is not None else None
            if scope is None or base is None or base.hash() != eager.base or scope.taker:
                return
            if base - writer.context(scope.id):
                return
            giver = base | eager.news
            if eager.chunk is not None:
                wall_ms = self._replica.wall_ms()
                scope, taken = taking.take(writer, scope, base, giver, eager.chunk, wall_ms)
                batch.note(name, taken.touched, taken.dots)
                self.changes_received += taken.changes
            writer.save_scope(taking.finish(writer, scope, Declaration(giver, Context(), [])))
            batch.note(name, [], giver)
        self.records_changed += len(batch.touched)
        self._contexts[name] = giver

    def _differ(self, pair: Pair) -> Differ:
        self._look(pair.names, every=pair.is_hub)
        more = [name for name in self.states if name not in self._told]
        own = {name: state.short() for name, state in self.states.items()}
        self.shared = [Shared(name, self._told[name]) for name in pair.names] + [Shared(name, b"") for name in more]
        different = [
            (i, own[name]) for i, name in enumerate(pair.names) if name in own and own[name] != self._told[name]
        ]
        refused = [i for i, name in enumerate(pair.names) if name not in own]
        self.is_over = True
        return Differ(different, refused, [(name, own[name]) for name in more])

    # --- afterwards ---

    def remember(self, *, initiator: bool) -> None:
        """After a whole conversation: what the initiator told last, the contexts both have, and what a hub covers."""
        told, contexts = dict(self._told), dict(self._contexts)
        for shared in self.shared:
            said = shared.told if initiator else shared.heard
            if shared.differs and said is not None and shared.name in told:
                told[shared.name] = exchange.State(said.context_hash, said.digest, is_provisional=False).short()
            if shared.own is not None and shared.peer is not None and not self._was_dropped(shared):
                contexts[shared.name] = shared.own.context | shared.peer.context
        pair = Pair(self._peer_replica, list(told), b"".join(told.values()), self._says_hub, self._takes_all)
        name = self._peer if initiator else pair_id(self._peer_replica, told, told.values())
        is_new = name is not None and self._only is None and (pair != self._pair or bool(contexts))
        with self._replica.store.reading() as reader:
            delivered = self._delivered(reader) if self.trust.is_hub else {}
            if is_new:
                contexts |= self._equal_contexts(reader)
        if is_new or delivered:
            with self._replica.store.writing() as writer:
                for one, dots in delivered.items():
                    deliver(writer, one, dots)
                if is_new and name is not None:
                    self._write(writer, name, pair, contexts)

    def _equal_contexts(self, reader: Reader) -> dict[str, Context]:
        """The contexts of scopes that did not differ."""
        found: dict[str, Context] = {}
        for shared in self.shared:
            scope = reader.scope(shared.name)
            if scope is not None and not shared.differs and exchange.state_of(reader, scope).short() == shared.state:
                found[shared.name] = reader.context(scope.id)
        return found

    def _was_dropped(self, shared: Shared) -> bool:
        return shared.dropped or (shared.heard is not None and shared.heard.is_superseded)

    def _delivered(self, reader: Reader) -> dict[str, Context]:
        """What the hub at the other end covers, of which this file did not know that a hub does."""
        found: dict[str, Context] = {}
        for shared in self.shared:
            scope = reader.scope(shared.name)
            if scope is None or shared.name in self.refused or not (unknown := pending(reader, scope)):
                continue
            covered = self._covered(reader, scope, shared)
            if unknown & covered:
                found[shared.name] = covered
        return found

    def _covered(self, reader: Reader, scope: Scope, shared: Shared) -> Context:
        if not shared.differs:  # equal contexts
            is_same = exchange.state_of(reader, scope).short() == shared.state
            return reader.context(scope.id) if is_same else Context()
        assert shared.own is not None
        assert shared.peer is not None
        return shared.peer.context | (Context() if self._was_dropped(shared) else shared.own.context)

    def _write(self, writer: Writer, name: bytes, pair: Pair, contexts: dict[str, Context]) -> None:
        """Remember a pair, under the name that its next greeting will use."""
        if not writer.put_pair(name, pair, self._replica.wall_ms()):
            return
        if self._id is not None:
            writer.rename_pair(self._id, name)
        for scope_name, context in contexts.items():
            scope = writer.scope(scope_name)
            if scope is not None:
                writer.put_agreed(name, scope.id, context)
