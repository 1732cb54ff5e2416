"""What anybody who comes to a hub's desk may hold there: for so long, so much, and with so many others."""

import socket
from contextlib import ExitStack

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from fieldsync.trust.desk import REQUEST_BYTES_MAX, Desk
from fieldsync.trust.identity import pinning_context
from fieldsync.trust.membership import membership_of


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def desk(network, stack):
    """Opens a desk, once its bounds are set."""
    return lambda: stack.enter_context(Desk(membership_of(network.hub.replica, network.hub_identity), "127.0.0.1"))


@pytest.fixture
def visit(stack):
    """Somebody who comes to a desk, and is through both handshakes."""

    def come(desk):
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", desk.port), 20))
        tls = stack.enter_context(pinning_context().wrap_socket(plain, server_hostname="127.0.0.1"))
        options = {"proxy": None, "ping_interval": None, "close_timeout": 0.1}
        return stack.enter_context(websockets.sync.client.connect(f"ws://127.0.0.1:{desk.port}", sock=tls, **options))

    return come


def test_of_those_who_say_nothing_the_oldest_goes(desk, visit, monkeypatch):
    monkeypatch.setattr("fieldsync.trust.desk.ENROLMENTS_MAX", 2)
    opened = desk()
    first, *others = [visit(opened) for _ in range(3)]
    with pytest.raises(ConnectionClosed):
        first.recv(timeout=20)
    for one in others:
        with pytest.raises(TimeoutError):
            one.recv(timeout=0.05)


def test_who_says_nothing_has_so_much_time(desk, visit, monkeypatch):
    monkeypatch.setattr("fieldsync.trust.desk.ENROLMENT_SECONDS_MAX", 0.5)
    with pytest.raises(ConnectionClosed):
        visit(desk()).recv(timeout=20)


def test_who_does_not_go_on_with_a_handshake_has_so_much_time(desk, monkeypatch):
    monkeypatch.setattr("fieldsync.trust.desk.ENROLMENT_SECONDS_MAX", 0.2)
    with socket.create_connection(("127.0.0.1", desk().port), 20) as silent:
        assert silent.recv(1000) == b""


def test_a_request_is_no_longer_than_it_need_be(desk, visit):
    visitor = visit(desk())
    visitor.send(bytes(REQUEST_BYTES_MAX + 1))
    with pytest.raises(ConnectionClosed) as caught:
        visitor.recv(timeout=20)
    assert caught.value.rcvd.code == 1009
