"""A server that people operate: its health and metrics on a page for this machine, logs of one line each, a clean end.

The page is plain HTTP on a loopback address: GET /healthz and GET /metrics, and nothing else. It tells numbers, and no
names of scopes, records or devices; and it answers only who asks for it by a loopback address, or as localhost.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fieldsync.errors import ConnectionFailed, FieldsyncError, IdentityError, SyncError
from fieldsync.limits import HEALTHY_SECONDS, TIDY_SECONDS
from fieldsync.network.background import Background
from fieldsync.network.door import Stopped
from fieldsync.network.metrics import CONTENT_TYPE, Metric, one, render
from fieldsync.network.server import Server
from fieldsync.network.wire import bind, check_loopback, websockets
from fieldsync.trust.desk import Desk
from fieldsync.trust.membership import membership_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.replica import Replica
    from fieldsync.trust.identity import Identity

log = logging.getLogger("fieldsync")


class Hub:
    """Serves a replica to peers, and a page to its operator, until closed."""

    def __init__(
        self,
        replica: Replica,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        identity: Identity | None = None,
        page: tuple[str, int] | None = None,
        admit: tuple[str, int] | None = None,
    ) -> None:
        """page: the loopback address and port of the operator's page; port 0 takes a free one, none if None.

        admit: the address and port on which new devices enrol.
        """
        if admit is not None and identity is None:
            raise IdentityError("devices are admitted by a hub with an identity")
        self._replica = replica
        self._page = page
        self._desk: Desk | None = None
        self._is_closing = False
        if page is not None:
            check_loopback(page[0])
        self.server = Server(replica, host, port, identity=identity)
        try:
            if admit is not None and identity is not None:
                self._desk = Desk(membership_of(replica, identity), *admit)
            self._background = Background("fieldsync-hub", self._live)
        except OSError as error:
            self._close(0)
            raise ConnectionFailed(f"cannot serve beside {self.server.url}: {error}") from None
        except BaseException:
            self._close(0)
            raise

    @property
    def url(self) -> str:
        """The address to sync with."""
        return self.server.url

    @property
    def page_url(self) -> str | None:
        """The address of the operator's page."""
        return None if self._page is None else f"http://{self._page[0]}:{self._page[1]}"

    @property
    def admit_port(self) -> int | None:
        """On which devices enrol, if they may."""
        return self._desk.port if self._desk is not None else None

    async def _live(self, background: Background) -> None:
        tidying = asyncio.create_task(self._tidy())
        try:
            async with AsyncExitStack() as stack:
                if self._page is not None:
                    server = await stack.enter_async_context(self._show(*self._page))
                    self._page = self._page[0], server.sockets[0].getsockname()[1]
                background.ready()
                await background.stop.wait()
        finally:
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)

    def _show(self, host: str, port: int) -> Any:
        return websockets().asyncio.server.serve(
            self._hang_up, sock=bind(host, port), process_request=self._answer, max_size=1, open_timeout=5
        )

    async def _tidy(self) -> None:
        """Trim now and then, though no session ends."""
        while True:
            try:
                await asyncio.to_thread(self._replica.tidy)
            except FieldsyncError as error:
                log.warning("trimming failed", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(TIDY_SECONDS)

    async def _hang_up(self, connection: Any) -> None:
        """Nobody talks WebSocket to a page."""

    async def _answer(self, connection: Any, request: Any) -> Any:
        pages: dict[str, Callable[[], tuple[http.HTTPStatus, str]]] = {
            "/healthz": self.health,
            "/metrics": lambda: (http.HTTPStatus.OK, render(self.metrics())),
        }
        if not _is_local(request.headers.get_all("Host")):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "this page is for this machine\n")
        page = pages.get(request.path.partition("?")[0])
        if page is None:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is /healthz and /metrics\n")
        status, text = await asyncio.to_thread(page)
        response = connection.respond(status, text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    def health(self) -> tuple[http.HTTPStatus, str]:
        """Whether the server answers and the file can be read; 503 and the reason where not, or when it is ending."""
        try:
            if self._is_closing:
                raise ConnectionFailed("the hub is ending")
            self.server.check(HEALTHY_SECONDS)
            with self._replica.store.reading() as reader:
                reader.meta("replica")
        except (FieldsyncError, TimeoutError) as error:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, f"{error or type(error).__name__}\n"
        return http.HTTPStatus.OK, "ok\n"

    def metrics(self) -> list[Metric]:
        """All numbers there are."""
        listener = self.server.listener
        counts = dict(listener.counts)
        with self._replica.store.reading() as reader:
            scopes = len(reader.scopes())

        def total(name: str, help: str, label: str, **values: str) -> Metric:  # noqa: A002 - the format's word
            numbers = {value: float(counts.get(key, 0)) for value, key in values.items()}
            return Metric(f"fieldsync_{name}_total", "counter", help, numbers, label)

        return [
            one("fieldsync_connections", "gauge", "Connections that are open.", listener.connections),
            one("fieldsync_sessions", "gauge", "Sessions that are being held.", listener.sessions),
            one("fieldsync_scopes", "gauge", "Scopes that are held.", scopes),
            one("fieldsync_file_bytes", "gauge", "Bytes of the database and its log.", self._replica.store.size()),
            total(
                "connects",
                "Connections since the start.",
                "outcome",
                accepted="connections",
                refused="connections_refused",
            ),
            total(
                "syncs",
                "Sessions since the start.",
                "outcome",
                complete="sessions_complete",
                stopped="sessions_stopped",
                failed="sessions_failed",
                refused="sessions_refused",
                cut="sessions_cut",
            ),
            Metric(
                "fieldsync_handshakes_failed_total",
                "counter",
                "Connections that ended before TLS and WebSocket were agreed on, at both ports.",
                {str(reason): self._stopped(reason) for reason in Stopped},
                "reason",
            ),
            total("bytes", "Bytes of frames.", "direction", received="bytes_received", sent="bytes_sent"),
            total(
                "changes", "Changes that were synced.", "direction", received="changes_received", sent="changes_sent"
            ),
            one(
                "fieldsync_sync_seconds_total",
                "counter",
                "Seconds of all sessions.",
                counts.get("milliseconds", 0) / 1000,
            ),
        ]

    def _stopped(self, reason: Stopped) -> float:
        doors = (self.server.listener.door, self._desk)
        return sum(door.stopped[reason] for door in doors if door is not None)

    def close(self, grace_seconds: float = 0) -> None:
        """Begin no more sessions, give those that are held so many seconds to end, and stop."""
        self._is_closing = True
        self._close(grace_seconds)
        self._background.close()

    def _close(self, grace_seconds: float) -> None:
        if self._desk is not None:
            self._desk.close()
        self.server.close(grace_seconds)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_local(hosts: list[str]) -> bool:
    """Whether a request asks for this machine; one of a web page that had its own name point here does not."""
    try:
        check_loopback(urlsplit(f"//{hosts[0]}").hostname or "")
    except (SyncError, ValueError, IndexError):
        return False
    return True


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and what a record has of `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
