"""What a repair claims to hold afterwards: no more than is here, whatever else was going on or comes later."""

import apsw
import pytest
from tests.simulation.audit import audit
from tests.talking import Order, Talk, open_replica, state

from fieldsync.database import Database
from fieldsync.syncing.session import Session
from fieldsync.trust import rights as trust

SCOPE = "job/1"
HELLO, SETTLED = 1, 4


@pytest.fixture
def make(tmp_path):
    """Makes databases that hold the scope; at the end all is as it follows from the cells."""
    made = []

    def make(name, hub=False):
        database = Database(open_replica(tmp_path / f"{name}.db", hub=hub), (Order,))
        database.enter(SCOPE)
        made.append(database)
        return database

    yield make
    for database in made:
        assert audit(database.replica.store) == []
        database.close()


def write(database, key, **fields):
    with database.write() as tx:
        if database[Order].get(key, scope=SCOPE) is None:
            tx.create(Order, scope=SCOPE, key=key, **fields)
        else:
            tx.update(Order, key, scope=SCOPE, **fields)


def lose(database, key):
    """A record is damaged on the disk, found and repaired: it will come back by difference."""
    with apsw.Connection(database.path) as file:
        file.execute(
            "UPDATE fs_record_1 SET _cells=CAST(x'ff'||substr(_cells,2) AS BLOB) WHERE _key=?", (key,)
        ).fetchall()
        assert file.changes() == 1
    report = database.verify(repair=True)
    assert (report.fetching, report.left) == ({SCOPE: 1}, [])


def check_equal(*databases):
    states = [state(database.replica)[SCOPE] for database in databases]
    assert all(one == states[0] for one in states)


def test_a_repair_ends_the_streams_that_run_into_the_scope(make):
    """They were told of a context that holds no longer; their Done would join what was just given up."""
    one, other = make("one"), make("other")
    for number in range(3):
        write(one, f"o-{number}")
    one.sync(other)
    write(other, "new")
    talk = Talk.between(one.replica, other.replica)

    def deliver(side, frame):
        side.receive(frame)
        if side is talk.sides[0] and frame[0] == HELLO:
            lose(one, "o-1")

    talk.run(deliver=deliver)
    assert talk.sides[0].report.superseded == [SCOPE]
    one.sync(other)
    check_equal(one, other)
    assert one[Order].where().count() == 4


def test_what_was_removed_and_forgotten_does_not_come_back_through_a_repair(make):
    hub, keeper, stale = make("hub", hub=True), make("keeper"), make("stale")
    with keeper.write() as tx:
        for key in "xyz":
            tx.create(Order, scope=SCOPE, key=key)
    keeper.sync(hub)
    stale.sync(hub)
    for key in "xy":
        with keeper.write() as tx:
            tx.delete(Order, key, scope=SCOPE)
    keeper.sync(hub)
    assert hub.replica.trim(None, before_ms=1 << 62) == 2
    lose(hub, "z")
    for other in (stale, keeper, stale, keeper):
        other.sync(hub)
    check_equal(hub, keeper, stale)
    assert [row.key for row in hub[Order]] == ["z"]


def test_what_a_lost_change_had_replaced_comes_back(make):
    one, other = make("one"), make("other")
    write(other, "o-0", status="zero")
    write(other, "o-0", status="one")
    one.sync(other)
    write(one, "o-0", status="two, which nobody has seen")
    lose(one, "o-0")
    one.sync(other)
    check_equal(one, other)
    assert one[Order].get("o-0").status == "one"


def test_what_was_held_in_part_and_lost_comes_back(make, single_changes):
    giver, taker = make("giver"), make("taker")
    with giver.write() as tx:
        for key in "xy":
            tx.create(Order, scope=SCOPE, key=key, status="1")
    write(giver, "x", status="2")
    for cut_after in range(3, 12):
        Talk.between(taker.replica, giver.replica).run(cut_after)
        with taker.replica.store.reading() as reader:
            is_partly_here = reader.provisional_dots(reader.scope(SCOPE).id)
        if is_partly_here and taker[Order].get("y"):
            break
    assert is_partly_here
    lose(taker, "y")
    taker.sync(giver)
    check_equal(giver, taker)
    assert taker[Order].get("y").status == "1"


# --- what else a promise must not outrun ---


def test_what_comes_after_enough_is_of_no_effect(make):
    """One thread says that it is enough while another takes a frame in."""
    one, other = make("one"), make("other")
    write(one, "x")
    one.sync(other)
    write(other, "y")
    is_enough = False
    here = Session(one.replica, initiator=True, enough=lambda report: is_enough)
    there = Session(other.replica, initiator=False)
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((here, there), (there, here)):
            while (frame := sender.next_frame()) is not None:
                moved = True
                if sender is there and frame[0] == SETTLED:
                    is_enough = True
                    assert here.next_frame() is None
                receiver.receive(frame)
    assert is_enough
    assert (here.finished, here.report.complete) == (True, False)
    for side in (here, there):
        side.close()
    one.sync(other)
    check_equal(one, other)


def test_who_would_take_too_much_away_is_heard_all_the_same(make, monkeypatch):
    monkeypatch.setattr(trust, "DROPS_FREE_MAX", 0)
    one, other = make("one"), make("other")
    for number in range(10):
        write(one, f"k{number}")
    one.sync(other)
    for number in range(9):
        with other.write() as tx:
            tx.delete(Order, f"k{number}", scope=SCOPE)
    other.replica.trim(None, before_ms=1 << 62)
    write(other, "fresh")
    report = one.sync(other)
    assert report.waiting == [SCOPE]
    assert one[Order].get("fresh") is not None
    assert one[Order].where().count() == 11
    one.replica.trust = lambda replica, says_hub: trust.Trust(is_hub=True)
    assert one.sync(other).waiting == []
    check_equal(one, other)
    assert {row.key for row in one[Order]} == {"k9", "fresh"}
    assert len(one.trash()) == 9


def test_a_hub_makes_durable_what_a_device_may_leave_on(make, monkeypatch):
    """A settlement and the answer to a change that came along come after the log was synced."""
    hub, van = make("hub", hub=True), make("van")
    said = []
    monkeypatch.setattr(hub.replica, "before_leaving", lambda: said.append("synced"))
    for text in ("first", "second"):
        write(van, "x", status=text)
        talk = Talk.between(van.replica, hub.replica, peer="hub")

        def deliver(side, frame, talk=talk):
            if side is talk.sides[0]:
                said.append(frame[0])
            side.receive(frame)

        talk.run(deliver=deliver)
    assert "synced" in said[: said.index(SETTLED)]
    assert said[-2:] == ["synced", 13]
