"""Agents in network namespaces of their own, with real interfaces between them; where the machine lets us make some."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
from tests.networks import Network, eventually, fill, keys
from tests.switches import Switch

PEOPLE = ("ada", "ben", "cem", "dan", "eve")
HUB_ADDRESS = "10.77.0.100"
ROWS = 100  # that each writes while the network is bad: enough for TCP to lose some


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


def inside(name, *arguments):
    ip("-n", name, *arguments)


@contextmanager
def made(*names):
    """Namespaces of these names, with nothing in them but a loopback."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("namespaces are made by root, with ip of iproute2")
    names = [f"fieldsync-{os.getpid()}-{name}" for name in names]
    try:
        for name in names:
            ip("netns", "add", name)
            inside(name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        if error.cmd[1] != "netns":
            raise
        pytest.skip(f"no namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def join(one, other):
    """Lay a cable between two namespaces."""
    ip("link", "add", "eth0", "netns", one, "type", "veth", "peer", "eth0", "netns", other)
    for name in (one, other):
        inside(name, "link", "set", "eth0", "up")


@pytest.fixture
def namespaces():
    """Two namespaces with a cable between them; no addresses yet but link-local ones."""
    with made("a", "b") as names:
        join(*names)
        yield names


@contextmanager
def running(namespace, *arguments):
    """`fieldsync` in a namespace, for as long as the block lasts."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "fieldsync", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def agents(network, namespaces, *options):
    """`fieldsync agent` in each namespace, on files of ada, ben and so on; gives the databases."""
    with ExitStack() as stack:
        databases = []
        for namespace, name in zip(namespaces, PEOPLE, strict=False):
            database, identity = network.device(name, "job/7")
            databases.append(database)
            files = "--db", database.path, "--identity", identity.folder
            stack.enter_context(running(namespace, "agent", *files, *options))
        yield databases


def all_hold(databases, *names):
    return all({key for _, key in keys(database)} == set(names) for database in databases)


@pytest.mark.parametrize("addresses", [["10.77.0.1/24", "10.77.0.2/24"], []], ids=["ipv4", "ipv6"])
def test_devices_find_each_other_on_a_cable(namespaces, tmp_path, addresses):
    for name, address in zip(namespaces, addresses, strict=False):
        inside(name, "address", "add", address, "dev", "eth0")
    with Network(tmp_path) as network, agents(network, namespaces, "--lan") as (ada, ben):
        fill(ada, "job/7", "a")
        fill(ben, "job/7", "b")
        eventually(lambda: all_hold([ada, ben], "a", "b"))


def test_they_find_each_other_again_after_other_addresses_and_an_outage(namespaces, tmp_path):
    for name, address in zip(namespaces, ["10.77.0.1/24", "10.77.0.2/24"], strict=True):
        inside(name, "address", "add", address, "dev", "eth0")
        inside(name, "route", "add", "default", "dev", "eth0")
    with Network(tmp_path) as network, agents(network, namespaces, "--lan") as (ada, ben):
        fill(ada, "job/7", "a")
        eventually(lambda: all_hold([ada, ben], "a"))
        inside(namespaces[0], "link", "set", "eth0", "down")
        fill(ben, "job/7", "b")
        for name in namespaces:
            inside(name, "address", "flush", "dev", "eth0")
        for name, address in zip(namespaces, ["10.78.0.1/24", "10.78.0.2/24"], strict=True):
            inside(name, "address", "add", address, "dev", "eth0")
            inside(name, "link", "set", "eth0", "up")
            inside(name, "route", "add", "default", "dev", "eth0")
        eventually(lambda: all_hold([ada, ben], "a", "b"))


# --- five of them and a hub, on a switch that delays and loses ---


@pytest.fixture
def patient(monkeypatch):
    """Time for what a bad network needs on a busy machine; and for the switch, which shares this process."""
    monkeypatch.setattr("tests.networks.WAIT_SECONDS", 240)
    monkeypatch.setattr("tests.networks.POLL_SECONDS", 0.25)


@pytest.fixture
def switch(patient):
    """A switch, and namespaces of five devices and a hub that are plugged into it."""
    with made(*PEOPLE, "hub") as names, Switch() as switch:
        try:
            for name in names:
                switch.plug(name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no TAP devices here: {error}")
        for number, name in enumerate(names[:-1], 1):
            inside(name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        inside(names[-1], "address", "add", f"{HUB_ADDRESS}/24", "dev", "eth0")
        for name in names:
            raise_link(name)
        yield switch, names


def raise_link(name):
    inside(name, "link", "set", "eth0", "up")
    inside(name, "route", "replace", "default", "dev", "eth0")


def digests(databases):
    return {held.digest for database in databases for held in database.scopes() if held.name == "job/7"}


def agree(databases, count):
    return len(digests(databases)) == 1 and all(len(keys(database)) == count for database in databases)


def have_all(databases, people, what):
    """Whether they have what these people wrote, whatever else."""
    names = {f"{name}-{what}-{number}" for name in people for number in range(ROWS)}
    return all(names <= {key for _, key in keys(database)} for database in databases)


def firewall(name, action):
    """Let nothing into a namespace and nothing out, or all again; where this machine can do that."""
    for tool in filter(shutil.which, ("iptables", "ip6tables")):
        for chain in ("INPUT", "OUTPUT"):
            command = ["ip", "netns", "exec", name, tool, action, chain, "-j", "DROP"]
            subprocess.run(command, check=False, capture_output=True)


def write_some(databases, what):
    for name, database in zip(PEOPLE, databases, strict=True):
        rows = ({"id": f"{name}-{what}-{number}", "text": os.urandom(100).hex()} for number in range(ROWS))
        database.load("notes", rows, key="id", scope=lambda _: "job/7")


@pytest.mark.timeout(1200)
def test_five_devices_without_a_hub_and_then_with_one(switch, tmp_path):
    """They find each other, meet cuts, delay and loss, write all the while, and agree; then a hub comes back."""
    switch, names = switch
    hub_url = f"wss://{HUB_ADDRESS}:8765"
    with Network(tmp_path) as network, agents(network, names[:5], "--lan", "--hub", hub_url) as databases:
        for name, database in zip(PEOPLE, databases, strict=True):
            fill(database, "job/7", name)
        eventually(lambda: agree(databases, 5))

        switch.delay_seconds, switch.loss = 0.3, 0.05
        inside(names[0], "link", "set", "eth0", "down")
        firewall(names[1], "-A")
        write_some(databases, "apart")
        eventually(lambda: have_all(databases[2:], PEOPLE[2:], "apart"))
        raise_link(names[0])
        firewall(names[1], "-D")
        write_some(databases, "together")
        eventually(lambda: agree(databases, 5 + 2 * 5 * ROWS))
        assert switch.lost

        assert sum(held.pending for database in databases for held in database.scopes()) > 0
        files = "--db", network.hub.path, "--identity", network.hub_identity.folder
        for name in names[:5]:
            inside(name, "link", "set", "eth0", "down")
        with running(names[5], "serve", *files, "--host", "", "--port", 8765):
            write_some(databases, "alone")
            for name in names[:5]:
                raise_link(name)
            eventually(lambda: agree([*databases, network.hub], 5 + 3 * 5 * ROWS))
            eventually(lambda: not any(held.pending for database in databases for held in database.scopes()))
        assert all(database.verify().is_sound for database in [*databases, network.hub])
