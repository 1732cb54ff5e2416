"""Long texts that are edited letter by letter: an edit lies beside the record, and all is as if it did not."""

import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.simulation import schedule
from tests.simulation.apps import Apps
from tests.simulation.inner import Op

import fieldsync as fs
from fieldsync import live, record, texts, warm
from fieldsync.database import Database
from fieldsync.errors import NotFound
from fieldsync.limits import TAILS_MAX
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore, tails, warming

SCOPE = "job/7"
NOW_MS = 1_767_225_600_000
LONG = "0123456789" * 20_000


class Note(fs.Record, table="notes"):
    title: str = ""
    body: fs.Text
    steps: fs.List
    tags: fs.Set[str]
    facts: list[object] | None = None


def opened(path, seed=1):
    """A database whose chance and clock are given."""
    chance, store = random.Random(seed), SQLiteStore(path, full=False)
    return Database(Replica(store, wall_ms=lambda: NOW_MS, mint=lambda: chance.randbytes(8)), (Note,))


@pytest.fixture
def database(tmp_path):
    """A long text, at hand."""
    with opened(tmp_path / "a.db") as db:
        with db.write() as tx:
            tx.create(Note, scope=SCOPE, key="n", body=LONG, title="long")
        edit(db, "!")
        yield db


def edit(db, text, at=0, key="n"):
    with db.write() as tx:
        tx.get(Note, key).body.insert(at, text)


def pieces(path):
    """How many pieces lie beside each row."""
    with hands(path) as file:
        if not file.execute("SELECT 1 FROM sqlite_schema WHERE name='fs_tail'").fetchall():
            return {}
        return dict(file.execute("SELECT row, count(*) FROM fs_tail GROUP BY row").fetchall())


@contextmanager
def hands(path):
    """The file as SQLite has it."""
    file = apsw.Connection(str(path))
    try:
        yield file
    finally:
        file.close()


def path_of(db):
    return db.replica.store.path


def state(db):
    """All that a file says of its records."""
    with db.replica.store.reading() as reader:
        rows = [row for scope in reader.scopes() for _, some in reader.records(scope.id) for row in some]
        digests = [(scope.name, scope.digest, scope.seq) for scope in reader.scopes()]
    with hands(path_of(db)) as file:
        shown = file.execute("SELECT * FROM notes ORDER BY scope, key").fetchall()
        index = file.execute("SELECT * FROM fs_change ORDER BY scope, author, seq").fetchall()
    return rows, digests, shown, index, sorted(map(repr, db[Note].all()))


# One edit -------------------------------------------------------------------------------------------------------------


def test_an_edit_of_a_text_at_hand_does_not_read_its_updates(database, monkeypatch):
    def fail(*_):
        pytest.fail("it looked at all updates")

    edit(database, "1")
    monkeypatch.setattr(record, "updates", fail)
    monkeypatch.setattr(texts, "merge", fail)
    for letter in "abc":
        edit(database, letter)
    monkeypatch.undo()
    assert database[Note].get("n").body == "cba1!" + LONG
    assert pieces(path_of(database)) == {1: 4}
    assert database.verify().faults == []


def test_an_edit_near_the_end_of_a_text_writes_few_pages(database):
    log = Path(path_of(database) + "-wal")
    edit(database, "1", len(LONG))
    before = log.stat().st_size
    for letter in "abc":
        edit(database, letter, len(LONG) - 1_000)
    assert log.stat().st_size - before < len(LONG)  # each alone would have taken twice that


def test_others_see_it_and_it_sees_what_they_write(database):
    edit(database, "1")
    with opened(path_of(database), seed=2) as other:
        assert other[Note].get("n").body == "1!" + LONG
        assert other.sql("SELECT body, title FROM notes") == database.sql("SELECT body, title FROM notes")
        edit(other, "2")
        assert pieces(path_of(database)) == {}
        edit(database, "3")
        edit(database, "4")
        with other.write() as tx:
            tx.get(Note, "n").title = "other"
        edit(database, "5")
        assert other[Note].get("n").body == database[Note].get("n").body == "54321!" + LONG
    assert database[Note].get("n").title == "other"
    assert database.verify().faults == []


def test_a_transaction_that_fails_leaves_nothing(database, monkeypatch):
    edit(database, "1")
    before = state(database)
    with monkeypatch.context() as patched:
        patched.setattr(tails, "show", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            edit(database, "lost")
    assert state(database) == before
    edit(database, "2")
    edit(database, "3")
    assert database[Note].get("n").body == "321!" + LONG
    assert database.verify().faults == []


def test_what_is_not_edited_is_read_as_it_was(database):
    with database.write() as tx:
        note = tx.get(Note, "n")
        note.tags, note.facts = {"a"}, [1, [2]]
        note.steps.append({"in": [1]})
    for number in range(3):
        with database.write() as tx:
            note = tx.get(Note, "n")
            note.body.insert(0, str(number))
            assert (note.tags, note.facts, note.steps[0]) == ({"a"}, [1, [2]], {"in": [1]})
    with database.write() as tx:
        note = tx.get(Note, "n")
        note.facts[1].append(3)
        note.steps[0]["in"].append(2)
    for number in range(3):
        edit(database, str(number))
    with database.write() as tx:
        note = tx.get(Note, "n")
        assert (note.tags, note.facts, note.steps[0]) == ({"a"}, [1, [2, 3]], {"in": [1, 2]})
    assert database.verify().faults == []


def test_an_editor_writes_pieces_too(database, monkeypatch):
    monkeypatch.setattr(live, "LIVE_PAUSE_SECONDS", 3_600)
    with database.edit(Note, "n", "body") as editor:
        for letter in "abc":
            editor.text.insert(0, letter)
            editor.flush()
        edit(database, "1")
        editor.refresh()
        editor.text.insert(0, "d")
    assert database[Note].get("n").body == "d1cba!" + LONG
    assert pieces(path_of(database)) == {1: 5}
    assert database.verify().faults == []


# Rows with pieces beside them -----------------------------------------------------------------------------------------


def test_pieces_are_taken_in_when_there_are_many(database, monkeypatch):
    monkeypatch.setattr(warming, "TAIL_PIECES_MAX", 4)
    seen = []
    for number in range(11):
        edit(database, str(number % 10))
        seen.append(pieces(path_of(database)).get(1, 0))
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]
    assert database[Note].get("n").body == "09876543210!" + LONG


def test_few_rows_have_pieces_beside_them(database, monkeypatch):
    monkeypatch.setattr(warming, "TAILS_MAX", 2)
    for key in "xyz":
        with database.write() as tx:
            tx.create(Note, scope=SCOPE, key=key, body=LONG)
        for letter in "ab":
            edit(database, letter, key=key)
    assert pieces(path_of(database)) == {3: 1, 4: 1}
    assert {note.key: note.body[:2] for note in database[Note].all()} == {"n": "!0", "x": "ba", "y": "ba", "z": "ba"}
    assert database.verify().faults == []


def test_as_many_rows_have_pieces_as_may(database):
    for n in range(TAILS_MAX - 1):
        with database.write() as tx:
            tx.create(Note, scope=SCOPE, key=f"k{n}", body=LONG[:9000])
        for letter in "ab":
            edit(database, letter, key=f"k{n}")
    edit(database, "?")
    assert len(pieces(path_of(database))) == TAILS_MAX


def test_damage_beside_a_row_does_not_stop_the_edits_of_another(database, monkeypatch):
    monkeypatch.setattr(warming, "TAILS_MAX", 1)
    with database.write() as tx:
        tx.create(Note, scope=SCOPE, key="other", body=LONG[:9000])
    edit(database, "?")
    with hands(path_of(database)) as file:
        file.execute("UPDATE fs_tail SET piece=x'01'")
    for letter in "abc":
        edit(database, letter, key="other")
    assert database[Note]["other"].body == "cba" + LONG[:9000]
    assert [fault.key for fault in database.verify().faults if fault.key] == ["n"]


def test_what_is_left_of_damaged_pieces_gets_into_no_later_record(database):
    for letter in "abc":
        edit(database, letter)
    with hands(path_of(database)) as file:
        file.execute("DELETE FROM fs_tail WHERE n=0")
    with database.write() as tx:
        tx.delete(Note, "n")
    with database.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body=LONG)
    for letter in "de":
        edit(database, letter)
    assert database[Note]["n"].body == "ed" + LONG
    assert pieces(path_of(database)) == {1: 1}  # the first edit wrote the row


def test_a_record_that_is_at_hand_no_more_is_read_anew(database, monkeypatch):
    """Within a transaction, whose draft has it: one scope's change may fold the row before the next one lands."""
    with database.write() as tx:
        tx.create(Note, scope="other", key="n", body=LONG[:9000])
    monkeypatch.setattr(warming, "TAIL_PIECES_MAX", 3)
    for letter in "abc":
        with database.write() as tx:
            tx.get(Note, "n", scope=SCOPE).body.insert(0, letter)
    with database.write() as tx:
        for scope in ("other", SCOPE):
            tx.get(Note, "n", scope=scope).body.insert(0, "!")
    assert database[Note].get("n", scope=SCOPE).body == "!cba!" + LONG
    assert database.verify().faults == []


def test_rows_may_have_room_made_for_others_while_a_draft_has_them(database):
    scopes = {key: SCOPE if key < 8 else f"job/{key + 100}" for key in range(10)}
    for key, scope in scopes.items():
        with database.write() as tx:
            tx.create(Note, scope=scope, key=f"k{key}", body=LONG[:9000])
    for key in [*range(8), *range(8), 0, 8, *range(2, 8)]:
        edit(database, "a", key=f"k{key}")
    with database.write() as tx:
        for key in (9, 8, 0):
            tx.get(Note, f"k{key}").body.insert(0, "!")
    assert [database[Note][f"k{key}"].body[:2] for key in (9, 8, 0)] == ["!0", "!a", "!a"]
    assert database.verify().faults == []


def test_they_go_with_the_record_and_with_the_scope(database):
    edit(database, "1")
    with database.write() as tx:
        tx.delete(Note, "n")
    assert pieces(path_of(database)) == {}
    with database.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body=LONG)
    for letter in "ab":
        edit(database, letter)
    assert pieces(path_of(database)) == {1: 1}
    database.leave(SCOPE, lose_pending=True)
    assert pieces(path_of(database)) == {}
    with database.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="new")
    edit(database, "a")
    assert database[Note].get("n").body == "anew"
    assert database.verify().faults == []


def test_a_later_version_of_the_app_finds_all(database, tmp_path):
    class Later(fs.Record, table="notes"):
        body: fs.Text = fs.field(search=True)
        author: str | None = None

    edit(database, "1")
    with fs.open(path_of(database), Later) as later:
        assert pieces(path_of(database)) == {}
        assert later[Later].get("n").body == "1!" + LONG
        for word in ("once ", "twice "):
            with later.write() as tx:
                tx.get(Later, "n").body.insert(0, word)
        assert [one.key for one in later[Later].search("twice")] == ["n"]
        assert pieces(path_of(database)) == {}
        assert later.verify().faults == []


def test_queries_and_syncs_give_what_is_beside_too(database, tmp_path):
    edit(database, "1")
    with opened(tmp_path / "b.db", seed=2) as other:
        other.enter(SCOPE)
        other.sync(database)
        assert other[Note].get("n") == database[Note].get("n") == database[Note].where(title="long").first()
        edit(database, "2")
        other.sync(database)
        edit(other, "3")
        edit(other, "4")
        other.sync(database)
        edit(database, "5")
        database.sync(other)
        assert other[Note].get("n").body == database[Note].get("n").body == "54321!"[: len("54321!")] + LONG
        assert state(other)[1][0][:2] == state(database)[1][0][:2]
        for db in (database, other):
            assert db.verify().faults == []


def test_a_log_tells_of_each_edit(database):
    edit(database, "1")
    database.replica.keep_audit()
    edit(database, "2")
    assert len(list(database.sql("SELECT 1 FROM fieldsync_audit WHERE field='body'"))) == 1
    assert database.verify().faults == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE fs_tail SET piece=x'01' WHERE n=1",
        "UPDATE fs_tail SET piece=substr(piece, 1, 12) WHERE n=0",
        "DELETE FROM fs_tail WHERE n=0",
        "DELETE FROM fs_tail WHERE n=1",
        "DELETE FROM fs_record_1",
        "UPDATE fs_tail SET row=99",
    ],
)
def test_damage_is_found_and_mended(database, tmp_path, damage):
    with opened(tmp_path / "b.db", seed=2) as other:
        for letter in "123":
            edit(database, letter)
        other.enter(SCOPE)
        other.sync(database)
        before = database[Note].get("n")
        with hands(path_of(database)) as file:
            file.execute(damage)
        assert not database.verify().is_sound
        assert database.verify(repair=True).is_sound
        database.sync(other)
        assert database[Note].get("n") == before
        edit(database, "4")
        edit(database, "5")
        assert database[Note].get("n").body == "54" + before.body
        assert database.verify().faults == []


WRITER = """
import sys
import fieldsync as fs
from fieldsync.sqlite import warming
from tests.test_tails import Note
warming.TAIL_PIECES_MAX = 3
with fs.open(sys.argv[1], Note) as db:
    for number in range(10_000):
        with db.write() as tx:
            tx.get(Note, "n").body.insert(0, chr(97 + number % 26))
        print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(database):
    path = path_of(database)
    database.close()
    expected = "!" + LONG
    for run in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as child:
            for _ in range(5 + run):
                assert child.stdout.readline()
            time.sleep(0.001 * run)
            child.kill()
            said = 5 + run + len(child.stdout.read().split())
        with opened(path) as db:
            body = db[Note].get("n").body
            count = len(body) - len(expected)
            assert said <= count <= said + 1
            assert body == "".join(chr(97 + number % 26) for number in reversed(range(count))) + expected
            assert db.verify().faults == []
            expected = body


# The same with and without --------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abc")
ACTIONS = st.one_of(
    st.tuples(st.just("insert"), KEYS, st.integers(0, 30), st.text(alphabet="xé😀", min_size=1, max_size=12)),
    st.tuples(st.just("insert"), KEYS, st.integers(0, 30), st.just("many more letters " * 9)),
    st.tuples(st.just("cut"), KEYS, st.integers(0, 30), st.integers(1, 300)),
    st.tuples(st.just("step"), KEYS),
    st.tuples(st.just("title"), KEYS, st.sampled_from("xy")),
    st.tuples(st.just("both"), KEYS, KEYS),
    st.tuples(st.just("again"), KEYS),
    st.sampled_from([("fail",), ("reopen",), ("other",), ("theirs",), ("sync",)]),
)


def act(world, action, *arguments):
    """Do one thing to a database, which has a peer."""
    db, peer, path = world
    if action in ("sync", "reopen", "other", "theirs"):
        if action == "sync":
            db.sync(peer)
        if action == "theirs":
            edit(peer, "theirs", key="a")
        if action == "reopen":
            db.close()
            world[0] = opened(path, seed=7)
        if action == "other":
            with opened(path, seed=8) as other:
                edit(other, "other", key="a")
        return
    with db.write() as tx:
        if action == "insert":
            key, at, text = arguments
            tx.get(Note, key).body.insert(at, text)
        if action == "cut":
            key, at, count = arguments
            del tx.get(Note, key).body[at : at + count]
        if action == "step":
            tx.get(Note, arguments[0]).steps.append([1])
        if action == "title":
            tx.get(Note, arguments[0]).title = arguments[1]
        if action == "both":
            for key in arguments:
                tx.get(Note, key).body.append("both")
        if action == "again":
            tx.delete(Note, arguments[0])
            tx.create(Note, scope=SCOPE, key=arguments[0], body="again")
        if action == "fail":
            tx.get(Note, "a").body.append("lost")
            raise NotFound("on purpose")


def play(folder, actions):
    """What comes of it: of the database, and of its peer."""
    texts._documents.clear()
    texts._shown.clear()
    folder.mkdir()
    path = str(folder / "a.db")
    world = [opened(path), opened(folder / "b.db", seed=2), path]
    with world[0].write() as tx:
        for key in "abc":
            tx.create(Note, scope=SCOPE, key=key, body="begun" * 40)
    world[1].enter(SCOPE)
    world[1].sync(world[0])
    had = 0
    for action in actions:
        try:
            act(world, *action)
        except NotFound:
            assert action == ("fail",)
        had = max(had, sum(pieces(path).values()))
    for db in world[:2]:
        assert db.verify().faults == []
    found = state(world[0]), state(world[1])
    world[0].close()
    world[1].close()
    return found, had


SOME = [("insert", key, at, "letters") for key in "ab" for at in range(8)]


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTIONS, min_size=4, max_size=30))
@example(SOME)
def test_files_and_what_travels_are_the_same_without_it(tmp_path_factory, actions):
    folder = tmp_path_factory.mktemp("play")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warm, "TAIL_RECORD_BYTES", 1)
        patched.setattr(warming, "TAIL_PIECES_MAX", 4)
        patched.setattr(warming, "TAILS_MAX", 2)
        quick, most = play(folder / "quick", actions)
        patched.setattr(warm, "TAIL_RECORD_BYTES", 1 << 60)
        slow, none = play(folder / "slow", actions)
    assert most > 1 or actions != SOME
    assert none == 0
    assert quick == slow


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6])
def test_random_schedules_of_people_who_type(seed, monkeypatch):
    chance, seen = random.Random(seed), []
    play, whole = Apps.transact, tails._whole

    def transact(self, device):
        play(self, device)
        op = Op("update", chance.choice(sorted(device.scopes())), "orders", chance.choice(sorted(self.keys)))
        declared = device.database._collections.get("orders")
        if declared and "notes" in declared.places and op.key in device.keys(op.scope, op.collection):
            for number in range(chance.choice([2, 3, 6])):
                device.transact([replace(op, edits=(("notes", "insert", chance.randrange(1_000), f"<{number}>"),))])

    monkeypatch.setattr(Apps, "transact", transact)
    monkeypatch.setattr(warm, "TAIL_RECORD_BYTES", 1)
    monkeypatch.setattr(warming, "TAIL_PIECES_MAX", 3)
    monkeypatch.setattr(tails, "_whole", lambda *given: seen.append(1) or whole(*given))
    assert schedule.run(seed).violation is None
    assert seen
