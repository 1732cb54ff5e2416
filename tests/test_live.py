"""Texts that editors hold open: what they type is written, what others write comes into them, and nothing is lost."""

import random
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import timedelta

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.talking import meet, met

import fieldsync as fs
from fieldsync import live as module
from fieldsync import texts
from fieldsync.documents import Document

SCOPE = "job/7"


class Note(fs.Record, table="notes"):
    title: str = ""
    body: fs.Text
    steps: fs.List


def opened(tmp_path, *names):
    paths = [tmp_path / f"{name}.db" for name in names]
    return [fs.open(path, Note, durability="fast", hub=not place) for place, path in enumerate(paths)]


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """A hub and two devices that hold one note; nobody writes by himself."""
    monkeypatch.setattr(module, "LIVE_PAUSE_SECONDS", 3_600)
    hub, *devices = opened(tmp_path, "hub", "a", "b")
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="one two")
    yield from met(hub, devices, SCOPE)


def body(database, key="n"):
    return database[Note].get(key).body


def count(database):
    """How many changes the file's index has."""
    return database.scopes()[0].changes


class Loop:
    """A scheduler, as an event loop's: what is to be run in the editor's thread."""

    def __init__(self):
        self._waiting = deque()
        self._came = threading.Event()

    def __call__(self, do):
        self._waiting.append(do)
        self._came.set()

    def run(self):
        """Wait for something, and run what there is."""
        assert self._came.wait(20)
        self._came.clear()
        while self._waiting:
            self._waiting.popleft()()


def wait_for(is_true):
    for _ in range(2_000):
        if is_true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to that")


# Typing ---------------------------------------------------------------------------------------------------------------


def test_what_is_typed_is_written_as_one_edit(fleet):
    hub, *_ = fleet
    before = count(hub)
    with hub.edit(Note, "n", "body") as live:
        assert isinstance(live.text, pycrdt.Text)
        assert str(live.text) == "one two"
        for letter in " thréé":
            live.text += letter
        del live.text[0:4]
        assert not live.is_saved
        assert body(hub) == "one two"
        live.flush()
        assert live.is_saved
        assert body(hub) == "two thréé" == str(live.text)
        live.flush()
        assert count(hub) == before + 1
        live.text += "!"
    assert body(hub) == "two thréé!"
    assert hub.verify().faults == []


def test_it_is_written_after_a_pause(fleet, monkeypatch):
    monkeypatch.setattr(module, "LIVE_PAUSE_SECONDS", 0.02)
    hub, *_ = fleet
    with hub.edit(Note, "n", "body") as live:
        live.text += " three"
        wait_for(lambda: live.is_saved)
        assert body(hub) == "one two three"
        live.text += " four"
        wait_for(lambda: live.is_saved)
    assert body(hub) == "one two three four"


def test_what_others_write_comes_when_it_is_asked_for(fleet):
    hub, a, _ = fleet
    heard = []
    with hub.edit(Note, "n", "body") as live, a.edit(Note, "n", "body") as other:
        live.text.observe(lambda event: heard.append(event.delta))
        other.text += " B"
        other.flush()
        live.text.insert(0, "A ")
        heard.clear()
        meet(hub, a)
        assert str(live.text) == "A one two"
        assert live.refresh()
        assert str(live.text) == "A one two B"
        assert heard == [[{"retain": 9}, {"insert": " B"}]]
        assert live.refresh()
        assert len(heard) == 1
        live.flush()
        meet(hub, a)
        assert other.refresh()
        assert str(other.text) == "A one two B"
        with hub.write() as tx:
            tx.get(Note, "n").body[0:2] = ""
        assert live.refresh()
        assert str(live.text) == "one two B" == body(hub)
    meet(hub, a)
    assert body(a) == "one two B"


def test_an_editor_that_tells_all_there_is(fleet):
    """As that of docs/fields.md: what it holds becomes the text, and what the text becomes is shown."""
    hub, a, _ = fleet
    loop, pad = Loop(), ["one two"]
    with a.edit(Note, "n", "body", via=loop) as live:

        def show(_event=None):
            if pad[0] != str(live.text):
                pad[0] = str(live.text)

        live.text.observe(show)
        pad[0] = "one é two"
        live.assign(pad[0])
        with hub.write() as tx:
            tx.get(Note, "n").body += " three"
        a.sync(hub)
        loop.run()
        assert pad[0] == str(live.text) == "one é two three"
        live.assign("")
        live.assign("all new")
    meet(hub, a)
    assert body(hub) == "all new"


def test_a_scheduler_brings_it(fleet):
    hub, a, _ = fleet
    loop = Loop()
    with hub.edit(Note, "n", "body", via=loop) as live:
        with a.write() as tx:
            tx.get(Note, "n").body += " three"
        a.sync(hub)
        assert str(live.text) == "one two"
        loop.run()
        assert str(live.text) == "one two three"
        with live.text.doc.transaction():
            live.text += " mine"
            with a.write() as tx:
                tx.get(Note, "n").body += " four"
            a.sync(hub)
            loop.run()  # as an editor does that waits within its transaction
            assert str(live.text) == "one two three mine"
        loop.run()
        assert sorted(str(live.text).split()) == ["four", "mine", "one", "three", "two"]
    meet(hub, a)
    assert body(a) == str(live.text)


def test_not_while_the_editor_is_in_a_transaction(fleet):
    hub, *_ = fleet
    with hub.edit(Note, "n", "body") as live:
        with hub.write() as tx:
            tx.get(Note, "n").body += " three"
        with live.text.doc.transaction():
            assert not live.refresh()
            assert str(live.text) == "one two"
        assert live.refresh()
        assert str(live.text) == "one two three"


def test_several_threads_flush_what_one_types(fleet):
    hub, *_ = fleet
    live, stop, errors = hub.edit(Note, "n", "body"), threading.Event(), []

    def flush():
        while not stop.is_set():
            try:
                live.flush()
            except fs.FieldsyncError as error:
                errors.append(error)

    threads = [threading.Thread(target=flush) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(200):
        live.text.insert(number % (len(live.text) + 1), "x")
    stop.set()
    for thread in threads:
        thread.join()
    live.close()
    assert errors == []
    assert body(hub) == str(live.text)
    assert body(hub).count("x") == 200


def test_only_declared_texts(fleet):
    hub, *_ = fleet
    for field in ("title", "steps"):
        with pytest.raises(TypeError, match=f"notes.{field} is no text"):
            hub.edit(Note, "n", field)
    with pytest.raises(fs.NotFound):
        hub.edit(Note, "none", "body")


def test_a_crash_costs_what_was_not_written(tmp_path):
    script = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from tests.test_live import *
db = fs.open(sys.argv[1], Note)
with db.write() as tx:
    tx.create(Note, scope=SCOPE, key="n")
live = db.edit(Note, "n", "body")
live.text += "written"
live.flush()
live.text += " paused"
wait_for(lambda: live.is_saved)
live.text += " lost"
os._exit(9)
"""
    path, root = tmp_path / "crash.db", module.__file__.rpartition("/engine/")[0]
    done = subprocess.run([sys.executable, "-c", script, str(path), root], capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    with fs.open(path, Note) as db:
        assert body(db) == "written paused"
        with db.edit(Note, "n", "body") as live:
            live.text += "!"
        assert body(db) == "written paused!"


# Where the record goes ------------------------------------------------------------------------------------------------


def test_a_record_that_is_deleted_and_comes_back(fleet):
    hub, a, _ = fleet
    with hub.edit(Note, "n", "body") as live:
        live.text += " three"
        with a.write() as tx:
            tx.get(Note, "n").body += " late"
        with hub.write() as tx:
            tx.delete(Note, "n")
        for do in (live.flush, live.refresh):
            with pytest.raises(fs.NotFound):
                do()
        assert str(live.text) == "one two three"
        assert not live.is_saved
        meet(hub, a)
        (late,) = hub.late_edits()
        with hub.write() as tx:
            tx.recreate(late)  # another text, of what came late
        for do in (live.flush, live.refresh):
            with pytest.raises(fs.NotFound, match="another"):
                do()
        assert isinstance(live.error, fs.NotFound)
        with hub.write() as tx:
            tx.get(Note, "n").body += str(live.text)
        with pytest.raises(fs.NotFound):
            live.close()
        with suppress(fs.NotFound):
            live.close()
        live._unsaved.clear()  # the app has seen to it
    assert body(hub) == " lateone two three"


def test_a_record_that_comes_back_from_the_trash(fleet):
    hub, a, _ = fleet
    with a.edit(Note, "n", "body") as live:
        live.text += " three"
        with hub.write() as tx:
            tx.delete(Note, "n")
        hub.trim(older_than=timedelta(0))
        meet(hub, a)
        with pytest.raises(fs.NotFound):
            live.flush()
        a.restore(*a.trash())
        live.text += " four"
    meet(hub, a)
    assert body(hub) == body(a) == "one two three four"


def test_a_failing_pause_is_told_and_tried_again(fleet, monkeypatch):
    monkeypatch.setattr(module, "LIVE_PAUSE_SECONDS", 0.02)
    hub, a, _ = fleet
    a.sync(hub)
    with a.edit(Note, "n", "body") as live:
        frozen = a.path + ".bundle"
        a.leave(SCOPE, escrow=frozen, whole=True)
        live.text += " kept"
        wait_for(lambda: isinstance(live.error, fs.NotFound))
        assert not live.is_saved
        a.import_bundle(frozen)
        wait_for(lambda: live.is_saved)
        assert live.error is None
    assert body(a) == "one two kept"


def test_a_record_that_moves_is_followed(fleet):
    hub, a, _ = fleet
    with a.edit(Note, "n", "body") as live, a.edit(Note, "n", "body", scope=SCOPE) as bound:
        live.text += " before"
        live.flush()
        live.text += " between"
        with hub.write() as tx:
            tx.move(Note, "n", to="job/8")
        a.enter("job/8")
        meet(hub, a)
        live.text += " after"
        live.flush()
        meet(hub, a)
        assert live.refresh()
        with pytest.raises(fs.NotFound):
            bound.refresh()
    for database in (hub, a):
        assert body(database) == "one two before between after"
        assert database[Note].get("n").scope == "job/8"


def test_a_record_that_was_made_anew_under_the_key(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="m", body="first")
    live = hub.edit(Note, "m", "body")
    with hub.write() as tx:
        tx.delete(Note, "m")
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="m", body="second")
    live.text += " lost"
    with pytest.raises(fs.NotFound, match="another"):
        live.close()
    assert str(live.text) == "first lost"
    assert body(hub, "m") == "second"


def test_compaction_changes_nothing(fleet, monkeypatch):
    monkeypatch.setattr(texts, "TEXT_SLACK_BYTES", 0)
    hub, a, _ = fleet
    with hub.edit(Note, "n", "body") as live, a.edit(Note, "n", "body") as other:
        for number in range(60):
            live.text.insert(number % 5, f"{number} ")
            other.text += "!"
            live.flush()
            other.flush()
            if number % 10 == 9:
                with a.write() as tx:
                    tx.get(Note, "n").body[0:2] = ""
                meet(hub, a)
                live.refresh()
                other.refresh()
                assert str(live.text) == str(other.text) == body(hub) == body(a)
    with hub.replica.store.reading() as reader:
        (row,) = reader.by_key_anywhere(reader.collection("notes").id, "n")
    assert len(row.packed) < 2 * len(live.text.doc.get_update()) + 1_000


def test_what_is_too_large_stays_in_the_editor(fleet, monkeypatch):
    monkeypatch.setattr(texts, "TEXT_BYTES_MAX", 2_000)
    hub, *_ = fleet
    with hub.edit(Note, "n", "body") as live:
        with pytest.raises(fs.LimitExceeded):
            type_and_flush(live)
        assert not live.is_saved
        before = body(hub)
        del live.text[10 : len(live.text)]
        live.flush()
        assert body(hub) == str(live.text) != before


def test_what_is_no_part_of_a_text_is_refused_and_kept(fleet):
    hub, *_ = fleet
    live = hub.edit(Note, "n", "body")
    live.text.format(0, 3, {"bold": True})
    live.flush()
    live.text.insert_embed(0, {"image": "x"})
    with pytest.raises(fs.LimitExceeded):
        live.close()
    assert not live.is_saved
    assert body(hub) == "one two"


def test_closing_the_database_writes_what_editors_hold(tmp_path):
    (db,) = opened(tmp_path, "hub")
    with db.write() as tx:
        for key in ("n", "m", "gone"):
            tx.create(Note, scope=SCOPE, key=key, body="one")
    lives = [db.edit(Note, key, "body") for key in ("n", "m")]
    gone = [db.edit(Note, "gone", "body") for _ in range(2)]
    lives[0].text += " two"
    lives[0].close()
    lives[0].text += " after the end"
    lives[1].text += " two"
    for live in gone:
        live.text += " lost"
    with db.write() as tx:
        tx.delete(Note, "gone")
    with pytest.raises(fs.NotFound):
        db.close()
    with fs.open(tmp_path / "hub.db", Note) as again:
        assert (body(again), body(again, "m")) == ("one two", "one two")
    with pytest.raises(fs.ClosedError):
        lives[0].flush()


def type_and_flush(live):
    for _ in range(10):
        live.text += "x" * 400
        live.flush()


def test_no_client_writes_twice(fleet, monkeypatch):
    """Under every (client, clock) there is one thing only, whatever was written, undone and opened again."""
    hub, *_ = fleet
    clients = []
    for _ in range(5):
        with hub.edit(Note, "n", "body") as live:
            clients.append(live.text.doc.client_id)
            live.text += "x"
    assert len(set(clients)) == len(clients)
    minted = iter([1, 1, 2, 3])
    monkeypatch.setattr(texts, "client_of", lambda *_: next(minted, 4))
    document = Document(41, 1)
    monkeypatch.setattr(module.texts, "news", lambda *_: (document.whole(), {1: 5}))
    assert hub.edit(Note, "n", "body").text.doc.client_id != 1


# Editors on several devices -------------------------------------------------------------------------------------------

WORDS = ["é", "ab", "long words ", "😀"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("type"), st.integers(0, 2), st.integers(0, 40), st.integers(0, 6), st.sampled_from(WORDS)),
        st.tuples(st.sampled_from(["flush", "refresh", "sync", "crash", "reopen"]), st.integers(0, 2)),
        st.tuples(st.just("write"), st.integers(0, 2)),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=20)
@given(steps=STEPS, slack=st.sampled_from([0, 256]))
def test_editors_on_several_devices_converge(tmp_path_factory, steps, slack):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LIVE_PAUSE_SECONDS", 3_600)
        patch.setattr(texts, "TEXT_SLACK_BYTES", slack)
        fleet = opened(tmp_path_factory.mktemp("fleet"), "hub", "a", "b")
        with fleet[0].write() as tx:
            tx.create(Note, scope=SCOPE, key="n", body="start")
        for device in fleet[1:]:
            device.enter(SCOPE)
        meet(*fleet)
        editors = [database.edit(Note, "n", "body") for database in fleet]
        for step in steps:
            run(fleet, editors, *step)
        for editor in editors:
            editor.close()
        meet(*fleet)
        for editor in editors:
            assert editor.refresh()
        assert len({body(database) for database in fleet} | {str(editor.text) for editor in editors}) == 1
        assert [database.verify().faults for database in fleet] == [[], [], []]
        for database in fleet:
            database.close()


def run(fleet, editors, what, at, *more):
    database, editor = fleet[at], editors[at]
    if what == "type":
        start, deleted, inserted = more
        text = str(editor.text)
        start = min(start, len(text))
        first = len(text[:start].encode())
        with editor.text.doc.transaction():
            del editor.text[first : first + len(text[start : start + deleted].encode())]
            editor.text.insert(first, inserted)
        assert str(editor.text) == text[:start] + inserted + text[start + deleted :]
    elif what == "flush":
        editor.flush()
        assert editor.is_saved
    elif what == "refresh":
        assert editor.refresh()
        if editor.is_saved:
            assert str(editor.text) == body(database)
    elif what == "sync":
        database.sync(fleet[0 if at else 1])
    elif what == "crash":
        editor._stop_timer()
        editors[at] = database.edit(Note, "n", "body")  # what was typed into the other one is gone
        assert str(editors[at].text) == body(database)
    elif what == "reopen":
        editor.close()
        editors[at] = database.edit(Note, "n", "body")
    elif what == "write":
        with database.write() as tx:
            tx.get(Note, "n").body.insert(random.Random(at).randrange(3), "w")
    else:
        texts._documents.clear()  # as in a process that begins
