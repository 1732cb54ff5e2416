"""No byte of a record leaves for who may not read its scope, none is taken from who may not write: in any history."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.members import Members, between, converse, sync

from fieldsync import changes
from fieldsync.errors import FieldsyncError, ProtocolError
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Again, Answer, Declare, Eager, Part, Settled, Sketch, Stream
from fieldsync.syncing.session import Session
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import CONTROL, Reason, tell

SCOPES = ("job/1", "job/2", "prices")
OF_A_SCOPE = (Declare, Part, Stream, Settled, Sketch, Answer)


def mark(scope):
    """What all records of a scope have in them, and nothing else has."""
    return f"<<{scope}>>"


class Wire:
    """Looks at each frame before it is delivered: whatever a side says, its peer may read the scope that it is of."""

    def __init__(self, one, other):
        self.nodes = (one, other)

    def readable(self, turn):
        giver, taker = self.nodes[turn], self.nodes[1 - turn]
        rights = giver.membership.trust(taker.peer).rights
        return {scope for scope in SCOPES if not rights.why_not_read(scope)}

    def __call__(self, turn, frame):
        readable = self.readable(turn)
        for scope in set(SCOPES) - readable:
            assert mark(scope).encode() not in frame
        message = messages.decode(frame)
        is_a_no = isinstance(message, Settled) and message.refused and message.digest == bytes(16)
        is_an_end = isinstance(message, Stream) and message.chunk is None and not message.rest
        if isinstance(message, OF_A_SCOPE) and not (is_a_no or is_an_end):
            assert self.sides[turn]._shared[message.scope].name in {*readable, CONTROL}
        return frame


@contextmanager
def in_the_clear():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "STREAM_COMPRESS_BYTES_MIN", 1 << 40)
        yield


def watched_sync(one, other):
    wire = Wire(one, other)
    wire.sides = between(one, other)
    converse(wire.sides, wire)


RIGHTS = st.fixed_dictionaries(
    {
        "read": st.lists(st.sampled_from(["job/*", *SCOPES]), max_size=2),
        "write": st.lists(st.sampled_from(SCOPES), max_size=2),
    }
)
STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.sampled_from(SCOPES)),
    st.tuples(st.just("delete"), st.integers(0, 3), st.sampled_from(SCOPES)),
    st.tuples(st.just("sync"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("sync"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("grant"), st.integers(1, 3), RIGHTS),
    st.tuples(st.just("trim"), st.integers(0, 3), st.none()),
    st.tuples(st.just("later"), st.integers(1, 300), st.none()),
)


class History:
    """A hub and three devices to which anything happens; what each wrote is known."""

    def __init__(self, folder, rights):
        self.members = Members(folder)
        self.nodes = [self.members.hub]
        self.nodes += [self.members.device(f"d{n}", **one) for n, one in enumerate(rights)]
        for node in self.nodes:
            node.db.enter(*SCOPES)
        self.granted = {node.device: [one] for node, one in zip(self.nodes[1:], rights, strict=True)}
        self.count = 0

    def step(self, what, who, value):
        if what == "write":
            self.count += 1
            self.nodes[who].write(value, f"{who}-{self.count}", text=mark(value), by=who)
        elif what == "delete":
            for key in self.nodes[who].keys(value)[:1]:
                with self.nodes[who].db.write() as tx:
                    tx.delete("notes", key, scope=value)
        elif what == "sync" and who != value:
            watched_sync(self.nodes[who], self.nodes[value])
        elif what == "grant":
            self.members.hub.membership.grant(self.nodes[who].device, **value)
            self.granted[self.nodes[who].device].append(value)
        elif what == "trim":
            self.nodes[who].db.trim(older_than=timedelta(0), keep=0)
        elif what == "later":
            for node in self.nodes:
                node.now_ms += who * DAY_MS

    def check(self):
        """What is held was written by who was ever granted that, and was brought by who was told of it."""
        for node in self.nodes:
            for row in node.db["notes"]:
                writer = self.nodes[row.by]
                if writer not in (node, self.members.hub):
                    assert any(row.scope in one["write"] for one in self.granted[writer.device])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rights=st.lists(RIGHTS, min_size=3, max_size=3), steps=st.lists(STEPS, max_size=30))
def test_nothing_leaves_for_who_may_not_read_it(tmp_path_factory, rights, steps):
    with in_the_clear():
        history = History(tmp_path_factory.mktemp("history"), rights)
        try:
            for step in steps:
                history.step(*step)
            history.check()
            for node in history.nodes[1:]:  # those who may, end alike
                watched_sync(node, history.members.hub)
            for node in history.nodes[1:]:
                watched_sync(node, history.members.hub)
            history.check()
        finally:
            for node in history.nodes:
                assert node.db.verify().faults == []
                node.db.close()


def test_the_wire_notices_what_it_is_to_notice(tmp_path, monkeypatch):
    with in_the_clear():
        history = History(tmp_path, [{"read": ["job/1"]}, {}, {}])
        history.step("write", 0, "prices")
        monkeypatch.setattr("fieldsync.syncing.greeting.Greeting._may_tell", lambda *_: True)
        with pytest.raises(AssertionError):
            history.step("sync", 1, 0)
        for node in history.nodes:
            node.db.close()


# --- who says what another said ---


@pytest.fixture
def history(tmp_path):
    with in_the_clear():
        history = History(tmp_path, [{"write": ["job/1", "prices"]}, {"read": ["job/1"]}, {}])
        yield history
        for node in history.nodes:
            assert node.db.verify().faults == []
            node.db.close()


def played_to(hub, peer, frames):
    """What a hub answers to frames that somebody else said, brought by a peer who proved who he is."""
    side = Session(hub.db.replica, initiator=False, trust=hub.membership.trust(peer))
    said = []
    try:
        for frame in frames:
            side.receive(frame)
            while answer := side.next_frame():
                said.append(answer)
    except FieldsyncError:
        pass
    finally:
        side.close()
    return said


@pytest.mark.parametrize("times", [1, 2])
def test_what_one_device_said_gets_another_nothing(history, times):
    """The first time it is a Hello and all that follows, the second time an Again with the news."""
    hub, ada, eve = history.nodes[0], history.nodes[1], history.nodes[3]
    for _ in range(times):
        history.step("write", 0, "prices")
        history.step("write", 1, "prices")
        heard = []
        sync(ada, hub, lambda turn, frame, heard=heard: (heard.append(frame) if turn == 0 else None) or frame)
    history.step("write", 0, "prices")
    before = hub.digests()
    said = played_to(hub, eve.peer, heard)
    assert said
    assert not any(mark("prices").encode() in frame for frame in said)
    assert hub.digests() == before
    if times == 2:
        assert isinstance(messages.decode(heard[0]), Again)


def test_a_reader_who_says_that_he_is_a_hub_is_none(history):
    hub, _, ben = history.nodes[:3]
    for _ in range(3):
        history.step("write", 0, "prices")
        history.step("write", 0, "job/1")
    ben.db.replica.takes_all = True
    report, _, frames = sync(ben, hub)
    assert not any(mark("prices").encode() in frame for frame in frames)
    with ben.db.write() as tx:
        for key in ben.keys("job/1"):
            tx.delete("notes", key, scope="job/1")
    report, _, _ = sync(ben, hub)
    assert sorted((one.scope, one.code) for one in report.refusals) == [
        ("job/1", Reason.READ_ONLY),
        ("job/2", Reason.NOT_GRANTED),
        ("prices", Reason.NOT_GRANTED),
    ]
    assert len(hub.keys("job/1")) == 3
    assert {held.name: held.pending for held in hub.db.scopes()} == dict.fromkeys([CONTROL, *SCOPES], 0)


def test_an_eager_change_of_a_reader_is_not_taken(history):
    """He says it as one who may write would: the taker knows better."""
    hub, ada = history.nodes[:2]
    for _ in range(2):
        history.step("write", 1, "job/1")
        sync(ada, hub)
    hub.membership.grant(ada.device, read=["job/1", "prices"])
    history.step("write", 1, "job/1")
    before = hub.keys("job/1")
    kinds = []
    sync(ada, hub, lambda turn, frame: kinds.append((turn, type(messages.decode(frame)))) or frame)
    assert (0, Eager) in kinds
    assert hub.keys("job/1") == before


def test_frames_for_scopes_that_are_not_shared(history):
    hub, ben = history.nodes[0], history.nodes[2]
    history.step("write", 0, "prices")
    side = Session(hub.db.replica, initiator=False, trust=hub.membership.trust(ben.peer))
    other = Session(ben.db.replica, initiator=True, peer="hub", trust=ben.membership.trust(hub.peer))
    side.receive(other.next_frame())
    count = len(side._shared)
    assert [shared.name for shared in side._shared] == [CONTROL, "job/1"]
    with pytest.raises(ProtocolError, match="a frame on scope"):
        side.receive(messages.encode(Settled(count, bytes(8), bytes(16), is_provisional=False)))
    side.close()
    other.close()


def test_reasons_in_words():
    assert all(tell(reason) != reason for reason in Reason)
    assert tell("of a newer version") == "of a newer version"
