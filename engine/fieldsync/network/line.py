"""A connection that carries sessions, one after the other, and between them word that there is something new.

    dialer                                        the other side
      frames of a session                     <->
                                              <-  "news", when something has changed that the dialer should have
      frames of the next session              <->

Frames of sessions are binary messages; word of the line is a text message. The dialer begins all sessions. Each side
sends and receives at once, so full buffers never deadlock; the database work runs in threads, under a lock a session.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fieldsync.errors import ConnectionFailed, FieldsyncError, ProtocolError
from fieldsync.limits import (
    CLOSE_SECONDS_MAX,
    FRAME_COST_BYTES,
    IDLE_SECONDS_MAX,
    PING_SECONDS,
    QUIET_BYTES_MAX,
    QUIET_SECONDS,
    SESSION_SECONDS_MAX,
    SESSIONS_BURST,
    SESSIONS_PAUSE_SECONDS,
)
from fieldsync.network.news import Known
from fieldsync.network.wire import failures, websockets
from fieldsync.syncing.session import refusal
from fieldsync.trust.rights import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fieldsync.network.news import States
    from fieldsync.syncing.report import Report
    from fieldsync.syncing.session import Session
    from fieldsync.trust.identity import Peer
    from fieldsync.trust.rights import Trust

NEWS = "news"
TRY_LATER = 1013  # the code with which who has no room closes a connection
pause = asyncio.sleep


class _Talk:
    """One session on its way over a line."""

    def __init__(self, session: Session, progress: Callable[[Report], object] | None = None) -> None:
        self.session = session
        self.progress = progress
        self.wake = asyncio.Event()  # something may be to be sent
        self.over = asyncio.Event()
        self._lock = threading.Lock()

    async def work(self, call: Any, *arguments: Any) -> Any:
        """Call something of the session in a thread."""
        return await asyncio.to_thread(self._locked, call, *arguments)

    def _locked(self, call: Any, *arguments: Any) -> Any:
        with self._lock:
            return call(*arguments)


class Line:
    """One connection. `run` takes in what comes until it ends; meanwhile a dialer may `sync`."""

    def __init__(
        self,
        connection: Any,
        *,
        accept: Callable[[Line], Awaitable[Session | None]] | None = None,
        on_news: Callable[[], object] = lambda: None,
        on_over: Callable[[Line, Session, BaseException | None], Awaitable[None]] | None = None,
        idle_seconds: float = IDLE_SECONDS_MAX,
        peer: Peer | None = None,
    ) -> None:
        """accept: the session for a peer that begins one, None if there are too many; a dialer has none.

        on_news: the peer says that there is something new. on_over: a session ended, well or by an error.
        """
        self.peer = peer
        self.trust: Trust | None = None  # what the peer may do, if it proved who it is
        self.control: States = {}  # the state of the control scope before the last session
        self.known: Known | None = None  # what the last whole session left both sides with
        self.was_refused = False  # something, in the last session
        self.lapsed = ""  # whose grant has run out, so that the two share nothing
        self.missed: set[str] | None = set()  # scopes that changed while a session was held; None: any of them
        self.error: BaseException | None = None  # what ended it, if that was not a close
        self._connection = connection
        self._accept = accept
        self._on_news = on_news
        self._on_over = on_over
        self._idle_seconds = idle_seconds
        self._talk: _Talk | None = None
        self._is_failed = False  # the last one has
        self._holding: asyncio.Task[None] | None = None
        self._nudging: asyncio.Task[None] | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moved = 0  # messages either way
        self._came = 0  # of these, from the peer
        self._unanswered = 0  # bytes of frames sent since one came
        self._nudged = False
        self._pace = _Pace(SESSIONS_BURST, SESSIONS_PAUSE_SECONDS)

    @property
    def is_dialer(self) -> bool:
        """Whether this side dialled, and begins the sessions."""
        return self._accept is None

    @property
    def is_busy(self) -> bool:
        """Whether a session is being held."""
        return self._talk is not None

    # --- what comes ---

    async def run(self) -> None:
        """Take in what comes until the connection ends; errors are raised, after the peer was told of its own."""
        try:
            while True:
                message = await self._connection.recv()
                self._moved += 1
                self._came += 1
                self._unanswered = 0
                if isinstance(message, bytes):
                    await self._take(message)
                else:
                    self._hear(message)
        except websockets().exceptions.ConnectionClosed as closed:
            is_cut = self._talk is not None and not self._talk.session.finished
            if self.error is None and (is_cut or (self.is_dialer and closed.rcvd_then_sent is not False)):
                code = Reason.BUSY if closed.rcvd is not None and closed.rcvd.code == TRY_LATER else Reason.CUT
                self.error = ConnectionFailed(str(closed), code=code)  # a dialer is told why the other side hung up
        except FieldsyncError as error:
            self.error = error
            await self._refuse(error)
        finally:
            self._ended.set_result(None)
            self._believe()
            if self._holding is not None:
                await asyncio.gather(self._holding, return_exceptions=True)
            await self.close()
        if self.error is not None:
            raise self.error

    def _hear(self, word: str) -> None:
        if word != NEWS:
            raise ProtocolError("a text message that is no word of the protocol: frames are binary")
        self._on_news()

    async def _take(self, frame: bytes) -> None:
        if self._is_failed:
            return  # of the session that failed: it was on its way
        talk = self._talk
        if talk is not None and talk.session.finished:
            if not talk.session.report.complete:
                return  # it was enough; this was on its way
            await talk.over.wait()
            talk = None
        if talk is None:
            talk = await self._begin()
        if talk is not None:
            await talk.work(talk.session.receive, frame)
            talk.wake.set()
            if talk.progress is not None:
                talk.progress(talk.session.report)

    async def _begin(self) -> _Talk | None:
        """A session that the peer begins."""
        if self._accept is None:
            raise ProtocolError("a frame outside of any session")
        await self._pace.turn()
        self._nudged = False  # from here on: the session reads what there is before it is known to be held
        session = await self._accept(self)
        if session is None:
            await self.close(TRY_LATER, "too many sessions; try again")
            return None
        talk = self._talk = _Talk(session)
        self._holding = asyncio.create_task(self._hold_quietly(talk))
        return talk

    async def _hold_quietly(self, talk: _Talk) -> None:
        try:
            await self._hold(talk)
        except failures() as error:
            if self.error is None:
                self.error = error
            await self.close()

    # --- what is sent ---

    async def sync(self, session: Session, progress: Callable[[Report], object] | None = None) -> Report:
        """Hold one session that this side begins; what ends it early is raised."""
        assert self._talk is None, "a session is being held"
        self._talk = _Talk(session, progress)
        await self._hold(self._talk)
        return session.report

    def stir(self) -> None:
        """There is something new on this side: a dialer is to begin a session, the other side asks for one."""
        if self.is_dialer:
            self._on_news()
        elif not self._nudged and not self._ended.done():
            self._nudged = True  # until the next session
            self._nudging = asyncio.create_task(self._nudge())

    async def _nudge(self) -> None:
        with suppress(websockets().exceptions.ConnectionClosed):
            await self._connection.send(NEWS)
            if not self.is_busy:
                self._doubt()

    def miss(self, scopes: set[str] | None) -> None:
        """Note scopes that changed while a session is held; None: any of them may have."""
        self.missed = None if self.missed is None or scopes is None else self.missed | scopes

    async def _hold(self, talk: _Talk) -> None:
        """Hold a session to its end."""
        failed: BaseException | None = None
        clock = asyncio.get_running_loop().time
        began = clock()
        sender = asyncio.create_task(self._send(talk))
        self._doubt()
        try:
            await self._watch(sender)
            if not sender.done() and not talk.session.finished:
                raise self.error or ConnectionFailed("the connection was closed")
            await sender
        except websockets().exceptions.ConnectionClosed as closed:
            await asyncio.wait({self._ended}, timeout=CLOSE_SECONDS_MAX)  # what the peer said before may tell more
            failed = self.error or closed
        except Exception as error:
            failed = error
        finally:
            self._believe()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            with suppress(FieldsyncError):  # of a file that was closed, or damaged: it has been told
                await talk.work(talk.session.close)
            talk.session.report.seconds = clock() - began
            if talk.session.met is not None:
                self.known = Known.after(talk.session.met, is_dialer=self.is_dialer)
            self._talk = None
            self._is_failed = failed is not None  # and no other one is begun: the line ends
            talk.over.set()
        if isinstance(failed, FieldsyncError) and not self._ended.done():
            await self._refuse(failed)
        if self._on_over is not None:
            await self._on_over(self, talk.session, failed)
        if failed is not None:
            raise failed

    async def _watch(self, sender: asyncio.Task[None]) -> None:
        """Wait until all is sent, or the connection ends; TimeoutError where nothing moves, or for too long."""
        clock = asyncio.get_running_loop().time
        end = clock() + SESSION_SECONDS_MAX
        while not (sender.done() or self._ended.done()):
            moved = self._moved
            await asyncio.wait({sender, self._ended}, timeout=self._idle_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not (sender.done() or self._ended.done()):
                if self._moved == moved:
                    raise TimeoutError(f"nothing has come for {self._idle_seconds:g} s")
                if clock() > end:
                    raise TimeoutError(f"a session of more than {SESSION_SECONDS_MAX} s")

    async def _send(self, talk: _Talk) -> None:
        session = talk.session
        while True:
            was_finished = session.finished  # before the frame is asked for: the end itself may queue some
            frame = await talk.work(session.next_frame)
            if frame is not None:
                self._unanswered += len(frame) + FRAME_COST_BYTES
                await self._connection.send(frame)
                self._moved += 1
            elif was_finished:
                if not session.report.complete:
                    await self.close()  # enough for now; the other side has to wait no longer
                return
            elif not session.finished:
                await talk.wake.wait()
                talk.wake.clear()

    async def _refuse(self, error: FieldsyncError) -> None:
        """Best effort: the link may be gone."""
        with suppress(Exception):  # the error that matters is on its way already
            async with asyncio.timeout(1):
                await self._connection.send(refusal(error))

    # --- whether the peer is there ---

    def _doubt(self) -> None:
        """The peer has something to say, from now on: where nothing comes, see whether it is there."""
        self._believe()
        self._doubting = asyncio.create_task(self._ask())

    def _believe(self) -> None:
        if self._doubting is not None:
            self._doubting.cancel()

    async def _ask(self) -> None:
        """Ask a peer that keeps quiet for an answer, once, or as long as a session is held: a cut may be silent.

        Not one that was sent much: it may be at work, and an answer waits behind all that. What is less it reads at
        once, pings too, however long it is at work (wire.patient).
        """
        while True:
            came = self._came
            await asyncio.sleep(QUIET_SECONDS)
            is_quiet = self._came == came and not self._connection.untaken  # and it is not this side that is at work
            if is_quiet and self._unanswered <= QUIET_BYTES_MAX:
                await self.probe(PING_SECONDS)
            if not self.is_busy:
                return

    async def probe(self, seconds: float) -> None:
        """Close the connection unless the peer answers in time: after a sleep it may be there in name only."""
        came = self._came
        try:
            async with asyncio.timeout(seconds):
                await self._ping()
        except TimeoutError:
            if self._came == came and not self._connection.untaken:  # else the answer waits behind other messages
                await self.close(1001, "no answer")

    async def _ping(self) -> None:
        with suppress(websockets().exceptions.ConnectionClosed):
            await (await self._connection.ping())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection; a session that is being held is cut. Soon, though the peer should read nothing."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX + 1):
                await self._connection.close(code, reason)
        except TimeoutError:  # it waits for room in a buffer that nobody empties
            self._connection.transport.abort()


class _Pace:
    """So many at once, and then one after each pause."""

    def __init__(self, burst: int, pause_seconds: float) -> None:
        self._pause = pause_seconds
        self._lead = burst * pause_seconds
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until one more may begin."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._lead) + self._pause
        if self._next > now:
            await pause(self._next - now)
