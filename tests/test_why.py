"""Why a record is here or is not: each reason there is, as facts and in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import apsw
import pytest
from tests.members import sync

import fieldsync as fs

SCOPE = "job/7"


@pytest.fixture
def opened(tmp_path):
    """Databases by name, which hold the scope."""
    held = {}

    def open_(name, **options):
        held[name] = fs.open(tmp_path / f"{name}.db", durability="fast", **options)
        held[name].enter(SCOPE)
        return held[name]

    yield open_
    for db in held.values():
        db.close()


def put(db, *keys, scope=SCOPE):
    with db.write() as tx:
        for key in keys:
            tx.create("orders", scope=scope, key=key, status="open", note="x")


def edit(db, key, **fields):
    with db.write() as tx:
        tx.update("orders", key, **fields)


def delete(db, key):
    with db.write() as tx:
        tx.delete("orders", key)


def author(db):
    with db.replica.store.reading() as reader:
        return reader.dictionary.author(reader.scope(SCOPE).author).hex()


def only(why):
    (trace,) = why.traces
    return trace


def test_a_record_of_this_file_that_no_hub_has(opened):
    db = opened("a")
    put(db, "o-1")
    edit(db, "o-1", status="done")
    why = db.why("orders", "o-1")
    trace = only(why)
    (deed,) = trace.created
    assert (why.is_here, trace.is_here, trace.scope) == (True, True, SCOPE)
    assert (deed.author, deed.is_own, deed.is_pending) == (author(db), True, True)
    assert abs(datetime.now(UTC) - deed.when) < timedelta(minutes=5)
    assert (trace.changes, trace.pending, trace.provisional, trace.late) == (2, 2, 0, 0)
    text = str(why)
    assert text.startswith("orders 'o-1' is here.\nIt lives in scope 'job/7'. It was created by this file on ")
    assert "(no hub is known to have that). No hub is known to have 2 of its 2 changes." in text


def test_what_a_hub_has_is_not_pending(opened):
    db, hub = opened("a"), opened("hub", hub=True)
    put(db, "o-1")
    db.sync(hub)
    trace = only(db.why("orders", "o-1"))
    assert (trace.changes, trace.pending, trace.created[0].is_pending) == (1, 0, False)
    there = only(hub.why("orders", "o-1"))
    assert (there.created[0].author, there.created[0].is_own, there.pending) == (author(db), False, 0)
    assert "No hub" not in str(db.why("orders", "o-1")) + str(hub.why("orders", "o-1"))


def test_a_record_that_was_deleted_elsewhere_and_by_whom(opened):
    a, b = opened("a"), opened("b")
    put(a, "o-1")
    a.sync(b)
    delete(b, "o-1")
    edit(a, "o-1", status="done")
    a.sync(b)
    put(b, "of b")
    why = a.why("orders", "o-1")
    trace = only(why)
    (deed,) = trace.removed
    assert (why.is_here, trace.created, deed.author, deed.is_own) == (False, (), author(b), False)
    assert (trace.late, trace.dropped) == (1, None)  # the edit, which was made without knowing
    assert f"It is not in scope 'job/7'. It was deleted by author {author(b)} on " in str(why)
    assert "1 of its cells are kept aside" in str(why)
    assert only(b.why("orders", "o-1")).removed[0].is_own


def test_in_an_organisation_devices_are_named(members):
    ada, ben = (members.device(name, write=[SCOPE]) for name in ("ada", "ben"))
    for key in ("n-1", "n-2"):
        ada.write(SCOPE, key)
    ben.db.enter(SCOPE)
    for node in (ada, ben):
        sync(node, members.hub)
    with ben.db.write() as tx:
        tx.delete("notes", "n-1")
    sync(ben, members.hub)
    gone, here = (members.hub.db.why("notes", key) for key in ("n-1", "n-2"))
    assert (only(gone).removed[0].device, only(here).created[0].device) == ("ben", "ada")
    assert "It was deleted by ben on " in str(gone)
    assert "It was created by ada on " in str(here)
    assert "It was created by this file on " in str(ada.db.why("notes", "n-2"))


def test_a_record_that_was_made_anew_tells_of_the_earlier_one(opened):
    db = opened("a")
    put(db, "o-1")
    delete(db, "o-1")
    put(db, "o-1")
    trace = only(db.why("orders", "o-1"))
    assert (len(trace.created), len(trace.removed)) == (1, 1)
    assert "An earlier record of that key was deleted by this file" in str(db.why("orders", "o-1"))


def test_a_key_that_was_created_apart(opened):
    a, b = opened("a"), opened("b")
    put(a, "o-1")
    put(b, "o-1")
    a.sync(b)
    why = a.why("orders", "o-1")
    assert {deed.author for deed in only(why).created} == {author(a), author(b)}
    assert {deed.is_own for deed in only(why).created} == {True, False}
    assert "Devices created the key apart" in str(why)


def test_a_key_of_several_scopes_or_of_one(opened):
    db = opened("a")
    put(db, "o-1")
    put(db, "o-1", scope="job/8")
    put(db, "other", scope="job/9")
    assert [trace.scope for trace in db.why("orders", "o-1").traces] == ["job/7", "job/8"]
    why = db.why("orders", "o-1", scope="job/8")
    assert ([trace.scope for trace in why.traces], why.scopes) == (["job/8"], ("job/8",))


def test_a_record_that_went_because_a_peer_had_it_no_more(opened):
    a, hub = opened("a"), opened("hub", hub=True)
    put(a, "o-1", "o-2")
    a.sync(hub)
    delete(hub, "o-1")
    hub.trim(older_than=timedelta(0), keep=0)
    assert hub.why("orders", "o-1").traces == ()
    assert "Removals were forgotten in 'job/7': it may have been deleted there before." in str(hub.why("orders", "o-1"))
    a.sync(hub)
    why = a.why("orders", "o-1")
    (entry,) = a.trash()
    assert (only(why).dropped, only(why).removed) == (entry.when, ())
    assert "because a peer had it no more; the trash has it" in str(why)
    assert "Removals were forgotten" not in str(why)  # what is known need not be guessed


def test_a_record_that_is_not_accounted_for(opened):
    a, b = opened("a"), opened("b")
    put(a, "o-1", "o-2")
    a.sync(b)
    connection = apsw.Connection(a.path)
    connection.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='o-1'")
    connection.close()
    with pytest.raises(fs.Corrupt):
        a.why("orders", "o-1")
    assert a.verify(repair=True).is_sound
    why = a.why("orders", "o-2")
    assert (only(why).changes, only(why).provisional) == (1, 1)
    assert "1 of its changes are provisional: parts may be missing until a sync is complete." in str(why)
    a.sync(b)
    assert only(a.why("orders", "o-2")).provisional == 0


def test_a_record_of_which_nothing_is_known(opened):
    db = opened("a")
    for collection in ("orders", "never"):
        why = db.why(collection, "o-1")
        assert (why.is_here, why.traces, why.scopes, why.filling) == (False, (), (SCOPE,), (SCOPE,))
        assert str(why) == (
            f"{collection} 'o-1' is not here.\nNothing is known of it in 'job/7'.\n"
            "The first sync is not complete of 'job/7': it may come yet."
        )
        put(db, f"not {collection}")


def test_only_some_of_many_scopes_are_named(opened):
    db = opened("a")
    db.leave(SCOPE)
    assert str(db.why("orders", "o-1")) == "orders 'o-1' is not here.\nNo scope is held here."
    for number in range(12):
        put(db, "x", scope=f"job/{number:02}")
    assert str(db.why("orders", "o-1")).endswith("'job/08', 'job/09' and 2 scopes more.")


def test_a_scope_that_is_not_held_is_an_error(opened):
    with pytest.raises(fs.NotFound, match="'job/8' is not held here"):
        opened("a").why("orders", "o-1", scope="job/8")


def test_a_class_stands_for_its_collection(tmp_path):
    class Order(fs.Record, table="orders"):
        status: str

    with fs.open(tmp_path / "a.db", Order) as db:
        with db.write() as tx:
            tx.create(Order, scope=SCOPE, key="o-1", status="open")
        assert db.why(Order, "o-1").collection == "orders"
        assert db.why(Order, "o-1").is_here
