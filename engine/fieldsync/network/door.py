"""Who comes in before he has said who he is, and what waits unread of all who are in: both bounded, whatever they do.

Of connections that are not through the handshakes of TLS and WebSocket the oldest one goes when there are too many: who
means it is done long before. Of bytes that have come and not been taken, the connection that holds the most goes.
"""

from __future__ import annotations

import gc
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fieldsync.limits import HANDSHAKES_MAX, UNREAD_BYTES_MAX
from fieldsync.network.wire import patient, websockets

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL_OPCODE = 8  # frames with this opcode or a higher one are no part of any message (RFC 6455, 5.2)


class _Guest(socket.socket):
    """An accepted connection, which is noted until it is let in or ends."""

    leave: Callable[[], object] = staticmethod(lambda: None)

    def close(self) -> None:
        """End it, and forget it."""
        self.leave()
        super().close()


class Door(socket.socket):
    """A listening socket that knows who has come and is not in yet."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self.turned_away = 0
        self._outside: dict[int, _Guest] = {}  # by descriptor, the oldest first

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; where too many are outside, the one that has waited longest has to go."""
        plain, address = super().accept()
        guest = _Guest(fileno=plain.detach())
        number = guest.fileno()
        guest.leave = lambda: self._outside.pop(number, None)
        while len(self._outside) >= HANDSHAKES_MAX:
            self.turned_away += 1
            oldest = self._outside.pop(next(iter(self._outside)))
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its transport notices, and closes it
            if self.turned_away % (HANDSHAKES_MAX // 2) == 0:
                gc.collect()  # a handshake that failed is a cycle of objects, with buffers of some 300 KB
        self._outside[number] = guest
        return guest, address

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
            waiting = 0  # of whole frames, of messages that nobody has taken

            def data_received(self, data: bytes) -> None:
                self.begun += len(data)
                super().data_received(data)
                self.tell()

            def process_event(self, event: Any) -> None:
                self.begun = 0  # of the next frame too, if it came in the same read
                if getattr(event, "opcode", CONTROL_OPCODE) < CONTROL_OPCODE:
                    self.waiting += len(event.data)
                super().process_event(event)

            def tell(self) -> None:
                if not self.transport.is_closing():
                    unread.hold(self, self.begun + self.waiting)

            async def recv(self, decode: bool | None = None) -> Any:
                message = await super().recv(decode)
                self.waiting -= len(message if isinstance(message, bytes) else message.encode())
                self.tell()
                return message

            def connection_lost(self, exc: Exception | None) -> None:
                unread.forget(self)
                super().connection_lost(exc)

        return Counted
