"""Finding peers on the local network: what is announced, who is believed, and real mDNS where the machine has it."""

from __future__ import annotations

import asyncio

import pytest
from tests.networks import eventually, fill, keys

from fieldsync.network import discovery
from fieldsync.network.agent import Agent
from fieldsync.network.discovery import Discovery, addresses_of, is_ours, mark


def records(organisation, salt=b"0123456789abcdef", **other):
    return {b"v": b"1", b"s": salt, b"o": mark(organisation, salt)} | {key.encode(): other[key] for key in other}


def test_only_devices_of_the_organisation_are_known():
    assert is_ours(records("acme"), "acme")
    assert not is_ours(records("other"), "acme")
    assert not is_ours(records("acme", v=b"2"), "acme")
    assert not is_ours(records("acme", o=None), "acme")
    assert not is_ours({}, "acme")
    assert not is_ours(records("acme") | {b"s": b""}, "acme")
    assert not is_ours(records("acme") | {b"s": b"x" * 65}, "acme")


def test_records_tell_nothing_that_lasts():
    one, two = Discovery("acme", 1, print, print), Discovery("acme", 1, print, print)
    assert one._name != two._name
    services = [each._service(discovery._zeroconf()) for each in (one, two)]
    assert services[0].properties.keys() == {b"v", b"s", b"o"}
    assert all(services[0].properties[key] != services[1].properties[key] for key in (b"s", b"o"))
    assert all(is_ours(service.properties, "acme") for service in services)


def test_addresses_are_dialled_ipv4_first_and_few():
    assert addresses_of(["fe80::1%2", "10.0.0.1"], 8765) == ["wss://10.0.0.1:8765", "wss://[fe80::1%2]:8765"]
    assert addresses_of(["10.0.0.1"], None) == []
    assert len(addresses_of([f"10.0.0.{n}" for n in range(100)], 1)) == 8


def multicast_works(interfaces):
    """Whether two responders of this process hear each other."""

    async def hear():
        heard = asyncio.Event()
        one = Discovery("acme", 7, lambda *_: heard.set(), print, interfaces=interfaces)
        two = Discovery("acme", 8, print, print, interfaces=interfaces)
        await two.start()
        await one.start()
        try:
            await asyncio.wait_for(heard.wait(), 5)
        except TimeoutError:
            return False
        finally:
            await one.close()
            await two.close()
        return True

    return asyncio.run(hear())


@pytest.fixture(scope="module")
def local():
    """Interfaces on which to be found."""
    if not multicast_works(["127.0.0.1"]):
        pytest.skip("no multicast on this machine's loopback")
    return ["127.0.0.1"]


def test_devices_hear_of_each_other_and_of_no_others(local):
    async def listen():
        seen, lost = {}, asyncio.Event()
        here = Discovery("acme", 7, seen.__setitem__, lambda _: lost.set(), interfaces=local)
        friend = Discovery("acme", 8, print, print, interfaces=local)
        stranger = Discovery("other", 9, print, print, interfaces=local)
        for each in (stranger, friend, here):
            await each.start()
        for _ in range(200):
            if seen:
                break
            await asyncio.sleep(0.05)
        assert seen == {friend._name: ["wss://127.0.0.1:8"]}
        await friend.close()
        await asyncio.wait_for(lost.wait(), 10)
        await stranger.close()
        await here.close()
        assert len(seen) == 1

    asyncio.run(listen())


def test_agents_find_each_other_and_sync(local, network, monkeypatch):
    monkeypatch.setattr(
        "fieldsync.network.discovery.Discovery.__init__",
        lambda self, *arguments, real=Discovery.__init__: real(self, *arguments, interfaces=local),
    )
    ada, ben = network.device("ada", "job/7"), network.device("ben", "job/7")
    with Agent(ada[0], lan=True, identity=ada[1]) as one, Agent(ben[0], lan=True, identity=ben[1]) as two:
        fill(ada[0], "job/7", "a")
        fill(ben[0], "job/7", "b")
        eventually(lambda: keys(ada[0]) == keys(ben[0]) == {("job/7", "a"), ("job/7", "b")})
        assert one.status.is_connected
        assert two.status.is_connected
        eventually(lambda: len(one._keeper._lines) == len(two._keeper._lines) == 1)
        eventually(lambda: [peer.name for peer in one.status.peers] == ["ben"])


def test_where_there_is_no_multicast_it_says_so(network, monkeypatch):
    def refuse(**_):
        raise OSError("no such device")

    monkeypatch.setattr(discovery._zeroconf().asyncio, "AsyncZeroconf", refuse)
    ada, identity = network.device("ada")
    with Agent(ada, lan=True, identity=identity) as agent:
        eventually(lambda: "no peers can be found on this network: no such device" in agent.status.why_not)


def test_a_network_that_did_not_allow_it_is_asked_again(network, monkeypatch):
    asked = []

    def refuse(**_):
        asked.append(1)
        raise OSError("no such device")

    monkeypatch.setattr(discovery._zeroconf().asyncio, "AsyncZeroconf", refuse)
    monkeypatch.setattr("fieldsync.network.keeper.RETRY_SECONDS_MAX", 0.01)
    ada, identity = network.device("ada")
    with Agent(ada, lan=True, identity=identity):
        eventually(lambda: len(asked) > 2)


def test_an_answer_that_is_lost_is_asked_for_again(monkeypatch):
    monkeypatch.setattr("fieldsync.network.discovery.RETRY_FIRST_SECONDS", 0.001)
    package, asked = discovery._zeroconf(), []

    class Lost(package.asyncio.AsyncServiceInfo):
        async def async_request(self, *_):
            asked.append(self.name)
            if len(asked) < 3:
                return False
            self._set_properties(records("acme"))
            self.port, self.addresses = 8, [bytes([10, 0, 0, 1])]
            return True

    monkeypatch.setattr(package.asyncio, "AsyncServiceInfo", Lost)

    async def listen():
        seen = asyncio.get_running_loop().create_future()
        here = Discovery("acme", 7, lambda *found: seen.set_result(found), print)
        here._on_change(None, discovery.SERVICE, f"x.{discovery.SERVICE}", package.ServiceStateChange.Added)
        found = await asyncio.wait_for(seen, 20)
        assert not here._resolving
        return found

    assert asyncio.run(listen()) == ("x", ["wss://10.0.0.1:8"])
    assert len(asked) == 3
