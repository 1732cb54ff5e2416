"""Who does not get in at a hub's ports is told by logs and metrics, and fills neither disk nor memory."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
from contextlib import suppress
from types import SimpleNamespace

import pytest
import websockets.sync.client
from tests.networks import Network, eventually, fill

import fieldsync as fs
from fieldsync.clock import now_ms
from fieldsync.limits import WARNINGS_BURST, WARNINGS_PAUSE_SECONDS
from fieldsync.network.door import Stopped
from fieldsync.network.hub import Hub
from fieldsync.network.logs import Sparing
from fieldsync.network.metrics import render
from fieldsync.trust import identity as identities
from fieldsync.trust.membership import membership_of


@pytest.fixture
def hub(network):
    with Hub(network.hub.replica, identity=network.hub_identity, admit=("127.0.0.1", 0)) as hub:
        yield hub


def failed(hub):
    """Handshakes that failed, by why, as the page tells them."""
    prefix = 'fieldsync_handshakes_failed_total{reason="'
    lines = [line for line in render(hub.metrics()).splitlines() if line.startswith(prefix)]
    counts = {line.removeprefix(prefix).split('"')[0]: float(line.split()[-1]) for line in lines}
    assert counts.keys() == set(Stopped)
    return {reason: count for reason, count in counts.items() if count}


def shake(port, context=None, say=b""):
    """Connect, with TLS or without, say something, and see how it ends."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 20) as plain:
        if context is None:
            plain.sendall(say)
            plain.shutdown(socket.SHUT_WR)
            plain.recv(1000)
            return
        with context.wrap_socket(plain) as tls:
            tls.sendall(say)
            tls.recv(1000)


def old_tls():
    context = identities.pinning_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def strangers(network, folder):
    """What to come with, and what is wrong with that."""
    years_ago = now_ms() - 20 * 365 * 86_400_000
    with Network(folder, "Other") as other:
        distrustful = other.admit("ada").client_context()
        distrustful.load_cert_chain(network.folder / "eve" / "device.crt", network.folder / "eve" / "device.key")
        yield Stopped.OTHER_ORGANISATION, trusting(other.admit("eve")), b""
        yield Stopped.REFUSED_US, distrustful, b""
    yield Stopped.CERTIFICATE_EXPIRED, trusting(expired(network.hub_identity, folder, years_ago)), b""
    yield Stopped.NO_CERTIFICATE, identities.pinning_context(), b""
    yield Stopped.NO_TLS, old_tls(), b""
    yield Stopped.NO_TLS, None, b"GET / HTTP/1.1\r\n\r\n"
    yield Stopped.UNFINISHED, None, b""
    yield Stopped.NO_WEBSOCKET, network.admit("ben").client_context(), b"GET / HTTP/1.1\r\nHost: <secret>\r\n\r\n"


def trusting(identity):
    """Of whoever answers: to be refused there, and not here."""
    context = identities.pinning_context()
    context.load_cert_chain(identity.folder / "device.crt", identity.folder / "device.key")
    return context


def expired(hub, folder, at_ms):
    from tests.test_attacks import admit

    return admit(hub, folder / "old", "old", at_ms)


def test_every_handshake_that_fails_is_counted_and_logged_by_what_was_wrong(network, hub, tmp_path, caplog):
    network.admit("eve")
    port = int(hub.url.rpartition(":")[2])
    expected = {}
    with caplog.at_level(logging.WARNING, "fieldsync"):
        for reason, context, say in strangers(network, tmp_path):
            expected[reason] = expected.get(reason, 0) + 1
            shake(port, context, say)
            eventually(lambda: failed(hub) == expected)
        shake(hub.admit_port, None, b"nonsense")
        eventually(lambda: failed(hub)[Stopped.NO_TLS] == 3)
    told = [record.fields for record in caplog.records if "handshake" in record.getMessage()]
    assert {fields["reason"] for fields in told} == set(Stopped) - {Stopped.CROWDED}
    assert {fields["address"] for fields in told} == {"127.0.0.1"}
    assert "secret" not in caplog.text


def test_who_gets_in_is_no_failure(network, hub):
    device, identity = network.device("ada", "job/7")
    fill(device, "job/7", "a")
    assert device.sync(hub.url, identity=identity).complete
    assert failed(hub) == {}


def test_a_crowd_is_counted(network, monkeypatch):
    monkeypatch.setattr("fieldsync.network.door.HANDSHAKES_MAX", 3)
    with Hub(network.hub.replica, identity=network.hub_identity) as hub:
        port = int(hub.url.rpartition(":")[2])
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        eventually(lambda: failed(hub).get(Stopped.CROWDED) == 5)
        for one in crowd:
            one.close()
        eventually(lambda: failed(hub) == {Stopped.CROWDED: 5, Stopped.UNFINISHED: 3})


def test_names_and_labels_are_good_ones(hub):
    """By promtool, where there is one."""
    with suppress(FileNotFoundError):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=render(hub.metrics()), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_log_has_so_many_lines_and_then_one_in_a_while(caplog):
    now = SimpleNamespace(at=100.0)
    sparing = Sparing(lambda: now.at)
    for _ in range(10_000):
        sparing.warn("it failed", reason="x")
    assert len(caplog.records) == WARNINGS_BURST
    now.at += WARNINGS_PAUSE_SECONDS
    sparing.warn("it failed", reason="x")
    sparing.warn("it failed", reason="x")
    assert len(caplog.records) == WARNINGS_BURST + 1
    assert caplog.records[-1].fields == {"reason": "x", "left_out": 10_000 - WARNINGS_BURST}
    now.at += 1000 * WARNINGS_PAUSE_SECONDS
    for _ in range(100):
        sparing.warn("it failed")
    assert len(caplog.records) == 2 * WARNINGS_BURST + 1


def test_a_flood_at_the_door_fills_no_disk(network, hub, caplog):
    """Neither by strangers, nor by a device that was revoked, and comes again and again."""
    port = int(hub.url.rpartition(":")[2])
    device, identity = network.device("ada", "job/7")
    membership_of(network.hub.replica, network.hub_identity).revoke(identity.device)
    with caplog.at_level(logging.WARNING, "fieldsync"):
        for _ in range(3 * WARNINGS_BURST):
            shake(port, None, b"nonsense")
            with pytest.raises(fs.SyncError, match="revoked"):
                device.sync(hub.url, identity=identity)
        eventually(lambda: failed(hub).get(Stopped.NO_TLS) == 3 * WARNINGS_BURST)
        eventually(lambda: hub.server.listener.connections == 0)
    lines = [record.getMessage().split(":")[0] for record in caplog.records]
    for what in ("handshake failed", "connection failed"):
        assert WARNINGS_BURST <= lines.count(what) < 2 * WARNINGS_BURST
    refused = next(record for record in caplog.records if "connection failed" in record.getMessage())
    assert refused.fields["code"] == "revoked"


def test_a_message_in_very_many_pieces_is_refused_at_the_second(network):
    """Empty pieces are of no size, and each takes memory: who sends them without end would have it all."""
    with (
        fs.serve(network.hub) as server,
        websockets.sync.client.connect(server.url, proxy=None, compression=None) as peer,
    ):
        peer.socket.sendall(b"\x02\x80" + bytes(4))  # the begin of a message, and nothing in it
        with suppress(OSError):
            peer.socket.sendall((b"\x00\x80" + bytes(4)) * 10)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            peer.recv(timeout=20)
