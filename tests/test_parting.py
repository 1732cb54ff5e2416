"""Chunks in parts: what came before a cut is not sent again, and nothing but bytes depends on what was kept."""

import zlib
from collections import Counter
from pathlib import Path
from random import Random

import msgpack
import pytest
from tests.simulation.audit import audit
from tests.talking import Talk, check_usable, open_replica, state

from fieldsync import changes
from fieldsync.database import Database
from fieldsync.errors import DecodeError, ProtocolError
from fieldsync.limits import BEGUN_CHUNKS_MAX, FRAME_BYTES_MAX
from fieldsync.syncing import giving, messages, parting
from fieldsync.syncing.exchange import declare
from fieldsync.syncing.frames import Begun, Declare, Part, Stream

DECLARE, STREAM, PART = 2, 3, 16
RECORDS = 60


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A stream of three chunks, most of it in parts of 50 bytes."""
    monkeypatch.setattr(giving, "CHUNK_CELLS_FIRST", 30)
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 60)
    monkeypatch.setattr(parting, "PART_BYTES_MIN", 50)


class Both:
    """A hub with some records, and a van without."""

    def __init__(self, folder):
        self.folder = folder
        self.hub, self.van = open_replica(folder / "hub.db", hub=True), open_replica(folder / "van.db")
        chance = Random(1)
        for first in range(0, RECORDS, 5):
            with Database(self.hub).write() as tx:
                for number in range(first, first + 5):
                    tx.create("notes", scope="s", key=f"n-{number}", text=chance.randbytes(20).hex())
        for _ in range(2):
            for number in range(0, RECORDS, 4):
                self.write(f"n-{number}", chance.randbytes(20).hex())
        Database(self.van).enter("s")

    def write(self, key, text):
        with Database(self.hub).write() as tx:
            tx.update("notes", key, scope="s", text=text)

    def talk(self, cut_after=None, giver=None):
        return Talk.between(self.van, giver or self.hub).run(cut_after)

    def cut_in_parts(self, parts):
        """A session whose link dies after so many parts."""
        talk = Talk.between(self.van, self.hub)
        session = talk.sides[0]

        class Cut(Exception):
            pass

        def deliver(side, frame):
            if side is session and [kind for _, kind in talk.types].count(PART) > parts:
                raise Cut
            side.receive(frame)

        with pytest.raises(Cut):
            talk.run(deliver=deliver)
        return talk

    def begun(self):
        with self.van.store.reading() as reader:
            scope = reader.scope("s")
            return scope and reader.begun(scope.id)

    def check_equal(self):
        assert state(self.van) == state(self.hub)
        assert self.begun() is None
        for replica in (self.hub, self.van):
            assert audit(replica.store) == []

    def close(self):
        self.hub.close()
        self.van.close()


@pytest.fixture
def both(tmp_path):
    both = Both(tmp_path)
    yield both
    both.close()


def bodies(*talks):
    """The bytes of chunks that arrived, in order."""
    found = []
    for talk in talks:
        for side, frame in talk.frames:
            if side == 1 and frame[0] in (STREAM, PART):
                found.append(msgpack.unpackb(frame[1:]).get("r", b""))
    return b"".join(found)


def test_large_chunks_come_in_parts_and_land_whole(both):
    talk = both.talk()
    kinds = Counter(kind for side, kind in talk.types if side == 1)
    assert kinds[PART] > 10
    assert kinds[STREAM] == 3
    assert talk.sides[0].report.round_trips == 2
    assert talk.sides[0].report.changes_received == talk.sides[1].report.changes_sent > 10
    both.check_equal()


def test_what_fits_one_part_is_not_parted(both):
    both.talk()
    both.write("n-1", "x")
    assert PART not in [kind for _, kind in both.talk().types]
    both.check_equal()


def test_parts_grow_with_what_a_session_has_sent(both, monkeypatch):
    plain = both.talk().types.count((1, PART))
    monkeypatch.setattr(parting, "PART_SHARE", 4)
    other = open_replica(both.folder / "other.db")
    Database(other).enter("s")
    talk = Talk.between(other, both.hub).run()
    sizes = [len(frame) for side, frame in talk.frames if side == 1 and frame[0] == PART]
    assert max(sizes) > 2 * min(sizes)
    assert len(sizes) < plain / 2
    assert state(other) == state(both.hub)
    other.close()


def test_nothing_that_arrived_is_sent_again(tmp_path):
    whole = None
    for cut_after in range(4, 70):
        folder = tmp_path / f"{cut_after}"
        folder.mkdir()
        both = Both(folder)
        first = both.talk(cut_after)
        if whole is None:
            other = open_replica(folder / "other.db")
            Database(other).enter("s")
            whole = bodies(Talk.between(other, both.hub).run())
            other.close()
        was_in_parts = both.begun() is not None
        came = bodies(first, both.talk())
        if was_in_parts:  # else the stream began anew, with a small chunk
            assert came == whole
        both.check_equal()
        both.close()


def test_a_link_that_dies_after_every_few_frames_brings_all_in_the_end(both):
    talks = [both.talk(cut_after) for cut_after in [7, 9, 6, 12] * 8]
    assert talks[-1].sides[0].report.complete
    both.check_equal()


@pytest.mark.parametrize("is_in_first", [True, False])
def test_a_giver_that_changed_begins_anew_where_its_chunk_is_another(both, is_in_first):
    first = both.cut_in_parts(3)
    size = both.begun()[1]
    both.write("n-1" if is_in_first else "n-36", "changed meanwhile")
    talk = both.talk()
    frames = [messages.decode(frame) for side, frame in talk.frames if side == 1]
    streamed = [message for message in frames if isinstance(message, Part | Stream)]
    assert not is_in_first or not any(message.goes_on for message in streamed)
    assert not is_in_first or bodies(talk)[: len(size)] != bodies(first)[: len(size)]
    both.check_equal()


def test_another_giver_has_other_bytes_and_begins_anew(both):
    other = open_replica(both.folder / "other.db")
    Database(other).enter("s")
    with Database(other).write() as tx:
        tx.create("notes", scope="s", key="own", text="by another")
    Talk.between(other, both.hub).run()
    with Database(other).write() as tx:
        tx.update("notes", "n-1", scope="s", text="by another")
    both.cut_in_parts(3)
    talk = both.talk(giver=other)
    assert not any(getattr(messages.decode(frame), "goes_on", False) for _, frame in talk.frames)
    assert state(other) == state(both.van)
    both.talk()
    both.check_equal()
    other.close()


def test_what_is_kept_survives_a_restart_and_is_declared(both):
    both.cut_in_parts(5)
    kept = both.begun()
    assert kept is not None
    both.van.close()
    both.van = open_replica(both.folder / "van.db", seed=1)
    assert both.begun() == kept
    talk = both.talk()
    declared = [messages.decode(frame) for side, frame in talk.frames if side == 0 and frame[0] == DECLARE]
    assert [message.begun and message.begun.size for message in declared] == [len(kept[1])]
    assert next(m for m in map(messages.decode, [f for s, f in talk.frames if s == 1]) if isinstance(m, Part)).goes_on
    both.check_equal()


def test_a_session_that_lost_the_scope_keeps_nothing(both):
    talk = Talk.between(both.van, both.hub)

    def take_over(side, frame):
        if frame[0] == PART and side is talk.sides[0]:
            with both.van.store.writing() as writer:
                writer.save_scope(writer.scope("s")._replace(taker=b"a newer one"))
        side.receive(frame)

    talk.run(cut_after=10, deliver=take_over)
    assert (1, PART) in talk.types
    assert both.begun() is None


def test_leaving_a_scope_forgets_what_was_begun(both):
    both.cut_in_parts(3)
    assert both.begun() is not None
    both.van.leave(["s"])
    with both.van.store.reading() as reader:
        assert reader._db.execute("SELECT count(*) FROM fs_begun").get == 0


def test_only_so_many_are_kept(both):
    with both.van.store.writing() as writer:
        ids = [writer.enter(f"scope-{number}").id for number in range(BEGUN_CHUNKS_MAX + 2)]
        for number in [*ids, ids[2]]:
            writer.put_begun(number, 1, b"x")
        assert [writer.begun(number) is None for number in ids] == [True, True] + [False] * BEGUN_CHUNKS_MAX


# --- what a peer may not say ---


@pytest.fixture
def asked(both):
    """The van's side after both have declared, with three bytes of a chunk kept; what comes next is for the van."""
    with both.van.store.writing() as writer:
        writer.put_begun(writer.scope("s").id, 7, b"abc")
    sides = Talk.between(both.van, both.hub).sides
    for giver, taker in ((0, 1), (1, 0), (0, 1)):
        for frame in iter(sides[giver].next_frame, None):
            if frame[0] not in (STREAM, PART):
                sides[taker].receive(frame)
    yield sides[0]
    for side in sides:
        side.close()
    both.talk()
    both.check_equal()
    check_usable(both.van, "s")


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ([Part(0, b"x")], "without a first"),
        ([Part(0, b"")], "part of nothing"),
        ([Part(1, b"x", 5)], "scope 1 of 1"),
        ([Part(0, b"x", 5, goes_on=True)], "begins and goes on"),
        ([Part(0, b"x", 5), Part(0, b"x", 5)], "another chunk"),
        ([Part(0, b"x", 5), Part(0, b"x", goes_on=True)], "another chunk"),
        ([Part(0, b"x", 5), Stream(0, None, True)], "before another"),
        ([Part(0, b"x", 5), Stream(0, None, True, b"x", goes_on=True)], "another chunk"),
        ([Part(0, b"x", 5), Stream(0, None, True, b"x")], "not msgpack"),
        ([Part(0, b"x", goes_on=True), Stream(0, None, True, b"x")], "not msgpack"),
        ([Stream(0, None, True, b"\x80")], "without columns"),
        ([Stream(0, None, True, b"\x90")], "not a map"),
        ([Stream(0, None, True, goes_on=True)], "without a rest"),
        ([Part(0, bytes(FRAME_BYTES_MAX - 20), 5), Part(0, bytes(21))], "has more than"),
    ],
)
def test_parts_that_are_not_due_are_refused(asked, both, told, refused):
    before = state(both.van)
    for message in told[:-1]:
        asked.receive(messages.encode(message))
    with pytest.raises((ProtocolError, DecodeError), match=refused):
        asked.receive(messages.encode(told[-1]))
    assert state(both.van) == before


def test_nobody_goes_on_with_what_was_not_begun(both):
    sides = Talk.between(both.van, both.hub).sides
    for giver, taker in ((0, 1), (1, 0)):
        for frame in iter(sides[giver].next_frame, None):
            sides[taker].receive(frame)
    for message in (Part(0, b"x", goes_on=True), Stream(0, None, True, b"x", goes_on=True)):
        with pytest.raises(ProtocolError, match="nothing was begun"):
            sides[0].receive(messages.encode(message))
    for side in sides:
        side.close()


@pytest.mark.parametrize(
    "begun",
    [
        [0, 3, bytes(16)],
        [7, 0, bytes(16)],
        [7, FRAME_BYTES_MAX, bytes(16)],
        [7, 3, bytes(15)],
        [7, 3],
        [True, 3, bytes(16)],
    ],
)
def test_declarations_of_a_begun_chunk_have_bounds(begun):
    with pytest.raises(DecodeError):
        messages.decode(bytes([DECLARE]) + msgpack.packb({"s": 0, "c": b"", "b": begun}))


@pytest.mark.parametrize("cells", [1, 7, 2**62])
def test_a_lie_about_what_was_begun_gets_a_stream_from_the_begin(both, cells):
    with both.van.store.reading() as reader:
        declaration = declare(reader, reader.scope("s"))
    sides = Talk.between(both.van, both.hub).sides
    sides[1].receive(sides[0].next_frame())
    for _ in range(2):
        sides[1].next_frame()  # the hello, and what the hub declares
    sides[1].receive(messages.encode(Declare(0, declaration, Begun(cells, 100, bytes(16)))))
    said = [messages.decode(frame) for frame in iter(sides[1].next_frame, None)]
    assert not any(message.goes_on for message in said)
    assert said[0].cells == 30
    for side in sides:
        side.close()


def test_columns_of_prose_and_of_numbers_are_compressed_as_suits_them():
    prose = Path(__file__).with_name("test_parting.py").read_bytes()
    numbers = b"".join((n * 7919 % 65_536).to_bytes(2, "little") for n in range(4_000))
    streams = [b""] * len(changes.STREAMS) + [prose, numbers]
    *_, (_, text), (_, packed) = found = changes.compress(streams)
    assert len(text) <= len(zlib.compress(prose, 6))
    assert len(packed) <= len(zlib.compress(numbers, 6))
    assert changes.decompress(found) == streams
