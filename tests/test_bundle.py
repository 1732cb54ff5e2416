"""Bundles: files that carry changes between replicas, in any order, any number of times, whole or not at all."""

import io
import itertools
import os
import random

import pytest
from tests.simulation.audit import audit
from tests.talking import open_replica, state

from fieldsync.bundles import bundle
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, NotFound
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Bye, Packed, Stream


@pytest.fixture
def replicas(tmp_path):
    found = {name: open_replica(tmp_path / f"{name}.db") for name in "abc"}
    yield found
    for replica in found.values():
        assert audit(replica.store) == []
        replica.close()


@pytest.fixture
def databases(replicas):
    return {name: Database(replica) for name, replica in replicas.items()}


def fill(database, count=40):
    with database.write() as tx:
        for number in range(count):
            tx.create("notes", scope="job/1", key=f"n-{number}", text=f"note {number}")
            tx.create("notes", scope="job/2", key=f"n-{number}", text=f"note {number}")


def pack(replica, scopes=None, bases=None):
    file = io.BytesIO()
    bundle.write(replica, file, scopes, bases)
    return file.getvalue()


def unpack(replica, data):
    return bundle.read(replica, io.BytesIO(data))


def context(replica, scope="job/1"):
    with replica.store.reading() as reader:
        held = reader.scope(scope)
        return reader.context(held.id) if held else Context()


def test_a_bundle_seeds_a_new_device(replicas, databases, tmp_path):
    fill(databases["a"])
    path = tmp_path / "carried.bundle"
    written = databases["a"].export(path)
    assert written.scopes == ["job/1", "job/2"]
    assert written.bytes == path.stat().st_size
    assert path.stat().st_mode & 0o077 == 0
    read = databases["b"].import_bundle(path)
    assert (read.scopes, read.records_changed, read.incomplete) == (["job/1", "job/2"], 80, [])
    assert state(replicas["a"]) == state(replicas["b"])
    assert [scope.state for scope in databases["b"].scopes()] == ["ready", "ready"]
    again = databases["b"].import_bundle(path)
    assert (again.changes, again.records_changed) == (0, 0)


def test_only_the_named_scopes_travel(replicas, databases):
    fill(databases["a"])
    unpack(replicas["b"], pack(replicas["a"], ["job/2"]))
    assert list(state(replicas["b"])) == ["job/2"]
    with pytest.raises(NotFound, match="job/9"):
        pack(replicas["a"], ["job/9"])


def test_a_bundle_for_a_known_peer_holds_what_it_lacks(replicas, databases, tmp_path):
    fill(databases["a"], 400)
    databases["b"].enter("job/1")
    databases["a"].sync(databases["b"])
    name = replicas["b"].id.hex()
    with databases["a"].write() as tx:
        tx.update("notes", "n-1", scope="job/1", text="changed")
    small = databases["a"].export(tmp_path / "small", "job/1", known_to=name)
    whole = databases["a"].export(tmp_path / "whole", "job/1")
    assert (small.changes, whole.changes) == (1, 2)
    assert small.bytes < whole.bytes / 4
    assert databases["b"].import_bundle(tmp_path / "small").scopes == ["job/1"]
    assert state(replicas["b"])["job/1"] == state(replicas["a"])["job/1"]
    assert databases["c"].import_bundle(tmp_path / "small").incomplete == ["job/1"]
    assert databases["c"].import_bundle(tmp_path / "whole").scopes == ["job/1"]
    assert state(replicas["c"])["job/1"] == state(replicas["a"])["job/1"]


def test_who_lacks_the_base_takes_what_comes_and_joins_nothing(replicas, databases):
    fill(databases["a"])
    base = {"job/1": context(replicas["a"])}
    with databases["a"].write() as tx:
        tx.create("notes", scope="job/1", key="new", text="new")
    small = pack(replicas["a"], ["job/1"], base)
    assert unpack(replicas["b"], small).incomplete == ["job/1"]
    assert databases["b"]["notes"].get("new").text == "new"
    assert [scope.state for scope in databases["b"].scopes()] == ["filling"]
    databases["b"].sync(databases["a"])
    assert state(replicas["a"])["job/1"] == state(replicas["b"])["job/1"]


def test_deletes_whose_removals_are_forgotten_are_found_out(replicas, databases):
    fill(databases["a"])
    for name in "bc":
        unpack(replicas[name], pack(replicas["a"]))
    known = {"job/1": context(replicas["a"])}
    with databases["b"].write() as tx:
        tx.update("notes", "n-5", scope="job/1", text="unseen by who deletes it")
        tx.create("notes", scope="job/1", key="of-b", text="stays")
    with databases["a"].write() as tx:
        for number in range(10):
            tx.delete("notes", f"n-{number}", scope="job/1")
    assert replicas["a"].trim(None, before_ms=1 << 62) == 1
    for data in (pack(replicas["a"], ["job/1"]), pack(replicas["a"], ["job/1"], known)):
        unpack(replicas["b"], data)
        unpack(replicas["c"], data)
    assert {row.key for row in databases["b"]["notes"].where(scope="job/1")} == {
        *(f"n-{number}" for number in range(10, 40)),
        "of-b",
    }
    assert state(replicas["c"])["job/1"][2] == state(replicas["a"])["job/1"][2]
    unpack(replicas["a"], pack(replicas["b"]))
    unpack(replicas["c"], pack(replicas["a"]))
    assert len({repr(state(replica)["job/1"]) for replica in replicas.values()}) == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_any_order_and_again(replicas, databases, order):
    """Three bundles of three moments, each on the one before: once all are in, all is there."""
    fill(databases["a"], 5)
    bundles, base = [], {}
    for number, text in enumerate(("one", "two", "three")):
        with databases["a"].write() as tx:
            tx.update("notes", "n-1", scope="job/1", text=text)
            tx.create("notes", scope="job/1", key=text, text=text)
            tx.delete("notes", f"n-{number + 2}", scope="job/1")
        bundles.append(pack(replicas["a"], ["job/1"], base))
        base = {"job/1": context(replicas["a"])}
    for _ in range(3):
        for place in order:
            unpack(replicas["b"], bundles[place])
    assert state(replicas["b"])["job/1"] == state(replicas["a"])["job/1"]


def test_many_chunks(replicas, databases, single_changes):
    for _ in range(5):
        with databases["a"].write() as tx:
            tx.create("notes", scope="job/1", text="x")
    data = pack(replicas["a"])
    assert len(list(bundle._data(io.BytesIO(data)))) == 6
    unpack(replicas["b"], data)
    assert state(replicas["a"]) == state(replicas["b"])


# --- files that are not what was written ---


def test_a_damaged_or_cut_file_changes_nothing(replicas, databases):
    fill(databases["a"], 10)
    data = pack(replicas["a"])
    chance = random.Random(5)
    for _ in range(150):
        twisted = bytearray(data)
        twisted[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(DecodeError):
            unpack(replicas["b"], bytes(twisted))
    for size in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            unpack(replicas["b"], data[:size])
    assert state(replicas["b"]) == {}


def packed(*said):
    """A bundle of any messages, well signed."""
    file = io.BytesIO()
    out = bundle._Out(file)
    for message in said:
        out.frame(message)
    out.end()
    return file.getvalue()


EMPTY, BEYOND = Context(), Context.of([(b"somebody", 1, 5)])
BEGUN = Packed("job/1", EMPTY, EMPTY, EMPTY, b"", b"")


@pytest.mark.parametrize(
    "said",
    [
        [Bye()],
        [Stream(0, None, True)],
        [BEGUN],
        [BEGUN, BEGUN, Stream(0, None, True)],
        [BEGUN, Stream(0, None, True), Stream(0, None, True)],
        [Packed("job/1", EMPTY, EMPTY, BEYOND, b"", b""), Stream(0, None, True)],
        [Packed("job/1", BEYOND, EMPTY, EMPTY, b"", b""), Stream(0, None, True)],
        [Packed("job/1", EMPTY, EMPTY, EMPTY, bytes(16), bytes(7)), Stream(0, None, True)],
        [Packed("job/1", EMPTY, EMPTY, EMPTY, bytes(16), bytes(8) * 2), Stream(0, None, True)],
    ],
)
def test_frames_out_of_place_are_refused(replicas, said):
    with pytest.raises(DecodeError):
        unpack(replicas["a"], packed(*said))


def test_a_bundle_without_items_removes_nothing(replicas, databases):
    """A floor that the reader does not cover, and no word of what lives: nothing is joined, and nothing dropped."""
    fill(databases["a"])
    unpack(replicas["b"], pack(replicas["a"]))
    claimed = context(replicas["a"]) | BEYOND
    report = unpack(replicas["b"], packed(Packed("job/1", EMPTY, claimed, BEYOND, b"", b""), Stream(0, None, True)))
    assert report.incomplete == ["job/1"]
    assert state(replicas["a"]) == state(replicas["b"])


def test_a_frame_that_claims_to_be_huge_is_refused(replicas):
    with pytest.raises(DecodeError, match="at most"):
        unpack(replicas["a"], bundle.MAGIC + b"\xff\xff\xff\xff" + bytes(100))


def test_a_packed_scope_has_no_place_in_a_session(replicas, databases):
    from fieldsync.errors import ProtocolError
    from fieldsync.syncing.session import Session

    fill(databases["a"], 1)
    session = Session(replicas["b"], initiator=False)
    session.receive(Session(replicas["a"], initiator=True).next_frame())
    with pytest.raises(ProtocolError):
        session.receive(messages.encode(BEGUN))
    session.close()


def test_a_file_that_cannot_be_written_is_not_half_there(replicas, databases, tmp_path, monkeypatch):
    fill(databases["a"])
    path = tmp_path / "out.bundle"
    databases["a"].export(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        databases["a"].export(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []
