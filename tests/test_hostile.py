"""Hostile peers: whatever bytes come, a session refuses them with one error, or takes them and stays consistent."""

import os
import random
import shutil
import zlib
from collections import Counter
from pathlib import Path

import msgpack
import pytest
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Pair, Talk, check_usable, open_replica, record_talk, state

from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, DigestMismatch, FieldsyncError, ProtocolError
from fieldsync.limits import (
    CHUNK_RAW_BYTES_MAX,
    FRAME_BYTES_MAX,
    RANGE_ANSWER_BYTES_MAX,
    RANGE_QUESTION_BYTES_MAX,
    RANGE_ROUNDS_MAX,
    SEQ_MAX,
    SKETCH_SYMBOLS_MAX,
)
from fieldsync.rebuild import rebuild
from fieldsync.syncing import existence, messages, parting, reconcile
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Answer, Ask, Declare, Sketch, Stream, Want
from fieldsync.syncing.reconcile import SYMBOL_BYTES
from fieldsync.syncing.session import Session

pytestmark = pytest.mark.usefixtures("small_chunks")
DECLARE, STREAM, SETTLED, WANT, SKETCH, ASK, ANSWER, PART = 2, 3, 4, 7, 8, 9, 10, 16
BYE, AGAIN, EAGER, DIFFER = 5, 11, 12, 13
NOTHING = Declaration(Context(), Context(), [])
STRANGER = b"stranger"
SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))


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
def test_lies_about_sizes_and_names_are_refused(greeted, frame):
    session, _ = greeted
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
    session = Session(replica, initiator=receiver == 0, peer="peer" if receiver == 0 else None)
    for side, frame in frames:
        if side == receiver:
            assert session.next_frame() == frame
        else:
            session.receive(frame)
    return session


def attack(files, names, frames, folder, chance, start=0):
    """Send every frame of a conversation twisted, each to a fresh copy of who got it; returns how many were refused."""
    refused = 0
    for until, (sender, honest) in list(enumerate(frames))[start:]:
        name = names[1 - sender]
        for number, frame in enumerate(mutations(chance, honest, frames)):
            here = folder / f"{until}-{number}"
            here.mkdir()
            replica = open_replica(Path(shutil.copy(files / name, here / name)))
            session = play(replica, 1 - sender, frames[:until])
            before = state(replica)
            try:
                session.receive(frame)
                while session.next_frame():
                    pass
            except DigestMismatch:  # a lie about what lives is taken whole, and shows in the end
                refused += 1
            except FieldsyncError:
                refused += 1
                assert state(replica) == before
            session.close()
            check_usable(replica, next(iter(before)))
            replica.close()
            shutil.rmtree(here)
    return refused


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 100)))
def test_a_hostile_frame_is_refused_whole_or_taken_whole(files, tmp_path, recorded, seed):
    frames, _ = recorded
    assert attack(files, ("a.db", "b.db"), frames, tmp_path, random.Random(seed)) > 50


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 100)))
def test_a_hostile_part_is_refused_whole_or_taken_whole(files, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(parting, "PART_BYTES_MIN", 45)  # of some chunks, and others travel whole
    frames, _ = record_talk(files, tmp_path / "recorded")
    assert Counter(frame[0] for _, frame in frames)[PART] > 5
    assert attack(files, ("a.db", "b.db"), frames, tmp_path, random.Random(seed)) > 50


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 100)))
def test_a_hostile_greeting_is_refused_whole_or_taken_whole(files, tmp_path, seed):
    """Of a pair that has met, both of which send changes along: of scopes of their own, and of one that both wrote."""
    met = tmp_path / "met"
    with Pair(files, met) as pair:
        Talk.between(pair.a, pair.b, peer="peer").run()
        for replica, scopes in ((pair.a, ("new", "old")), (pair.b, ("old", "same"))):
            with Database(replica).write() as tx:
                for scope in scopes:
                    tx.update("orders", "o-2", scope=scope, status=f"by {scope}")
    with Pair(met, tmp_path / "recorded") as pair:
        frames = Talk.between(pair.a, pair.b, peer="peer").run().frames
        assert pair.states()[0] == pair.states()[1]
    assert [frame[0] for _, frame in frames] == [AGAIN, EAGER, EAGER, DIFFER, EAGER, EAGER, BYE]
    assert attack(met, ("a.db", "b.db"), frames, tmp_path, random.Random(seed)) > 20


# Existence ------------------------------------------------------------------------------------------------------------


KEY = bytes(range(16))


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    """away.db holds what hub.db has deleted, and has forgotten the removals of."""
    folder = tmp_path_factory.mktemp("trimmed")
    hub, away = (Database(open_replica(folder / name)) for name in ("hub.db", "away.db"))
    with hub.write() as tx:
        for number in range(60):
            tx.create("notes", scope="s", key=f"n-{number}", text="x")
    away.enter("s")
    hub.sync(away)
    with hub.write() as tx:
        for number in range(0, 60, 12):
            tx.delete("notes", f"n-{number}", scope="s")
    hub.replica.trim(None, before_ms=2 * NOW_MS)
    with away.write() as tx:
        tx.create("notes", scope="s", key="own", text="y")
    hub.close()
    away.close()
    return folder


class Asked:
    """Two that have declared; `want` is the question that the taker asks next, of which the giver has not heard."""

    def __init__(self, files, folder):
        self.away, self.hub = (open_replica(Path(shutil.copy(files / f, folder / f))) for f in ("away.db", "hub.db"))
        self.taker, self.giver = Talk.between(self.away, self.hub).sides
        sides, turn = (self.taker, self.giver), 0
        self.want = b""
        while not self.want:
            for frame in iter(sides[turn].next_frame, None):
                if frame[0] == WANT:
                    self.want = frame
                    break
                sides[1 - turn].receive(frame)
            turn = 1 - turn
        self.before = state(self.away)["s"], state(self.hub)["s"]

    def meet(self):
        """After all that was said, the two can still meet."""
        self.taker.close()
        self.giver.close()
        for replica in (self.away, self.hub):
            assert audit(replica.store) == []
        Talk.between(self.away, self.hub).run()
        assert state(self.away) == state(self.hub)

    def close(self):
        self.taker.close()
        self.giver.close()
        for replica in (self.away, self.hub):
            check_usable(replica, "s")
            replica.close()


@pytest.fixture
def asked(trimmed, tmp_path):
    asked = Asked(trimmed, tmp_path)
    yield asked
    asked.meet()
    asked.close()


def range_of(depth, prefix, fingerprints=b""):
    return bytes([depth | (0x10 if fingerprints else 0)]) + prefix + fingerprints


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ([Want(1, 5, KEY)], "scope 1 of 1"),
        ([Want(0, 5)], "begins twice, or never"),
        ([Want(0, 5, KEY), Want(0, 5, KEY)], "begins twice, or never"),
        ([Want(0, 5, KEY[:15])], "'k' has 15 bytes"),
        ([Want(0, SEQ_MAX + 1, KEY)], "out of bounds"),
        ([Want(0, -1, KEY)], "out of bounds"),
        ([Want(0, 5, KEY), Want(0, 0)], "more of a sketch"),
        ([Want(0, 5, KEY), Want(0, SKETCH_SYMBOLS_MAX)], "more of a sketch"),
        ([Want(0, 5, KEY), Want(0, SEQ_MAX)], "more of a sketch"),
        ([Want(0, SEQ_MAX, KEY), Want(0, 1)], "more of a sketch"),
        ([Want(0, 5, KEY), Want(0, 30_000), Want(0, 30_000), Want(0, 30_000)], "more of a sketch"),
        ([Ask(0, range_of(0, b""))], "before any sketch"),
        ([Want(0, 5, KEY), Ask(0, b"")], "no ranges"),
        ([Want(0, 5, KEY), Ask(0, b"\xff")], "head of a range"),
        ([Want(0, 5, KEY), Ask(0, range_of(0, b"") * 2)], "do not ascend"),
        ([Want(0, 5, KEY), Ask(0, range_of(2, b"\x02") + range_of(2, b"\x01"))], "do not ascend"),
        ([Want(0, 5, KEY), Ask(0, range_of(1, b"\x01"))], "prefix longer"),
        ([Want(0, 5, KEY), Ask(0, range_of(0, b"", bytes(127)))], "cut short"),
        ([Want(0, 5, KEY), Ask(0, bytes(RANGE_QUESTION_BYTES_MAX + 1))], "'q' has"),
        ([Sketch(0, bytes(12))], "not asked for"),
        ([Answer(0, bytes(16))], "not asked for"),
        ([Want(0, 5, KEY), Sketch(0, bytes(12))], "not asked for"),
    ],
)
def test_questions_that_are_not_due_are_refused(asked, told, refused):
    for message in told[:-1]:
        asked.giver.receive(messages.encode(message))
    with pytest.raises((ProtocolError, DecodeError), match=refused):
        asked.giver.receive(messages.encode(told[-1]))
    assert state(asked.hub)["s"] == asked.before[1]


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ([Sketch(1, bytes(12))], "scope 1 of 1"),
        ([Sketch(0, b"")], "next symbols"),
        ([Sketch(0, bytes(13))], "next symbols"),
        ([Sketch(0, bytes((SKETCH_SYMBOLS_MAX + 1) * SYMBOL_BYTES))], "'y' has"),
        ([Answer(0, bytes(16))], "answer to no question"),
        ([Answer(0, bytes(RANGE_ANSWER_BYTES_MAX + 1))], "'a' has"),
        ([Want(0, 5, KEY)], "not due"),
        ([Ask(0, range_of(0, b""))], "before any sketch"),
        ([Sketch(0, bytes(SKETCH_SYMBOLS_MAX * SYMBOL_BYTES)), Sketch(0, bytes(12))], "not asked for"),  # all is known
    ],
)
def test_answers_that_are_not_due_are_refused(asked, told, refused):
    for message in told[:-1]:
        asked.taker.receive(messages.encode(message))
    with pytest.raises((ProtocolError, DecodeError), match=refused):
        asked.taker.receive(messages.encode(told[-1]))
    assert state(asked.away)["s"] == asked.before[0]


def test_a_want_of_any_number_gets_a_bounded_sketch(asked):
    asked.giver.receive(messages.encode(Want(0, SEQ_MAX, KEY)))
    sketch = asked.giver.next_frame()
    assert sketch[0] == SKETCH
    assert len(sketch) < SKETCH_SYMBOLS_MAX * SYMBOL_BYTES + 100


def test_questions_without_end_are_refused(asked):
    asked.giver.receive(asked.want)
    question = messages.encode(Ask(0, range_of(15, bytes(8))))
    for _ in range(RANGE_ROUNDS_MAX):
        asked.giver.receive(question)
        while asked.giver.next_frame() is not None:
            pass
    with pytest.raises(ProtocolError, match="without end"):
        asked.giver.receive(question)


def test_a_question_before_the_last_answer_was_read_is_refused(asked):
    asked.giver.receive(asked.want)
    question = messages.encode(Ask(0, range_of(15, bytes(8))))
    asked.giver.receive(question)
    with pytest.raises(ProtocolError, match="was read"):
        asked.giver.receive(question)


def converse(asked, sketch, answer, rounds_max=200):
    """Answer the taker's questions as told until it has none; returns how many it asked."""
    said = [asked.want]
    for frame in said:
        assert len(said) < rounds_max
        question = messages.decode(frame)
        reply = Answer(0, answer(question.question)) if isinstance(question, Ask) else Sketch(0, sketch(question))
        asked.taker.receive(messages.encode(reply))
        said += [frame for frame in iter(asked.taker.next_frame, None) if frame[0] in (WANT, ASK)]
    return len(said)


def number_wanted(want):
    return want.number if not want.key else 10


def test_symbols_that_never_decode_lead_to_ranges_and_an_end(asked):
    """Noise for as long as the taker asks; then honest ranges."""
    chance = random.Random(0)
    items = []

    def answer(question):
        if not items:  # under the key of the question
            with asked.hub.store.reading() as reader:
                dots = existence.compared(reader.context(1), asked.taker._shared[0].own)
                items.append(existence.items(reader, reader.scope("s"), dots, messages.decode(asked.want).key))
        return reconcile.answer(items[0], question)

    count = converse(asked, lambda want: chance.randbytes(SYMBOL_BYTES * number_wanted(want)), answer)
    assert count < 30
    asked.taker.receive(messages.encode(Stream(0, None, True)))
    assert {key for (key,) in keys_of(asked.away)} == {"own", *(f"n-{i}" for i in range(60) if i % 12)}


def keys_of(replica):
    with replica.store.reading() as reader:
        return reader.sql("SELECT key FROM notes", ())[1]


def refuse_to_end(chance):
    """Every part of every range differs, and is to be parted again."""

    def answer(question):
        out, at = b"", 0
        while at < len(question):
            head = question[at]
            depth = head % 16
            at += 1 + (depth + 1) // 2 + (128 if head >= 16 else 0)
            mark = b"\x01" + chance.randbytes(128) if depth < 14 else b"\x02\x00\x00"
            out += mark * (16 if head >= 16 else 1)
            if len(out) > 10_000:
                break
        return out

    return answer


@pytest.mark.parametrize("liar", ["noise", "parts without end", "nothing lives", "twice the same", "beyond the range"])
def test_answers_that_lie_are_refused_or_end(asked, liar, monkeypatch):
    monkeypatch.setattr(reconcile, "RANGE_ROUNDS_MAX", 60)
    chance = random.Random(0)
    answers = {
        "noise": lambda question: chance.randbytes(40),
        "parts without end": refuse_to_end(chance),
        "nothing lives": lambda question: b"\x02\x00\x00" * 16,
        "twice the same": lambda question: b"\x02\x00\x02" + bytes(16),
        "beyond the range": lambda question: b"\x02\x00\x01" + b"\xff" * 8 + b"\x00" * 15,
    }
    noise = lambda want: chance.randbytes(SYMBOL_BYTES * number_wanted(want))  # noqa: E731
    if liar == "nothing lives":
        converse(asked, noise, answers[liar])
    else:
        with pytest.raises(DecodeError):
            converse(asked, noise, answers[liar])
    assert state(asked.away)["s"] == asked.before[0]


def test_a_lie_that_nothing_lives_takes_only_what_was_compared_and_leaves_it_in_the_trash(trimmed, tmp_path):
    """The peer covers it and says that it is gone, which nobody can disprove; own work stays."""
    asked = Asked(trimmed, tmp_path)
    converse(asked, lambda want: bytes(SYMBOL_BYTES * SKETCH_SYMBOLS_MAX), None)
    asked.taker.receive(messages.encode(Stream(0, None, True)))
    assert keys_of(asked.away) == [("own",)]
    with asked.away.store.reading() as reader:
        assert reader._db.execute("SELECT count(*) FROM fs_trash").get == 60
    asked.close()


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 1000)))
def test_a_hostile_frame_about_existence_is_refused_whole_or_taken_whole(trimmed, tmp_path, monkeypatch, seed):
    """Of a sketch that gives way to ranges, so that there is a frame of each type."""
    monkeypatch.setattr(reconcile, "SKETCH_SYMBOLS_MAX", 2)
    monkeypatch.setattr(existence, "SKETCH_SYMBOLS_MAX", 2)
    pair = [open_replica(Path(shutil.copy(trimmed / name, tmp_path / name))) for name in ("away.db", "hub.db")]
    frames = Talk.between(*pair).run().frames
    for replica in pair:
        replica.close()
    assert {WANT, SKETCH, ASK, ANSWER} <= {frame[0] for _, frame in frames}
    assert attack(trimmed, ("away.db", "hub.db"), frames, tmp_path, random.Random(seed)) > 50


# Mending --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 1000)))
def test_a_hostile_frame_of_a_scope_that_is_mended_is_refused_whole_or_taken_whole(files, tmp_path, seed):
    """One side has other values, the other lacks a record; from where both have settled on."""
    damaged = tmp_path / "damaged"
    with Pair(files, damaged) as pair:
        Talk.between(pair.a, pair.b).run()
        with pair.a.store.writing() as writer:
            alter = "UPDATE fs_record_1 SET _cells=CAST(replace(_cells, 'open', 'ooze') AS BLOB) WHERE _key='o-1'"
            writer._db.execute(alter)
            rebuild(writer)
        with pair.b.store.writing() as writer:
            writer._db.execute("DELETE FROM fs_record_1 WHERE _key='o-2'")
            rebuild(writer)
    with Pair(damaged, tmp_path / "recorded") as pair:
        frames = Talk.between(pair.a, pair.b).run().frames
        assert pair.states()[0] == pair.states()[1]
    types = [frame[0] for _, frame in frames]
    start = types.index(SETTLED)
    assert {DECLARE, WANT, SKETCH, STREAM} <= set(types[start:])
    assert attack(damaged, ("a.db", "b.db"), frames, tmp_path, random.Random(seed), start) > 50
