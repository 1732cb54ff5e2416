import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import canonical, model
from tests.histories import AUTHORS, FIELDS, KEY, NUMBERS, OTHER_NUMBERS, RECORD, RECORD_NAME, SUBS, VALUES, histories
from tests.model import Address, Cell, Incarnation, Name, Removal, Stamp

from fieldsync._native import fresh, merge, write
from fieldsync._native import removals as removals_kernel

AUTHOR_BYTES, FIELD_BYTES = NUMBERS.author_bytes, NUMBERS.field_bytes
SPARE = Cell(Address("status", model.REGISTER), Stamp(300, AUTHORS[1], 1), VALUES[0])
chances = st.integers(0, 2**32).map(random.Random)


def parts(numbers, record):
    """How an engine holds a record: what is alive in one piece, each of the other incarnations by itself."""
    dead = [{name: inc} for name, inc in record.items() if inc.time is None]
    return tuple(numbers.pack(some) for some in (model.living(record), *dead) if some)


def run(numbers, olds, pieces, removals):
    packed = tuple(numbers.removal(removal) for removal in removals)
    item = olds, tuple(numbers.pack(piece) for piece in pieces), packed, RECORD
    (outcome,), digest = merge.merge([item], KEY, numbers.field_bytes, numbers.author_bytes)
    return outcome, int.from_bytes(digest, "little")


def check(numbers, old, pieces, removals):
    """One call of the kernel against the model: what is left, events, digest."""
    outcome, digest = run(numbers, parts(numbers, old), pieces, removals)
    new = model.remove(model.merge(old, *pieces), removals)
    weight = [model.digest(record, RECORD_NAME, KEY) for record in (new, old)]
    assert digest == (weight[0] - weight[1]) % 2**128
    if outcome is None:
        assert new == old
        return new
    live, headless, events = outcome
    assert new != old
    assert live == numbers.pack(model.living(new))
    dead = [name for name, inc in new.items() if inc.time is None]
    assert sorted(headless) == sorted((*numbers.number(name), numbers.pack({name: new[name]})) for name in dead)
    by_dot = {(numbers.authors[author], seq): by for author, seq, by in events}
    assert len(by_dot) == len(events)
    assert by_dot == model.events(old, new)
    return new


@given(histories, chances)
def test_merging_is_the_models(history, chance):
    old, *pieces = history.portions(chance, chance.randint(1, 4))
    removals = chance.sample(history.removals, chance.randint(0, len(history.removals)))
    for numbers in (NUMBERS, OTHER_NUMBERS):
        check(numbers, old, pieces, removals)


@given(histories, chances)
def test_the_order_of_what_arrives_does_not_matter(history, chance):
    """Commutative and associative, and canonical: other ways to one set of changes end in the same bytes."""
    portions = history.portions(chance, 4)
    ends = set()
    for _ in range(3):
        chance.shuffle(portions)
        at_once, _ = run(NUMBERS, (), portions, [])
        in_turn = ()
        for portion in portions:
            in_turn = as_held(in_turn, run(NUMBERS, in_turn, [portion], [])[0])
        assert in_turn == as_held((), at_once)
        ends.add(in_turn)
    assert ends == {parts_sorted(NUMBERS, model.merge(*portions))}


def as_held(olds, outcome):
    """What is held after an outcome, in the order of the numbers."""
    if outcome is None:
        return olds
    live, headless, _ = outcome
    return tuple(part for part in (live, *(row[3] for row in sorted(headless))) if part)


def parts_sorted(numbers, record):
    dead = sorted((name for name in record if record[name].time is None), key=numbers.number)
    every = (model.living(record), *({name: record[name]} for name in dead))
    return tuple(numbers.pack(some) for some in every if some)


@given(histories, chances)
def test_what_is_here_already_changes_nothing(history, chance):
    (old,) = history.portions(chance, 1)
    held = parts(NUMBERS, old)
    again = [piece for piece in history.portions(chance, 2) if model.merge(old, piece) == old]
    assert run(NUMBERS, held, [old, *again, old], []) == (None, 0)


@given(histories, chances)
def test_removals_and_what_they_remove_come_in_any_order(history, chance):
    """Kept removals are held against all that comes, so that it is the same whether they came before or after."""
    portions = history.portions(chance, 3)
    removals = history.removals
    expected = parts_sorted(NUMBERS, model.remove(model.merge(*portions), removals))
    for _ in range(3):
        chance.shuffle(portions)
        cut = chance.randint(0, len(removals))
        chance.shuffle(removals)
        held, kept = (), []
        for portion, more in zip(portions, (removals[:cut], [], removals[cut:]), strict=True):
            kept += more
            held = as_held(held, run(NUMBERS, held, [portion], kept)[0])
        assert held == expected


@given(histories, chances)
def test_what_was_removed_does_not_come_back(history, chance):
    """A removal of all that one had seen leaves nothing of it, also if parts of it arrive late and by themselves."""
    (seen,) = history.portions(chance, 1)
    removals = removals_kernel.removals(NUMBERS.pack(seen), FIELD_BYTES)
    older = [change.piece for change in history.changes if model.merge(seen, change.piece) == seen]
    chance.shuffle(older)
    held = ()
    for piece in (seen, *older):
        item = held, (NUMBERS.pack(piece),), tuple(removals), RECORD
        (outcome,), _ = merge.merge([item], KEY, FIELD_BYTES, AUTHOR_BYTES)
        held = as_held(held, outcome)
        assert held == ()


@given(histories, st.integers(0, 3), st.sets(st.sampled_from(SUBS)))
def test_removals_at_addresses_are_the_models(history, at, some):
    record = model.living(history.replicas[at].record)
    wanted = {address for inc in record.values() for address in {c.address for c in inc.cells} if address.sub in some}
    wanted = {address for address in wanted if address.kind == model.SET}
    for numbers in (NUMBERS, OTHER_NUMBERS):
        addresses = {(numbers.fields.index(address[:2]), address.sub) for address in wanted}
        expected = [
            numbers.removal(model.removal_of(name, Incarnation(None, cells)))
            for name, inc in record.items()
            if (cells := frozenset(cell for cell in inc.cells if cell.address in wanted))
        ]
        assert removals_kernel.removals_at(numbers.pack(record), addresses, numbers.field_bytes) == sorted(expected)


@given(histories, st.integers(0, 3))
def test_removals_are_the_models(history, at):
    record = history.replicas[at].record
    for numbers in (NUMBERS, OTHER_NUMBERS):
        expected = [numbers.removal(removal) for removal in model.removals_of(record)]
        assert removals_kernel.removals(numbers.pack(record), numbers.field_bytes) == sorted(expected)


@given(histories)
def test_events_and_digests_add_up(history):
    """From nothing, change by change: the events sum to the live cells of each change, the digests to the record's."""
    held, total, count = (), 0, {}
    for change in history.changes:
        outcome, digest = run(NUMBERS, held, [change.piece], history.removals)
        held = as_held(held, outcome)
        total += digest
        for author, seq, by in outcome[2] if outcome else ():
            count[author, seq] = count.get((author, seq), 0) + by
    record = model.remove(model.merge(*(change.piece for change in history.changes)), history.removals)
    assert total % 2**128 == model.digest(record, RECORD_NAME, KEY)
    assert {dot: n for dot, n in count.items() if n} == {
        NUMBERS.dot(dot): n for dot, n in model.events({}, record).items()
    }


@given(histories, chances)
def test_a_digest_does_not_depend_on_a_files_numbers(history, chance):
    (record,) = history.portions(chance, 1)
    assert run(NUMBERS, (), [record], [])[1] == run(OTHER_NUMBERS, (), [record], [])[1]


@given(st.lists(histories, min_size=2, max_size=4), chances)
def test_many_records_in_one_call_are_as_many_calls(several, chance):
    items, expected, total = [], [], 0
    for history in several:
        old, piece = history.portions(chance, 2)
        outcome, digest = run(NUMBERS, parts(NUMBERS, old), [piece], history.removals)
        packed = tuple(NUMBERS.removal(removal) for removal in history.removals)
        items.append((parts(NUMBERS, old), (NUMBERS.pack(piece),), packed, RECORD))
        expected.append(outcome)
        total += digest
    outcomes, digest = merge.merge(items, KEY, FIELD_BYTES, AUTHOR_BYTES)
    assert outcomes == expected
    assert int.from_bytes(digest, "little") == total % 2**128


@given(st.lists(histories, min_size=1, max_size=3), chances)
def test_edits_of_what_lives_are_merged_as_all_else(several, chance):
    """And nothing else is: nothing that creates, nor what is of other incarnations than the living ones."""
    rows, pieces, items, belong = [], {}, [], []
    for number, history in enumerate(several, 5):
        old, *parts_of = history.portions(chance, 3)
        old, edits = model.living(old), [{n: inc for n, inc in one.items() if inc.time is None} for one in parts_of]
        if not old:
            continue
        belong.append(all(one.keys() <= old.keys() for one in edits))
        rows.append((number, 3, f"key {number}", NUMBERS.pack(old)))
        pieces[number] = tuple(NUMBERS.pack(one) for one in edits)
        items.append(((NUMBERS.pack(old),), pieces[number], (), None))
    found = merge.edit(rows, pieces, 3, KEY, FIELD_BYTES, AUTHOR_BYTES)
    assert (found is not None) == all(belong)
    assert not rows or merge.edit(rows, pieces, 4, KEY, FIELD_BYTES, AUTHOR_BYTES) is None  # another scope's
    if found is None:
        return
    updates, names, events, digest = found
    outcomes, expected = merge.merge(items, KEY, FIELD_BYTES, AUTHOR_BYTES)
    assert digest == expected
    changed = [(row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if outcome is not None]
    assert updates == [(row[0], outcome[0]) for row, outcome in changed]
    assert names == [row[2] for row, _ in changed]
    told = {}
    for row, (_, headless, some) in changed:
        assert not headless
        for author, seq, by in some:
            one = told.setdefault((author, seq), [0, [], []])
            one[0] += by
            one[1 if by > 0 else 2].append(row[0])
    assert events == told


@given(histories, chances)
def test_what_creates_is_no_edit(history, chance):
    (record,) = history.portions(chance, 1)
    if model.living(record):
        packed = NUMBERS.pack(model.living(record))
        assert merge.edit([(1, 1, "k", packed)], {1: (packed,)}, 1, KEY, FIELD_BYTES, AUTHOR_BYTES) is None


@given(histories)
def test_fresh_records_weigh_what_merging_them_gives(history):
    one = [{name: inc} for one in history.replicas for name, inc in model.living(one.record).items()]
    keys = ["größe" * i + str(i) for i in range(len(one))]
    names = [canonical.encode(["orders", key]) for key in keys]
    weight = sum(model.digest(record, name, KEY) for record, name in zip(one, names, strict=True)) % 2**128
    digest = fresh.digest([NUMBERS.pack(record) for record in one], "orders", keys, KEY, FIELD_BYTES, AUTHOR_BYTES)
    assert int.from_bytes(digest, "little") == weight


def test_only_one_live_incarnation_is_fresh():
    dead = NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(None, frozenset([SPARE]))})
    live = NUMBERS.pack({Name(AUTHORS[0], 1, 0): Incarnation(5, frozenset())})
    for packed in (dead, live + live, b""):
        with pytest.raises(ValueError, match="live"):
            fresh.digest([packed], "orders", ["1"], KEY, FIELD_BYTES, AUTHOR_BYTES)
    for keys, key in (([], KEY), (["1"], b"short")):
        with pytest.raises(ValueError, match=r"16|as many"):
            fresh.digest([live], "orders", keys, key, FIELD_BYTES, AUTHOR_BYTES)


# Nobody honest makes these, but two replicas must settle them alike ---------------------------------------------------

dots = st.tuples(st.sampled_from(AUTHORS), st.integers(1, 3))
wild_cells = st.builds(
    lambda pair, sub, dot, time, value, seen: Cell(
        Address(*pair, sub if pair[1] & model.HAS_SUB else b""), Stamp(time, *dot), value, model.join(seen)
    ),
    st.sampled_from(FIELDS),
    st.sampled_from(SUBS),
    dots,
    st.integers(1, 2),
    st.sampled_from(VALUES[:3]),
    st.lists(dots, max_size=2),
)
wild_names = st.builds(Name, st.sampled_from(AUTHORS[:2]), st.integers(1, 2), st.integers(0, 1))
wild_times = st.none() | st.integers(1, 2)
wild_records = st.dictionaries(
    wild_names, st.builds(Incarnation, wild_times, st.frozensets(wild_cells, max_size=6)), max_size=3
).map(lambda record: {n: i for n, i in model.merge(record).items() if i.cells or i.time is not None})


@given(wild_records, wild_records)
def test_any_two_records_merge_to_the_same_on_both_sides(a, b):
    here, _ = run(NUMBERS, parts(NUMBERS, a), [b], [])
    there, _ = run(NUMBERS, parts(NUMBERS, b), [a], [])
    assert as_held(parts_sorted(NUMBERS, a), here) == as_held(parts_sorted(NUMBERS, b), there)
    check(NUMBERS, a, [b], [])
    check(OTHER_NUMBERS, b, [a], [])


vectors = st.lists(dots, max_size=3).map(model.join)
wild_removals = st.builds(
    Removal,
    wild_names,
    st.booleans(),
    st.dictionaries(
        wild_cells.map(lambda cell: cell.address), st.tuples(vectors, st.frozensets(dots, max_size=2)), max_size=4
    ),
)


@given(wild_records, st.lists(wild_removals, max_size=3))
def test_removals_take_away_what_they_name_and_nothing_else(record, removals):
    check(NUMBERS, record, [], removals)
    check(OTHER_NUMBERS, {}, [record], removals)


# Edges ----------------------------------------------------------------------------------------------------------------


def test_one_cell_after_another():
    """A register that two wrote at once shows both, until a third writes having seen them."""
    name = Name(AUTHORS[0], 1, 0)
    born = Stamp(100, *name.dot)
    price = Address("price", model.REGISTER)
    record = {name: Incarnation(100, frozenset([Cell(price, born, canonical.encode(1))]))}
    first = model.write(record, Stamp(110, AUTHORS[1], 1), [("price", 8, 2)], [])
    second = model.write(record, Stamp(120, AUTHORS[2], 1), [("price", 8, 3)], [])
    both = check(NUMBERS, record, [first, second], [])
    assert len(both[name].cells) == 2
    assert model.read(both, "price", 8, None) == 3
    third = model.write(both, Stamp(90, AUTHORS[3], 1), [("price", 8, 4)], [])
    settled = check(NUMBERS, both, [third], [])
    (cell,) = settled[name].cells
    assert cell.stamp.time == 121
    assert cell.seen == model.join([(AUTHORS[1], 1), (AUTHORS[2], 1)])
    assert check(NUMBERS, settled, [first, second], []) == settled


def test_an_edit_that_a_delete_had_not_seen_is_kept():
    name = Name(AUTHORS[0], 1, 0)
    record = {name: Incarnation(100, frozenset([Cell(Address("price", 8), Stamp(100, *name.dot), VALUES[0])]))}
    edit = model.write(record, Stamp(110, AUTHORS[1], 1), [("price", 8, 2)], [])
    outcome, _ = run(NUMBERS, parts(NUMBERS, record), [edit], model.removals_of(record))
    live, headless, _ = outcome
    assert live == b""
    assert headless == ((*NUMBERS.number(name), NUMBERS.pack(edit)),)


def test_many_stamps_and_a_seen_of_many():
    """More than fit on the kernel's stack."""
    authors = [struct.pack(">Q", number * 0x9E3779B97F4A7C15 % 2**64) for number in range(1, 101)]
    numbers = model.Numbers.of(authors, [*FIELDS, *((f"f{i}", 8) for i in range(70))])
    name = Name(authors[0], 1, 0)
    cells = [Cell(Address(f"f{i}", 8), Stamp(100 - i, authors[i], i + 1), VALUES[i % 7]) for i in range(70)]
    seen = model.join([(author, 5) for author in authors[1:60]])
    more = Cell(Address("price", 8), Stamp(1000, authors[80], 9), VALUES[0], seen)
    record = {name: Incarnation(50, frozenset(cells))}
    both = check(numbers, record, [{name: Incarnation(None, frozenset([more]))}], [])
    assert check(numbers, both, [], model.removals_of(both)) == {}


def test_a_removal_with_many_addresses_takes_one_pass():
    """Half a million addresses against as many cells: in time only if both are walked in step."""
    count = 1 << 18
    name = Name(AUTHORS[0], 1, 0)
    packed = write.create(1, 1, 100, [(0, (), ())], FIELD_BYTES)[0]
    cell = bytes([5, 0, 4])  # of the set: stamp 0, an element of 4 bytes
    head = bytes([0, 1, 1, 0, 1, 2, 1, 0])  # headless, (1, 1), n 0; one stamp, (2, 1) at time 0
    cells = b"".join(cell + struct.pack(">I", i) + b"\x00" for i in range(count))
    piece = canonical.sized(head + cells)
    sights = b"".join(bytes([5, 4]) + struct.pack(">I", i) + bytes([0, 1, 2, 1]) for i in range(count))
    item = bytes([0]) + canonical.varint(count) + sights
    removal = (*NUMBERS.number(name), item)
    assert removals_kernel.removals(piece, FIELD_BYTES) == [removal]
    (outcome,), digest = merge.merge([((packed,), (piece,), (removal,), None)], KEY, FIELD_BYTES, AUTHOR_BYTES)
    assert outcome is None
    assert digest == bytes(16)


def test_nothing_in_nothing_out():
    assert merge.merge([], KEY, FIELD_BYTES, AUTHOR_BYTES) == ([], bytes(16))
    assert merge.merge([((), (), (), None)], KEY, FIELD_BYTES, AUTHOR_BYTES) == ([None], bytes(16))
    assert removals_kernel.removals(b"", FIELD_BYTES) == []


def test_a_key_has_16_bytes():
    with pytest.raises(ValueError, match="16"):
        merge.merge([], KEY[:15], FIELD_BYTES, AUTHOR_BYTES)


def test_an_author_that_the_dictionary_does_not_hold_is_refused():
    """Ids are places in the dictionary's bytes: a damaged one must not be read from beyond their end."""
    name = Name(AUTHORS[3], 1, 0)
    cell = Cell(Address("price", 8), Stamp(100, AUTHORS[0], 1), VALUES[0], ((AUTHORS[3], 1),))
    for record in ({name: Incarnation(5, frozenset())}, {Name(AUTHORS[0], 1, 0): Incarnation(None, frozenset([cell]))}):
        packed = NUMBERS.pack(record)
        for olds, pieces in (((packed,), ()), ((), (packed,))):
            with pytest.raises(ValueError, match="damaged"):
                merge.merge([(olds, pieces, (), None)], KEY, FIELD_BYTES, AUTHOR_BYTES[:32])


@given(histories, chances, st.data())
def test_damaged_records_and_removals_are_merged_or_refused(history, chance, data):
    old, piece = history.portions(chance, 2)
    removals = [NUMBERS.removal(removal) for removal in model.removals_of(model.merge(old, piece))]
    raws = [bytearray(NUMBERS.pack(old)), bytearray(NUMBERS.pack(piece)), *(bytearray(r[3]) for r in removals)]
    for raw in raws:
        if raw and data.draw(st.booleans()):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.integers(0, 9)) == 9:
            del raw[data.draw(st.integers(0, len(raw))) :]
    packed = tuple((*removal[:3], bytes(raw)) for removal, raw in zip(removals, raws[2:], strict=True))
    try:
        merge.merge([((bytes(raws[0]),), (bytes(raws[1]),), packed, None)], KEY, FIELD_BYTES, AUTHOR_BYTES)
        merge.edit([(1, 1, "k", bytes(raws[0]))], {1: (bytes(raws[1]),)}, 1, KEY, FIELD_BYTES, AUTHOR_BYTES)
        removals_kernel.removals(bytes(raws[0]), FIELD_BYTES)
    except ValueError:
        pass
