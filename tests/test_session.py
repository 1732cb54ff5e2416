"""Sessions without I/O: what is said and in which order, what is refused, and that a cut or a lie costs nothing."""

import os
import random
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Talk, open_replica, state

import fieldsync as fs
from fieldsync import exchange, messages
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, DigestMismatch, FieldsyncError, ProtocolError, SyncError, VersionMismatch
from fieldsync.exchange import Declaration
from fieldsync.limits import CHUNK_RAW_BYTES_MAX, FRAME_BYTES_MAX
from fieldsync.messages import Bye, Declare, Hello, Settled, Stream
from fieldsync.session import Session, refusal

HELLO, DECLARE, STREAM, SETTLED, BYE = 1, 2, 3, 4, 5
STRANGER = b"stranger"
SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    hours: fs.Counter = 0


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Streams of several frames."""
    monkeypatch.setattr(exchange, "CHUNK_CELLS_TARGET", 6)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """a.db and b.db share the scopes new, old and same, of which same is equal; a.db alone holds private."""
    folder = tmp_path_factory.mktemp("files")
    one, other = open_replica(folder / "a.db"), open_replica(folder / "b.db")
    a, b = Database(one, (Order,)), Database(other, (Order,))
    b.enter("new", "old", "same")
    with a.write() as tx:
        for scope in ("new", "old", "same"):
            for number in range(5):
                tx.create(Order, scope=scope, key=f"o-{number}", status="open", hours=number)
        tx.create("notes", scope="private", key="n-1", text="mine")
    a.sync(b)
    for number in range(4):
        with a.write() as tx:
            tx.create(Order, scope="new", key=f"a-{number}", status="a", hours=number)
        with b.write() as tx:
            tx.create(Order, scope="new", key=f"b-{number}", status="b")
    with a.write() as tx:
        tx.delete(Order, "o-0", scope="old")
        tx.delete(Order, "o-3", scope="new")
        tx.get(Order, "o-1", scope="old").status = "done"
        tx.create("notes", scope="old", key="n-2", text="new", many=[1, {"b": 2.5}])
    with b.write() as tx:
        tx.get(Order, "o-0", scope="old").status = "seen by nobody"
        tx.get(Order, "o-2", scope="old").hours += 2
    with b.write() as tx:
        tx.get(Order, "o-3", scope="new").status = "x" * 100
        tx.delete(Order, "o-4", scope="old")
    a.close()
    b.close()
    return folder


class Pair:
    """Fresh copies of both files."""

    def __init__(self, files: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.a = open_replica(Path(shutil.copy(files / "a.db", folder / "a.db")))
        self.b = open_replica(Path(shutil.copy(files / "b.db", folder / "b.db")))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.a.close()
        self.b.close()

    def states(self):
        shared = ("new", "old", "same")
        return [{name: state(replica)[name] for name in shared} for replica in (self.a, self.b)]


@pytest.fixture
def pair(files, tmp_path):
    with Pair(files, tmp_path) as pair:
        yield pair


@pytest.fixture(scope="module")
def recorded(files, tmp_path_factory):
    """The whole conversation, and the state that both are in after it."""
    with pytest.MonkeyPatch.context() as patch, Pair(files, tmp_path_factory.mktemp("recorded")) as pair:
        patch.setattr(exchange, "CHUNK_CELLS_TARGET", 6)
        frames = Talk.between(pair.a, pair.b).run().frames
        ends = pair.states()
        assert ends[0] == ends[1]
        return frames, ends[0]


def check_usable(replica):
    """Nothing is left open, all follows from the cells, and writing goes on."""
    assert not replica.store._lent
    assert audit(replica.store) == []
    with Database(replica).write() as tx:
        tx.create("notes", scope="old", key="after", text="still here")


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
    Talk.between(pair.a, pair.b).run()
    assert pair.states()[0] == pair.states()[1]
    notes = [name for name, *_ in pair.states()[0]["old"][2] if name]
    assert len(set(notes)) > len(talk.frames)


def test_a_newer_session_takes_a_scope_over(pair, files, tmp_path):
    with Pair(files, tmp_path / "second") as second:
        older = Talk.between(pair.a, pair.b)
        for _ in range(2):
            older.sides[1].receive(older.sides[0].next_frame())
            while frame := older.sides[1].next_frame():
                older.sides[0].receive(frame)
            break
        newer = Talk.between(pair.a, second.b).run()
        older.run()
        assert set(older.sides[0].report.superseded) == {"new", "old"}
        assert not newer.sides[0].report.superseded
        assert pair.states()[0] == second.states()[1]
        assert pair.states()[0] == pair.states()[1]  # what a gave, b took


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


# --- refused ---


@pytest.fixture
def met(pair):
    """The responder of a conversation in which both have said hello, and the frames it has sent."""
    session = Session(pair.b, initiator=False)
    session.receive(Session(pair.a, initiator=True).next_frame())
    frames = []
    while frame := session.next_frame():
        frames.append(frame)
    yield session, frames
    session.close()
    check_usable(pair.b)


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
def test_what_is_not_due_is_refused(met, told, refused):
    session, _ = met
    for message in told[:-1]:
        session.receive(messages.encode(message))
    with pytest.raises(ProtocolError, match=refused):
        session.receive(messages.encode(told[-1]))


def test_a_floor_beyond_what_is_known_is_refused(met, pair):
    session, _ = met
    own = Context(state(pair.b)["new"][1])
    session.receive(messages.encode(Declare(0, Declaration(own, own, []))))
    unknown = Context.of([(STRANGER, 1, 1)])
    with pytest.raises(ProtocolError, match="upgrade"):
        session.receive(messages.encode(Declare(1, Declaration(unknown, unknown, []))))


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


def test_what_the_peer_says_ends_a_session_with_its_reason(met):
    session, _ = met
    with pytest.raises(SyncError, match=r"DecodeError.*too long"):
        session.receive(refusal(DecodeError("too long")))


def test_unequal_records_at_equal_contexts_are_reported(met, pair):
    session, _ = met
    own = state(pair.b)["new"]
    session.receive(messages.encode(Declare(0, Declaration(Context(own[1]), Context(), []))))
    while session.next_frame():
        pass
    session.receive(messages.encode(Stream(0, None, True)))
    with pytest.raises(DigestMismatch):
        session.receive(messages.encode(Settled(0, Context(own[1]).hash(), bytes(16), False)))


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


@pytest.mark.parametrize("kind", [0, 7, 127])
def test_frames_of_unknown_types_are_refused(met, kind):
    session, _ = met
    with pytest.raises(DecodeError, match=f"type {kind}"):
        session.receive(bytes([kind]) + msgpack.packb({}))


# --- hostile ---


def stream_of(streams, count=1, authors=STRANGER, fields=(), collections=("orders",)):
    body = {"s": 0, "d": True, "n": count, "a": authors, "f": list(fields), "k": list(collections), "z": streams}
    return bytes([STREAM]) + msgpack.packb(body)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes([STREAM]) + bytes(FRAME_BYTES_MAX),
        bytes([STREAM]) + b"\xc1",
        bytes([STREAM]) + msgpack.packb([1]),
        bytes([STREAM]) + b"\xdf\xff\xff\xff\xff",  # a map of four billion
        bytes([STREAM]) + b"\x91" * 10_000,
        stream_of([(CHUNK_RAW_BYTES_MAX + 1, b"")]),
        stream_of([(CHUNK_RAW_BYTES_MAX, b"")] * 7),
        stream_of([(1 << 40, b"x")] * 6),
        stream_of([(100, zlib.compress(bytes(1 << 24)))] * 6),  # more than it says
        stream_of([(1 << 20, zlib.compress(bytes(100)))] * 6),  # less than it says
        stream_of([(-1, zlib.compress(bytes(1 << 24)))] * 6),
        stream_of([(-100, zlib.compress(bytes(10)))] * 6),
        stream_of([(0, b"")] * 6, count=1 << 40),
        stream_of([(0, b"")] * 6, count=-1),
        stream_of([(0, b"")] * 6),
        stream_of([(0, b"")] * 6, count=0, authors=bytes(8)),
        stream_of([(0, b"")] * 6, count=0, authors=STRANGER * 2),
        stream_of([(0, b"")] * 6, count=0, authors=STRANGER[:7]),
        stream_of([(0, b"")] * 7, count=0, fields=[("f", 0)]),
        stream_of([(0, b"")] * 7, count=0, fields=[("f", 256)]),
        stream_of([(0, b"")] * 8, count=0, fields=[("f", 8), ("f", 8)]),
        stream_of([(0, b"")] * 7, count=0, fields=[("x" * 129, 8)]),
        stream_of([(0, b"")] * 6, count=0, collections=[""]),
        stream_of([(0, b"")] * 6, count=0, collections=["x" * 129]),
        stream_of([(0, b"\x00" + b"\xff" * 9 + b"\x01" * 3), *[(0, b"")] * 5]),
    ],
)
def test_lies_about_sizes_and_names_are_refused(met, frame):
    session, _ = met
    session.receive(messages.encode(Declare(0, NOTHING)))
    with pytest.raises(DecodeError):
        session.receive(frame)


def test_a_context_that_lies_is_refused():
    for data in (b"\x01", bytes(9), b"\xff" * 40, STRANGER + b"\x01\x00" + b"\xff" * 9 + b"\x01"):
        with pytest.raises(DecodeError):
            messages.decode(bytes([DECLARE]) + msgpack.packb({"s": 0, "c": data}))


def mutations(chance, frame, frames):
    """Frames that are nearly right: bits, bytes, pieces of other frames, and values of the body in other places."""
    for _ in range(2):
        at = chance.randrange(len(frame))
        yield frame[:at] + bytes([frame[at] ^ 1 << chance.randrange(8)]) + frame[at + 1 :]
        yield frame[:at] + frame[at + chance.randrange(1, 9) :]
        yield frame[:at] + chance.randbytes(chance.randrange(1, 9)) + frame[at:]
        yield frame[:at] + chance.choice(frames)[1][at:]
    yield chance.choice(frames)[1]
    for _ in range(8):
        body = msgpack.unpackb(frame[1:])
        if "z" in body and chance.random() < 0.8:
            streams = [zlib.decompress(data) if size else data for size, data in body["z"]]
            some = [index for index, stream in enumerate(streams) if stream]
            index = chance.choice(some)
            streams[index] = mutated_bytes(chance, streams[index])
            body["z"] = [(0, stream) for stream in streams]
        elif body:
            key = chance.choice(list(body))
            body[key] = mutated(chance, body[key])
        yield frame[:1] + msgpack.packb(body)


def mutated_bytes(chance, data):
    at = chance.randrange(len(data) + 1)
    end = at + chance.choice([0, 1, 1, 1, 3])
    return data[:at] + chance.choice([b"", b"\x00", b"\x01", b"\x7f", b"\xff", chance.randbytes(2)]) + data[end:]


def mutated(chance, value):
    if isinstance(value, list) and value and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], mutated(chance, value[at]), *value[at + chance.randrange(2) :]]
    if isinstance(value, bytes) and chance.random() < 0.8:
        return mutated_bytes(chance, value)
    return chance.choice([None, True, -1, 0, 1, 2**32, 2**63, "", "x", b"", b"\x00" * 8, 1.5, [], {}, value])


def play(replica, receiver, frames):
    """One side of a recorded conversation, after some frames."""
    session = Session(replica, initiator=receiver == 0)
    for side, frame in frames:
        if side == receiver:
            assert session.next_frame() == frame
        else:
            session.receive(frame)
    return session


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 100)))
def test_a_hostile_frame_is_refused_whole_or_taken_whole(files, tmp_path, recorded, seed):
    frames, _ = recorded
    chance = random.Random(seed)
    refused = 0
    for until, (sender, honest) in enumerate(frames):
        name = "ab"[1 - sender] + ".db"
        for number, frame in enumerate(mutations(chance, honest, frames)):
            folder = tmp_path / f"{until}-{number}"
            folder.mkdir()
            replica = open_replica(Path(shutil.copy(files / name, folder / name)))
            session = play(replica, 1 - sender, frames[:until])
            before = state(replica)
            try:
                session.receive(frame)
                while session.next_frame():
                    pass
            except FieldsyncError:
                refused += 1
                assert state(replica) == before
            session.close()
            check_usable(replica)
            replica.close()
            shutil.rmtree(folder)
    assert refused > 50
