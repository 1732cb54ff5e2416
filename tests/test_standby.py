"""Several agents on one file: one works, the others stand by, say so, and take over when it ends, however it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from tests.networks import agent_port, eventually, fill, keys

import fieldsync as fs
from fieldsync.network import keeper
from fieldsync.network.agent import Agent
from fieldsync.network.standby import SUFFIX, Place
from fieldsync.trust.rights import Reason

pytestmark = pytest.mark.usefixtures("quick")
BESIDE = """
import sys, fieldsync
with fieldsync.open(sys.argv[1]) as database, fieldsync.Agent(database) as agent:
    print(agent.status.code, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(keeper, "STANDBY_SECONDS", 0.05)


def test_of_two_agents_one_stands_by_and_takes_over(network):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    with Agent(ada, hub=server.url, identity=identity) as first:
        eventually(lambda: first.status.last_success)
        with fs.open(ada.path) as app, Agent(app, hub=server.url, identity=identity) as second:
            assert (second.status.code, second.status.is_standing_by) == (Reason.STANDING_BY, True)
            assert "another agent" in second.status.why_not
            assert "another agent" in str(second.status)
            before = time.monotonic()
            assert second.sync_now(deadline=20).is_standing_by  # and waits for nothing
            assert time.monotonic() < before + 10
            fill(app, "job/7", "a")
            eventually(lambda: keys(network.hub) == {("job/7", "a")})
            time.sleep(0.3)
            assert server.listener.counts["connections"] == 1  # they do not throw each other out
            first.close()
            eventually(lambda: second.status.is_connected)
            assert (second.status.code, second.status.is_standing_by) == ("", False)
            fill(app, "job/7", "b")
            eventually(lambda: ("job/7", "b") in keys(network.hub))


def test_who_stands_by_waits_for_the_port_too(network):
    ada, port = network.open("ada"), agent_port()
    with Agent(ada, listen=("127.0.0.1", port)) as first, Agent(ada, listen=("127.0.0.1", port)) as second:
        assert (first.port, second.port) == (port, None)
        first.close()
        eventually(lambda: second.port == port)


def test_who_cannot_work_in_the_place_of_another_says_why_and_leaves_it_to_a_third(network):
    ada, port = network.open("ada"), agent_port()
    taken = socket.create_server(("127.0.0.1", port))
    with Agent(ada) as first, taken, Agent(ada, listen=("127.0.0.1", port)) as second:
        assert second.status.code == Reason.STANDING_BY
        first.close()
        eventually(lambda: second.status.code == Reason.FAILED)
        assert str(port) in second.status.why_not
        with Agent(ada) as third:
            eventually(lambda: third.status.code == Reason.NOBODY)
            eventually(lambda: second.status.code == Reason.STANDING_BY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without forks")
def test_a_place_that_was_left_is_free_though_a_child_has_its_file_open(tmp_path):
    place, other = Place(str(tmp_path / "a.db")), Place(str(tmp_path / "a.db"))
    assert place.take()
    with os.fdopen(os.dup(place._file)):  # as a child has it that was forked meanwhile
        assert not other.take()
        place.leave()
        assert other.take()


def test_the_place_of_an_agent_that_was_killed_is_free(network):
    ada = network.open("ada")
    command = [sys.executable, "-c", BESIDE, str(ada.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == f"{Reason.NOBODY}\n"
            with Agent(ada) as agent:
                assert agent.status.code == Reason.STANDING_BY
                other.kill()
                eventually(lambda: agent.status.code == Reason.NOBODY)
        finally:
            other.kill()


def test_a_file_is_one_file_by_whatever_way(tmp_path):
    (tmp_path / "field.db").touch()
    (tmp_path / "way").symlink_to(tmp_path)
    one, other, memory = Place(str(tmp_path / "field.db")), Place(str(tmp_path / "way" / "field.db")), Place(":memory:")
    assert [one.take(), other.take(), one.take(), memory.take()] == [True, False, True, True]
    one.leave()
    assert other.take()
    other.leave()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_other_users_cannot_keep_an_agent_from_working(tmp_path):
    """Whoever may open the file beside the database may lock it for good: nobody else may, or it counts for nothing."""
    place, beside = Place(str(tmp_path / "field.db")), tmp_path / f"field.db{SUFFIX}"
    before = os.umask(0)
    try:
        assert place.take()
    finally:
        os.umask(before)
    assert beside.stat().st_mode & 0o777 == 0o600
    beside.chmod(0o666)
    evil = Place(str(tmp_path / "field.db"))
    assert evil.take()  # though the lock is held
    place.leave()
    beside.unlink()
    beside.symlink_to(tmp_path / "elsewhere")
    assert place.take()
    assert not (tmp_path / "elsewhere").exists()
