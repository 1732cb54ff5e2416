"""Networks and peers that do harm: cuts at any byte, silence, dripping bytes, floods, readers that do not read."""

from __future__ import annotations

import os
import random
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import websockets.sync.client
import websockets.sync.server
from tests.members import admit
from tests.networks import Network, eventually, fill, keys
from tests.wires import Wire
from websockets.utils import accept_key

import fieldsync as fs
from fieldsync.clock import now_ms
from fieldsync.context import Context
from fieldsync.limits import DEVICE_YEARS
from fieldsync.network import keeper
from fieldsync.network.agent import Agent
from fieldsync.syncing import messages
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Declare, Hello
from fieldsync.trust.membership import membership_of
from fieldsync.trust.rights import Reason

pytestmark = pytest.mark.usefixtures("quick")
NOTHING_HELD = messages.encode(Declare(0, Declaration(Context(), Context(), [])))
HELLO = messages.encode(Hello(bytes(16), 0, False, [("job/7", bytes(8))]))


def port_of(server):
    return int(server.url.rpartition(":")[2])


@contextmanager
def plain(network):
    """A server without TLS, to which tests can talk byte by byte; it serves others to the end."""
    with fs.serve(network.hub) as server:
        yield server
        device = network.open("witness")
        device.enter("job/7")
        assert device.sync(server.url).complete
        assert keys(device) == keys(network.hub)


@contextmanager
def impatient(monkeypatch, seconds):
    """Connections that are made meanwhile are given up when nothing comes for so long."""
    with monkeypatch.context() as patch:
        patch.setattr("fieldsync.network.server.IDLE_SECONDS_MAX", seconds)
        patch.setattr("fieldsync.network.wire.CLOSE_SECONDS_MAX", 0.1)
        patch.setattr("fieldsync.network.line.CLOSE_SECONDS_MAX", 0.1)
        yield


@pytest.mark.parametrize("seed", range(3))
def test_an_agent_goes_on_after_cuts_at_any_byte(network, seed):
    chance = random.Random(seed)
    cuts = iter([chance.randrange(1, 20_000) for _ in range(25)])
    server = network.serve()
    for name, db in (("h", network.hub), ("d", None)):
        db = db or (device := network.device("ada", "job/7"))[0]
        rows = ({"id": f"{name}{number}", "text": os.urandom(30).hex()} for number in range(2000))
        db.load("notes", rows, key="id", scope=lambda _: "job/7")
    with Wire(port_of(server), lambda: next(cuts, None)) as wire:
        with Agent(device[0], hub=f"wss://127.0.0.1:{wire.port}", identity=device[1]):
            eventually(lambda: len(keys(device[0])) == len(keys(network.hub)) == 4000)
        assert wire.connections > 10
    assert device[0].scopes()[0].digest == network.hub.scopes()[0].digest
    assert device[0].verify().is_sound
    assert network.hub.verify().is_sound


def test_a_link_that_goes_silent_is_given_up_and_made_anew(network, monkeypatch):
    for name, seconds in (("PING_SECONDS", 0.1), ("IDLE_SECONDS_MAX", 0.2), ("CLOSE_SECONDS_MAX", 0.1)):
        monkeypatch.setattr(f"fieldsync.network.wire.{name}", seconds)
    server = network.serve()
    device, identity = network.device("ada", "job/7")
    with Wire(port_of(server)) as wire, Agent(device, hub=f"wss://127.0.0.1:{wire.port}", identity=identity) as agent:
        eventually(lambda: agent.status.last_success)
        wire.is_silent = True
        fill(device, "job/7", "a")
        eventually(lambda: not agent.status.is_connected)
        wire.is_silent = False
        wire.cut()
        eventually(lambda: keys(network.hub) == {("job/7", "a")})


def test_after_a_sleep_dead_links_are_found_at_once(network, monkeypatch):
    monkeypatch.setattr("fieldsync.network.keeper.PROBE_SECONDS", 0.1)
    monkeypatch.setattr("fieldsync.network.wire.CLOSE_SECONDS_MAX", 0.1)
    server = network.serve()
    device, identity = network.device("ada", "job/7")
    with Wire(port_of(server)) as wire, Agent(device, hub=f"wss://127.0.0.1:{wire.port}", identity=identity) as agent:
        eventually(lambda: agent.status.last_success)
        wire.is_silent = True
        agent.network_changed()
        eventually(lambda: not agent.status.is_connected)


def test_a_clock_that_jumps_wakes_the_agent(network, monkeypatch):
    server = network.serve()
    device, identity = network.device("ada", "job/7")
    woken = []
    monkeypatch.setattr(keeper, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(keeper.Keeper, "wake", lambda self: woken.append(1))
    with Agent(device, hub=server.url, identity=identity) as agent:
        eventually(lambda: agent.status.last_success)
        before = agent.status.last_success
        monkeypatch.setattr(keeper.time, "time", lambda real=keeper.time.time: real() + 3600)
        eventually(lambda: woken)
        fill(device, "job/7", "a")
        eventually(lambda: keys(network.hub) == {("job/7", "a")})
        assert agent.status.last_success >= before


def test_a_request_that_drips_is_cut(network, monkeypatch):
    monkeypatch.setattr("fieldsync.network.server.CONNECT_SECONDS_MAX", 0.2)
    with plain(network) as server, socket.create_connection(("127.0.0.1", port_of(server))) as drip:
        drip.sendall(b"GET / HTTP/1.1\r\nHost")
        drip.settimeout(20)
        while drip.recv(1000):
            pass


def test_a_handshake_that_is_not_gone_on_with_is_cut(network, monkeypatch):
    monkeypatch.setattr("fieldsync.network.server.CONNECT_SECONDS_MAX", 0.2)
    server = network.serve()
    with socket.create_connection(("127.0.0.1", port_of(server))) as silent:
        silent.settimeout(20)
        assert silent.recv(1000) == b""


def drip(peer):
    """Send byte by byte, for as long as the peer bears it."""
    for _ in range(1000):
        peer.socket.sendall(b"x")
        with suppress(TimeoutError):
            peer.recv(timeout=0.02)


def test_a_frame_that_drips_is_cut(network, monkeypatch):
    fill(network.hub, "job/7", "a")
    with (
        plain(network) as server,
        impatient(monkeypatch, 0.3),
        websockets.sync.client.connect(server.url, proxy=None) as peer,
    ):
        peer.send(HELLO)
        peer.socket.sendall(b"\x82\xff" + (10 << 20).to_bytes(8, "big") + bytes(4))  # ten MiB are to come
        with pytest.raises((OSError, websockets.exceptions.ConnectionClosed)):
            drip(peer)


def test_an_oversized_frame_is_not_read(network):
    with plain(network) as server, websockets.sync.client.connect(server.url, proxy=None) as peer:
        peer.send(HELLO)
        peer.recv()
        peer.socket.sendall(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4))
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            list(peer)
        assert closed.value.rcvd.code == 1009


def test_a_peer_that_does_not_read_fills_no_memory_and_is_cut(network, monkeypatch):
    rows = ({"id": str(number), "text": os.urandom(500).hex()} for number in range(10_000))
    network.hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    with plain(network) as server:
        before = server.listener.counts["bytes_sent"]
        with socket.socket() as raw, impatient(monkeypatch, 0.5):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", port_of(server)))
            with websockets.sync.client.connect(
                server.url, sock=raw, proxy=None, max_queue=1, close_timeout=0.1
            ) as peer:
                peer.send(HELLO)
                peer.send(NOTHING_HELD)
                eventually(lambda: server.last_error)
        sent = server.listener.counts["bytes_sent"] - before
        assert "nothing has come" in server.last_error
        assert sent < 4 << 20 < sum(len(note.text) for note in network.hub["notes"])


def test_a_flood_of_words_makes_no_flood_of_sessions(network):
    device = network.open("ada")
    device.enter("job/7")
    begun = []

    def answer(connection):
        for _ in range(2000):
            connection.send("news")
        begun.extend(connection)

    with websockets.sync.server.serve(answer, "127.0.0.1", 0) as evil:
        thread = threading.Thread(target=evil.serve_forever)
        thread.start()
        with Agent(device, hub=f"ws://127.0.0.1:{evil.socket.getsockname()[1]}"):
            eventually(lambda: begun)
        evil.shutdown()
        thread.join()
    assert len(begun) == 1


def test_a_certificate_of_nobody_costs_the_hub_one_handshake(network):
    server = network.serve()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    bare.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port_of(server))) as old, pytest.raises(ssl.SSLError):
        bare.wrap_socket(old)
    assert server.listener.counts["connections"] == 0


def answer_and_ping(listening, hung_up):
    """A server that asks for answers without end and reads none."""
    peer, _ = listening.accept()
    with peer:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += peer.recv(1000)
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        accepted = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + accepted.encode())
        with suppress(OSError):
            for _ in range(2_000):
                peer.sendall((b"\x89\x7d" + bytes(125)) * 100)
            return
    hung_up.set()


def test_who_pings_without_end_is_hung_up_on(network):
    """Of answers that it does not read the dialler keeps no more than a bound."""
    device, hung_up = network.open("ada"), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        thread = threading.Thread(target=answer_and_ping, args=(listening, hung_up))
        thread.start()
        with Agent(device, hub=f"ws://127.0.0.1:{listening.getsockname()[1]}"):
            thread.join()
    assert hung_up.is_set()


def test_bytes_of_sessions_that_were_cut_are_of_the_budget(network):
    server = network.serve()
    rows = ({"id": str(number), "text": os.urandom(100).hex()} for number in range(3000))
    network.hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    device, identity = network.device("ada", "job/7")
    with (
        Wire(port_of(server), lambda: 40_000) as wire,
        Agent(device, hub=f"wss://127.0.0.1:{wire.port}", identity=identity, budget=fs.Budget(100_000)) as agent,
    ):
        eventually(lambda: "budget" in agent.status.why_not)
        assert wire.connections > 2
    assert len(keys(device)) < 3000


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system does not count what it slept")
def test_hours_that_a_device_slept_count(monkeypatch):
    """For the day of a budget, and for how long ago the last success was."""
    before, real = keeper.clock(), time.clock_gettime
    slept = {time.CLOCK_BOOTTIME: 8 * 3600}
    monkeypatch.setattr(time, "clock_gettime", lambda which: real(which) + slept.get(which, 0))
    assert keeper.clock() - before >= 8 * 3600


# --- certificates ---


def test_a_certificate_that_is_no_good_is_told_as_such(network, tmp_path):
    """And not as some failure of a handshake, to him whose it is as to him who meets it."""
    server = network.serve()
    years_ago = now_ms() - (DEVICE_YEARS + 1) * 365 * 86_400_000
    old, own = admit(network.hub_identity, tmp_path / "old", "old", years_ago), "this device's certificate has run out"
    device = network.open("old")
    with pytest.raises(fs.ConnectionFailed, match=own):
        device.sync(server.url, identity=old)
    with Agent(device, hub=server.url, identity=old) as agent:
        eventually(lambda: own in agent.status.why_not)
    ada, identity = network.device("ada", "job/7")
    with fs.serve(device, identity=old) as other, pytest.raises(fs.SyncError, match="of who answers has run out"):
        ada.sync(other.url, identity=identity)
    with Network(tmp_path, "Other") as other, pytest.raises(fs.SyncError, match="is not one of this device's"):
        ada.sync(server.url, identity=other.admit("ada"))
    with pytest.raises(fs.ConnectionFailed, match="does it want TLS"):
        ada.sync(server.url.replace("wss", "ws"))


def test_who_was_revoked_is_told_so_for_programs_too(network):
    server = network.serve()
    device, identity = network.device("ada", "job/7")
    membership_of(network.hub.replica, network.hub_identity).revoke(identity.device)
    with pytest.raises(fs.SyncError, match="the device was revoked") as refused:
        device.sync(server.url, identity=identity)
    assert refused.value.code == Reason.REVOKED
