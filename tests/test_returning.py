"""Whoever returns to one that has forgotten removals finds what is gone all the same, for a few bytes."""

import queue
import shutil
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from tests import model
from tests.forgetting import SCOPE, Devices, context_and_floor, delete, edit, forget, inner, keys, put, rows, seen, sync
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Talk, open_replica

from fieldsync.database import Database
from fieldsync.syncing import existence, giving, reconcile

pytestmark = pytest.mark.usefixtures("single_changes")
STREAM, WANT, SKETCH, ASK, ANSWER = 3, 7, 8, 9, 10


# Who returns ----------------------------------------------------------------------------------------------------------


def without_a_record(hub, away, trim):
    put(hub, "1", "2", text="x")
    sync(hub, away)
    delete(hub, "1")
    trim(hub)


def without_elements_and_texts(hub, away, trim):
    put(hub, "1", "2")
    for tag in ("one", "two"):
        inner(hub, "tag", "1", tag=tag)
    inner(hub, "write", "2", text=b"a")
    inner(hub, "write", "2", text=b"b")
    sync(hub, away)
    inner(hub, "untag", "1", tag="one")
    inner(away, "tag", "1", tag="one")  # added again by somebody who did not know
    inner(away, "write", "2", text=b"c")
    delete(hub, "2")
    trim(hub)


def with_edits_of_the_dead(hub, away, trim):
    """Headless cells here, there, at both, and dismissed at one."""
    put(hub, "1", "2", "3", text="x")
    sync(hub, away)
    for key in "123":
        edit(away, key, text=f"first {key}")
    inner(away, "tag", "1", tag="late")
    delete(hub, "1", "2")
    sync(hub, away)
    trim(away)
    edit(away, "3", text="second")
    inner(hub, "dismiss", "-")
    delete(hub, "3")
    trim(hub)


def with_keys_made_again(hub, away, trim):
    put(hub, "1", "2", "3", text="x")
    sync(hub, away)
    for key in "123":
        delete(hub, key)
    put(hub, "1", "2", text="again")
    trim(hub)
    delete(away, "2", "3")
    put(away, "2", "3", text="of the other")
    edit(away, "1", text="edited")


def with_work_of_its_own(hub, away, trim):
    put(hub, *"123456", text="x")
    sync(hub, away)
    delete(hub, "1", "2")
    trim(hub)
    edit(away, "1", text="edited")
    edit(away, "3", text="edited")
    put(away, "7", text="new")
    delete(away, "4", "2")
    edit(hub, "4", text="unseen")


def with_both_trimmed(hub, away, trim):
    put(hub, *"12345", text="x")
    sync(hub, away)
    delete(hub, "1", "2")
    delete(away, "2", "3")
    edit(hub, "3", text="unseen")
    edit(away, "1", text="unseen")
    put(away, "6")
    trim(hub)
    trim(away)


def from_nothing(hub, away, trim):
    put(hub, "1", "2")
    delete(hub, "1")
    trim(hub)


STORIES = [
    without_a_record,
    without_elements_and_texts,
    with_edits_of_the_dead,
    with_keys_made_again,
    with_work_of_its_own,
    with_both_trimmed,
    from_nothing,
]
STORY_KEYS = {
    without_a_record: {"2"},
    without_elements_and_texts: {"1"},
    with_edits_of_the_dead: set(),
    with_keys_made_again: {"1", "2", "3"},
    with_work_of_its_own: {"3", "5", "6", "7"},
    with_both_trimmed: {"4", "5", "6"},
    from_nothing: {"2"},
}


def tell(story, folder, trim=forget):
    """The files of a story up to the moment before the two meet again."""
    devices = Devices(folder)
    story(devices["hub"], devices["away"], trim)
    for database in devices.held.values():
        database.close()
    return folder


class Meeting:
    """Fresh copies of a story's files."""

    def __init__(self, story, folder):
        folder.mkdir()
        names = sorted(path.name for path in story.glob("*.db"))
        every = [open_replica(Path(shutil.copy(story / name, folder / name))) for name in names]
        self.away, self.hub = (Database(replica) for replica in every)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.away.close()
        self.hub.close()

    def talk(self, start="away", cut_after=None, deliver=None):
        sides = (self.away, self.hub) if start == "away" else (self.hub, self.away)
        talk = Talk.between(*(side.replica for side in sides))
        return talk.run(cut_after, *([deliver] if deliver else []))

    def end(self):
        """What both hold, which is the same and all in order."""
        assert seen(self.hub) == seen(self.away)
        for database in (self.hub, self.away):
            assert audit(database.replica.store) == []
            context, floor = context_and_floor(database)
            assert not floor - context
        report = self.talk().sides[0].report
        assert (report.round_trips, report.changes_sent, report.changes_received) == (1, 0, 0)
        return seen(self.hub)


@pytest.fixture(params=STORIES, ids=lambda story: story.__name__)
def story(request):
    return request.param


@pytest.mark.parametrize("start", ["away", "hub"])
def test_with_trimming_and_without_it_all_ends_the_same(tmp_path, story, start):
    ends = []
    for name, trim in (("trimmed", forget), ("kept", lambda database: 0)):
        with Meeting(tell(story, tmp_path / name, trim), tmp_path / f"{name} met") as meeting:
            types = [kind for _, kind in meeting.talk(start).types]
            compares = name == "trimmed" and story is not from_nothing  # who holds nothing has nothing to compare
            assert (WANT in types, SKETCH in types) == (compares,) * 2
            assert not {ASK, ANSWER} & set(types)
            ends.append(meeting.end())
            assert keys(meeting.away) == STORY_KEYS[story]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("start", ["away", "hub"])
def test_cut_anywhere_and_met_again_all_ends_the_same(tmp_path, story, start):
    files = tell(story, tmp_path / "story")
    with Meeting(files, tmp_path / "whole") as meeting:
        frames = len(meeting.talk(start).frames)
        end = meeting.end()
    for after in range(frames):
        with Meeting(files, tmp_path / f"cut {after}") as meeting:
            meeting.talk(start, cut_after=after)
            for database in (meeting.hub, meeting.away):
                assert audit(database.replica.store) == []
                context, floor = context_and_floor(database)
                assert not floor - context
                forget(database)  # in the middle of it
            meeting.talk("away" if after % 2 else "hub")
            assert meeting.end() == end


@pytest.mark.parametrize("most", [2, 1 << 16], ids=["ranges", "sketch"])
def test_cut_anywhere_another_goes_on(tmp_path, story, monkeypatch, most):
    """What one giver has begun, another ends, whichever way it is found what is gone."""
    monkeypatch.setattr(reconcile, "SKETCH_SYMBOLS_MAX", most)
    monkeypatch.setattr(existence, "SKETCH_SYMBOLS_MAX", most)
    files = tell(story, tmp_path / "story")
    with Meeting(files, tmp_path / "whole") as meeting:
        frames = len(meeting.talk().frames)
        end = meeting.end()
    for after in range(2, frames, 2):
        with Meeting(files, tmp_path / f"cut {after}") as meeting, Meeting(files, tmp_path / f"other {after}") as other:
            meeting.talk(cut_after=after)
            sync(meeting.away, other.hub)
            sync(meeting.hub, other.hub)
            assert seen(other.hub) == meeting.end() == end


def test_the_floor_is_joined_with_the_context_and_not_before(tmp_path):
    files = tell(with_work_of_its_own, tmp_path / "story")
    with Meeting(files, tmp_path / "met") as meeting:
        _, given = context_and_floor(meeting.hub)
        _, own = context_and_floor(meeting.away)
        joined = []

        def deliver(session, frame):
            session.receive(frame)
            context, floor = context_and_floor(meeting.away)
            assert floor == (own | given if not given - context else own)
            joined.append(bool(floor))

        talk = meeting.talk(deliver=deliver)
        assert joined == sorted(joined)
        assert (joined[0], joined[-1]) == (False, True)
        assert talk.types[joined.index(True)][1] in (STREAM, SKETCH)
        assert not own


@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_a_sketch_that_does_not_decode_goes_on(tmp_path, story, monkeypatch, wanted):
    files = tell(story, tmp_path / "story")
    with Meeting(files, tmp_path / "whole") as meeting:
        meeting.talk()
        end = meeting.end()
    monkeypatch.setattr(reconcile, "symbols_for", lambda difference: wanted)
    with Meeting(files, tmp_path / "met") as meeting:
        types = meeting.talk().types
        assert types.count((0, WANT)) == types.count((1, SKETCH)) >= (story is not from_nothing)
        if wanted == 1 and story is with_work_of_its_own:
            assert types.count((0, WANT)) > 1  # one symbol tells one difference, and there are two
        assert meeting.end() == end


@pytest.mark.parametrize("most", [1, 2])
def test_a_sketch_that_never_decodes_gives_way_to_ranges(tmp_path, story, monkeypatch, most):
    files = tell(story, tmp_path / "story")
    with Meeting(files, tmp_path / "whole") as meeting:
        meeting.talk()
        end = meeting.end()
    monkeypatch.setattr(reconcile, "SKETCH_SYMBOLS_MAX", most)
    monkeypatch.setattr(existence, "SKETCH_SYMBOLS_MAX", most)
    with Meeting(files, tmp_path / "met") as meeting:
        types = meeting.talk().types
        if most == 1 and story is with_work_of_its_own:
            assert types.count((0, ASK)) == types.count((1, ANSWER)) >= 1
        assert meeting.end() == end


def test_ranges_find_a_few_among_many(tmp_path, monkeypatch):
    """Of more items than are listed at once, in several questions."""
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 50_000)
    monkeypatch.setattr(reconcile, "RANGE_ITEMS_TARGET", 4)
    monkeypatch.setattr(reconcile, "SKETCH_SYMBOLS_MAX", 2)
    monkeypatch.setattr(existence, "SKETCH_SYMBOLS_MAX", 2)

    def many(hub, away, trim):
        put(hub, *map(str, range(800)))
        sync(hub, away)
        delete(hub, *map(str, range(0, 800, 50)))
        trim(hub)

    with Meeting(tell(many, tmp_path / "story"), tmp_path / "met") as meeting:
        talk = meeting.talk()
        asked = talk.types.count((0, ASK))
        assert asked >= 2
        assert talk.sides[0].report.round_trips == 2 + talk.types.count((0, WANT)) - 1 + asked
        assert seen(meeting.away) == seen(meeting.hub)
        assert keys(meeting.away) == {str(i) for i in range(800) if i % 50}


def drain(session):
    return list(iter(session.next_frame, None))


@pytest.mark.parametrize("last", [STREAM, SKETCH])
def test_what_is_gone_goes_with_done_whichever_comes_last(tmp_path, last):
    """Not before it: until then, a record and what took its place would both be missing."""
    with Meeting(tell(with_work_of_its_own, tmp_path / "story"), tmp_path / "met") as meeting:
        away, hub = Talk.between(meeting.away.replica, meeting.hub.replica).sides
        while (frame := away.next_frame()) is None or frame[0] != WANT:
            for told in drain(hub) if frame is None else ():
                away.receive(told)
            if frame is not None:
                hub.receive(frame)
        said = drain(hub) if last == SKETCH else []  # all of its stream, before it is asked
        hub.receive(frame)
        said += drain(hub)
        assert sorted(frame[0] for frame in said) == [STREAM] * (len(said) - 1) + [SKETCH]
        assert said[-1][0] == last
        for frame in said[:-1]:
            assert "1" in keys(meeting.away)
            away.receive(frame)
        assert "1" in keys(meeting.away)
        away.receive(said[-1])
        assert "1" not in keys(meeting.away)
        away.close()
        hub.close()
        meeting.talk()
        meeting.end()


def test_what_is_written_in_the_middle_is_kept(tmp_path, story):
    files = tell(story, tmp_path / "story")
    with Meeting(files, tmp_path / "met") as meeting:
        numbers = count()

        def write_then_receive(session, frame):
            for database in (meeting.hub, meeting.away):
                number = next(numbers)
                put(database, f"meanwhile {number}")
                for key in sorted(keys(database) - {f"meanwhile {number}"})[number % 3 :: 5]:
                    (delete if number % 4 == 3 else edit)(database, key)
                forget(database)
            session.receive(frame)

        talk = meeting.talk(deliver=write_then_receive)
        assert all(side.finished for side in talk.sides)
        meeting.talk("hub")
        meeting.end()
        assert len(keys(meeting.hub)) > next(numbers) // 4


def test_records_that_went_are_kept_for_a_while(tmp_path):
    with Meeting(tell(without_a_record, tmp_path / "story"), tmp_path / "met") as meeting:
        meeting.talk()
        with meeting.away.replica.store.reading() as reader:
            (row,) = reader._db.execute("SELECT key, cells, wall_ms FROM fs_trash").fetchall()
            packed = cells.unpack(row[1], reader.dictionary)
        assert (row[0], row[2]) == ("1", NOW_MS)
        assert model.read_all(packed) == {"text": "x"}
        assert rows(meeting.hub, "fs_trash") == 0


def test_watches_hear_of_what_went(tmp_path):
    with Meeting(tell(without_a_record, tmp_path / "story"), tmp_path / "met") as meeting:
        heard = queue.Queue()
        meeting.away["notes"].watch(heard.put)
        meeting.talk()
        assert heard.get(timeout=30).removed == [(SCOPE, "1")]


# Bytes ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """2,000 records, of which 10 are deleted: the files with their removals forgotten, and with them kept."""
    folder = tmp_path_factory.mktemp("many")

    def story(hub, away, trim):
        for start in (0, 1_000):
            put(hub, *(f"n-{i}" for i in range(start, start + 1_000)), text="some text", number=5)
        sync(hub, away)
        for i in range(0, 2_000, 200):
            delete(hub, f"n-{i}")
        edit(hub, "n-1", text="other text")
        trim(hub)

    return tell(story, folder / "trimmed"), tell(story, folder / "kept", lambda database: 0)


def traffic(talk):
    return sum(len(frame) for _, frame in talk.frames)


def test_what_is_gone_costs_bytes_by_its_number(tmp_path, many):
    costs, wants = [], []
    for files in many:
        with Meeting(files, tmp_path / files.name) as meeting:
            talk = meeting.talk()
            costs.append(traffic(talk))
            wants.append(talk.types.count((0, WANT)))
            assert talk.sides[0].report.round_trips == 2 + max(0, wants[-1] - 1)
            assert len(keys(meeting.away)) == 1_990
            assert seen(meeting.away) == seen(meeting.hub)
    assert wants[1] == 0
    assert costs[0] - costs[1] < 512 * wants[0]  # one sketch decodes all but always


def test_a_first_sync_with_one_that_forgot_costs_no_more(tmp_path, many):
    costs = []
    for files in many:
        with Meeting(files, tmp_path / files.name) as meeting, ExitStack() as stack:
            empty = stack.enter_context(Database(open_replica(tmp_path / f"{files.name}.db")))
            empty.enter(SCOPE)
            talk = Talk.between(empty.replica, meeting.hub.replica).run()
            costs.append(traffic(talk))
            assert seen(empty) == seen(meeting.hub)
            assert context_and_floor(empty) == context_and_floor(meeting.hub)
            assert rows(empty, "fs_trash") == 0
            sketches = [frame for _, frame in talk.frames if frame[0] == SKETCH]
            assert sum(map(len, sketches)) < 120
    assert costs[0] - costs[1] < 256
