"""Connections: which addresses may be dialled and served, with which certificates, and the settings of WebSocket."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from fieldsync.clock import now_ms
from fieldsync.errors import (
    ConnectionFailed,
    FieldsyncError,
    MissingDependency,
    ProtocolError,
    StoreError,
    SyncError,
    VersionMismatch,
)
from fieldsync.limits import (
    CLOSE_SECONDS_MAX,
    CONNECT_SECONDS_MAX,
    FRAME_BYTES_MAX,
    FRAME_COST_BYTES,
    IDLE_SECONDS_MAX,
    PING_SECONDS,
    PONGS_BYTES_MAX,
    UNTAKEN_BYTES_MAX,
)
from fieldsync.trust.rights import Reason

if TYPE_CHECKING:
    from fieldsync.replica import Replica
    from fieldsync.trust.identity import Identity, Peer
    from fieldsync.trust.rights import Trust

CERTIFICATE_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL
CONTROL_OPCODE = 8  # frames with this opcode or a higher one are no part of any message (RFC 6455, 5.2)
PING_OPCODE = 9


class Address(NamedTuple):
    """A WebSocket address in its parts."""

    host: str
    port: int | None
    is_secure: bool


def websockets() -> Any:
    """The package, imported late; MissingDependency."""
    try:
        import websockets.asyncio.client
        import websockets.asyncio.server
        import websockets.exceptions
    except ImportError:
        raise MissingDependency("syncing over a network needs the package websockets: pip install websockets") from None
    return websockets


def link_errors() -> tuple[type[Exception], ...]:
    """What says that a connection failed or was cut, and not that anybody did wrong."""
    return (OSError, TimeoutError, websockets().exceptions.WebSocketException)


def local_addresses() -> list[str]:
    """The addresses under which other machines may reach this one now. They change with its networks."""
    import ifaddr  # which zeroconf brings

    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host, scope = (ip.ip, 0) if isinstance(ip.ip, str) else (ip.ip[0], adapter.index or 0)
            if not ipaddress.ip_address(host).is_loopback and _is_usable(host, scope):
                found.append(host)
    return found


def _is_usable(host: str, scope: int) -> bool:
    """Whether an address can be bound to: one of IPv6 is there for a second or two before it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0, 0, scope) if ":" in host else (host, 0))
        except OSError:
            return False
    return True


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; "" is every address of this machine, of IPv6 and IPv4 with one port. OSError."""
    if host:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=100)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
    return socket.create_server(("", port), backlog=100)


def failures() -> tuple[type[Exception], ...]:
    """What may end one connection and must end nothing else."""
    return (FieldsyncError, *link_errors())


def code_of(error: BaseException) -> str:
    """Why a connection was not made or ended, for programs: its own code, or one of trust.Reason."""
    if isinstance(error, FieldsyncError) and error.code:
        return error.code
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Reason], ...] = (
        (VersionMismatch, Reason.VERSION),
        (ProtocolError, Reason.NOT_ALLOWED),
        (StoreError, Reason.FILE),
        ((ConnectionFailed, websockets().exceptions.ConnectionClosed), Reason.CUT),
        (link_errors(), Reason.UNREACHABLE),
    )
    return next((str(code) for kind, code in kinds if isinstance(error, kind)), str(Reason.FAILED))


def check_loopback(host: str) -> None:
    """SyncError unless a host is this machine: without TLS nothing may leave it."""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise SyncError(f"{host!r} is not a loopback address, and without TLS nothing may leave this machine")


def parse(address: str) -> Address:
    """The parts of an address that can be dialled; SyncError if it is none."""
    try:
        parts = urlsplit(address)
        if parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            return Address(parts.hostname, parts.port, parts.scheme == "wss")
    except ValueError:
        pass
    raise SyncError(f'{address!r} is not an address such as "wss://hub.example.org:8765"')


def check_address(address: str, identity: Identity | None) -> None:
    """SyncError unless an address may be dialled by a device of that identity: with TLS; without either, here only."""
    parts = parse(address)
    if not parts.is_secure:
        check_loopback(parts.host)
        if identity is not None:
            raise SyncError(f"{address}: who answers without TLS proves nothing; with an identity it takes wss://")
    elif identity is None:
        raise SyncError(f"{address}: TLS needs an identity: enroll this device, and pass identity=")


def settings() -> dict[str, Any]:
    """What both sides ask of WebSocket: no compression, bounded frames, pings. `patient` bounds what waits."""
    return {
        "compression": None,
        "max_size": FRAME_BYTES_MAX,
        "max_queue": None,
        "ping_interval": PING_SECONDS,
        "ping_timeout": IDLE_SECONDS_MAX,
        "close_timeout": CLOSE_SECONDS_MAX,
    }


def patient(base: Any) -> Any:
    """A class of connections of which what waits is bounded by its bytes, to be read and to be sent.

    websockets bounds what waits by frames: a few small ones would keep a ping from being read, and who is at work
    would be taken for dead. A message that comes in pieces ends the connection: empty ones are of no size, and take
    memory. So does a peer that asks for more answers to pings than it reads: pongs go to the transport, without bound.
    """

    class Patient(base):  # type: ignore[misc]
        untaken = 0  # bytes of messages that have come, and that nobody has taken
        is_held_up = False  # no more is read before some are taken
        unsent = 0  # bytes of pongs that wait behind what is not sent

        def process_event(self, event: Any) -> None:
            opcode = getattr(event, "opcode", None)
            if opcode is not None and opcode < CONTROL_OPCODE:
                self.untaken += len(event.data) + FRAME_COST_BYTES
                if not event.fin:
                    self.transport.abort()
                elif self.untaken > UNTAKEN_BYTES_MAX and not self.is_held_up:
                    self.is_held_up = True
                    self.transport.pause_reading()
            elif self.paused and opcode == PING_OPCODE:
                self.unsent += len(event.data) + FRAME_COST_BYTES
                if self.unsent > PONGS_BYTES_MAX:
                    self.transport.abort()
            super().process_event(event)

        async def recv(self, decode: bool | None = None) -> Any:
            message = await super().recv(decode)
            self.untaken -= len(message if isinstance(message, bytes) else message.encode()) + FRAME_COST_BYTES
            if self.is_held_up and self.untaken <= UNTAKEN_BYTES_MAX // 2:
                self.is_held_up = False
                self.transport.resume_reading()
            return message

        def resume_writing(self) -> None:
            self.unsent = 0
            super().resume_writing()

    return Patient


async def dial(address: str, identity: Identity | None = None, *, seconds: float = CONNECT_SECONDS_MAX) -> Any:
    """Connect, with TLS for wss://; SyncError where that may not be, or OSError and its like where it fails."""
    check_address(address, identity)
    parts = parse(address)
    secure: dict[str, Any] = {}
    if identity is not None and parts.is_secure:
        secure = {"ssl": identity.client_context(), "server_hostname": parts.host.partition("%")[0]}
    options = settings() | secure | {"create_connection": patient(websockets().asyncio.client.ClientConnection)}
    try:
        return await _connect()(address, **options, open_timeout=min(seconds, CONNECT_SECONDS_MAX), proxy=None)
    except ssl.SSLCertVerificationError as error:
        is_old = error.verify_code == CERTIFICATE_EXPIRED
        what = "has run out, or this clock is ahead" if is_old else "is not one of this device's organisation"
        code = Reason.CERTIFICATE_EXPIRED if is_old else Reason.OTHER_ORGANISATION
        raise SyncError(f"{address}: the certificate of who answers {what}", code=code) from None
    except websockets().exceptions.InvalidMessage:
        raise _hung_up(identity) from None


def _hung_up(identity: Identity | None) -> ConnectionFailed:
    """What it may mean that a connection ended before WebSocket's answer: the peer looks at certificates after TLS."""
    if identity is None:
        return ConnectionFailed("no answer of a server; does it want TLS, wss://?", code=Reason.UNREACHABLE)
    from fieldsync.trust import certificates

    if certificates.left_ms(identity.chain[0], now_ms()) < 0:
        what = "this device's certificate has run out, or its clock is ahead; set the clock, or enrol it anew"
        return ConnectionFailed(f"refused: {what}", code=Reason.CERTIFICATE_EXPIRED)
    what = "if that goes on, this device's certificate has run out there, or is none there"
    return ConnectionFailed(f"cut before any answer; {what}")


def _connect() -> Any:
    """What connects to the address that it is given, and to none that who answers there names in its place."""

    class Direct(websockets().asyncio.client.connect):  # type: ignore[misc]
        def process_redirect(self, exc: Exception) -> Exception:
            return exc

    return Direct


def peer_of(connection: Any, identity: Identity | None) -> Peer | None:
    """Who is at the other end; None where there is no TLS. IdentityError."""
    encrypted = connection.transport.get_extra_info("ssl_object")
    if encrypted is None or identity is None:
        return None
    return identity.peer_of(encrypted.getpeercert(binary_form=True))


def trust_of(replica: Replica, identity: Identity | None, peer: Peer | None) -> Trust | None:
    """What a peer may do in a session; None where nobody proves who he is. IdentityError where it may hold none."""
    if identity is None or peer is None:
        return None
    from fieldsync.trust.membership import membership_of

    return membership_of(replica, identity).trust(peer)
