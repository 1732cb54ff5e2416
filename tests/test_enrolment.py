"""Enrolment: codes that make one device each, over real TLS, and all that goes wrong on the way."""

import itertools
import os
import re
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.members import Node, shake, sync
from typer.testing import CliRunner

import fieldsync as fs
from fieldsync import codec, files
from fieldsync.cli import app
from fieldsync.errors import ConnectionFailed, IdentityError
from fieldsync.trust import enrolment
from fieldsync.trust.desk import Desk, ask
from fieldsync.trust.enrolment import Invite, answer, enrol, invite
from fieldsync.trust.identity import Identity, Organisation, Peer
from fieldsync.trust.membership import membership_of
from fieldsync.trust.rights import CONTROL, Reason, tell
from fieldsync.trust.signing import public_of
from fieldsync.trust.statements import Grant, Hub, Issuer, Member


@pytest.fixture
def hub(network):
    return membership_of(network.hub.replica, network.hub_identity)


def carry(hub):
    return lambda _, request: answer(hub, request)


def invited(hub, name="ada", **options):
    return invite(hub, name, "wss://localhost:1", **{"seconds": 60, "write": ["job/*"], **options})


def test_a_code_makes_a_device(hub, tmp_path):
    ada = enrol(invited(hub).code, tmp_path / "ada", carry(hub))
    assert (ada.name, ada.is_hub, ada.organisation) == ("ada", False, hub.identity.organisation)
    assert Identity.load(tmp_path / "ada").device == ada.device
    server, _ = shake(hub.identity.server_context(), ada.client_context())
    assert hub.identity.peer_of(server.getpeercert(True)).device == ada.device
    grant = hub.roll.grant(ada.device)
    assert (grant.write, grant.renew_days) == (("job/*",), enrolment.GRANT_DAYS)
    assert {type(enrolment_read(one)) for one in ada.said()} == {Hub, Issuer, Member, Grant}


def enrolment_read(data):
    from fieldsync.trust.statements import read

    return read(data).statement


def test_a_code_is_good_once(hub, tmp_path):
    code = invited(hub).code
    ada = enrol(code, tmp_path / "ada", carry(hub))
    with pytest.raises(IdentityError, match="used already"):
        enrol(code, tmp_path / "eve", carry(hub))
    assert hub.roll.devices() == [ada.device]


def test_a_lost_answer_is_given_again(hub, tmp_path):
    code = invited(hub).code

    def lose(_, request):
        answer(hub, request)
        raise ConnectionFailed("cut")

    with pytest.raises(ConnectionFailed):
        enrol(code, tmp_path / "ada", lose)
    with pytest.raises(IdentityError, match="used already"):
        enrol(code, tmp_path / "eve", carry(hub))
    assert enrol(code, tmp_path / "ada", carry(hub)).name == "ada"
    assert len(hub.roll.devices()) == 1


class Cut(BaseException):
    """The power goes."""


class Dying:
    """The module os, until so much is on the disk."""

    def __init__(self, syncs, patch):
        self._left = iter(range(syncs))
        self._patch = patch

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, handle):
        if next(self._left, None) is None:
            self._patch.setattr(Path, "unlink", lambda *_, **__: None)  # nobody tidies up any more
            raise Cut
        os.fsync(handle)


def test_a_power_cut_anywhere_costs_no_device(hub, tmp_path, monkeypatch):
    """While it keeps its key and what it was given: the same command goes on, with the same code."""
    for syncs in itertools.count():
        code, folder = invited(hub, f"d{syncs}").code, tmp_path / f"d{syncs}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", Dying(syncs, patch))
            try:
                enrol(code, folder, carry(hub))
                break
            except Cut:
                pass
        if not (folder / "device.crt").exists():
            enrol(code, folder, carry(hub))
        assert Identity.load(folder).name == f"d{syncs}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert syncs == 10  # four files and the code that was used, and their names


def test_a_folder_may_be_there_and_empty(hub, tmp_path):
    (tmp_path / "ada").mkdir(0o755)
    ada = enrol(invited(hub).code, tmp_path / "ada", carry(hub))
    assert stat.S_IMODE(ada.folder.stat().st_mode) == 0o700
    (tmp_path / "ben").mkdir()
    (tmp_path / "ben" / "letters").touch()
    with pytest.raises(FileExistsError, match="ben is not empty"):
        enrol(invited(hub, "ben").code, tmp_path / "ben", carry(hub))


def test_who_is_refused_is_told_why_for_programs_too(hub, tmp_path):
    code = invited(hub).code
    ada = enrol(code, tmp_path / "ada", carry(hub))
    hub.revoke(ada.device)
    for name in ("root.crt", "device.crt", "said"):
        (tmp_path / "ada" / name).unlink()
    now_ms = hub.replica.wall_ms()
    late = invite(hub, "late", "wss://localhost:1", seconds=-1).code
    never = Invite(hub.identity.device, bytes(16), "wss://localhost:1").code
    for folder, shown, reason in (
        ("eve", code, Reason.CODE_USED),
        ("eve", late, Reason.CODE_EXPIRED),
        ("eve", never, Reason.CODE_UNKNOWN),
        ("ada", invited(hub).code, Reason.KEY_REVOKED),
    ):
        with pytest.raises(IdentityError, match=re.escape(tell(reason))) as refused:
            enrol(shown, tmp_path / folder, carry(hub))
        assert refused.value.code == reason
    assert hub.replica.wall_ms() >= now_ms


def test_of_many_who_show_one_code_at_once_one_gets_in(hub, tmp_path):
    code, outcomes = invited(hub).code, []

    def attempt(number):
        try:
            outcomes.append(enrol(code, tmp_path / f"d{number}", carry(hub)).device)
        except IdentityError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=attempt, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        sorted(outcome == "this code was used already: ask for another" for outcome in outcomes) == [False] + [True] * 7
    )
    assert len(hub.roll.devices()) == 1


def test_a_code_runs_out(hub, tmp_path, monkeypatch):
    code = invited(hub).code
    now_ms = hub.replica.wall_ms()
    hub.replica.wall_ms = lambda: now_ms + 61_000
    with pytest.raises(IdentityError, match="run out"):
        enrol(code, tmp_path / "ada", carry(hub))


def test_a_code_that_was_never_given_out(hub, tmp_path):
    made = Invite(hub.identity.device, bytes(16), "wss://localhost:1")
    with pytest.raises(IdentityError, match="never given out"):
        enrol(made.code, tmp_path / "ada", carry(hub))


def test_codes_are_read_however_they_are_typed(hub):
    made = invited(hub)
    for text in (made.code, made.code.lower(), made.code.replace("-", " "), made.code.replace("-", "")):
        assert Invite.of(text) == made


def test_a_mistyped_code_is_noticed(hub):
    code = invited(hub).code
    for at in range(0, len(code), 7):
        if code[at] != "-":
            other = "B" if code[at] != "B" else "C"
            with pytest.raises(IdentityError, match="mistyped"):
                Invite.of(code[:at] + other + code[at + 1 :])
    for text in ("", "-", "AAAA", "not a code!", code[:-9]):
        with pytest.raises(IdentityError, match="mistyped"):
            Invite.of(text)


def test_the_hub_keeps_no_secret_of_a_code(hub):
    made = invited(hub)
    folder = hub.identity.folder / enrolment.INVITES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert made.secret not in path.read_bytes()
        assert made.secret.hex() not in path.name


@pytest.mark.parametrize("request_", [b"", b"x", codec.encode([b"", b"", b""]), codec.encode({"a": 1})])
def test_requests_that_are_none(hub, request_):
    assert "refused" in codec.decode(answer(hub, request_))


def test_a_request_for_somebody_elses_key_is_refused(hub, network, tmp_path):
    made = invited(hub)
    victim, own = (Identity.create_key(tmp_path / name) for name in ("victim", "own"))
    signature = own.sign(enrolment._asked(made.hub, made.secret))
    refused = codec.decode(answer(hub, codec.encode([made.secret, public_of(victim), signature])))
    assert "not signed with its own key" in refused["refused"]
    assert hub.roll.devices() == []


def test_a_key_that_was_revoked_does_not_come_back(hub, tmp_path):
    ada = enrol(invited(hub).code, tmp_path / "ada", carry(hub))
    hub.revoke(ada.device)
    for name in ("root.crt", "device.crt", "said"):
        (tmp_path / "ada" / name).unlink()
    with pytest.raises(IdentityError, match="was revoked"):
        enrol(invited(hub).code, tmp_path / "ada", carry(hub))


def test_an_answer_that_does_not_fit_is_refused(hub, tmp_path):
    spy = Organisation.create(tmp_path / "spy", "Acme", 0)
    given = codec.decode(answer_of(hub, tmp_path / "ada"))
    given["root"] = enrolment.certificates.encode(spy.certificate)
    with pytest.raises(IdentityError, match="do not lead to"):
        enrol(invited(hub).code, tmp_path / "ada", lambda *_: codec.encode(given))
    with pytest.raises(IdentityError, match="no answer"):
        enrol(invited(hub).code, tmp_path / "ada", lambda *_: codec.encode([]))


def answer_of(hub, folder):
    """What the hub answers the device of a folder."""
    made, key = invited(hub), Identity.create_key(folder)
    return answer(hub, codec.encode([made.secret, public_of(key), key.sign(enrolment._asked(made.hub, made.secret))]))


def test_two_devices_that_have_met_no_hub_since_know_each_other(hub, tmp_path):
    nodes = [
        Node(enrol(invited(hub, name).code, tmp_path / name, carry(hub)), tmp_path / f"{name}.db")
        for name in ("ada", "ben")
    ]
    for node in nodes:
        node.now_ms = hub.replica.wall_ms()
        node.db.enter("job/1")
        node.write("job/1", node.identity.name)
    for _ in range(2):
        sync(*nodes)
    assert [node.keys("job/1") for node in nodes] == [["ada", "ben"]] * 2
    for node in nodes:
        node.db.close()


def test_what_was_said_is_held_once(hub, tmp_path):
    """A device that meets the hub first adds nothing but who answers for its authors."""
    ada = Node(enrol(invited(hub).code, tmp_path / "ada", carry(hub)), tmp_path / "ada.db")
    ada.write("job/1", "a")
    office = SimpleNamespace(
        membership=hub,
        db=SimpleNamespace(replica=hub.replica),
        peer=Peer(hub.identity.device, "office", True),
    )
    sync(ada, office)
    with hub.replica.store.reading() as reader:
        assert reader.context(reader.scope(CONTROL).id).count() == len(hub.everything())
    ada.db.close()


# --- over the network ---


def test_over_tls(hub, tmp_path):
    with Desk(hub, "127.0.0.1") as desk:
        made = invite(hub, "ada", f"wss://127.0.0.1:{desk.port}", seconds=60, write=["job/*"])
        ada = enrol(made.code, tmp_path / "ada", ask)
    assert hub.roll.name(ada.device) == "ada"


def test_nothing_is_said_to_who_is_not_the_hub(hub, tmp_path, monkeypatch):
    other = Organisation.create(tmp_path / "spy", "Acme", 1 << 40).create_hub(tmp_path / "spyhub", "office", 1 << 40)
    heard = []
    monkeypatch.setattr(enrolment, "answer", lambda _, request: heard.append(request))
    with (
        fs.open(tmp_path / "spy.db", hub=True, notes=tmp_path / "notes") as database,
        Desk(membership_of(database.replica, other), "127.0.0.1") as desk,
    ):
        made = invite(hub, "ada", f"wss://127.0.0.1:{desk.port}", seconds=60)
        with pytest.raises(IdentityError, match="is not the hub that gave out the code"):
            enrol(made.code, tmp_path / "ada", ask)
    assert heard == []


def test_who_mixes_up_the_two_ports_is_told(hub, network, tmp_path):
    """That for enrolment and that for syncs."""
    made = invite(hub, "ada", network.serve().url, seconds=60)
    with pytest.raises(ConnectionFailed, match="is it the port of `fieldsync serve --admit`"):
        enrol(made.code, tmp_path / "ada", ask)
    device, identity = network.device("ben", "job/7")
    with (
        Desk(hub, "127.0.0.1") as desk,
        pytest.raises(ConnectionFailed, match="devices enrol at this port"),
    ):
        device.sync(f"wss://127.0.0.1:{desk.port}", identity=identity)


def test_where_nobody_answers(hub, tmp_path):
    made = invite(hub, "ada", "wss://127.0.0.1:1", seconds=60)
    with pytest.raises(ConnectionFailed, match="try again"):
        enrol(made.code, tmp_path / "ada", ask)


def test_a_device_admits_nobody(hub, tmp_path):
    ada = enrol(invited(hub).code, tmp_path / "ada", carry(hub))
    with (
        fs.open(tmp_path / "ada.db", notes=tmp_path / "notes") as database,
        pytest.raises(IdentityError, match="only a hub"),
    ):
        Desk(membership_of(database.replica, ada))


# --- the commands ---


def test_the_commands_from_the_root_to_a_sync(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    runner = CliRunner()

    def run(*arguments):
        done = runner.invoke(app, [str(one) for one in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    run("org", "create", tmp_path / "acme", "--name", "Acme")
    run("hub", "init", tmp_path / "hub", "--org", tmp_path / "acme", "--name", "office")
    own = ["--db", tmp_path / "hub.db", "--identity", tmp_path / "hub"]
    with fs.open(tmp_path / "hub.db", hub=True) as database:
        identity = Identity.load(tmp_path / "hub")
        with (
            Desk(membership_of(database.replica, identity), "127.0.0.1") as desk,
            fs.serve(database, identity=identity) as server,
        ):
            address = f"wss://127.0.0.1:{desk.port}"
            code = run("invite", "ada", *own, "--address", address, "--write", "job/*", "--qr").splitlines()[0]
            assert "'ada'" in run("enroll", code, tmp_path / "me")
            assert "write job/*" in run("devices", *own)
            assert "believed for 2h" in run("believe", "ada", *own, "--for", "2h")
            run("grant", "ada", *own, "--read", "job/7", "--days", 30, "--final")
            run("assign", "ada", "job/7", *own)
            with fs.open(tmp_path / "ada.db") as ada, ada.write() as tx:
                tx.create("notes", scope="job/7", key="n")
            said = run("sync", server.url, "--db", tmp_path / "ada.db", "--identity", tmp_path / "me")
            assert "job/7: refused by the peer: the device may read it, and not write" in said
            assert "out" in run("revoke", "ada", *own)
            assert "revoked" in run("devices", *own)
            with pytest.raises(fs.FieldsyncError, match="revoked"):
                run("sync", server.url, "--db", tmp_path / "ada.db", "--identity", tmp_path / "me")
