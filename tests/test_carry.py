"""Carrying records over to other incarnations: the kernel against the model, and what becomes of its pieces."""

import random
from contextlib import suppress

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
TEXT_NUMBER = FIELDS.index(("notes", model.TEXT)) + 1
PRICE, TEXT = Address("price", model.REGISTER), Address("notes", model.TEXT)
WITHOUT = 2  # status
chances = st.integers(0, 2**32).map(random.Random)
times = st.integers(1, 2_000) | st.sampled_from([model.TIME_MAX - 1, model.TIME_MAX])


def lowest(piece):
    return min(stamp.time for inc in piece.values() for stamp in [*times_of(inc), *(cell.stamp for cell in inc.cells)])


def times_of(inc):
    return [Stamp(inc.time, b"", 0)] if inc.time is not None else []


def run(numbers, record, born, seq=70, without=WITHOUT):
    """A move by the kernel against the model's; the pieces, what the model makes of them, and what was edited."""
    pair = FIELDS[without - 1] if without else None
    expected, edited = model.move(record, HEIR, born, (HEIR.author, seq), pair)
    author = numbers.authors.index(HEIR.author)
    field = numbers.fields.index(pair) if pair else 0
    item = numbers.pack(record), numbers.number(HEIR), born, {}
    ((pieces, since),) = carry.move([item], author, seq, field, numbers.field_bytes, numbers.author_bytes)
    assert pieces == [(numbers.pack(piece), len(model.live_dots(piece)), lowest(piece)) for piece in expected]
    assert dict(since) == {numbers.number(name): numbers.pack({name: inc}) for name, inc in edited.items()}
    return pieces, expected, edited


def run_late(numbers, record, sees=None, author=AUTHORS[2], seq=80):
    """The same for what comes late."""
    expected = model.follow(record, HEIR, (author, seq), sees or {})
    some = {numbers.address(at): {numbers.dot(dot) for dot in dots} for at, dots in (sees or {}).items()}
    item = numbers.pack(record), numbers.number(HEIR), some
    arguments = numbers.authors.index(author), seq, numbers.field_bytes, numbers.author_bytes
    (pieces,) = carry.follow([item], *arguments)
    assert pieces == [(numbers.pack(piece), len(model.live_dots(piece)), lowest(piece)) for piece in expected]
    return pieces, expected


def merged(pieces):
    """What the kernel that merges makes of packed pieces."""
    packed = tuple(piece for piece, *_ in pieces)
    return merge.merge([((), packed, (), RECORD)], KEY, FIELD_BYTES, AUTHOR_BYTES)


EDITED = HEIR.author, HEIR.seq + 1  # the change that has what was edited


def some_seen(record, chance):
    """Dots at some addresses: of what was edited and moved, and others."""
    every = sorted({cell.address for inc in record.values() for cell in inc.cells})
    return {
        at: set(chance.sample([EDITED, (AUTHORS[0], 5), (AUTHORS[0], 7), (AUTHORS[1], 2)], chance.randrange(4)))
        for at in every
        if not at.kind & model.SIDE_BY_SIDE
    }


@given(histories, st.integers(0, 3), times, st.sampled_from([0, 1, WITHOUT, 6, 8]))
def test_a_move_is_the_models(history, at, born, without):
    record = history.replicas[at].record
    for numbers in (NUMBERS, OTHER_NUMBERS):
        run(numbers, record, born, without=without)


@given(histories, st.integers(0, 3), chances, st.sampled_from(AUTHORS))
def test_what_comes_late_is_the_models(history, at, chance, author):
    record = history.replicas[at].record
    sees = some_seen(record, chance)
    for numbers in (NUMBERS, OTHER_NUMBERS):
        run_late(numbers, record, sees, author)


@given(histories, chances, times)
def test_what_was_merged_in_any_order_is_carried(history, chance, born):
    """Records as no replica had them: headless cells, several incarnations, siblings of all kinds."""
    (record,) = history.portions(chance, 1)
    pieces, expected, _ = run(NUMBERS, record, born)
    late, expected_late = run_late(NUMBERS, record, some_seen(record, chance), AUTHORS[0])
    name = canonical.encode([*RECORD])
    for some, models in ((pieces, expected), (late, expected_late)):
        outcomes, digest = merged(some)
        whole = model.merge(*models)
        assert int.from_bytes(digest, "little") == model.digest(whole, name, KEY)
        live, headless, _ = outcomes[0] or (b"", (), ())
        assert live == NUMBERS.pack(model.living(whole))
        assert b"".join(row[3] for row in headless) == (NUMBERS.pack(whole) if some is late else b"")


@given(histories, chances, times)
def test_pieces_are_canonical(history, chance, born):
    """Merging a piece into nothing packs it anew: the same bytes. So it does with what was edited."""
    for replica in history.replicas:
        pieces, _, edited = run(NUMBERS, replica.record, born)
        late, _ = run_late(NUMBERS, replica.record, some_seen(replica.record, chance), AUTHORS[0])
        since = [NUMBERS.pack({name: inc}) for name, inc in edited.items()]
        for piece in [*(piece for piece, *_ in (*pieces, *late)), *since]:
            (outcome,), _ = merged([(piece,)])
            assert piece == (outcome[0] or outcome[1][0][3])


@given(histories, chances, times)
def test_a_moved_record_reads_as_the_one_it_was_carried_from(history, chance, born):
    """All but counters, which are the sums of totals, and the field that is left out."""
    (record,) = history.portions(chance, 1)
    _, expected, _ = run(NUMBERS, record, born)
    after = model.merge(*expected)
    for field, kind in FIELDS:
        if kind & model.PER_AUTHOR or (field, kind) == FIELDS[WITHOUT - 1]:
            assert not model.cells_at(after, field, kind)
        elif kind & model.SIDE_BY_SIDE:
            old, new = (
                sorted((c.address.sub, c.value) for _, c in model.cells_at(some, field, kind))
                for some in (record, after)
            )
            assert new == old or kind & model.HAS_SUB
            assert {sub for sub, _ in new} == {sub for sub, _ in old}
        elif kind & model.HAS_SUB == 0:
            assert model.read(after, field, kind, ...) == model.read(record, field, kind, ...)


@given(histories, histories, chances, times)
def test_what_comes_late_meets_what_moved_as_it_would_have(history, other, chance, born):
    """It replaces what the record was created with, and what had been edited only where it says that it saw that."""
    record = history.replicas[0].record
    _, moved, _ = run(NUMBERS, record, born, without=0)
    sees = some_seen(other.replicas[1].record, chance)
    for author in (AUTHORS[0], HEIR.author):
        _, late = run_late(NUMBERS, other.replicas[1].record, sees, author)
        after = model.merge(*moved, *late)
        for cell in {cell for piece in late for cell in piece[HEIR].cells}:
            if not cell.address.kind & model.SIDE_BY_SIDE:
                edited = {c for piece in moved[1:] for c in piece[HEIR].cells if c.address == cell.address}
                replaced = author == HEIR.author or EDITED in sees.get(cell.address, ())
                beside = {c for c in after[HEIR].cells if c.address == cell.address}
                assert beside == {cell} | (set() if replaced else edited)


def test_a_history_with_everything_has_something_of_each():
    """Else the properties above would hold of little."""
    history = History(EVERYTHING)
    record = model.merge(*(change.piece for change in history.changes))
    kinds = {cell.address.kind for inc in record.values() for cell in inc.cells}
    assert {model.REGISTER, model.COUNTER, model.SET, model.TEXT, 0x40} <= kinds
    assert len(record) > 1
    pieces, _, edited = run(NUMBERS, record, 5)
    assert len(pieces) > 1  # several updates of a text
    assert edited
    run_late(NUMBERS, record)


def test_each_update_of_a_text_takes_a_change_of_its_own_and_a_set_takes_one():
    name = Name(AUTHORS[0], 1, 0)
    texts = [Cell(TEXT, Stamp(100 + i, AUTHORS[i % 4], 5 + i), canonical.encode(f"{i}".encode())) for i in range(40)]
    tags = [
        Cell(Address("tags", model.SET, canonical.encode(i)), Stamp(100, AUTHORS[1], 9), VALUES[4]) for i in range(40)
    ]
    pieces, expected, _ = run(NUMBERS, {name: Incarnation(100, frozenset([*texts, *tags]))}, 1_000)
    assert [cells for _, cells, _ in pieces] == [1 + 1 + 40, *[1] * 39]
    written = [cell for piece in expected for cell in piece[HEIR].cells if cell.address == TEXT]
    assert sorted(cell.stamp.seq for cell in written) == list(range(70, 110))


@given(histories, st.integers(0, 3), times, st.sampled_from(VALUES))
def test_what_goes_as_one_is_as_if_there_were_one(history, at, born, value):
    """In place of all that lives side by side at an address comes one cell, with the creation."""
    record = history.replicas[at].record
    beside = {cell.address for _, inc in record.items() for cell in inc.cells if cell.address.kind == model.TEXT}
    one = {Cell(address, Stamp(1, AUTHORS[0], 1), value) for address in beside}
    first = min(record, default=None)
    others = {name: {cell for cell in inc.cells if cell.address not in beside} for name, inc in record.items()}
    merged = {
        name: Incarnation(inc.time, frozenset(others[name] | one if name == first else others[name]))
        for name, inc in record.items()
    }
    for numbers in (NUMBERS, OTHER_NUMBERS):
        expected, _, edited = run(numbers, merged, born)
        wholes = {numbers.address(address)[0]: value for address in beside}
        item = numbers.pack(record), numbers.number(HEIR), born, wholes
        arguments = numbers.authors.index(HEIR.author), 70, numbers.fields.index(FIELDS[WITHOUT - 1])
        ((pieces, since),) = carry.move([item], *arguments, numbers.field_bytes, numbers.author_bytes)
        assert pieces == expected
        assert dict(since) == {numbers.number(name): numbers.pack({name: inc}) for name, inc in edited.items()}


def test_what_was_created_and_what_was_edited_go_apart():
    """And a record of several incarnations goes as edited: what one was created with the others never saw."""
    name, other = Name(AUTHORS[0], 1, 0), Name(AUTHORS[1], 1, 0)
    created = Cell(PRICE, Stamp(100, AUTHORS[0], 1), VALUES[0])
    edited = Cell(Address("status", model.REGISTER), Stamp(300, AUTHORS[3], 4), VALUES[1])
    one = {name: Incarnation(100, frozenset([created, edited]))}
    pieces, (first, second), since = run(NUMBERS, one, 500, without=0)
    assert [(cells, least) for _, cells, least in pieces] == [(2, 500), (1, 300)]
    assert [cell.address.field for cell in first[HEIR].cells] == ["price"]
    assert [cell.stamp.time for cell in second[HEIR].cells] == [300]
    assert [cell.stamp.dot for cell in since[name].cells] == [(AUTHORS[3], 4)]
    _, (first, second), since = run(NUMBERS, one | {other: Incarnation(90, frozenset())}, 500, without=0)
    assert not first[HEIR].cells
    assert {cell.stamp.time for cell in second[HEIR].cells} == {100, 300}
    assert {cell.stamp.dot for cell in since[name].cells} == {(AUTHORS[0], 1), (AUTHORS[3], 4)}


def test_of_equal_times_the_author_s_bytes_decide_whatever_their_numbers():
    name, other = Name(AUTHORS[0], 1, 0), Name(AUTHORS[1], 1, 0)
    low, high = sorted(AUTHORS)[0], sorted(AUTHORS)[-1]
    record = {
        name: Incarnation(100, frozenset([Cell(PRICE, Stamp(200, low, 9), VALUES[0])])),
        other: Incarnation(100, frozenset([Cell(PRICE, Stamp(200, high, 2), VALUES[1])])),
    }
    for numbers in (NUMBERS, OTHER_NUMBERS):
        _, (_, piece), _ = run(numbers, record, 500)
        assert {cell.value for cell in piece[HEIR].cells} == {VALUES[1]}


def test_a_seen_does_not_come_along():
    """It names changes of the other scope; in its place comes what carried what it names, but for an author's own."""
    seen = model.join([(AUTHORS[1], 5), (AUTHORS[3], 2)])
    record = {
        Name(AUTHORS[0], 1, 0): Incarnation(100, frozenset([Cell(PRICE, Stamp(200, AUTHORS[2], 4), VALUES[0], seen)]))
    }
    _, (_, piece), _ = run(NUMBERS, record, 500)
    assert [cell.seen for cell in piece[HEIR].cells] == [()]
    for author, expected in ((AUTHORS[0], (EDITED,)), (HEIR.author, ())):
        _, (piece,) = run_late(NUMBERS, record, {PRICE: {EDITED}}, author)
        assert [cell.seen for cell in piece[HEIR].cells] == [expected]


def test_late_cells_keep_their_times():
    record = {
        Name(AUTHORS[0], 1, 0): Incarnation(
            None, frozenset(Cell(PRICE, Stamp(time, AUTHORS[n], 4), VALUES[0]) for n, time in enumerate((3, 2**63 - 1)))
        )
    }
    _, (piece,) = run_late(NUMBERS, record)
    assert {cell.stamp.time for cell in piece[HEIR].cells} == {model.TIME_MAX}


def test_nothing_in_nothing_out():
    names = FIELD_BYTES, AUTHOR_BYTES
    assert carry.move([], 1, 1, 0, *names) == []
    assert carry.follow([(b"", (1, 1, 0), {})], 1, 1, *names) == [[]]
    (((piece,), edited),) = carry.move([(b"", (1, 1, 0), 5, {})], 1, 1, 0, *names)
    assert piece == (NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())}), 1, 5)
    assert edited == []
    assert carry.registers(b"", *names) == []
    assert carry.totals([], *names) == []
    assert carry.totals([b""], *names) == [[]]


@given(st.lists(histories, min_size=2, max_size=4), times)
def test_many_records_in_one_call_are_as_many_calls(several, born):
    moves, late, alone, late_alone = [], [], [], []
    for n, history in enumerate(several):
        packed = NUMBERS.pack(history.replicas[0].record)
        moves.append((packed, (3, 70, n), born, {}))
        late.append((packed, (3, 70, n), {(1, b""): {(2, 5)}}))
        alone += carry.move(moves[-1:], 3, 70, WITHOUT, FIELD_BYTES, AUTHOR_BYTES)
        late_alone += carry.follow(late[-1:], 1, 80, FIELD_BYTES, AUTHOR_BYTES)
    assert carry.move(moves, 3, 70, WITHOUT, FIELD_BYTES, AUTHOR_BYTES) == alone
    assert carry.follow(late, 1, 80, FIELD_BYTES, AUTHOR_BYTES) == late_alone


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


@given(histories, chances)
def test_registers_are_all_cells_of_which_the_topmost_is_read(history, chance):
    (record,) = history.portions(chance, 1)
    for numbers in (NUMBERS, OTHER_NUMBERS):
        expected = sorted(
            (
                *numbers.address(cell.address),
                numbers.dot(cell.stamp.dot),
                cell.value,
                tuple(sorted(map(numbers.dot, cell.seen))),
            )
            for inc in record.values()
            for cell in inc.cells
            if not cell.address.kind & (model.PER_AUTHOR | model.SIDE_BY_SIDE)
        )
        assert sorted(carry.registers(numbers.pack(record), numbers.field_bytes, numbers.author_bytes)) == expected


@given(histories, chances)
def test_stripped_registers_are_the_models(history, chance):
    """They are merged with others of their kind as the cells that they were."""
    (record,) = history.portions(chance, 1)
    for name, inc in record.items():
        expected = model.stripped({name: inc}, [1, 5])
        for numbers in (NUMBERS, OTHER_NUMBERS):
            arguments = numbers.pack({name: inc}), canonical.encode([1, 5]), numbers.field_bytes, numbers.author_bytes
            assert carry.stripped(*arguments) == (numbers.pack(expected) if expected[name].cells else b"")


def test_one_incarnation_is_stripped_at_a_time():
    one = NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())})
    for packed in (b"", one * 2):
        with pytest.raises(ValueError, match="one incarnation"):
            carry.stripped(packed, VALUES[0], FIELD_BYTES, AUTHOR_BYTES)


# Hostile bytes --------------------------------------------------------------------------------------------------------


def test_an_author_that_the_dictionary_does_not_hold_is_refused():
    """Ids are places in the dictionary's bytes: a damaged one must not be read from beyond their end."""
    few = AUTHOR_BYTES[:32]
    sound = NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())})
    far = Cell(PRICE, Stamp(100, AUTHORS[3], 1), VALUES[0])
    for record in ({Name(AUTHORS[3], 1, 0): Incarnation(5, frozenset())}, {HEIR: Incarnation(5, frozenset([far]))}):
        with pytest.raises(ValueError, match="damaged"):
            carry.move([(NUMBERS.pack(record), (1, 1, 0), 5, {})], 1, 1, 0, FIELD_BYTES, few)
        with pytest.raises(ValueError, match="damaged"):
            carry.follow([(NUMBERS.pack(record), (1, 1, 0), {})], 1, 1, FIELD_BYTES, few)
        with pytest.raises(ValueError, match="damaged"):
            carry.registers(NUMBERS.pack(record), FIELD_BYTES, few)
        with pytest.raises(ValueError, match="damaged"):
            carry.totals([NUMBERS.pack(record)], FIELD_BYTES, few)
    with pytest.raises(ValueError, match="author"):
        carry.move([(sound, (1, 1, 0), 5, {})], 4, 1, 0, FIELD_BYTES, few)
    with pytest.raises(ValueError, match="author"):
        carry.follow([(sound, (1, 1, 0), {})], 4, 1, FIELD_BYTES, few)


def test_a_truncated_record_is_refused_at_every_byte():
    record = model.merge(*(change.piece for change in History(EVERYTHING).changes))
    whole = NUMBERS.pack(record)
    ends = {
        0,
        *(len(NUMBERS.pack(dict(sorted(record.items(), key=lambda i: NUMBERS.number(i[0]))[:n]))) for n in range(9)),
    }
    for size in set(range(len(whole))) - ends:
        with pytest.raises(ValueError):
            every_kernel(whole[:size])


def every_kernel(packed):
    """All take it or all refuse it, with a ValueError."""
    errors = []
    names = FIELD_BYTES, AUTHOR_BYTES
    for call in (
        lambda: carry.move([(packed, (1, 1, 0), 5, {TEXT_NUMBER: b"x"})], 1, 1, WITHOUT, *names),
        lambda: carry.follow([(packed, (1, 1, 0), {(1, b""): {(2, 5)}})], 2, 1, *names),
        lambda: carry.registers(packed, *names),
        lambda: carry.totals([packed], *names),
    ):
        try:
            call()
        except ValueError as error:
            errors.append(error)
    assert len(errors) in (0, 4)
    if errors:
        raise errors[0]


def test_a_record_altered_at_any_byte_is_carried_or_refused():
    whole = bytearray(NUMBERS.pack(model.merge(*(change.piece for change in History(EVERYTHING).changes))))
    taken = 0
    for at in range(len(whole)):
        for byte in EVERY_BYTE:
            altered = bytes(whole[:at]) + bytes([byte]) + bytes(whole[at + 1 :])
            try:
                every_kernel(altered)
            except ValueError:
                continue
            taken += 1
    assert taken > 0


@given(st.binary(max_size=60))
def test_any_bytes_are_carried_or_refused(raw):
    with suppress(ValueError):
        every_kernel(raw)
