"""Moves between scopes: what an app sees of them, what others see, chains and rivals, and moves at random."""

from __future__ import annotations

import os
import queue
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.movers import change, count, delete, move, put, seen
from tests.moves import KEY, Customer, held, play

import fieldsync as fs

SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))

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


# At random ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(0)
def test_a_record_lives_once_and_its_counter_is_the_sum(tmp_path):
    for seed in range(SEEDS // 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert (seed, play(folder, seed)) == (seed, [])
