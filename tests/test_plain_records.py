"""Plain records, on their quick way into a file: held against the doors, and against the way of all other records."""

import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fieldsync as fs
from fieldsync import loading
from fieldsync.limits import CHANGE_BYTES_MAX
from fieldsync.plain import pick
from fieldsync.values import CHECKS, check_number

PLAIN_KINDS = {str: 1, int: 2, float: 3, bool: 4, bytes: 5}
ODD = st.sampled_from([2**63, -(2**63) - 1, "\ud800", math.nan, math.inf, date.min, [], {}])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)


@given(VALUES | ODD, st.sampled_from(list(PLAIN_KINDS)), st.booleans())
def test_what_is_picked_is_what_the_door_leaves_as_it_is(value, kind, optional):
    """The quick way through never lets pass what the door would refuse or turn into something else."""
    picked = pick({"a": value}, ("a",), bytes([PLAIN_KINDS[kind] | optional << 3]), 0)
    if value is None:
        assert (picked == (None,)) == optional
        return
    try:
        stored = CHECKS[kind](value, 0)
    except TypeError:
        stored = None
    assert (picked is not None) == (type(value) is kind and stored is not None)
    assert picked is None or picked[0] is stored is value


@given(VALUES | ODD)
def test_finite_numbers_are_picked_for_a_counter(value):
    try:
        passes = type(value) in (int, float) and check_number(value, 0) is value
    except TypeError:
        passes = False
    assert (pick({"a": value}, ("a",), b"\x06", 0) is not None) == passes


class Line(fs.Record, table="lines"):
    order: str = fs.field(index=True)
    text: str = fs.field(search=True)
    price: float | None = None
    done: bool = False


class Order(fs.Record, table="orders"):
    customer: str


ROWS = [
    {"order": f"o{n % 7}", "text": f"pump {n}", "price": None if n % 3 else n / 4, "done": n % 2 == 0}
    for n in range(40)
]


def held(db):
    """All that a file says of its records, digests included, with the sets of numbers that may differ left out."""
    assert not db.verify().faults
    rows = db.sql("SELECT * FROM lines ORDER BY key"), db.sql("SELECT * FROM orders ORDER BY key")
    audit = db.sql("SELECT scope, collection, key, kind, field, old, new FROM fieldsync_audit ORDER BY scope, key")
    found = [one.key for one in db[Line].search("pump 3").all()]
    return [list(map(tuple, some)) for some in (*rows, audit)], found


@pytest.fixture(params=["plain", "others"])
def way(request, monkeypatch):
    """The quick way, and the other one."""
    if request.param == "others":
        monkeypatch.setattr("fieldsync.plain.build", lambda *_: None)


def fill(path):
    """A file of new records, made in a transaction and by a load, and what it holds."""
    keys = iter(range(1000))
    with fs.open(path, Line, Order, audit=True) as db:
        with db.write() as tx:
            for n, row in enumerate(ROWS[:20]):
                tx.create(Line, scope="s", key=f"a{n:02}", **row)
                tx.create(Order, scope="s" if n % 2 else "t", key=f"o{n}", customer=f"c{n}")
        report = db.load(Line, ROWS, key=lambda _: f"b{next(keys):02}", scope=lambda _: "s")
        assert (report.loaded, report.rejected) == (40, [])
        with db.write() as tx:
            tx.update(Line, "a03", text="pipe")
            tx.delete(Line, "a04")
        return held(db)


def test_new_records_are_the_same_whichever_way_they_came(tmp_path, monkeypatch):
    quick = fill(tmp_path / "quick.db")
    monkeypatch.setattr("fieldsync.plain.build", lambda *_: None)
    assert fill(tmp_path / "other.db") == quick
    assert len(quick[0][0]) == 59


@pytest.mark.usefixtures("way")
def test_a_load_finds_what_is_there_already_whichever_way_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CHANGE_RECORDS_MAX", 8)
    rows = [{"id": f"l{n % 30:02}", **row, "text": f"pump {n}"} for n, row in enumerate(ROWS)]
    with fs.open(tmp_path / "a.db", Line) as db:
        with db.write() as tx:
            for n in (0, 9, 29):
                tx.create(Line, scope="s", key=f"l{n:02}", **ROWS[n])
        report = db.load(Line, rows, key="id", scope=lambda _: "s")
        assert (report.loaded, report.unchanged, report.repeated) == (37, 3, 0)
        assert len(db[Line].all()) == 30
        assert db[Line].get("l03").text == "pump 33"
        assert db.load(Line, rows[30:], key="id", scope=lambda _: "s").unchanged == 10
        assert [one.key for one in db[Line].search("31").all()] == ["l01"]
        assert db[Line].search("1").all() == []
        assert not db.verify().faults


def create_each(tx, keys, fields):
    for key in keys:
        tx.create(Line, scope="s", key=key, **fields)


@pytest.mark.usefixtures("way")
def test_rows_that_are_too_large_together_come_in_smaller_changes(tmp_path):
    large = "x" * (CHANGE_BYTES_MAX // 5)
    rows = [{"id": str(n), **ROWS[n], "text": large if n % 2 else "small"} for n in range(20)]
    rows[5]["text"] = "x" * CHANGE_BYTES_MAX
    with fs.open(tmp_path / "a.db", Line) as db:
        report = db.load(Line, rows, key="id", scope=lambda _: "s")
        assert report.loaded == 19
        assert [number for number, _ in report.rejected] == [6]
        with pytest.raises(fs.LimitExceeded), db.write() as tx:
            create_each(tx, [f"n{n}" for n in range(6)], ROWS[0] | {"text": large})
        assert len(db[Line].all()) == 19
        assert not db.verify().faults


def test_plain_records_take_the_quick_way(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldsync.record.create", None)
    with fs.open(tmp_path / "a.db", Line) as db:
        with db.write() as tx:
            create_each(tx, ["a", "b"], ROWS[1])
        assert db.load(Line, [{"id": "c", **ROWS[0]}], key="id", scope=lambda _: "s").loaded == 1
        assert [one.price for one in db[Line].where().order_by("key")] == [None, None, 0.0]
