"""Trimming: removals are forgotten where nothing can need them, and whoever returns finds what is gone all the same."""

import queue
import shutil
from contextlib import ExitStack, suppress
from itertools import count, pairwise
from pathlib import Path

import apsw
import pytest
from tests import model
from tests.simulation import cells
from tests.simulation.audit import audit
from tests.simulation.inner import InnerChange, Op
from tests.simulation.oracle import Truth
from tests.talking import NOW_MS, Talk, check_usable, open_replica, state

from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.syncing import existence, giving, reconcile
from fieldsync.syncing.memory import join

STREAM, WANT, SKETCH, ASK, ANSWER = 3, 7, 8, 9, 10
SCOPE = "s"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Each change in a frame of its own."""
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 1)


class Devices:
    """Databases of one test by name, which hold one scope. Each has written once: chance does not decide authors."""

    def __init__(self, folder):
        self.folder = folder
        self.held = {}

    def __getitem__(self, name):
        if name not in self.held:
            self.folder.mkdir(exist_ok=True)
            self.held[name] = Database(open_replica(self.folder / f"{name}.db"))
            put(self.held[name], f"of {name}")
        return self.held[name]

    def close(self):
        for database in self.held.values():
            check_usable(database.replica, SCOPE)
            database.close()


@pytest.fixture
def devices(tmp_path):
    devices = Devices(tmp_path / "devices")
    yield devices
    devices.close()


def put(database, *keys, **fields):
    with database.write() as tx:
        for key in keys:
            tx.create("notes", scope=SCOPE, key=key, **fields)


def edit(database, key, **fields):
    with database.write() as tx:
        tx.update("notes", key, scope=SCOPE, **fields)


def delete(database, *keys):
    with database.write() as tx:
        for key in keys:
            tx.delete("notes", key, scope=SCOPE)


def inner(database, kind, key, **values):
    """What only a later version writes: tag, untag, write (a text), compact, dismiss."""
    with database.replica.store.writing() as writer:
        change = InnerChange(writer, writer.enter(SCOPE), Truth(), NOW_MS, database.replica.mint)
        change.run([Op(kind, SCOPE, "notes", key, values)])


def forget(database):
    """Trim all that may be."""
    return database.replica.trim(None, before_ms=2 * NOW_MS)


def sync(*databases):
    """One after the other, each with the next."""
    return [join(one.replica, other.replica) for one, other in pairwise(databases)]


def keys(database):
    return {note.key for note in database["notes"] if not note.key.startswith("of ")}


def seen(database):
    return state(database.replica)[SCOPE]


def context_and_floor(database):
    with database.replica.store.reading() as reader:
        scope = reader.scope(SCOPE)
        return reader.context(scope.id), Context(scope.floor)


def rows(database, table, where="1"):
    with database.replica.store.reading() as reader:
        return reader._db.execute(f"SELECT count(*) FROM {table} WHERE {where}").get


def orphans(database):
    """The fields and values of what is left of records that are deleted."""
    live = seen(database)[2]
    alive = {name for name, address, _ in live if address == cells.EXISTENCE}
    return {(address.field, value) for (name, address, _), value in live.items() if name not in alive}


def cut(one, other, last, times=1):
    """Sync until so many streams of `other` have landed at `one`; then the link dies."""
    talk = Talk.between(one.replica, other.replica)
    came = count(1)

    def deliver(session, frame):
        session.receive(frame)
        if session is talk.sides[0] and frame[0] == last and next(came) == times:
            raise ConnectionError

    with suppress(ConnectionError):
        talk.run(deliver=deliver)
    assert talk.types[-1] == (1, last)


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
