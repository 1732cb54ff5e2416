"""What comes late to a record that moved: edits, totals, wishes and removals follow it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests import canonical, model
from tests.movers import HOSTILE, TEXT, born, change, count, delete, ledger, move, only, put, seen, values
from tests.moves import KEY, NAME, Customer, edit, headless, held, inject, last_change

from fieldsync import forwarding, limits, replica

TAGS = model.Address("tags", model.SET)
LATER = model.Address("later", 0x40)
NONE = canonical.encode(None)


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
