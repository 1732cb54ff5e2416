"""Moves between scopes: what an app sees of them, what follows a moved record, and hubs whose devices mean harm."""

from __future__ import annotations

import os
import queue
from datetime import timedelta
from decimal import Decimal

import pytest
from tests import canonical, model
from tests.moves import KEY, NAME, Customer, edit, headless, held, inject, last_change, play
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.talking import NOW_MS, open_replica

import fieldsync as fs
from fieldsync import carrying, forwarding, limits, replica, transaction
from fieldsync.database import Database

SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))
VISITS = model.Address("visits", model.COUNTER)
WISH = model.Address("_scope", model.REGISTER)
TAGS = model.Address("tags", model.SET)
TEXT = model.Address("notes", 0x49)  # of a later type that merges as texts do: any value
LATER = model.Address("later", 0x40)
NONE = canonical.encode(None)


class Fleet:
    """A hub, and devices that hold what they are told to. `later` lets time pass; at the end all is looked at."""

    def __init__(self, folder):
        self.folder = folder
        self.now_ms = NOW_MS
        self.databases = {}
        self.is_small = True  # so that the model looks at all of it, too
        self.hub = self.open("hub", "x", "y", "z", hub=True)

    def open(self, name, *scopes, hub=False, seed=0):
        one = open_replica(self.folder / f"{name}.db", hub=hub, seed=seed)
        one.wall_ms = lambda: self.now_ms
        self.databases[name] = database = Database(one, (Customer,))
        database.enter(*scopes)
        return database

    def devices(self, *scopes, count=2):
        return [self.open(f"device{len(self.databases)}", *scopes) for _ in range(count)]

    def later(self, ms=1_000):
        self.now_ms += ms

    def sync(self, *databases, hub=None):
        """With the hub, one after the other, each twice: to tell, and to hear what became of it."""
        for database in databases * 2:
            self.later()
            database.sync(hub or self.hub)

    def check(self):
        for name, database in self.databases.items():
            assert not self.is_small or audit(database.replica.store) == [], name
            assert database.verify().faults == [], name

    def close(self):
        for database in self.databases.values():
            database.close()


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.check()
    fleet.close()


@pytest.fixture
def moved(fleet):
    """The hub, which has moved the record from x to y, and two devices that hold both and do not know yet."""
    one, other = fleet.devices("x", "y")
    put(fleet.hub, "x", name="Ann", visits=3)
    fleet.sync(one, other)
    move(fleet.hub, "y")
    return fleet.hub, one, other


def put(database, scope, key=KEY, **values):
    with database.write() as tx:
        tx.create(Customer, key=key, scope=scope, **values)


def change(database, scope=None, **values):
    with database.write() as tx:
        tx.update(Customer, KEY, scope=scope, **values)


def count(database, amount, scope=None):
    with database.write() as tx:
        tx.get(Customer, KEY, scope=scope).visits += amount


def move(database, to, scope=None, key=KEY):
    with database.write() as tx:
        tx.move(Customer, key, to=to, scope=scope)


def delete(database, scope=None):
    with database.write() as tx:
        tx.delete(Customer, KEY, scope=scope)


def seen(database):
    """(scope, name, visits) of each record."""
    return [(one.scope, one.name, one.visits) for one in database[Customer].all()]


def only(database, scope):
    """The name of the one live incarnation."""
    (name,) = held(database, scope)
    return name


def values(record, address):
    return sorted(canonical.decode(cell.value) for _, cell in model.cells_at(record, *address[:2]))


# The public face ------------------------------------------------------------------------------------------------------


def test_a_device_wishes_and_the_hub_moves(fleet):
    one, other = fleet.devices("x", "y")
    put(one, "x", name="Ann", visits=3)
    fleet.sync(one, other)
    move(one, "y")
    assert seen(one) == [("x", "Ann", 3)]  # until the hub has heard of it
    one.sync(fleet.hub)
    assert seen(fleet.hub) == [("y", "Ann", 3)]
    fleet.sync(one, other)
    assert seen(one) == seen(other) == [("y", "Ann", 3)]
    for scope in ("x", "y"):
        assert one.compare(fleet.hub, scope).agree


def test_a_hub_moves_when_the_transaction_ends(fleet):
    put(fleet.hub, "x", name="Ann", visits=3)
    with fleet.hub.write() as tx:
        tx.move(Customer, KEY, to="y")
        assert tx.get(Customer, KEY).scope == "x"
        tx.update(Customer, KEY, name="Annie")
    assert seen(fleet.hub) == [("y", "Annie", 3)]


@pytest.mark.parametrize("at", ["hub", "device"])
def test_a_wish_together_with_other_writes(fleet, at):
    (device,) = fleet.devices("x", "y", count=1)
    one = fleet.hub if at == "hub" else device
    put(one, "x", "c-2", name="gone")
    with one.write() as tx:
        new = tx.create(Customer, key=KEY, scope="x", name="Ann")
        tx.move(Customer, KEY, to="y")
        new.visits += 2
        tx.move(Customer, "c-2", to="y")
        tx.delete(Customer, "c-2")
        tx.create("notes", key="n-1", scope="x", text="stays")
    fleet.sync(device)
    assert seen(fleet.hub) == seen(device) == [("y", "Ann", 2)]
    assert [note.scope for note in device["notes"].all()] == ["x"]


def test_the_last_of_several_wishes_counts(fleet):
    (one,) = fleet.devices("x", "y", "z", count=1)
    put(one, "x", name="Ann")
    with one.write() as tx:
        tx.move(Customer, KEY, to="y")
        tx.move(Customer, KEY, to="z")
    fleet.sync(one)
    assert seen(one) == [("z", "Ann", 0)]


def test_a_wish_is_taken_back_before_the_hub_hears(fleet):
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann")
    move(one, "y")
    assert "It is to move to scope 'y'" in str(one.why(Customer, KEY))
    move(one, "x")
    assert "is to move" not in str(one.why(Customer, KEY))
    fleet.sync(one)
    assert seen(one) == seen(fleet.hub) == [("x", "Ann", 0)]


def test_an_undone_transaction_wishes_nothing(fleet):
    put(fleet.hub, "x", name="Ann")
    with pytest.raises(fs.NotFound), fleet.hub.write() as tx:  # noqa: PT012
        tx.move(Customer, KEY, to="y")
        tx.get(Customer, "nobody")
    assert seen(fleet.hub) == [("x", "Ann", 0)]


def test_to_a_scope_that_nobody_has_yet(fleet):
    (one,) = fleet.devices("x", count=1)
    put(one, "x", name="Ann")
    move(one, "territory/new")
    fleet.sync(one)
    assert seen(one) == []
    assert seen(fleet.hub) == [("territory/new", "Ann", 0)]
    one.enter("territory/new")
    fleet.sync(one)
    assert seen(one) == [("territory/new", "Ann", 0)]


@pytest.mark.parametrize(
    ("to", "error"),
    [("", fs.LimitExceeded), ("é" * 129, fs.LimitExceeded), (7, TypeError), (None, TypeError), ("\ud800", TypeError)],
)
def test_a_name_that_no_scope_can_have_is_refused_at_once(fleet, to, error):
    put(fleet.hub, "x", name="Ann")
    with fleet.hub.write() as tx, pytest.raises(error):
        tx.move(Customer, KEY, to=to)
    assert seen(fleet.hub) == [("x", "Ann", 0)]


def test_only_what_lives_in_one_scope_can_be_moved_without_naming_it(fleet):
    with fleet.hub.write() as tx, pytest.raises(fs.NotFound):
        tx.move(Customer, "nobody", to="y")
    for scope in ("x", "y"):
        put(fleet.hub, scope, name=scope)
    with fleet.hub.write() as tx:
        with pytest.raises(fs.AmbiguousKey):
            tx.move(Customer, KEY, to="z")
        tx.move(Customer, KEY, scope="x", to="z")
    assert seen(fleet.hub) == [("y", "y", 0), ("z", "x", 0)]


def test_more_records_than_a_change_may_have(fleet):
    """At a hub, which moves as many as come, a change at a time."""
    (one,) = fleet.devices("x", "y", count=1)
    fleet.is_small = False
    for start in range(0, 2_500, 500):
        with one.write() as tx:
            for number in range(start, start + 500):
                tx.create(Customer, key=f"c-{number}", scope="x", name=f"{number}", visits=number)
                tx.move(Customer, f"c-{number}", to="y")
    fleet.sync(one)
    assert fleet.hub[Customer].where(scope="x").count() == 0
    assert sorted(row.visits for row in one[Customer].where(scope="y").all()) == list(range(2_500))


def test_the_wish_is_nothing_that_an_app_sees(fleet):
    """A register of the engine's own: not among an undeclared record's fields, and not to be written as one."""
    (one,) = fleet.devices("x", count=1)
    with one.write() as tx:
        tx.create("notes", key="n-1", scope="x", text="hello")
    with one.write() as tx:
        tx.move("notes", "n-1", to="y")
    assert one["notes"].get("n-1").as_dict() == {"key": "n-1", "scope": "x", "text": "hello"}
    with one.write() as tx, pytest.raises(fs.SchemaError):
        tx.update("notes", "n-1", _scope="y")


def test_values_of_all_kinds_come_along_as_they_are(fleet):
    (one,) = fleet.devices("x", "y", count=1)
    fields = {"a": 5, "b": 5.0, "c": Decimal("5.00"), "d": b"\x00", "e": [1, {"f": None}], "g": "", "h": True}
    with one.write() as tx:
        tx.create("things", key="t", scope="x", **fields)
    with one.write() as tx:
        tx.update("things", "t", e=[2])
        tx.move("things", "t", to="y")
    fleet.sync(one)
    after = one["things"].get("t").as_dict()
    assert repr(after) == repr({"key": "t", "scope": "y"} | fields | {"e": [2]})


def test_each_counter_goes_along_as_what_it_was(fleet):
    one, other = fleet.devices("x", "y")
    put(one, "x", visits=3)
    fleet.sync(one, other)
    count(one, 4)
    count(other, Decimal("0.5"))
    fleet.sync(one, other)
    move(one, "y")
    fleet.sync(one, other)
    assert seen(one) == seen(other) == [("y", "", Decimal("7.5"))]


# As others see it -----------------------------------------------------------------------------------------------------


def test_who_holds_one_of_the_scopes_sees_the_record_come_or_go(fleet):
    one, source, target = fleet.open("one", "x", "y"), fleet.open("source", "x"), fleet.open("target", "y")
    put(one, "x", name="Ann", visits=3)
    fleet.sync(one, source, target)
    assert (seen(source), seen(target)) == ([("x", "Ann", 3)], [])
    move(source, "y")
    fleet.sync(source, one, target)
    assert (seen(source), seen(target), seen(one)) == ([], [("y", "Ann", 3)], [("y", "Ann", 3)])


def test_a_move_travels_between_devices_too(moved, fleet):
    _, one, other = moved
    fleet.sync(one)
    other.sync(one)
    assert seen(other) == [("y", "Ann", 3)]


def test_watches_hear_of_both_scopes(fleet):
    put(fleet.hub, "x", name="Ann")
    events = {scope: queue.Queue() for scope in ("x", "y")}
    watches = [fleet.hub[Customer].where(scope=scope).watch(heard.put) for scope, heard in events.items()]
    move(fleet.hub, "y")
    gone, come = (heard.get(timeout=30) for heard in events.values())
    assert (gone.created, gone.updated, gone.removed) == ([], [], [("x", KEY)])
    assert [(one.scope, one.name) for one in come.created] == [("y", "Ann")]
    for watch in watches:
        watch.close()


def test_why_tells_of_the_wish_and_of_the_move(fleet):
    one = fleet.open("one", "x")
    put(one, "x", name="Ann")
    move(one, "y")
    (trace,) = one.why(Customer, KEY).traces
    assert (trace.wished, trace.moved) == ("y", None)
    assert "It is to move to scope 'y', as soon as the hub has heard of that." in str(one.why(Customer, KEY))
    fleet.sync(one)
    (trace,) = one.why(Customer, KEY).traces
    assert (trace.wished, trace.moved, trace.is_here) == (None, None, False)
    traces = {trace.scope: trace for trace in fleet.hub.why(Customer, KEY).traces}
    assert (traces["x"].moved, traces["x"].is_here, traces["y"].moved) == ("y", False, None)
    assert "It was moved to scope 'y'." in str(fleet.hub.why(Customer, KEY))
    move(fleet.hub, "x")
    assert "An earlier record of that key was moved to scope 'y'." in str(fleet.hub.why(Customer, KEY, scope="x"))


def test_the_trash_does_not_bring_a_wish_back(fleet):
    (one,) = fleet.devices("x", "y", count=1)
    put(fleet.hub, "x", name="Ann")
    fleet.sync(one)
    move(one, "y")
    delete(fleet.hub)
    fleet.hub.trim(older_than=timedelta(0), keep=0)
    fleet.hub.replica.owns = lambda _: False  # so that it does not follow
    one.sync(fleet.hub)
    (entry,) = one.trash()
    one.restore(entry)
    fleet.hub.replica.owns = lambda _: True
    fleet.sync(one)
    assert seen(one) == seen(fleet.hub) == [("x", "Ann", 0)]


def test_a_bundle_brings_a_wish_and_a_move(fleet, tmp_path):
    one = fleet.open("one", "x", "y")
    put(one, "x", name="Ann", visits=2)
    move(one, "y")
    one.export(tmp_path / "out.bundle", "x")
    fleet.hub.import_bundle(tmp_path / "out.bundle")
    assert seen(fleet.hub) == [("y", "Ann", 2)]
    fleet.hub.export(tmp_path / "back.bundle", "x", "y")
    one.import_bundle(tmp_path / "back.bundle")
    assert seen(one) == [("y", "Ann", 2)]


def test_a_hub_moves_only_in_the_scopes_that_it_owns(fleet):
    two = fleet.open("hub2", "x", "y", hub=True)
    fleet.hub.replica.owns, two.replica.owns = (lambda scope: scope == "x"), (lambda scope: scope == "y")
    one = fleet.open("one", "x", "y")
    put(one, "x", name="Ann", visits=1)
    move(one, "y")
    fleet.sync(one, hub=two)
    assert seen(two) == seen(one) == [("x", "Ann", 1)]
    fleet.sync(one, two)
    assert seen(fleet.hub) == seen(one) == seen(two) == [("y", "Ann", 1)]
    move(one, "x")
    fleet.sync(one)
    assert seen(one) == [("y", "Ann", 1)]
    fleet.sync(one, hub=two)
    assert seen(one) == [("x", "Ann", 1)]


# Chains and rivals ----------------------------------------------------------------------------------------------------


def test_a_record_moves_on_and_back(fleet):
    one, other = fleet.devices("x", "y", "z")
    put(one, "x", name="Ann", visits=1)
    fleet.sync(one, other)
    for scope in ("y", "z", "x", "y", "x"):
        move(one, scope)
        fleet.sync(one)
        count(one, 1)
        assert seen(fleet.hub)[0][0] == scope
    count(other, 100)
    change(other, name="Annie")
    fleet.sync(other, one)
    assert seen(one) == seen(other) == seen(fleet.hub) == [("x", "Annie", 106)]


def test_two_wish_different_scopes_and_the_record_lives_once(fleet):
    one, other = fleet.devices("x", "y", "z")
    put(one, "x", name="Ann", visits=1)
    fleet.sync(one, other)
    move(one, "y")
    fleet.later()
    move(other, "z")
    one.sync(fleet.hub)
    assert seen(fleet.hub) == [("y", "Ann", 1)]
    fleet.sync(other, one)
    assert seen(one) == seen(other) == seen(fleet.hub) == [("z", "Ann", 1)]  # a late wish, followed like any late edit


def test_two_wish_the_same(fleet):
    one, other = fleet.devices("x", "y")
    put(one, "x", visits=1)
    fleet.sync(one, other)
    move(one, "y")
    move(other, "y")
    fleet.sync(one, other, one)
    assert seen(one) == seen(other) == seen(fleet.hub) == [("y", "", 1)]


def test_a_record_of_the_key_lives_there_already(fleet):
    """They read as one, as records do whose key devices created apart; and move on as one."""
    (one,) = fleet.devices("x", "y", "z", count=1)
    put(one, "y", name="there", visits=10)
    fleet.later()
    put(one, "x", name="here", visits=1)
    fleet.sync(one)
    move(one, "y", scope="x")
    fleet.sync(one)
    assert seen(one) == [("y", "here", 11)]
    assert len(held(one, "y")) == 2
    move(one, "z")
    fleet.sync(one)
    assert seen(one) == [("z", "here", 11)]
    assert len(held(one, "z")) == 1


@pytest.mark.parametrize("scopes", ["xy", "xyz", "zyx"])
def test_records_of_one_key_that_are_to_change_places(fleet, scopes):
    """In one transaction: what one move brings, the next one takes along."""
    with fleet.hub.write() as tx:
        for number, scope in enumerate(scopes):
            tx.create(Customer, key=KEY, scope=scope, name=scope, visits=10**number)
    with fleet.hub.write() as tx:
        for scope, to in zip(scopes, scopes[1:] + scopes[0], strict=True):
            tx.move(Customer, KEY, scope=scope, to=to)
    ((_, _, visits),) = seen(fleet.hub)
    assert visits == int("1" * len(scopes))


# What comes late ------------------------------------------------------------------------------------------------------


def test_late_edits_follow(moved, fleet):
    hub, one, other = moved
    count(one, 4)
    change(other, name="Annie")
    count(other, 20)
    fleet.sync(one, other, one)
    assert seen(hub) == seen(one) == seen(other) == [("y", "Annie", 27)]
    assert not headless(hub, "x")


def test_late_edits_of_one_device_come_twice_and_count_once(moved, fleet):
    hub, one, other = moved
    count(one, 4)
    other.sync(one)
    one.sync(hub)
    count(other, 20)
    other.sync(hub)
    fleet.sync(one, other)
    assert seen(hub) == seen(one) == seen(other) == [("y", "Ann", 27)]


def test_late_totals_are_counted_by_their_difference_each_time(moved, fleet):
    """A device that goes on counting in the old scope, heard of through others only."""
    hub, one, other = moved
    for total in range(1, 5):
        count(one, 1)
        other.sync(one)
        lone = fleet.open(f"lone{total}", "x")
        lone.sync(one)
        lone.sync(hub)
        assert seen(hub) == [("y", "Ann", 3 + total)]


def test_a_late_edit_is_beside_what_was_written_in_the_new_scope(moved, fleet):
    """Neither had seen the other: both stay in the cells, the later stamp is read."""
    hub, one, other = moved
    fleet.sync(other)
    fleet.later()
    change(one, name="earlier")
    fleet.later()
    change(other, name="later")
    fleet.sync(other, one, other)
    assert seen(hub) == seen(one) == seen(other) == [("y", "later", 3)]
    assert values(held(hub, "y"), NAME) == ["earlier", "later"]


def test_a_late_edit_that_is_later_wins(moved, fleet):
    hub, one, other = moved
    fleet.sync(other)
    change(other, name="earlier")
    fleet.later()
    change(one, name="later")
    fleet.sync(other, one, other)
    assert seen(hub) == seen(one) == seen(other) == [("y", "later", 3)]
    assert values(held(hub, "y"), NAME) == ["earlier", "later"]


@pytest.mark.parametrize("first", [0, 1])
def test_two_late_edits_are_beside_each_other_in_whichever_order_they_come(moved, fleet, first):
    """The hub writes both, and what one author writes replaces what it wrote before: so not under one author."""
    hub, *both = moved
    for number, one in enumerate(both):
        fleet.later()
        change(one, name=f"{number}")
    fleet.sync(both[first])
    fleet.sync(both[1 - first], both[first])
    assert seen(hub) == seen(both[0]) == seen(both[1]) == [("y", "1", 3)]
    assert values(held(hub, "y"), NAME) == ["0", "1"]


def test_so_many_late_edits_of_one_field_that_come_at_once_follow(moved, fleet, monkeypatch):
    """The topmost of them first; what is more than a transaction follows stays in the ledger until more comes."""
    monkeypatch.setattr(forwarding, "LATE_ROUNDS_MAX", 3)
    hub, one, other = moved
    name = only(one, "x")
    for number in range(5):
        fleet.later()
        dot = bytes([number + 1]) * 8, 1
        inject(one, "x", [(KEY, edit(name, (NAME, canonical.encode(f"{number}"))))], dot=dot)
    fleet.sync(one)
    assert values(held(hub, "y"), NAME) == ["2", "3", "4"]
    assert values(headless(hub, "x"), NAME) == ["0", "1"]
    assert seen(hub) == seen(one) == [("y", "4", 3)]
    change(other, name="5")
    fleet.sync(other)
    assert values(held(hub, "y"), NAME) == ["0", "1", "2", "3", "4", "5"]
    assert not headless(hub, "x")


def test_a_late_edit_does_not_replace_what_the_hub_itself_wrote(moved, fleet):
    hub, one, _ = moved
    change(one, name="late")
    fleet.later()
    change(hub, name="the hub's")
    count(hub, 10)
    count(one, 1)
    fleet.sync(one)
    assert seen(hub) == seen(one) == [("y", "the hub's", 14)]
    assert values(held(hub, "y"), NAME) == ["late", "the hub's"]


def test_a_late_edit_that_is_older_than_one_before_the_move_does_not_win(fleet):
    """As it had not without the move: the later one is read, both are in the ledger."""
    one, other = fleet.devices("x", "y")
    put(one, "x", name="Ann")
    fleet.sync(one, other)
    change(one, name="at ten")
    fleet.later()
    change(other, name="at eleven")
    fleet.sync(other)
    move(fleet.hub, "y")
    fleet.sync(one, other)
    for database in (fleet.hub, one, other):
        assert seen(database) == [("y", "at eleven", 0)]
        assert ledger(database) == [["at eleven", "at ten"]]


@pytest.mark.parametrize("edits", [0, 1, 2])
@pytest.mark.parametrize("hops", ["y", "yz", "yzxyz"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_late_edit_replaces_what_its_author_had_seen(fleet, edits, hops, writes):
    """However often that was edited, and wherever it moved since; and though the hub has another author by now."""
    one, other = fleet.devices("x", "y", "z")
    put(one, "x", name="Ann")
    fleet.sync(one, other)
    for number in range(edits):
        change((one, other)[number], name=f"{number}")
        fleet.sync(one, other)
    for scope in hops:
        move(fleet.hub, scope)
    if writes:
        for scope in "xyz":
            inject(fleet.hub, scope, [("c-2", born(1))], dot=(HOSTILE[0], 1))
            new_author(fleet.hub, scope)
    fleet.later()
    change(one, name="late")
    fleet.sync(one, other)
    for database in (fleet.hub, one, other):
        assert [row for row in seen(database) if row[1]] == [(hops[-1], "late", 0)]
        assert ledger(database) == []
        assert values(held(database, hops[-1]), NAME) == ["late"]


def test_a_late_edit_replaces_an_earlier_late_one_of_the_same_device(moved, fleet):
    """Which the hub has written again, under an author of its own, and moved on with the record since."""
    hub, one, other = moved
    other.enter("z")
    for number in range(4):
        change(one, name=f"late {number}")
        other.sync(one)
        lone = fleet.open(f"lone{number}", "x")
        lone.sync(one)
        lone.sync(hub)
        if number == 1:
            move(hub, "z")
        assert seen(hub) == [("z" if number else "y", f"late {number}", 3)]
        assert ledger(hub) == []
    fleet.sync(one, other)
    assert seen(other) == [("z", "late 3", 3)]


def test_a_late_edit_has_seen_what_those_that_it_replaces_had_seen(fleet):
    """A device that never met those would keep what they replaced: all of it names what it had seen by itself."""
    one, other = fleet.devices("x", "y")
    put(one, "x", name="Ann")
    change(one, name="edited")
    fleet.sync(one, other)
    move(fleet.hub, "y")
    witness = fleet.open("witness", "y")
    witness.sync(fleet.hub)
    inject(fleet.hub, "y", [("c-2", born(1))], dot=(HOSTILE[0], 1))
    new_author(fleet.hub, "y")
    change(one, name="first")
    other.sync(one)
    change(other, name="second")
    one.sync(fleet.hub)
    other.sync(fleet.hub)
    assert witness.sync(fleet.hub).mended == []
    fleet.sync(one, other)
    for database in (fleet.hub, witness, one, other):
        assert [row for row in seen(database) if row[1]] == [("y", "second", 0)]
        assert (ledger(database), values(held(database, "y"), NAME)) == ([], ["second"])


def test_a_late_edit_that_saw_one_of_two_leaves_the_other(fleet):
    one, other = fleet.devices("x", "y")
    put(one, "x", name="Ann")
    fleet.sync(one, other)
    change(one, name="a")
    fleet.later()
    change(other, name="b")
    fleet.sync(other)
    move(fleet.hub, "y")
    fleet.later()
    change(one, name="c")
    fleet.sync(one, other)
    assert seen(fleet.hub) == seen(one) == [("y", "c", 0)]
    assert ledger(fleet.hub) == ledger(other) == [["c", "b"]]


def test_a_hub_does_not_take_a_new_author_to_replace_what_it_moved(fleet):
    """Else each late edit would cost an author."""
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann")
    change(one, name="Annie")
    fleet.sync(one)
    move(fleet.hub, "y")
    before = last_change(fleet.hub.replica, "y")
    change(one, name="late")
    fleet.sync(one)
    assert last_change(fleet.hub.replica, "y") == (before[0], before[1] + 1)
    assert ledger(fleet.hub) == []


def test_what_two_incarnations_had_moves_as_edited(fleet):
    """A late edit of one of them has not seen what the other was created with."""
    one, other = fleet.devices("x", "y", "z")
    put(one, "x", name="earlier")
    fleet.sync(one)
    change(one, name="between")
    fleet.later()
    put(other, "x", name="later")
    fleet.sync(other)
    assert len(held(fleet.hub, "x")) == 2
    move(fleet.hub, "y")
    fleet.sync(one, other)
    for database in (fleet.hub, one, other):
        assert seen(database) == [("y", "later", 0)]
        assert ledger(database) == [["later", "between"]]


def ledger(database):
    """What of the record was written apart, the value that is read first."""
    return [[claim.value for claim in conflict.claims] for conflict in database.conflicts(Customer)]


def new_author(database, scope):
    """Let the file begin anew in a scope, as a restored one does."""
    with database.replica.store.writing() as writer:
        writer.save_scope(writer.scope(scope)._replace(author=0, seq=0))


def test_late_elements_and_texts_and_later_kinds_follow(moved, fleet):
    hub, one, other = moved
    tag = lambda text: TAGS._replace(sub=canonical.encode(text))  # noqa: E731
    update = lambda text: canonical.encode(text.encode())  # noqa: E731
    for device, text in ((one, "a"), (one, "b"), (other, "c")):
        name = only(device, "x")
        inject(device, "x", [(KEY, edit(name, (tag(text), NONE), (TEXT, update(text)), (LATER, update(text))))])
    fleet.sync(one, other, one)
    for database in (hub, one, other):
        record = held(database, "y")
        assert sorted(cell.address.sub for _, cell in model.cells_at(record, *TAGS[:2])) == [tag(t).sub for t in "abc"]
        assert values(record, TEXT) == [b"a", b"b", b"c"]
        assert values(record, LATER)[-1] == b"c"
    assert not headless(hub, "x")


def test_texts_and_sets_move_whole(fleet):
    one, other = fleet.devices("x", "y")
    put(one, "x")
    for number in range(30):
        name = only(one, "x")
        inject(one, "x", [(KEY, edit(name, (TEXT, canonical.encode(bytes([number])))))])
    fleet.sync(one, other)
    move(one, "y")
    fleet.sync(one, other)
    for database in (fleet.hub, one, other):
        assert values(held(database, "y"), TEXT) == [bytes([number]) for number in range(30)]


def test_a_late_wish_follows_into_a_chain(moved, fleet):
    hub, one, other = moved
    fleet.sync(other)
    other.enter("z")
    move(other, "z")
    fleet.sync(other)
    change(one, name="late")
    move(one, "y")  # from x, where it is no more; it lives in z now
    fleet.sync(one, other)
    assert seen(hub) == [("y", "late", 3)]


def test_late_edits_of_a_record_that_was_deleted_there_stay_in_the_ledger(moved, fleet):
    hub, one, other = moved
    delete(hub)
    change(one, name="late")
    fleet.sync(one, other)
    assert seen(hub) == seen(one) == seen(other) == []
    assert values(headless(hub, "x"), NAME) == values(headless(other, "x"), NAME) == ["late"]


def test_late_edits_and_removals_do_not_reach_another_record_of_the_key(moved, fleet):
    hub, one, other = moved
    delete(hub)
    put(hub, "y", name="another", visits=1)
    change(one, name="late")
    count(one, 5)
    delete(other)
    fleet.sync(one, other, one)
    assert seen(hub) == seen(one) == seen(other) == [("y", "another", 1)]


def test_late_edits_of_both_records_that_came_together(fleet):
    one, other = fleet.devices("x", "y", "z")
    put(one, "x", visits=1)
    put(one, "y", visits=10)
    fleet.sync(one, other)
    for scope in ("x", "y"):
        move(one, "z", scope=scope)
    fleet.sync(one)
    assert len(held(one, "z")) == 2
    for scope, amount in (("x", 100), ("y", 1_000)):
        count(other, amount, scope)
        change(other, scope, name=scope)
    fleet.sync(other, one)
    assert seen(fleet.hub) == seen(one) == [("z", "y", 1_111)]


def test_a_late_removal_removes_the_record_where_it_lives(moved, fleet):
    hub, one, other = moved
    delete(one)
    fleet.sync(one, other)
    assert seen(hub) == seen(one) == seen(other) == []
    move_on = str(hub.why(Customer, KEY, scope="y"))
    assert "deleted" in move_on


def test_what_was_written_in_the_new_scope_outlives_a_late_removal_in_the_ledger(moved, fleet):
    hub, one, other = moved
    fleet.sync(other)
    change(other, name="unseen")
    fleet.sync(other)
    delete(one)
    fleet.sync(one, other)
    assert seen(hub) == seen(one) == seen(other) == []
    assert values(headless(hub, "y"), NAME) == values(headless(one, "y"), NAME) == ["unseen"]


@pytest.mark.parametrize("hops", ["y", "yz"])
def test_a_late_removal_removes_what_it_had_seen(fleet, hops):
    """Edits among that; one that it had not seen stays in the ledger, as it had without the move."""
    one, other, third = fleet.devices("x", "y", "z", count=3)
    for key in (KEY, "c-2"):
        put(one, "x", key, name="Ann")
    change(one, name="seen")
    fleet.sync(one, other, third)
    with other.write() as tx:
        tx.update(Customer, "c-2", name="unseen")
    fleet.sync(other)
    for scope in hops:
        for key in (KEY, "c-2"):
            move(fleet.hub, scope, key=key)
    with third.write() as tx:
        for key in (KEY, "c-2"):
            tx.delete(Customer, key)
    fleet.sync(third, one)
    for database in (fleet.hub, one):
        assert seen(database) == []
        assert values(headless(database, hops[-1]), NAME) == ["unseen"]


def test_a_late_removal_and_a_late_edit(moved, fleet):
    """Delete wins, the edit is kept, in whichever order the two come."""
    hub, one, other = moved
    delete(one)
    change(other, name="unseen")
    fleet.sync(one, other, one)
    assert seen(hub) == []
    assert values(headless(hub, "x"), NAME) == ["unseen"]


def test_late_edits_follow_when_the_hub_has_trimmed(moved, fleet):
    hub, one, other = moved
    assert hub.trim(older_than=timedelta(0), keep=0)
    change(one, name="late")
    count(one, 5)
    delete(other)
    fleet.sync(one)
    assert seen(hub) == seen(one) == [("y", "late", 8)]
    hub.trim(older_than=timedelta(0), keep=0)
    fleet.sync(other)
    assert seen(hub) == []


def test_late_edits_stay_in_the_ledger_when_the_move_is_forgotten(moved, fleet):
    hub, one, _ = moved
    change(one, name="late")
    fleet.later(limits.FORWARDS_KEPT_MS + limits.TRIM_PAUSE_MS)
    hub.replica.tidy()
    fleet.sync(one)
    assert seen(hub) == seen(one) == [("y", "Ann", 3)]
    assert values(headless(hub, "x"), NAME) == ["late"]
    assert "moved" not in str(hub.why(Customer, KEY))


def test_only_so_many_moves_are_remembered(fleet, monkeypatch):
    monkeypatch.setattr(replica, "FORWARDS_MAX", 2)
    for number in range(4):
        put(fleet.hub, "x", f"c-{number}")
        fleet.later()
        move(fleet.hub, "y", key=f"c-{number}")
    fleet.hub.replica.tidy()
    with fleet.hub.replica.store.reading() as reader:
        kept = [key for (key,) in reader._db.execute("SELECT key FROM fs_forward ORDER BY key")]
    assert kept == ["c-2", "c-3"]


def test_a_device_follows_nothing(moved, fleet):
    """Though it holds both scopes and sees a late edit."""
    hub, one, other = moved
    fleet.sync(other)
    change(one, name="late")
    other.sync(one)
    assert values(headless(other, "x"), NAME) == ["late"]
    assert seen(other) == [("y", "Ann", 3)]
    fleet.sync(other)
    assert seen(hub) == [("y", "late", 3)]


# At random ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(0)
def test_a_record_lives_once_and_its_counter_is_the_sum(tmp_path):
    for seed in range(SEEDS // 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert (seed, play(folder, seed)) == (seed, [])


# Devices that mean harm -----------------------------------------------------------------------------------------------

HOSTILE = [bytes([65 + i]) * 8 for i in range(6)]


def survives(fleet, *databases):
    """All land at the hub, a fresh device takes what the hub made of it, and all agree."""
    fleet.sync(*databases)
    fresh = fleet.open(f"fresh{len(fleet.databases)}", "x", "y", "z")
    fleet.sync(fresh, *databases)
    for scope in ("x", "y", "z"):
        assert fresh.compare(fleet.hub, scope).agree
    return fresh


@pytest.mark.parametrize(
    "wish",
    [None, True, 7, -1.5, Decimal(3), b"y", ["y"], {"y": "y"}, "", "y" * 257, "é" * 129, "x", "\x00", "y\x00z", "fs_x"],
)
def test_wishes_of_any_value(fleet, wish):
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann", visits=2)
    inject(one, "x", [(KEY, edit(only(one, "x"), (WISH, canonical.encode(wish))))])
    survives(fleet, one)
    ((scope, *rest),) = seen(fleet.hub)
    assert rest == ["Ann", 2]
    assert scope == (wish if wish in ("\x00", "y\x00z", "fs_x") else "x")
    one.why(Customer, KEY)


def test_wishes_that_are_no_registers(fleet):
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x")
    name = only(one, "x")
    for kind in (model.COUNTER, model.SET, model.BOUNDED, 0x49, 0x40, 0x43):
        sub = canonical.encode("y") if kind & model.HAS_SUB else b""
        inject(one, "x", [(KEY, edit(name, (model.Address("_scope", kind, sub), canonical.encode("y"))))])
    survives(fleet, one)
    assert seen(fleet.hub) == [("x", "", 0)]


NUMBERS = [
    2**62,
    2**63 - 1,
    -(2**63),
    1e308,
    -1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    Decimal("1E+100000"),
    Decimal("-1E+100000"),
    Decimal("1E-100000"),
    Decimal("9" * 1_200),
    "no number",
    None,
    True,
]


@pytest.mark.parametrize("before", NUMBERS, ids=lambda value: repr(value)[:12])
def test_counters_of_any_value_come_late(fleet, before):
    """Totals that move, or do not, and totals that come late for them, of several authors each."""
    (one,) = fleet.devices("x", "y", count=1)
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(len(NUMBERS))]
    for key in keys:
        put(one, "x", key)
    names = {key: next(iter(held(one, "x", key))) for key in keys}

    def write(seq, totals):
        for author, values in zip(HOSTILE, totals, strict=False):
            pieces = [
                (key, edit(names[key], (VISITS, canonical.encode(value))))
                for key, value in zip(keys, values, strict=True)
            ]
            inject(one, "x", pieces, dot=(author, seq))

    write(1, [[before] * len(keys), [1] * len(keys), NUMBERS[::-1]])
    one.sync(fleet.hub)
    with fleet.hub.write() as tx:
        for key in keys:
            tx.move(Customer, key, to="y")
    write(2, [NUMBERS, [before] * len(keys), [Decimal(1)] * len(keys), [before] * len(keys)])
    survives(fleet, one)
    assert {row.key for row in fleet.hub[Customer].all()} == set(keys)
    for row in fleet.hub[Customer].where(scope="y").all():
        for total in values(held(fleet.hub, "y", row.key), VISITS):
            assert type(total) in (int, float, Decimal)
            assert abs(total) >= 0  # no nan
            assert total not in (float("inf"), float("-inf"))


def test_a_late_total_that_would_pass_64_bits_stays_in_the_ledger(moved, fleet):
    """The hub's own total in the new scope is what was moved; adding to it must not fail for good."""
    hub, one, other = moved
    name = only(one, "x")
    most = 2**63 - 1 - 3
    inject(one, "x", [(KEY, edit(name, (VISITS, canonical.encode(most))))], dot=(HOSTILE[0], 1))
    fleet.sync(one)
    assert seen(hub) == [("y", "Ann", 2**63 - 1)]
    inject(other, "x", [(KEY, edit(name, (VISITS, canonical.encode(10))))], dot=(HOSTILE[1], 1))
    survives(fleet, other)
    assert seen(hub) == [("y", "Ann", 2**63 - 1)]
    assert values(headless(hub, "x"), VISITS) == [10]


@pytest.mark.parametrize("updates", [5, 6])
@pytest.mark.parametrize("late", [False, True])
def test_a_text_of_too_many_updates(fleet, updates, late, monkeypatch):
    """Each takes a change of its own: of too many the record stays where it is, or what came in the ledger."""
    monkeypatch.setattr(carrying, "MOVED_UPDATES_MAX", 5)
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann")
    fleet.sync(one)
    if late:
        move(fleet.hub, "y")
    write_updates(one, updates)
    if not late:
        move(one, "y")
    survives(fleet, one)
    few = updates == 5
    assert [scope for scope, *_ in seen(fleet.hub)] == ["y" if few or late else "x"]
    assert len(model.cells_at(held(fleet.hub, "y"), *TEXT[:2])) == (updates if few else 0)
    assert len(model.cells_at(headless(fleet.hub, "x"), *TEXT[:2])) == (updates if late and not few else 0)


def test_a_text_of_very_many_updates_comes_late(moved, fleet):
    """A chunk of them at a time."""
    hub, one, _ = moved
    fleet.is_small = False
    write_updates(one, 2_500)
    survives(fleet, one)
    assert len(model.cells_at(held(hub, "y"), *TEXT[:2])) == 2_500
    assert not headless(hub, "x")


def write_updates(database, count):
    """To a text, each in a change of its own."""
    name = only(database, "x")
    inject(database, "x", [(KEY, one_update(name, number)) for number in range(1, count + 1)])


def one_update(name, number):
    cell = TEXT, canonical.encode(b"%d" % number)
    return lambda stamp: edit(name, cell)(stamp._replace(author=HOSTILE[1], seq=number))


def test_removals_that_are_larger_than_what_they_remove(fleet):
    """A removal names dots, of which a record holds each but once: what fits a change may not fit its removal."""
    one = fleet.open("one", "x", "y")
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(1_000)]
    with one.write() as tx:
        for key in keys:
            tx.create(Customer, key=key, scope="x")
    with one.replica.store.reading() as reader:
        rows = cells.held(reader, reader.scope("x").id)
    flags = [(model.Address(f"f{number}", model.REGISTER), canonical.encode(1)) for number in range(120)]
    wish = (WISH, canonical.encode("y"))
    pieces = [(row.key, edit(next(iter(row.record)), wish, *flags)) for row in rows]
    inject(one, "x", pieces, dot=(HOSTILE[0], 2**62))
    survives(fleet, one)
    assert fleet.hub[Customer].where(scope="y").count() == 1_000


@pytest.mark.parametrize("size", [300_000, 700_000, 1_040_000])
@pytest.mark.parametrize("late", [False, True])
def test_records_of_up_to_a_mebibyte(moved, fleet, size, late):
    """What is beyond half of what a change may have is not carried."""
    hub, one, _ = moved
    if not late:
        fleet.sync(one)
        move(one, "x")
    change(one, name="n" * size)
    count(one, 1)
    survives(fleet, one)
    fits = size < limits.CHANGE_BYTES_MAX // 2
    assert [(scope, len(name), visits) for scope, name, visits in seen(hub)] == [
        ("x" if not late and fits else "y", size if fits or not late else 3, 4 if fits or not late else 3)
    ]


def test_a_key_in_more_incarnations_than_a_change_may_touch(moved, fleet, monkeypatch):
    """It does not move; what comes late for one of them follows, and a late removal takes just that one away."""
    monkeypatch.setattr(transaction, "CHANGE_INCARNATIONS_MAX", 50)
    hub, one, other = moved
    count(one, 5)
    delete(other)
    inject(one, "y", [(KEY, born(number)) for number in range(1, 51)])
    inject(one, "y", [(KEY, edit(model.Name(HOSTILE[0], 7, 0), (WISH, canonical.encode("z"))))])
    one.sync(hub)
    assert len(held(hub, "y")) == 51
    assert seen(hub) == [("y", "Ann", 8)]
    survives(fleet, other)
    assert len(held(hub, "y")) == 50


def born(number):
    return lambda stamp: {model.Name(HOSTILE[0], number, 0): model.Incarnation(stamp.time, frozenset())}


def test_a_hub_remembers_only_so_much_of_what_came_late(moved, fleet, monkeypatch):
    """Of a record that very many write to apart, late; nothing else is worse for that."""
    monkeypatch.setattr(carrying, "MOVED_BYTES_MAX", 150)
    hub, one, _ = moved
    name, late = only(one, "x"), [f"late {number}" for number in range(20)]
    for number, value in enumerate(late):
        inject(one, "x", [(KEY, edit(name, (NAME, canonical.encode(value))))], dot=(bytes([80 + number]) * 8, 1))
        one.sync(hub)
        with hub.replica.store.reading() as reader:
            assert all(len(edited) <= 150 for (edited,) in reader._db.execute("SELECT edited FROM fs_forward"))
    survives(fleet, one)
    assert sorted(ledger(hub)[0]) == sorted(late)


def test_late_edits_for_what_was_never_moved_or_never_was(moved, fleet):
    hub, one, _ = moved
    names = [model.Name(author, seq, n) for author in HOSTILE for seq in (1, 7, 2**62) for n in (0, 9_999)]
    for number, name in enumerate(names):
        inject(one, "x", [(f"k-{number}", edit(name, (NAME, canonical.encode("?"))))])
    survives(fleet, one)
    assert seen(hub) == [("y", "Ann", 3)]
    assert len(headless(hub, "x")) == len(names)


def test_very_many_late_edits_in_one_session(fleet):
    """A change of them at a time, not one each."""
    (one,) = fleet.devices("x", "y", count=1)
    fleet.is_small = False
    keys = [f"c-{number:05}" for number in range(5_000)]
    one.load(Customer, [{"key": key, "name": "Ann", "visits": 1} for key in keys], key="key", scope=lambda row: "x")
    fleet.sync(one)
    for start in range(0, len(keys), 1_000):
        with fleet.hub.write() as tx:
            for key in keys[start : start + 1_000]:
                tx.move(Customer, key, to="y")
        with one.write() as tx:
            for key in keys[start : start + 1_000]:
                row = tx.get(Customer, key)
                row.name, row.visits = "late", row.visits + 1
    before = changes_of(fleet.hub, "y")
    survives(fleet, one)
    assert {(row.scope, row.name, row.visits) for row in fleet.hub[Customer].all()} == {("y", "late", 2)}
    assert changes_of(fleet.hub, "y") - before <= 20


def changes_of(database, scope):
    with database.replica.store.reading() as reader:
        return reader.context(reader.scope(scope).id).count()


def test_wishes_in_a_circle_of_many_scopes(fleet):
    """Each brings the record one scope on, in one transaction; with the last they are used up."""
    (one,) = fleet.devices(*(f"s{number}" for number in range(40)), count=1)
    for number in range(40):
        put(one, f"s{number}", name=f"{number}", visits=1)
    fleet.hub.replica.owns = lambda _: False
    for number in range(40):
        move(one, f"s{(number + 1) % 40}", scope=f"s{number}")
    one.sync(fleet.hub)
    fleet.hub.replica.owns = lambda _: True
    for number in range(40):
        change(fleet.hub, scope=f"s{number}", name="x") if fleet.hub[Customer].get(KEY, scope=f"s{number}") else None
    assert sum(visits for *_, visits in seen(fleet.hub)) == 40
    survives(fleet, one)
    assert sum(visits for *_, visits in seen(one)) == 40


def test_late_wishes_back_and_forth_end(moved, fleet):
    """Two devices that each wish it back where they are, for ever, move it once a wish."""
    hub, one, other = moved
    for number in range(8):
        device, to = ((one, "x"), (other, "y"))[number % 2]
        if device[Customer].get(KEY):
            move(device, to, scope=device[Customer].get(KEY).scope)
        fleet.sync(device)
    assert len(seen(hub)) == 1
    fleet.sync(one, other)
    assert seen(one) == seen(other) == seen(hub)


TENS = [Decimal("1E+1200"), Decimal(1)]  # a few bytes each, and hundreds as a sum or a difference


@pytest.mark.parametrize("late", [False, True])
def test_sums_that_are_larger_than_what_they_sum_up(fleet, late):
    """A few bytes of totals may make a change that no taker takes."""
    one = fleet.open("one", "x", "y")
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(30)]
    for key in keys:
        put(one, "x", key, visits=1)
    with one.replica.store.reading() as reader:
        names = {row.key: next(iter(row.record)) for row in cells.held(reader, reader.scope("x").id)}
    counters = [model.Address(f"n{number}", model.COUNTER) for number in range(200)]

    def write(author, seq, total):
        some = [(address, canonical.encode(total)) for address in counters]
        inject(one, "x", [(key, edit(names[key], *some)) for key in keys], dot=(author, seq))

    write(HOSTILE[0], 1, TENS[0])
    if not late:
        write(HOSTILE[1], 1, TENS[1])
    one.sync(fleet.hub)
    with fleet.hub.write() as tx:
        for key in keys:
            tx.move(Customer, key, to="y")
    if late:
        write(HOSTILE[0], 2, TENS[1])
    survives(fleet, one)
    assert fleet.hub[Customer].where(scope="y").count() == len(keys)
    total = TENS[1] if late else sum(TENS)
    assert sum(values(held(fleet.hub, "y", keys[0]), counters[0])) == total
