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
    VALUES,
    History,
    histories,
)
from tests.model import Address, Cell, Incarnation, Name, Removal, Stamp

from fieldsync._native import chunk_decode, chunk_encode, merge, read

MANY = 1 << 20
COLLECTIONS = 4
chances = st.integers(0, 2**32).map(random.Random)


def other_key(record):
    """The same under a second key, as if each change had made every incarnation twice."""
    return {name._replace(n=name.n + 100): inc for name, inc in record.items()}


def removal_elsewhere(removal):
    return model.replace(removal, name=removal.name._replace(n=removal.name.n + 100))


def given_change(numbers, change, records):
    """A change as encode takes it: the records it wrote to, as they are held now."""
    blobs = []
    for name, record in records:
        dead = [{inc: record[inc]} for inc in sorted(record, key=numbers.number) if record[inc].time is None]
        blobs += [(numbers.pack(some), name) for some in (model.living(record), *dead) if some]
    removals = [numbers.removal(removal) for removal in change.removals + list(map(removal_elsewhere, change.removals))]
    author, seq = numbers.dot(change.dot)
    return author, seq, change.time, len(removals), 2 * change.parts, blobs, removals


def taken_change(giver, taker, change, records):
    """What decode has to make of it: what of those records the change wrote, under the taker's numbers."""
    pieces = []
    for name, record in records:
        dead = [{inc: record[inc]} for inc in sorted(record, key=giver.number) if record[inc].time is None]
        for some in (model.living(record), *dead):
            mine = model.only(some, change.dot)
            for inc in sorted(mine, key=giver.number):
                named = mine[inc].time is not None or some[inc].time is None
                packed = taker.pack({inc: mine[inc]})
                pieces.append((*taker.number(inc), name if named else None, packed))
    removals = [taker.removal(removal) for removal in change.removals + list(map(removal_elsewhere, change.removals))]
    received = sum(len(model.live_dots(model.only(record, change.dot))) for _, record in records) + len(removals)
    author, seq = taker.dot(change.dot)
    return author, seq, change.time, len(removals), 2 * change.parts, pieces, removals, received


def held_by_all(history):
    record = model.remove(model.merge(*(one.record for one in history.replicas)), history.removals)
    return [((3, "o-17"), record), ((0, "größer"), other_key(record))]


def encode(numbers, changes):
    """Streams, and what the chunk's numbers for authors and fields stand for."""
    streams, authors, fields = chunk_encode.encode(changes, numbers.field_bytes, len(numbers.authors))
    return streams, [numbers.authors[i] for i in authors], [numbers.fields[i] for i in fields]


def decode(numbers, count, streams, authors, fields, pieces_max=MANY):
    author_ids = [numbers.authors.index(author) for author in authors]
    field_ids = [numbers.fields.index(field) for field in fields]
    return chunk_decode.decode(streams, count, author_ids, field_ids, COLLECTIONS, pieces_max, numbers.field_bytes)


def given_again(taken):
    """A change that was taken, as it is given on."""
    *head, pieces, removals, _ = taken
    return (*head, [(packed, name) for *_, name, packed in pieces], removals)


@given(histories, chances)
def test_changes_come_through_under_other_numbers(history, chance):
    records = held_by_all(history)
    changes = chance.sample(history.changes, chance.randint(0, len(history.changes)))
    encoded = encode(NUMBERS, [given_change(NUMBERS, change, records) for change in changes])
    taken = decode(OTHER_NUMBERS, len(changes), *encoded)
    assert taken == [taken_change(NUMBERS, OTHER_NUMBERS, change, records) for change in changes]
    again = encode(OTHER_NUMBERS, [given_again(change) for change in taken])
    assert decode(NUMBERS, len(changes), *again) == decode(NUMBERS, len(changes), *encoded)


@given(histories, chances)
def test_what_went_through_chunks_merges_to_the_record(history, chance):
    """Each change as it was made, in any order: the taker ends with the model's record and digest."""
    changes = chance.sample(history.changes, len(history.changes))
    parts = [given_change(NUMBERS, change, [((0, "key"), change.piece)]) for change in changes]
    taken = decode(OTHER_NUMBERS, len(changes), *encode(NUMBERS, parts))
    pieces = tuple(packed for change in taken for *_, packed in change[5])
    removals = tuple(removal for change in taken for removal in change[6])
    item = (), pieces, removals, ("orders", "o-17")
    outcomes, digest = merge.merge([item], KEY, OTHER_NUMBERS.field_bytes, OTHER_NUMBERS.author_bytes)
    record = model.remove(model.merge(*(change.piece for change in changes)), history.removals)
    assert int.from_bytes(digest, "little") == model.digest(record, canonical.encode(["orders", "o-17"]), KEY)
    assert (outcomes[0][0] if outcomes[0] else b"") == OTHER_NUMBERS.pack(model.living(record))


@given(histories)
def test_a_whole_change_is_received_whole(history):
    parts = [given_change(NUMBERS, change, [((0, "key"), change.piece)]) for change in history.changes]
    for change, taken in zip(history.changes, decode(NUMBERS, len(parts), *encode(NUMBERS, parts)), strict=True):
        assert taken[7] == change.parts + len(change.removals)


def test_no_more_pieces_than_allowed():
    history = History(EVERYTHING)
    records = held_by_all(history)
    changes = [given_change(NUMBERS, change, records) for change in history.changes]
    encoded = encode(NUMBERS, changes)
    taken = decode(NUMBERS, len(changes), *encoded)
    count = sum(len(change[5]) + len(change[6]) for change in taken)
    assert decode(NUMBERS, len(changes), *encoded, pieces_max=count) == taken
    for fewer in (count - 1, 1, 0):
        with pytest.raises(ValueError, match="malformed"):
            decode(NUMBERS, len(changes), *encoded, pieces_max=fewer)


# Bytes from outside ---------------------------------------------------------------------------------------------------


def sample_chunk():
    history = History(EVERYTHING)
    record = model.remove(model.merge(*(one.record for one in history.replicas)), history.removals)
    every = [given_change(NUMBERS, change, [((3, "o-17"), record)]) for change in history.changes]
    live = set(model.live_dots(record))
    changes = [g for g, change in zip(every, history.changes, strict=True) if change.removals or change.dot in live]
    return (len(changes), *encode(NUMBERS, changes))


def check_well_formed(count, streams, authors, fields):
    """What is taken can be read, merged, and given on to end as the same; all else is a ValueError."""
    try:
        taken = decode(OTHER_NUMBERS, count, streams, authors, fields)
    except ValueError:
        return False
    field_bytes, author_bytes = OTHER_NUMBERS.field_bytes, OTHER_NUMBERS.author_bytes
    pieces = tuple(packed for change in taken for *_, packed in change[5])
    removals = tuple(removal for change in taken for removal in change[6])
    (outcome,), _ = merge.merge([((), pieces, removals, None)], KEY, field_bytes, author_bytes)
    if outcome:
        read.read_all(outcome[0], field_bytes, author_bytes)
    again = encode(OTHER_NUMBERS, [given_again(change) for change in taken])
    assert decode(OTHER_NUMBERS, count, *again) == taken
    return True


def test_every_truncation_is_refused():
    count, streams, authors, fields = sample_chunk()
    assert check_well_formed(count, streams, authors, fields)
    for i, stream in enumerate(streams):
        for end in range(len(stream)):
            cut = [*streams[:i], stream[:end], *streams[i + 1 :]]
            assert not check_well_formed(count, cut, authors, fields)
        assert not check_well_formed(count, [*streams[:i], stream + b"\0", *streams[i + 1 :]], authors, fields)
    assert not check_well_formed(count - 1, streams, authors, fields)
    assert not check_well_formed(count + 1, streams, authors, fields)


def test_every_other_byte_is_refused_or_well_formed():
    count, streams, authors, fields = sample_chunk()
    for i, stream in enumerate(streams):
        for at in range(len(stream)):
            for byte in EVERY_BYTE:
                other = stream[:at] + bytes([byte]) + stream[at + 1 :]
                check_well_formed(count, [*streams[:i], other, *streams[i + 1 :]], authors, fields)


def test_a_declared_length_costs_nothing():
    """Counts and sizes near every power of two, wherever a number may stand: refused, and no memory asked for."""
    count, streams, authors, fields = sample_chunk()
    for i, stream in enumerate(streams):
        for at in range(len(stream)):
            for huge in (2**16, 2**21, 2**32, 2**40, 2**56, 2**61, 2**63 - 1, 2**64 - 1):
                other = stream[:at] + canonical.varint(huge) + stream[at + 1 :]
                check_well_formed(count, [*streams[:i], other, *streams[i + 1 :]], authors, fields)
    for declared in (2**32, 2**61, 2**64 - 1):
        assert not check_well_formed(declared, streams, authors, fields)


@given(histories, st.data())
def test_damaged_streams_are_refused_or_well_formed(history, data):
    changes = [given_change(NUMBERS, change, held_by_all(history)) for change in history.changes]
    streams, authors, fields = encode(NUMBERS, changes)
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(streams) - 1))
        at = data.draw(st.integers(0, len(streams[i])))
        more = data.draw(st.binary(max_size=3) | st.integers(0, 2**64 - 1).map(canonical.varint))
        streams[i] = streams[i][:at] + more + streams[i][at + data.draw(st.integers(0, 3)) :]
    check_well_formed(len(changes), streams, authors, fields)


@given(st.lists(st.binary(max_size=12), min_size=8, max_size=8), st.integers(0, 3))
def test_arbitrary_streams_are_refused_or_well_formed(streams, count):
    check_well_formed(count, streams, AUTHORS[:2], FIELDS[:2])


# What encode would never make -----------------------------------------------------------------------------------------

A, B, C, D = AUTHORS
NAME = Name(A, 1, 0)
PRICE, TAG, RIGHTS = Address("price", 8), Address("tags", model.SET, VALUES[2]), Address("rights", model.BOUNDED, b"")
OWN = Stamp(100, B, 5)


def refused(piece=None, removal=None, time=100, dot=(B, 5), twice=False):
    """Whether a change with such a piece or removal is refused."""
    blobs = [(NUMBERS.pack(piece), (0, "key"))] * (1 + twice) if piece is not None else []
    items = [(*NUMBERS.number(NAME), removal)] if removal is not None else []
    encoded = encode(NUMBERS, [(*NUMBERS.dot(dot), time, 0, 1, blobs, items)])
    try:
        decode(OTHER_NUMBERS, 1, *encoded)
    except ValueError:
        return True
    return False


def of(*cells, time=None, name=NAME):
    return {name: Incarnation(time, frozenset(cells))}


def test_what_is_implied_must_not_be_written_down():
    assert not refused(of(Cell(PRICE, OWN, VALUES[0], ((C, 4),))))
    assert refused(of(Cell(PRICE, OWN, VALUES[0], ((B, 4),))))
    assert refused(of(Cell(PRICE, OWN, VALUES[0], ((A, 1),))))
    assert not refused(of(Cell(PRICE, OWN, VALUES[0], ((A, 2),))))
    assert not refused(of(Cell(Address("notes", model.TEXT), OWN, VALUES[0], ((A, 1), (B, 4)))))


def test_one_address_has_one_cell_in_a_change():
    two = [Cell(PRICE, OWN, value) for value in VALUES[:2]]
    assert not refused(of(two[0]))
    assert refused(of(*two))
    assert refused(of(*(Cell(TAG, OWN, value) for value in VALUES[:2])))
    assert not refused(of(Cell(RIGHTS, OWN, VALUES[0]), Cell(RIGHTS._replace(sub=b"\0"), OWN, VALUES[0])))
    assert refused(of(two[0]), twice=True)
    assert refused(of(time=100, name=Name(B, 5, 0)), twice=True)


def test_elements_are_values():
    assert not refused(of(Cell(TAG, OWN, VALUES[0])))
    assert refused(of(Cell(TAG._replace(sub=b""), OWN, VALUES[0])))
    assert refused(of(Cell(TAG._replace(sub=VALUES[2] * 2), OWN, VALUES[0])))
    assert refused(of(Cell(TAG._replace(sub=bytes.fromhex("048000000000000000")), OWN, VALUES[0])))
    assert not refused(of(Cell(RIGHTS._replace(sub=b"anything"), OWN, VALUES[0])))


def test_numbers_have_bounds():
    def born(seq=1, n=0, time=100):
        return refused(of(time=time, name=Name(A, seq, n)), dot=(A, seq), time=time)

    assert not born(seq=2**63 - 2, n=2**32 - 1, time=2**63 - 1)
    assert born(seq=2**63 - 1)
    assert born(seq=0)
    assert born(n=2**32)
    assert born(time=2**63)
    assert not refused(of(Cell(PRICE, Stamp(2**63 - 1, B, 5), VALUES[0])))
    assert refused(of(Cell(PRICE, Stamp(99, B, 5), VALUES[0])))
    assert refused(of(Cell(PRICE, OWN, VALUES[0], ((C, 0),))))
    assert refused(of(Cell(PRICE, OWN, VALUES[0], ((C, 2**63 - 1),))))


def test_a_piece_has_no_more_cells_than_fit_a_change():
    """What a cell takes in memory is many times what it takes in a chunk."""
    addresses_max = 1 << 19
    for count in (addresses_max, addresses_max + 1):
        cells = b"".join(bytes([5, 0, 4]) + i.to_bytes(4, "big") + b"\0" for i in range(count))
        packed = canonical.sized(bytes([0, 1, 1, 0, 1, 2, 5, 0]) + cells)
        field_bytes = model.Numbers.of(AUTHORS, [*FIELDS[:4], ("tags", 0x43)]).field_bytes
        streams, _, fields = chunk_encode.encode([(2, 5, 0, 0, 1, [(packed, None)], [])], field_bytes, 5)
        if count == addresses_max:
            assert chunk_decode.decode(streams, 1, [2, 1], fields, 1, MANY, field_bytes)[0][7] == count
        else:
            with pytest.raises(ValueError, match="malformed"):
                chunk_decode.decode(streams, 1, [2, 1], fields, 1, MANY, field_bytes)


def removal_bytes(flags=1, count=1, field=1, vector=((2, 4),), exact=(), times=1):
    def dots(pairs):
        return canonical.varint(len(pairs)) + b"".join(canonical.varint(a) + canonical.varint(s) for a, s in pairs)

    return bytes([flags]) + canonical.varint(count) + (canonical.varint(field) + dots(vector) + dots(exact)) * times


def test_removals_have_one_form():
    assert not refused(removal=removal_bytes())
    assert not refused(removal=bytes([1, 0]))
    assert refused(removal=bytes([0, 0]))
    assert refused(removal=removal_bytes(flags=2))
    assert refused(removal=removal_bytes(vector=()))
    assert refused(removal=removal_bytes(count=2, times=2))
    assert refused(removal=removal_bytes(vector=((2, 4), (2, 5))))
    assert not refused(removal=removal_bytes(vector=(), exact=((2, 4), (2, 5))))
    assert refused(removal=removal_bytes(vector=(), exact=((2, 4), (2, 4))))
    assert refused(removal=removal_bytes(vector=((2, 0),)))
    assert refused(removal=removal_bytes(vector=((2, 2**63 - 1),)))


def test_a_change_writes_or_removes():
    assert refused(of(Cell(PRICE, OWN, VALUES[0])), removal_bytes())


def test_incarnations_are_named_in_one_way():
    """The next of its own change, another of its own change, one of another change: each is the only way to say it."""
    field_bytes = NUMBERS.field_bytes
    born = [NUMBERS.pack(of(time=100, name=Name(A, 1, n))) for n in (0, 7)]
    blobs = [(packed, (0, "key")) for packed in born]
    streams, authors, fields = chunk_encode.encode([(1, 1, 100, 0, 2, blobs, [])], field_bytes, 5)
    assert streams[1] == bytes([0, 3, 1, 7, 3])

    def taken(pieces):
        return chunk_decode.decode([streams[0], pieces, *streams[2:]], 1, authors, fields, 1, MANY, field_bytes)

    assert len(taken(streams[1])[0][5]) == 2
    for pieces in ([1, 0, 3, 1, 7, 3], [0, 3, 2, 2, 7, 3], [0, 3, 3, 2, 7, 3], [0, 3, 1, 0, 3]):
        with pytest.raises(ValueError, match="malformed"):
            taken(bytes(pieces))


def test_what_encode_is_given_has_to_be_whole():
    field_bytes, count = NUMBERS.field_bytes, len(NUMBERS.authors)
    packed = NUMBERS.pack(of(Cell(PRICE, Stamp(100, D, 5), VALUES[0])))
    with pytest.raises(ValueError, match="damaged"):
        chunk_encode.encode([(1, 5, 100, 0, 1, [(packed[:-1], None)], [])], field_bytes, count)
    with pytest.raises(ValueError, match="damaged"):
        chunk_encode.encode([(1, 5, 100, 0, 1, [(packed, None)], [])], field_bytes, count - 1)
    with pytest.raises(ValueError, match="author"):
        chunk_encode.encode([(count, 5, 100, 0, 1, [], [])], field_bytes, count)
    for item in (b"", b"\1", b"\1\1", b"\1\1\1", removal_bytes() + b"\0", removal_bytes(field=99)):
        with pytest.raises(ValueError, match="damaged"):
            chunk_encode.encode([(1, 5, 100, 0, 1, [], [(1, 1, 0, item)])], field_bytes, count)
    with pytest.raises(ValueError, match="author"):
        chunk_encode.encode([(1, 5, 100, 0, 1, [], [(1, 1, 0, removal_bytes(vector=((99, 1),)))])], field_bytes, count)


def test_what_decode_is_given_has_to_fit():
    for streams, fields in (([b""] * 5, []), ([b""] * 6, [1]), ([b""] * 7, [99]), ([b""] * 7, [0])):
        with pytest.raises(ValueError, match=r"streams|field"):
            chunk_decode.decode(streams, 0, [1], fields, 1, MANY, NUMBERS.field_bytes)
    assert chunk_decode.decode([b""] * 6, 0, [], [], 0, 0, NUMBERS.field_bytes) == []


def test_a_removal_with_no_own_dot_named():
    """References of removals to the change's own author are written in full, near the one before in little."""
    removals = [Removal(NAME._replace(n=n), True, {}) for n in range(50)]
    items = [NUMBERS.removal(removal) for removal in removals]
    encoded = encode(NUMBERS, [(*NUMBERS.dot((A, 2)), 100, 2, 50, [], items)])
    (taken,) = decode(OTHER_NUMBERS, 1, *encoded)
    assert taken[6] == [OTHER_NUMBERS.removal(removal) for removal in removals]
    assert len(encoded[0][5]) <= 50 * 5 + 3
