"""Agents that find each other, through cuts, delay and loss, on a clock of the test's own: they agree before long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from tests.networks import agent_port, fill, keys
from tests.virtual import Wires, until

from fieldsync.limits import PING_SECONDS, QUIET_SECONDS

PEOPLE = ("ada", "ben", "cem", "dan", "eve")
SECONDS = 60  # of their own clock, within which they have to agree


def digests(databases):
    return {held.digest for database in databases for held in database.scopes() if held.name == "job/7"}


def agree(databases, count):
    return len(digests(databases)) == 1 and all(len(keys(database)) == count for database in databases)


def pending(databases):
    return sum(held.pending for database in databases for held in database.scopes())


def write_some(databases, what):
    for name, database in zip(PEOPLE, databases, strict=True):
        fill(database, "job/7", *(f"{name}-{what}-{number}" for number in range(3)))


async def meet_cut_and_return(wires, network, port):
    """Five devices find each other, and lose each other; they write all the while; then a hub comes."""
    devices = [network.device(name, "job/7") for name in PEOPLE]
    databases = [database for database, _ in devices]
    async with AsyncExitStack() as stack:
        agents = [wires.agent(*device, f"wss://10.77.0.100:{port}") for device in devices]
        hosts = [(await stack.enter_async_context(agent))[0] for agent in agents]
        write_some(databases, "first")
        await until(lambda: agree(databases, 15), SECONDS)

        wires.delay_seconds, wires.loss = 0.3, 0.05
        wires.cut(hosts[0])
        wires.cut(hosts[1], is_known=False)
        write_some(databases, "apart")
        await until(lambda: agree(databases[2:], 15 + 9), SECONDS)
        for host in hosts[:2]:
            wires.mend(host)
        write_some(databases, "together")
        await until(lambda: agree(databases, 45), SECONDS)

        assert pending(databases)
        for host in hosts:
            wires.cut(host)
        await stack.enter_async_context(wires.hub(network.hub, network.hub_identity, port))
        write_some(databases, "alone")
        for host in hosts:
            wires.mend(host)
        await until(lambda: agree([*databases, network.hub], 60), SECONDS)
        await until(lambda: not pending(databases), SECONDS)


@pytest.mark.parametrize("seed", range(3))
def test_five_devices_agree_after_cuts_and_know_that_a_hub_has_all(seed, network, monkeypatch):
    wires = Wires(seed)
    with wires.running(monkeypatch) as run:
        run(meet_cut_and_return(wires, network, agent_port()))


async def write_at_once(wires, network):
    """Five devices that are linked write much at once: each session takes long, and all of them want the same scope."""
    devices = [network.device(name, "job/7") for name in PEOPLE]
    databases = [database for database, _ in devices]
    async with AsyncExitStack() as stack:
        for device in devices:
            await stack.enter_async_context(wires.agent(*device))
        await asyncio.sleep(10)
        wires.delay_seconds, wires.loss, wires.work_seconds = 0.3, 0.05, 0.3
        for name, database in zip(PEOPLE, databases, strict=True):
            for what in ("one", "other"):
                rows = ({"id": f"{name}-{what}-{n}", "text": wires.chance.randbytes(100).hex()} for n in range(150))
                database.load("notes", rows, key="id", scope=lambda _: "job/7")
        await until(lambda: agree(databases, 1500), 2 * SECONDS)


@pytest.mark.parametrize("seed", range(2))
def test_sessions_of_a_crowd_on_slow_machines_do_not_stop_each_other(seed, network, monkeypatch):
    wires = Wires(seed)
    with wires.running(monkeypatch) as run:
        run(write_at_once(wires, network))


async def be_seen_by_more_names(wires, network):
    """Two devices that are linked; one is announced anew, twice, and nobody takes the older names back."""
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    async with wires.agent(*ada) as (_, one), wires.agent(*ben) as (_, two):
        fill(ada[0], "job/7", "a")
        await until(lambda: len(keys(ben[0])) == 1, SECONDS)
        for keeper, other in ((one, two), (two, one)):
            for number in range(2):
                keeper._on_seen(f"name {number}", [f"wss://10.77.0.1:{other.port}"])
        await asyncio.sleep(10)
        made = len(wires.pipes)
        await asyncio.sleep(600)
        assert len(wires.pipes) == made
        fill(ben[0], "job/7", "b")
        await until(lambda: len(keys(ada[0])) == 2, SECONDS)
        return [[peer.name for peer in (await keeper.status(0)).peers] for keeper in (one, two)]


@pytest.mark.parametrize("delay_seconds", [0, 0.3])
def test_a_device_of_several_names_is_one_peer_on_one_line(delay_seconds, network, monkeypatch):
    wires = Wires(1)
    wires.delay_seconds = delay_seconds
    with wires.running(monkeypatch) as run:
        assert run(be_seen_by_more_names(wires, network)) == [["ben"], ["ada"]]


async def fall_silent(wires, network):
    """Two devices that are linked, until a wall lets nothing through; then both of them write. Who has no line then."""
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    async with wires.agent(*ada) as (_, one), wires.agent(*ben) as (host, two):
        fill(ada[0], "job/7", "a")
        await until(lambda: len(keys(ben[0])) == 1, SECONDS)
        await asyncio.sleep(5)
        wires.cut(host, is_known=False)
        fill(ada[0], "job/7", "b")
        fill(ben[0], "job/7", "c")
        await until(lambda: not len(one._lines) and not len(two._lines), QUIET_SECONDS + PING_SECONDS + 10)
        wires.mend(host)
        await until(lambda: len(keys(ada[0])) == len(keys(ben[0])) == 3, SECONDS)


@pytest.mark.parametrize("seed", range(3))
def test_a_silent_cut_is_noticed_soon_by_both_where_anything_is_pending(seed, network, monkeypatch):
    wires = Wires(seed)
    with wires.running(monkeypatch) as run:
        run(fall_silent(wires, network))


async def roam(wires, network):
    """Two devices that go from network to network together."""
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    async with wires.agent(*ada) as (host, one), wires.agent(*ben) as (other_host, two):
        for number in range(5):
            for each in (host, other_host):
                wires.cut(each)
            await asyncio.sleep(20)
            for each in (host, other_host):
                wires.mend(each)
            fill(ada[0], "job/7", f"{number}")
            await until(lambda count=number + 1: len(keys(ben[0])) == count, SECONDS)
        await asyncio.sleep(300)
        return [list(keeper._links) for keeper in (one, two)], [each.name for each in wires.announced]


def test_who_roams_keeps_no_names_of_before(network, monkeypatch):
    wires = Wires(2)
    with wires.running(monkeypatch) as run:
        known, announced = run(roam(wires, network))
    assert sorted(known) == sorted([name] for name in announced)
