"""Entries of the change index by their kernel, held against plain loops over what they say."""

import random
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fieldsync._native import entries


class Entry(NamedTuple):
    collection: int
    n: int
    row: int
    count: int


SMALL = st.integers(-1, 6)
PLACES = st.lists(st.tuples(st.integers(-1, 2), SMALL, SMALL, st.just(1)), max_size=30)
END = (1 << 63) - 1


def singles(runs):
    return [
        (collection, n + i if n >= 0 else -1, row + i, 1) for collection, n, row, count in runs for i in range(count)
    ]


def follows(one, other):
    """Whether two single rows are one run."""
    return other == (one[0], one[1] + 1 if one[1] >= 0 else -1, one[2] + 1, 1)


@given(PLACES)
@example([(1, -1, 5, 1), (1, -1, 5, 1), (1, -1, 6, 1), (1, 3, 7, 1), (1, 4, 8, 1)])
def test_runs_say_what_their_rows_said_and_none_could_be_one_with_the_next(places):
    runs = entries.compress(places, tuple)
    rows = singles(runs)
    assert rows == sorted(set(places))
    ends = [sum(run[3] for run in runs[: i + 1]) for i in range(len(runs))]
    for end in ends[:-1]:
        assert not follows(rows[end - 1], rows[end])
    assert entries.compress(places[::-1], tuple) == runs
    assert entries.compress([Entry(*place) for place in places], Entry) == runs


def test_runs_do_not_go_on_beyond_the_largest_number():
    places = [(0, -1, -END - 1, 1), (0, -1, END, 1), (0, END, END, 1), (1, -END, 3, 1), (1, 1 - END, 4, 1)]
    assert entries.compress(places, tuple) == [*places[:3], places[3], places[4]]


def test_what_is_no_single_row_is_refused():
    for places in ([(1, 2, 3)], [(1, 2, 3, 4)], [(1, 2, 3, "x")], [[1, 2, 3, 1]], [None]):
        with pytest.raises((TypeError, ValueError)):
            entries.compress(places, tuple)
    with pytest.raises(OverflowError):
        entries.compress([(1, 2, 1 << 63, 1)], tuple)
    with pytest.raises(TypeError):
        entries.compress([], list)


def filed(pieces, at, creations):
    """What file_edits does, in plain words: (where it ends, mine, rows, what came twice)."""
    mine, rows, several = {}, {}, []
    for place, (author, seq, n, name, packed) in enumerate(pieces[at:], at):
        if name is not None:
            return -1, mine, rows, several
        if (author, seq) not in creations:
            return place, mine, rows, several
        held = [run for run in creations[author, seq] if 0 <= run[1] <= n < run[1] + run[3]]
        if not held:
            return -1, mine, rows, several
        collection, first, row, _ = held[0]
        row += n - first
        if row in mine.setdefault(collection, {}):
            several.append((collection, row))
        mine[collection][row] = packed
        here = rows.setdefault(collection, {})
        here[row] = (*here.get(row, ()), packed)
    return len(pieces), mine, rows, several


NAMES = st.tuples(st.integers(1, 2), st.integers(1, 2))
CELLS = st.binary(max_size=2)
EDITS = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(0, 6), st.none(), CELLS), max_size=12)
RUNS = st.lists(st.tuples(st.integers(1, 2), st.integers(-1, 5), st.integers(1, 9), st.integers(0, 4)), max_size=3)


@given(EDITS, st.integers(0, 3), st.dictionaries(NAMES, RUNS))
def test_edits_are_filed_as_a_plain_loop_files_them(pieces, at, creations):
    mine, rows, several = {}, {}, []
    end = entries.file_edits(pieces, at, creations, mine, rows, several)
    wanted = filed(pieces, at, creations) if at < len(pieces) else (at, {}, {}, [])
    names = {id(some): collection for collection, some in mine.items()}
    assert (end, mine, rows, [(names[id(some)], row) for some, row in several]) == wanted


def test_pieces_with_a_name_create_and_are_no_edits():
    assert entries.file_edits([(1, 1, 0, (0, "k"), b"")], 0, {(1, 1): [(1, 0, 1, 1)]}, {}, {}, []) == -1


def test_runs_and_pieces_of_any_numbers_are_answers_or_errors():
    """As a damaged file, or a peer that may say anything, could have them."""
    chance = random.Random(3)
    numbers = [0, 1, 5, END, END - 1, -1, -END, -END - 1, 1 << 63, (1 << 64) - 1, 1 << 64, None]
    ends = set()
    for _ in range(3_000):
        piece = (*(chance.choice(numbers) for _ in range(3)), None, b"x")
        run = tuple(chance.choice(numbers) for _ in range(4))
        try:
            ends.add(entries.file_edits([piece] * 2, 0, {piece[:2]: [run]}, {}, {}, []))
        except (TypeError, ValueError, OverflowError):
            ends.add(None)
    assert ends == {-1, 2, None}
    with pytest.raises(ValueError, match="no place"):
        entries.file_edits([], -1, {}, {}, {}, [])
