"""Syncs over a real loopback WebSocket: what goes well, what is refused, and peers that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
import websockets.sync.client
import websockets.sync.server
from tests.networks import fill, keys

import fieldsync as fs
from fieldsync.network import server as server_module
from fieldsync.network import wire
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Bye, Declare, Hello, Refusal
from fieldsync.syncing.session import Session


def open_fast(path):
    return fs.open(path, durability="fast")


@pytest.fixture
def device(tmp_path):
    with open_fast(tmp_path / "device.db") as db:
        yield db


@pytest.fixture
def server(hub):
    with fs.serve(hub) as server:
        yield server


# --- what goes well ---


def test_a_device_and_a_hub_converge(hub, device, server):
    fill(hub, "job/7", "a", "b", text="from the hub")
    fill(hub, "job/8", "c")
    device.enter("job/7")
    report = device.sync(server.url)
    assert (report.scopes, report.refused, report.records_changed, report.round_trips) == (["job/7"], [], 2, 2)
    assert keys(device) == {("job/7", "a"), ("job/7", "b")}
    with device.write() as tx:
        tx.update("notes", "a", text="from the device")
        tx.delete("notes", "b")
    fill(device, "job/9", "d")
    fill(hub, "job/7", "e")
    report = device.sync(server.url)
    assert (report.changes_sent, report.changes_received) == (3, 1)
    assert keys(hub) == {("job/7", "a"), ("job/7", "e"), ("job/8", "c"), ("job/9", "d")}
    assert hub["notes"].get("a").text == "from the device"
    assert [scope for scope in hub.scopes() if scope.name != "job/8"] == device.scopes()
    again = device.sync(server.url)
    assert (again.round_trips, again.changes_sent, again.changes_received) == (1, 0, 0)


def test_sessions_end_well_on_both_sides(hub, device, server):
    fill(device, "job/7", "a")
    for number in range(60):
        device.sync(server.url)
        for db in (device, hub):
            with db.write() as tx:
                tx.update("notes", "a", **{"by hub" if db is hub else "by device": number})
    server.close()
    assert (server.sessions, server.last_error) == (60, None)


def test_a_sync_waits_for_another_one_of_its_scope(tmp_path, hub, device, server):
    """Which has said what it wants to bring, and says nothing more for a while."""
    with open_fast(tmp_path / "other.db") as other:
        fill(device, "job/7", "mine")
        fill(other, "job/7", "theirs")
        slow, side = (Session(db.replica, initiator=db is other) for db in (other, hub))
        side.receive(slow.next_frame())
        while frame := side.next_frame():
            slow.receive(frame)
        end = threading.Timer(0.5, side.close)
        end.start()
        report = device.sync(server.url)
        assert not end.is_alive()
        assert report.superseded == []
        assert keys(hub) == {("job/7", "mine")}
        slow.close()


def test_a_sync_of_some_scopes_leaves_the_others_alone(hub, device, server):
    for number in range(3):
        fill(hub, f"job/{number}", f"n{number}")
        device.enter(f"job/{number}")
    assert device.sync(server.url, scopes=["job/1"]).scopes == ["job/1"]
    assert keys(device) == {("job/1", "n1")}


def test_scopes_that_the_peer_does_not_hold_are_refused(tmp_path, device):
    fill(device, "job/7", "a")
    fill(device, "secret", "b")
    with open_fast(tmp_path / "peer.db") as peer, fs.serve(peer) as server:
        peer.enter("job/7")
        report = device.sync(server.url)
        assert (report.scopes, report.refused) == (["job/7"], ["secret"])
        assert keys(peer) == {("job/7", "a")}


def test_many_devices_sync_at_once(tmp_path, hub, server):
    fill(hub, "common", *map(str, range(300)), text="x" * 100)
    failures = []

    def work(db, number):
        try:
            fill(db, f"own/{number}", *map(str, range(50)))
            db.enter("common")
            fill(db, "common", f"from {number}")
            db.sync(server.url)
        except BaseException as error:
            failures.append(error)

    with ExitStack() as stack:
        devices = [stack.enter_context(open_fast(tmp_path / f"{number}.db")) for number in range(6)]
        threads = [threading.Thread(target=work, args=[db, number]) for number, db in enumerate(devices)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        for db in devices * 2:  # one scope has one stream into the hub at a time, so some came away with a part
            db.sync(server.url)
        common = next(scope for scope in hub.scopes() if scope.name == "common")
        assert all(common in db.scopes() for db in devices)
    assert len(keys(hub)) == 300 + 6 * 51


def test_a_stream_of_many_frames_arrives_whole(hub, device, server):
    rows = ({"id": str(number), "text": os.urandom(300).hex()} for number in range(6000))
    hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    device.enter("job/7")
    told = []
    report = device.sync(server.url, progress=lambda report: told.append(report.records_changed))
    assert report.records_changed == 6000
    assert report.bytes_received > 1_500_000
    assert told == sorted(told)
    assert any(0 < count < 6000 for count in told)
    assert told[-1] == 6000
    assert device.scopes() == hub.scopes()


def test_a_sync_may_be_called_inside_a_running_loop(hub, device, server):
    fill(hub, "job/7", "a")
    device.enter("job/7")

    async def app():
        return device.sync(server.url)

    assert asyncio.run(app()).records_changed == 1


def test_ipv6_loopback_is_served_too(hub, device):
    try:
        server = fs.serve(hub, "::1")
    except fs.ConnectionFailed:
        pytest.skip("this machine has no IPv6")
    with server:
        assert server.url.startswith("ws://[::1]:")
        assert device.sync(server.url).round_trips == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ws://192.0.2.1:8765", "not a loopback address"),
        ("ws://[2001:db8::1]:8765", "not a loopback address"),
        ("ws://example.org", "not a loopback address"),
        ("ws://127.0.0.1.example.org", "not a loopback address"),
        ("wss://127.0.0.1:8765", "TLS needs an identity"),
        ("http://127.0.0.1:8765", "is not an address"),
        ("127.0.0.1:8765", "is not an address"),
        ("ws://", "is not an address"),
        ("", "is not an address"),
        ("ws://[", "is not an address"),
        ("ws://127.0.0.1:99999", "is not an address"),
        ("ws://127.0.0.1:many", "is not an address"),
    ],
)
def test_only_loopback_addresses_are_synced_with(device, address, message):
    with pytest.raises(fs.SyncError, match=message):
        device.sync(address)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_only_loopback_addresses_are_served(hub, host):
    with pytest.raises(fs.SyncError, match="not a loopback address"):
        fs.serve(hub, host)


def test_a_port_that_is_taken_cannot_be_served(hub, server):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(fs.ConnectionFailed, match="cannot serve on"):
        fs.serve(hub, port=port)


def test_nobody_listening_is_a_failed_connection(hub, device):
    with fs.serve(hub) as server:
        url = server.url
    with pytest.raises(fs.ConnectionFailed, match="sync again to go on"):
        device.sync(url)


# --- peers that misbehave ---


@contextmanager
def peer(answer):
    """A WebSocket server that is no Fieldsync; gives its address."""

    def hold(connection):
        with suppress(websockets.exceptions.ConnectionClosed):
            answer(connection)

    with websockets.sync.server.serve(hold, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def say(*frames):
    """Send these after the hello, and wait for the end."""

    def answer(connection):
        connection.recv()
        for frame in frames:
            connection.send(frame)
        for _ in connection:
            pass

    return answer


BYE = messages.encode(Bye())


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([b""], fs.DecodeError),
        ([b"\x01garbage"], fs.DecodeError),
        ([b"\x63\x80"], fs.DecodeError),
        ([b"\x01\xc1"], fs.DecodeError),
        ([b"\x03" + bytes(range(200))], fs.DecodeError),
        (["some text"], fs.ProtocolError),
        ([BYE], fs.ProtocolError),
        ([messages.encode(Refusal("Busy", "come back later"))], fs.SyncError),
        ([messages.encode(Hello(bytes(16), 0, False, [], (7, 9)))], fs.VersionMismatch),
        ([messages.encode(Hello(bytes(16), 0, False, [("unasked", bytes(8))]))], fs.ProtocolError),
        ([b"\x80unknown, but may be skipped", b"\x01garbage"], fs.DecodeError),
    ],
)
def test_a_peer_that_talks_garbage_is_left(device, frames, kind):
    fill(device, "job/7", "a")
    with peer(say(*frames)) as url, pytest.raises(kind):
        device.sync(url)
    assert keys(device) == {("job/7", "a")}
    fill(device, "job/7", "b")


def test_a_peer_that_closes_or_is_silent_is_a_failed_connection(device):
    fill(device, "job/7", "a")
    with peer(lambda connection: connection.close()) as url, pytest.raises(fs.ConnectionFailed):
        device.sync(url)
    with peer(say()) as url, pytest.raises(fs.ConnectionFailed):
        device.sync(url, timeout=0.2)


def test_a_frame_that_is_too_large_is_not_read(device, monkeypatch):
    monkeypatch.setattr(wire, "FRAME_BYTES_MAX", 1000)
    with peer(say(bytes(2000))) as url, pytest.raises(fs.ConnectionFailed):
        device.sync(url)


def test_a_service_that_is_no_websocket_is_a_failed_connection(device):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(fs.ConnectionFailed):
            device.sync(f"ws://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


def chat(url, *frames):
    """Send frames to a server; gives what it answers until it closes."""
    with websockets.sync.client.connect(url, proxy=None) as connection:
        for frame in frames:
            connection.send(frame)
        return list(connection)


def test_a_server_survives_bad_clients(hub, device, server):
    fill(hub, "job/7", "a")
    hello = messages.encode(Hello(bytes(16), 0, False, [("job/7", bytes(8))]))
    for frames in ([b"\x01garbage"], ["text"], [b""], [hello, hello], [hello, b"\x03\xc0"], [BYE]):
        answers = [messages.decode(frame) for frame in chat(server.url, *frames)]
        (refusal,) = [answer for answer in answers if isinstance(answer, Refusal)]
        assert refusal.code in ("DecodeError", "ProtocolError")
    with websockets.sync.client.connect(server.url, proxy=None) as connection:
        connection.send(hello)
        connection.recv()  # and gone, in the middle of it
    with socket.create_connection(server.url.removeprefix("ws://").split(":")) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.recv(1000)
    device.enter("job/7")
    assert device.sync(server.url).records_changed == 1
    assert server.last_error


def test_a_server_takes_so_many_sessions_and_no_more(hub, device, monkeypatch):
    monkeypatch.setattr(server_module, "SERVER_SESSIONS_MAX", 2)
    monkeypatch.setattr(server_module, "SESSION_WAIT_SECONDS", 0.05)
    with fs.serve(hub) as server:
        crowd(hub, device, server)


def crowd(hub, device, server):
    fill(hub, "job/7", "a")
    device.enter("job/7")
    connect = partial(websockets.sync.client.connect, server.url, proxy=None)
    hello = messages.encode(Hello(bytes(16), 0, False, [("job/7", bytes(8))]))
    with connect() as one, connect() as two:
        for connection in (one, two):
            connection.send(hello)
            connection.recv()
        with pytest.raises(fs.ConnectionFailed, match="too many sessions"):
            device.sync(server.url)
        one.send(BYE)
        one.recv()
    for _ in range(100):  # the server hears of the end a little later
        try:
            assert device.sync(server.url).records_changed == 1
            break
        except fs.ConnectionFailed:
            continue
    else:
        pytest.fail("the server kept sessions that had ended")


def test_closing_a_server_ends_its_sessions_and_leaves_the_database_open(hub, device):
    fill(hub, "job/7", "a")
    server = fs.serve(hub)
    with websockets.sync.client.connect(server.url, proxy=None) as connection:
        connection.send(messages.encode(Hello(bytes(16), 0, False, [("job/7", bytes(8))])))
        connection.recv()
        server.close()
        assert all(isinstance(messages.decode(frame), Declare) for frame in connection)
    server.close()
    fill(hub, "job/7", "b")
    with pytest.raises(fs.ConnectionFailed):
        device.sync(server.url)
    with fs.serve(hub) as again:
        device.enter("job/7")
        assert device.sync(again.url).records_changed == 2
