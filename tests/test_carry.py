"""Carrying records over to other incarnations: the kernel against the model, and what becomes of its pieces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import canonical, model
from tests.histories import (
    AUTHORS,
    EVERY_BYTE,
    EVERYTHING,
    FIELDS,
    KEY,
    NUMBERS,
    OTHER_NUMBERS,
    RECORD,
    VALUES,
    History,
    histories,
)
from tests.model import Address, Cell, Incarnation, Name, Stamp

from fieldsync._native import carry, merge

AUTHOR_BYTES, FIELD_BYTES = NUMBERS.author_bytes, NUMBERS.field_bytes
HEIR = Name(AUTHORS[2], 70, 3)
PRICE, TEXT = Address("price", model.REGISTER), Address("notes", model.TEXT)
WITHOUT = 2  # status
chances = st.integers(0, 2**32).map(random.Random)
times = st.integers(1, 2_000) | st.sampled_from([model.TIME_MAX - 1, model.TIME_MAX])


def run(numbers, record, born, late, seq=70, without=WITHOUT):
    """One call of the kernel against the model; the pieces, and what the model makes of them."""
    pair = FIELDS[without - 1] if without else None
    expected, lowest = model.carry(record, HEIR, born, (HEIR.author, seq), pair, late)
    author = numbers.authors.index(HEIR.author)
    field = numbers.fields.index(pair) if pair else 0
    item = numbers.pack(record), numbers.number(HEIR), born, late
    ((pieces, least),) = carry.carry([item], author, seq, field, numbers.field_bytes, numbers.author_bytes)
    assert pieces == [(numbers.pack(piece), len(model.live_dots(piece))) for piece in expected]
    assert least == lowest
    return pieces, expected


@given(histories, st.integers(0, 3), times, st.booleans(), st.sampled_from([0, 1, WITHOUT, 6, 8]))
def test_carrying_is_the_models(history, at, born, late, without):
    record = history.replicas[at].record
    for numbers in (NUMBERS, OTHER_NUMBERS):
        run(numbers, record, born, late, without=without)


@given(histories, chances, times, st.booleans())
def test_what_was_merged_in_any_order_is_carried(history, chance, born, late):
    """Records as no replica had them: headless cells, several incarnations, siblings of all kinds."""
    (record,) = history.portions(chance, 1)
    pieces, expected = run(NUMBERS, record, born, late)
    packed = tuple(piece for piece, _ in pieces)
    outcomes, digest = merge.merge([((), packed, (), RECORD)], KEY, FIELD_BYTES, AUTHOR_BYTES)
    merged = model.merge(*expected)
    name = canonical.encode([*RECORD])
    assert int.from_bytes(digest, "little") == model.digest(merged, name, KEY)
    live, headless, _, _ = outcomes[0] or (b"", (), (), ())
    assert live == NUMBERS.pack(model.living(merged))
    assert b"".join(row[3] for row in headless) == (NUMBERS.pack(merged) if late else b"")


@given(histories, times, st.booleans())
def test_pieces_are_canonical(history, born, late):
    """Merging a piece into nothing packs it anew: the same bytes."""
    for replica in history.replicas:
        for piece, _ in run(NUMBERS, replica.record, born, late)[0]:
            (outcome,), _ = merge.merge([((), (piece,), (), RECORD)], KEY, FIELD_BYTES, AUTHOR_BYTES)
            assert piece == (outcome[0] or outcome[1][0][3])


@given(histories, chances, times)
def test_a_created_record_reads_as_the_one_it_was_carried_from(history, chance, born):
    """All but counters, which are the sums of totals, and the field that is left out."""
    (record,) = history.portions(chance, 1)
    _, expected = run(NUMBERS, record, born, late=False)
    merged = model.merge(*expected)
    for field, kind in FIELDS:
        if kind & model.PER_AUTHOR or (field, kind) == FIELDS[WITHOUT - 1]:
            assert not model.cells_at(merged, field, kind)
        elif kind & model.SIDE_BY_SIDE:
            before, after = (
                sorted((c.address.sub, c.value) for _, c in model.cells_at(some, field, kind))
                for some in (record, merged)
            )
            assert after == before or kind & model.HAS_SUB
            assert {sub for sub, _ in after} == {sub for sub, _ in before}
        elif kind & model.HAS_SUB == 0:
            assert model.read(merged, field, kind, ...) == model.read(record, field, kind, ...)


@given(histories, st.integers(1, 2_000))
def test_what_comes_late_is_above_the_creation_and_replaces_it(history, born):
    """So that a register that came late wins over the value that was moved, and nothing lies below its own record."""
    record = history.replicas[0].record
    _, (created, *_) = run(NUMBERS, record, born, late=False, without=0)
    _, late = run(NUMBERS, history.replicas[1].record, born, late=True, seq=80)
    cells = {cell for piece in late for cell in piece[HEIR].cells}
    assert all(cell.stamp.time > born for cell in cells)
    merged = model.merge(created, *late)
    for cell in cells:
        if not cell.address.kind & model.SIDE_BY_SIDE:
            assert [c for c in merged.get(HEIR).cells if c.address == cell.address] == [cell]


def test_a_history_with_everything_has_something_of_each():
    """Else the properties above would hold of little."""
    history = History(EVERYTHING)
    merged = model.merge(*(change.piece for change in history.changes))
    kinds = {cell.address.kind for inc in merged.values() for cell in inc.cells}
    assert {model.REGISTER, model.COUNTER, model.SET, model.TEXT, 0x40} <= kinds
    assert len(merged) > 1
    pieces, _ = run(NUMBERS, merged, 5, late=False)
    assert len(pieces) > 1  # several updates of a text
    run(NUMBERS, merged, 5, late=True)


def test_each_update_of_a_text_takes_a_change_of_its_own_and_a_set_takes_one():
    name = Name(AUTHORS[0], 1, 0)
    texts = [Cell(TEXT, Stamp(100 + i, AUTHORS[i % 4], 5 + i), canonical.encode(f"{i}".encode())) for i in range(40)]
    tags = [
        Cell(Address("tags", model.SET, canonical.encode(i)), Stamp(100, AUTHORS[1], 9), VALUES[4]) for i in range(40)
    ]
    pieces, expected = run(NUMBERS, {name: Incarnation(100, frozenset([*texts, *tags]))}, 1_000, late=False)
    assert [cells for _, cells in pieces] == [1 + 1 + 40, *[1] * 39]
    written = [cell for piece in expected for cell in piece[HEIR].cells if cell.address == TEXT]
    assert sorted(cell.stamp.seq for cell in written) == list(range(70, 110))


def test_of_equal_times_the_author_s_bytes_decide_whatever_their_numbers():
    name, other = Name(AUTHORS[0], 1, 0), Name(AUTHORS[1], 1, 0)
    low, high = sorted(AUTHORS)[0], sorted(AUTHORS)[-1]
    record = {
        name: Incarnation(100, frozenset([Cell(PRICE, Stamp(200, low, 9), VALUES[0])])),
        other: Incarnation(100, frozenset([Cell(PRICE, Stamp(200, high, 2), VALUES[1])])),
    }
    for numbers in (NUMBERS, OTHER_NUMBERS):
        _, (piece,) = run(numbers, record, 500, late=False)
        assert {cell.value for cell in piece[HEIR].cells} == {VALUES[1]}


def test_a_seen_does_not_come_along():
    """It names changes of the other scope."""
    seen = model.join([(AUTHORS[1], 5), (AUTHORS[3], 2)])
    record = {
        Name(AUTHORS[0], 1, 0): Incarnation(100, frozenset([Cell(PRICE, Stamp(200, AUTHORS[2], 4), VALUES[0], seen)]))
    }
    for late in (False, True):
        _, (piece,) = run(NUMBERS, record, 500, late=late)
        assert all(cell.seen == () for cell in piece[HEIR].cells)


def test_the_ends_of_time():
    """A time that cannot be passed stays; nothing wraps round."""
    record = {Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset([Cell(PRICE, Stamp(9, AUTHORS[1], 4), VALUES[0])]))}
    _, (piece,) = run(NUMBERS, record, model.TIME_MAX, late=True)
    assert {cell.stamp.time for cell in piece[HEIR].cells} == {model.TIME_MAX}


def test_nothing_in_nothing_out():
    arguments = (1, 1, 0, FIELD_BYTES, AUTHOR_BYTES)
    assert carry.carry([], *arguments) == []
    assert carry.carry([(b"", (1, 1, 0), 5, True)], *arguments) == [([], model.TIME_MAX)]
    ((pieces, lowest),) = carry.carry([(b"", (1, 1, 0), 5, False)], *arguments)
    assert pieces == [(NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())}), 1)]
    assert lowest == model.TIME_MAX
    assert carry.totals([], FIELD_BYTES, AUTHOR_BYTES) == []
    assert carry.totals([b""], FIELD_BYTES, AUTHOR_BYTES) == [[]]


@given(st.lists(histories, min_size=2, max_size=4), times)
def test_many_records_in_one_call_are_as_many_calls(several, born):
    items, alone = [], []
    for n, history in enumerate(several):
        item = NUMBERS.pack(history.replicas[0].record), (3, 70, n), born, bool(n % 2)
        items.append(item)
        alone += carry.carry([item], 3, 70, WITHOUT, FIELD_BYTES, AUTHOR_BYTES)
    assert carry.carry(items, 3, 70, WITHOUT, FIELD_BYTES, AUTHOR_BYTES) == alone


@given(histories, chances)
def test_totals_are_all_cells_with_an_author_of_their_own(history, chance):
    records = history.portions(chance, 3)
    for numbers in (NUMBERS, OTHER_NUMBERS):
        expected = [
            sorted(
                (numbers.number(name), numbers.address(cell.address)[0], numbers.dot(cell.stamp.dot)[0], cell.value)
                for name, inc in record.items()
                for cell in inc.cells
                if cell.address.kind & model.PER_AUTHOR
            )
            for record in records
        ]
        found = carry.totals([numbers.pack(one) for one in records], numbers.field_bytes, numbers.author_bytes)
        assert [sorted(one) for one in found] == expected


# Hostile bytes --------------------------------------------------------------------------------------------------------


def test_an_author_that_the_dictionary_does_not_hold_is_refused():
    """Ids are places in the dictionary's bytes: a damaged one must not be read from beyond their end."""
    few = AUTHOR_BYTES[:32]
    sound = NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())})
    far = Cell(PRICE, Stamp(100, AUTHORS[3], 1), VALUES[0])
    for record in ({Name(AUTHORS[3], 1, 0): Incarnation(5, frozenset())}, {HEIR: Incarnation(5, frozenset([far]))}):
        with pytest.raises(ValueError, match="damaged"):
            carry.carry([(NUMBERS.pack(record), (1, 1, 0), 5, False)], 1, 1, 0, FIELD_BYTES, few)
        with pytest.raises(ValueError, match="damaged"):
            carry.totals([NUMBERS.pack(record)], FIELD_BYTES, few)
    with pytest.raises(ValueError, match="author"):
        carry.carry([(sound, (1, 1, 0), 5, False)], 4, 1, 0, FIELD_BYTES, few)


def test_a_truncated_record_is_refused_at_every_byte():
    record = model.merge(*(change.piece for change in History(EVERYTHING).changes))
    whole = NUMBERS.pack(record)
    ends = {
        0,
        *(len(NUMBERS.pack(dict(sorted(record.items(), key=lambda i: NUMBERS.number(i[0]))[:n]))) for n in range(9)),
    }
    for size in set(range(len(whole))) - ends:
        for late in (False, True):
            with pytest.raises(ValueError):
                carry.carry([(whole[:size], (1, 1, 0), 5, late)], 1, 1, 0, FIELD_BYTES, AUTHOR_BYTES)
        with pytest.raises(ValueError):
            carry.totals([whole[:size]], FIELD_BYTES, AUTHOR_BYTES)


def test_a_record_altered_at_any_byte_is_carried_or_refused():
    whole = bytearray(NUMBERS.pack(model.merge(*(change.piece for change in History(EVERYTHING).changes))))
    taken = 0
    for at in range(len(whole)):
        for byte in EVERY_BYTE:
            altered = bytes(whole[:at]) + bytes([byte]) + bytes(whole[at + 1 :])
            try:
                carry.carry([(altered, (1, 1, 0), 5, bool(byte & 1))], 1, 1, WITHOUT, FIELD_BYTES, AUTHOR_BYTES)
                carry.totals([altered], FIELD_BYTES, AUTHOR_BYTES)
            except ValueError:
                continue
            taken += 1
    assert taken > 0


@given(st.lists(st.binary(max_size=60), max_size=3), times, st.booleans())
def test_any_bytes_are_carried_or_refused(records, born, late):
    try:
        found = carry.carry([(raw, (1, 1, 0), born, late) for raw in records], 1, 1, 0, FIELD_BYTES, AUTHOR_BYTES)
    except ValueError:
        return
    assert len(found) == len(records)
