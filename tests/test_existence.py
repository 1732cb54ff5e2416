"""Existence: which cells are compared under which items, and what a giver that forgot removals has no more."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import canonical, model
from tests.histories import AUTHORS, EVERYTHING, FIELDS, KEY, NUMBERS, OTHER_NUMBERS, RECORD, VALUES, History, histories
from tests.model import Address, Cell, Incarnation, Name, Stamp

from fieldsync._native import existence, merge
from fieldsync._native import removals as removals_kernel

ALL = 2**64 - 1
EXISTENCE = Address("", model.EXISTENCE)
AUTHOR_BYTES, FIELD_BYTES = NUMBERS.author_bytes, NUMBERS.field_bytes
EVERY_DOT = {(author, seq) for author in AUTHORS for seq in range(1, 60)}
chances = st.integers(0, 2**32).map(random.Random)
numbers = st.integers(0, 7)
steps = st.lists(st.tuples(numbers, st.integers(0, 99), numbers, numbers), min_size=10, max_size=40)


# The model ------------------------------------------------------------------------------------------------------------


def cids(record):
    """What names the cells of a record everywhere: incarnation, address, dot."""
    alive = {(name, EXISTENCE, name.dot) for name in model.living(record)}
    return alive | {(name, cell.address, cell.stamp.dot) for name, inc in record.items() for cell in inc.cells}


def item(cid):
    """Its 64 bits under KEY."""
    name, (field, kind, sub), dot = cid
    data = struct.pack(">8sQQ8sQB", *name, *dot, kind)
    if kind != model.EXISTENCE:
        data += canonical.sized(field.encode()) + sub
    return canonical.siphash(KEY, data) & ALL


def is_listed(record, cid, compared):
    """Whether a cell is compared by itself: registers of what is seen to live at both sides are not."""
    name, address, dot = cid
    beside = address.kind & model.SIDE_BY_SIDE or address == EXISTENCE
    return dot in compared and (beside or record[name].time is None or name.dot not in compared)


def items(record, compared):
    return row(item(cid) for cid in cids(record) if is_listed(record, cid, compared))


def row(numbers):
    """A set of items as the kernel has it."""
    return b"".join(number.to_bytes(8, "big") for number in sorted(set(numbers)))


def drop(record, compared, alive):
    """What is left of a record when what is compared and not among the cells alive goes: causal_model's `existence`."""
    out = {}
    for name, inc in record.items():
        killed = inc.time is not None and name.dot in compared and (name, EXISTENCE, name.dot) not in alive
        time = None if killed else inc.time
        gone = {
            cell
            for cell in inc.cells
            if (cell.address.kind & model.SIDE_BY_SIDE or time is None)
            and cell.stamp.dot in compared
            and (name, cell.address, cell.stamp.dot) not in alive
        }
        if time is not None or inc.cells - gone:
            out[name] = Incarnation(time, inc.cells - gone)
    return out


# The kernel -----------------------------------------------------------------------------------------------------------


def intervals(numbers, compared):
    return sorted((numbers.authors.index(author), low, high) for author, low, high in model.intervals(compared))


def parts(numbers, record):
    """How an engine holds a record: what is alive in one piece, each of the other incarnations by itself."""
    dead = [{name: inc} for name, inc in record.items() if inc.time is None]
    return [numbers.pack(some) for some in (model.living(record), *dead) if some]


def kernel_items(numbers, record, compared):
    found = existence.items(
        parts(numbers, record), KEY, intervals(numbers, compared), numbers.field_bytes, numbers.author_bytes
    )
    return existence.ordered(found)


def kernel_gone(numbers, record, compared, alive):
    """The removals of each part of a record."""
    dictionary = numbers.field_bytes, numbers.author_bytes
    return existence.gone(parts(numbers, record), KEY, intervals(numbers, compared), alive, *dictionary)


def without(numbers, record, removals):
    """What the merge kernel leaves of a record's parts, packed."""
    dictionary = numbers.field_bytes, numbers.author_bytes
    left = []
    for part, some in zip(parts(numbers, record), removals, strict=True):
        (outcome,), _ = merge.merge([((part,), (), some, RECORD)], KEY, *dictionary)
        assert (outcome is None) == (not some)  # what is said to be gone was there
        left += [part] if outcome is None else [outcome[0], *(packed for *_, packed in outcome[1])]
    return sorted(part for part in left if part)


def check(record, compared, alive_record):
    """Both kernels against the model, under the numbers of two files."""
    alive = kernel_items(NUMBERS, alive_record, compared)
    assert alive == items(alive_record, compared)
    expected = drop(record, compared, cids(alive_record))
    for numbers in (NUMBERS, OTHER_NUMBERS):
        removals = kernel_gone(numbers, record, compared, alive)
        assert without(numbers, record, removals) == sorted(parts(numbers, expected))
    return expected


# Items ----------------------------------------------------------------------------------------------------------------


@given(histories, chances)
def test_items_are_those_of_the_removable_cells_that_are_compared(history, chance):
    (record,) = history.portions(chance, 1)
    known = sorted({dot for _, _, dot in cids(record)})
    compared = set(chance.sample(known, chance.randint(0, len(known))))
    for numbers in (NUMBERS, OTHER_NUMBERS):  # and so do not depend on a file's numbers
        assert kernel_items(numbers, record, compared) == items(record, compared)
        assert kernel_items(numbers, record, EVERY_DOT) == items(record, EVERY_DOT)
        assert kernel_items(numbers, record, set()) == b""


def test_a_cell_has_one_item():
    """Of all cells of a history with some of everything, none has the item of another."""
    every = set().union(*(cids(change.piece) for change in History(EVERYTHING).changes))
    assert len({item(cid) for cid in every}) == len(every) > 50


def test_which_cells_have_items():
    """Of a record that lives: its existence, elements and texts. Of one that does not: all cells."""
    name, stamp = Name(AUTHORS[0], 1, 0), Stamp(100, AUTHORS[1], 1)
    subs = [Address(*pair, VALUES[0] if pair[1] & model.HAS_SUB else b"") for pair in FIELDS]
    cells = frozenset(Cell(address, stamp, VALUES[0]) for address in subs)
    beside = [address for address in subs if address.kind & model.SIDE_BY_SIDE]
    assert [address.field for address in beside] == ["tags", "notes", "new tags", "new own"]
    alive, headless = {name: Incarnation(50, cells)}, {name: Incarnation(None, cells)}
    dot = stamp.dot
    for numbers in (NUMBERS, OTHER_NUMBERS):
        both = row(item((name, address, d)) for address, d in [(EXISTENCE, name.dot), *((a, dot) for a in beside)])
        assert kernel_items(numbers, alive, {name.dot, dot}) == both
        assert kernel_items(numbers, alive, {name.dot}) == row([item((name, EXISTENCE, name.dot))])
        every = row(item((name, address, dot)) for address in subs)
        assert kernel_items(numbers, headless, {name.dot, dot}) == every
        assert kernel_items(numbers, headless, {dot}) == every
        assert kernel_items(numbers, headless, {name.dot}) == b""


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
def test_what_is_compared_is_found_at_the_ends_of_intervals(ours, theirs):
    compared = {(AUTHORS[0], seq) for seq in ours} | {(AUTHORS[2], seq) for seq in theirs}
    every = {Name(author, seq, 0): Incarnation(7, frozenset()) for author in AUTHORS[:3] for seq in range(1, 42)}
    for numbers in (NUMBERS, OTHER_NUMBERS):
        assert kernel_items(numbers, every, compared) == items(every, compared)


@given(st.lists(st.integers(0, ALL) | st.integers(0, 5), max_size=50))
def test_a_set_of_items_is_ordered_and_has_each_once(numbers):
    unordered = b"".join(number.to_bytes(8, "big") for number in numbers)
    assert existence.ordered(unordered) == row(numbers)


# What is gone ---------------------------------------------------------------------------------------------------------


def trimmed(replica, changes, chance):
    """The removals that a replica has not forgotten, of those that it may forget by trimming's guard."""
    kept = []
    for change in changes:
        sights = [sight for removal in change.removals for sight in removal.seen.values()]
        whole = [change.dot, *(dot for vector, _ in sights for dot in vector)]
        single = {removal.name.dot for removal in change.removals} | {dot for _, exact in sights for dot in exact}
        is_known = all(dot in replica.context and replica.knows_all_before(dot) for dot in whole)
        if change.dot in replica.context and (not is_known or not single <= replica.context or chance.random() < 0.3):
            kept += change.removals
    return kept


def streamed(record, declared):
    """What a giver sends: all that a taker has not declared."""
    out = {}
    for name, inc in record.items():
        cells = frozenset(cell for cell in inc.cells if cell.stamp.dot not in declared)
        time = None if name.dot in declared else inc.time
        if cells or time is not None:
            out[name] = Incarnation(time, cells)
    return out


class DueHistory(History):
    """Edits are dismissed only where their record is known to be dead, and not where it is only to come."""

    def commit(self, one, piece, removals):
        if all(removal.kills or removal.name.dot in one.context for removal in removals):
            super().commit(one, piece, removals)


@given(steps.map(DueHistory), chances)
def test_what_trimmed_removals_took_is_found(history, chance):
    """Both have forgotten removals; comparing what lives leaves the taker as if it had held all of them."""
    giver, taker = chance.sample(history.replicas, 2)
    removals = trimmed(giver, history.changes, chance) + trimmed(taker, history.changes, chance)
    received = model.remove(model.merge(taker.record, streamed(giver.record, taker.context)), removals)
    left = check(received, giver.context & taker.context, giver.record)
    every = giver.removals + taker.removals
    assert left == model.remove(model.merge(giver.record, taker.record), every)


@given(histories, chances)
def test_what_lives_at_the_giver_stays(history, chance):
    """Whatever is compared, a replica that asks one with the same cells drops nothing."""
    (record,) = history.portions(chance, 1)
    known = sorted({dot for _, _, dot in cids(record)} | {name.dot for name in record})
    assert check(record, set(chance.sample(known, chance.randint(0, len(known)))), record) == record


@given(histories)
def test_all_goes_where_the_giver_has_nothing(history):
    record = model.merge(*(replica.record for replica in history.replicas))
    assert check(record, EVERY_DOT, {}) == {}
    assert check(record, set(), {}) == record


A, B = (AUTHORS[0], 1), (AUTHORS[1], 1)
NAME = Name(*A, 0)
PRICE, TAG = Address("price", model.REGISTER), Address("tags", model.SET, VALUES[0])
BORN = Cell(PRICE, Stamp(100, *A), VALUES[0])
EDIT, ELEMENT = Cell(PRICE, Stamp(200, *B), VALUES[1]), Cell(TAG, Stamp(200, *B), VALUES[1])
ALIVE, DEAD = Incarnation(100, frozenset([EDIT, ELEMENT])), Incarnation(None, frozenset([EDIT, ELEMENT]))


@pytest.mark.parametrize(
    ("here", "compared", "there", "left"),
    [
        (Incarnation(100, frozenset([BORN])), {A}, None, None),
        (ALIVE, {A}, None, DEAD),  # edits that the giver does not know stay, without their record
        (ALIVE, {A, B}, None, None),
        (ALIVE, {B}, None, Incarnation(100, frozenset([EDIT]))),  # the record is not the giver's to miss: seen settles
        (ALIVE, {A, B}, DEAD, DEAD),
        (ALIVE, {A, B}, Incarnation(None, frozenset([EDIT])), Incarnation(None, frozenset([EDIT]))),
        (ALIVE, {A, B}, Incarnation(100, frozenset([EDIT])), Incarnation(100, frozenset([EDIT]))),
        (DEAD, {A, B}, ALIVE, DEAD),  # removed here, unseen by the giver
        (DEAD, {B}, ALIVE, DEAD),  # the same, where the creation never came here
        (DEAD, {A, B}, None, None),
        (DEAD, {A}, None, DEAD),
    ],
)
def test_dead_here_and_alive_there(here, compared, there, left):
    expected = {NAME: left} if left else {}
    assert check({NAME: here}, compared, {NAME: there} if there else {}) == expected


def test_of_several_incarnations_only_those_that_died_go():
    other = Name(*B, 3)
    both = {NAME: ALIVE, other: Incarnation(300, frozenset([BORN]))}
    assert check(both, {A, B}, {NAME: ALIVE}) == {NAME: ALIVE}
    assert check(both, {A}, {NAME: ALIVE}) == both


def test_a_registers_that_live_are_never_said_to_be_gone():
    """Of a record that lives at both sides, seen settles registers; they travel in the stream."""
    other = Incarnation(100, frozenset([BORN, ELEMENT]))
    assert check({NAME: ALIVE}, {A, B}, {NAME: other}) == {NAME: ALIVE}


def test_no_records_no_removals():
    assert existence.items([], KEY, [], FIELD_BYTES, AUTHOR_BYTES) == b""
    assert existence.items([b""], KEY, [], FIELD_BYTES, AUTHOR_BYTES) == b""
    assert existence.gone([], KEY, [], b"", FIELD_BYTES, AUTHOR_BYTES) == []
    assert existence.gone([b"", b""], KEY, [], b"", FIELD_BYTES, AUTHOR_BYTES) == [(), ()]
    assert existence.ordered(b"") == b""


# What removals name ---------------------------------------------------------------------------------------------------


@given(histories, chances)
def test_what_removals_name(history, chance):
    removals = chance.sample(history.removals, chance.randint(0, len(history.removals)))
    sights = [sight for removal in removals for sight in removal.seen.values()]
    highest = model.join(*(vector for vector, _ in sights))
    single = {dot for _, exact in sights for dot in exact} | {removal.name.dot for removal in removals}
    for numbers in (NUMBERS, OTHER_NUMBERS):
        found = removals_kernel.named([numbers.removal(removal) for removal in removals], numbers.field_bytes)
        assert found == (sorted(map(numbers.dot, highest)), sorted(map(numbers.dot, single)))


# Bytes that are wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_key_has_16_bytes(size):
    with pytest.raises(ValueError, match="16"):
        existence.items([], bytes(size), [], FIELD_BYTES, AUTHOR_BYTES)
    with pytest.raises(ValueError, match="16"):
        existence.gone([], bytes(size), [], b"", FIELD_BYTES, AUTHOR_BYTES)


@pytest.mark.parametrize(
    "wrong", [[(5, 1, 1)], [(ALL, 1, 1)], [(2, 1, 1), (1, 1, 1)], [(4, 1, 1), (0, 1, 1)], [(1, 2)], [(1, 2, 3, 4)]]
)
def test_intervals_are_of_known_authors_and_ascend(wrong):
    with pytest.raises(ValueError):
        existence.items([], KEY, wrong, FIELD_BYTES, AUTHOR_BYTES)
    with pytest.raises(ValueError):
        existence.gone([], KEY, wrong, b"", FIELD_BYTES, AUTHOR_BYTES)


def test_an_author_that_the_dictionary_does_not_hold_is_refused():
    """Ids are places in the dictionary's bytes: a damaged one must not be read from beyond their end."""
    far = Cell(PRICE, Stamp(100, AUTHORS[3], 1), VALUES[0])
    for record in ({Name(AUTHORS[3], 1, 0): Incarnation(5, frozenset())}, {NAME: Incarnation(5, frozenset([far]))}):
        packed = [NUMBERS.pack(record)]
        with pytest.raises(ValueError, match="damaged"):
            existence.items(packed, KEY, [(1, 1, 9)], FIELD_BYTES, AUTHOR_BYTES[:32])
        with pytest.raises(ValueError, match="damaged"):
            existence.gone(packed, KEY, [(1, 1, 9)], b"", FIELD_BYTES, AUTHOR_BYTES[:32])


limits = st.integers(0, 70) | st.integers(0, ALL)


@given(histories, chances, st.lists(st.tuples(st.integers(0, 4), limits, limits)), st.binary(max_size=70))
def test_intervals_and_items_of_any_kind_do_no_harm(history, chance, some, alive):
    (record,) = history.portions(chance, 1)
    packed = parts(NUMBERS, record)
    some.sort(key=lambda interval: interval[0])  # within an author in any order, over each other, from high to low
    found = existence.items(packed, KEY, some, FIELD_BYTES, AUTHOR_BYTES)
    assert len(found) % 8 == 0
    removals = existence.gone(packed, KEY, some, alive, FIELD_BYTES, AUTHOR_BYTES)
    assert len(without(NUMBERS, record, removals)) <= len(packed) + len(record)
    assert len(existence.ordered(alive)) <= len(alive)


@given(histories, chances, st.data())
def test_damaged_records_and_removals_are_read_or_refused(history, chance, data):
    (record,) = history.portions(chance, 1)
    removals = [NUMBERS.removal(removal) for removal in model.removals_of(record)]
    raws = [bytearray(NUMBERS.pack(record)), *(bytearray(removal[3]) for removal in removals)]
    for raw in raws:
        if raw and data.draw(st.booleans()):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.integers(0, 9)) == 9:
            del raw[data.draw(st.integers(0, len(raw))) :]
    compared = intervals(NUMBERS, EVERY_DOT)
    try:
        removals_kernel.named(
            [(*name[:3], bytes(raw)) for name, raw in zip(removals, raws[1:], strict=True)], FIELD_BYTES
        )
        alive = existence.ordered(existence.items([bytes(raws[0])], KEY, compared, FIELD_BYTES, AUTHOR_BYTES))
        for items in (alive, alive[:-8], b""):
            (some,) = existence.gone([bytes(raws[0])], KEY, compared, items, FIELD_BYTES, AUTHOR_BYTES)
            merge.merge([((bytes(raws[0]),), (), some, RECORD)], KEY, FIELD_BYTES, AUTHOR_BYTES)
    except ValueError:
        pass
