"""Fast paths, each held against its slow twin: the usual row, new records in a row, reads of any size, what is kept."""

import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fieldsync as fs
from fieldsync import deleting
from fieldsync._native import numbers
from fieldsync.collection import Collection
from fieldsync.context import Context
from fieldsync.entries import compress, expand, runs_of
from fieldsync.errors import Corrupt, LimitExceeded
from fieldsync.sqlite import writer
from fieldsync.sqlite.rows import spans
from fieldsync.store import Edits, Entry
from fieldsync.syncing import giving, taking
from fieldsync.transaction import check_names

ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=3), st.binary(max_size=2)
)


class Thing(fs.Record, table="things"):
    name: str
    count: int
    price: float | None = None
    done: bool = False


OF = Collection.of(Thing)


@given(st.fixed_dictionaries({"name": ANY, "count": ANY, "price": ANY, "done": ANY}))
@example({"name": "a", "count": 1, "price": None, "done": True})
@example({"name": "\ud800", "count": 1, "price": 1.0, "done": True})
@example({"name": "a", "count": 1, "price": 1, "done": True})
def test_the_usual_row_is_what_the_checks_let_through(row):
    usual = OF.usual(row)
    if usual is not None:
        checked = {name: OF.field(name).check(value) for name, value in row.items()}
        assert list(map(repr, usual)) == [repr(checked[name]) for name in OF.places]
        assert list(map(type, usual)) == [type(checked[name]) for name in OF.places]


@pytest.mark.parametrize("row", [{}, {"name": "a", "count": 1}, {"name": "a", "count": 1, "price": 1.0, "x": True}])
def test_a_row_of_other_fields_is_not_usual(row):
    assert OF.usual(row) is None


def rows_of(db):
    return {one.key: one.as_dict() for one in db[Thing]}


def test_a_new_record_lands_alike_whether_it_is_usual_or_not(tmp_path):
    plain = {"name": "a", "count": 1, "price": 2.0, "done": True}
    with fs.open(tmp_path / "a.db", Thing) as db:
        with db.write() as tx:
            tx.create(Thing, scope="s", key="whole", **plain)
            tx.create(Thing, scope="s", key="turned", **(plain | {"price": 2}))
            tx.create(Thing, scope="s", key="defaults", name="a", count=1).price = 2.0
            tx.get(Thing, "defaults").done = True
            tx.create(Thing, scope="s", key="changed", **(plain | {"count": 7})).count = 1
            tx.create(Thing, scope="s", key="moved", **plain)
            tx.move(Thing, "moved", to="t")
        found = {key: {name: row[name] for name in plain} for key, row in rows_of(db).items()}
        assert found == dict.fromkeys(("whole", "turned", "defaults", "changed", "moved"), plain)
        assert db[Thing].get("moved").stamps().keys() == plain.keys()


@given(st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted), st.integers(1, 9))
def test_new_records_in_a_row_are_the_runs_of_their_entries(some, first):
    singles = [Entry(3, n, first + i, 1) for i, n in enumerate(some)]
    assert runs_of(3, some, first) == compress(singles)
    assert expand(runs_of(3, some, first)) == singles


@given(st.lists(st.tuples(*[st.integers(-(2**61), 2**61)] * 4)))
def test_a_table_of_numbers_comes_back_as_the_class_asked_for(rows):
    (packed,) = numbers.pack([rows], 4)
    assert numbers.unpack(packed, 4, tuple) == rows
    found = numbers.unpack(packed, 4, Entry)
    assert found == rows
    assert {type(one) for one in found} <= {Entry}
    with pytest.raises(TypeError):
        numbers.unpack(packed, 4, list)


@pytest.mark.parametrize(("first", "most", "size"), [(1, 1, 1), (2, 5, 1), (3, 1_000, 300), (1_000, 20_000, 4 << 20)])
def test_what_is_given_does_not_depend_on_how_much_is_read_at_a_time(tmp_path, monkeypatch, first, most, size):
    with fs.open(tmp_path / "a.db", Thing) as db:
        for start in range(0, 60, 20):
            with db.write() as tx:
                for n in range(start, start + 20):
                    tx.create(Thing, scope="s", key=f"k{n}", name="x" * (n * 7 % 50), count=n)
        with db.write() as tx:
            for n in range(0, 60, 7):
                tx.update(Thing, f"k{n}", count=-n)
            tx.delete(Thing, "k3")
        with db.replica.store.reading() as reader:
            scope = reader.scope("s")
            dots = reader.context(scope.id)
            whole = list(giving.give(reader, scope, dots))
            monkeypatch.setattr(giving, "FETCH_ROWS_FIRST", first)
            monkeypatch.setattr(giving, "FETCH_ROWS_MAX", most)
            monkeypatch.setattr(giving, "FETCH_BYTES_TARGET", size)
            assert list(giving.give(reader, scope, dots)) == whole
            assert list(giving.give(reader, scope, Context())) == []


def test_what_a_transaction_leaves_to_the_next_is_dropped_where_another_process_wrote(tmp_path):
    path = tmp_path / "a.db"
    code = (
        "import sys, fieldsync\nwith fieldsync.open(sys.argv[1]) as db, db.write() as tx:\n"
        "    tx.create('others', scope='s', key=sys.argv[2], field=sys.argv[2])\n"
        "    tx.create('others', scope=sys.argv[2], key='k', field=1)\n"
    )
    with fs.open(path, Thing) as db:
        for round_ in range(3):
            with db.write() as tx:
                tx.create(Thing, scope="s", key=f"own{round_}", name="a", count=round_)
            subprocess.run([sys.executable, "-c", code, path, f"other{round_}"], check=True)
        with db.write() as tx:
            tx.update(Thing, "own0", count=7)
        with pytest.raises(TypeError), db.write() as tx:
            tx.create(Thing, scope="undone", key="k", name="a", count=1).count = "x"
        with db.write() as tx:
            tx.create(Thing, scope="undone", key="k", name="a", count=1)
        assert len(db[Thing].all()) == 4
        others = {one.key: one["field"] for one in db["others"].where(scope="s")}
        assert others == {f"other{n}": f"other{n}" for n in range(3)}
        with db.replica.store.reading() as reader:
            assert reader.context(reader.scope("s").id).count() == 7


@given(st.text(max_size=3), st.text(max_size=3))
@example("s" * 256, "k" * 512)
@example("s" * 257, "k")
@example("s", "k" * 513)
@example("ä" * 128, "k")
@example("ä" * 129, "k")
def test_names_of_ascii_are_measured_as_all_others(scope, key):
    sizes = len(scope.encode("utf-8", "surrogatepass")), len(key.encode("utf-8", "surrogatepass"))
    if 0 < sizes[0] <= 256 and 0 < sizes[1] <= 512:
        check_names(scope, key)
    else:
        with pytest.raises(LimitExceeded):
            check_names(scope, key)


def test_many_records_read_as_each_alone(tmp_path):
    class Mixed(fs.Record, table="mixed"):
        kept: tuple[str, ...] = fs.field(keep="all", default=())
        total: fs.Counter
        tags: set[str]
        price: Decimal | None = None

    with fs.open(tmp_path / "a.db", Mixed) as db:
        with db.write() as tx:
            for n in range(5):
                one = tx.create(Mixed, scope="s", key=f"k{n}", kept="x" * n, price=Decimal(n))
                one.total += n
                one.tags.add(str(n))
        every = {one.key: one for one in db[Mixed]}
        assert every == {key: db[Mixed].get(key) for key in every}
        assert every["k3"].as_dict() == {
            "key": "k3", "scope": "s", "kept": ("xxx",), "total": 3, "tags": frozenset({"3"}), "price": Decimal(3)
        }  # fmt: skip


class Mixed(fs.Record, table="mixed"):
    name: str = ""
    total: fs.Counter
    tags: set[str]


def edit(db, chance, times, removes=0.0):
    """Random fields of some records, a transaction each time, and now and then a record removed."""
    for _ in range(times):
        with db.write() as tx:
            for one in chance.sample(db[Thing].all(), 8):
                tx.update(Thing, one.key, count=chance.randrange(99))
            for one in chance.sample(db[Mixed].all(), 8):
                mixed = tx.get(Mixed, one.key)
                mixed.name, mixed.total = chance.choice("abc"), mixed.total + 1
                mixed.tags.add(chance.choice("xyz"))
            if chance.random() < removes:
                tx.delete(Thing, chance.choice(db[Thing].all()).key)


def pair_of(folder, seed):
    """A giver and a taker of one scope, who created some keys apart, met, and wrote on; odd ones removed as well."""
    chance = Random(seed)
    giver, taker = (fs.open(folder / name, Thing, Mixed) for name in ("giver.db", "taker.db"))
    for db in (giver, taker):
        with db.write() as tx:
            for n in chance.sample(range(30), 24):
                tx.create(Thing, scope="s", key=f"k{n}", name="a", count=n)
                tx.create(Mixed, scope="s", key=f"k{n}")
    taker.sync(giver)
    edit(giver, chance, 6, removes=seed % 2 * 0.3)
    edit(taker, chance, chance.randrange(3), removes=seed % 2 * 0.3)
    return giver, taker


def lacking(taker, giver):
    """Of one scope: the giver's context, and what of it the taker lacks."""
    contexts = []
    for db in (taker, giver):
        with db.replica.store.reading() as reader:
            contexts.append(reader.context(reader.scope("s").id))
    return contexts[1], contexts[1] - contexts[0]


def given_by(db, dots):
    with db.replica.store.reading() as reader:
        return [chunk for chunk, _ in giving.give(reader, reader.scope("s"), dots)]


class Undone(Exception):
    pass


def all_of(writer):
    tables = [name for (name,) in writer._db.execute("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")]
    return {name: sorted(writer._db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables if "fts" not in name}


def taken_by(db, giver, chunks):
    """What taking chunks makes of a file, and tells, before it is undone."""
    told = []
    try:
        with db.replica.store.writing() as writer:
            scope = writer.scope("s")
            declared = writer.context(scope.id)
            for chunk in chunks:
                scope, taken = taking.take(writer, scope, declared, giver, chunk, 2**41)
                told.append((taken.changes, sorted(taken.touched), taken.dots, taken.refused))
            writer.save_scope(scope)
            told.append(all_of(writer))
            raise Undone
    except Undone:
        return told


@pytest.mark.parametrize("seed", range(12))
def test_edits_land_alike_whether_alone_or_not(tmp_path, monkeypatch, seed):
    landed = []
    giver, taker = pair_of(tmp_path, seed)
    with giver, taker:
        context, dots = lacking(taker, giver)
        chunks = given_by(giver, dots)
        real = taking.land_edits
        monkeypatch.setattr(taking, "land_edits", lambda *args: landed.append(real(*args)) or landed[-1])
        fast = taken_by(taker, context, chunks)
        monkeypatch.setattr(taking, "locate_edits", lambda *_: None)
        assert taken_by(taker, context, chunks) == fast
    assert any(landed) or seed % 2


@pytest.mark.parametrize("seed", range(12))
def test_what_is_remembered_is_given_as_it_would_be_read(tmp_path, seed):
    giver, taker = pair_of(tmp_path, seed)
    with giver, taker:
        taker.sync(giver)
        edit(giver, Random(-seed), 4)
        for db, other in ((giver, Context()), (taker, Context()), (giver, lacking(taker, giver)[1])):
            with db.replica.store.reading() as reader:
                dots = other or reader.context(reader.scope("s").id)
                remembered = [dot for _, dot in db.replica.store.lately._edits]
            fast = given_by(db, dots)
            db.replica.store.lately.clear()
            assert given_by(db, dots) == fast
            assert remembered or db is giver


def test_what_is_replaced_within_one_transaction_is_not_remembered(tmp_path):
    with fs.open(tmp_path / "a.db", Thing) as db:
        store, one, two = db.replica.store, (1, 1), (1, 2)
        with store.writing() as writer:
            scope = writer.enter("s").id
            writer.note_edits(scope, {one: Edits(2, {7: {1: b"a", 2: b"b"}})}, [])
            assert writer.remembered(scope) == {one}
            writer.note_edits(scope, {two: Edits(1, {7: {1: b"c"}})}, [(one, 7, 1)])
        assert [store.lately.get(scope, dot).pieces for dot in (one, two)] == [{7: {2: b"b"}}, {7: {1: b"c"}}]


def test_what_is_remembered_is_bounded_and_goes_with_what_replaces_it(tmp_path, monkeypatch):
    with fs.open(tmp_path / "a.db", Thing) as db:
        lately = db.replica.store.lately
        with db.write() as tx:
            for n in range(5):
                tx.create(Thing, scope="s", key=f"k{n}", name="a", count=n)
        assert not lately._edits
        for n in (1, 2, 2, 3):
            with db.write() as tx:
                tx.update(Thing, f"k{n}", count=100 + n)
        assert [sum(map(len, edits.pieces.values())) for edits in lately._edits.values()] == [1, 0, 1, 1]
        held = lately._bytes
        monkeypatch.setattr("fieldsync.sqlite.lately.LATELY_BYTES_MAX", held)
        with db.write() as tx:
            tx.update(Thing, "k4", count=9)
        assert len(lately._edits) < 5
        assert 0 < lately._bytes <= held
        db.verify(repair=True)
        db.leave("s", lose_pending=True)
        assert not lately._edits
        assert lately._bytes == 0


def test_cells_that_had_to_wait_for_their_record_are_given_with_it(tmp_path, monkeypatch):
    """They came before it, as its author's clock is years ahead; then they stand in the row of the other ones."""
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 1)
    monkeypatch.setattr(giving, "CHUNK_CELLS_FIRST", 1)
    monkeypatch.setattr(writer, "ENTRIES_BYTES_SPARE", -(1 << 20))
    names = ("a", "ahead", "c", "hub", "taker")
    a, ahead, c, hub, taker = (fs.open(tmp_path / f"{name}.db", Thing, hub=name == "hub") for name in names)
    ahead.replica.wall_ms = lambda: a.replica.wall_ms() + 10 * 365 * 86_400_000
    for one in (a, ahead):
        with one.write() as tx:
            tx.create(Thing, scope="s", key="k", name="a", count=1)
            if one is a:
                tx.create(Thing, scope="s", key="other", name="a", count=1)
    c.enter("s")
    for one, other in ((hub, a), (c, a), (c, ahead)):
        one.sync(other)
    with c.write() as tx:
        tx.update(Thing, "k", name="of both")
        tx.update(Thing, "other", name="b")
    hub.sync(c)
    with c.write() as tx:
        tx.update(Thing, "other", name="c")
    hub.sync(c)
    taker.enter("s")
    assert not taker.sync(hub).mended
    assert taker.compare(hub, "s").agree
    for one in (a, ahead, c, hub, taker):
        one.close()


def deleted_by(db, monkeypatch, keys):
    """What deleting records makes of a file, and tells, before it is undone."""
    told = []
    try:
        with db.replica.writing() as batch, monkeypatch.context() as patched:
            noted = []
            patched.setattr(
                writer.SQLiteWriter, "note_edits", lambda _, *args: noted.append((*args[:2], sorted(args[2])))
            )
            for name, some in keys.items():
                (number,) = batch.writer.collection_ids([name])
                rows = batch.writer.by_key(number, batch.writer.scope("s").id, some)
                batch.scope("s").delete(number, name, rows)
            batch.land(2**41, lambda: b"a writer")
            kept = [(scope, list(some)) for scope, some in batch.writer._removals]
            told = [batch.touched, batch.dots, noted, kept, all_of(batch.writer)]
            raise Undone
    except Undone:
        return told


@pytest.mark.parametrize("seed", range(12))
def test_records_deleted_together_go_as_each_alone(tmp_path, monkeypatch, seed):
    chance = Random(seed)
    giver, taker = pair_of(tmp_path, seed)
    with giver, taker:
        taker.sync(giver)
        edit(taker, chance, 3)
        keys = {
            name: chance.sample(every := [one.key for one in taker[of]], chance.randrange(1, len(every)))
            for name, of in (("things", Thing), ("mixed", Mixed))
        }
        made = []
        remembered = {dot for _, dot in taker.replica.store.lately._edits}
        monkeypatch.setattr(writer.SQLiteWriter, "remembered", lambda *_: remembered)
        real = deleting.delete_all
        monkeypatch.setattr(deleting, "delete_all", lambda *args: made.append(real(*args)) or made[-1])
        fast = deleted_by(taker, monkeypatch, keys)
        monkeypatch.setattr(deleting, "delete_all", lambda *_: None)
        assert deleted_by(taker, monkeypatch, keys) == fast
        assert len(made[0].removals) > sum(map(len, keys.values()))  # some were created on both
        assert made[0].stale


def test_cells_without_their_record_are_not_deleted_with_it(tmp_path):
    """Nobody writes them into a record's row, so that such a row is left to who looks at each of its cells."""
    with fs.open(tmp_path / "a.db", Thing) as db:
        with db.write() as tx:
            tx.create(Thing, scope="s", key="k", name="a", count=1)
        with db.replica.store.writing() as writer:
            (row,) = writer.by_key(writer.collection("things").id, writer.scope("s").id, ["k"])
            body = b"\0\1\1\0" + b"\1\1\1\0" + row.packed[14:]  # dead, its name; one stamp, of time 0; the cells
            headless = bytes([len(body)]) + body
            scope = writer.scope("s")
            for rows, is_usual in (([row], True), ([row, row], False), ([row._replace(packed=headless)], False)):
                assert (deleting.delete_all(writer, scope, {(1, "things"): rows}) is not None) == is_usual
            with pytest.raises(Corrupt):
                deleting.delete_all(writer, scope, {(1, "things"): [row._replace(packed=row.packed[:-1])]})


@pytest.mark.parametrize("numbers", [[], [3], [3, 4, 5], [1, 3, 4, 9], [-2, -1, 0, 2]])
def test_spans_are_the_numbers_that_they_are_of(numbers):
    found = list(spans(numbers))
    assert [n for first, last in found for n in range(first, last + 1)] == numbers
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(found))
