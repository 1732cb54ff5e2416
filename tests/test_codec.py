import datetime as dt
import enum
import math
import struct
from collections import OrderedDict
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import canonical, model
from tests.histories import AUTHORS, EVERY_BYTE, FIELDS, NUMBERS, OTHER_NUMBERS, SUBS, histories
from tests.model import Address, Cell, Incarnation, Name, Stamp

from fieldsync._native import authorship, codec, read, write
from fieldsync._native import removals as removals_kernel
from fieldsync._native.codec import Unknown

AUTHOR_BYTES, FIELD_BYTES = NUMBERS.author_bytes, NUMBERS.field_bytes


def as_column(value):
    """What stands in a column where SQL has no such type."""
    if isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, int | float | str | bytes) else repr(value)


def fits(value):
    """Whether a Decimal's digits are no more than an encoded one may have."""
    return int("".join(map(str, value.as_tuple().digits))) < 2**4096


decimals = st.decimals(allow_nan=False, allow_infinity=False).filter(fits) | st.builds(
    lambda sign, whole, exponent: Decimal((sign, tuple(map(int, str(whole))), exponent)),
    st.integers(0, 1),
    st.integers(0, 2**4096 - 1),
    st.integers(-100_000, 100_000),
)
texts = st.text(max_size=80)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-20, 50)
    | st.floats()
    | decimals
    | texts
    | st.binary(max_size=80)
    | st.dates()
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.builds(Unknown, st.integers(12, 31) | st.integers(160, 255), st.binary(max_size=80))
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=5) | st.dictionaries(texts, v, max_size=5), max_leaves=12)


def same(a, b):
    """Equality that tells 5 from 5.0 and True from 1, and finds NaN equal to itself."""
    if isinstance(a, codec.Updates):
        a = tuple(a)
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    return a == b or (a != a and b != b)


@given(values)
def test_values_have_the_models_bytes_and_come_back_as_they_went_in(value):
    data = codec.encode(value)
    assert data == canonical.encode(value)
    assert same(codec.decode(data), value)
    assert same(canonical.decode(data), value)


@given(values, st.data())
def test_bytes_are_taken_only_if_they_are_what_the_model_encodes(value, data):
    raw = bytearray(canonical.encode(value))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    check_as_the_model(bytes(raw))


@given(st.binary(max_size=12))
def test_arbitrary_bytes_are_taken_only_if_canonical(raw):
    check_as_the_model(raw)


def check_as_the_model(raw):
    try:
        value = canonical.decode(raw)
    except ValueError:
        with pytest.raises(ValueError):
            codec.decode(raw)
    else:
        assert same(codec.decode(raw), value)
        assert codec.encode(value) == raw


def test_every_truncation_and_every_other_byte_is_as_the_model_says():
    value = [None, 5, -300, 1.5, Decimal("-5.00"), "é", "x" * 64, b"ab", dt.date(2024, 2, 29), {"a": True, "b": [1]}]
    raw = codec.encode([*value, dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC), Unknown(31, b"new")])
    for at in range(len(raw)):
        check_as_the_model(raw[:at])
        for byte in EVERY_BYTE:
            check_as_the_model(raw[:at] + bytes([byte]) + raw[at + 1 :])


def test_equal_numbers_of_other_types_are_other_values():
    some = [5, 5.0, Decimal(5), Decimal("5.00"), True, 1, 1.0, False, 0, 0.0, Decimal(0), Decimal("-0"), "5", b"5"]
    assert len({codec.encode(value) for value in some}) == len(some)
    assert all(same(codec.decode(codec.encode(value)), value) for value in some)


def test_one_zero_and_one_nan():
    assert codec.encode(-0.0) == codec.encode(0.0)
    other_nan = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]
    assert codec.encode(other_nan) == codec.encode(math.nan) == bytes.fromhex("047ff8000000000000")


NOT_CANONICAL = {
    "a longer varint": "03e280 00",
    "a varint beyond 64 bits": "03ffffffffffffffffff02",
    "a small int in the long form": "0304",
    "a short string in the long form": "060161",
    "negative zero": "048000000000000000",
    "another NaN": "047ff8000000000001",
    "a signalling NaN": "047ff0000000000001",
    "a Decimal with a leading zero byte": "050000020005",
    "a Decimal with a sign of 2": "0500020105",
    "a Decimal with an exponent beyond 100000": "05c29a0c000105",
    "a Decimal of 513 bytes": "0500008104" + "ff" * 513,
    "bad UTF-8": "61ff",
    "an overlong form in UTF-8": "62c080",
    "a surrogate in UTF-8": "63eda080",
    "beyond the last code point": "64f4908080",
    "bad UTF-8 in a key": "0b0101ff20",
    "keys out of order": "0b02016220016120",
    "a key twice": "0b02016120016120",
    "a day before year 1": "08" + canonical.signed(-719163).hex(),
    "a day after year 9999": "08" + canonical.signed(2932897).hex(),
    "a time before year 1": "09" + canonical.signed(-62135596800000001).hex(),
    "a time after year 9999": "09" + canonical.signed(253402300800000000).hex(),
    "a list longer than its bytes": "0affffffffffffffff7f20",
    "a string longer than its bytes": "06ffffffffffffffffff01",
    "an unknown value longer than its bytes": "c8ffffffffffffffffff01",
    "nothing": "",
    "bytes after the value": "2020",
    "nested too deep": "0a01" * 33 + "20",
}


@pytest.mark.parametrize("raw", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_what_is_not_canonical_is_refused(raw):
    with pytest.raises(ValueError, match="canonical"):
        codec.decode(bytes.fromhex(raw))


def test_what_is_just_canonical_is_taken():
    days, microseconds = dt.date.min.toordinal() - dt.date(1970, 1, 1).toordinal(), -62135596800000000
    assert codec.decode(b"\x08" + canonical.signed(days)) == dt.date.min
    assert codec.decode(b"\x09" + canonical.signed(microseconds)) == dt.datetime.min.replace(tzinfo=dt.UTC)
    assert codec.decode(bytes.fromhex("0a01" * 32 + "20")) == nested(32, -16)
    assert codec.encode(nested(32, Decimal(1))) == canonical.encode(nested(32, Decimal(1)))
    assert codec.decode(bytes.fromhex("0500008004" + "ff" * 512)) == 2**4096 - 1


def nested(depth, value):
    for _ in range(depth):
        value = [value]
    return value


class Color(str, enum.Enum):  # noqa: UP042 - its str() is "Color.RED", and that must not be what is stored
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Naming(dict):
    pass


def test_subclasses_are_stored_as_what_they_extend():
    assert codec.encode(Color.RED) == codec.encode("red")
    assert codec.encode(Level.HIGH) == codec.encode(3)
    assert codec.encode(OrderedDict(b=1, a=2)) == codec.encode(Naming(a=2, b=1)) == codec.encode({"a": 2, "b": 1})
    assert codec.encode((1, 2)) == codec.encode([1, 2])
    assert codec.encode(bytearray(b"ab")) == codec.encode(b"ab")


class Shrinking(dt.tzinfo):
    """A time zone that empties a list when asked: no way of encoding may trust a length taken before."""

    def __init__(self, victim):
        self.victim = victim

    def utcoffset(self, when):
        self.victim.clear()
        return dt.timedelta(0)


def test_a_list_that_changes_while_it_is_encoded_gives_canonical_bytes():
    victim = []
    victim += [dt.datetime(2024, 1, 1, tzinfo=Shrinking(victim)), 2, 3]
    assert len(codec.decode(codec.encode(victim))) == 3
    mapping = {}
    mapping |= {"a": dt.datetime(2024, 1, 1, tzinfo=Shrinking(mapping)), "b": 2}
    assert len(codec.decode(codec.encode(mapping))) == 2


@pytest.mark.parametrize(
    "value",
    [
        ...,
        {1, 2},
        1j,
        2**63,
        -(2**63) - 1,
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal(2**4096),
        Decimal("1e100001"),
        Decimal("0." + "1" * 5000),
        dt.datetime(2024, 1, 1),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
        dt.time(12),
        {1: "a"},
        {None: 1},
        {Color.RED: 1},
        "\ud800",
        {"\ud800": 1},
        {"a": 1, "\ud800": 1},
        nested(33, 1),
        [[...]],
        Unknown(3, b""),
        Unknown(32, b""),
        Unknown(159, b""),
        Unknown(256, b""),
        Unknown(-1, b""),
        Unknown(200, "text"),
    ],
    ids=repr,
)
def test_what_cannot_be_held_is_a_type_error(value):
    with pytest.raises(TypeError):
        codec.encode(value)


def test_a_list_within_itself_is_a_type_error():
    circle = []
    circle.append(circle)
    with pytest.raises(TypeError):
        codec.encode(circle)


def test_unknown_values_compare_by_tag_and_bytes():
    assert Unknown(200, b"a") == Unknown(200, b"a") != Unknown(201, b"a")
    assert len({Unknown(200, b"a"), Unknown(200, b"a"), Unknown(200, b"b")}) == 2
    assert repr(Unknown(200, b"abc")) == "Unknown(tag=200, 3 bytes)"


# Records --------------------------------------------------------------------------------------------------------------

REGISTERS = [pair for pair in FIELDS if not pair[1] & (model.SIDE_BY_SIDE | model.HAS_SUB | model.PER_AUTHOR)]
COUNTERS = [pair for pair in FIELDS if pair[1] == model.COUNTER]
ids = {pair: number for number, pair in enumerate(NUMBERS.fields)}
amounts = st.integers(-(2**40), 2**40) | st.integers(-5, 5)


@given(
    st.dictionaries(st.sampled_from(REGISTERS + COUNTERS), values, max_size=4),
    st.tuples(st.integers(1, 4), st.integers(1, 2**63 - 2), st.integers(0, 2**63 - 1)),
    st.integers(0, 2**32 - 1),
)
def test_created_pieces_are_the_models(chosen, dot, n):
    author, seq, time = dot
    stamp = Stamp(time, NUMBERS.authors[author], seq)
    cells = frozenset(Cell(Address(*pair), stamp, canonical.encode(value)) for pair, value in chosen.items())
    expected = NUMBERS.pack({Name(*stamp.dot, n): Incarnation(time, cells)})
    row = (n, (*(ids[pair] for pair in chosen), 1), (*chosen.values(), ...))  # Ellipsis leaves a field out
    assert write.create(author, seq, time, [row, row], FIELD_BYTES) == [expected, expected]


@given(
    histories,
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(REGISTERS), scalars, max_size=3),
    st.dictionaries(st.sampled_from(COUNTERS), amounts, max_size=2),
    st.integers(0, 3),
    st.sampled_from([0, 1_000, 2_000, 2**62, 2**63 - 1]),
)
def test_writes_are_the_models(history, at, registers, increments, author, time):
    live = model.living(history.replicas[at].record)
    if not live:
        return
    stamp = Stamp(time, AUTHORS[author], 1_000)
    expected = model.write(
        live,
        stamp,
        [(*pair, value) for pair, value in registers.items()],
        [(*pair, amount) for pair, amount in increments.items()],
    )
    for numbers in (NUMBERS, OTHER_NUMBERS):
        item = (
            numbers.pack(live),
            tuple((numbers.fields.index(pair), value) for pair, value in registers.items()),
            tuple((numbers.fields.index(pair), amount) for pair, amount in increments.items()),
            (),
        )
        dot = numbers.authors.index(stamp.author), stamp.seq
        written = write.write([item, item], *dot, time, numbers.field_bytes, numbers.author_bytes)
        cells = sum(len(inc.cells) for inc in expected.values())
        assert written == [(numbers.pack(expected), len(expected), cells)] * 2


SIDES = [Address("tags", model.SET, sub) for sub in SUBS] + [Address("notes", model.TEXT)]
limits = st.none() | st.dictionaries(st.sampled_from(AUTHORS), st.integers(0, 6))
sides = st.dictionaries(st.sampled_from(SIDES), st.tuples(st.binary(max_size=3), st.booleans(), limits))


@given(histories, st.integers(0, 3), sides, st.integers(0, 3))
def test_cells_beside_others_are_the_models(history, at, some, author):
    live = model.living(history.replicas[at].record)
    if not live:
        return
    stamp = Stamp(10**6, AUTHORS[author], 1_000)
    rows = [(address, canonical.encode(value), *rest) for address, (value, *rest) in some.items()]
    expected = model.write(live, stamp, [], [], rows)
    for numbers in (NUMBERS, OTHER_NUMBERS):
        ids = dict(zip(numbers.authors, range(len(numbers.authors)), strict=True))
        item = tuple(
            (
                numbers.fields.index(address[:2]),
                address.sub,
                value,
                replaces,
                None if within is None else {ids[name]: seq for name, seq in within.items()},
            )
            for address, (value, replaces, within) in some.items()
        )
        packed = numbers.pack(live)
        written = write.write([(packed, (), (), item)], ids[stamp.author], 1_000, 10**6, *numbers_of(numbers))
        assert written == [(numbers.pack(expected), len(expected), len(some))]


def numbers_of(numbers):
    return numbers.field_bytes, numbers.author_bytes


def test_a_cell_beside_others_needs_an_address_where_cells_live_so():
    (packed,) = write.create(1, 1, 10, [(0, (1,), ("new",))], FIELD_BYTES)
    for side in [(1, b"", b"", False, None), (FIELDS.index(("notes", model.TEXT)) + 1, b"sub", b"", False, None)]:
        with pytest.raises(ValueError, match="not an address"):
            write.write([(packed, (), (), (side,))], 1, 2, 20, FIELD_BYTES, AUTHOR_BYTES)


def test_a_new_set_has_a_cell_an_element():
    tags = FIELDS.index(("tags", model.SET)) + 1
    (packed,) = write.create(1, 1, 10, [(0, (1, tags), ("new", tuple(SUBS)))], FIELD_BYTES)
    name = Name(NUMBERS.authors[1], 1, 0)
    stamp, nothing = Stamp(10, *name.dot), canonical.encode(None)
    cells = {Cell(Address("tags", model.SET, sub), stamp, nothing) for sub in SUBS}
    price = Cell(Address("price", model.REGISTER), stamp, canonical.encode("new"))
    assert packed == NUMBERS.pack({name: Incarnation(10, frozenset(cells | {price}))})


@given(histories, st.integers(0, 3))
def test_rivals_are_what_changes_wrote_apart(history, at):
    live = model.living(history.replicas[at].record)
    (found,) = authorship.rivals([NUMBERS.pack(live)], FIELD_BYTES, AUTHOR_BYTES)
    name = NUMBERS.authors
    got = {number: [(time, name[by], seq, value) for by, seq, time, value in claims] for number, claims in found}
    expected = {}
    for number, (field, kind) in enumerate(NUMBERS.fields):
        cells = model.cells_at(live, field, kind)
        if number and not kind & 7 and len({cell.stamp.dot for _, cell in cells}) > 1:
            by_dot = {cell.stamp.dot: cell for _, cell in cells}
            some = sorted(by_dot.values(), key=lambda cell: cell.stamp, reverse=True)
            expected[number] = [(*cell.stamp, canonical.decode(cell.value)) for cell in some]
    assert same(got, expected)


@given(histories, st.integers(0, 3), st.lists(st.integers(1, len(FIELDS)), max_size=8))
def test_reads_are_the_models(history, at, wanted):
    record = history.replicas[at].record
    for numbers in (NUMBERS, OTHER_NUMBERS):
        packed = numbers.pack(record)
        assert same(read.read_all(packed, numbers.field_bytes, numbers.author_bytes), model.read_all(record))
        expected = [model.read(record, *numbers.fields[number], "default") for number in wanted]
        defaults = ("default",) * len(wanted)
        (got,) = read.read([packed], tuple(wanted), defaults, numbers.field_bytes, numbers.author_bytes)
        assert same(list(got), expected)
        row = ("head", 5, packed)
        (wide,) = read.widen([row], tuple(wanted), defaults, as_column, numbers.field_bytes, numbers.author_bytes)
        assert same(list(wide), ["head", 5, *map(as_column, expected), packed])


def test_rows_to_widen_end_with_a_record():
    for rows in ([()], [["a list"]]):
        with pytest.raises(TypeError, match="ends with a packed record"):
            read.widen(rows, (), (), as_column, FIELD_BYTES, AUTHOR_BYTES)
    with pytest.raises(ValueError, match="as many defaults"):
        read.widen([], (1,), (), as_column, FIELD_BYTES, AUTHOR_BYTES)


@given(histories, st.integers(0, 3))
def test_stamps_and_incarnations_are_all_there_are(history, at):
    record = history.replicas[at].record
    found, nothing = authorship.stamps([NUMBERS.pack(record), b""], FIELD_BYTES, AUTHOR_BYTES)
    assert nothing == []
    cells = [cell for inc in record.values() for cell in inc.cells]
    assert sorted(found) == sorted((*c.address[:2], *NUMBERS.dot(c.stamp.dot), c.stamp.time) for c in cells)
    names = authorship.incarnations([NUMBERS.pack(record), b""] * 2, AUTHOR_BYTES)
    assert names == [sorted(map(NUMBERS.number, record)), []] * 2


odd_totals = st.sampled_from(
    [1, 2**63 - 1, 1.5, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, Decimal("1e400"), Decimal("-1e-400")]
)


@given(st.lists(odd_totals | st.integers(-9, 9) | st.floats() | st.decimals(-(10**30), 10**30) | st.none() | texts))
def test_counters_add_up_whatever_others_wrote(totals):
    """In any order, exactly, and without an error: what is no finite number counts as nothing."""
    authors = [struct.pack(">Q", number) for number in range(1, len(totals) + 1)]
    numbers = [model.Numbers.of(some, FIELDS) for some in (authors, authors[::-1])]
    name = Name(b"creation", 1, 0)
    pairs = zip(authors, totals, strict=True)
    cells = [Cell(Address("hours", model.COUNTER), Stamp(5, a, 1), canonical.encode(total)) for a, total in pairs]
    record = {name: Incarnation(None, frozenset(cells))}
    for some in numbers:
        some.authors.append(name.author)
        (got,) = read.read([some.pack(record)], (3,), (0,), some.field_bytes, some.author_bytes)
        assert same(got[0], model.add_up(totals) if totals else 0)


def test_a_field_may_have_been_written_by_any_number_of_authors():
    """Each new device adds an entry to the seen of a register, and none may ever be dropped."""
    numbers = model.Numbers.of([struct.pack(">Q", i) for i in range(1, 1_001)], FIELDS)
    name = Name(numbers.authors[1], 1, 0)
    packed = write.create(1, 1, 10, [(0, (1,), ("new",))], numbers.field_bytes)[0]
    first = Cell(Address("price", 8), Stamp(10, *name.dot), canonical.encode("new"))
    record = {name: Incarnation(10, frozenset([first]))}
    for author in (2, 3):
        stamp = Stamp(author, numbers.authors[author], 5)
        item = packed, ((1, author),), (), ()
        written = write.write([item], author, 5, author, numbers.field_bytes, numbers.author_bytes)
        expected = model.write(record, stamp, [("price", 8, author)], [])
        assert written == [(numbers.pack(expected), 1, 1)]
        (inc,) = expected.values()
        every = tuple((a, 7) for a in sorted(numbers.authors[4:]))
        full = frozenset(model.replace(cell, seen=model.join(cell.seen, every)) for cell in inc.cells)
        record = {name: Incarnation(10, full)}
        packed = numbers.pack(record)


def test_a_write_over_nothing_is_refused():
    with pytest.raises(ValueError, match="no incarnation"):
        write.write([(b"", ((1, 5),), (), ())], 1, 1, 1, FIELD_BYTES, AUTHOR_BYTES)


def test_a_type_error_names_the_field():
    with pytest.raises(TypeError, match="price: an integer beyond 64 bits"):
        write.create(1, 1, 1, [(0, (1,), (2**64,))], FIELD_BYTES)


def test_a_field_that_the_dictionary_does_not_hold_is_refused():
    with pytest.raises(ValueError, match="dictionary"):
        write.create(1, 1, 1, [(0, (99,), (5,))], FIELD_BYTES)


@given(histories, st.integers(0, 3), st.data())
def test_damaged_records_are_read_or_refused(history, at, data):
    """Damage is refused, or it makes other values; nothing worse."""
    packed = bytearray(NUMBERS.pack(history.replicas[at].record))
    if not packed:
        return
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(packed)) | st.integers(0, len(packed)))
    everything, nothing = tuple(range(1, len(FIELDS) + 1)), (None,) * len(FIELDS)
    for act in (
        lambda raw: read.read_all(raw, FIELD_BYTES, AUTHOR_BYTES),
        lambda raw: read.read([raw], everything, nothing, FIELD_BYTES, AUTHOR_BYTES),
        lambda raw: read.widen([(raw,)], everything, nothing, as_column, FIELD_BYTES, AUTHOR_BYTES),
        lambda raw: authorship.incarnations([raw], AUTHOR_BYTES),
        lambda raw: authorship.stamps([raw], FIELD_BYTES, AUTHOR_BYTES),
        lambda raw: authorship.rivals([raw], FIELD_BYTES, AUTHOR_BYTES),
        lambda raw: removals_kernel.removals_at(raw, {(5, SUBS[0])}, FIELD_BYTES),
        lambda raw: write.write([(raw, ((1, 5),), (), ())], 1, 9, 9, FIELD_BYTES, AUTHOR_BYTES),
    ):
        with suppress(ValueError):
            act(bytes(packed[:end]))
