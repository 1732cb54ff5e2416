"""Hostile peers: whatever bytes come, a session refuses them with one error, or takes them and stays consistent."""

import os
import random
import shutil
import zlib
from pathlib import Path

import msgpack
import pytest
from tests.talking import Pair, check_usable, make_files, open_replica, record_talk, state

from fieldsync import giving, messages
from fieldsync.context import Context
from fieldsync.errors import DecodeError, FieldsyncError
from fieldsync.exchange import Declaration
from fieldsync.limits import CHUNK_RAW_BYTES_MAX, FRAME_BYTES_MAX
from fieldsync.messages import Declare
from fieldsync.session import Session

DECLARE, STREAM = 2, 3
NOTHING = Declaration(Context(), Context(), [])
STRANGER = b"stranger"
SEEDS = int(os.environ.get("FIELDSYNC_SEEDS", "100"))


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    """Streams of several frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(giving, "CHUNK_CELLS_TARGET", 6)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def recorded(files, tmp_path_factory):
    return record_talk(files, tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def pair(files, tmp_path):
    with Pair(files, tmp_path) as pair:
        yield pair


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
