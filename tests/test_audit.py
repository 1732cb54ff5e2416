"""The audit log: what it tells is what happened, it is there when changes are, and only ever appended to."""

import random
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import apsw
import pytest

import fieldsync as fs
from fieldsync import clock, recording

MINUTE = timedelta(minutes=1)


class Order(fs.Record, table="orders"):
    customer: str
    status: str = "open"
    price: Decimal | None = None
    hours: fs.Counter = 0
    tags: set[str]
    notes: fs.Text
    steps: fs.List
    facts: fs.Map


@pytest.fixture
def opened(tmp_path):
    every = []

    def opened(name, **options):
        every.append(fs.open(tmp_path / f"{name}.db", Order, notes=tmp_path / "notes", durability="fast", **options))
        return every[-1]

    yield opened
    for db in every:
        db.close()


@pytest.fixture
def hub(opened):
    return opened("hub", hub=True, audit=True)


def told(db, **wanted):
    """(kind, field, old, new, won) of the log's rows."""
    every = [entry for entry in db.audit() if all(getattr(entry, name) == value for name, value in wanted.items())]
    return [(entry.kind, entry.field, entry.old, entry.new, entry.won) for entry in every]


def make(db, key="o-1", scope="s", **fields):
    with db.write() as tx:
        tx.create(Order, scope=scope, key=key, **{"customer": "Acme", **fields})


def pair(opened, hub):
    """Two devices that hold the hub's scope s, with one order in it."""
    ada, ben = opened("ada"), opened("ben")
    make(hub, tags={"new"}, notes="Hello")
    for device in (ada, ben):
        device.enter("s")
        device.sync(hub)
    return ada, ben


def test_own_changes_are_told(hub):
    make(hub, price=Decimal("12.50"), tags={"b", "a"}, steps=[1], facts={"x": date(2026, 1, 2)}, notes="Hello")
    with hub.write() as tx:
        order = tx.get(Order, "o-1")
        order.status, order.price = "done", None
        order.hours += 2
        order.tags |= {"c"}
        order.tags.discard("a")
        order.notes.insert(5, " Ada")
        order.steps.append("two")
        order.facts["y"] = 1
    with hub.write() as tx:
        tx.delete(Order, "o-1")
    first, *edits, last = told(hub)
    made = {"customer": "Acme", "status": "open", "price": "12.50", "tags": ["a", "b"], "notes": "Hello", "steps": [1]}
    assert first == ("create", None, None, {**made, "facts": {"x": "2026-01-02"}}, True)
    assert sorted(edits, key=str) == sorted(
        [
            ("edit", "status", "open", "done", True),
            ("edit", "price", "12.50", None, True),
            ("edit", "hours", None, 2, True),
            ("edit", "tags", ["a"], None, True),
            ("edit", "tags", None, ["c"], True),
            ("edit", "notes", {"at": 5, "is": ""}, {"at": 5, "is": " Ada"}, True),
            ("edit", "steps", {"at": 1, "is": []}, {"at": 1, "is": ["two"]}, True),
            ("edit", "facts", {}, {"y": 1}, True),
        ],
        key=str,
    )
    assert last[0:2] == ("delete", None)
    was = last[2]
    assert (was["status"], was["hours"], was["tags"], was["notes"]) == ("done", 2, ["b", "c"], "Hello Ada")


def test_who_and_when(opened, hub):
    ada, _ = pair(opened, hub)
    with ada.write() as tx:
        tx.update(Order, "o-1", status="done")
    stamp = ada[Order].get("o-1").stamps()["status"]
    ada.sync(hub)
    entry = hub.audit()[-1]
    assert (entry.author, entry.written) == (stamp.author, stamp.when)
    assert entry.written <= entry.landed <= datetime.now(UTC)
    (row,) = hub.sql("SELECT author, stamp, landed, seq FROM fieldsync_audit WHERE field='status'")
    written = f"{entry.written:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
    assert row[:2] == (entry.author, written)
    assert row[3] == 1
    assert hub.sql("SELECT count(*) FROM fieldsync_audit WHERE new='done'") == [(1,)]


def test_what_lost_is_told(opened, hub):
    ada, ben = pair(opened, hub)
    with ada.write() as tx:
        tx.update(Order, "o-1", status="ada's")
    ben.replica.wall_ms = lambda: clock.now_ms() + 1_000
    with ben.write() as tx:
        tx.update(Order, "o-1", status="ben's")
    ben.sync(hub)
    ada.sync(hub)
    assert told(hub, field="status") == [
        ("edit", "status", "open", "ben's", True),
        ("edit", "status", "ben's", "ada's", False),
    ]
    assert hub[Order].get("o-1").status == "ben's"


def test_counts_that_come_together_are_told_apart(opened, hub):
    ada, ben = pair(opened, hub)
    for device, amount in ((ada, 1), (ben, 2)):
        with device.write() as tx:
            tx.get(Order, "o-1").hours += amount
    ben.sync(ada)
    ada.sync(hub)
    assert told(hub, field="hours") == [("edit", "hours", None, 1, True), ("edit", "hours", 1, 3, True)]


def test_what_was_written_to_a_deleted_record_lost(opened, hub):
    ada, ben = pair(opened, hub)
    with ada.write() as tx:
        tx.delete(Order, "o-1")
    with ben.write() as tx:
        tx.update(Order, "o-1", status="late")
    ada.sync(hub)
    ben.sync(hub)
    assert [(one[0], one[1], one[3], one[4]) for one in told(hub)[1:]] == [
        ("delete", None, None, True),
        ("edit", "status", "late", False),
    ]
    with hub.write() as tx:
        tx.dismiss(hub.late_edits()[0])
    assert told(hub)[-1] == ("dismiss", None, {"status": "late"}, None, True)


def test_what_was_erased_is_told(opened, hub):
    ada, _ = pair(opened, hub)
    with ada.write() as tx:
        tx.update(Order, "o-1", status="done", hours=3)
    with ada.write() as tx:
        for field in ("status", "hours", "tags", "notes"):
            tx.erase(Order, "o-1", field)
    ada.sync(hub)
    assert sorted(told(hub)[1:], key=str) == [
        ("edit", "notes", "Hello", None, True),
        ("edit", "status", "open", None, True),
        ("edit", "tags", ["new"], None, True),
    ]


def test_what_an_erased_value_had_covered_is_told(opened, hub):
    ada, ben = pair(opened, hub)
    with ben.write() as tx:
        tx.update(Order, "o-1", status="ben's")
    ada.replica.wall_ms = lambda: clock.now_ms() + 1_000
    with ada.write() as tx:
        tx.update(Order, "o-1", status="ada's")
    ben.sync(hub)
    carry(opened("first"), ada, hub)
    assert hub[Order].get("o-1").status == "ada's"
    with ada.write() as tx:
        tx.erase(Order, "o-1", "status")  # which has not heard of ben
    carry(opened("second"), ada, hub)
    assert hub[Order].get("o-1").status == "ben's"
    assert told(hub)[-1] == ("edit", "status", "ada's", "ben's", True)


def carry(through, one, other):
    through.enter("s")
    through.sync(one)
    through.sync(other)


def test_fields_of_one_name_and_two_kinds_are_told_apart(tmp_path):
    class Counted(fs.Record, table="counted"):
        visits: fs.Counter = 0
        visits_before: int = fs.field(default=0, stored_as="visits")
        notes: fs.Text
        notes_before: str = fs.field(default="", stored_as="notes")

    with fs.open(tmp_path / "c.db", Counted, audit=True) as db:
        with db.write() as tx:
            tx.create(Counted, scope="s", key="c", visits=3, visits_before=10, notes="new", notes_before="old")
        with db.write() as tx:
            one = tx.get(Counted, "c")
            one.visits += 2
            one.visits_before = 11
            one.notes += "er"
        with db.write() as tx:
            tx.erase(Counted, "c", "visits_before")
        with db.write() as tx:
            tx.delete(Counted, "c")
        begun, *edits, erased, gone = [(one.kind, one.field, one.old, one.new) for one in db.audit()]
    values = {"visits": 10, "visits (counter)": 3, "notes": "old", "notes (text)": "new"}
    assert begun == ("create", None, None, values)
    assert sorted(edits, key=str) == [
        ("edit", "notes", {"at": 3, "is": ""}, {"at": 3, "is": "er"}),
        ("edit", "visits", 10, 11),
        ("edit", "visits", 3, 5),
    ]
    assert erased == ("edit", "visits", 11, None)
    assert gone == ("delete", None, {"visits": 5, "notes": "old", "notes (text)": "newer"}, None)


def test_moves_are_told_in_both_scopes(opened, hub):
    ada, ben = pair(opened, hub)
    with ada.write() as tx:
        tx.move(Order, "o-1", to="t")
    ada.sync(hub)
    wish, gone = told(hub, scope="s")[1:]
    assert wish == ("edit", "_scope", None, "t", True)
    (come,) = told(hub, scope="t")
    assert (gone[:2], come[:3]) == (("move", None), ("move", None, None))
    assert (gone[2], gone[3]) == (come[3], None)
    with ben.write() as tx:
        tx.update(Order, "o-1", status="followed")
    ben.sync(hub)
    assert told(hub, scope="t")[-1] == ("edit", "status", "open", "followed", True)


def test_what_a_peer_has_no_more_is_told(opened, hub):
    log = opened("log", audit=True)
    make(hub, "o-2", tags={"x"})
    log.enter("s")
    log.sync(hub)
    with hub.write() as tx:
        tx.delete(Order, "o-2")
    hub.trim(older_than=timedelta(0), keep=0)
    log.sync(hub)
    assert log[Order].get("o-2") is None
    drop = log.audit()[-1]
    assert (drop.kind, drop.key, drop.old["tags"], drop.new, drop.author, drop.written) == (
        *("drop", "o-2", ["x"], None),
        *(None, None),
    )
    assert "which a peer had no more" in str(drop)


def test_it_lands_with_its_change_or_not_at_all(hub):
    make(hub)
    before = hub.audit()
    with pytest.raises(fs.NotFound):
        _update(hub, "o-1", "not there")
    assert hub.audit() == before


def _update(db, *keys):
    with db.write() as tx:
        for key in keys:
            tx.update(Order, key, status="done")


def test_the_switch_is_in_the_file(opened, hub, tmp_path):
    code = (
        "import sys, fieldsync as fs\n"
        "with fs.open(sys.argv[1], notes=sys.argv[2]) as db, db.write() as tx:\n"
        "    tx.create('notes', scope='s', key='n', text='from another process')\n"
    )
    plain = opened("plain")
    later = opened("plain", audit=True)
    subprocess.run([sys.executable, "-c", code, tmp_path / "hub.db", tmp_path / "notes"], check=True)
    make(plain, "before")  # opened before the log was begun
    assert [(one.collection, one.new) for one in hub.audit()] == [("notes", {"text": "from another process"})]
    assert [one.key for one in later.audit()] == ["before"]


def test_a_log_that_was_not_begun_after_all_is_not_written(opened, monkeypatch):
    db = opened("plain")
    with pytest.raises(TypeError), db.replica.store.writing() as writer:
        writer.set_meta(writer.begin_audit(), object())
    make(db)
    with pytest.raises(fs.NotFound, match="audit=True"):
        db.audit()
    assert db.trim_audit() == 0


def test_without_a_log_nothing_more_is_read(opened):
    db = opened("plain")
    make(db)
    seen = []
    writer = db.replica.store._writer
    writer.exec_trace = lambda cursor, sql, bindings: seen.append(sql) or True
    with db.write() as tx:
        tx.update(Order, "o-1", status="done")
    with db.write() as tx:
        tx.delete(Order, "o-1")
    writer.exec_trace = None
    assert seen
    assert not any("audit" in sql for sql in seen)
    assert sum("schema_version" in sql for sql in seen) == 2  # once a transaction, as for its tables


def test_rows_are_only_appended(hub, tmp_path):
    make(hub)
    make(hub, "o-2")
    other = apsw.Connection(str(tmp_path / "hub.db"))
    for sql in (
        "UPDATE fs_audit SET author=NULL",
        "DELETE FROM fs_audit WHERE id=1",
        "INSERT OR REPLACE INTO fs_audit(id, landed, scope, kind, won) VALUES(1, 0, 's', 'edit', 1)",
    ):
        with pytest.raises(apsw.ConstraintError, match="only ever appended to"):
            other.execute(sql)
    other.close()
    assert [one.key for one in hub.audit()] == ["o-1", "o-2"]


def test_trimming(hub):
    for number in range(5):
        make(hub, f"o-{number}")
    assert hub.trim_audit() == 0
    assert hub.trim_audit(keep=3) == 2
    assert [one.key for one in hub.audit()] == ["o-2", "o-3", "o-4"]
    assert hub.trim_audit(older_than=-MINUTE) == 3
    make(hub, "o-5")
    assert hub.trim_audit(keep=1) == 0
    assert hub.sql("SELECT id, key FROM fieldsync_audit") == [(6, "o-5")]


def test_a_session_trims(opened, hub, monkeypatch):
    ada = opened("ada")
    make(ada, "o-1")
    make(ada, "o-2")
    monkeypatch.setattr("fieldsync.replica.AUDIT_ROWS_MAX", 1)
    ada.sync(hub)
    assert [one.key for one in hub.audit()] == ["o-2"]


def test_no_collection_is_named_like_it():
    with pytest.raises(fs.SchemaError, match="fieldsync_"):
        fs.Record.__class__("Log", (fs.Record,), {"__annotations__": {"text": str}}, table="fieldsync_audit")


def test_asking(hub):
    make(hub, "o-1")
    make(hub, "o-2", scope="t")
    assert [one.key for one in hub.audit(Order, "o-2")] == ["o-2"]
    assert [one.key for one in hub.audit("orders", scope="s")] == ["o-1"]
    assert [one.key for one in hub.audit(most=1)] == ["o-2"]
    assert hub.audit(since=datetime.now(UTC) + MINUTE) == []
    assert len(hub.audit(since=datetime.now(UTC) - MINUTE)) == 2
    assert hub.audit("notes") == []


def test_json():
    assert recording.as_json([Decimal("1.50"), b"\xff", date(2026, 1, 2), "é", True, float("nan")]) == (
        '["1.50","ff","2026-01-02","é",true,null]'
    )
    assert recording.difference("abcd", "abXd") == ({"at": 2, "is": "c"}, {"at": 2, "is": "X"})
    assert recording.difference("aaa", "aa") == ({"at": 2, "is": "a"}, {"at": 2, "is": ""})
    assert recording.difference(None, "ab") == ({"at": 0, "is": ""}, {"at": 0, "is": "ab"})
    assert recording.difference({"a": 1, "b": 1}, {"a": True, "c": None}) == ({"a": 1, "b": 1}, {"a": True, "c": None})


def unfolded(entries) -> dict[tuple[str, str], dict[str, Any]]:
    """What records read, by what a log tells."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in entries:
        if not one.won or one.kind == "dismiss":
            continue
        place, values = (one.scope, one.key), found.get((one.scope, one.key), {})
        if one.field is None:
            found.pop(place, None)
            if one.new is not None:
                found[place] = dict(one.new)
        elif one.field == "tags":
            values["tags"] = sorted({*values.get("tags", ()), *(one.new or ())} - set(one.old or ()))
        elif one.field == "notes":
            text, at = values.get("notes", ""), one.new["at"]
            assert text[at : at + len(one.old["is"])] == one.old["is"]
            values["notes"] = text[:at] + one.new["is"] + text[at + len(one.old["is"]) :]
        elif one.field != "_scope":
            assert values.get(one.field) == one.old
            values[one.field] = one.new
    return found


EMPTY = {"price": None, "hours": 0, "tags": [], "notes": "", "steps": [], "facts": {}}


def shown(db) -> dict[tuple[str, str], dict[str, Any]]:
    every = {(one.scope, one.key): {**one.as_dict(), "tags": sorted(one.tags)} for one in db[Order].where()}
    return {place: {name: one[name] for name in one if name not in ("key", "scope")} for place, one in every.items()}


@pytest.mark.parametrize("seed", range(12))
def test_unfolding_the_log_gives_the_records(opened, hub, seed):
    chance = random.Random(seed)
    devices = [opened(name) for name in ("ada", "ben", "cho")]
    for number, device in enumerate(devices):
        make(device, f"o-{number}", chance.choice("st"), tags={"first"}, notes="Once")
        device.enter("s", "t")
        device.sync(hub)
    for step in range(40):
        db = chance.choice([*devices, hub])
        some = db[Order].where().all()
        action = chance.choice(["edit", "edit", "edit", "create", "delete", "move", "sync", "sync"])
        if action == "create":
            make(db, f"n-{step}", chance.choice("st"))
        elif action == "sync" and db is not hub:
            db.sync(chance.choice([hub, hub, *(one for one in devices if one is not db)]))
        elif some:
            order = chance.choice(some)
            with db.write() as tx:
                if action == "delete":
                    tx.delete(Order, order.key, scope=order.scope)
                elif action == "move":
                    tx.move(Order, order.key, scope=order.scope, to=chance.choice("st"))
                else:
                    edit(tx.get(Order, order.key, scope=order.scope), chance, str(step))
    for db in devices * 3:
        db.sync(hub)
    found = {place: {**EMPTY, **values} for place, values in unfolded(hub.audit(most=100_000)).items()}
    assert found == shown(hub)


def edit(order, chance, mark):
    if chance.random() < 0.6:
        order.status = mark
    if chance.random() < 0.5:
        order.hours += chance.randrange(1, 9)
    if chance.random() < 0.5:
        order.tags.add(mark)
    if order.tags and chance.random() < 0.3:
        order.tags.discard(sorted(order.tags)[0])
    if chance.random() < 0.5:
        order.notes.insert(chance.randint(0, len(order.notes)), mark)
    if len(order.notes) and chance.random() < 0.3:
        del order.notes[0:2]
