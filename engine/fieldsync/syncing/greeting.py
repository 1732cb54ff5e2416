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

from typing import TYPE_CHECKING

from fieldsync.errors import ProtocolError, SyncError, VersionMismatch
from fieldsync.leaving import deliver
from fieldsync.limits import EAGER_SCOPES_MAX, SCOPES_EMPTY_MAX
from fieldsync.replica import peer_id
from fieldsync.store import Pair
from fieldsync.syncing import eager, exchange, pairs
from fieldsync.syncing.frames import VERSION, Again, Differ, Eager, Forgotten, Hello
from fieldsync.syncing.report import Refused
from fieldsync.syncing.shared import Shared
from fieldsync.trust.rights import CONTROL, Reason, Trust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.context import Context
    from fieldsync.replica import Replica
    from fieldsync.store import Reader
    from fieldsync.syncing.eager import Offer
    from fieldsync.syncing.exchange import State
    from fieldsync.syncing.frames import Message
    from fieldsync.syncing.pairs import Answers


class Greeting:
    """One side's greeting: `open` or `receive`, until `shared` is known; `remember` at the end of the session."""

    def __init__(
        self, replica: Replica, *, only: list[str] | None, peer: str | None, trust: Trust | None = None
    ) -> None:
        """trust: of a peer who has proved who he is; by it, and not by an address, he is then remembered."""
        self.shared: list[Shared] = []
        self.refused: list[str] = []
        self.refusals: list[Refused] = []  # why
        self.withheld: dict[int, Reason] = {}  # scopes that the peer named, by place, and may not be told of
        self.states: dict[str, State] = {}  # the own ones
        self.trust = trust or Trust()
        self.met: Pair | None = None  # at the end: what the initiator told last, and whether the peer is a hub
        self.is_over = False
        self.changes_sent = self.changes_received = self.changes_ahead = self.records_changed = 0
        self.delay = 0  # round trips beyond the one that a greeting takes
        self._replica = replica
        self._proven = trust
        if trust is not None and trust.device is not None and peer is not None:
            peer = trust.device
        self._only = only
        self._takes_all = replica.takes_all and only is None
        self._peer = None if only is not None or peer is None else peer_id(peer)
        self._id: bytes | None = None  # of the pair, as this side remembers it
        self.peer_replica = b""  # its id
        self._says_hub = False
        self._pair: Pair | None = None
        self._told: dict[str, bytes] = {}  # the initiator's states, as it told them
        self._contexts: dict[str, Context] = {}  # that both had after an eager change of the initiator
        self._answers: Answers = {}  # the responder's, where its changes came along
        self._places: dict[int, int] = {}  # of scopes of which changes may come along, by place
        self._sent: dict[int, int] = {}  # changes that went along, by scope
        self._eager = 0  # how many are still to come
        self._is_lost = False  # those that come are of no use

    def yields(self, *, initiator: bool) -> bool:
        """Whether, of two records that differ without a reason, the peer's counts: a hub's, else the responder's."""
        return (self._takes_all, not initiator) < (self._says_hub, initiator)

    # --- the initiator ---

    def open(self) -> list[Message]:
        """The first messages of the conversation."""
        with self._replica.store.reading() as reader:
            for scope in sorted(reader.scopes(), key=lambda scope: (scope.name != CONTROL, -scope.priority)):
                if self._may_tell(scope.name):
                    self.states[scope.name] = exchange.state_of(reader, scope)
            self._told = {name: state.short() for name, state in self.states.items()}
            self._id = self._peer
            self._pair = reader.pair(self._peer) if self._peer else None
            known = self._pair
            if known is None or known.names != list(self.states) or known.was_hub != self._takes_all:
                self._pair = None  # Hello is said, to which a Differ is no answer
                return [self._hello(self.states)]
            self._trust(known.replica, known.is_hub)
            return self._again(reader, known)

    def _may_tell(self, name: str) -> bool:
        """Whether the peer is told of a scope at all."""
        is_asked = self._only is None or name == CONTROL or name in self._only
        return is_asked and not self.trust.rights.why_not_read(name)

    def _trust(self, replica: bytes, says_hub: bool) -> None:
        self.peer_replica, self._says_hub = replica, says_hub
        if self._proven is None:
            self.trust = self._replica.trust(replica, says_hub)
        else:  # a hub is who is one and says that he takes all; a hub's other files are no hub
            self._says_hub = says_hub and self._proven.is_hub
            self.trust = self._proven._replace(is_hub=self._says_hub)

    def _hello(self, names: Iterable[str], refused: Iterable[tuple[str, str]] = ()) -> Hello:
        states = [(name, self.states[name].short()) for name in names]
        return Hello(self._replica.id, self._replica.wall_ms(), self._takes_all, states, refused=list(refused))

    def _again(self, reader: Reader, pair: Pair) -> list[Message]:
        changed = [
            (i, now) for i, (now, then) in enumerate(zip(self._told.values(), pair.each(), strict=True)) if now != then
        ]
        offers: list[Offer] = []
        for place, (i, _) in enumerate(changed[:EAGER_SCOPES_MAX]):
            name = pair.names[i]
            one = eager.offer(reader, name, place, eager.agreed(reader, name, self._peer or b""))
            if one is not None:
                offers.append(one)
                self._contexts[name] = one.context
                self._sent[i] = one.changes
        self.changes_sent = sum(self._sent.values())
        if offers:
            self._replica.before_leaving()
        again = Again(pairs.pair_id(self._replica.id, pair.names, pair.each()), changed, len(offers))
        return [again, *[one.message for one in offers]]

    # --- receiving ---

    def receive(self, message: Hello | Again | Differ | Forgotten | Eager, *, initiator: bool) -> list[Message]:
        """Take in a message of the greeting; returns what to say next. `is_over` once all is known."""
        match message:
            case Hello() if not self._eager:
                self._check_versions(message)
                self._trust(message.replica, message.takes_all)
                return self._accept(message) if initiator else self._answer(message)
            case Differ() if initiator and self._pair is not None and not self._eager:
                self._accept_differ(message, self._pair)
                return []
            case Forgotten() if initiator and self._pair is not None and not (self.delay or self._eager):
                self.delay, self._contexts, self.changes_sent = 1, {}, 0
                self._pair = None
                return [self._hello(self.states)]
            case Again() if not initiator and self._pair is None and not self._is_lost:
                return self._recall(message)
            case Eager() if self._eager:
                self._eager -= 1
                return self._take_answer(message) if initiator else self._take(message)
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
        self._note_refused([name for name in self.states if name not in theirs], dict(hello.refused))
        self._withhold()
        self.is_over = True
        return []

    def _note_refused(self, names: list[str], reasons: dict[str, str]) -> None:
        """Scopes on offer here that the peer does not share."""
        self.refused = [name for name in names if not self._takes_all]
        told = [name for name in names if name in reasons or not self._takes_all]
        self.refusals = [Refused(name, reasons.get(name, Reason.NOT_HELD), is_ours=True) for name in told]

    def _withhold(self) -> None:
        """A device names to a hub what it holds; it may not hold that any more."""
        for i, shared in enumerate(self.shared):
            if shared.name not in self.states:
                self.withheld[i] = self.trust.rights.why_not_read(shared.name) or Reason.NOT_HELD

    def _accept_differ(self, differ: Differ, pair: Pair) -> None:
        """The remembered list numbers the scopes, those that are new to it after them."""
        different = dict(differ.different)
        count = len(pair.names)
        if any(i >= count for i in (*different, *differ.refused)) or (differ.more and not self._takes_all):
            raise ProtocolError("an answer with scopes that were not on offer")
        if any(name in self.states for name, _ in differ.more):
            raise ProtocolError("an answer with a scope that was on offer as one that is new")
        self._note_refused([pair.names[i] for i in differ.refused], {})
        self.changes_sent -= sum(count for i, count in self._sent.items() if i in different)  # they go again
        same = {name: state.short() for name, state in self.states.items()}
        self.shared = [Shared(name, different.get(i, same[name])) for i, name in enumerate(pair.names)]
        self._enter([name for name, _ in differ.more])
        self.shared += [Shared(name, b"") for name, _ in differ.more]
        self._withhold()
        self._places, self._eager = dict(enumerate(i for i, _ in differ.different)), differ.eager
        self.is_over = not self._eager

    def _take_answer(self, message: Eager) -> list[Message]:
        """Changes of the responder came along with its answer. Where they do not land, a declaration says so."""
        i = self._place(message)
        shared = self.shared[i]
        sent = self._contexts.get(shared.name)
        landed = eager.land(self._replica, shared.name, message, self._id or b"", sent, self.trust.rights)
        if landed is None and self._is_gone(shared.name):  # to say nothing would be to say that it landed
            raise SyncError(f"{shared.name!r} was left meanwhile; sync again")
        if landed is not None:
            self.changes_received += landed.changes
            self.changes_ahead += landed.ahead
            self.records_changed += landed.records
            self.changes_sent += self._sent.get(i, 0) if landed.base == sent else 0
            self._answers[shared.name] = shared.state, landed.context
            if landed.before != self.states[shared.name]:
                shared.along = 0  # what was written here meanwhile goes with the next greeting
            self.states[shared.name] = landed.after
        if shared.along is None and self.states[shared.name].short() != shared.state:
            self.delay = 1
        self.is_over = not self._eager
        return []

    def _place(self, message: Eager) -> int:
        """Which scope an Eager is of, by its place in what came before; none comes twice."""
        i = self._places.pop(message.place, None)
        if i is None:
            raise ProtocolError(f"a change of a scope in place {message.place}, which was not named, or has come")
        return i

    def _is_gone(self, name: str) -> bool:
        with self._replica.store.reading() as reader:
            return reader.scope(name) is None

    # --- the responder ---

    def _answer(self, hello: Hello) -> list[Message]:
        self._told = dict(hello.scopes)
        if self._takes_all:
            self._enter(self._told)
        with self._replica.store.reading() as reader:
            self._look(reader, every=self._says_hub)
        # in the order of the initiator, which knows what is urgent
        names = [name for name in self._told if name in self.states]
        names += [name for name in self.states if name not in self._told]
        self.shared = [Shared(name, self._told.get(name, b"")) for name in names]
        self.is_over = True
        reasons = [(name, self.trust.rights.why_not_read(name)) for name in self._told]
        return [self._hello(names, [(name, reason) for name, reason in reasons if reason])]

    def _look(self, reader: Reader, *, every: bool) -> None:
        """Read the own states of those scopes that were told of, of all if every."""
        for scope in reader.scopes():
            if (every or scope.name in self._told) and self._may_tell(scope.name):
                self.states[scope.name] = exchange.state_of(reader, scope)

    def _enter(self, names: Iterable[str]) -> None:
        """Hold scopes from now on, if they are not held by now: something else may have entered them meanwhile."""
        new = []
        with self._replica.store.reading() as reader:
            for name in filter(self._may_tell, names):
                scope = reader.scope(name)
                if scope is not None:
                    self.states[name] = exchange.state_of(reader, scope)
                else:
                    new.append(name)
            if new and not self.trust.rights.knows_all:
                empty = sum(not any(scope.digest) for scope in reader.scopes())
                new = new[: max(0, SCOPES_EMPTY_MAX - empty)]
        if new:
            with self._replica.store.writing() as writer:
                for name in new:
                    self.states[name] = exchange.state_of(writer, writer.enter(name))

    def _recall(self, again: Again) -> list[Message]:
        with self._replica.store.reading() as reader:
            pair = reader.pair(again.pair)
        self._eager = again.eager
        if pair is None or not self._may_recall(pair) or any(i >= len(pair.names) for i, _ in again.changed):
            self._is_lost, self.delay = True, 1
            return [Forgotten()]
        self._id, self._pair = again.pair, pair
        self._trust(pair.replica, pair.is_hub)
        states = list(pair.each())
        for i, state in again.changed:
            states[i] = state
        self._places = dict(enumerate(i for i, _ in again.changed))
        self._told = dict(zip(pair.names, states, strict=True))
        return [] if self._eager else self._differ(pair)

    def _may_recall(self, pair: Pair) -> bool:
        """Whether what is remembered of a pair still holds: this side is what it was, the other may be told it all."""
        return pair.was_hub == self._takes_all and all(map(self._may_tell, pair.names))

    def _take(self, message: Eager) -> list[Message]:
        if self._is_lost or self._pair is None:
            return []
        self._land(self._pair.names[self._place(message)], message)
        return [] if self._eager else self._differ(self._pair)

    def _land(self, name: str, message: Eager) -> None:
        """Land a change that came along, where nothing stands against it; else it comes again in a stream."""
        landed = eager.land(self._replica, name, message, self._id or b"", None, self.trust.rights)
        if landed is not None:
            self.changes_received += landed.changes
            self.changes_ahead += landed.ahead
            self.records_changed += landed.records
            self._contexts[name] = landed.context

    def _differ(self, pair: Pair) -> list[Message]:
        """What still differs, and the own changes there where it is known what the initiator has."""
        if self._takes_all:
            self._enter(pair.names)
        with self._replica.store.reading() as reader:
            self._look(reader, every=self._says_hub)
            own = {name: state.short() for name, state in self.states.items()}
            different = [
                (i, own[name]) for i, name in enumerate(pair.names) if name in own and own[name] != self._told[name]
            ]
            offers = self._offers(reader, pair, different)
        more = [name for name in self.states if name not in self._told]
        self.shared = [Shared(name, self._told[name]) for name in pair.names] + [Shared(name, b"") for name in more]
        refused = [i for i, name in enumerate(pair.names) if name not in own]
        for one in offers:
            shared = self.shared[different[one.message.place][0]]
            shared.along = one.changes
            self.changes_sent += one.changes
            self._answers[shared.name] = own[shared.name], one.context
        if self._contexts or offers:
            self._replica.before_leaving()  # the answer is a promise, too: the peer may leave on it
        self.is_over = True
        answer = Differ(different, refused, [(name, own[name]) for name in more], len(offers))
        return [answer, *[one.message for one in offers]]

    def _offers(self, reader: Reader, pair: Pair, different: list[tuple[int, bytes]]) -> list[Offer]:
        """Of scopes of which just this side has news now."""
        found: list[Offer | None] = []
        for place, (i, _) in enumerate(different[:EAGER_SCOPES_MAX]):
            name = pair.names[i]
            base = self._contexts.get(name)
            if base is None and self._told[name] == pair.each()[i]:
                base = eager.agreed(reader, name, self._id or b"")
            found.append(eager.offer(reader, name, place, base))
        return [one for one in found if one is not None]

    # --- afterwards ---

    def remember(self, *, initiator: bool) -> None:
        """After a whole conversation: what the initiator told last, the contexts both have, and what a hub covers."""
        told, contexts = dict(self._told), dict(self._contexts)
        for shared in self.shared:
            if shared.differs:
                contexts.pop(shared.name, None)
            elif shared.name in self._answers:
                told[shared.name], contexts[shared.name] = self._answers[shared.name]
            said = shared.told if initiator else shared.heard
            if shared.differs and said is not None and shared.name in told:
                told[shared.name] = exchange.State(said.context_hash, said.digest, is_provisional=False).short()
            if shared.own is not None and shared.peer is not None and not pairs.was_dropped(shared):
                contexts[shared.name] = shared.own.context | shared.peer.context
        pair = Pair(self.peer_replica, list(told), b"".join(told.values()), self._says_hub, self._takes_all)
        self.met = pair
        name = self._peer if initiator else pairs.pair_id(self.peer_replica, told, told.values())
        is_new = name is not None and self._only is None and (pair != self._pair or bool(contexts))
        both = [shared for shared in self.shared if shared.name not in self.refused]
        with self._replica.store.reading() as reader:
            delivered = pairs.delivered(reader, both, self._answers) if self.trust.is_hub else {}
            if is_new:
                contexts |= pairs.equal_contexts(reader, self.shared)
        if is_new or delivered:
            with self._replica.store.writing() as writer:
                for one, dots in delivered.items():
                    deliver(writer, one, dots)
                if is_new and name is not None:
                    device = None if initiator else self.trust.device
                    wall_ms = self._replica.wall_ms()
                    pairs.write(writer, name, pair, contexts, old=self._id, wall_ms=wall_ms, device=device)
