"""Scopes of equal contexts and unequal records: both sides see it, a session mends it, and nothing is ever revived."""

from __future__ import annotations

from types import SimpleNamespace

import msgpack
import pytest
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Order, Talk, check_usable, hands, open_replica, state

import fieldsync as fs
from fieldsync import limits, verify
from fieldsync.database import Database
from fieldsync.errors import DigestMismatch, ProtocolError
from fieldsync.limits import LOOK_PAUSE_MS, ROUNDS_MAX
from fieldsync.rebuild import rebuild
from fieldsync.syncing import messages, reconcile, rounds, session
from fieldsync.syncing.frames import Want
from fieldsync.syncing.report import Mended
from fieldsync.trust import rights as trust

DECLARE, STREAM, SETTLED, WANT, SKETCH, ASK, ANSWER = 2, 3, 4, 7, 8, 9, 10
KEYS = ["o-0", "o-1", "o-2", "o-3", "o-4", "o-5"]


class Both:
    """Two databases in step. Scope s has orders, some of them edited, one deleted; t is as it was loaded."""

    def __init__(self, folder, hub=""):
        self.a, self.b = (
            Database(open_replica(folder / f"{name}.db", hub=name == hub), (Order,)) for name in ("a", "b")
        )
        self.b.enter("s", "t")
        with self.a.write() as tx:
            for key in [*KEYS, "dead"]:
                tx.create(Order, scope="s", key=key, hours=1)
            tx.create(Order, scope="t", key="far")
        self.sync()
        with self.b.write() as tx:
            tx.get(Order, "o-5").hours += 2
            tx.get(Order, "o-4").status = "edited"
        self.sync()
        with hands(self.a) as db:
            self.dead = db.execute("SELECT * FROM fs_record_1 WHERE _key='dead'").get
        with self.a.write() as tx:
            tx.delete(Order, "dead")
        self.sync()
        self.before = state(self.a.replica)
        assert self.before == state(self.b.replica)

    def sync(self, deliver=session.Session.receive):
        """A session that a begins; the reports of both."""
        talk = Talk.between(self.a.replica, self.b.replica).run(deliver=deliver)
        assert all(side.finished for side in talk.sides)
        return SimpleNamespace(a=talk.sides[0].report, b=talk.sides[1].report, types=[kind for _, kind in talk.types])

    def keys(self, scope="s"):
        """The keys that live at both, and that they read alike."""
        (a, b) = ({order.key: order for order in db[Order].where(scope=scope)} for db in (self.a, self.b))
        assert a == b
        return sorted(a)

    def trash(self, name):
        return sorted(entry.key for entry in getattr(self, name).trash())

    def check(self):
        """Both hold the same, all follows from the cells, nothing is provisional, and nothing is left to say."""
        assert state(self.a.replica) == state(self.b.replica)
        for db in (self.a, self.b):
            assert audit(db.replica.store) == []
            assert db.verify().is_sound
            with db.replica.store.reading() as reader:
                assert not any(reader.is_provisional(scope.id) for scope in reader.scopes())
        report = self.sync().a
        assert (report.round_trips, report.mended) == (1, [])
        check_usable(self.a.replica, "s")
        check_usable(self.b.replica, "t")
        self.sync()
        assert state(self.a.replica) == state(self.b.replica)

    def close(self):
        self.a.close()
        self.b.close()


@pytest.fixture(params=["", "a", "b"], ids=["no hub", "a is a hub", "b is a hub"])
def both(tmp_path, request):
    both = Both(tmp_path, request.param)
    both.right = request.param or "b"
    yield both
    both.close()


@pytest.fixture
def peers(tmp_path):
    both = Both(tmp_path)
    yield both
    both.close()


SIDES = pytest.mark.parametrize("side", ["a", "b"])


def settle(db):
    """Make all that follows from the cells agree with them, so that the file alone shows nothing."""
    with db.replica.store.writing() as writer:
        rebuild(writer)
    assert db.verify().is_sound


def lose(db, *keys):
    with hands(db) as sql:
        for key in keys:
            sql.execute("DELETE FROM fs_record_1 WHERE _key=?", (key,))


def alter(db, *keys):
    """Another value of the same size, which reads well."""
    with hands(db) as sql:
        for key in keys:
            cells = sql.execute("SELECT _cells FROM fs_record_1 WHERE _key=?", (key,)).get
            assert b"open" in cells
            sql.execute("UPDATE fs_record_1 SET _cells=? WHERE _key=?", (cells.replace(b"open", b"ooze"), key))


def rise(db, row):
    with hands(db) as sql:
        sql.execute(f"INSERT INTO fs_record_1 VALUES({', '.join('?' * len(row))})", row)


# --- what a look at the own file finds ---


@SIDES
def test_a_digest_that_was_damaged_is_computed_again(both, side):
    with hands(getattr(both, side)) as sql:
        sql.execute("UPDATE fs_scope SET digest=zeroblob(16) WHERE name='s'")
    reports = both.sync()
    assert getattr(reports, side).mended == [Mended("s", faults=1, is_equal=True)]
    assert state(both.a.replica) == both.before
    assert reports.a.round_trips == 4
    both.check()


@SIDES
def test_records_that_cannot_be_read_come_back_in_the_same_session(both, side):
    db = getattr(both, side)
    with hands(db) as sql:
        sql.execute("UPDATE fs_scope SET digest=zeroblob(16)")
        sql.execute("UPDATE fs_record_1 SET _cells=substr(_cells, 1, length(_cells) - 3) WHERE _key IN ('o-1', 'o-5')")
    reports = both.sync()
    (s, t) = getattr(reports, side).mended
    assert (s.scope, s.fetching, s.removed, s.replaced, s.is_equal) == ("s", 2, 0, 0, True)
    assert (t.scope, t.fetching, t.is_equal) == ("t", 0, True)
    assert both.before == state(db.replica)
    both.check()


@SIDES
def test_records_that_are_gone_are_missed_by_the_index_whatever_the_digest_says(both, side):
    """Else they would pass for removed, and go at the other side."""
    db = getattr(both, side)
    lose(db, "o-1", "o-5")
    with db.replica.store.writing() as writer:
        (scope,) = (scope for scope in writer.scopes() if scope.name == "s")
        kept = [change for change, _ in writer.indexed(scope.id)]
        rebuild(writer, [scope])
        writer.put_changes(scope.id, kept)
    assert db.verify().is_sound
    reports = both.sync()
    assert getattr(reports, side).mended[0].faults
    assert both.trash("a") == both.trash("b") == []
    assert both.keys() == KEYS
    assert state(db.replica) == both.before
    both.check()


@SIDES
def test_an_altered_value_shows_once_it_is_overwritten(both, side):
    """Until then the digests agree, and only the file's own cells tell."""
    db, other = (both.a, both.b) if side == "a" else (both.b, both.a)
    alter(db, "o-1")
    assert both.sync().a.mended == []
    assert not db.verify().is_sound
    with other.write() as tx:
        tx.get(Order, "o-1").status = "done"
    reports = both.sync()
    assert getattr(reports, side).mended == [Mended("s", faults=1, is_equal=True)]
    assert both.keys() == KEYS
    both.check()


def test_cells_that_did_not_find_their_record_come_to_it(both):
    """By a change index that is gone: they landed beside it."""
    with hands(both.a) as sql:
        sql.execute("DELETE FROM fs_change WHERE scope=(SELECT id FROM fs_scope WHERE name='s')")
    with both.b.write() as tx:
        tx.get(Order, "o-4").status = "done"
    reports = both.sync()
    assert reports.a.mended[0].faults
    assert reports.a.mended[0].is_equal
    assert both.a[Order].get("o-4").status == "done"
    assert both.keys() == KEYS
    both.check()


# --- what only comparing finds ---


@SIDES
def test_what_one_side_does_not_have_goes_at_the_other(both, side):
    other = "b" if side == "a" else "a"
    lose(getattr(both, side), "o-1", "o-5")
    settle(getattr(both, side))
    reports = both.sync()
    assert getattr(reports, other).mended == [Mended("s", removed=2, is_equal=True)]
    assert getattr(reports, side).mended == [Mended("s", is_equal=True)]
    assert both.keys() == ["o-0", "o-2", "o-3", "o-4"]
    assert both.trash(other) == ["o-1", "o-5"]
    assert both.trash(side) == []
    both.check()


@SIDES
def test_what_has_risen_goes_again(both, side):
    db = getattr(both, side)
    rise(db, both.dead if side == "a" else (both.dead[0] + 20, *both.dead[1:]))
    settle(db)
    assert "dead" in {order.key for order in db[Order]}
    reports = both.sync()
    assert getattr(reports, side).mended == [Mended("s", removed=1, is_equal=True)]
    assert both.keys() == KEYS
    assert both.trash(side) == ["dead"]
    both.check()
    assert both.keys() == KEYS


@SIDES
def test_of_records_that_differ_the_hubs_stays_and_else_the_responders(both, side):
    db = getattr(both, side)
    alter(db, "o-1", "o-5")
    settle(db)
    reports = both.sync()
    yielding = "b" if both.right == "a" else "a"
    assert getattr(reports, yielding).mended == [Mended("s", replaced=2, is_equal=True)]
    assert getattr(reports, both.right).mended == [Mended("s", is_equal=True)]
    wanted = "ooze" if side == both.right else "open"
    assert {both.a[Order].get(key).status for key in ("o-1", "o-5")} == {wanted}
    assert both.trash(yielding) == ["o-1", "o-5"]
    assert both.trash(both.right) == []
    assert reports.a.round_trips == 7  # the usual two, five rounds: compared in two questions, and fetched back
    assert reports.a.bytes_sent + reports.a.bytes_received < 3_000
    both.check()


def test_a_record_that_comes_again_under_another_name_is_not_held_twice(peers):
    """Fetched back with what was lost at one side, and renamed at the other: found by comparing, after that."""
    with hands(peers.a) as sql:
        sql.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='o-1'")
        sql.execute("UPDATE fs_scope SET digest=zeroblob(16) WHERE name='s'")
    with hands(peers.b) as sql:
        sql.execute("UPDATE fs_record_1 SET _key='o-9' WHERE _key='o-2'")
    settle(peers.b)
    reports = peers.sync()
    assert [(one.fetching, one.replaced, one.is_equal) for one in reports.a.mended] == [(1, 1, True)]
    assert reports.types.count(SETTLED) == 2 * ROUNDS_MAX
    assert peers.keys() == ["o-0", "o-1", "o-3", "o-4", "o-5", "o-9"]
    peers.check()


def test_all_kinds_of_damage_at_once_on_both_sides(both):
    with both.b.write() as tx:  # of which a hears in the same session
        tx.create(Order, scope="s", key="new")
    alter(both.a, "o-0", "far")
    lose(both.a, "o-1")
    rise(both.b, (both.dead[0] + 20, *both.dead[1:]))
    lose(both.b, "o-2")
    settle(both.a)
    settle(both.b)
    both.sync()
    assert both.keys() == ["new", "o-0", "o-3", "o-4", "o-5"]
    both.check()


@pytest.mark.parametrize("at", range(1, 25))
def test_what_is_written_meanwhile_stays(peers, at):
    """Before any one frame one side edits a record, makes one and deletes one; the next sync may have to go on."""
    alter(peers.a, "o-0", "o-1")
    settle(peers.a)
    count = 0

    def write(side, frame):
        nonlocal count
        count += 1
        if count == at:
            with Database(side._replica, (Order,)).write() as tx:
                tx.update(Order, "o-3", scope="s", status="now")
                tx.create(Order, scope="s", key="new")
                tx.delete(Order, "o-2", scope="s")
        side.receive(frame)

    peers.sync(write)
    peers.sync()
    assert peers.keys() == ["new", "o-0", "o-1", "o-3", "o-4", "o-5"]
    assert peers.a[Order].get("o-3").status == "now"
    peers.check()


def test_a_session_that_is_cut_anywhere_is_gone_on_with(tmp_path):
    cut, is_whole = 0, False
    while not is_whole:
        folder = tmp_path / str(cut)
        folder.mkdir()
        both = Both(folder)
        alter(both.a, "o-1")
        lose(both.b, "o-2")
        settle(both.a)
        settle(both.b)
        talk = Talk.between(both.a.replica, both.b.replica).run(cut_after=cut)
        is_whole = all(side.finished for side in talk.sides)
        for db in (both.a, both.b):
            assert audit(db.replica.store) == []
        both.sync()
        assert both.keys() == ["o-0", "o-1", "o-3", "o-4", "o-5"]
        assert both.a[Order].get("o-1").status == "open"
        both.check()
        both.close()
        cut += 1
    assert cut > 15


def test_a_large_difference_is_found_by_ranges(peers, monkeypatch):
    for module in (reconcile, limits):
        monkeypatch.setattr(module, "SKETCH_SYMBOLS_MAX", 2)
    monkeypatch.setattr("fieldsync.syncing.existence.SKETCH_SYMBOLS_MAX", 2)
    alter(peers.a, "o-0", "o-1", "o-2", "o-3")
    settle(peers.a)
    reports = peers.sync()
    assert {ASK, ANSWER} <= set(reports.types)
    assert state(peers.a.replica) == peers.before
    peers.check()


def test_over_a_network_both_ends_are_clean(peers):
    """Of what can be mended, and of what cannot: neither side waits for the other."""
    alter(peers.a, "o-1")
    settle(peers.a)
    with fs.serve(peers.b) as server:
        assert peers.a.sync(server.url, timeout=20).mended == [Mended("s", replaced=1, is_equal=True)]
        assert state(peers.a.replica) == peers.before
        alter(peers.a, "o-2")
        settle(peers.a)
        peers.a.replica.trust = lambda *_: trust.Trust(may_take_away=False)
        assert peers.a.sync(server.url, timeout=20).waiting == ["s"]
    assert server.sessions == 2
    assert server.last_error is None


def test_a_bundle_compares_no_digests(peers, tmp_path):
    alter(peers.a, "o-1")
    settle(peers.a)
    peers.a.export(tmp_path / "a.bundle")
    report = peers.b.import_bundle(tmp_path / "a.bundle")
    assert (report.scopes, report.incomplete, report.changes) == (["s", "t"], [], 0)
    assert state(peers.b.replica) == peers.before


def test_what_a_report_says_of_a_scope():
    mended = Mended("s", faults=3, fetching=2, removed=1_000, is_equal=True)
    assert str(mended) == (
        "s: 3 faults found here; 2 damaged records dropped here; 1,000 records removed here, which the peer had no more"
        "; now equal"
    )
    assert str(Mended("t")) == "t: nothing to be done here; not equal yet"


# --- bounds ---


def test_more_than_a_peer_may_take_away_waits_for_a_hub(peers, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "DROPS_FREE_MAX", 1)
    lose(peers.a, *KEYS[:4])
    settle(peers.a)
    reports = peers.sync()
    assert reports.b.waiting == ["s"]
    assert reports.a.superseded == ["s"]
    assert reports.b.mended == [Mended("s")]
    assert state(peers.b.replica) == peers.before
    assert peers.trash("b") == []
    peers.a.replica.takes_all = True
    assert peers.sync().b.mended == [Mended("s", removed=4, is_equal=True)]
    assert peers.keys() == ["o-4", "o-5"]
    peers.check()


def test_more_than_a_peer_may_replace_waits_for_a_hub(peers, monkeypatch):
    monkeypatch.setattr(trust, "DROPS_FREE_MAX", 1)
    alter(peers.a, *KEYS[:4])
    settle(peers.a)
    before = state(peers.a.replica)
    reports = peers.sync()
    assert reports.a.waiting == ["s"]
    assert reports.a.mended == [Mended("s")]
    assert state(peers.a.replica) == before
    peers.b.replica.takes_all = True
    assert peers.sync().a.mended == [Mended("s", replaced=4, is_equal=True)]
    assert state(peers.a.replica) == peers.before
    peers.check()


def test_who_may_take_nothing_away_does_not(peers):
    peers.b.replica.trust = lambda _, says_hub: trust.Trust(is_hub=says_hub, may_take_away=False)
    lose(peers.a, "o-1")
    settle(peers.a)
    assert peers.sync().b.waiting == ["s"]
    assert state(peers.b.replica) == peers.before


def test_a_session_mends_so_many_scopes_and_says_that_more_are_left(peers, monkeypatch):
    monkeypatch.setattr(rounds, "MENDED_MAX", 1)
    with hands(peers.b) as sql:
        sql.execute("UPDATE fs_scope SET digest=zeroblob(16)")
    with pytest.raises(DigestMismatch, match="'t': equal contexts"):
        peers.sync()
    assert peers.sync().b.mended == [Mended("t", faults=1, is_equal=True)]
    assert state(peers.b.replica) == peers.before
    peers.check()


# --- lies ---


class Liar:
    """Twists what is said on the way: to one side, or to both, settlements of other records than there are."""

    def __init__(self, *victims, sketches=False):
        self.victims, self.sketches, self.sides, self.said = victims, sketches, None, []

    def __call__(self, side, frame):
        self.said.append(frame[0])
        if (side._initiator, frame[0]) in [(victim == "a", SETTLED) for victim in self.victims]:
            frame = edited(frame, g=b"\x01" * 16)
        if self.sketches and frame[0] == SKETCH:
            frame = edited(frame, y=bytes(len(msgpack.unpackb(frame[1:])["y"])))  # nothing lives here
        side.receive(frame)


def edited(frame, **changes):
    return frame[:1] + msgpack.packb(msgpack.unpackb(frame[1:]) | changes)


def touch(both):
    """Something to sync about, so that there are settlements."""
    with both.a.write() as tx:
        tx.create(Order, scope="t")


@pytest.mark.parametrize("victim", ["a", "b"])
def test_who_alone_is_told_of_other_records_goes_on_alone_and_is_refused(both, victim):
    touch(both)
    with pytest.raises(ProtocolError):
        both.sync(Liar(victim))
    both.sync()
    assert both.keys() == KEYS
    both.check()


def test_a_mismatch_that_is_none_ends_after_one_comparison(both):
    touch(both)
    liar = Liar("a", "b")
    with pytest.raises(DigestMismatch):
        both.sync(liar)
    assert liar.said.count(SETTLED) in (3, 4)  # two rounds; who sees the end first says no more
    assert (liar.said.count(WANT), liar.said.count(SKETCH)) == (2, 2)
    assert both.trash("a") == both.trash("b") == []
    both.sync()
    assert both.keys() == KEYS
    both.check()


def test_lies_make_nobody_look_at_a_scope_again_and_again(both, monkeypatch):
    looked = []
    kept = verify.look_at
    monkeypatch.setattr(verify, "look_at", lambda *args: looked.append(args) or kept(*args))
    for count in (2, 2, 2):
        touch(both)
        with pytest.raises(DigestMismatch):
            both.sync(Liar("a", "b"))
        assert len(looked) == count
    for db in (both.a, both.b):
        db.replica.wall_ms = lambda: NOW_MS + LOOK_PAUSE_MS
    touch(both)
    with pytest.raises(DigestMismatch):
        both.sync(Liar("a", "b"))
    assert len(looked) == 4


def test_a_lie_that_nothing_lives_takes_what_a_peer_may_and_leaves_it_in_the_trash(peers):
    with peers.a.write() as tx:
        tx.update(Order, "o-0", scope="s", status="a")
    with pytest.raises(DigestMismatch):
        peers.sync(Liar("a", "b", sketches=True))
    for name in "ab":
        assert peers.trash(name) == KEYS
        assert audit(getattr(peers, name).replica.store) == []
    assert peers.keys() == []
    peers.a.restore(*peers.a.trash())
    peers.sync()
    assert peers.keys() == KEYS


def test_rounds_have_an_end(peers, monkeypatch):
    """Who writes after each settlement has a reason for another round, and gets no more than four."""
    alter(peers.a, "o-1")
    settle(peers.a)
    liar = Liar("a", "b")

    def write(side, frame):
        if frame[0] == DECLARE and side._rounds.count > 1:
            with Database(side._replica, (Order,)).write() as tx:
                tx.create(Order, scope="s")
        liar(side, frame)

    talk = Talk.between(peers.a.replica, peers.b.replica).run(deliver=write)
    assert all(side.finished for side in talk.sides)
    assert [side._rounds.count for side in talk.sides] == [ROUNDS_MAX] * 2


@pytest.mark.parametrize("kind", [DECLARE, STREAM, SETTLED, WANT, SKETCH])
def test_no_frame_of_a_mending_round_counts_twice(peers, kind):
    alter(peers.a, "o-1")
    settle(peers.a)

    def twice(side, frame):
        side.receive(frame)
        if frame[0] == kind and side._rounds.count > 1:
            side.receive(frame)

    with pytest.raises(ProtocolError):
        peers.sync(twice)
    peers.sync()
    assert peers.keys() == KEYS
    peers.check()


def test_a_question_after_all_was_settled_is_refused(peers):
    """Its answer would be of a moment that is over."""
    lose(peers.a, "o-1")
    settle(peers.a)
    talk = Talk.between(peers.a.replica, peers.b.replica)
    want = messages.encode(Want(0, 1, bytes(16)))

    def late(side, frame):
        side.receive(frame)
        if side._shared and side._shared[0].is_over:
            with pytest.raises(ProtocolError, match="not due"):
                side.receive(want)

    assert all(side.finished for side in talk.run(deliver=late).sides)
    peers.check()
