"""A hub as a process, and all who mean it harm, over real TLS: nothing leaks, nothing stays, memory is bounded.

The bounds of half-open connections and of unread bytes are made small for it, so that few can pass them.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import websockets.sync.client
from tests.networks import Network, eventually, fill, keys

import fieldsync as fs
from fieldsync.changes import Chunk
from fieldsync.limits import CHUNK_RAW_BYTES_MAX, ENROLMENTS_MAX, FRAME_BYTES_MAX
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Stream
from fieldsync.syncing.session import Session
from fieldsync.trust.desk import ask
from fieldsync.trust.enrolment import enrol, invite
from fieldsync.trust.identity import pinning_context
from fieldsync.trust.membership import membership_of

CROWD = int(os.environ.get("FIELDSYNC_CROWD", "1000"))  # half-open connections at once
HANDSHAKES = 200
UNREAD_BYTES = 48 << 20
GREEDY = 6  # devices, each of which has the hub hold nearly a whole frame
GROWTH_KB_MAX = 400 << 10  # what a frame and a chunk come to while they are decoded included
SECRET = "<<what nobody but the honest may read>>"
HUB = f"""
from fieldsync import limits
limits.HANDSHAKES_MAX, limits.UNREAD_BYTES_MAX = {HANDSHAKES}, {UNREAD_BYTES}
from fieldsync.cli import main
main()
"""


class Siege:
    """The hub's process, the network that it is of, and the devices that attack."""

    def __init__(self, network, process):
        self.network = network
        self.pid = process.pid
        self.url = process.stdout.readline().split(" on ")[1].split(";")[0]
        self.port = int(self.url.rpartition(":")[2])
        self.desk = int(process.stdout.readline().rpartition(" ")[2])

    def peak_kb(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def descriptors(self):
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @contextmanager
    def connection(self, identity):
        """A WebSocket of a device to the hub, byte by byte its own."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 30) as plain,
            identity.client_context().wrap_socket(plain, server_hostname="127.0.0.1") as tls,
            websockets.sync.client.connect(
                self.url.replace("wss", "ws"),
                sock=tls,
                proxy=None,
                ping_interval=None,
                open_timeout=60,
                close_timeout=1,
            ) as peer,
        ):
            yield peer

    def converse(self, device, identity, twist):
        """A session in which `twist` makes of each own frame those that are sent; gives what was heard."""
        heard = []
        with self.connection(identity) as peer:
            trust = membership_of(device.replica, identity).trust(
                identity.peer_of(peer.socket.getpeercert(binary_form=True))
            )
            session = Session(device.replica, initiator=True, peer=self.url, trust=trust)
            try:
                while not session.finished:
                    while (frame := session.next_frame()) is not None:
                        for one in twist(frame):
                            peer.send(one)
                    if not session.finished:
                        heard.append(peer.recv(timeout=240))
                        session.receive(heard[-1])
            finally:
                session.close()
        return heard

    def stands(self):
        """Who means no harm is served, and the hub holds what it was given by him and nothing else."""
        honest = self.network.open(f"honest-{time.monotonic_ns()}")
        honest.enter("job/7")
        assert honest.sync(self.url, identity=self.honest).complete
        assert keys(honest) == {("job/7", "h")}
        assert {note.key for note in self.network.hub["notes"]} == {"h", "s"}

    def admits(self):
        """Who has a code enrols at the hub's desk."""
        hub = membership_of(self.network.hub.replica, self.network.hub_identity)
        name = f"new-{time.monotonic_ns()}"
        made = invite(hub, name, f"wss://127.0.0.1:{self.desk}", seconds=600)
        assert enrol(made.code, self.network.folder / name, ask).name == name


@pytest.fixture(scope="module")
def siege(tmp_path_factory):
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured by /proc")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Network(tmp_path_factory.mktemp("siege")) as network:
        fill(network.hub, "job/7", "h", text=SECRET)
        fill(network.hub, "prices", "s", text=SECRET)
        files = ["--db", network.hub.path, "--identity", network.hub_identity.folder]
        command = [sys.executable, "-c", HUB, "serve", *map(str, files), "--port", "0", "--admit", "0", "--json"]
        log = network.folder / "log"
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                siege = Siege(network, process)
                siege.honest = network.admit("honest", write=["job/*"])
                siege.stands()
                siege.before_kb = siege.peak_kb()
                yield siege
                siege.stands()
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()
        assert network.hub.verify().is_sound
        assert "Traceback" not in log.read_text()
        assert SECRET not in log.read_text()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(autouse=True)
def stands_afterwards(siege):
    yield
    siege.stands()
    assert siege.peak_kb() - siege.before_kb < GROWTH_KB_MAX


def half_open(port, number):
    """A connection that gets as far as nothing, or a few bytes of a handshake."""
    one = socket.create_connection(("127.0.0.1", port), 60)
    if number % 2:
        with suppress(OSError):
            one.sendall(b"\x16\x03\x01\x02\x00\x01")
    return one


def test_a_crowd_at_the_door_keeps_nobody_out(siege):
    """As many half-open connections as may be; of these the hub holds so many, and the oldest go."""
    count = min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    with ExitStack() as crowd:
        for number in range(count):
            crowd.enter_context(half_open(siege.port, number))
        siege.stands()
        assert siege.descriptors() < HANDSHAKES + 150


def test_a_crowd_at_the_desk_keeps_nobody_from_enrolling(siege):
    """Half-open connections, and such as are through all handshakes and then say nothing, or drip."""
    count = min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    with ExitStack() as crowd:
        for number in range(count):
            crowd.enter_context(half_open(siege.desk, number))
        for _ in range(2 * ENROLMENTS_MAX):
            plain = crowd.enter_context(socket.create_connection(("127.0.0.1", siege.desk), 60))
            tls = crowd.enter_context(pinning_context().wrap_socket(plain, server_hostname="127.0.0.1"))
            quiet = websockets.sync.client.connect(
                f"ws://127.0.0.1:{siege.desk}",
                sock=tls,
                proxy=None,
                ping_interval=None,
                open_timeout=60,
                close_timeout=0.1,
            )
            crowd.enter_context(quiet).socket.sendall(b"\x82\xfe\x00")
        siege.admits()
        assert siege.descriptors() < HANDSHAKES + ENROLMENTS_MAX + 150


UPGRADE = b"""GET / HTTP/1.1\r
Host: here\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
\r
"""


def ping_without_end(peer):
    for _ in range(2_000):
        peer.sendall((b"\x89\xfd" + bytes(4 + 125)) * 100)


@pytest.mark.parametrize("is_desk", [False, True])
def test_pings_whose_answers_nobody_reads(siege, is_desk):
    """By a device of the organisation, and by anybody."""
    identity = siege.network.admit(f"deaf-{is_desk}")
    context = pinning_context() if is_desk else identity.client_context()
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", siege.desk if is_desk else siege.port))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
            peer.sendall(UPGRADE)
            assert peer.recv(1000).startswith(b"HTTP/1.1 101")
            with pytest.raises(OSError, match=r"EOF|reset|[Bb]roken pipe"):
                ping_without_end(peer)


def is_cut(peer):
    """Whether the hub has ended a connection."""
    try:
        peer.recv(timeout=0.1)
    except TimeoutError:
        return False
    except websockets.exceptions.ConnectionClosed:
        return True
    return pytest.fail("the hub answers half a frame")


def test_frames_that_never_end_are_held_up_to_a_bound(siege):
    """Each device sends all of a frame but its last byte, whole or in fragments, and goes on answering pings."""
    with ExitStack() as stack:
        peers = []
        for number in range(GREEDY):
            peers.append(stack.enter_context(siege.connection(siege.network.admit(f"greedy-{number}"))))
            size = FRAME_BYTES_MAX - 1
            with suppress(OSError):
                if number % 2:
                    peers[-1].socket.sendall(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + bytes(size - 1))
                else:
                    for first in (b"\x02", b"\x00"):
                        half = size // 2
                        peers[-1].socket.sendall(first + b"\xff" + half.to_bytes(8, "big") + bytes(4) + bytes(half))
        eventually(lambda: sum(map(is_cut, peers)) >= GREEDY - UNREAD_BYTES // FRAME_BYTES_MAX - 1)
        siege.stands()


def bomb(size):
    """Turns each Stream into one of a few kilobytes that come to so many bytes."""

    def twist(frame):
        message = messages.decode(frame)
        if not isinstance(message, Stream):
            return [frame]
        chunk = Chunk(1, b"12345678", [("text", 1)], ["notes"], [bytes(size // 6)] * 6)
        return [messages.encode(Stream(message.scope, chunk, True))]

    return twist


@pytest.fixture
def eve(siege):
    """Who may write job/*, has something to give, and has met the hub."""
    name = f"eve-{time.monotonic_ns()}"
    database, identity = siege.network.open(name), siege.network.admit(name, write=["job/*"])
    assert database.sync(siege.url, identity=identity).complete
    database.enter("job/7", "prices")
    fill(database, "job/7", "e" * 20)
    return database, identity


@pytest.mark.parametrize("size", [CHUNK_RAW_BYTES_MAX - 1000, CHUNK_RAW_BYTES_MAX + 1000])
def test_a_decompression_bomb(siege, eve, size):
    with pytest.raises((fs.SyncError, websockets.exceptions.ConnectionClosed)):
        siege.converse(*eve, bomb(size))


@pytest.mark.parametrize("number", range(3))
def test_truncated_frames(siege, eve, number):
    """One of the frames ends early."""
    count = iter(range(1000))
    with pytest.raises((fs.SyncError, websockets.exceptions.ConnectionClosed)):
        siege.converse(*eve, lambda frame: [frame[:-3] if next(count) == number else frame])


def test_lengths_beyond_all_bounds(siege, eve):
    with siege.connection(eve[1]) as peer:
        peer.socket.sendall(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4))
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            peer.recv(timeout=240)
        assert closed.value.rcvd.code == 1009


def test_what_was_heard_is_played_again(siege, eve):
    """By a device that may read nothing."""
    said = []
    with pytest.raises((fs.SyncError, websockets.exceptions.ConnectionClosed)):
        siege.converse(*eve, lambda frame: said.append(frame) or [frame, frame])  # each twice, for a start
    nobody = siege.network.admit(f"nobody-{time.monotonic_ns()}", write=[])
    heard = []
    with siege.connection(nobody) as peer, suppress(websockets.exceptions.ConnectionClosed, TimeoutError):
        for frame in said:
            peer.send(frame)
        while True:
            heard.append(peer.recv(timeout=2))
    assert heard
    for frame in heard:
        message = messages.decode(frame)
        streams = message.chunk.streams if isinstance(message, Stream) and message.chunk else []
        assert not any(SECRET.encode() in data for data in (frame, *streams))
