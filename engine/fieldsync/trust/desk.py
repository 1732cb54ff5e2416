"""Where a hub admits devices: a port of its own, since who comes there has no certificate to show yet.

One request, one answer, over WebSocket and TLS; nothing else is served here. Anybody may come, so what they can hold is
bounded (network/door.py): of connections that are not through their handshakes, and of those that say nothing after
them, the oldest goes when there are too many, and each when its time is up.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from fieldsync.errors import ConnectionFailed, IdentityError
from fieldsync.limits import (
    CERTIFICATE_BYTES_MAX,
    CLOSE_SECONDS_MAX,
    ENROLMENT_SECONDS_MAX,
    ENROLMENTS_MAX,
    STATEMENT_BYTES_MAX,
)
from fieldsync.network.background import Background
from fieldsync.network.door import Door
from fieldsync.network.wire import bind, failures, link_errors, parse, patient, websockets
from fieldsync.trust import certificates, enrolment
from fieldsync.trust.identity import pinning_context
from fieldsync.trust.rights import Reason, tell
from fieldsync.trust.signing import id_of

if TYPE_CHECKING:
    from collections import Counter

    from fieldsync.network.door import Stopped
    from fieldsync.trust.enrolment import Invite
    from fieldsync.trust.membership import Membership

REQUEST_BYTES_MAX = 1 << 10
ANSWER_BYTES_MAX = 4 * CERTIFICATE_BYTES_MAX + 8 * STATEMENT_BYTES_MAX


class Desk:
    """Answers requests for enrolment until closed, from a thread of its own. Use as a context manager, or `close()`."""

    def __init__(self, membership: Membership, host: str = "", port: int = 0) -> None:
        """A port of 0 takes a free one. ConnectionFailed where it is taken, IdentityError where this is no hub."""
        if membership.identity.issuer is None:
            raise IdentityError("only a hub admits devices")
        self._membership = membership
        self._secure = membership.identity.enrolment_context()
        self._silent: dict[Any, None] = {}  # connections that have asked for nothing yet, the oldest first
        websockets()
        try:
            self._door = Door(bind(host, port), self._secure)
        except OSError as error:
            raise ConnectionFailed(f"cannot admit devices on {host}:{port}: {error}") from None
        self.port: int = self._door.getsockname()[1]
        self._background = Background("fieldsync-desk", self._live)

    async def _live(self, background: Background) -> None:
        async with websockets().asyncio.server.serve(
            self._hold,
            sock=self._door,
            create_connection=patient(websockets().asyncio.server.ServerConnection),
            ssl=self._secure,
            ssl_handshake_timeout=ENROLMENT_SECONDS_MAX,
            open_timeout=ENROLMENT_SECONDS_MAX,
            close_timeout=CLOSE_SECONDS_MAX,
            max_size=REQUEST_BYTES_MAX,
            max_queue=1,
            compression=None,
            ping_interval=None,
            origins=[None],  # a web page in a browser is no device
        ):
            background.ready()
            await background.stop.wait()
            self._door.shut()

    async def _hold(self, connection: Any) -> None:
        """One request; its errors end it and nothing else."""
        self._door.let_in(connection)
        while len(self._silent) >= ENROLMENTS_MAX:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.transport.abort()
        self._silent[connection] = None
        try:
            async with asyncio.timeout(ENROLMENT_SECONDS_MAX):
                request = await connection.recv()
                self._silent.pop(connection, None)
                if isinstance(request, bytes) and enrolment.is_request(request):
                    await connection.send(await asyncio.to_thread(enrolment.answer, self._membership, request))
                else:
                    await connection.close(1008, "devices enrol at this port, and sync at the hub's other one")
        except failures():
            pass
        finally:
            self._silent.pop(connection, None)

    @property
    def stopped(self) -> Counter[Stopped]:
        """Connections whose handshakes failed, by what was wrong."""
        return self._door.stopped

    def close(self) -> None:
        """Answer nobody any more."""
        self._background.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(invited: Invite, request: bytes) -> bytes:
    """Carry a request to the hub of an invitation, after a look at its key. IdentityError, ConnectionFailed."""
    try:
        return _ask(invited, request)
    except websockets().exceptions.WebSocketException as error:
        hint = "is it the port of `fieldsync serve --admit`?"
        raise ConnectionFailed(f"{invited.address}: {error}; {hint} If so, try again") from None
    except link_errors() as error:
        raise ConnectionFailed(f"{invited.address}: {str(error) or type(error).__name__}; try again") from None


def _ask(invited: Invite, request: bytes) -> bytes:
    import websockets.sync.client

    place = parse(invited.address)
    options: Any = {"compression": None, "open_timeout": ENROLMENT_SECONDS_MAX, "max_size": ANSWER_BYTES_MAX}
    with (
        socket.create_connection((place.host, place.port or 443), ENROLMENT_SECONDS_MAX) as plain,
        pinning_context().wrap_socket(plain, server_hostname=place.host) as tls,
    ):
        shown = certificates.decode(tls.getpeercert(binary_form=True) or b"")
        if id_of(certificates.public_key(shown)) != invited.hub:  # before anything is said
            raise IdentityError(f"{invited.address}: {tell(Reason.WRONG_HUB)}", code=Reason.WRONG_HUB)
        uri = invited.address.replace("wss://", "ws://", 1)
        with websockets.sync.client.connect(uri, sock=tls, proxy=None, **options) as connection:
            connection.send(request)
            found = connection.recv(ENROLMENT_SECONDS_MAX)
    if not isinstance(found, bytes):
        raise IdentityError("that is no answer to a request")
    return found
