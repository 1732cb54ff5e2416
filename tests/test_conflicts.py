"""The ledger: what was written apart, and to deleted records; equal everywhere, and empty of informed overwrites."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.members import sync
from tests.talking import meet, met, open_replica, open_three

import fieldsync as fs
from fieldsync.database import Database
from fieldsync.errors import AlreadyExists, DataError, NotFound

SCOPE = "job/7"


class Order(fs.Record, table="orders"):
    status: str = "open"
    hours: fs.Counter = 0
    tags: set[str]


@pytest.fixture
def fleet(tmp_path):
    """A hub and two devices that hold two records."""
    hub, *devices = open_three(tmp_path, Order)
    with hub.write() as tx:
        for key in ("o-1", "o-2"):
            tx.create(Order, scope=SCOPE, key=key)
    yield from met(hub, devices, SCOPE)


def write(database, key, **values):
    with database.write() as tx:
        tx.update(Order, key, **values)


def told(database):
    """The ledger, without who is who."""
    claims = lambda entry: tuple((claim.value, claim.author, claim.when) for claim in entry.claims)  # noqa: E731
    late = [
        (edit.key, edit.incarnation, {name: (claim.value, claim.author) for name, claim in edit.values.items()})
        for edit in database.late_edits()
    ]
    return [(one.collection, one.key, one.field, claims(one)) for one in database.conflicts()], late


def test_concurrent_writes_are_a_conflict_and_equal_everywhere(fleet):
    hub, a, b = fleet
    write(a, "o-1", status="done")
    write(b, "o-1", status="late")
    assert a.conflicts() == b.conflicts() == []
    meet(hub, a, b)
    (conflict,) = hub.conflicts()
    assert (conflict.scope, conflict.collection, conflict.key, conflict.field) == (SCOPE, "orders", "o-1", "status")
    assert conflict.winner.value == hub[Order].get("o-1").status
    assert {claim.value for claim in conflict.claims} == {"done", "late"}
    assert abs(conflict.winner.when - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert told(hub) == told(a) == told(b)
    assert [claim.is_own for claim in a.conflicts()[0].claims].count(True) == 1
    assert not any(claim.is_own for claim in conflict.claims)
    assert "status reads" in str(conflict)
    assert hub.conflicts(Order, scope=SCOPE) == [conflict]
    assert hub.conflicts("notes") == []
    with pytest.raises(NotFound):
        hub.conflicts(scope="job/99")


def test_informed_overwrites_and_equal_values_are_none(fleet):
    hub, a, b = fleet
    write(a, "o-1", status="done")
    meet(hub, a, b)
    write(b, "o-1", status="paid")
    write(a, "o-2", status="same")
    write(b, "o-2", status="same")
    meet(hub, a, b)
    assert told(hub) == told(a) == told(b) == ([], [])


@pytest.mark.parametrize("how", ["keep", "take", "write"])
def test_a_conflict_is_settled_everywhere(fleet, how):
    hub, a, b = fleet
    write(a, "o-1", status="done")
    write(b, "o-1", status="late")
    meet(hub, a, b)
    (conflict,) = a.conflicts()
    with a.write() as tx:
        if how == "keep":
            tx.settle(conflict)
        elif how == "take":
            tx.settle(conflict, conflict.losers[0])
        else:
            tx.get(Order, "o-1").status = "talked about it"
    meet(hub, a, b)
    expected = {"keep": conflict.winner.value, "take": conflict.losers[0].value, "write": "talked about it"}[how]
    assert [database[Order].get("o-1").status for database in fleet] == [expected] * 3
    assert [database.conflicts() for database in fleet] == [[]] * 3


@pytest.mark.parametrize("how", ["settled", "written"])
def test_a_conflict_that_is_not_as_it_was_is_not_settled(fleet, how):
    """Who looked at it has not seen what is there now."""
    hub, a, b = fleet
    write(a, "o-1", status="done")
    write(b, "o-1", status="late")
    meet(hub, a, b)
    (conflict,) = a.conflicts()
    with hub.write() as tx:
        if how == "settled":
            tx.settle(hub.conflicts()[0], hub.conflicts()[0].losers[0])
        else:
            tx.update(Order, "o-1", status="paid")
    meet(hub, a, b)
    with pytest.raises(NotFound, match="look again"), a.write() as tx:
        tx.settle(conflict)
    assert a[Order].get("o-1").status == hub[Order].get("o-1").status


@pytest.mark.parametrize("claim", ["done", "another's"])
def test_only_claims_of_a_conflict_settle_it(fleet, claim):
    hub, a, b = fleet
    for key in ("o-1", "o-2"):
        write(a, key, status=f"done {key}")
        write(b, key, status=f"late {key}")
    meet(hub, a, b)
    conflict, other = a.conflicts()
    with pytest.raises(DataError, match="write 'status'"), a.write() as tx:
        tx.settle(conflict, other.winner if claim == "another's" else claim)
    assert len(a.conflicts()) == 2


def test_claims_name_the_devices_of_an_organisation(members):
    """Whoever opens the file, with an identity or without."""
    hub = members.hub
    hub.db.replica.keep_audit()
    ada, ben = (members.device(name, write=["*"]) for name in ("ada", "ben"))
    ada.write(SCOPE, "n-1", text="", state="")
    sync(ada, hub)
    ben.db.enter(SCOPE)
    sync(ben, hub)
    for node in (ada, ben):
        with node.db.write() as tx:
            tx.update("notes", "n-1", text=node.identity.name)
    for node in (ada, ben, ada):
        sync(node, hub)
    assert [entry.device for entry in hub.db.audit(key="n-1")] == ["ada", "ada", "ben"]
    for node in members.nodes:
        with fs.open(node.db.path) as database:
            (conflict,) = database.conflicts()
            assert {claim.device: claim.value for claim in conflict.claims} == {"ada": "ada", "ben": "ben"}
            assert "by ben" in str(conflict)
            stamps = database["notes"].get("n-1").stamps()
            assert (database.who(stamps["state"].author), database.who("00" * 8)) == ("ada", None)


def test_keys_created_apart_conflict_in_their_fields(fleet):
    hub, a, b = fleet
    for database, status in ((a, "x"), (b, "y")):
        with database.write() as tx:
            tx.create(Order, scope=SCOPE, key="o-9", status=status)
    meet(hub, a, b)
    (conflict,) = hub.conflicts()
    assert (conflict.key, {claim.value for claim in conflict.claims}) == ("o-9", {"x", "y"})
    with b.write() as tx:
        tx.settle(b.conflicts()[0])
    meet(hub, a, b)
    assert [database.conflicts() for database in fleet] == [[]] * 3


def edited_and_deleted(fleet):
    """Device a writes to what b deletes."""
    hub, a, b = fleet
    with a.write() as tx:
        order = tx.get(Order, "o-1")
        order.status, order.hours = "done", 2
        order.tags.add("urgent")
    with b.write() as tx:
        tx.delete(Order, "o-1")
    meet(hub, a, b)


def test_edits_of_a_deleted_record_are_late(fleet):
    hub, a, b = fleet
    edited_and_deleted(fleet)
    assert told(hub) == told(a) == told(b)
    (late,) = hub.late_edits()
    assert {name: claim.value for name, claim in late.values.items()} == {
        "status": "done",
        "hours": 2,
        "tags": ("urgent",),
    }
    assert (late.collection, late.key, hub[Order].get("o-1")) == ("orders", "o-1", None)
    assert "is deleted" in str(late)
    assert hub.late_edits("notes") == []


def test_late_edits_are_dismissed_everywhere(fleet):
    hub, a, b = fleet
    edited_and_deleted(fleet)
    (late,) = b.late_edits()
    with b.write() as tx:
        tx.dismiss(late)
    meet(hub, a, b)
    assert [database.late_edits() for database in fleet] == [[]] * 3
    with pytest.raises(NotFound), a.write() as tx:
        tx.dismiss(late)


@pytest.mark.parametrize("first", ["delete", "dismiss"])
def test_late_edits_are_dismissed_beside_records_that_go(fleet, first):
    hub, a, b = fleet
    edited_and_deleted(fleet)
    (late,) = b.late_edits()
    with b.write() as tx:
        for verb in sorted(("delete", "dismiss"), key=first.__ne__):
            if verb == "delete":
                tx.delete(Order, "o-2", scope=late.scope)
            else:
                tx.dismiss(late)
    meet(hub, a, b)
    assert [(database.late_edits(), list(database[Order])) for database in fleet] == [([], [])] * 3


def test_a_deleted_record_is_made_again_from_late_edits(fleet):
    hub, a, b = fleet
    edited_and_deleted(fleet)
    (late,) = b.late_edits()
    with b.write() as tx:
        tx.recreate(late)
    meet(hub, a, b)
    orders = [database[Order].get("o-1") for database in fleet]
    assert [(order.status, order.hours, order.tags) for order in orders] == [("done", 2, {"urgent"})] * 3
    assert [database.late_edits() for database in fleet] == [[]] * 3


def test_a_record_is_not_made_again_over_one_that_lives(fleet):
    _, a, _ = fleet
    edited_and_deleted(fleet)
    with a.write() as tx:
        tx.create(Order, scope=SCOPE, key="o-1")
    (late,) = a.late_edits()
    with pytest.raises(AlreadyExists), a.write() as tx:
        tx.recreate(late)
    assert len(a.late_edits()) == 1


def test_stamps_say_who_wrote_what_and_when(fleet):
    hub, a, _ = fleet
    write(a, "o-1", status="done")
    meet(hub, a)
    stamps = hub[Order].get("o-1").stamps()
    assert len(stamps["status"].author) == 16
    assert abs(stamps["status"].when - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert hub[Order].where(status="done").first().stamps() == stamps
    with hub.write() as tx, pytest.raises(TypeError):
        tx.get(Order, "o-1").stamps()


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd"), st.integers(0, 9)), max_size=30)


@settings(deadline=None, max_examples=40)
@given(steps, st.integers(0, 2**32))
def test_the_ledger_is_equal_everywhere_and_has_no_informed_overwrite(tmp_path_factory, history, seed):
    """Writes, deletes and syncs at random; the oracle knows which writes their author had seen."""
    folder = tmp_path_factory.mktemp("ledger")
    fleet = [Database(open_replica(folder / f"{i}.db", hub=i == 0, seed=seed), [Order]) for i in range(3)]
    with fleet[0].write() as tx:
        for key in "abcd":
            tx.create(Order, scope=SCOPE, key=key)
    for device in fleet[1:]:
        device.enter(SCOPE)
        device.sync(fleet[0])
    seen = [set(), set(), set()]  # writes known: (key, id, value); a delete has the value None
    replaced = {}
    for number, (who, key, value) in enumerate(history):
        if fleet[who][Order].get(key) is None:
            continue
        with fleet[who].write() as tx:
            if value == 0:
                tx.delete(Order, key)
            else:
                tx.update(Order, key, status=f"{value}")
        write = (key, number, f"{value}" if value else None)
        replaced[write] = {other for other in seen[who] if other[0] == key}
        seen[who].add(write)
        if who and seed >> number % 32 & 1:
            fleet[who].sync(fleet[0])
            seen[0] = seen[0] | seen[who]
            seen[who] = set(seen[0])
    for device in fleet[1:] * 2:
        device.sync(fleet[0])
    every = set.union(*seen)
    standing = every - {old for write in every for old in replaced[write]}
    expected, late = {}, {}
    for key in "abcd":
        values = [value for other, _, value in standing if other == key]
        if None not in values and len(set(values)) > 1:
            expected[key] = set(values)
        elif None in values and any(values):
            late[key] = True
    for database in fleet:
        found = {one.key: {claim.value for claim in one.claims} for one in database.conflicts()}
        assert found == expected
        assert {edit.key for edit in database.late_edits()} == late.keys()
        assert told(database) == told(fleet[0])
    for database in fleet:
        database.close()
