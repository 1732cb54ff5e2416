"""Sessions without I/O: what is said and in which order, what is refused, and that a cut or a lie costs nothing."""

from contextlib import suppress

import msgpack
import pytest
from tests.members import between, sync
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Pair, Talk, check_usable, open_replica, state

from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, ProtocolError, SyncError, VersionMismatch
from fieldsync.limits import TURN_MS_MAX, TURN_QUIET_MS
from fieldsync.syncing import messages
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Bye, Declare, Hello, Settled, Stream, Want
from fieldsync.syncing.session import Session, refusal
from fieldsync.trust.rights import Everything, Reason, Trust

pytestmark = pytest.mark.usefixtures("small_chunks")
HELLO, DECLARE, STREAM, SETTLED, BYE = 1, 2, 3, 4, 5
SKIPPED = 200  # a type of frame that means nothing
STRANGER = b"stranger"


# --- the conversation ---


def test_two_round_trips_where_something_differs(pair):
    talk = Talk.between(pair.a, pair.b).run()
    said = [talk.types[0], *(now for before, now in zip(talk.types, talk.types[1:], strict=False) if now != before)]
    assert said[:4] == [(0, HELLO), (1, HELLO), (1, DECLARE), (0, DECLARE)]
    assert said[4:] == [(0, STREAM), (1, STREAM), (1, SETTLED), (0, SETTLED), (0, BYE)]
    report = talk.sides[0].report
    assert report.round_trips == 2
    assert report.scopes == ["new", "old", "same"]
    assert report.refused == ["private"]
    assert report.changes_sent > 3
    assert report.changes_received > 3
    assert report.bytes_sent == sum(len(frame) for side, frame in talk.frames if side == 0)
    assert pair.states()[0] == pair.states()[1]


@pytest.mark.parametrize("writer", ["a", "b"])
def test_two_round_trips_whoever_has_news(pair, writer):
    Talk.between(pair.a, pair.b).run()
    with Database(getattr(pair, writer)).write() as tx:
        tx.update("orders", "o-4", scope="same", status="changed")
    talk = Talk.between(pair.a, pair.b).run()
    assert talk.sides[0].report.round_trips == 2
    assert [kind for _, kind in talk.types].count(DECLARE) == 2
    assert talk.sides[0].report.changes_sent == (writer == "a")
    assert talk.sides[0].report.changes_received == (writer == "b")
    assert pair.states()[0] == pair.states()[1]


def test_one_round_trip_where_nothing_differs(pair):
    Talk.between(pair.a, pair.b).run()
    talk = Talk.between(pair.b, pair.a).run()
    assert talk.types == [(0, HELLO), (1, HELLO), (0, BYE)]
    assert talk.sides[0].report.round_trips == 1
    assert not talk.sides[0].report.changes_sent + talk.sides[0].report.changes_received
    assert all(side.finished for side in talk.sides)


def test_only_the_scopes_asked_for_are_synced(pair):
    before = pair.states()[1]
    Talk.between(pair.a, pair.b, scopes=["old"]).run()
    after = pair.states()
    assert after[0]["old"] == after[1]["old"] != before["old"]
    assert after[1]["new"] == before["new"]


def test_a_hub_takes_what_a_device_offers_and_another_gets_it_from_there(pair, tmp_path):
    hub, other = open_replica(tmp_path / "hub.db", hub=True), open_replica(tmp_path / "c.db")
    Database(other).enter("private")
    for one, two in ((pair.a, hub), (hub, pair.b), (other, hub)):
        Talk.between(one, two).run()
    assert state(hub).keys() == {"new", "old", "same", "private"}
    assert state(other)["private"] == state(pair.a)["private"]
    Talk.between(pair.a, hub).run()
    assert state(hub) == state(pair.a)
    hub.close()
    other.close()


def test_a_hub_that_asks_for_one_scope_gets_no_other(pair, tmp_path):
    hub = open_replica(tmp_path / "hub.db", hub=True)
    Database(hub).enter("old")
    Talk.between(hub, pair.a, scopes=["old"]).run()
    assert state(hub) == {"old": state(pair.a)["old"]}
    hub.close()


@pytest.mark.parametrize("is_initiator", [True, False])
def test_a_hub_enters_an_empty_scope(tmp_path, is_initiator):
    hub, device = open_replica(tmp_path / "hub.db", hub=True), open_replica(tmp_path / "a.db")
    Database(device).enter("empty")
    Talk.between(*((hub, device) if is_initiator else (device, hub))).run()
    assert state(hub).keys() == {"empty"}
    hub.close()
    device.close()


def test_writes_in_the_middle_of_a_session_are_kept_and_travel_next(pair):
    def write_then_receive(side, frame):
        with Database(side._replica).write() as tx:
            tx.create("notes", scope="old", text="meanwhile")
        side.receive(frame)

    talk = Talk.between(pair.a, pair.b).run(deliver=write_then_receive)
    assert all(side.finished for side in talk.sides)
    assert talk.sides[0].report.apart == ["old"]
    assert not Talk.between(pair.a, pair.b).run().sides[0].report.apart
    assert pair.states()[0] == pair.states()[1]
    notes = [name for name, *_ in pair.states()[0]["old"][2] if name]
    assert len(set(notes)) > len(talk.frames)


def test_a_newer_session_with_the_same_peer_takes_a_scope_over(pair, files, tmp_path):
    """As it is after a cut of which nobody has told this side."""
    with Pair(files, tmp_path / "second") as second:
        older = Talk.between(pair.a, pair.b)
        older.sides[1].receive(older.sides[0].next_frame())
        while frame := older.sides[1].next_frame():
            older.sides[0].receive(frame)  # both have said hello, and b has declared
        newer = Talk.between(pair.a, second.b).run()
        older.run()
        assert set(older.sides[0].report.superseded) == {"new", "old"}
        assert not newer.sides[0].report.superseded
        assert pair.states()[0] == second.states()[1]
        Talk.between(pair.a, pair.b).run()
        assert pair.states() == second.states()[1:] * 2


@pytest.mark.parametrize(
    ("later_ms", "is_heard", "is_kept"),
    [
        (TURN_QUIET_MS - 1, False, True),
        (TURN_QUIET_MS, False, False),
        (TURN_QUIET_MS, True, True),
        (TURN_MS_MAX, True, False),
        (-1, False, False),
    ],
)
def test_a_session_that_goes_on_keeps_its_scopes(pair, files, tmp_path, later_ms, is_heard, is_kept):
    """For so long. Who comes meanwhile gives, takes nothing, and is given nothing; the next time he is."""
    with Pair(files, tmp_path / "second") as second:
        second.b.id = bytes(16)
        older = Talk.between(pair.a, pair.b)
        older.sides[1].receive(older.sides[0].next_frame())
        while frame := older.sides[1].next_frame():
            older.sides[0].receive(frame)
        pair.a.wall_ms = lambda: NOW_MS + later_ms
        if is_heard:
            older.sides[0].receive(bytes([SKIPPED]) + msgpack.packb({}))
        newer = Talk.between(pair.a, second.b).run()
        older.run()
        kept, lost = (older, newer) if is_kept else (newer, older)
        assert set(lost.sides[0].report.superseded) == {"new", "old"}
        assert not kept.sides[0].report.superseded
        assert bool(newer.sides[1].report.changes_sent) is not is_kept
        assert pair.a.turns == {}
        for other in (pair.b, second.b):
            Talk.between(pair.a, other).run()
        assert pair.states() == second.states()[1:] * 2


def test_who_comes_again_has_no_more_time_for_it(pair, files, tmp_path):
    """A peer whose sessions begin before the last one ends keeps a scope as long as one session does."""
    with Pair(files, tmp_path / "second") as second:
        second.b.id = bytes(16)
        held = []
        for times in range(4):
            pair.a.wall_ms = lambda times=times: NOW_MS + times * (TURN_QUIET_MS - 1)
            held.append(Talk.between(pair.a, pair.b))
            held[-1].sides[1].receive(held[-1].sides[0].next_frame())
            while frame := held[-1].sides[1].next_frame():
                held[-1].sides[0].receive(frame)
        newer = Talk.between(pair.a, second.b).run()
        assert not newer.sides[0].report.superseded
        for one in held:
            one.run()
        assert pair.a.turns == {}


def test_nobody_is_kept_from_the_control_scope(members):
    """All may write there, also who was granted nothing."""
    eve, ben = members.device("eve"), members.device("ben", write=["job/2"])
    ben.write("job/2", "k")
    eve.write("own", "k")
    one, two = between(eve, members.hub)
    while (frame := one.next_frame()) is not None:
        two.receive(frame)
    report, _, _ = sync(ben, members.hub)
    assert not report.superseded
    assert members.hub.keys("job/2") == ["k"]
    for side in (one, two):
        side.close()
    assert members.hub.db.replica.turns == {}


def test_what_comes_after_the_end_is_not_looked_at(pair):
    """A frame may be on its way to a session that was cut: nothing is held for it."""
    talk = Talk.between(pair.a, pair.b)
    hello = talk.sides[0].next_frame()
    talk.sides[1].close()
    talk.sides[1].receive(hello)
    assert talk.sides[1].next_frame() is None
    assert pair.b.turns == {}
    talk.sides[0].close()


class ReadOnly(Everything):
    def why_not_write(self, _scope):
        return Reason.READ_ONLY


def test_who_may_bring_nothing_keeps_nobody_from_a_scope(pair, files, tmp_path):
    with Pair(files, tmp_path / "second") as second:
        second.b.id = bytes(16)
        trust = Trust(rights=ReadOnly())
        older = Talk((Session(pair.a, initiator=True, trust=trust), Session(pair.b, initiator=False)))
        older.sides[1].receive(older.sides[0].next_frame())
        while frame := older.sides[1].next_frame():
            older.sides[0].receive(frame)
        newer = Talk.between(pair.a, second.b).run()
        assert not newer.sides[0].report.superseded
        older.run()


# --- cut ---


@pytest.mark.parametrize("peer", ["the same", "another"])
def test_cut_anywhere_another_session_goes_on(files, tmp_path, recorded, peer):
    frames, end = recorded
    for cut in range(len(frames)):
        with Pair(files, tmp_path / f"cut {cut}") as pair, Pair(files, tmp_path / f"other {cut}") as other:
            Talk.between(pair.a, pair.b).run(cut_after=cut)
            for replica in (pair.a, pair.b):
                assert audit(replica.store) == []
            if peer == "another":
                Talk.between(pair.a, other.b).run()
                Talk.between(pair.b, other.b).run()
            Talk.between(pair.b, pair.a).run()
            assert pair.states() == [end, end]
            check_usable(pair.a)


def test_what_landed_before_a_cut_is_not_sent_again(files, tmp_path, recorded):
    frames, _ = recorded
    streams = [index for index, (side, frame) in enumerate(frames, 1) if side == 0 and frame[0] == STREAM]
    assert len(streams) > 3
    with Pair(files, tmp_path) as pair:
        first = Talk.between(pair.a, pair.b).run(cut_after=streams[-2])
        second = Talk.between(pair.a, pair.b).run()
    assert 0 < second.sides[1].report.changes_received < first.sides[1].report.changes_received


def test_every_frame_twice_is_survived_or_refused(files, tmp_path, recorded):
    frames, end = recorded
    for doubled in range(len(frames)):
        with Pair(files, tmp_path / str(doubled)) as pair:
            talk = Talk.between(pair.a, pair.b)

            def twice(side, frame, talk=talk, doubled=doubled):
                side.receive(frame)
                if len(talk.frames) == doubled + 1:
                    side.receive(frame)

            with suppress(ProtocolError):
                talk.run(deliver=twice)
            Talk.between(pair.a, pair.b).run()
            assert pair.states() == [end, end]
            check_usable(pair.b)


def test_a_part_of_a_change_is_completed_by_whoever_has_the_rest(tmp_path, single_changes):
    """One had the change in part itself, so its context says nothing of what the other parts were."""
    replicas = {name: open_replica(tmp_path / name) for name in ("author", "left", "right", "half", "other", "last")}
    databases = {name: Database(replica) for name, replica in replicas.items()}
    with databases["author"].write() as tx:
        tx.create("notes", scope="s", key="1", text="old")
        tx.create("notes", scope="s", key="2", text="old")
    for name in ("left", "right", "half", "other", "last"):
        databases[name].enter("s")
        Talk.between(replicas["author"], replicas[name]).run()
    with databases["author"].write() as tx:
        tx.update("notes", "1", scope="s", text="new")
        tx.update("notes", "2", scope="s", text="new")
    for name, key, taker in (("left", "1", "half"), ("right", "2", "other")):
        Talk.between(replicas["author"], replicas[name]).run()
        with databases[name].write() as tx:
            tx.update("notes", key, scope="s", text="newest")  # so that only the other part is still held
        frames = Talk.between(replicas[name], replicas[taker])
        frames.run(cut_after=5)  # hello, hello, declare twice, and the chunk of what is left of the change
        assert frames.types[-1] == (0, STREAM)
    Talk.between(replicas["last"], replicas["half"]).run()
    assert {note.text for note in databases["last"]["notes"]} == {"old", "new"}
    Talk.between(replicas["last"], replicas["other"]).run()
    assert {note.text for note in databases["last"]["notes"]} == {"new"}
    assert state(replicas["last"]) == state(replicas["other"])
    assert Talk.between(replicas["last"], replicas["other"]).run().sides[0].report.round_trips == 1
    for replica in replicas.values():
        check_usable(replica, scope="s")
        replica.close()


# --- refused ---


NOTHING = Declaration(Context(), Context(), [])


@pytest.mark.parametrize(
    "message",
    [Declare(0, NOTHING), Stream(0, None, True), Settled(0, bytes(8), bytes(16), False), Bye()],
    ids=lambda message: type(message).__name__,
)
def test_nothing_comes_before_hello(pair, message):
    session = Session(pair.b, initiator=False)
    with pytest.raises(ProtocolError, match="before any hello"):
        session.receive(messages.encode(message))
    session.close()
    check_usable(pair.b)


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ([Hello(bytes(16), NOW_MS, False, [])], "second hello"),
        ([Declare(0, NOTHING), Declare(0, NOTHING)], "not due"),
        ([Declare(3, NOTHING)], "scope 3 of 3"),
        ([Declare(2, NOTHING)], "not due"),  # the scope that does not differ
        ([Stream(0, None, True)], "not due"),
        ([Declare(0, NOTHING), Stream(0, None, True), Stream(0, None, True)], "not due"),
        ([Stream(9, None, True)], "scope 9 of 3"),
        ([Declare(0, NOTHING), Settled(0, bytes(8), bytes(16), False)], "not due"),
        ([Settled(100_000, bytes(8), bytes(16), False)], "scope 100000 of 3"),
        ([Bye()], "bye before"),
        ([Declare(0, NOTHING), Stream(0, None, True), Bye()], "bye before"),
    ],
)
def test_what_is_not_due_is_refused(greeted, told, refused):
    session, _ = greeted
    for message in told[:-1]:
        session.receive(messages.encode(message))
    with pytest.raises(ProtocolError, match=refused):
        session.receive(messages.encode(told[-1]))


def test_a_floor_beyond_the_peers_own_context_is_refused(greeted):
    session, _ = greeted
    unknown = Context.of([(STRANGER, 1, 1)])
    with pytest.raises(ProtocolError, match="never saw"):
        session.receive(messages.encode(Declare(0, Declaration(Context(), unknown, []))))


def test_a_floor_beyond_what_is_known_is_asked_about(greeted, pair):
    session, _ = greeted
    while session.next_frame() is not None:
        pass
    unknown = Context.of([(STRANGER, 1, 1)])
    known = unknown | Context(state(pair.b)["old"][1])
    session.receive(messages.encode(Declare(1, Declaration(known, unknown, []))))
    want = messages.decode(session.next_frame())
    assert (type(want), want.scope, len(want.key)) == (Want, 1, 16)


@pytest.mark.parametrize("versions", [(2, 3), (0, 0)])
def test_versions_must_meet(pair, versions):
    session = Session(pair.b, initiator=False)
    with pytest.raises(VersionMismatch):
        session.receive(messages.encode(Hello(bytes(16), NOW_MS, False, [("old", bytes(8))], versions)))
    session.close()
    check_usable(pair.b)


@pytest.mark.parametrize("versions", [(1, 1), (0, 7)])
def test_versions_that_meet_go_on(pair, versions):
    session = Session(pair.b, initiator=False)
    session.receive(messages.encode(Hello(bytes(16), NOW_MS, False, [("old", bytes(8))], versions)))
    assert messages.decode(session.next_frame()).scopes
    session.close()


def test_an_answer_that_was_not_asked_for_is_refused(pair, tmp_path):
    answer = messages.encode(Hello(bytes(16), NOW_MS, False, [("secret", bytes(8))]))
    session = Session(pair.a, initiator=True)
    with pytest.raises(ProtocolError, match="secret"):
        session.receive(answer)
    session.close()
    assert "secret" not in state(pair.a)
    hub = open_replica(tmp_path / "hub.db", hub=True)
    session = Session(hub, initiator=True)
    session.receive(answer)
    session.close()
    assert "secret" in state(hub)
    hub.close()


def test_what_the_peer_says_ends_a_session_with_its_reason(greeted):
    session, _ = greeted
    with pytest.raises(SyncError, match=r"DecodeError.*too long"):
        session.receive(refusal(DecodeError("too long")))


# --- newer versions ---


def edited(frame, **changes):
    body = msgpack.unpackb(frame[1:])
    return frame[:1] + msgpack.packb(body | changes)


def test_what_may_be_skipped_is_skipped(files, tmp_path, recorded):
    _, end = recorded

    def with_news(side, frame):
        side.receive(b"\x80")
        side.receive(b"\xff anything at all")
        side.receive(edited(frame, later={"a": [1, None]}))

    with Pair(files, tmp_path) as pair:
        Talk.between(pair.a, pair.b).run(deliver=with_news)
        assert pair.states() == [end, end]


@pytest.mark.parametrize("said", [HELLO, DECLARE, STREAM, SETTLED, BYE])
def test_what_must_be_understood_is_refused(pair, said):
    def with_news(side, frame):
        side.receive(edited(frame, **{"!later": 1}) if frame[0] == said else frame)

    with pytest.raises(DecodeError, match="!later"):
        Talk.between(pair.a, pair.b).run(deliver=with_news)
    check_usable(pair.a)
    check_usable(pair.b)


@pytest.mark.parametrize("kind", [0, 64, 127])
def test_frames_of_unknown_types_are_refused(greeted, kind):
    session, _ = greeted
    with pytest.raises(DecodeError, match=f"type {kind}"):
        session.receive(bytes([kind]) + msgpack.packb({}))


def test_a_row_that_is_another_records_by_now_is_not_named(tmp_path, single_changes):
    """Rows' numbers are used again: a change may name a row in which another record lives today."""
    one, other = (Database(open_replica(tmp_path / name)) for name in ("a.db", "b.db"))
    other.enter("s")
    names = [f"c{i}" for i in range(14)]
    with one.write() as tx:
        for name in names:
            tx.create(name, scope="s", key="k", t=1)
    with one.write() as tx:
        for name in names[1:]:
            tx.delete(name, "k", scope="s")
        tx.update("c0", "k", scope="s", t=2)
    with one.write() as tx:
        for name in names[1:]:
            tx.create(name, scope="s", key="new", t=1)
    assert one.sync(other).complete
    assert state(one.replica) == state(other.replica)
    for database in (one, other):
        database.close()
