"""Why nothing is synced, for programs: a code beside each sentence, from one table, which the documentation has."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest
from tests.networks import Network, eventually, fill, keys

import fieldsync as fs
from fieldsync.network.agent import Agent
from fieldsync.network.status import PeerStatus, Status
from fieldsync.network.wire import code_of
from fieldsync.trust.membership import DAY_MS, membership_of
from fieldsync.trust.rights import Reason, tell

DOCS = Path(__file__).parent.parent / "docs"


def test_the_documentation_has_every_code():
    listed = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", (DOCS / "security.md").read_text(), re.MULTILINE)
    codes = [code for row in listed for code in re.findall(r"`([a-z-]+)`", row)]
    assert len(codes) == len(set(codes))
    assert set(Reason) <= set(codes)
    assert all(tell(code) != code for code in Reason if code not in (Reason.CONNECTING,))


def test_a_status_says_why_not_by_code():
    def peer(code, *, is_connected=False):
        return PeerStatus("ben", "a state", is_connected, None, code and tell(code), code)

    assert Status([], 0).code == Reason.NOBODY
    assert Status([peer("")], 0).code == Reason.CONNECTING
    assert Status([], 0, "no multicast here").code == Reason.NO_MULTICAST
    assert Status([peer(Reason.CUT), peer(Reason.BUSY)], 0).code == Reason.CUT
    assert Status([peer(Reason.CUT), peer("", is_connected=True)], 0).code == ""
    lapsed = Status([peer(Reason.EXPIRED, is_connected=True)], 0)
    assert (lapsed.code, lapsed.why_not) == (Reason.EXPIRED, f"ben: {tell(Reason.EXPIRED)}")


def test_every_error_that_may_end_a_connection_has_a_code():
    errors = {
        fs.VersionMismatch(): Reason.VERSION,
        fs.ProtocolError(): Reason.NOT_ALLOWED,
        fs.Corrupt(): Reason.FILE,
        fs.ConnectionFailed(): Reason.CUT,
        fs.ConnectionFailed("full", code=Reason.BUSY): Reason.BUSY,
        TimeoutError(): Reason.UNREACHABLE,
        ConnectionRefusedError(): Reason.UNREACHABLE,
        fs.SyncError("x", code="of-a-newer-version"): "of-a-newer-version",
        fs.DigestMismatch(): Reason.FAILED,
    }
    assert {error: code_of(error) for error in errors} == errors


@pytest.mark.usefixtures("quick")
def test_a_peers_code_is_beside_its_sentence(network, tmp_path, monkeypatch):
    server = network.serve()
    ada, identity = network.device("ada", "job/7")

    def code(address, **options):
        with Agent(ada, **options, **({"hub": address} if address else {})) as agent:
            return eventually(lambda: agent.status.peers[0].code)

    assert code("wss://127.0.0.1:9", identity=identity) == Reason.UNREACHABLE
    with Network(tmp_path, "Other") as other:
        assert code(server.url, identity=other.admit("ada")) == Reason.OTHER_ORGANISATION
    ben, his = network.device("ben", "job/7")
    with fs.serve(ben, identity=his) as device:
        assert code(device.url, identity=identity) == Reason.NO_HUB
    with monkeypatch.context() as patch:
        patch.setattr("fieldsync.network.server.SERVER_CONNECTIONS_MAX", 0)
        assert code(server.url, identity=identity) == Reason.BUSY
    assert code(server.url, identity=identity, budget=fs.Budget(0)) == Reason.BUDGET_USED
    membership_of(network.hub.replica, network.hub_identity).revoke(identity.device)
    assert code(server.url, identity=identity) == Reason.REVOKED


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("who", [("ada", "ben"), ("ada",), ("ben",)])
def test_where_leases_have_run_out_both_sides_see_why_nothing_syncs(network, caplog, who):
    """Neither may name a scope to the other, so nobody is refused anything."""
    server = network.serve()
    office = membership_of(network.hub.replica, network.hub_identity)
    devices = {name: network.device(name, "job/7") for name in ("ada", "ben")}
    for name in who:
        office.grant(devices[name][1].device, write=["*"], days=1)
    for database, identity in [*devices.values(), *devices.values()]:
        database.sync(server.url, identity=identity)
    for database, _ in devices.values():
        database.replica.wall_ms = lambda: int(time.time() * 1000) + 2 * DAY_MS
    (ada, hers), (ben, his) = devices.values()
    fill(ada, "job/7", "a")
    fill(ben, "job/7", "b")
    with (
        caplog.at_level(logging.WARNING, "fieldsync"),
        Agent(ada, listen=("127.0.0.1", 0), identity=hers) as one,
        Agent(ben, peers=[f"wss://127.0.0.1:{one.port}"], identity=his) as other,
    ):
        for agent in (one, other):
            eventually(lambda agent=agent: agent.status.code == Reason.EXPIRED)
            assert agent.status.is_connected
            assert "a sync with a hub renews it" in agent.status.why_not
        names = {"ada": "the grant of ada", "ben": "this device's grant"}
        assert all(names[name] in other.status.why_not for name in who)
        assert keys(ada) != keys(ben)
    told = [record for record in caplog.records if getattr(record, "fields", {}).get("code") == Reason.EXPIRED]
    assert {record.fields["peer"] for record in told} == {hers.device, his.device}


@pytest.mark.usefixtures("quick")
def test_a_lease_that_was_renewed_lets_them_sync_at_once(network):
    server = network.serve()
    office = membership_of(network.hub.replica, network.hub_identity)
    (ada, hers), (ben, his) = (network.device(name, "job/7") for name in ("ada", "ben"))
    office.grant(hers.device, write=["*"], days=1)
    for database, identity in 2 * [(ada, hers), (ben, his)]:
        database.sync(server.url, identity=identity)
    for database in (ada, ben, network.hub):
        database.replica.wall_ms = lambda: int(time.time() * 1000) + 2 * DAY_MS
    with (
        Agent(ada, listen=("127.0.0.1", 0), identity=hers) as one,
        Agent(ben, peers=[f"wss://127.0.0.1:{one.port}"], identity=his) as other,
    ):
        fill(ada, "job/7", "a")
        eventually(lambda: other.status.code == Reason.EXPIRED)
        ada.sync(server.url, identity=hers)
        eventually(lambda: keys(ben) == {("job/7", "a")})
        eventually(lambda: one.status.code == other.status.code == "")
