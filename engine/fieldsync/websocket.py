"""Sessions over WebSocket: a server in a thread of its own, and a client that blocks. Loopback only: no TLS yet.

One frame of a session is one binary message. Each side sends and receives at once, so full buffers never deadlock; the
database work runs in threads, under a lock a session.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fieldsync.errors import ConnectionFailed, FieldsyncError, MissingDependency, ProtocolError, SyncError
from fieldsync.limits import (
    CONNECT_SECONDS_MAX,
    FRAME_BYTES_MAX,
    IDLE_SECONDS_MAX,
    SERVER_SESSIONS_MAX,
    SESSION_SECONDS_MAX,
)
from fieldsync.session import Session, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.replica import Replica
    from fieldsync.report import Report

QUEUE_FRAMES_MAX = 4  # frames buffered in each direction of a connection


def _websockets() -> Any:
    try:
        import websockets.asyncio.client
        import websockets.asyncio.server
        import websockets.exceptions
    except ImportError:
        raise MissingDependency("syncing over a network needs the package websockets: pip install websockets") from None
    return websockets


def check_loopback(host: str) -> None:
    """SyncError unless a host is this machine: without TLS nothing may leave it."""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise SyncError(f"{host!r} is not a loopback address, and without TLS nothing may leave this machine")


class _Link:
    """Carries one session over one connection."""

    def __init__(
        self,
        session: Session,
        connection: Any,
        idle_seconds: float,
        progress: Callable[[Report], object] | None = None,
    ) -> None:
        self._progress = progress
        self._session = session
        self._connection = connection
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._wake = asyncio.Event()
        self._sent = 0

    async def run(self) -> None:
        """Hold the conversation to its end; errors of either side are raised, after the peer was told."""
        sender = asyncio.create_task(self._send())
        receiver = asyncio.create_task(self._receive())
        try:
            await asyncio.wait({sender, receiver}, timeout=SESSION_SECONDS_MAX, return_when=asyncio.FIRST_EXCEPTION)
            if not (sender.done() or receiver.done()):
                raise TimeoutError(f"a session of more than {SESSION_SECONDS_MAX} s")
            for task in (receiver, sender):
                if task.done():
                    task.result()
        except FieldsyncError as error:
            await self._refuse(error)
            raise
        finally:
            for task in (sender, receiver):
                task.cancel()
            await asyncio.gather(sender, receiver, return_exceptions=True)
            await asyncio.to_thread(self._locked, self._session.close)

    def _locked(self, call: Any, *arguments: Any) -> Any:
        with self._lock:
            return call(*arguments)

    async def _send(self) -> None:
        while True:
            was_finished = self._session.finished  # before the frame is asked for: the end itself may queue some
            frame = await asyncio.to_thread(self._locked, self._session.next_frame)
            if frame is not None:
                await self._connection.send(frame)
                self._sent += 1
            elif was_finished:
                if not self._session.report.complete:
                    await self._connection.close()  # enough for now; the other side has to wait no longer
                return
            elif self._session.finished:
                continue
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _receive(self) -> None:
        while not self._session.finished:
            frame = await self._next()
            if frame is None:
                break
            if not isinstance(frame, bytes):
                raise ProtocolError("a text message where frames are binary")
            await asyncio.to_thread(self._locked, self._session.receive, frame)
            self._wake.set()
            if self._progress is not None:
                self._progress(self._session.report)
        self._wake.set()

    async def _next(self) -> Any:
        """The next message; None if the peer closed after the end. TimeoutError if nothing moves either way."""
        while True:
            sent = self._sent
            try:
                return await asyncio.wait_for(self._connection.recv(), self._idle_seconds)
            except TimeoutError:
                if self._sent == sent:
                    raise
            except _websockets().exceptions.ConnectionClosed:
                if self._session.finished:
                    return None
                raise

    async def _refuse(self, error: FieldsyncError) -> None:
        """Best effort: the link may be gone."""
        with suppress(Exception):  # the error that matters is on its way already
            await asyncio.wait_for(self._connection.send(refusal(error)), 1)


def connect(
    replica: Replica,
    address: str,
    *,
    scopes: list[str] | None = None,
    timeout: float = IDLE_SECONDS_MAX,
    progress: Callable[[Report], object] | None = None,
    enough: Callable[[Report], bool] | None = None,
) -> Report:
    """Sync with a server. ConnectionFailed where there is no link, or it was cut; what had landed stays."""
    _check_address(address)
    _websockets()
    outcome: list[Report | BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(_converse(replica, address, scopes, timeout, progress, enough)))
        except BaseException as error:
            outcome.append(error)

    # a thread of its own: the caller may be inside an event loop
    thread = threading.Thread(target=run, name="fieldsync-sync")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _check_address(address: str) -> None:
    """SyncError unless an address can be dialled."""
    try:
        parts = urlsplit(address)
        is_valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise SyncError(f'{address!r} is not an address such as "ws://127.0.0.1:8765"')
    if parts.scheme == "wss":
        raise SyncError("TLS is not supported yet; use ws:// on a loopback address")
    check_loopback(parts.hostname or "")


async def _converse(
    replica: Replica,
    address: str,
    scopes: list[str] | None,
    timeout: float,
    progress: Callable[[Report], object] | None,
    enough: Callable[[Report], bool] | None,
) -> Report:
    websockets = _websockets()
    began = time.perf_counter()
    session = await asyncio.to_thread(
        lambda: Session(replica, initiator=True, scopes=scopes, peer=address, enough=enough)
    )
    try:
        async with websockets.asyncio.client.connect(
            address,
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=QUEUE_FRAMES_MAX,
            open_timeout=min(timeout, CONNECT_SECONDS_MAX),
            proxy=None,
        ) as connection:
            await _Link(session, connection, timeout, progress).run()
    except (OSError, TimeoutError, websockets.exceptions.WebSocketException) as error:
        session.close()
        detail = str(error) or type(error).__name__
        raise ConnectionFailed(f"{address}: {detail}; what had landed is kept, sync again to go on") from None
    session.report.seconds = time.perf_counter() - began
    return session.report


class Server:
    """Serves sessions of one replica from a thread of its own until closed. Use as a context manager, or `close()`."""

    def __init__(self, replica: Replica, host: str = "127.0.0.1", port: int = 0) -> None:
        check_loopback(host)
        _websockets()
        self._replica = replica
        self._host = host
        self._port = port
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._open = 0
        self.sessions = 0  # completed
        self.last_error: str | None = None  # of the session that failed last
        self._thread = threading.Thread(target=self._main, name="fieldsync-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise ConnectionFailed(f"cannot serve on {host}:{port}: {self._error}") from None

    @property
    def url(self) -> str:
        """The address to sync with."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self._port}"

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        websockets = _websockets()
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with websockets.asyncio.server.serve(
            self._hold,
            self._host,
            self._port,
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=QUEUE_FRAMES_MAX,
            open_timeout=CONNECT_SECONDS_MAX,
            origins=[None],  # a web page in a browser is no device
        ) as server:
            self._port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _hold(self, connection: Any) -> None:
        """One session, from accept to close; its errors end it and nothing else."""
        websockets = _websockets()
        if self._open >= SERVER_SESSIONS_MAX:
            await connection.close(1013, "too many sessions; try again")
            return
        self._open += 1
        try:
            session = await asyncio.to_thread(lambda: Session(self._replica, initiator=False))
            await _Link(session, connection, IDLE_SECONDS_MAX).run()
            self.sessions += 1
        except (FieldsyncError, OSError, TimeoutError, websockets.exceptions.WebSocketException) as error:
            self.last_error = str(error) or type(error).__name__
        finally:
            self._open -= 1

    def close(self) -> None:
        """End all sessions and stop."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
