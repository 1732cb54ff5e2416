"""Trimming: removals are forgotten where nothing can need them, and what was forgotten stays gone."""

import apsw
import pytest
from tests.forgetting import (
    SCOPE,
    Devices,
    context_and_floor,
    cut,
    delete,
    edit,
    forget,
    inner,
    keys,
    orphans,
    put,
    rows,
    seen,
    sync,
)
from tests.talking import NOW_MS, open_replica

from fieldsync.database import Database

pytestmark = pytest.mark.usefixtures("single_changes")
STREAM = 3


@pytest.fixture
def devices(tmp_path):
    devices = Devices(tmp_path / "devices")
    yield devices
    devices.close()


# What may be forgotten ------------------------------------------------------------------------------------------------


def test_forgotten_removals_take_no_room(devices):
    a = devices["a"]
    put(a, *(f"n-{i}" for i in range(200)), text="x")
    delete(a, *(f"n-{i}" for i in range(100)))
    delete(a, *(f"n-{i}" for i in range(100, 199)))
    assert (rows(a, "fs_removal"), rows(a, "fs_change", "flags&2")) == (199, 2)
    before = seen(a)
    assert forget(a) == 2
    assert (rows(a, "fs_removal"), rows(a, "fs_change", "flags&2")) == (0, 0)
    assert seen(a) == before
    context, floor = context_and_floor(a)
    assert floor.intervals() == [(author, 1, high) for author, _, high in context.intervals()]
    assert forget(a) == 0


def test_a_deleted_record_leaves_not_a_byte(tmp_path):
    sizes = []
    for name, deleted in (("a", 0), ("b", 1_000)):
        with Database(open_replica(tmp_path / f"{name}.db")) as database:
            put(database, "kept", text="x")
            put(database, "first", *(f"key-{i}" for i in range(deleted - 1)), text="x")
            delete(database, "first", *(f"key-{i}" for i in range(deleted - 1)))
            forget(database)
            assert rows(database, "fs_change") == 1
        with_nothing_free = apsw.Connection(str(tmp_path / f"{name}.db"))
        with_nothing_free.execute("VACUUM")
        sizes.append(with_nothing_free.pragma("page_count"))
        with_nothing_free.close()
    assert sizes[0] == sizes[1]


def test_only_the_oldest_go(devices):
    a = devices["a"]
    put(a, *"12345")
    for key in "12345":
        delete(a, key)
    assert a.replica.trim([SCOPE], before_ms=0, keep=5) == 0
    assert a.replica.trim([SCOPE], before_ms=0, keep=3) == 2
    assert a.replica.trim(["another"], before_ms=2 * NOW_MS) == 0
    assert a.replica.trim([SCOPE], before_ms=NOW_MS - 1) == 0
    assert rows(a, "fs_change", "flags&2") == rows(a, "fs_removal") == 3
    assert a.replica.trim(None, before_ms=NOW_MS) == 3


def test_a_removal_stays_while_what_it_removes_may_still_come(devices):
    """The taker has the removal of a record of whose creation it has not heard."""
    a, b, late = devices["a"], devices["b"], devices["late"]
    put(a, "x", text="old")
    sync(a, b, late)
    put(a, "y")
    sync(a, b)
    delete(b, "y")
    put(b, "z")
    cut(late, b, STREAM)
    assert rows(late, "fs_removal") == 1
    assert forget(late) == 0
    sync(late, b)
    assert forget(late) == 1
    assert keys(late) == {"x", "z"}


def test_a_removal_stays_while_an_edit_that_it_saw_may_still_come(devices):
    """The record is known, an edit is not that whoever deleted the record had seen."""
    a, b, late = devices["a"], devices["b"], devices["late"]
    put(a, "x", text="old")
    sync(a, b, late)
    sync(b, a)
    edit(a, "x", text="new")
    sync(a, b)
    delete(b, "x")
    put(b, "z")
    cut(late, b, STREAM)
    assert (keys(late), forget(late)) == (set(), 0)
    sync(late, a)  # whose edit is late
    assert orphans(late) == set()
    sync(late, b)
    assert forget(late) == 1
    assert forget(b) == 1
    assert seen(late) == seen(b)


def test_a_removal_stays_while_its_author_has_a_gap_before_it(devices):
    """A floor is a vector: what it covers has to be without gaps."""
    a, b, late = devices["a"], devices["b"], devices["late"]
    put(a, "x", "y", text="1")
    sync(a, b, late)
    edit(b, "y", text="2")
    edit(b, "y", text="3")  # nothing is left of the edit before, so that it does not travel
    delete(b, "x")
    put(b, "z")
    cut(late, b, STREAM, times=2)
    assert keys(late) == {"y"}
    assert [low for _, low, _ in context_and_floor(late)[0].intervals()].count(1) == 3
    assert forget(late) == 0
    sync(late, b)
    assert forget(late) == 1


def test_elements_and_dismissals_are_forgotten_too(devices):
    a, b = devices["a"], devices["b"]
    put(a, "x", "y")
    inner(a, "tag", "x", tag="urgent")
    inner(a, "untag", "x", tag="urgent")
    sync(a, b)
    edit(b, "y", text="late")
    delete(a, "y")
    sync(a, b)
    assert [value for field, value in orphans(a) if field == "text"]
    inner(a, "dismiss", "-")
    assert orphans(a) == set()
    assert forget(a) == 3
    assert rows(a, "fs_removal") == 0


# Several --------------------------------------------------------------------------------------------------------------


def ring(devices, trim):
    """Each hears only from the one before, and forgets at once."""
    a, b, c = (devices[name] for name in "abc")
    put(a, *"123456", text="x")
    for _ in range(2):
        sync(a, b, c, a)
    delete(a, "1")
    edit(b, "1", text="unseen")
    delete(b, "2")
    inner(c, "tag", "3", tag="one")
    trim(a)
    trim(b)
    sync(a, b)
    trim(b)
    delete(c, "3", "2")
    trim(c)
    put(c, "2", text="again")
    sync(b, c)
    trim(c)
    edit(a, "4", text="new")
    delete(c, "4")
    trim(c)
    sync(c, a)
    trim(a)
    for _ in range(2):
        sync(a, b, c, a)
        for database in (a, b, c):
            trim(database)
    return [seen(database)[1:] for database in (a, b, c)]  # but clocks: none is moved by a removal that is forgotten


def test_a_ring_of_three_that_all_forget(tmp_path):
    ends = []
    for name, trim in (("trimmed", forget), ("kept", lambda database: 0)):
        devices = Devices(tmp_path / name)
        ends += ring(devices, trim)
        assert keys(devices["a"]) == {"2", "5", "6"}
        devices.close()
    assert ends == ends[:1] * 6


def test_what_was_heard_from_one_that_forgot_is_passed_on(devices):
    """The floor travels: whoever joined it has to compare with those who stayed away, though it never saw a removal."""
    hub, away, other = devices["hub"], devices["away"], devices["other"]
    put(hub, "1", "2")
    sync(hub, away)
    sync(hub, other)
    delete(hub, "1")
    forget(hub)
    sync(away, hub)
    assert rows(away, "fs_removal") == 0
    sync(other, away)
    assert keys(other) == {"2"}
    sync(other, hub)
    assert seen(other) == seen(away) == seen(hub)


def test_an_edit_that_waits_for_its_record_is_not_taken_for_gone(devices):
    """Here a record is removed of whose creation nothing is known; at the giver it lives, with an edit held here."""
    a, b, c, d, g, late = (devices[name] for name in ("a", "b", "c", "d", "g", "late"))
    put(a, "x", text="old")
    for other in (b, c, g):
        sync(a, other)
    edit(b, "x", text="late edit")
    sync(b, g)
    delete(c, "x")
    sync(c, d)
    sync(b, d)
    put(d, "last")
    assert len(orphans(d)) == 1
    put(g, "y")
    delete(g, "y")
    assert forget(g) == 1
    while not (orphans(late) and rows(late, "fs_removal")):
        cut(late, d, STREAM)
    sync(late, g)
    assert orphans(late) == orphans(d)
    sync(late, d)
    assert seen(late) == seen(d)
