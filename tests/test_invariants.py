"""The invariants of a replica, each as a property of whole fleets.

What the simulator checks at every step (tests/simulation) is not repeated here: equal contexts mean equal digests; a
dot in the context is applied, superseded or removed; nothing rises and nothing is lost; cuts, duplicates and kills
change no end; clocks ten years off. Which test holds which invariant, says docs/testing.md.
"""

import random
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests import canonical, model
from tests.moves import edit, held, inject
from tests.simulation.audit import audit
from tests.talking import NOW_MS, Order, open_replica, state

from fieldsync import clock, texts
from fieldsync.codec import Unknown
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import NotDelivered
from fieldsync.limits import DRIFT_MS_MAX
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore
from fieldsync.syncing import giving
from fieldsync.syncing.memory import join

SCOPE = "job/1"
seeds = st.integers(0, 2**32 - 1)


class Fleet:
    """A hub and three devices that hold one scope; equal seeds do equal things."""

    def __init__(self, folder, seed):
        folder.mkdir()
        self.chance = random.Random(seed)
        self.replicas = [open_replica(folder / f"d{i}.db", hub=i == 0, seed=seed) for i in range(4)]
        self.databases = list(map(Database, self.replicas))
        for number, database in enumerate(self.databases):
            with database.write() as tx:  # under an author's name that does not depend on what else is drawn later
                tx.create("notes", scope=SCOPE, key=f"of-{number}", a=0, b=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for replica in self.replicas:
            replica.close()

    def write(self, number):
        """One transaction of chance, decided by the seed and by what lives there."""
        database, chance = self.databases[number], self.chance
        keys = [f"k{i}" for i in range(6)]
        with database.write() as tx:
            for key in chance.sample(keys, chance.choice([1, 1, 2])):
                lives = database["notes"].get(key, scope=SCOPE) is not None
                what = chance.choice(["set", "set", "delete"]) if lives else "create"
                value = chance.randrange(1_000)
                if what == "create":
                    tx.create("notes", scope=SCOPE, key=key, a=value, b=value)
                elif what == "set":
                    tx.update("notes", key, scope=SCOPE, **{chance.choice("ab"): value})
                else:
                    tx.delete("notes", key, scope=SCOPE)

    def put(self, number, key, values):
        """Write both fields of a record, made now or before, or deleted and made anew."""
        a, b = values
        with self.databases[number].write() as tx:
            if self.databases[number]["notes"].get(key, scope=SCOPE) is None:
                tx.create("notes", scope=SCOPE, key=key, a=a, b=b)
            elif self.chance.random() < 0.2:
                tx.delete("notes", key, scope=SCOPE)
                tx.create("notes", scope=SCOPE, key=key, a=a, b=b)
            else:
                tx.update("notes", key, scope=SCOPE, a=a, b=b)

    def read(self, number, key):
        """Both fields of a record."""
        found = self.databases[number]["notes"].get(key, scope=SCOPE)
        return found["a"], found["b"]

    def sync(self, one, other):
        join(self.replicas[one], self.replicas[other])

    def play(self, steps, between=lambda fleet, device: None):
        """Writes and syncs; `between` may do what should change nothing."""
        for _ in range(steps):
            device, other = self.chance.sample(range(4), 2)
            if self.chance.random() < 0.6:
                self.write(device)
            else:
                self.sync(device, other)
            between(self, device)

    def converge(self):
        for _ in range(2):
            for one in range(4):
                for other in range(one):
                    self.sync(one, other)
        for replica in self.replicas:
            assert audit(replica.store) == []

    def records(self):
        """What each device reads."""
        return [{row.key: (row["a"], row["b"]) for row in database["notes"]} for database in self.databases]


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(10, 60))
def test_with_trimming_and_without_it_runs_end_identically(tmp_path_factory, seed, steps):
    folder = tmp_path_factory.mktemp("fleets")
    trims = random.Random(seed)

    def trim(fleet, device):
        if trims.random() < 0.5:
            fleet.replicas[device].trim(None, before_ms=1 << 62, keep=trims.choice([None, 0, 2]))

    with Fleet(folder / "trimmed", seed) as trimmed, Fleet(folder / "whole", seed) as whole:
        trimmed.play(steps, trim)
        whole.play(steps)
        for fleet in (trimmed, whole):
            fleet.converge()
        # cells and contexts; not digests, for who never met a removal did not set the clock by it
        ends = [{state(replica)[SCOPE][0] for replica in fleet.replicas} for fleet in (trimmed, whole)]
        assert list(map(len, ends)) == [1, 1]
        for one, other in zip(trimmed.replicas, whole.replicas, strict=True):
            assert state(one)[SCOPE][1:] == state(other)[SCOPE][1:]


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(10, 40))
def test_who_left_and_came_back_ends_as_who_never_left(tmp_path_factory, seed, steps):
    """The same records live."""
    folder = tmp_path_factory.mktemp("fleets")
    leaves = random.Random(seed)

    def leave(is_real, fleet, device):
        if device and leaves.random() < 0.3:
            fleet.sync(device, 0)  # both fleets
            if is_real:
                fleet.databases[device].leave(SCOPE)
                fleet.databases[device].enter(SCOPE)
                fleet.sync(device, 0)

    ends = []
    for is_real in (False, True):
        leaves.seed(seed)
        with Fleet(folder / str(is_real), seed) as fleet:
            fleet.play(steps, partial(leave, is_real))
            fleet.converge()
            ends.append(fleet.records())
            assert all(one == ends[-1][0] for one in ends[-1])
    # not the values: of concurrent writes at one moment the author's name decides, another one after each entry
    assert ends[0][0].keys() == ends[1][0].keys()


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(5, 40))
def test_nobody_leaves_with_what_the_hub_lacks(tmp_path_factory, seed, steps):
    """Whoever leaves at any moment: the hub and those who stay end with all that was ever there."""
    folder = tmp_path_factory.mktemp("fleets")
    leaves = random.Random(seed)

    def leave(fleet, device):
        if device == 3 and leaves.random() < 0.5:
            contexts = [state(fleet.replicas[i])[SCOPE][1] for i in (0, 3)]
            try:
                fleet.databases[3].leave(SCOPE)
            except NotDelivered:
                return
            with fleet.replicas[0].store.reading() as reader:
                assert not Context(contexts[1]) - reader.context(reader.scope(SCOPE).id)
            fleet.databases[3].enter(SCOPE)

    with Fleet(folder / "leaving", seed) as fleet:
        fleet.play(steps, leave)
        fleet.converge()
        records = fleet.records()
        assert all(one == records[0] for one in records)


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("changes", [1, 10, 100])
def test_bytes_are_in_proportion_to_the_changes_after_any_absence(tmp_path, changes, trimmed):
    """1,000 records; the device is away while some change, go and come; all removals are forgotten meanwhile."""
    hub, device = (Database(open_replica(tmp_path / name, hub=name == "hub.db")) for name in ("hub.db", "van.db"))
    with hub.write() as tx:
        for number in range(1_000):
            tx.create("notes", scope=SCOPE, key=f"n-{number}", text=f"a note about number {number}")
    device.enter(SCOPE)
    first = device.sync(hub)
    for number in range(changes):
        with hub.write() as tx:
            tx.delete("notes", f"n-{number}", scope=SCOPE)
            tx.update("notes", f"n-{500 + number}", scope=SCOPE, text="changed")
            tx.create("notes", scope=SCOPE, key=f"new-{number}", text="new")
    if trimmed:
        assert hub.replica.trim(None, before_ms=1 << 62) == changes
    report = device.sync(hub)
    size = report.bytes_sent + report.bytes_received
    assert size <= 800 + 90 * changes
    assert report.round_trips == (2 if trimmed else 1)  # what is little comes along with the answer
    assert first.bytes_received > 4_000
    assert state(hub.replica)[SCOPE][0] == state(device.replica)[SCOPE][0]
    assert device["notes"].where().count() == 1_000
    for database in (hub, device):
        database.close()


@settings(deadline=None, max_examples=12)
@example(1, [0, 6], 2)
@given(st.sampled_from([1, 3, 50_000]), st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(2, 5))
def test_a_transaction_is_never_half_visible_in_a_ready_scope(tmp_path_factory, cells, cuts, width):
    """Records that every transaction writes together, and one that takes another's place: wherever a link dies.

    Of a transaction that a later one undid in part there is only the rest to bring, which before Done may stand alone:
    the removal of a record in whose place another one came that has gone since.
    """
    folder = tmp_path_factory.mktemp("groups")
    hub, device = (Database(open_replica(folder / name, hub=name == "hub.db")) for name in ("hub.db", "van.db"))
    keys = [f"k{number}" for number in range(width)]
    with hub.write() as tx:
        for key in [*keys, "place-0"]:
            tx.create("notes", scope=SCOPE, key=key, version=0)
    device.enter(SCOPE)
    device.sync(hub)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(giving, "CHUNK_CELLS_TARGET", cells)
        for version, cut in enumerate(cuts, 1):
            with hub.write() as tx:
                tx.delete("notes", f"place-{version - 1}", scope=SCOPE)
                tx.create("notes", scope=SCOPE, key=f"place-{version}", version=version)
                for key in keys:
                    tx.update("notes", key, scope=SCOPE, version=version)
            report = join(device.replica, hub.replica, cut_after=cut)
            rows = {row.key: row.version for row in device["notes"]}
            (there,) = {rows.pop(key) for key in keys}
            assert rows in ({f"place-{there}": there}, {})
            assert rows or not (report.complete or there == version)
        device.sync(hub)
        assert [row.key for row in device["notes"]] == [*keys, f"place-{len(cuts)}"]
    for database in (hub, device):
        database.close()


@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(5, 40))
def test_what_was_written_in_the_knowledge_of_all_else_is_read(tmp_path_factory, seed, steps):
    """Under clocks that are years apart, of keys that were deleted and created apart: at once, at the end by all."""
    with Fleet(tmp_path_factory.mktemp("clocks") / "fleet", seed) as fleet:
        for replica, years in zip(fleet.replicas, fleet.chance.sample([0, -10, 10, 76], 4), strict=True):
            wall_ms = NOW_MS + years * 31_557_600_000
            replica.wall_ms = lambda wall_ms=wall_ms: wall_ms
        for _ in range(steps):
            device, other = fleet.chance.sample(range(4), 2)
            if fleet.chance.random() < 0.4:
                fleet.sync(device, other)
                continue
            key, value = fleet.chance.choice("xyz"), (fleet.chance.random(), fleet.chance.random())
            fleet.put(device, key, value)
            assert fleet.read(device, key) == value
        fleet.converge()
        last = fleet.chance.randrange(4)
        for key in "xyz":
            fleet.put(last, key, (last, key))
        fleet.converge()
        assert [fleet.read(device, key) for device in range(4) for key in "xyz"] == [(last, key) for key in "xyz"] * 4


@pytest.mark.parametrize("year", [1975, 2100])
def test_a_clock_that_is_years_off_moves_no_other_and_can_be_overwritten(tmp_path, year):
    wrong_ms = (year - 1970) * 31_557_600_000
    store = SQLiteStore(tmp_path / "wrong.db", full=False)
    wrong = Database(Replica(store, wall_ms=lambda: wrong_ms, mint=lambda: b"wrong-db"))
    right = Database(open_replica(tmp_path / "right.db"))
    with wrong.write() as tx:
        tx.create("notes", scope=SCOPE, key="n-1", text="from another year")
    right.enter(SCOPE)
    report = right.sync(wrong)
    assert report.changes_ahead == (1 if year == 2100 else 0)  # accepted, merged and flagged
    (deed,) = right.why("notes", "n-1").traces[0].created
    assert (deed.is_ahead, "a clock is wrong" in str(deed)) == ((True,) * 2 if year == 2100 else (False,) * 2)
    with right.write() as tx:
        tx.update("notes", "n-1", scope=SCOPE, text="corrected")
        tx.create("notes", scope=SCOPE, key="n-2", text="today")
    wrong.sync(right)
    for database in (wrong, right):
        assert database["notes"].get("n-1").text == "corrected"
    with right.replica.store.reading() as reader:
        assert clock.to_ms(reader.scope(SCOPE).time) <= NOW_MS + DRIFT_MS_MAX
    for database in (wrong, right):
        database.close()


def time_of(database, key, field):
    """The time of the one cell of a register."""
    ((_, cell),) = model.cells_at(held(database, SCOPE, key, "notes"), field, model.REGISTER)
    return cell.stamp.time


@settings(deadline=None, max_examples=15)
@given(st.integers(NOW_MS // 2, 2 * NOW_MS), st.integers(1, 4))
def test_what_overwrites_a_stamp_is_above_it_and_nothing_else_goes_ahead_with_it(tmp_path_factory, ms, edits):
    """Of a stamp that is too far ahead: by one tick, for that cell alone."""
    folder = tmp_path_factory.mktemp("clocks")
    store = SQLiteStore(folder / "wrong.db", full=False)
    wrong = Database(Replica(store, wall_ms=lambda: ms, mint=lambda: b"wrong-db"))
    right = Database(open_replica(folder / "right.db"))
    with wrong.write() as tx:
        tx.create("notes", scope=SCOPE, key="n-1", text="from another year")
    right.enter(SCOPE)
    right.sync(wrong)
    first = time_of(right, "n-1", "text")
    for number in range(1, edits + 1):
        before = time_of(right, "n-1", "text")
        with right.write() as tx:
            tx.update("notes", "n-1", scope=SCOPE, text=f"corrected {number}", more=number)
        assert time_of(right, "n-1", "text") > before
        assert clock.to_ms(time_of(right, "n-1", "more")) <= NOW_MS + DRIFT_MS_MAX
    if ms > NOW_MS + DRIFT_MS_MAX:
        assert time_of(right, "n-1", "text") == first + edits
    wrong.sync(right)
    for database in (wrong, right):
        assert database["notes"].get("n-1").text == f"corrected {edits}"
        database.close()


LATER_KINDS = st.integers(1, 255).filter(lambda kind: kind not in {*texts.KINDS, model.SET})
LATER_VALUES = st.recursive(
    st.none() | st.integers(-99, 99) | st.text(max_size=3) | st.builds(Unknown, st.just(200), st.binary(max_size=9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)
LATER_CELLS = st.dictionaries(
    st.tuples(st.sampled_from(["status", "hours", "text", "new"]), LATER_KINDS, st.binary(max_size=3)),
    LATER_VALUES,
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=25)
@given(LATER_CELLS)
def test_what_a_later_version_wrote_comes_through_an_older_one_byte_by_byte(tmp_path_factory, written):
    """Fields, kinds and values that the older app does not know, and beside which it writes, from one to another."""
    folder = tmp_path_factory.mktemp("versions")
    later, older, other = (open_replica(folder / f"{name}.db") for name in ("later", "older", "other"))
    databases = [Database(later), Database(older, (Order,)), Database(other)]
    with databases[0].write() as tx:
        tx.create("orders", scope=SCOPE, key="o-1", status="open")
    (name,) = held(databases[0], SCOPE, "o-1", "orders")
    some = [
        (model.Address(field, kind, sub if kind & 2 else b""), canonical.encode(value))
        for (field, kind, sub), value in written.items()
    ]
    inject(databases[0], SCOPE, [("o-1", edit(name, *dict(some).items()))], collection="orders")
    before = state(later)[SCOPE][2]
    for database in databases[1:]:
        database.enter(SCOPE)
    join(older, later)
    with databases[1].write() as tx:
        tx.get(Order, "o-1").hours += 2
        tx.create(Order, scope=SCOPE, key="o-2", status="of the older app")
    join(other, older)
    after = state(other)[SCOPE][2]
    assert {cid: value for cid, value in after.items() if cid in before} == before
    assert len(after) == len(before) + 3
    for database in databases:
        assert database.verify().faults == []
        database.close()
