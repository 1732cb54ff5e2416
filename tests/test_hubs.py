"""A hub that is lost or stolen: the root says that it is out, another one takes its devices over."""

from __future__ import annotations

import time

import pytest
from tests.members import admit, sync
from tests.talking import NOW_MS
from typer.testing import CliRunner

import fieldsync as fs
from fieldsync.cli import app
from fieldsync.errors import IdentityError
from fieldsync.trust import hubs
from fieldsync.trust.certificates import encode
from fieldsync.trust.identity import Identity, Organisation
from fieldsync.trust.membership import membership_of
from fieldsync.trust.rights import Reason


@pytest.fixture
def annex(members):
    """A second hub, which has met the first."""
    annex = members.second_hub("annex")
    sync(annex, members.hub)
    return annex


def shown(node):
    """Who a device is by the certificate that it shows."""
    return node.identity.peer_of(encode(node.identity.chain[0]))


def test_the_root_revokes_a_hub_and_any_device_carries_the_word(members, annex):
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    hubs.revoke(ada.membership, members.organisation, "office")
    sync(ada, ben)
    with pytest.raises(IdentityError, match="revoked"):
        ben.membership.trust(shown(members.hub))
    sync(ada, annex)
    assert annex.membership.roll.hubs() == [annex.device]
    assert annex.membership.roll.why_not_write(ada.device, "job/1", NOW_MS) is None  # what it said before counts


def test_what_is_here_of_a_hub_that_is_out_counts_and_no_more(members, annex):
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    members.hub.write("job/1", "good")
    for node in (ada, annex):
        sync(node, members.hub)
    hubs.revoke(ada.membership, members.organisation, members.hub.device)
    members.hub.write("job/1", "late")
    with members.hub.db.replica.store.reading() as reader:
        author = reader.dictionary.author(reader.scope("job/1").author)
    assert ada.membership.roll.last_counted(author) == 1
    hubs.revoke(annex.membership, members.organisation, "office", keep=False)
    assert annex.membership.roll.last_counted(author) == 0


@pytest.mark.parametrize(
    ("name", "why"), [("nobody", "no hub"), ("ada", "no hub"), ("twin", "several hubs"), ("office", "another")]
)
def test_whom_the_root_cannot_revoke_so(members, name, why):
    ada, root = members.device("ada", write=["job/1"]), members.organisation
    for number in range(2):
        twin = members.add(root.create_hub(members.folder / f"twin{number}", "twin", NOW_MS), hub=True)
        members.nodes.remove(twin)
        sync(twin, members.hub)
        twin.db.close()
        (members.folder / "twin.db").unlink()
    sync(ada, members.hub)
    if why == "another":
        root = Organisation.create(members.folder / "other", "Acme", NOW_MS)
    with pytest.raises(IdentityError, match=why):
        hubs.revoke(ada.membership, root, name)


def test_whoever_a_stolen_key_admits_is_not_spoken_to(members, annex):
    """Its devices pass TLS, as the root once certified its key; nothing more."""
    ada = members.device("ada", write=["job/1"])
    sync(ada, annex)
    hubs.revoke(annex.membership, members.organisation, "office", stolen=True)
    spy = admit(members.hub.identity, members.folder / "spy", "spy", NOW_MS)
    peer = spy.peer_of(encode(spy.chain[0]))
    with pytest.raises(IdentityError, match="who admitted the device was revoked"):
        annex.membership.trust(peer)
    with pytest.raises(IdentityError, match="who admitted the device was revoked"):
        annex.membership.trust(shown(ada))


def test_another_hub_adopts_what_counts(members, annex):
    """Devices keep what they may, those who are out stay out, and ada's next certificate is the other hub's."""
    ada, out = members.device("ada", write=["job/1"], assign=["job/*"]), members.device("out", write=["job/1"])
    members.hub.membership.assign(ada.device, ["job/1"])
    members.hub.membership.revoke(out.device)
    sync(annex, members.hub)
    annex.now_ms += 1000
    assert hubs.adopt(annex.membership, "office") == sorted([ada.device, out.device])
    hubs.revoke(annex.membership, members.organisation, "office", stolen=True)
    ada.db.enter("job/1")
    ada.write("job/1", "a")
    sync(ada, annex)
    assert annex.keys("job/1") == ["a"]
    annex.membership.trust(shown(ada))
    roll = annex.membership.roll
    assert (roll.grant(ada.device).assign, roll.assigned(ada.device)) == (("job/*",), {"job/1"})
    assert roll.why_not_read(out.device, "job/1", NOW_MS) is Reason.REVOKED
    assert ada.membership.renewed().chain[1] == annex.identity.issuer.certificate


def test_only_a_hub_adopts_and_only_what_counts(members, annex):
    ada = members.device("ada", write=["job/1"])
    with pytest.raises(IdentityError, match="only a hub"):
        hubs.adopt(ada.membership, "office")
    hubs.revoke(annex.membership, members.organisation, "office", stolen=True)
    with pytest.raises(IdentityError, match="admits devices"):
        hubs.adopt(annex.membership, "office")


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = Organisation.create(tmp_path / "acme", "Acme", int(time.time() * 1000))
    both = [root.create_hub(tmp_path / name, name, int(time.time() * 1000)) for name in ("office", "annex")]
    for identity in both:
        with fs.open(tmp_path / f"{identity.name}.db", hub=True) as database:
            membership_of(database.replica, identity)
    with fs.open(tmp_path / "office.db") as office, fs.open(tmp_path / "annex.db") as annex:
        for database, identity in zip((office, annex), both, strict=True):
            membership_of(database.replica, identity)
        assert annex.sync(office).complete
    own = ["--db", str(tmp_path / "annex.db"), "--identity", str(tmp_path / "annex")]
    for command in (["adopt", "office"], ["revoke", "office", "--org", str(tmp_path / "acme"), "--stolen"]):
        done = CliRunner().invoke(app, ["hub", *command, *own])
        assert done.exit_code == 0, done.output
    with fs.open(tmp_path / "annex.db") as annex:
        roll = membership_of(annex.replica, Identity.load(tmp_path / "annex")).roll
        assert [roll.name(one) for one in (*roll.hubs(), *roll.issuers())] == ["annex", "annex"]
