"""Named tuples, many at a time: the same that their class makes, one by one."""

import gc
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync._native import named

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
ITEMS = LEAVES | st.lists(LEAVES, max_size=2).map(tuple) | st.just([])


class Row(NamedTuple):
    """A class of tuples, as those of the engine."""

    number: object
    scope: object
    key: object


def check_alike(found, expected):
    assert list(map(repr, found)) == list(map(repr, expected))
    assert all(type(one) is Row for one in found)
    for one, other in zip(found, expected, strict=True):
        if not any(isinstance(item, list) for item in other):
            assert hash(one) == hash(other)


@given(st.lists(st.tuples(ITEMS, ITEMS, ITEMS), max_size=20), LEAVES)
def test_they_are_what_their_class_makes_of_the_same(rows, shared):
    check_alike(named.of_rows(Row, rows), [Row(*row) for row in rows])
    first, _, last = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    check_alike(named.of_columns(Row, len(rows), (first, shared, last)), [Row(row[0], shared, row[2]) for row in rows])


def test_the_garbage_collector_sees_those_alone_that_may_be_part_of_a_ring():
    ring = [None]
    leaf, other = named.of_rows(Row, [(1, "s", b"k"), (1, "s", ring)])
    assert (gc.is_tracked(leaf), gc.is_tracked(other)) == (False, True)
    ring[0] = named.of_columns(Row, 1, (1, "s", [ring]))[0]
    gc.collect()
    del ring, other
    assert gc.collect() >= 2
    assert leaf == (1, "s", b"k")


def test_what_cannot_be_named_is_refused():
    for kind in (list, int):
        with pytest.raises(TypeError, match="a tuple"):
            named.of_rows(kind, [])
        with pytest.raises(TypeError, match="a tuple"):
            named.of_columns(kind, 1, (1,))
    with pytest.raises(TypeError, match="a tuple"):
        named.of_rows(Row, [["a", "b", "c"]])
    with pytest.raises(ValueError, match="as many items"):
        named.of_columns(Row, 2, ([1], 2, [3, 4]))
