"""Texts, lists and maps that several write at once: the public face, merging, compaction, and updates to distrust."""

import random
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.talking import meet, met

import fieldsync as fs
from fieldsync import carrying, codec, record, texts
from fieldsync import edits as module
from fieldsync._native import update as kernel
from fieldsync.documents import Document, Splice
from fieldsync.edits import TextDraft
from fieldsync.errors import LimitExceeded, SchemaError
from fieldsync.trust.rights import Reason
from fieldsync.types import Kind

SCOPE = "job/7"


class Note(fs.Record, table="notes"):
    title: str = ""
    body: fs.Text
    steps: fs.List
    facts: fs.Map


def opened(tmp_path, *names):
    paths = [tmp_path / f"{name}.db" for name in names]
    return [fs.open(path, Note, durability="fast", hub=not place) for place, path in enumerate(paths)]


@pytest.fixture
def fleet(tmp_path):
    """A hub and two devices that hold one note."""
    hub, *devices = opened(tmp_path, "hub", "a", "b")
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="one two", steps=["x"], facts={"k": 1})
    yield from met(hub, devices, SCOPE)


def get(database, key="n"):
    return database[Note].get(key)


def held(database, key="n", field="body"):
    """The updates of a field, as they lie in the file."""
    with database.replica.store.reading() as reader:
        (row,) = reader.by_key_anywhere(reader.collection("notes").id, key)
        names = reader.dictionary.field_names
        found = record.updates(reader.dictionary, row.packed)
    return next((some for number, some in found.items() if names[number][0] == field), codec.Updates())


def digest(database):
    with database.replica.store.reading() as reader:
        return reader.scope(SCOPE).digest


def composed(updates, *arguments):
    return texts.compose(texts.held(updates), lambda: updates, *arguments)


def alone(updates, kind=pycrdt.Text):
    """What pycrdt by itself makes of updates."""
    doc = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    return doc.get("value", type=kind)


# The public face ------------------------------------------------------------------------------------------------------


def test_a_text_is_read_as_a_str_and_edited_in_place(fleet):
    hub, *_ = fleet
    assert type(get(hub).body) is str
    with hub.write() as tx:
        note = tx.get(Note, "n")
        note.body += " threé"
        note.body.insert(0, "😀 ")
        note.body.insert(-1, "e")
        assert note.body == "😀 one two threeé"
        assert "two" in note.body
        assert note.body.upper() == "😀 ONE TWO THREEÉ"
        assert (len(note.body), note.body[0], note.body[2:5]) == (16, "😀", "one")
        note.body[2:5] = "1"
        del note.body[-1]
        del note.body[0:2]
        note.body.append("!")
        assert f"{note.body:>14}|" == "  1 two three!|"
    assert get(hub).body == "1 two three!"
    with pytest.raises(AttributeError, match="is over"):
        note.body += "late"
    with hub.write() as tx:
        tx.get(Note, "n").body = "1 2 three!"
    assert get(hub).body == "1 2 three!"
    assert str(alone(held(hub))) == "1 2 three!"


def test_lists_and_maps_hold_values_as_they_are(fleet):
    hub, *_ = fleet
    values = [5, 5.0, True, None, Decimal("5.00"), date(2026, 1, 2), b"\x00", "x", [1, {"a": [2**63 - 1]}], {"b": ""}]
    with hub.write() as tx:
        note = tx.get(Note, "n")
        note.steps.extend(values)
        del note.steps[0]
        for number, value in enumerate(values):
            note.facts[str(number)] = value
        del note.facts["k"]
    note = get(hub)
    assert list(map(codec.encode, note.steps)) == list(map(codec.encode, values))
    assert list(map(codec.encode, note.facts.values())) == [codec.encode(note.facts[name]) for name in note.facts]
    assert {name: codec.encode(value) for name, value in note.facts.items()} == {
        str(number): codec.encode(value) for number, value in enumerate(values)
    }
    with hub.write() as tx:
        draft = tx.get(Note, "n")
        draft.steps[8][1]["a"].append("in place")
        draft.facts["9"]["b"] = "in place"
    assert get(hub).steps[8] == [1, {"a": [2**63 - 1, "in place"]}]
    assert get(hub).facts["9"] == {"b": "in place"}
    with hub.write() as tx:
        facts = tx.get(Note, "n").facts
        facts.setdefault("9", []).update(c=1)
        facts.setdefault("new", []).append("in place")
        assert facts.setdefault("none") is None
    assert (get(hub).facts["9"], get(hub).facts["new"]) == ({"b": "in place", "c": 1}, ["in place"])
    note.steps.clear()
    assert len(get(hub).steps) == len(values)  # what was read belongs to its reader


def test_what_two_devices_write_at_once_is_all_there(fleet):
    hub, a, b = fleet
    for device, word in ((a, "A"), (b, "B")):
        with device.write() as tx:
            note = tx.get(Note, "n")
            note.body.insert(4, word)
            note.steps.append(word)
            note.facts[word] = 1
    with b.write() as tx:
        tx.get(Note, "n").body = "on" + str(get(b).body)[3:]  # a minimal edit: one letter goes
    meet(hub, a, b)
    assert get(hub) == get(a) == get(b)
    assert get(hub).body in ("on ABtwo", "on BAtwo")
    assert sorted(get(hub).steps) == ["A", "B", "x"]
    assert get(hub).facts == {"k": 1, "A": 1, "B": 1}
    assert hub.conflicts() == []


def test_a_transaction_is_one_update_and_nothing_is_written_for_nothing(fleet):
    hub, *_ = fleet
    before = len(held(hub))
    with hub.write() as tx:
        note = tx.get(Note, "n")
        for letter in "several edits":
            note.body += letter
        note.body.insert(0, "and ")
    assert len(held(hub)) == before + 1
    with hub.write() as tx:
        note = tx.get(Note, "n")
        note.body += ""
        note.body = str(note.body)
        note.steps.extend([])
        note.facts["k"] = 1
    assert len(held(hub)) == before + 1


def test_very_many_edits_of_one_transaction(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        note = tx.get(Note, "n")
        for number in range(1_600):
            note.body.insert(number % len(note.body), "é" if number % 3 else "x")
        expected = str(note.body)
    assert get(hub).body == expected == str(alone(held(hub)))


def test_a_transaction_that_fails_leaves_no_trace(fleet):
    hub, a, _ = fleet
    with pytest.raises(AttributeError), hub.write() as tx:
        tx.get(Note, "n").body.append(" lost").append(" too")
    with pytest.raises(LimitExceeded):
        write_too_much(hub)
    with hub.write() as tx:
        tx.get(Note, "n").body += " kept"
    meet(hub, a)
    assert get(hub).body == get(a).body == "one two kept"


def write_too_much(database):
    with database.write() as tx:  # fails when it lands
        tx.get(Note, "n").body += " lost"
        tx.create(Note, scope=SCOPE, key="large", title="x" * (1 << 20))


PLACES = st.integers(0, 40)


@given(
    st.text(st.sampled_from("ab é😀"), max_size=40),
    st.lists(st.tuples(PLACES, PLACES, st.text(st.sampled_from("xy é😀"), max_size=3)), max_size=30),
    st.integers(1, 5),
)
def test_a_draft_is_what_its_edits_make(text, edits, near):
    """In as few edits as there are places that were edited, whichever is copied for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NEAR_CHARS", near)
        draft, expected = TextDraft(text), text
        for start, stop, inserted in edits:
            draft[start:stop] = inserted
            start = min(start, len(expected))
            expected = expected[:start] + inserted + expected[max(start, stop) :]
            assert len(draft) == len(expected)
        assert draft.value() == expected == "".join(draft)
        document = Document(Kind.TEXT, 5)
        document.edit([Splice(0, 0, text)] if text else [])
        document.edit(draft.splices())
        assert document.raw() == expected
        assert len(draft.splices()) <= len(edits)


def test_what_is_typed_and_corrected_at_one_place_is_one_edit():
    draft = TextDraft("one two")
    for letter in " thrre":
        draft += letter
    del draft[-2:]
    draft += "ee"
    assert draft.splices() == [Splice(7, 0, " three")]
    for _ in range(10):
        del draft[-1]
    assert draft.splices() == [Splice(3, 4, "")]
    draft.insert(0, "é")
    del draft[1]
    assert draft.splices() == [Splice(3, 4, ""), Splice(0, 1, "é")]


def test_queries_and_sql_see_the_text(fleet):
    hub, *_ = fleet
    assert hub[Note].where(body__contains="e tw").count() == 1
    assert hub[Note].where(body__contains="E TW").count() == 0
    assert hub[Note].where(body="one two", steps__contains="x", facts__contains=1).count() == 1
    assert hub.sql("SELECT body, steps, facts FROM notes") == [("one two", '["x"]', '{"k":1}')]
    with pytest.raises(TypeError, match=r"notes.body__contains wants str"):
        hub[Note].where(body__contains=5)
    plain = fs.open(hub.path) if hasattr(hub, "path") else hub
    assert plain["notes"].get("n").as_dict()["body"] == "one two"


def test_what_was_never_written_is_empty(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="empty")
    note = get(hub, "empty")
    assert (note.body, note.steps, note.facts) == ("", [], {})
    assert hub.sql("SELECT body, steps, facts FROM notes WHERE key='empty'") == [("", "[]", "{}")]
    with hub.write() as tx:
        tx.update(Note, "empty", body="first", steps=[1], facts={"a": 2})
    note = get(hub, "empty")
    assert (note.body, note.steps, note.facts) == ("first", [1], {"a": 2})


def test_fields_refuse_what_they_cannot_hold(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        note = tx.get(Note, "n")
        for name, value in (("body", 5), ("steps", "text"), ("facts", [1]), ("facts", {1: 2})):
            with pytest.raises(TypeError, match=f"notes.{name}"):
                setattr(note, name, value)
        with pytest.raises(TypeError):
            note.body += 5
        with pytest.raises(TypeError):
            note.steps.append(object())
        with pytest.raises(TypeError):
            note.facts[5] = 1
        with pytest.raises(IndexError):
            del note.body[99]
        with pytest.raises(ValueError, match="step 1"):
            note.body[::2] = ""
    assert get(hub).body == "one two"
    with pytest.raises(SchemaError, match="default_factory"):

        class Wrong(fs.Record, table="wrong"):
            steps: fs.List = []  # noqa: RUF012


def test_a_load_edits_what_differs(fleet):
    hub, *_ = fleet
    rows = [{"id": "n", "body": "one more", "steps": ["x", "y"]}, {"id": "m", "body": "new", "steps": []}]
    report = hub.load(Note, rows, key="id", scope=lambda _: SCOPE)
    assert (report.loaded, report.rejected) == (2, [])
    assert (get(hub).body, get(hub).steps, get(hub, "m").body) == ("one more", ["x", "y"], "new")
    assert len(held(hub)) == 2


# Merging and compaction -----------------------------------------------------------------------------------------------

WORDS = ["", "é", "ab", "long words "]
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.integers(0, 2), st.integers(0, 30), st.integers(0, 6), st.sampled_from(WORDS)),
        st.tuples(st.just("sync"), st.integers(1, 2)),
        st.tuples(st.just("lost"), st.integers(0, 2)),
    ),
    max_size=25,
)


@settings(max_examples=15)
@given(steps=EDITS, slack=st.sampled_from([0, 40, 256]))
def test_replicas_converge_to_what_pycrdt_merges(tmp_path_factory, steps, slack):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "TEXT_SLACK_BYTES", slack)
        fleet = opened(tmp_path_factory.mktemp("fleet"), "hub", "a", "b")
        every = set()
        with fleet[0].write() as tx:
            tx.create(Note, scope=SCOPE, key="n", body="start")
        for device in fleet[1:]:
            device.enter(SCOPE)
        meet(*fleet)
        for step in steps:
            every |= {update for database in fleet for update in held(database)}
            database = fleet[step[1]]
            if step[0] == "sync":
                database.sync(fleet[0])
            elif step[0] == "lost":
                texts._documents.clear()  # as in a process that begins
            else:
                _, _, at, deleted, inserted = step
                with database.write() as tx:
                    note = tx.get(Note, "n")
                    note.body[min(at, len(note.body)) : at + deleted] = inserted
                    expected = str(note.body)
                assert get(database).body == expected
        every |= {update for database in fleet for update in held(database)}
        meet(*fleet)
        assert len({get(database).body for database in fleet}) == 1
        again = sorted(every) * len(every)  # pycrdt alone may lose what comes before what it needs
        assert get(fleet[0]).body == str(alone(again))
        assert len(set(map(digest, fleet))) == 1
        for database in fleet:
            assert held(database) == held(fleet[0])
            assert database.verify().faults == []
        for database in fleet:
            database.close()


def test_a_long_lived_note_stays_within_twice_its_encoding(tmp_path):
    (db,) = opened(tmp_path, "hub")
    chance = random.Random(5)
    with db.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="x" * 3_000)
    written = replaced = 0
    for number in range(600):
        with db.write() as tx:
            note = tx.get(Note, "n")
            at = chance.randrange(len(note.body) + 1)
            if number % 200 == 150:
                del note.body[: len(note.body) // 2]
            elif number % 3:
                note.body.insert(at, "some words ")
            else:
                del note.body[at : at + 12]
        updates = held(db)
        latest = len(updates[-1])
        written += latest
        replaced += latest if len(updates) == 1 else 0
        assert sum(map(len, updates)) <= 2 * len(alone(updates).doc.get_update()) + texts.TEXT_SLACK_BYTES
    assert replaced
    assert written <= 4 * (written - replaced) + 3_000  # what compaction writes is paid for by edits
    db.close()


def test_replicas_that_compact_at_once_agree(fleet):
    hub, a, b = fleet
    for device in (a, b):
        for number in range(120):
            with device.write() as tx:
                tx.get(Note, "n").body.insert(number % 5, f"{number} words ")
    meet(hub, a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "TEXT_SLACK_BYTES", 0)
        for device in (a, b):
            for _ in range(40):
                with device.write() as tx:
                    tx.get(Note, "n").body += "!"
                    tx.get(Note, "n").body[0:9] = ""
    meet(hub, a, b)
    assert get(hub) == get(a) == get(b)
    assert get(hub).body.count("!") == 80
    assert held(hub) == held(a) == held(b)
    assert len(held(hub)) < 100


def test_a_note_that_is_compacted_apart_is_small_again_with_the_next_edit(fleet):
    """Each compaction covers what its writer knew; they live side by side until somebody who has both writes."""
    hub, a, b = fleet
    for _ in range(3):
        for number in range(50):
            with a.write() as tx, b.write() as ty:
                tx.get(Note, "n").body.insert(5 * number, "left ")
                ty.get(Note, "n").body += "right "
        assert all(len(held(device)) < 50 for device in (a, b))
        meet(hub, a, b)
        apart = len(held(hub))
        with hub.write() as tx:
            tx.get(Note, "n").body += "."
        meet(hub, a, b)
        for database in fleet:
            updates = held(database)
            updates.kind = Kind.TEXT
            whole = len(texts.merged(updates))
            assert sum(map(len, updates)) <= 2 * whole + texts.TEXT_SLACK_BYTES
        assert apart > len(held(hub)) > 0
    for word in ("left", "right", "."):
        assert get(hub).body.count(word) == (3 if word == "." else 150)
    assert get(hub) == get(a) == get(b)


def test_what_is_not_known_without_gaps_is_not_replaced(fleet):
    """A compaction names what it replaces by the highest number of each author: nothing may be missing below."""
    hub, *_ = fleet
    updates = held(hub)
    client = texts.client_of(b"somebody", 1)
    first = composed(updates, [Splice(0, 0, "x" * 400)], client, dict, 1 << 20)
    assert first.limits is None  # of nobody is all known
    more = codec.Updates([*updates, first.value])
    more.kind, more.stamps = updates.kind, (*updates.stamps, (77, 4, 2**62))
    author, seq, _ = updates.stamps[0]
    whole = composed(more, [Splice(0, 390, "")], client, lambda: {author: seq, 77: 4}, 1 << 20)
    assert whole.limits == {author: seq, 77: 4}
    assert str(alone([whole.value])) == "x" * 10 + get(hub).body


def test_an_edit_does_not_merge_the_text_anew(fleet, monkeypatch):
    hub, *_ = fleet
    with hub.write() as tx:
        tx.get(Note, "n").body += "."
    monkeypatch.setattr(texts, "merge", lambda *_: pytest.fail("merged anew"))
    for _ in range(50):
        with hub.write() as tx:
            tx.get(Note, "n").body += "."
        assert get(hub).body.endswith("..")


def test_what_is_kept_at_hand_is_bounded(monkeypatch):
    monkeypatch.setattr(texts, "TEXT_CACHE_COUNT_MAX", 4)
    recent = texts._Recent()
    for number in range(10):
        recent.put((1, number), 1, number)
        assert recent.get((1, number)) == number
        assert len(recent._items) <= 4
    assert [value for _, value in recent._items.values()] == [6, 7, 8, 9][-len(recent._items) :]
    monkeypatch.setattr(texts, "TEXT_CACHE_BYTES_MAX", 6)
    recent.put((1, 10), 4, "x")
    assert [value for _, value in recent._items.values()][-1] == "x"
    assert recent.take((1, 10)) == "x"
    assert recent.get((1, 10)) is None
    recent.put((1, 11), 7, "too large")
    assert sum(size for size, _ in recent._items.values()) <= 6


def test_a_text_has_a_bound(fleet, monkeypatch):
    hub, *_ = fleet
    monkeypatch.setattr(texts, "TEXT_BYTES_MAX", 2_000)
    with pytest.raises(LimitExceeded, match="at most 2000 bytes"):
        append_often(hub)
    with hub.write() as tx:
        del tx.get(Note, "n").body[3:]
    assert get(hub).body == "one"


def append_often(database):
    for _ in range(10):
        with database.write() as tx:
            tx.get(Note, "n").body += "x" * 400


def test_deleted_and_made_again(fleet):
    hub, a, b = fleet
    with hub.write() as tx:
        tx.delete(Note, "n")
    with a.write() as tx:
        tx.get(Note, "n").body += " late"
    meet(hub, a, b)
    (late,) = hub.late_edits()
    assert late.key == "n"
    assert late.values["body"].value == " late"
    with hub.write() as tx:
        tx.create(Note, scope=SCOPE, key="other", body="x")
        tx.delete(Note, "other")
        tx.create(Note, scope=SCOPE, key="other", body="again")
    assert get(hub, "other").body == "again"
    with hub.write() as tx:
        tx.recreate(late)
    assert get(hub).body == " late"  # what the edit built on is gone


def test_what_the_trash_and_the_ledger_bring_back(tmp_path):
    """Texts, lists and maps as they were; of what built on a record that is gone, what was inserted."""
    hub, a = opened(tmp_path, "hub", "a")
    with a.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="one", steps=["x", 5], facts={"k": 1})
    with a.write() as tx:
        note = tx.get(Note, "n")
        note.body += " two"
        note.steps.append("y")
        note.facts["l"] = [2]
    meet(hub, a)
    with a.write() as tx:
        note = tx.get(Note, "n")
        note.body.insert(1, "<é>")
        note.body += " late"
        note.steps[1:] = ["late", 5]
        note.facts |= {"late": True, "k": 3}
    expected = "<é> late", ["late", 5], {"late": True}
    with hub.write() as tx:
        tx.delete(Note, "n")
    hub.trim(older_than=timedelta(0))
    meet(hub, a)
    (late,) = a.late_edits()
    shown = {name: claim.value for name, claim in late.values.items()}
    assert (shown["body"], shown["steps"], shown["facts"]) == expected
    with a.write() as tx:
        tx.recreate(late)
    meet(hub, a)
    for database in (hub, a):
        note = get(database)
        assert (note.body, note.steps, note.facts) == expected
        with database.write() as tx:
            tx.get(Note, "n").body += "!"
    meet(hub, a)
    assert get(hub).body == get(a).body == "<é> late!!"
    hub.close()
    a.close()


def test_the_trash_gives_back_what_went(tmp_path):
    hub, a = opened(tmp_path, "hub", "a")
    with a.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="one", steps=["x"], facts={"k": 1})
    with a.write() as tx:
        note = tx.get(Note, "n")
        note.body += " twó"
        note.steps.append(5)
        note.facts["l"] = [2]
    before = get(a)
    meet(hub, a)
    with hub.write() as tx:
        tx.delete(Note, "n")
    hub.trim(older_than=timedelta(0))
    meet(hub, a)
    assert get(a) is None
    (entry,) = a.trash()
    assert entry.values == {"title": "", "body": "one twó", "steps": ["x", 5], "facts": {"k": 1, "l": [2]}}
    a.restore(entry)
    meet(hub, a)
    for database in (hub, a):
        note = get(database)
        assert (note.body, note.steps, note.facts) == (before.body, before.steps, before.facts)
    hub.close()
    a.close()


# Moving ---------------------------------------------------------------------------------------------------------------


def test_a_text_moves_as_one_update(fleet):
    """Whatever came before and comes late is there once."""
    hub, a, b = fleet
    for number in range(20):
        for database in (hub, a):
            with database.write() as tx:
                note = tx.get(Note, "n")
                note.body.insert(number, f"{number} ")
                note.steps.append(number)
                note.facts[str(number)] = number
        a.sync(hub)
    with b.write() as tx:
        note = tx.get(Note, "n")
        note.body += " late"
        note.steps.append("late")
    with hub.write() as tx:
        tx.get(Note, "n").body += "."
        tx.move(Note, "n", to="job/8")
    for field in ("body", "steps", "facts"):
        assert len(held(hub, field=field)) == 1
    for database in (a, b):
        database.enter("job/8")
    meet(hub, a, b)
    for database in (hub, a, b):
        note = get(database)
        assert note.scope == "job/8"
        assert note == get(hub)
        assert (note.body.count("late"), note.body.count("19 "), note.body.count("two")) == (1, 2, 1)
        assert (note.steps.count("late"), note.steps.count(7), len(note.facts)) == (1, 2, 21)
        assert database.verify().faults == []


def test_a_text_of_very_many_updates_moves(fleet, monkeypatch):
    monkeypatch.setattr(texts, "TEXT_SLACK_BYTES", 1 << 30)
    monkeypatch.setattr(carrying, "MOVED_UPDATES_MAX", 20)
    hub, *_ = fleet
    for number in range(30):
        with hub.write() as tx:
            tx.get(Note, "n").body.insert(0, str(number % 10))
    before = get(hub).body
    with hub.write() as tx:
        tx.move(Note, "n", to="job/8")
    assert (get(hub).body, get(hub).scope, len(held(hub))) == (before, "job/8", 1)


def test_texts_of_several_incarnations_do_not_become_one(fleet):
    """Which of them is read may change; together they are not what anybody wrote."""
    hub, a, b = fleet
    for device, text in ((a, "first"), (b, "second")):
        with device.write() as tx:
            tx.create(Note, scope=SCOPE, key="m", body=text)
        with device.write() as tx:
            tx.get(Note, "m").body += "!"
    meet(hub, a, b)
    with hub.replica.store.reading() as reader:
        (row,) = reader.by_key_anywhere(reader.collection("notes").id, "m")
        assert carrying.wholes(reader.dictionary, row.packed).cells == {}
        (row,) = reader.by_key_anywhere(reader.collection("notes").id, "n")
        assert carrying.wholes(reader.dictionary, row.packed).saved == 0  # it is one already


# Updates to distrust --------------------------------------------------------------------------------------------------


def updates_of(kind, *values):
    some = codec.Updates(values)
    some.kind, some.stamps = kind, tuple((1, seq, seq) for seq in range(1, len(values) + 1))
    return some


def test_what_cannot_be_read_is_left_out():
    sound = texts.begin(Kind.TEXT, "sound", 5)
    later = pycrdt.Doc(client_id=9)
    root = later.get("value", type=pycrdt.Text)
    root += "a"
    state = later.get_state()
    root += "b"
    unmet = later.get_update(state)
    foreign = pycrdt.Doc()
    foreign["other"] = pycrdt.Text("x")
    some = updates_of(Kind.TEXT, 5, "x", b"", b"\xff" * 30, sound[:-3], unmet, foreign.get_update(), sound)
    assert texts.shown(some) == "sound"
    assert texts.merged(some) is None
    assert texts.carried(some) == "soundb"
    for bad in some[:5]:
        assert texts.merged(updates_of(Kind.TEXT, sound, bad)) is None
    assert texts.salvaged(updates_of(Kind.TEXT, sound, unmet)) in ("soundb", "bsound")
    for _ in range(2):  # as they come, and with the document at hand
        written = composed(some, [Splice(0, 0, "x" * 900)], 7, lambda: {1: 99}, 1 << 20)
        assert written.limits is None  # nothing that cannot be read is ever merged away


def test_what_is_unreadable_is_compacted_around():
    """All of an author's below its first update that cannot be read may go, and of the others all."""
    sound = [texts.begin(Kind.TEXT, letter * 300, client) for letter, client in (("x", 5), ("y", 6))]
    some = updates_of(Kind.TEXT, sound[0], b"\xff" * 9, sound[1])
    some.stamps = ((1, 4, 4), (1, 7, 7), (2, 3, 8))
    written = composed(some, [Splice(0, 580, "")], 7, lambda: {1: 99, 2: 99}, 1 << 20)
    assert written.limits == {1: 6, 2: 99}
    assert len(alone([written.value])) == 20


def test_a_change_that_cannot_be_read_is_refused_and_the_rest_lands(tmp_path):
    hub, a = opened(tmp_path, "hub", "a")
    with a.write() as tx:
        tx.create(Note, scope=SCOPE, key="n", body="sound")
    with a.replica.writing() as batch:
        (number,) = batch.writer.collection_ids(["notes"])
        pending = batch.scope(SCOPE).at(number, "notes", "bad")
        pending.creates, pending.fields = True, {("body", int(Kind.TEXT)): b"\x01\x01\x05\x00\x84"}
    with a.write() as tx:
        tx.create(Note, scope=SCOPE, key="later", body="sound, too")
        tx.create(Note, scope="job/8", key="other", body="elsewhere")
    for _ in range(2):
        (refused,) = a.sync(hub).refusals
        assert (refused.scope, refused.code, refused.is_ours) == (SCOPE, Reason.UNREADABLE, True)
        assert sorted(note.key for note in hub[Note]) == ["later", "n", "other"]
        assert (get(hub, "later").body, get(hub, "other").body) == ("sound, too", "elsewhere")
        (kept,) = a.refused()
        assert (kept.code, ("notes", "bad") in kept.records) == (Reason.UNREADABLE, True)
    assert get(a, "bad").body == ""
    with a.write() as tx:
        tx.get(Note, "bad").body += "more words"
    assert get(a, "bad").body == "more words"
    with hub.write() as tx:
        tx.get(Note, "n").body += "!"
    a.sync(hub)
    assert get(a).body == "sound!"
    with a.write() as tx:
        tx.delete(Note, "bad")
    a.sync(hub)
    assert (digest(a), a.refused()) == (digest(hub), [])
    for database in (hub, a):
        assert database.verify().faults == []
        database.close()


FUZZ = """
import random, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
import pycrdt
from fieldsync import codec, documents, texts
chance = random.Random(int(sys.argv[1]))
kinds = {41: "text of é and more", 49: ["a", 5, {"b": 1}], 57: {"k": 1, "l": [2]}}
taken = 0
for turn in range(1500):
    kind = chance.choice(list(kinds))
    doc = documents.Document(kind, chance.randrange(1, 300))
    seeds = [doc.edit(texts.as_splices(kind, kinds[kind]))]
    if kind != 57:
        item = "x" if kind == 41 else (b"x",)
        seeds += [doc.edit([documents.Splice(chance.randrange(3), chance.randrange(2), item)]) for _ in range(3)]
    seeds.append(doc.whole())
    some = []
    for seed in seeds:
        raw = bytearray(seed)
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(raw))
            what = chance.randrange(4)
            if what == 0: raw[at] = chance.randrange(256)
            elif what == 1: raw[at] ^= 1 << chance.randrange(8)
            elif what == 2: raw[at:at] = chance.choice([b"\\xff" * 4 + b"\\x0f", chance.randbytes(1), b"u" * 40])
            else: del raw[at]
            if not raw: raw = bytearray(b"x")
        some.append(bytes(raw))
    taken += sum(documents.can_be_read(kind, one) for one in some)
    every = codec.Updates(some); every.kind = kind
    every.stamps = tuple((1, place, place) for place in range(len(some)))
    texts.shown(every)
    texts.salvaged(every)
    texts.merged(every)
print("done", taken)
"""


@pytest.mark.parametrize("seed", range(2))
def test_mutated_updates_neither_hang_nor_abort_nor_take_memory(seed):
    done = subprocess.run([sys.executable, "-c", FUZZ, str(seed)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-2_000:])
    assert int(done.stdout.split()[1]) > 100


def test_malformed_updates_are_refused_at_every_place():
    update = texts.begin(Kind.TEXT, "of é", 5)
    assert kernel.clocks(update, Kind.TEXT) == ({}, {5: 4})
    for size in range(len(update)):
        with pytest.raises(ValueError, match="well-formed"):
            kernel.clocks(update[:size], Kind.TEXT)
    head = b"\x01\x01\x05\x00"  # one client with one struct
    root = b"\x01\x05value"
    refused = [
        update + b"\x00",
        head + b"\x04\x01\x05other\x01x\x00",  # another root
        head + b"\x04\x00\x05\x00\x01x\x00",  # an item in an item
        head + b"\x04" + root + b"\x02\xff\xff\x00",  # no UTF-8
        head + b"\x04" + root + b"\x00\x00",  # an empty string
        head + b"\x00\x00\x00",  # nothing was collected
        head + b"\x07" + root + b"\x00\x00",  # a nested type
        head + b"\x08" + root + b"\x01\x7e\x00",  # an item of a list
        b"\x01\x01\x05\xff\xff\xff\xff\x07\x04" + root + b"\x02xx\x00",  # clocks that end too high
        b"\x02" + (head[1:] + b"\x04" + root + b"\x01x") * 2 + b"\x00",  # a client twice
        b"\x00\x01\x05\x01\x00\x00",  # an empty range
        b"\x00\x01\x05" + b"\x81\x80\x04" + b"\x00\x01" * 65_537,  # too many of them
    ]
    for bad in refused:
        with pytest.raises(ValueError, match="well-formed"):
            kernel.clocks(bad, Kind.TEXT)
    deep = head + b"\x08" + root + b"\x01" + b"\x75\x01" * 40 + b"\x7e\x00"
    with pytest.raises(ValueError, match="well-formed"):
        kernel.clocks(deep, Kind.LIST)
    assert kernel.clocks(deep.replace(b"\x75\x01" * 20, b""), Kind.LIST) == ({}, {5: 1})


def test_updates_in_any_order_and_number():
    doc, heard = pycrdt.Doc(), []
    root = doc.get("value", type=pycrdt.Text)
    subscription = doc.observe(lambda event: heard.append(event.update))
    for number in range(3_000):
        root.insert(number // 2, "x" if number % 7 else "yz")
        if number % 50 == 49:
            del root[10:12]
    doc.unobserve(subscription)
    random.Random(1).shuffle(heard)
    for some in (heard, heard[::-1]):
        assert texts.shown(updates_of(Kind.TEXT, *some)) == str(root)


def test_nobody_writes_as_a_client_that_is_waited_for():
    """Anybody may reckon as whom a replica writes next, and send what builds on that."""
    first, second, third = (pycrdt.Doc({"value": pycrdt.Text()}, client_id=client) for client in (1, 7, 5))
    first["value"] += "abc"
    second.apply_update(first.get_update())
    second["value"].insert(1, "x")
    before = second.get_state()
    third.apply_update(second.get_update())
    third["value"].insert(2, "y")
    updates = codec.Updates((first.get_update(), third.get_update(before)))
    updates.kind = Kind.TEXT
    document = texts._opened(updates, 7)
    assert document.raw() == "abc"
    assert document.client == 8
