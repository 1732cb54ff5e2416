"""Records deleted whole by a kernel, against merging each with its removal, which takes much longer."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import model
from tests.histories import KEY, NUMBERS, RECORD, histories

from fieldsync._native import delete, merge, write
from fieldsync._native import removals as removals_kernel

AUTHORS, FIELDS = NUMBERS.author_bytes, NUMBERS.field_bytes
CHANGE = (5, 1, 9)  # scope, author, seq
chances = st.integers(0, 2**32).map(random.Random)


def deleted(rows, remembered=frozenset(), collection=RECORD[0]):
    groups = [(7, collection, [(number, 5, key, packed) for number, key, packed in rows])]
    return delete.delete(groups, CHANGE, KEY, set(remembered), FIELDS, AUTHORS)


@given(histories, chances)
def test_what_goes_is_what_merging_with_its_removal_takes_away(history, chance):
    (old,) = history.portions(chance, 1)
    packed = NUMBERS.pack(model.living(old))
    removed = removals_kernel.removals(packed, FIELDS)
    (outcome,), digest = merge.merge([((packed,), (), tuple(removed), RECORD)], KEY, FIELDS, AUTHORS)
    live, headless, events = outcome or (b"", (), ())
    assert (live, headless) == (b"", ())
    changes = {(author, seq) for author, seq, _ in events}
    remembered = set(chance.sample(sorted(changes), chance.randint(0, len(changes))))
    logged, runs, lost, stale, difference, size = deleted([(3, RECORD[1], packed)], remembered)
    assert logged == [(5, *name, 1, 9, item, 7, RECORD[1]) for *name, item in removed]
    assert [(author, seq, n) for author, seq, first, count in runs for n in range(first, first + count)] == sorted(
        tuple(name) for *name, _ in removed
    )
    assert lost == Counter({(author, seq): -by for author, seq, by in events})
    assert sorted(stale) == [(dot, 7, 3) for dot in sorted(remembered)]
    assert (difference, size) == (digest, sum(len(item) for *_, item in removed))


def test_incarnations_one_after_the_other_are_one_run():
    numbers = [4, 2, 3, 9, 11, 10, 7]
    pieces = write.create(2, 6, 1_000, [(n, (), ()) for n in numbers], FIELDS)
    other = write.create(1, 6, 1_000, [(5, (), ()), (0, (), ())], FIELDS)
    rows = [(n, f"k{n}", piece) for n, piece in enumerate([*pieces, *other])]
    logged, runs, lost, *_ = deleted(rows)
    assert runs == [(1, 6, 0, 1), (1, 6, 5, 1), (2, 6, 2, 3), (2, 6, 7, 1), (2, 6, 9, 3)]
    assert lost == {(2, 6): 7, (1, 6): 2}
    assert [row[-1] for row in logged] == [key for _, key, _ in rows]
    assert deleted([*rows, rows[0]]) is None  # nobody has one incarnation in two rows
    assert deleted([]) == ([], [], {}, [], bytes(16), 0)


@given(histories, chances)
def test_cells_without_their_record_are_left_to_others(history, chance):
    (old,) = history.portions(chance, 1)
    dead = {name: inc for name, inc in old.items() if inc.time is None}
    assert (deleted([(1, "k", NUMBERS.pack(dead))]) is None) == bool(dead)


@given(histories, chances, st.data())
def test_damaged_records_are_deleted_or_refused(history, chance, data):
    (old,) = history.portions(chance, 1)
    packed = bytearray(NUMBERS.pack(old))
    for at in data.draw(st.lists(st.integers(0, len(packed)), max_size=3)):
        packed[at : at + 1] = data.draw(st.binary(max_size=2))
    try:
        deleted([(1, "k", bytes(packed))], {(1, 1)})
    except ValueError as error:
        assert "damaged" in str(error)  # noqa: PT017


def test_an_author_that_the_dictionary_does_not_hold_is_refused():
    (piece,) = write.create(1, 6, 1_000, [(0, (), ())], FIELDS)
    with pytest.raises(ValueError, match="damaged"):
        delete.delete([(7, "c", [(1, 5, "k", piece)])], CHANGE, KEY, set(), FIELDS, AUTHORS[:8])
    with pytest.raises(ValueError, match="16 bytes"):
        delete.delete([], CHANGE, KEY[:15], set(), FIELDS, AUTHORS)
