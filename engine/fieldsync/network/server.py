"""Serving a replica to peers: connections in, sessions held, news told. In a thread of its own, or in a given loop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fieldsync.errors import ConnectionFailed
from fieldsync.limits import (
    CONNECT_SECONDS_MAX,
    IDLE_SECONDS_MAX,
    SERVER_CONNECTIONS_MAX,
    SERVER_SESSIONS_MAX,
    SESSION_WAIT_SECONDS,
)
from fieldsync.network.background import Background
from fieldsync.network.door import Door, Unread
from fieldsync.network.line import TRY_LATER, Line
from fieldsync.network.lines import REPLACED, Lines
from fieldsync.network.logs import Sparing
from fieldsync.network.wire import bind, check_loopback, code_of, failures, link_errors, peer_of, settings, websockets
from fieldsync.syncing.session import Session
from fieldsync.trust.rights import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report
    from fieldsync.trust.identity import Identity

log = logging.getLogger("fieldsync")
COUNTED = ("bytes_received", "bytes_sent", "changes_received", "changes_sent")  # of each report


class Listener:
    """Accepts connections in the running event loop, and holds what sessions come over them."""

    def __init__(self, replica: Replica, lines: Lines, identity: Identity | None = None) -> None:
        self.lines = lines
        self.connections = 0  # open now
        self.sessions = 0  # held now
        self.counts: Counter[str] = Counter()  # since the start, by what happened
        self.last_error: str | None = None
        self.unread = Unread()
        self.door: Door | None = None
        self.on_line: Callable[[Line, bool], object] = lambda _line, _is_open: None
        self.on_session: Callable[[Line, BaseException | None], object] = lambda _line, _error: None
        self._replica = replica
        self._identity = identity
        self._failed = Sparing()
        self._is_stopping = False
        self._room = asyncio.Semaphore(SERVER_SESSIONS_MAX)
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen until the block ends; gives the port. Without an identity on loopback addresses only."""
        secure: dict[str, Any] = {}
        if self._identity is None:
            check_loopback(host)
        else:
            secure = {"ssl": self._identity.server_context(), "ssl_handshake_timeout": CONNECT_SECONDS_MAX}
        self.door = Door(bind(host, port), secure.get("ssl"))
        async with websockets().asyncio.server.serve(
            self._hold,
            sock=self.door,
            create_connection=self.unread.connections(),
            **settings(),
            open_timeout=CONNECT_SECONDS_MAX,
            origins=[None],  # a web page in a browser is no device
            **secure,
        ) as server:
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                self._is_stopping = True
                await self.lines.close()
                self.door.shut()

    async def drain(self, seconds: float) -> None:
        """Begin no more sessions, and wait so long for those that are held."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self.counts["sessions_cut"] += self.sessions

    async def _hold(self, connection: Any) -> None:
        """One connection, from accept to close; its errors end it and nothing else."""
        assert self.door is not None
        self.door.let_in(connection)
        if self.connections >= SERVER_CONNECTIONS_MAX or self._is_stopping:
            self.counts["connections_refused"] += 1
            await connection.close(TRY_LATER, "too many connections; try again")
            return
        self.connections += 1
        self.counts["connections"] += 1
        who = _name(connection)
        try:
            peer = peer_of(connection, self._identity)
            who = f"{peer.name}, {who}" if peer is not None else who
            line = Line(connection, accept=self._begin, on_over=self._over, idle_seconds=IDLE_SECONDS_MAX, peer=peer)
            if await self.lines.add(line):
                await self._run(line)
        except failures() as error:
            if connection.close_code != REPLACED:  # which is no failure: they have another one
                self._warn(who, error)
        finally:
            self.connections -= 1

    def _warn(self, who: str, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        is_cut = isinstance(error, (ConnectionFailed, *link_errors()))
        then = "; what had landed is kept, and the peer dials again by itself" if is_cut else ""
        fields = {"address": who, "error": self.last_error, "code": code_of(error)}
        self._failed.warn(f"connection failed: {who}: {self.last_error}{then}", **fields)

    async def _run(self, line: Line) -> None:
        self.on_line(line, True)
        try:
            await line.run()
        finally:
            self.lines.remove(line)
            self.on_line(line, False)

    async def _begin(self, line: Line) -> Session | None:
        if not await self._has_room():
            self.counts["sessions_refused"] += 1
            return None
        self.sessions += 1
        self._idle.clear()
        try:
            return await asyncio.to_thread(self._session, line)
        except BaseException:
            self._end()
            raise

    def _session(self, line: Line) -> Session:
        return Session(self._replica, initiator=False, trust=self.lines.prepare(line, self._identity))

    async def _has_room(self) -> bool:
        """Take a place for a session, which may have to be waited for: news make many begin at once."""
        try:
            async with asyncio.timeout(SESSION_WAIT_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            return False
        if self._is_stopping:
            self._room.release()
        return not self._is_stopping

    def _end(self) -> None:
        self._room.release()
        self.sessions -= 1
        if not self.sessions:
            self._idle.set()

    async def _over(self, line: Line, session: Session, error: BaseException | None) -> None:
        self._end()
        self._count(line, session.report, error)
        self.on_session(line, error)
        if error is None:
            await self.lines.catch_up(line, session.report)

    def _count(self, line: Line, report: Report, error: BaseException | None) -> None:
        outcome = "failed" if error is not None else "complete" if report.complete else "stopped"
        self.counts[f"sessions_{outcome}"] += 1
        self.counts["milliseconds"] += round(report.seconds * 1000)
        fields = {name: getattr(report, name) for name in COUNTED}
        self.counts.update(fields)
        codes = {refused.code for refused in report.refusals} | ({str(Reason.EXPIRED)} if line.lapsed else set())
        fields |= {"peer": line.peer.device if line.peer is not None else None, "outcome": outcome}
        fields |= {"codes": sorted(codes)} if codes else {}
        log.info("session", extra={"fields": fields | {"seconds": round(report.seconds, 3)}})


def _name(connection: Any) -> str:
    """Of an address; it is forgotten where the connection is gone by now."""
    host, port = (connection.remote_address or ("an unknown address", 0))[:2]
    return f"{host.removeprefix('::ffff:')} port {port}" if port else host


class Server:
    """Serves sessions of one replica from a thread of its own until closed. Use as a context manager, or `close()`."""

    def __init__(
        self, replica: Replica, host: str = "127.0.0.1", port: int = 0, *, identity: Identity | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._identity = identity
        self._grace_seconds = 0.0
        self._lines = Lines(replica, identity.device if identity is not None else None)
        self.listener = Listener(replica, self._lines, identity)
        websockets()
        try:
            self._background = Background("fieldsync-server", self._live)
        except OSError as error:
            raise ConnectionFailed(f"cannot serve on {host}:{port}: {error}") from None

    @property
    def url(self) -> str:
        """The address to sync with."""
        host = f"[{self._host}]" if ":" in self._host else self._host or "localhost"
        return f"{'ws' if self._identity is None else 'wss'}://{host}:{self._port}"

    @property
    def sessions(self) -> int:
        """How many were completed."""
        return self.listener.counts["sessions_complete"]

    @property
    def last_error(self) -> str | None:
        """Of the connection that failed last."""
        return self.listener.last_error

    async def _live(self, background: Background) -> None:
        spreading = asyncio.create_task(self._lines.spread())
        try:
            async with self.listener.listen(self._host, self._port) as self._port:
                background.ready()
                await background.stop.wait()
                await self.listener.drain(self._grace_seconds)
        finally:
            spreading.cancel()
            await asyncio.gather(spreading, return_exceptions=True)

    def check(self, seconds: float) -> None:
        """TimeoutError unless the server's loop answers in time, ClosedError where it has ended."""
        self._background.ask(asyncio.sleep(0), seconds)

    def close(self, grace_seconds: float = 0) -> None:
        """Begin no more sessions, give those that are held so many seconds to end, and stop."""
        self._grace_seconds = grace_seconds
        self._background.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
