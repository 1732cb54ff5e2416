"""Who comes in before he has said who he is, and what waits unread of all who are in: both bounded, whatever they do.

Of connections that are not through the handshakes of TLS and WebSocket the oldest one goes when there are too many: who
means it is done long before. Each that ends before it is through is counted by what was wrong, and logged, sparingly.
Of bytes that have come and not been taken, the connection that holds the most goes.
"""

from __future__ import annotations

import errno
import gc
import socket
import ssl
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fieldsync.limits import HANDSHAKES_MAX, UNREAD_BYTES_MAX
from fieldsync.network.logs import Sparing
from fieldsync.network.wire import CERTIFICATE_EXPIRED, patient, websockets

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopped(StrEnum):
    """What kept a connection from getting in: the values of a metric, and of a field in logs."""

    UNFINISHED = "unfinished"  # it ended, or its time was up
    CROWDED = "crowded"  # too many were at the door
    NO_TLS = "no-tls"  # or an older one than 1.3
    NO_CERTIFICATE = "no-certificate"
    OTHER_ORGANISATION = "other-organisation"  # a certificate that does not lead to the root
    CERTIFICATE_EXPIRED = "certificate-expired"
    REFUSED_US = "refused-us"  # it did not like the certificate that it was shown
    NO_WEBSOCKET = "no-websocket"  # what followed TLS was something else


class _Guest(socket.socket):
    """An accepted connection, which is noted until it is let in or ends."""

    stopped = Stopped.UNFINISHED
    leave: Callable[[], object] = staticmethod(lambda: None)

    def send_away(self) -> None:
        """Forget it, and have it end."""
        self.leave()
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)  # its transport notices, and closes it

    def close(self) -> None:
        """End it, and forget it."""
        self.leave()
        super().close()


_coming: ContextVar[_Guest] = ContextVar("_coming")  # of whom what the loop does for a connection is done


class _Handshake(ssl.SSLObject):
    """TLS of a guest, who is told what is wrong with it: asyncio keeps that to itself."""

    def do_handshake(self) -> None:
        """Go on with it, as far as bytes have come."""
        guest = _coming.get(None)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if guest is not None:
                guest.stopped = _what(error)
            raise
        if guest is not None:
            guest.stopped = Stopped.NO_WEBSOCKET  # until that is done, too


def _what(error: ssl.SSLError) -> Stopped:
    """What was wrong with a handshake of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        is_old = error.verify_code == CERTIFICATE_EXPIRED
        return Stopped.CERTIFICATE_EXPIRED if is_old else Stopped.OTHER_ORGANISATION
    reason = error.reason or ""
    if "DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return Stopped.NO_CERTIFICATE
    return Stopped.REFUSED_US if "ALERT" in reason else Stopped.NO_TLS


class Door(socket.socket):
    """A listening socket that knows who has come and is not in yet."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """context: of the TLS that is spoken there, to be told how its handshakes fail."""
        super().__init__(fileno=listening.detach())
        self.stopped: Counter[Stopped] = Counter()  # connections that did not get in
        self._outside: dict[int, _Guest] = {}  # by descriptor, the oldest first
        self._log = Sparing()
        if context is not None:
            context.sslobject_class = _Handshake

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; where too many are outside, the one that has waited longest has to go."""
        try:
            plain, address = super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._outside:
                raise
            self._turn_away()
            raise BlockingIOError from None  # once more, when the loop has closed that one
        guest = _Guest(fileno=plain.detach())
        number = guest.fileno()
        guest.leave = lambda: self._note(number, address)
        _coming.set(guest)  # the loop makes its task for this connection next, which runs in a copy of this context
        while len(self._outside) >= HANDSHAKES_MAX:
            self._turn_away()
        self._outside[number] = guest
        return guest, address

    def _turn_away(self) -> None:
        """Have the one who has waited longest go."""
        oldest = next(iter(self._outside.values()))
        oldest.stopped = Stopped.CROWDED
        oldest.send_away()
        if self.stopped[Stopped.CROWDED] % (HANDSHAKES_MAX // 2) == 0:
            gc.collect()  # a handshake that failed is a cycle of objects, with buffers of some 300 KB

    def shut(self) -> None:
        """Let nobody else in: who is outside goes, and does not hold up who closes a server."""
        for guest in list(self._outside.values()):
            guest.send_away()

    def _note(self, number: int, address: Any) -> None:
        """A guest goes; if he was not let in, say so."""
        guest = self._outside.pop(number, None)
        if guest is not None:
            self.stopped[guest.stopped] += 1
            host = str(address[0]).removeprefix("::ffff:")
            self._log.warn(f"handshake failed: {host}: {guest.stopped}", address=host, reason=str(guest.stopped))

    def let_in(self, connection: Any) -> None:
        """Both handshakes are done."""
        self._outside.pop(connection.transport.get_extra_info("socket").fileno(), None)


class Unread:
    """The bytes of all connections that have come and that nobody has taken."""

    def __init__(self) -> None:
        self.bytes = 0
        self.cut = 0  # connections that held too much
        self._held: dict[Any, int] = {}

    def hold(self, connection: Any, held: int) -> None:
        """Note what is held of a connection now; where all is too much, the one that holds the most goes."""
        self.bytes += held - self._held.get(connection, 0)
        self._held[connection] = held
        while self.bytes > UNREAD_BYTES_MAX:
            greedy = max(self._held, key=self._held.__getitem__)
            self.forget(greedy)
            self.cut += 1
            greedy.transport.abort()

    def forget(self, connection: Any) -> None:
        """A connection has ended."""
        self.bytes -= self._held.pop(connection, 0)

    def connections(self) -> Any:
        """The class of server connections that are counted here."""
        unread = self

        class Counted(patient(websockets().asyncio.server.ServerConnection)):  # type: ignore[misc]
            begun = 0  # bytes of a frame that is not whole yet

            def data_received(self, data: bytes) -> None:
                self.begun += len(data)
                super().data_received(data)
                self.tell()

            def process_event(self, event: Any) -> None:
                self.begun = 0  # of the next frame too, if it came in the same read
                super().process_event(event)

            def tell(self) -> None:
                if not self.transport.is_closing():
                    unread.hold(self, self.begun + self.untaken)

            async def recv(self, decode: bool | None = None) -> Any:
                message = await super().recv(decode)
                self.tell()
                return message

            def connection_lost(self, exc: Exception | None) -> None:
                unread.forget(self)
                super().connection_lost(exc)

        return Counted
