"""A link that exists in numbers only: what passes over it is real, and the seconds that it takes are computed.

Both ends are the whole stack but for its sockets: TLS with real certificates over memory, WebSocket's protocol without
I/O, and a session of the engine. Each message is cut into segments; a segment leaves when those before it have left, as
fast as the bandwidth allows and TCP's slow start (RFC 5681, an initial window by RFC 6928, no loss), and arrives a
latency later. Computing takes no time on this clock: it is measured apart.
"""

from __future__ import annotations

import heapq
import ssl
import time
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import USER_AGENT, Request, Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from fieldsync.limits import FRAME_BYTES_MAX
from fieldsync.network.wire import trust_of
from fieldsync.syncing.session import Session

if TYPE_CHECKING:
    from fieldsync.trust.identity import Identity

SEGMENT_BYTES = 1_360  # of payload: a mobile network's 1,400 without the headers of TCP and IPv4
WINDOW_SEGMENTS = 10
NAME = "hub.example.org"


class Link(NamedTuple):
    """What a link is like, the same in both directions."""

    round_trip_s: float
    bits_per_s: float


OFFICE = Link(round_trip_s=0.001, bits_per_s=1e9)


class Party(Protocol):
    """Who talks."""

    db: Any
    identity: Identity


class Cost(NamedTuple):
    """What a conversation took, from the first packet of TCP until both ends had ended the session."""

    seconds: float  # of the link's clock
    bytes: int  # of TLS records, both ways
    round_trips: float
    frame_bytes: int  # of the session alone
    cpu_seconds: float  # of both ends


class _Way:
    """One direction of a link."""

    def __init__(self, link: Link) -> None:
        self.bytes = 0
        self._link = link
        self._free_at = 0.0
        self._acknowledged_at: list[float] = []  # each segment

    def send(self, now: float, size: int) -> float:
        """When a segment that is ready now arrives."""
        waits_for = (len(self._acknowledged_at) - WINDOW_SEGMENTS + 2) // 2  # acknowledgements: each opens two places
        opened_at = self._acknowledged_at[waits_for - 1] if waits_for > 0 else 0.0
        self._free_at = max(now, self._free_at, opened_at) + size * 8 / self._link.bits_per_s
        self._acknowledged_at.append(self._free_at + self._link.round_trip_s)
        self.bytes += size
        return self._free_at + self._link.round_trip_s / 2


class _End:
    """One end: bytes in, bytes out."""

    def __init__(self, party: Party, *, is_dialer: bool) -> None:
        self.session: Session | None = None
        self.cpu_seconds = 0.0
        self.way: _Way
        self._party = party
        self._is_dialer = is_dialer
        self._is_secure = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = party.identity.client_context() if is_dialer else party.identity.server_context()
        name = NAME if is_dialer else None
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not is_dialer, server_hostname=name)
        self._websocket = _client() if is_dialer else ServerProtocol(max_size=FRAME_BYTES_MAX)

    @property
    def is_over(self) -> bool:
        return self.session is not None and self.session.finished

    def take(self, data: bytes) -> bytes:
        """Take in what came, and give all there is to send now."""
        began = time.thread_time()
        self._incoming.write(data)
        if self._shake_hands():
            self._receive()
            self._send()
        self.cpu_seconds += time.thread_time() - began
        return self._outgoing.read()

    def _shake_hands(self) -> bool:
        if not self._is_secure:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self._is_secure = True
            if isinstance(self._websocket, ClientProtocol):
                request = self._websocket.connect()
                request.headers["User-Agent"] = USER_AGENT
                self._websocket.send_request(request)
        return True

    def _receive(self) -> None:
        try:
            while plain := self._tls.read(1 << 16):
                self._websocket.receive_data(plain)
        except ssl.SSLWantReadError:
            pass
        for event in self._websocket.events_received():
            match event:
                case Request() if isinstance(self._websocket, ServerProtocol):
                    response = self._websocket.accept(event)
                    response.headers["Server"] = USER_AGENT
                    self._websocket.send_response(response)
                case Response():
                    assert self._websocket.handshake_exc is None
                    self._begin()
                case Frame():
                    (self.session or self._begin()).receive(bytes(event.data))

    def _begin(self) -> Session:
        """A session with who has proved who he is, as a server and an agent hold it."""
        identity, replica = self._party.identity, self._party.db.replica
        peer = identity.peer_of(self._tls.getpeercert(binary_form=True))
        self.session = Session(
            replica,
            initiator=self._is_dialer,
            peer=peer.device if self._is_dialer else None,
            trust=trust_of(replica, identity, peer),
        )
        return self.session

    def _send(self) -> None:
        while self.session is not None and (frame := self.session.next_frame()) is not None:
            self._websocket.send_binary(frame)
            self._flush()  # each frame is a record of its own, or several, as over a socket
        self._flush()

    def _flush(self) -> None:
        for data in self._websocket.data_to_send():
            if data:
                self._tls.write(data)


def _client() -> ClientProtocol:
    return ClientProtocol(parse_uri(f"wss://{NAME}:8765"), max_size=FRAME_BYTES_MAX)


def converse(link: Link, device: Party, hub: Party) -> Cost:
    """Connect, and hold one session, which brings all there is; AssertionError if anything was refused."""
    dialer, answerer = _End(device, is_dialer=True), _End(hub, is_dialer=False)
    for end in (dialer, answerer):
        end.way = _Way(link)
    order = count()
    flights = 0
    events = [(link.round_trip_s, next(order), 0, dialer, b"")]  # TCP's own handshake is over
    while not (dialer.is_over and answerer.is_over):
        now, _, flight, end, data = heapq.heappop(events)
        flights = max(flights, flight)
        reply = end.take(data)
        other = answerer if end is dialer else dialer
        for start in range(0, len(reply), SEGMENT_BYTES):
            segment = reply[start : start + SEGMENT_BYTES]
            arrival = end.way.send(now, len(segment))
            heapq.heappush(events, (arrival, next(order), flight + 1, other, segment))
    assert dialer.session is not None
    report = dialer.session.report
    assert report.complete
    assert not report.refusals
    for end in (dialer, answerer):
        assert end.session is not None
        end.session.close()
    return Cost(
        now,
        dialer.way.bytes + answerer.way.bytes,
        1 + flights / 2,
        report.bytes_sent + report.bytes_received,
        dialer.cpu_seconds + answerer.cpu_seconds,
    )
