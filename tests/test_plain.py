"""The kernel of plain values: rows picked from, and records built as the other kernels build and read them."""

import math
from collections import UserDict
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests import canonical
from tests.histories import KEY
from tests.model import COUNTER, REGISTER, SET, Numbers

from fieldsync._native import fresh, plain, read, write

INTS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.none() | st.booleans() | INTS | st.floats() | st.text(max_size=99) | st.binary(max_size=9)
FIELDS = [("total", COUNTER), ("name", REGISTER), ("name", COUNTER), ("größe", REGISTER), ("tags", SET)]
NUMBERS = Numbers.of([b"abcdefgh", b"\xff" * 8], FIELDS)
NAMES = NUMBERS.field_bytes, NUMBERS.author_bytes
IDS = (2, 4, 1, 3)  # registers, then counters
CHANGE = (2, 300, 1 << 60)
COLUMNS, ABSENT = (3, -1, 0, 1), ("a", "b", None, 7)


def test_rows_are_picked_from_as_a_whole():
    row = {"b": 5, "a": "x", "c": None}
    assert plain.pick(row, ("a", "b", "c"), b"\x01\x02\x0b", 0) == ("x", 5, None)
    assert plain.pick(row, ("b",), b"\x02", 2) == (5,)
    for names, kinds, others in ((("a", "b"), b"\x01\x02", 0), (("a", "d"), b"\x01\x01", 1), (("a",), b"\x00", 2)):
        assert plain.pick(row, names, kinds, others) is None
    with pytest.raises(ValueError, match="as many kinds"):
        plain.pick(row, ("a",), b"", 2)
    for other in (UserDict(row), [("a", "x")], None):
        assert plain.pick(other, ("a", "b", "c"), b"\x01\x02\x0b", 0) is None
    assert plain.pick({}, (), b"", 0) is None


def built(keys, records, *, ids=IDS, first=3, collection="things", table=(9, 41, COLUMNS, ABSENT), change=CHANGE):
    return plain.build(change, first, keys, records, ids, table, collection, KEY, *NAMES)


RECORDS = st.lists(
    st.tuples(
        VALUES | st.just(...), VALUES, INTS | st.just(...), INTS | st.floats(allow_nan=False, allow_infinity=False)
    )
)


@given(RECORDS, st.text(min_size=1, max_size=70))
@example([(-0.0, math.nan, -16, 47), (True, False, 48, -17), ("x" * 63, "ä" * 32, -(2**63), 2**63 - 1)], "k")
def test_records_are_built_as_all_others_are(records, key):
    keys = [f"{key}{n}" for n in range(len(records))]
    pieces = write.create(*CHANGE, [(n, IDS, values) for n, values in enumerate(records, 3)], NAMES[0])
    digest = fresh.digest(pieces, "things", keys, KEY, *NAMES)
    wanted = tuple(IDS[place] if place >= 0 else 0 for place in COLUMNS)
    narrow = [(n, 9, key, piece) for n, (key, piece) in enumerate(zip(keys, pieces, strict=True), 41)]
    rows = read.widen(narrow, wanted, ABSENT, lambda value: value, *NAMES)
    cells = sum(1 + len(values) - values.count(...) for values in records)
    size = sum(map(len, pieces)) + sum(len(canonical.encode(key)) for key in keys)
    found = built(keys, records)
    assert repr(found) == repr((rows, digest, cells, size))
    assert [list(map(type, row)) for row in found[0]] == [list(map(type, row)) for row in rows]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800", date.min, [], {}, bytearray(b"x"), object()])
def test_what_is_not_plain_is_not_built(value):
    assert built(["a", "b"], [("x", 1, 2, 3), ("x", value, 2, 3)]) is None


def test_names_that_no_text_can_be_and_fields_of_many_cells_are_not_built():
    record = ("x", 1, 2, 3)
    assert built(["\ud800"], [record]) is None
    assert built(["k"], [record], collection="\ud800") is None
    assert built(["k"], [record], ids=(2, 4, 1, 5)) is None
    assert built(["k"], [(1, 2)], ids=(1, 1), table=(9, 41, (), ())) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"records": []},
        {"records": [(1, 2)]},
        {"ids": (1, 2, 3, 99)},
        {"change": (9, 1, 1)},
        {"change": (1, 1)},
        {"table": (9, 41, (4,), (None,))},
        {"table": (9, 41, (0,), ())},
    ],
)
def test_what_does_not_fit_together_is_an_error(wrong):
    with pytest.raises(ValueError, match=r"field|author|values|column|zip|unpack"):
        built(**({"keys": ["k"], "records": [("x", 1, 2, 3)]} | wrong))
    with pytest.raises(ValueError, match="16 bytes"):
        plain.build(CHANGE, 0, [], [], (), (9, 41, (), ()), "things", b"", *NAMES)
