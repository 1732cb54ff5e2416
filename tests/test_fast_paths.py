"""Fast paths, each held against its slow twin: the usual row, new records in a row, reads of any size, what is kept."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fieldsync as fs
from fieldsync._native import numbers
from fieldsync.apply import _runs, compress, expand
from fieldsync.collection import Collection
from fieldsync.context import Context
from fieldsync.errors import LimitExceeded
from fieldsync.store import Entry
from fieldsync.syncing import giving
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
    assert _runs(3, some, first) == compress(singles)
    assert expand(_runs(3, some, first)) == singles


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
