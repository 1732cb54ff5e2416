"""One conversation between two replicas, as a sans-I/O state machine: frames in, frames out.

    initiator                                    responder
      the greeting (greeting.py)             ->
                                             <-  the greeting
                                             <-  Declare (context, floor), for each scope that differs
      Declare, Stream ... Stream done        ->
                                             <-  Stream ... Stream done, Settled
      Settled, Bye                           ->

Where a taker may lack removals that its giver has forgotten, it sends Want after the declarations (asking.py). Where
both settle with equal contexts and unequal digests, more rounds of Declare, Stream and Settled mend the scope
(rounds.py, mending.py). Where nothing differs, a Bye follows the greeting. Each side is giver and taker at once; a
stream is taken chunk by chunk, each in one transaction (landing.py), so a cut link costs nothing but the chunk it cut.
Nothing here opens sockets or reads clocks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.errors import ProtocolError, SyncError
from fieldsync.limits import REASON_CHARS_MAX
from fieldsync.syncing import asking, exchange, messages, parting
from fieldsync.syncing.frames import (
    Again,
    Answer,
    Ask,
    Bye,
    Declare,
    Differ,
    Eager,
    Forgotten,
    Hello,
    Part,
    Refusal,
    Settled,
    Sketch,
    Skipped,
    Stream,
    Want,
)
from fieldsync.syncing.greeting import Greeting
from fieldsync.syncing.landing import Landing
from fieldsync.syncing.report import Refused, Report
from fieldsync.syncing.rounds import Rounds
from fieldsync.trust import refusals
from fieldsync.trust.rights import CONTROL, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fieldsync.changes import Chunk
    from fieldsync.replica import Replica
    from fieldsync.store import Pair, Reader, Scope
    from fieldsync.syncing.exchange import Declaration
    from fieldsync.syncing.existence import Taker
    from fieldsync.syncing.frames import Greetings, Message
    from fieldsync.syncing.shared import Shared
    from fieldsync.trust.rights import Trust


# How many of our flights the peer must have seen before it can send a message: a stream answers a declaration, which
# answers a hello. However frames interleave on the wire, nobody waits longer.
WAITED_FOR: dict[type, int] = dict.fromkeys((Hello, Again, Differ, Forgotten, Declare), 1) | dict.fromkeys(
    (Part, Stream, Sketch, Answer, Settled), 2
)


class Session:
    """One side of a conversation over one replica. `receive` a frame at a time; send what `next_frame` gives."""

    def __init__(
        self,
        replica: Replica,
        *,
        initiator: bool,
        scopes: list[str] | None = None,
        peer: str | None = None,
        enough: Callable[[Report], bool] | None = None,
        trust: Trust | None = None,
    ) -> None:
        """scopes: only these; all that are held if None. peer: the initiator's name for the other side, to remember.

        enough: whether to stop here, asked before each frame, of either side: what has landed stays, the rest waits.
        trust: what the peer may do, who has proved who he is; where he has not, the replica is asked by what he says of
        himself.
        """
        self.report = Report()
        self.finished = False
        self._is_closed = False
        self._replica = replica
        self._initiator = initiator
        self._enough = enough
        self._greeting = Greeting(replica, only=scopes, peer=peer, trust=trust)
        self._control: deque[Message] = deque(self._greeting.open() if initiator else ())
        self._shared: list[Shared] = []
        self._outgoing: Iterator[Part | Stream] | None = None
        self._incoming = parting.Incoming()
        self._landing = Landing(replica, self.report)
        self._rounds = Rounds(replica, self.report)
        self._delay = 0  # round trips that questions about existence took beyond the usual

    @property
    def met(self) -> Pair | None:
        """After a whole conversation: what the initiator told last of its scopes, and whether the peer is a hub."""
        return self._greeting.met

    # --- sending ---

    def next_frame(self) -> bytes | None:
        """The next frame to send, or None when there is none before more is received."""
        if self._is_closed or self._stops():
            return None
        message = self._control.popleft() if self._control else self._next_stream()
        if message is None and self._control:  # the end of a stream may have something to say
            message = self._control.popleft()
        if message is None:
            return None
        is_end = isinstance(message, Stream) and message.chunk is None and not message.rest
        if isinstance(message, Part | Stream | Sketch | Answer) and not is_end:
            self._check_may_hear(self._shared[message.scope].name)
        frame = messages.encode(message)
        self.report.bytes_sent += len(frame)
        return frame

    def _stops(self) -> bool:
        """Whether the session ends short of its end, because it was enough."""
        if self._enough is not None and not self.finished and self._enough(self.report):
            self.finished = True
            self.close()
        return self.finished and not self.report.complete

    def _check_may_hear(self, name: str) -> None:
        """SyncError where the peer may not read a scope any more; that it is out, it may hear."""
        if name != CONTROL and (reason := self._greeting.trust.rights.why_not_read(name)):
            raise SyncError(f"{reason}: {name!r} is not given any further: {tell(reason)}", code=reason)

    def _next_stream(self) -> Part | Stream | None:
        if self._outgoing is None:
            self._outgoing = self._streams()
        message = next(self._outgoing, None)
        if message is None and not self._control:  # scopes that it has passed may have been declared since
            self._outgoing = self._streams()
            message = next(self._outgoing, None)
        if message is None:
            self._outgoing = None
        return message

    def _streams(self) -> Iterator[Part | Stream]:
        """The frames of each scope whose taker has declared, one scope after the other."""
        for index, shared in enumerate(self._shared):
            if shared.differs and shared.peer is not None and not shared.sent:
                yield from self._stream(index, shared, shared.peer)
                self._settle(index, shared)

    def _stream(self, index: int, shared: Shared, peer: Declaration) -> Iterator[Part | Stream]:
        assert shared.own is not None
        snapshot, scope = self._moment(shared)
        dots = Context() if shared.is_busy else exchange.lacking(snapshot, scope, shared.own.context, peer)
        for message, count in parting.frames(
            index, snapshot, scope, dots, shared.begun, lambda: self.report.bytes_sent
        ):
            self.report.changes_sent += count if shared.name != CONTROL else 0
            shared.sent = isinstance(message, Stream) and message.done
            yield message

    # --- receiving ---

    def receive(self, frame: bytes) -> None:
        """Take in one frame of the peer. ProtocolError where it is not allowed; what landed before stays."""
        if self._is_closed or self._stops():
            return  # it was enough, or cut; this was on its way
        self.report.bytes_received += len(frame)
        self._rounds.hear()
        message = messages.decode(frame)
        if waited := WAITED_FOR.get(type(message), 0):
            waited += self._delay + self._greeting.delay + 2 * (self._rounds.count - 1)
            self.report.round_trips = max(self.report.round_trips, waited)
        match message:
            case Skipped():
                return
            case Refusal(code, text):
                raise SyncError(f"the peer ended the session ({code}): {text}", code=code)
            case Hello() | Again() | Eager() | Differ() | Forgotten():
                self._greet(message)
            case _ if not self._greeting.is_over:
                raise ProtocolError(f"a {type(message).__name__} before any hello")
            case Declare():
                self._on_declare(message)
            case Part():
                self._incoming.add(message, *self._moment(self._streaming(message.scope)))
            case Stream():
                self._on_stream(message)
            case Settled():
                self._on_settled(message)
            case Want():
                self._control.append(asking.sketch(self._at(message.scope), message))
            case Ask():
                self._control.append(asking.answer(self._at(message.scope), message, self._control))
            case Sketch() | Answer():
                shared = self._at(message.scope)
                self._go_on(message.scope, shared, asking.learn(shared, message))
            case Bye():
                self._on_bye()
            case _:
                raise ProtocolError(f"a {type(message).__name__}, which has no place in a session")

    def _greet(self, message: Greetings) -> None:
        if self._greeting.is_over:
            raise ProtocolError("a second hello")
        self._control.extend(self._greeting.receive(message, initiator=self._initiator))
        self.report.changes_sent = self._greeting.changes_sent
        self.report.changes_received = self._greeting.changes_received
        self.report.changes_ahead = self._greeting.changes_ahead
        self.report.records_changed = self._greeting.records_changed
        if self._greeting.is_over:
            self._shared = self._greeting.shared
            self._rounds.meet(self._greeting.peer_replica, self._greeting.trust.rights)
            self.report.refused = self._greeting.refused
            self.report.refusals = self._greeting.refusals
            self._begin()

    def _begin(self) -> None:
        own = {name: state.short() for name, state in self._greeting.states.items()}
        here = [shared for shared in self._shared if shared.name in own and shared.name not in self._greeting.refused]
        self.report.scopes = [shared.name for shared in here if shared.name != CONTROL]
        for index, reason in self._greeting.withheld.items():
            self._control.append(Settled(index, bytes(8), bytes(16), False, True, reason))
        different = [shared for shared in here if shared.state != own[shared.name] and shared.along is None]
        if self._replica.takes_all:  # equal states are a promise, too: the peer may leave on them
            self._replica.before_leaving()
        if different:
            self._control.extend(self._rounds.begin(self._shared, different))
        elif self._initiator:
            self._say_bye()

    def _at(self, index: int) -> Shared:
        if index >= len(self._shared):
            raise ProtocolError(f"a frame on scope {index} of {len(self._shared)}")
        return self._shared[index]

    def _on_declare(self, message: Declare) -> None:
        shared = self._at(message.scope)
        if message.scope in self._greeting.withheld:
            return  # why has been told
        if shared.along is not None and not (shared.round or self._initiator):  # what went along did not land
            self.report.changes_sent -= shared.along
            self._control.extend(self._rounds.begin(self._shared, [shared]))
        if shared.own is None and self._is_gone(shared.name):
            raise SyncError(f"{shared.name!r} was left meanwhile; sync again")
        if not shared.differs or shared.peer is not None or shared.own is None:
            raise ProtocolError(f"a declaration of {shared.name!r} that was not due")
        if message.declaration.floor - message.declaration.context:
            raise ProtocolError(f"{shared.name!r}: the peer has forgotten removals that it never saw")
        shared.meet(message.declaration, message.begun, is_busy=message.is_busy)
        question = asking.first_question(message.scope, shared, self._replica.mint) if not shared.dropped else None
        if question is not None:
            self._control.append(question)
            self._delay += not self._initiator

    def _moment(self, shared: Shared) -> tuple[Reader, Scope]:
        """What this side gives of a scope, and compares."""
        assert shared.moment is not None
        return shared.moment

    # --- existence ---

    def _go_on(self, index: int, shared: Shared, gone: Taker) -> None:
        """Ask for more, or, where all is known and the stream is done, end it."""
        question = gone.question()
        if gone.alive is not None:
            if shared.received:
                self._end_stream(index, shared, None)
            return
        self._delay += 1
        self._control.append(Ask(index, question) if question is not None else Want(index, gone.wanted))

    def _streaming(self, index: int) -> Shared:
        shared = self._at(index)
        if shared.peer is None or shared.received:
            raise ProtocolError(f"a stream of {shared.name!r} that was not due")
        return shared

    def _on_stream(self, message: Stream) -> None:
        shared = self._streaming(message.scope)
        chunk = self._incoming.chunk(message, *self._moment(shared))
        shared.received = message.done
        if message.done and (shared.gone is None or shared.gone.alive is not None):
            self._end_stream(message.scope, shared, chunk)
        else:
            self._landing.take(shared, chunk, self._greeting.trust)

    def _end_stream(self, index: int, shared: Shared, chunk: Chunk | None) -> None:
        self._landing.end(shared, chunk, self._greeting.trust, yields=self._greeting.yields(initiator=self._initiator))
        shared.taken = True
        self._settle(index, shared)

    # --- the end of a round ---

    def _settle(self, index: int, shared: Shared) -> None:
        """Once both streams are done, tell the state that came of it."""
        if shared.sent and shared.taken and not shared.told:
            self._control.append(self._rounds.settle(index, shared))
            self._end_round()

    def _on_settled(self, message: Settled) -> None:
        shared = self._at(message.scope)
        if message.refused and shared.own is not None and shared.peer is None:
            self._give_up(shared, message)
            return
        if not shared.received or not shared.sent or shared.heard:
            raise ProtocolError(f"a settlement of {shared.name!r} that was not due")
        shared.heard = message
        if message.refused:
            self.report.refusals.append(Refused(shared.name, message.refused, is_ours=True))
        elif message.is_superseded and not shared.dropped:
            self.report.superseded.append(shared.name)
        self._end_round()

    def _give_up(self, shared: Shared, message: Settled) -> None:
        """A scope that this side named and the other will not share: all is said of it."""
        shared.told = shared.heard = message
        self.report.refused.append(shared.name)
        self.report.refusals.append(Refused(shared.name, message.refused, is_ours=True))
        self._end_round()

    def _end_round(self) -> None:
        """Once both sides have settled all scopes, hold another round or end."""
        if not all(shared.is_over for shared in self._shared if shared.differs):
            return
        declarations = self._rounds.go_on(self._shared)
        self._control.extend(declarations)
        if self._initiator and not declarations:
            self._say_bye()

    def _on_bye(self) -> None:
        if self._initiator or not all(shared.is_over for shared in self._shared if shared.differs):
            raise ProtocolError("a bye before all was said")
        self._finish()

    def _say_bye(self) -> None:
        self._control.append(Bye())
        self._finish()

    def _finish(self) -> None:
        self.finished = self.report.complete = True
        self.report.apart = [shared.name for shared in self._shared if shared.is_apart]
        self._rounds.close()
        self._greeting.remember(initiator=self._initiator)
        refusals.remember(self._replica.store, self.report.scopes, self.report.refusals)
        self._replica.tidy()

    def _is_gone(self, name: str) -> bool:
        with self._replica.store.reading() as reader:
            return reader.scope(name) is None

    def close(self) -> None:
        """Give back what the session holds; after a cut, too. Frames queued are dropped, and those that still come."""
        self._is_closed = True
        if self._incoming.scope is not None:
            shared = self._at(self._incoming.scope)
            self._incoming.keep(self._replica.store, shared.name, shared.token)
        self._outgoing = None
        self._control.clear()
        self._rounds.close()


def refusal(error: Exception) -> bytes:
    """The frame that tells the peer why a session ends."""
    code = getattr(error, "code", "") or type(error).__name__
    return messages.encode(Refusal(code[:REASON_CHARS_MAX], str(error)[:500] or "no reason given"))
