"""Tables of integers, packed column by column: they come back, take little, and damaged ones are errors."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fieldsync._native import numbers

STEPS = st.sampled_from([0, 0, 0, 1, 1, 50, -1, 1 << 40])
ROWS = st.lists(st.tuples(*[STEPS | st.integers(-(2**61), 2**61)] * 3), max_size=40)


@given(ROWS)
@example([(1, -1, 5)] * 7 + [(1, 2, 5)])
@example([(n, -n, 3 * n) for n in range(20)])
def test_a_table_comes_back_and_a_part_of_it_does_not(rows):
    packed, again = numbers.pack([rows, rows], 3)
    assert packed == again
    assert numbers.unpack(packed, 3, tuple) == rows
    for end in range(1, len(packed)):
        with pytest.raises(ValueError, match="damaged"):
            numbers.unpack(packed[:end], 3, tuple)


def test_damaged_tables_are_tables_or_errors():
    chance = random.Random(5)
    (packed,) = numbers.pack([[(1, -1, chance.randrange(500), n % 9 == 0) for n in range(40)]], 4)
    for _ in range(3_000):
        wrong = bytearray(packed)
        for _ in range(chance.randint(1, 3)):
            wrong[chance.randrange(len(wrong))] = chance.randrange(256)
        try:
            assert all(len(row) == 4 for row in numbers.unpack(bytes(wrong), 4, tuple))
        except ValueError:
            continue
    with pytest.raises(ValueError, match="damaged"):
        numbers.unpack(b"\xff\xff\xff\xff\x0f" + bytes(12), 4, tuple)  # so many rows


def test_what_is_no_table_is_refused():
    for rows, columns in (([(1, 2)], 3), ([(1,)], 9), ([(1,)], 0)):
        with pytest.raises(ValueError, match="column"):
            numbers.pack([rows], columns)


def test_the_rows_of_an_edit_of_many_records_take_little_more_than_a_byte_each():
    chance = random.Random(4)
    runs = [(1, -1, row, 1 if row % 50 else 2) for row in sorted(chance.sample(range(0, 100_000, 2), 1_000))]
    (packed,) = numbers.pack([runs], 4)
    assert len(packed) < 1_500
