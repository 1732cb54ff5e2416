"""A hub over TLS: connections that carry many sessions, news to all who are connected, limits, and a clean end."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from contextlib import asynccontextmanager, suppress

import pytest
from tests.networks import Network, eventually, fill, keys

import fieldsync as fs
from fieldsync.network import line as line_module
from fieldsync.network import lines as lines_module
from fieldsync.network import server as server_module
from fieldsync.network.line import Line
from fieldsync.network.news import Known
from fieldsync.network.wire import dial, peer_of, trust_of
from fieldsync.store import Pair
from fieldsync.syncing.session import Session


@pytest.fixture
def server(network):
    return network.serve()


@asynccontextmanager
async def open_line(server, db, identity):
    """A line to a server: `line.heard` is set by its news."""
    connection = await dial(server.url, identity)
    heard = asyncio.Event()
    line = Line(connection, on_news=heard.set, peer=peer_of(connection, identity))
    line.heard = heard
    line.begin = lambda: line.sync(
        Session(db.replica, initiator=True, peer=server.url, trust=trust_of(db.replica, identity, line.peer))
    )
    running = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        await line.close()
        await asyncio.gather(running, return_exceptions=True)


def answer_to(encrypted):
    """What comes of a request; it may be refused while it is sent, or afterwards."""
    with suppress(OSError):
        encrypted.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return encrypted.recv(1000)
    return b""


def soon(event):
    return asyncio.wait_for(event.wait(), 20)


def test_a_device_syncs_with_a_hub_over_tls(network, server):
    device, identity = network.device("ada", "job/7")
    fill(network.hub, "job/7", "a")
    fill(device, "job/7", "b")
    assert server.url.startswith("wss://")
    report = device.sync(server.url, identity=identity)
    assert report.complete
    assert keys(device) == keys(network.hub) == {("job/7", "a"), ("job/7", "b")}


def test_one_line_carries_many_sessions(network, server):
    device, identity = network.device("ada", "job/7")

    async def talk():
        async with open_line(server, device, identity) as line:
            for number in range(10):
                await asyncio.to_thread(fill, network.hub, "job/7", f"h{number}")
                await asyncio.to_thread(fill, device, "job/7", f"d{number}")
                report = await line.begin()
                assert report.complete
                assert report.round_trips == (1 if number else 2)

    asyncio.run(talk())
    assert keys(device) == keys(network.hub)
    assert len(keys(device)) == 20
    eventually(lambda: server.sessions == 10)
    assert server.last_error is None


def test_what_changes_at_a_hub_is_told_to_those_who_hold_it_and_to_no_others(network, server):
    ada, ben, eve = (network.device(name, scope) for name, scope in (("a", "job/7"), ("b", "job/7"), ("e", "job/8")))
    fill(network.hub, "job/7", "h0")
    fill(network.hub, "job/8", "z0")
    fill(ada[0], "job/7", "a0")
    for device, identity in (ada, ben, eve) * 2:  # so that everybody has heard who writes
        device.sync(server.url, identity=identity)

    async def talk():
        async with (
            open_line(server, *ada) as one,
            open_line(server, *ben) as two,
            open_line(server, *eve) as other,
        ):
            for line in (one, two, other):
                await line.begin()
            await asyncio.to_thread(fill, ada[0], "job/7", "a1")
            await one.begin()
            await soon(two.heard)
            await two.begin()
            assert ("job/7", "a1") in keys(ben[0])
            two.heard.clear()
            await asyncio.to_thread(fill, network.hub, "job/7", "h1")
            await soon(one.heard)
            await soon(two.heard)
            for line in (one, two, other):
                await line.begin()
            assert not other.heard.is_set()
            one.heard.clear()
            await asyncio.to_thread(fill, network.hub, "job/8", "z1")
            await soon(other.heard)
            assert not one.heard.is_set()  # nor of what it brought itself

    asyncio.run(talk())
    assert keys(ada[0]) == keys(ben[0]) == {("job/7", key) for key in ("a0", "a1", "h0", "h1")}


def test_what_another_process_writes_is_told_too(network, server):
    device, identity = network.device("ada", "job/7")
    fill(network.hub, "job/7", "a")

    async def talk():
        async with open_line(server, device, identity) as line:
            await line.begin()
            with fs.open(network.hub.path) as same_file:  # another store is as another process
                await asyncio.to_thread(fill, same_file, "job/7", "b")
            await soon(line.heard)
            await line.begin()

    asyncio.run(talk())
    assert keys(device) == {("job/7", "a"), ("job/7", "b")}


def test_of_two_lines_of_one_device_the_newer_counts(network, server):
    device, identity = network.device("ada", "job/7")

    async def talk():
        async with open_line(server, device, identity) as one:
            await one.begin()
            async with open_line(server, device, identity) as two:
                await two.begin()
                with pytest.raises(fs.ConnectionFailed):
                    await one.begin()

    asyncio.run(talk())
    assert server.last_error is None


@pytest.mark.parametrize("who", ["nobody", "another organisation", "no TLS"])
def test_who_is_not_of_the_organisation_gets_nowhere(network, server, tmp_path, who):
    device, identity = network.device("ada", "job/7")
    fill(network.hub, "job/7", "a")
    host, port = server.url.removeprefix("wss://").split(":")
    if who == "another organisation":
        with Network(tmp_path, "Other") as other, pytest.raises(fs.SyncError):
            device.sync(server.url, identity=other.admit("ada"))
    elif who == "nobody":
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, int(port))) as plain, bare.wrap_socket(plain) as encrypted:
            assert answer_to(encrypted) == b""
    else:
        with pytest.raises(fs.ConnectionFailed):
            device.sync(server.url.replace("wss", "ws"))
    assert keys(device) == set()
    device.sync(server.url, identity=identity)
    assert keys(device) == {("job/7", "a")}


def test_without_an_identity_there_is_no_tls(network, server):
    with pytest.raises(fs.SyncError, match="TLS needs an identity"):
        network.device("ada")[0].sync(server.url)


def test_a_graceful_end_lets_sessions_end_and_begins_no_more(network, server):
    device, identity = network.device("ada", "job/7")
    rows = ({"id": str(number), "text": os.urandom(200).hex()} for number in range(5000))
    network.hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    arrived = threading.Event()
    done = []

    def sync():
        done.append(device.sync(server.url, identity=identity, progress=lambda _: arrived.set()))

    thread = threading.Thread(target=sync)
    thread.start()
    assert arrived.wait(20)
    server.close(grace_seconds=60)
    thread.join()
    assert done[0].complete
    assert keys(device) == keys(network.hub)
    with pytest.raises(fs.ConnectionFailed):
        device.sync(server.url, identity=identity)


def test_a_peer_that_begins_session_after_session_is_slowed_down(network, server, monkeypatch):
    waited = []

    async def sleep(seconds, real=asyncio.sleep):
        waited.append(seconds)
        await real(0)

    device, identity = network.device("ada", "job/7")
    monkeypatch.setattr(line_module, "SESSIONS_BURST", 3)
    monkeypatch.setattr(line_module, "SESSIONS_PAUSE_SECONDS", 1000)
    monkeypatch.setattr(line_module, "pause", sleep)

    async def talk():
        async with open_line(server, device, identity) as line:
            for _ in range(5):
                await line.begin()

    asyncio.run(talk())
    assert [round(seconds, -3) for seconds in waited] == [1000, 2000]


def test_only_so_many_connections_are_taken(network, server, monkeypatch):
    monkeypatch.setattr(server_module, "SERVER_CONNECTIONS_MAX", 1)
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")

    async def talk():
        async with open_line(server, *ada) as line:
            await line.begin()
            with pytest.raises(fs.ConnectionFailed, match="too many connections"):
                await asyncio.to_thread(ben[0].sync, server.url, identity=ben[1])

    asyncio.run(talk())
    eventually(lambda: ben[0].sync(server.url, identity=ben[1]).complete)


def test_news_go_on_after_the_file_could_not_be_read(network, server, monkeypatch):
    device, identity = network.device("ada", "job/7")
    fill(network.hub, "job/7", "a")
    failed = []

    def fail(replica, names, states=lines_module.states):
        if names is not None and "job/7" not in names:
            return states(replica, names)  # of the session before, whose end may come late
        monkeypatch.undo()
        failed.append(1)
        raise fs.Busy("another process has been writing")

    async def talk():
        async with open_line(server, device, identity) as line:
            await line.begin()
            monkeypatch.setattr("fieldsync.network.lines.states", fail)
            await asyncio.to_thread(fill, network.hub, "job/7", "b")
            await soon(line.heard)
            await line.begin()

    asyncio.run(talk())
    assert failed
    assert keys(device) == keys(network.hub)


def test_a_file_that_is_closed_first_ends_no_server(tmp_path):
    hub = fs.open(tmp_path / "hub.db", hub=True)
    with fs.serve(hub) as server, fs.open(tmp_path / "ada.db") as ada:
        hub.close()
        with pytest.raises(fs.SyncError):
            ada.sync(server.url)


def test_sessions_wait_for_their_turn(network, monkeypatch):
    monkeypatch.setattr(server_module, "SERVER_SESSIONS_MAX", 1)
    server = network.serve()
    devices = [network.device(f"d{number}", "job/7") for number in range(4)]
    fill(network.hub, "job/7", "a")
    threads = [threading.Thread(target=db.sync, args=[server.url], kwargs={"identity": who}) for db, who in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(keys(db) == {("job/7", "a")} for db, _ in devices)
    assert server.listener.counts["sessions_refused"] == 0


def test_news_are_what_a_peer_does_not_have():
    met = Pair(b"", ["a", "b", "c"], b"111111112222222233333333", is_hub=False, was_hub=False)
    known, more = Known.after(met, is_dialer=False), Known.after(met, is_dialer=True)
    assert list(known.lacks({"a": b"11111111", "b": b"44444444", "c": None, "d": b"55555555"})) == ["b"]
    assert list(more.lacks({"a": b"11111111", "d": b"55555555", "e": None})) == ["d"]
    assert list(known.lacks({"b": b"44444444"})) == ["b"]
    assert list(known.lacks(dict.fromkeys("abcdefgh", b"11111111"))) == ["b", "c"]


def test_two_devices_that_never_met_sync_at_once(network):
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    fill(ada[0], "job/7", "a")
    fill(ben[0], "job/7", "b")
    with fs.serve(ada[0], identity=ada[1]) as peer:
        report = ben[0].sync(peer.url, identity=ben[1])
    assert (report.complete, report.refusals) == (True, [])
    assert keys(ada[0]) == keys(ben[0]) == {("job/7", "a"), ("job/7", "b")}


def test_a_connection_that_fails_is_told_by_whom_and_why(network, server, caplog):
    ada, identity = network.device("ada", "job/7")

    async def talk_nonsense():
        connection = await dial(server.url, identity)
        await connection.send(b"no frame")
        with suppress(Exception):
            while True:
                await connection.recv()

    async def leave_in_the_middle():
        connection = await dial(server.url, identity)
        await connection.send(Session(ada.replica, initiator=True).next_frame())
        connection.transport.abort()

    asyncio.run(talk_nonsense())
    eventually(lambda: "connection failed: ada, 127.0.0.1 port" in caplog.text)
    assert "dials again" not in caplog.text
    asyncio.run(leave_in_the_middle())
    eventually(lambda: "what had landed is kept, and the peer dials again by itself" in caplog.text)
