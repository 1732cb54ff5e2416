"""Agents over real TLS on this machine: news in both directions, peers, outages, budgets, and what the app is told."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from tests.networks import agent_port, eventually, fill, keys

import fieldsync as fs
from fieldsync.network import keeper, spending
from fieldsync.network.agenda import Budget
from fieldsync.network.agent import Agent
from fieldsync.trust.membership import membership_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def start(network):
    """Agents, closed before the files are."""
    agents = []

    def start(database, identity, **options):
        agents.append(Agent(database, identity=identity, **options))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


def test_what_is_written_anywhere_comes_to_all_who_hold_it(network, start):
    server = network.serve()
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    fill(ada[0], "job/7", "first")
    for device in (ada, ben):
        start(*device, hub=server.url)
    eventually(lambda: keys(ben[0]) == {("job/7", "first")})
    for number in range(5):
        fill(ada[0], "job/7", f"a{number}")
        eventually(lambda key=f"a{number}": ("job/7", key) in keys(ben[0]))
        fill(ben[0], "job/7", f"b{number}")
        eventually(lambda key=f"b{number}": ("job/7", key) in keys(ada[0]))
    fill(network.hub, "job/7", "h")
    eventually(lambda: keys(ada[0]) == keys(ben[0]) == keys(network.hub))
    assert len(keys(ada[0])) == 12


def test_where_nothing_happens_nothing_is_said(network, start):
    server = network.serve()
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    fill(ada[0], "private", "p")
    fill(ada[0], "job/7", "a")
    for device, identity in (ada, ben, ada):  # so that everybody has heard who writes
        device.sync(server.url, identity=identity)
    agents = [start(*device, hub=server.url) for device in (ada, ben)]
    eventually(lambda: all(agent.status.last_success for agent in agents))
    eventually(lambda: all(agent.status.peers[0].state == "connected" for agent in agents))
    time.sleep(0.3)  # in which sessions that beget sessions would be held by the dozen
    before = server.sessions
    fill(ada[0], "private", "q")  # one session of ada's, and none of ben's
    eventually(lambda: ("private", "q") in keys(network.hub))
    time.sleep(0.3)
    assert server.sessions == before + 1


def test_a_scope_that_is_subscribed_to_is_filled(network, start):
    server = network.serve()
    fill(network.hub, "job/7", "a")
    fill(network.hub, "job/8", "b")
    ada, identity = network.device("ada")
    agent = start(ada, identity, hub=server.url)
    eventually(lambda: agent.status.is_connected)
    agent.subscribe("job/8", priority=1)
    eventually(lambda: keys(ada) == {("job/8", "b")})
    fill(network.hub, "job/8", "c")
    eventually(lambda: keys(ada) == {("job/8", "b"), ("job/8", "c")})


def test_an_outage_ends_by_itself(network, start):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    agent = start(ada, identity, hub=server.url)
    eventually(lambda: agent.status.is_connected)
    server.close()
    eventually(lambda: not agent.status.is_connected)
    fill(ada, "job/7", "a")
    assert agent.status.pending
    eventually(lambda: "onnect" in agent.status.why_not)
    port = int(server.url.rpartition(":")[2])
    network.stay(fs.serve(network.hub, port=port, identity=network.hub_identity))
    eventually(lambda: keys(network.hub) == {("job/7", "a")} and agent.status.pending == 0)
    assert agent.status.why_not == ""
    assert eventually(lambda: agent.status.last_success) <= datetime.now(UTC)


def test_two_devices_need_no_hub(network, start):
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    listening = start(*ada, listen=("127.0.0.1", 0))
    dialling = start(*ben, peers=[f"wss://127.0.0.1:{listening.port}"])
    fill(ada[0], "job/7", "a")
    fill(ben[0], "job/7", "b")
    eventually(lambda: keys(ada[0]) == keys(ben[0]) == {("job/7", "a"), ("job/7", "b")})
    fill(ada[0], "job/7", "c")
    eventually(lambda: len(keys(ben[0])) == 3)
    assert [peer.name for peer in listening.status.peers] == ["ben"]
    assert dialling.status.pending >= 3  # which a peer does not change


def test_devices_that_dial_each_other_keep_one_connection(network, start):
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    ports = [agent_port() for _ in range(2)]
    one = start(*ada, listen=("127.0.0.1", ports[0]), peers=[f"wss://127.0.0.1:{ports[1]}"])
    two = start(*ben, listen=("127.0.0.1", ports[1]), peers=[f"wss://127.0.0.1:{ports[0]}"])
    for number in range(10):
        fill(ada[0], "job/7", f"a{number}")
        fill(ben[0], "job/7", f"b{number}")
        eventually(lambda count=2 * number + 2: len(keys(ada[0])) == len(keys(ben[0])) == count)
    for agent in (one, two):
        assert len(agent._keeper._lines) == 1


def test_a_relay_carries_what_a_peer_has_to_the_hub(network, start):
    server = network.serve()
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    relay = start(*ada, hub=server.url, listen=("127.0.0.1", 0))
    start(*ben, peers=[f"wss://127.0.0.1:{relay.port}"])
    fill(ben[0], "job/7", "b")
    eventually(lambda: keys(network.hub) == {("job/7", "b")})
    fill(network.hub, "job/7", "h")
    eventually(lambda: keys(ben[0]) == {("job/7", "b"), ("job/7", "h")})


def test_sync_now_waits_until_all_is_synced(network, start):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    agent = start(ada, identity, hub=server.url, peers=["wss://127.0.0.1:9"])
    fill(ada, "job/7", *map(str, range(200)))
    status = agent.sync_now(deadline=20)
    assert status.pending == 0
    assert len(keys(network.hub)) == 200
    failed = next(peer for peer in status.peers if peer.name.endswith(":9"))
    assert (failed.is_connected, bool(failed.why_not)) == (False, True)


def test_sync_now_gives_up_at_its_deadline(network, start, monkeypatch):
    async def never(*_, **__):
        await keeper.asyncio.sleep(3600)

    monkeypatch.setattr(keeper, "dial", never)
    agent = start(*network.device("ada", "job/7"), hub="wss://127.0.0.1:9")
    assert [peer.state for peer in agent.sync_now(deadline=0.1).peers] == ["connecting"]


def test_a_hub_has_to_be_one(network, start):
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    listening = start(*ada, listen=("127.0.0.1", 0))
    agent = start(*ben, hub=f"wss://127.0.0.1:{listening.port}")
    eventually(lambda: "no hub" in agent.status.why_not)


def test_a_device_does_not_sync_with_itself(network, start):
    ada, identity = network.device("ada", "job/7")
    port = agent_port()
    agent = start(ada, identity, listen=("127.0.0.1", port), peers=[f"wss://127.0.0.1:{port}"])
    eventually(lambda: "this device itself" in agent.status.peers[0].why_not)


def test_a_budget_is_kept_and_renewed(network, start):
    server = network.serve()
    rows = ({"id": str(number), "text": str(number) * 50} for number in range(3000))
    network.hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    ada, identity = network.device("ada", "job/7")
    agent = start(ada, identity, hub=server.url, budget=Budget(5_000, period_seconds=0.3))
    eventually(lambda: "budget" in agent.status.why_not)
    eventually(lambda: len(keys(ada)) == 3000)


def test_a_budget_goes_on_where_the_last_agent_left_it(network, start):
    """And so it does if that was killed: what is used is written down while a session is held."""
    server = network.serve()
    rows = ({"id": str(number), "text": str(number) * 50} for number in range(3000))
    network.hub.load("notes", rows, key="id", scope=lambda _: "job/7")
    ada, identity = network.device("ada", "job/7")
    first = start(ada, identity, hub=server.url, budget=Budget(5_000))
    eventually(lambda: first.status.code == "budget-used")
    eventually(lambda: used(ada) >= 5_000)
    first.close()
    assert len(keys(ada)) < 3000
    for days, is_used in ((0, True), (2, False), (-2, False)):  # by a clock that starts anew it would never be over
        ada.replica.wall_ms = lambda days=days: int((time.time() + days * 86_400) * 1000)
        sent = server.listener.counts["bytes_sent"]
        with Agent(ada, hub=server.url, identity=identity, budget=Budget(5_000)) as again:
            eventually(lambda again=again: again.status.code == "budget-used")
        assert (server.listener.counts["bytes_sent"] < sent + 1_000) == is_used


def used(database):
    with database.replica.store.reading() as reader:
        return reader.meta(spending.BUDGET_USED) or 0


def test_the_app_is_told_of_changes(network, start):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    told = threading.Event()
    agent = start(ada, identity, hub=server.url, on_change=told.set)
    eventually(lambda: agent.status.is_connected)
    assert told.wait(20)
    told.clear()
    server.close()
    assert told.wait(20)
    assert "changes wait" in str(agent.status)


def test_an_agent_needs_an_identity_beyond_this_machine(network):
    ada = network.open("ada")
    with pytest.raises(fs.SyncError, match="identity"):
        Agent(ada, lan=True)
    with pytest.raises(fs.SyncError, match="identity"):
        Agent(ada, hub="wss://hub.example.org")
    with pytest.raises(fs.SyncError, match="loopback"):
        Agent(ada, hub="ws://hub.example.org")
    with fs.serve(network.hub) as plain, Agent(ada, hub=plain.url) as agent:
        fill(ada, "job/7", "a")
        eventually(lambda: keys(network.hub) == {("job/7", "a")})
        agent.close()
        with pytest.raises(fs.ClosedError):
            agent.sync_now()


def test_a_port_that_is_taken_is_told_at_once(network, start):
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    listening = start(*ada, listen=("127.0.0.1", 0))
    with pytest.raises(fs.ConnectionFailed, match="cannot accept"):
        start(*ben, listen=("127.0.0.1", listening.port))


def test_a_device_holds_what_it_is_told_to_hold(network, start):
    server = network.serve()
    fill(network.hub, "job/7", "a")
    fill(network.hub, "job/8", "b")
    ada, identity = network.device("ada")
    start(ada, identity, hub=server.url)
    office = membership_of(network.hub.replica, network.hub_identity)
    office.assign(identity.device, ["job/7"])
    eventually(lambda: keys(ada) == {("job/7", "a")})
    office.assign(identity.device, ["job/8"])
    eventually(lambda: keys(ada) == {("job/8", "b")})


def test_who_is_revoked_is_told_so_and_gets_nothing_more(network, start):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    agent = start(ada, identity, hub=server.url)
    eventually(lambda: agent.status.last_success)
    membership_of(network.hub.replica, network.hub_identity).revoke(identity.device)
    fill(network.hub, "job/7", "a")
    eventually(lambda: "revoked" in agent.status.why_not)
    assert keys(ada) == set()


def test_a_scope_that_may_not_be_read_is_not_told_of(network, start):
    server = network.serve()
    fill(network.hub, "job/7", "a")
    fill(network.hub, "job/8", "b")
    ada = network.open("ada")
    ada.enter("job/7", "job/8")
    identity = network.admit("ada", write=["job/7"])
    agent = start(ada, identity, hub=server.url)
    eventually(lambda: keys(ada) == {("job/7", "a")})
    eventually(lambda: agent.status.peers[0].state == "connected")
    before = server.sessions
    fill(network.hub, "job/8", "c")
    fill(network.hub, "job/7", "c")
    eventually(lambda: ("job/7", "c") in keys(ada))
    assert keys(ada) == {("job/7", "a"), ("job/7", "c")}
    assert server.sessions <= before + 1


def test_an_app_without_an_identity_may_have_its_agent_beside_it(network, start):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")
    agent = start(ada, identity, hub=server.url)
    eventually(lambda: agent.status.last_success)
    with fs.open(ada.path) as app:  # another store is as another process; it writes under names of its own
        fill(app, "job/8", "a")
        eventually(lambda: keys(network.hub) == {("job/8", "a")})


def test_a_sleep_is_noticed_by_any_clock():
    before = keeper._Moment(at=100, offset=5, network=["10.0.0.1"])
    assert not keeper._Moment(at=105, offset=5.1, network=["10.0.0.1"]).differs(before)
    assert keeper._Moment(at=3700, offset=5, network=["10.0.0.1"]).differs(before)
    assert keeper._Moment(at=105, offset=3605, network=["10.0.0.1"]).differs(before)
    assert keeper._Moment(at=105, offset=5, network=["10.0.0.2"]).differs(before)


def test_a_hub_that_is_full_says_so(network, start, monkeypatch):
    monkeypatch.setattr("fieldsync.network.server.SERVER_CONNECTIONS_MAX", 0)
    server = network.serve()
    agent = start(*network.device("ada", "job/7"), hub=server.url)
    eventually(lambda: "too many connections" in agent.status.why_not)
