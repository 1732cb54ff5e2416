import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import model
from tests.canonical import varint
from tests.histories import AUTHORS, EVERY_BYTE
from tests.model import SEQ_MAX

from fieldsync._native import diff

OPERATIONS = {diff.join: operator.or_, diff.lacks: operator.sub, diff.common: operator.and_}
A, B = sorted(AUTHORS)[:2]
dots = st.frozensets(st.tuples(st.sampled_from(AUTHORS), st.integers(1, 14)), max_size=40)
operations = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)

# The numbers from 1 to the highest in a few ranges: sets of those stand for sets of dots near every edge.
EDGES = [1, 2, 3, 127, 128, 2**32, 2**62, SEQ_MAX - 1, SEQ_MAX, SEQ_MAX + 1]
ranges = st.frozensets(st.tuples(st.sampled_from(AUTHORS[:2]), st.integers(0, len(EDGES) - 2)))


def of_ranges(chosen):
    return diff.build([(author, EDGES[i], EDGES[i + 1] - 1) for author, i in chosen])


@operations
@given(a=dots, b=dots)
def test_operations_are_those_of_sets(operation, a, b):
    expected = OPERATIONS[operation](a, b)
    assert operation(model.context(a), model.context(b)) == model.context(expected)


@operations
@given(a=ranges, b=ranges)
def test_operations_hold_up_to_the_highest_number(operation, a, b):
    assert operation(of_ranges(a), of_ranges(b)) == of_ranges(OPERATIONS[operation](a, b))


@given(dots)
def test_a_context_is_its_intervals(some):
    packed = model.context(some)
    assert diff.intervals(packed) == model.intervals(some) == model.unpack_context(packed)
    assert diff.build(diff.intervals(packed)) == packed


@given(dots, st.sampled_from([*AUTHORS, b"somebody"]), st.integers(0, 15))
def test_covers_is_membership(some, author, seq):
    assert diff.covers(model.context(some), author, seq) is ((author, seq) in some)


@given(ranges)
def test_covers_holds_up_to_the_highest_number(chosen):
    packed = of_ranges(chosen)
    for author in AUTHORS[:2]:
        for i, low in enumerate(EDGES[:-1]):
            inside = (author, i) in chosen
            assert diff.covers(packed, author, low) is diff.covers(packed, author, EDGES[i + 1] - 1) is inside
        assert diff.covers(packed, author, 0) is diff.covers(packed, author, 2**64 - 1) is False


@given(st.lists(st.tuples(st.sampled_from(AUTHORS), st.integers(1, 12), st.integers(0, 5))))
def test_build_takes_intervals_in_any_order_overlapping_or_not(some):
    runs = [(author, low, low + more) for author, low, more in some]
    every = {(author, seq) for author, low, high in runs for seq in range(low, high + 1)}
    assert diff.build(runs) == model.context(every)


@pytest.mark.parametrize(
    "run",
    [(A, 0, 5), (A, 6, 5), (A, 1, SEQ_MAX + 1), (A[:7], 1, 2), (A + b"x", 1, 2)],
    ids=["from 0", "backwards", "too high", "a short author", "a long author"],
)
def test_what_is_no_interval_is_refused(run):
    with pytest.raises(ValueError, match="interval"):
        diff.build([(B, 1, 1), run])


def check_as_the_model(raw):
    """All functions agree with the model on what is a context."""
    try:
        expected = model.unpack_context(raw)
    except ValueError:
        with pytest.raises(ValueError, match="canonical"):
            diff.intervals(raw)
        for operation in OPERATIONS:
            for a, b in ((raw, b""), (b"", raw)):
                with pytest.raises(ValueError, match="canonical"):
                    operation(a, b)
    else:
        assert diff.intervals(raw) == expected
        assert diff.join(raw, b"") == diff.join(b"", raw) == diff.lacks(raw, b"") == diff.common(raw, raw) == raw
        assert diff.build(expected) == raw


@given(dots, st.data())
def test_bytes_are_taken_only_if_canonical(some, data):
    raw = bytearray(model.context(some))
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2) | st.integers(0, 2**64).map(varint))
    check_as_the_model(bytes(raw))


def test_every_truncation_and_every_other_byte_is_as_the_model_says():
    raw = model.pack_context([(A, 1, 5), (A, 7, 300), (A, 2**40, 2**41), (B, 2, 2), (B, 4, SEQ_MAX)])
    for at in range(len(raw)):
        check_as_the_model(raw[:at])
        for byte in EVERY_BYTE:
            check_as_the_model(raw[:at] + bytes([byte]) + raw[at + 1 :])


TOP = varint(SEQ_MAX - 1)
NOT_CANONICAL = {
    "no intervals": A + b"\0",
    "an author twice": (A + b"\1\0\0") * 2,
    "authors out of order": B + b"\1\0\0" + A + b"\1\0\0",
    "intervals that touch": A + b"\2\0\0\0\0",
    "more intervals than bytes": A + varint(2**62) + b"\1\0",
    "a longer varint": A + b"\1\x80\0\0",
    "a length beyond the highest number": A + b"\1\0" + varint(SEQ_MAX),
    "a gap beyond the highest number": A + b"\1" + varint(SEQ_MAX) + b"\0",
    "both together beyond the highest number": A + b"\1\1" + TOP,
    "around 2**64 and back": A + b"\3\0" + TOP + b"\1" + TOP + b"\1" + TOP,
    "a short author": A[:7],
    "no count": A,
}


@pytest.mark.parametrize("raw", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_what_is_not_canonical_is_refused(raw):
    check_as_the_model(raw)
    with pytest.raises(ValueError, match="canonical"):
        diff.intervals(raw)


def test_the_highest_number_is_taken():
    assert diff.intervals(A + b"\1\0" + TOP) == [(A, 1, SEQ_MAX)]
    assert diff.intervals(A + b"\1" + TOP + b"\0") == [(A, SEQ_MAX, SEQ_MAX)]


def test_covers_refuses_what_it_has_to_read():
    for raw in (A + b"\2\0\4", A + b"\1\x80", b"short", A + b"\2\0\0\0\0"):
        with pytest.raises(ValueError, match="canonical"):
            diff.covers(raw, A, 9)
    with pytest.raises(ValueError, match="8 bytes"):
        diff.covers(b"", b"short", 1)
