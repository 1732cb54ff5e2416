"""One conversation between two replicas, as a sans-I/O state machine: frames in, frames out.

    initiator                                    responder
      the greeting (greeting.py)             ->
                                             <-  the greeting
                                             <-  Declare (context, floor), for each scope that differs
      Declare, Stream ... Stream done        ->
                                             <-  Stream ... Stream done, Settled
      Settled, Bye                           ->

Where a taker may lack removals that its giver has forgotten, it sends Want after the declarations, and the giver
answers with Sketch; more of both if need be, then Ask and Answer. Where nothing differs, a Bye follows the greeting.
Each side is giver and taker at once; a stream is taken chunk by chunk, each in one transaction, so a cut link costs
nothing but the chunk it cut. Nothing here opens sockets or reads clocks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fieldsync import exchange, existence, giving, messages, taking
from fieldsync.context import Context
from fieldsync.errors import DigestMismatch, ProtocolError, SyncError
from fieldsync.exchange import State, Superseded
from fieldsync.greeting import Greeting, Shared
from fieldsync.messages import (
    Again,
    Answer,
    Ask,
    Bye,
    Declare,
    Differ,
    Eager,
    Forgotten,
    Hello,
    Refusal,
    Settled,
    Sketch,
    Skipped,
    Stream,
    Want,
)
from fieldsync.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fieldsync.changes import Chunk
    from fieldsync.exchange import Declaration
    from fieldsync.messages import Greetings, Message
    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.store import Reader, Scope


# How many of our flights the peer must have seen before it can send a message: a stream answers a declaration, which
# answers a hello. However frames interleave on the wire, nobody waits longer.
WAITED_FOR: dict[type, int] = dict.fromkeys((Hello, Again, Differ, Forgotten, Declare), 1) | dict.fromkeys(
    (Stream, Sketch, Answer, Settled), 2
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
    ) -> None:
        """scopes: only these; all that are held if None. peer: the initiator's name for the other side, to remember.

        enough: whether to stop here, asked before each frame: what has landed stays, the rest waits.
        """
        self.report = Report()
        self.finished = False
        self._replica = replica
        self._initiator = initiator
        self._enough = enough
        self._greeting = Greeting(replica, only=scopes, peer=peer)
        self._control: deque[Message] = deque(self._greeting.open() if initiator else ())
        self._shared: list[Shared] = []
        self._snapshot: Reader | None = None
        self._outgoing: Iterator[Stream] | None = None
        self._delay = 0  # round trips that questions about existence took beyond the usual

    # --- sending ---

    def next_frame(self) -> bytes | None:
        """The next frame to send, or None when there is none before more is received."""
        if self._enough is not None and not self.finished and self._enough(self.report):
            self.finished = True
            self.close()
        if self.finished and not self.report.complete:
            return None
        message = self._control.popleft() if self._control else self._next_stream()
        if message is None and self._control:  # the end of a stream may have something to say
            message = self._control.popleft()
        if message is None:
            return None
        frame = messages.encode(message)
        self.report.bytes_sent += len(frame)
        return frame

    def _next_stream(self) -> Stream | None:
        if self._outgoing is None:
            self._outgoing = self._streams()
        message = next(self._outgoing, None)
        if message is None:
            self._outgoing = None
            return None
        return message

    def _streams(self) -> Iterator[Stream]:
        """The frames of each scope whose taker has declared, one scope after the other."""
        for index, shared in enumerate(self._shared):
            if shared.differs and shared.peer is not None and not shared.sent:
                yield from self._stream(index, shared, shared.peer)
                shared.sent = True
                self._settle(index, shared)

    def _stream(self, index: int, shared: Shared, peer: Declaration) -> Iterator[Stream]:
        assert shared.own is not None
        snapshot, scope = self._moment(shared)
        dots = exchange.lacking(snapshot, scope, shared.own.context, peer)
        last = None
        for chunk, count in giving.give(snapshot, scope, dots):
            if last is not None:
                yield Stream(index, last, False)
            last = chunk
            self.report.changes_sent += count
        shared.sent = True
        yield Stream(index, last, True)

    # --- receiving ---

    def receive(self, frame: bytes) -> None:
        """Take in one frame of the peer. ProtocolError where it is not allowed; what landed before stays."""
        if self.finished and not self.report.complete:
            return  # it was enough; this was on its way
        self.report.bytes_received += len(frame)
        message = messages.decode(frame)
        if waited := WAITED_FOR.get(type(message), 0):
            waited += self._delay + self._greeting.delay
            self.report.round_trips = max(self.report.round_trips, waited)
        match message:
            case Skipped():
                return
            case Refusal(code, text):
                raise SyncError(f"the peer ended the session ({code}): {text}")
            case Hello() | Again() | Eager() | Differ() | Forgotten():
                self._greet(message)
            case _ if not self._greeting.is_over:
                raise ProtocolError(f"a {type(message).__name__} before any hello")
            case Declare():
                self._on_declare(message)
            case Stream():
                self._on_stream(message)
            case Settled():
                self._on_settled(message)
            case Want():
                self._on_want(message)
            case Sketch():
                self._on_sketch(message)
            case Ask():
                self._on_ask(message)
            case Answer():
                self._on_answer(message)
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
        self.report.records_changed = self._greeting.records_changed
        if self._greeting.is_over:
            self._shared = self._greeting.shared
            self.report.refused = self._greeting.refused
            self._begin()

    def _begin(self) -> None:
        """Where states differ: make this session the scope's only stream, then fix the moment that is given."""
        own = {name: state.short() for name, state in self._greeting.states.items()}
        here = [shared for shared in self._shared if shared.name in own and shared.name not in self._greeting.refused]
        self.report.scopes = [shared.name for shared in here]
        different = [shared for shared in here if shared.state != own[shared.name]]
        if different:
            with self._replica.store.writing() as writer:
                for shared in different:
                    scope = writer.scope(shared.name)
                    if scope is not None:  # else it was left meanwhile
                        shared.token = self._replica.mint()
                        exchange.begin(writer, scope, shared.token)
            self._snapshot = self._replica.store.snapshot()
            self._replica.before_leaving()
            for index, shared in enumerate(self._shared):
                scope = self._snapshot.scope(shared.name)
                if shared.differs and scope is not None:
                    shared.own = exchange.declare(self._snapshot, scope)
                    self._control.append(Declare(index, shared.own))
        elif self._initiator:
            self._say_bye()

    def _at(self, index: int) -> Shared:
        if index >= len(self._shared):
            raise ProtocolError(f"a frame on scope {index} of {len(self._shared)}")
        return self._shared[index]

    def _on_declare(self, message: Declare) -> None:
        shared = self._at(message.scope)
        if shared.own is None and self._is_gone(shared.name):
            raise SyncError(f"{shared.name!r} was left meanwhile; sync again")
        if not shared.differs or shared.peer is not None or shared.own is None:
            raise ProtocolError(f"a declaration of {shared.name!r} that was not due")
        shared.peer = message.declaration
        if shared.peer.floor - shared.peer.context:
            raise ProtocolError(f"{shared.name!r}: the peer has forgotten removals that it never saw")
        if existence.is_needed(shared.peer, shared.own):
            snapshot, scope = self._moment(shared)
            key = self._replica.mint() + self._replica.mint()
            shared.gone = existence.Taker(snapshot, scope, shared.own, shared.peer, key)
            self._control.append(Want(message.scope, shared.gone.held, key))
            self._delay += not self._initiator

    def _moment(self, shared: Shared) -> tuple[Reader, Scope]:
        """What this side gives of a scope, and compares."""
        assert self._snapshot is not None
        scope = self._snapshot.scope(shared.name)
        assert scope is not None
        return self._snapshot, scope

    # --- existence ---

    def _on_want(self, message: Want) -> None:
        shared = self._at(message.scope)
        if shared.own is None or shared.peer is None or not existence.is_needed(shared.own, shared.peer):
            raise ProtocolError(f"a question about {shared.name!r} that was not due")
        if bool(message.key) == (shared.lives is not None):
            raise ProtocolError(f"a sketch of {shared.name!r} that begins twice, or never")
        if shared.lives is None:
            dots = existence.compared(shared.own.context, shared.peer)
            shared.lives = existence.Giver(*self._moment(shared), dots, message.key)
        symbols = shared.lives.sketch(message.number)
        self._control.append(Sketch(message.scope, symbols))

    def _on_sketch(self, message: Sketch) -> None:
        shared, gone = self._unknown(message.scope)
        gone.receive(message.symbols)
        self._go_on(message.scope, shared, gone)

    def _on_ask(self, message: Ask) -> None:
        shared = self._at(message.scope)
        if shared.lives is None:
            raise ProtocolError(f"a question about {shared.name!r} before any sketch of it")
        if any(isinstance(queued, Answer) and queued.scope == message.scope for queued in self._control):
            raise ProtocolError(f"a question about {shared.name!r} before the last answer was read")
        self._control.append(Answer(message.scope, shared.lives.answer(message.question)))

    def _on_answer(self, message: Answer) -> None:
        shared, gone = self._unknown(message.scope)
        gone.receive_answer(message.answer)
        self._go_on(message.scope, shared, gone)

    def _unknown(self, index: int) -> tuple[Shared, existence.Taker]:
        shared = self._at(index)
        if shared.gone is None or shared.gone.alive is not None:
            raise ProtocolError(f"an answer about {shared.name!r} that was not asked for")
        return shared, shared.gone

    def _go_on(self, index: int, shared: Shared, gone: existence.Taker) -> None:
        """Ask for more, or, where all is known and the stream is done, end it."""
        question = gone.question()
        if gone.alive is not None:
            if shared.received:
                self._end_stream(index, shared, None)
            return
        self._delay += 1
        self._control.append(Ask(index, question) if question is not None else Want(index, gone.wanted))

    def _on_stream(self, message: Stream) -> None:
        shared = self._at(message.scope)
        if shared.peer is None or shared.received:
            raise ProtocolError(f"a stream of {shared.name!r} that was not due")
        shared.received = message.done
        if message.done and (shared.gone is None or shared.gone.alive is not None):
            self._end_stream(message.scope, shared, message.chunk)
        else:
            self._take(shared, message.chunk, is_done=False)

    def _end_stream(self, index: int, shared: Shared, chunk: Chunk | None) -> None:
        self._take(shared, chunk, is_done=True)
        shared.taken = True
        self._settle(index, shared)

    def _take(self, shared: Shared, chunk: Chunk | None, *, is_done: bool) -> None:
        """Land what came in one transaction, unless a newer session took the scope over."""
        if shared.dropped:
            return
        try:
            with self._replica.writing() as batch:
                changes = self._land(batch, shared, chunk, is_done=is_done)
        except Superseded:
            shared.dropped = True
            self.report.superseded.append(shared.name)
            return
        except existence.TooMuch:  # what came lands, and nothing is joined; a hub will say the same, or not
            self._take(shared, chunk, is_done=False)
            shared.dropped = True
            self.report.waiting.append(shared.name)
            return
        self.report.changes_received += changes
        self.report.records_changed += len(batch.touched)

    def _land(self, batch: WriteBatch, shared: Shared, chunk: Chunk | None, *, is_done: bool) -> int:
        """Write a chunk, and Done with what it takes away; returns how many changes came."""
        assert shared.own is not None
        assert shared.peer is not None
        writer, giver, count = batch.writer, shared.peer, 0
        scope = writer.scope(shared.name)
        if scope is None or scope.taker != shared.token:
            raise Superseded
        if chunk is not None:
            wall_ms = self._replica.wall_ms()
            scope, taken = taking.take(writer, scope, shared.own.context, giver.context, chunk, wall_ms)
            batch.note(shared.name, taken.touched, taken.dots)
            count = taken.changes
        if is_done:
            scope = scope._replace(taker=b"")  # so that a change may come along with the next greeting
            if shared.gone is not None:
                scope, touched = existence.drop(
                    writer, scope, shared.gone.known(), self._greeting.trust, self._replica.wall_ms()
                )
                batch.note(shared.name, touched, Context())
            scope = taking.finish(writer, scope, giver)
            batch.note(shared.name, [], giver.context)
        writer.save_scope(scope)
        return count

    def _settle(self, index: int, shared: Shared) -> None:
        """Once both streams are done, tell the state that came of it."""
        if not (shared.sent and shared.taken) or shared.told:
            return
        self._replica.before_leaving()  # a settlement is a promise: the peer may leave on it
        state = self._state(shared.name)
        shared.told = Settled(index, state.context_hash, state.digest, state.is_provisional, shared.dropped)
        self._control.append(shared.told)
        self._compare(shared, state)

    def _is_gone(self, name: str) -> bool:
        with self._replica.store.reading() as reader:
            return reader.scope(name) is None

    def _state(self, name: str) -> State:
        with self._replica.store.reading() as reader:
            scope = reader.scope(name)
            if scope is None:  # left meanwhile
                return State(bytes(8), bytes(16), is_provisional=True)
            return exchange.state_of(reader, scope)

    def _on_settled(self, message: Settled) -> None:
        shared = self._at(message.scope)
        if not shared.received or not shared.sent or shared.heard:
            raise ProtocolError(f"a settlement of {shared.name!r} that was not due")
        shared.heard = message
        if message.is_superseded and not shared.dropped:
            self.report.superseded.append(shared.name)
        if shared.told:
            self._compare(shared, self._state(shared.name))

    def _compare(self, shared: Shared, state: State) -> None:
        """Once both sides have settled: equal contexts mean equal digests."""
        other = shared.heard
        if other is None:
            return
        provisional = state.is_provisional or other.is_provisional
        if other.context_hash == state.context_hash and other.digest != state.digest and not provisional:
            raise DigestMismatch(f"{shared.name!r}: equal contexts, but not equal records: damage or a bug")
        if self._initiator and all(one.is_over for one in self._shared if one.differs):
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
        self._release()
        self._greeting.remember(initiator=self._initiator)
        self._replica.tidy()

    def _release(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def close(self) -> None:
        """Give back what the session holds; after a cut, too. Frames still queued are dropped."""
        self._outgoing = None
        self._control.clear()
        self._release()


def refusal(error: Exception) -> bytes:
    """The frame that tells the peer why a session ends."""
    return messages.encode(Refusal(type(error).__name__, str(error)[:500] or "no reason given"))
