"""The commands of an organisation where something is not as it should be: what they say, and what they leave alone."""

from __future__ import annotations

import io
import sys

import pytest

import fieldsync as fs
from fieldsync.trust.enrolment import answer, enrol, invite
from fieldsync.trust.identity import Identity
from fieldsync.trust.membership import membership_of

ADDRESS = ["--address", "wss://127.0.0.1:1"]


@pytest.fixture
def place(run, tmp_path, monkeypatch):
    """An organisation, its hub and two devices of one name, in a folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    assert run("org", "create", "org", "--name", "Acme")[0] == 0
    assert run("hub", "init", "hub", "--org", "org", "--name", "office")[0] == 0
    with fs.open("hub.db", hub=True) as db:
        hub = membership_of(db.replica, Identity.load("hub"))
        for folder in ("ada", "twin"):
            code = invite(hub, "ada", ADDRESS[1], seconds=60, write=["job/*"]).code
            enrol(code, folder, lambda _, request: answer(hub, request))
    return tmp_path


HUB = ["--db", "hub.db", "--identity", "hub"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["org", "create", "org", "--name", "Acme"], "org is not empty: name a new folder"),
        (["hub", "init", "hub", "--org", "org", "--name", "office"], "hub is not empty: name a new folder"),
        (["hub", "init", "new", "--org", "hub", "--name", "office"], "root.key: No such file"),
        (["enroll", "AEAAA-BCDEF", "new"], "that is no code of an invitation, or it was mistyped"),
        (["revoke", "nobody", *HUB], "no device of the name or id 'nobody'; `fieldsync devices` shows all"),
        (["revoke", "ada", *HUB], "several devices of the name or id 'ada': "),
        (["revoke", "office", *HUB], "no device of the name or id 'office'"),
        (["invite", "ben", *HUB, "--address", "office:8766"], "'office:8766' is not an address such as"),
        (["invite", "b\x07", *HUB, *ADDRESS], "a name is 1 to 64 printable characters"),
        (["invite", "ben", *HUB, *ADDRESS, "--read", "x" * 257], "a statement that says more than one may"),
        (["devices", "--db", "hub.db", "--identity", "org"], "device.crt: No such file"),
        (["sync", "wss://127.0.0.1:1", "--db", "hub.db", "--identity", "hub"], "what had landed is kept"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(run, place, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invite", "ben", *HUB, *ADDRESS, "--write", "job*7"], "a star stands for the rest of a name"),
        (["grant", "ada", *HUB, "--read", "*/7"], "a star stands for the rest of a name"),
        (["invite", "ben", *HUB, "--address", "ws://127.0.0.1:1"], "devices enrol over TLS"),
        (["invite", "ben", *HUB, *ADDRESS, "--valid", "2 hours"], "is not a time, such as 90d"),
    ],
)
def test_a_wrong_command_line_is_explained(run, place, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not (place / "hub" / "invites").exists() or len(list((place / "hub" / "invites").iterdir())) == 4


@pytest.mark.parametrize(
    "command", [["invite", "ben", *ADDRESS], ["grant", "ada"], ["revoke", "ada"], ["believe", "ada"]]
)
def test_a_device_that_plays_the_hub_changes_nothing(run, place, command):
    """A file that was opened as a hub's takes every scope from then on."""
    fs.open("ada.db").close()
    code, _, err = run(*command, "--db", "ada.db", "--identity", "ada")
    assert (code, "only a hub says who may do what" in err) == (1, True)
    with fs.open("ada.db") as db:
        assert not db.replica.takes_all
    assert not (place / "ada" / "invites").exists()


def test_who_is_asked_in_without_any_right_is_told_of(run, place):
    code, out, err = run("invite", "ben", *HUB, *ADDRESS)
    assert (code, len(out.splitlines()), "ben may read and write nothing yet" in err) == (0, 1, True)
    code, out, err = run("invite", "ben", *HUB, *ADDRESS, "--read", "job/*")
    assert (code, len(out.splitlines()), err) == (0, 1, "")


def test_a_code_is_read_from_standard_input(run, place, monkeypatch):
    code = run("invite", "ben", *HUB, *ADDRESS)[1]
    monkeypatch.setattr("fieldsync.trust.desk.ask", lambda invited, _: pytest.fail(f"it asked {invited.address}"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(code))
    with pytest.raises(pytest.fail.Exception, match=r"it asked wss://127\.0\.0\.1:1"):
        run("enroll", "-", "ben")


def test_a_folder_of_a_device_uses_up_no_code(run, place, monkeypatch):
    monkeypatch.setattr("fieldsync.trust.desk.ask", lambda *_: pytest.fail("it asked"))
    code = run("invite", "ben", *HUB, *ADDRESS)[1].strip()
    said = run("enroll", code, "ada")
    assert (said[0], "ada holds the keys of a device already" in said[2]) == (1, True)


def test_names_do_nothing_to_a_terminal(run, place):
    """Whoever may write a scope makes the names in it, and operators look at them."""
    name = "n\x1b]0;owned\x07\x9b31m\u202e"
    with fs.open("field.db") as db, db.write() as tx:
        tx.create("notes", scope=f"job/{name}", key=name)
    shown = r"n\x1b]0;owned\x07\x9b31m\u202e"
    for code, out, err in (run("info", "field.db"), run("why", "--db", "field.db", "notes", name)):
        assert (code, err) == (0, "")
        assert shown in out
    assert shown in run("leave", "--db", "field.db", name)[2]


def test_info_tells_what_was_refused(run, place):
    with fs.open("ada.db") as db, fs.open("hub.db", hub=True) as office:
        identity, ada = Identity.load("hub"), Identity.load("ada")
        with db.write() as tx:
            tx.create("notes", scope="prices", key="n")
        with fs.serve(office, identity=identity) as server:
            db.sync(server.url, identity=ada)
    code, out, _ = run("info", "ada.db")
    assert code == 0
    assert "prices: 1 changes were refused: no grant of the device covers it (notes n)" in out
