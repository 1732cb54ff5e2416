"""Sketches and ranges find exactly what two sets differ by; symbols are those of a model in slow, plain Python."""

import math
from collections import Counter
from itertools import accumulate, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.canonical import siphash

from fieldsync import limits
from fieldsync._native import sketch
from fieldsync.errors import DecodeError
from fieldsync.syncing import reconcile
from fieldsync.syncing.reconcile import Asker, Difference, Taker, answer, each, symbols, symbols_for

ALL = 2**64 - 1
KEY = bytes(range(16))
numbers = st.one_of(st.sampled_from([0, 1, ALL - 1, ALL]), st.integers(0, 40), st.integers(0, ALL))
sets = st.frozensets(numbers, max_size=80)
pairs = st.tuples(sets, sets, sets).map(lambda three: (three[0] | three[1], three[0] | three[2]))


def row(items):
    """A set of numbers as the engine takes it."""
    return b"".join(item.to_bytes(8, "big") for item in sorted(items))


def difference(ours, theirs):
    return Difference(row(theirs - ours), row(ours - theirs))


def scattered(seed, common, ours, theirs):
    """Two sets of random numbers with so many in common, and only in one."""
    chance = Random(seed)
    every = [chance.getrandbits(64) for _ in range(common + ours + theirs)]
    return set(every[: common + ours]), set(every[:common] + every[common + ours :])


# The model ------------------------------------------------------------------------------------------------------------


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & ALL
    z = (z ^ z >> 27) * 0x94D049BB133111EB & ALL
    return z ^ z >> 31


def check_of(item):
    return mix(item ^ 0xD6E8FEB86659FD93) >> 32


def indexes(item, end):
    """The numbers of the symbols that an item is in, below `end`."""
    index, state = 0, item
    while index < end:
        yield index
        state = (state + 0x9E3779B97F4A7C15) & ALL
        index += 1 + int((index + 1.5) * (2**26 / math.sqrt((mix(state) >> 12) + 1) - 1))


def model_encode(items, end):
    out = [[0, 0] for _ in range(end)]
    for item in items:
        for index in indexes(item, end):
            out[index][0] ^= item
            out[index][1] ^= check_of(item)
    return b"".join(total.to_bytes(8, "big") + check.to_bytes(4, "big") for total, check in out)


def model_split(items, low, bits):
    step = 2 ** (60 - bits)
    parts = [[item for item in items if low + i * step <= item < low + (i + 1) * step] for i in range(16)]
    before = sum(item < low for item in items)
    sums = [sum(mix(item ^ 0xA0761D6478BD642F) for item in part) & ALL for part in parts]
    return [before, *(before + n for n in accumulate(map(len, parts)))], b"".join(n.to_bytes(8, "big") for n in sums)


# The kernel -----------------------------------------------------------------------------------------------------------


@given(sets, st.integers(0, 60), st.integers(0, 60))
def test_symbols_are_those_of_the_model(items, first, count):
    assert sketch.encode(row(items), first, count) == model_encode(items, first + count)[12 * first :]


def test_many_items_are_encoded_like_few():
    items, _ = scattered(1, 1_500, 0, 0)
    assert sketch.encode(row(items), 0, 200) == model_encode(items, 200)


def test_an_index_has_the_density_of_the_paper():
    hits = Counter(index for n in range(20_000) for index in indexes(mix(n), 100))
    for index in (0, 1, 2, 5, 20, 99):
        assert hits[index] / 20_000 == pytest.approx(1 / (1 + index / 2), rel=0.1)


@given(st.lists(st.binary(max_size=40), max_size=30), st.binary(min_size=16, max_size=16))
def test_items_are_hashes_of_names(names, key):
    hashes = {siphash(key, name) & ALL for name in names}
    assert reconcile.items_of(names + names[:3], key) == row(hashes)


@given(sets, numbers, st.sampled_from(range(0, 64, 4)))
def test_parts_of_ranges_are_those_of_the_model(items, number, bits):
    low = number >> (64 - bits) << (64 - bits)
    assert sketch.split(row(items), low, bits) == model_split(sorted(items), low, bits)


@given(pairs, st.integers(1, 150))
def test_what_decodes_is_the_difference(both, count):
    ours, theirs = both
    found = sketch.decode(row(ours), sketch.encode(row(theirs), 0, count))
    assert found in (None, difference(ours, theirs))
    assert found or len(ours ^ theirs) > 1


@given(sets, st.binary(min_size=12, max_size=240).map(lambda raw: raw[: len(raw) // 12 * 12]))
def test_any_bytes_decode_to_what_has_those_symbols_or_to_nothing(items, raw):
    check_decoded(items, raw)


@given(pairs, st.integers(1, 100), st.data())
def test_changed_symbols_do_not_decode(both, count, data):
    ours, theirs = both
    valid = sketch.encode(row(theirs), 0, count)
    at, bit = data.draw(st.integers(0, len(valid) - 1)), data.draw(st.integers(0, 7))
    assert sketch.decode(row(ours), valid[:at] + bytes([valid[at] ^ 1 << bit]) + valid[at + 1 :]) is None


@given(pairs, st.integers(2, 40), st.data())
def test_symbols_out_of_place_do_not_mislead(both, count, data):
    ours, theirs = both
    valid = sketch.encode(row(theirs), 0, count)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=60))
    check_decoded(ours, b"".join(valid[12 * i : 12 * i + 12] for i in chosen))


def check_decoded(items, raw):
    found = sketch.decode(row(items), raw)
    if found is not None:
        theirs, ours = ({int.from_bytes(item, "big") for item in each(side)} for side in found)
        assert ours <= items
        assert not theirs & items
        assert found == (row(theirs), row(ours))
        assert model_encode(items - ours | theirs, len(raw) // 12) == raw


def test_pure_symbols_without_end_are_given_up():
    def pure(items):
        return b"".join(item.to_bytes(8, "big") + check_of(item).to_bytes(4, "big") for item in items)

    assert sketch.decode(b"", pure([mix(7)] * 300)) is None
    assert sketch.decode(b"", pure(mix(n) for n in range(300))) is None
    assert sketch.decode(b"", pure([5]) + sketch.encode(row({5, 6, 7}), 1, 299)) is None


@pytest.mark.parametrize("items", [b"\0" * 16, row([1, 2]) + row([2]), row([2]) + row([1])])
def test_items_that_do_not_ascend_are_refused(items):
    with pytest.raises(ValueError, match="ascend"):
        sketch.encode(items, 0, 5)
    with pytest.raises(ValueError, match="ascend"):
        sketch.decode(items, bytes(60))


def test_what_is_no_argument_is_refused():
    for call in (lambda: sketch.encode(b"1234567", 0, 1), lambda: sketch.decode(b"123456789", bytes(12))):
        with pytest.raises(ValueError, match="8 bytes"):
            call()
    for first, count in ((0, 2**24 + 1), (2**24, 1), (2**64 - 1, 2), (2, 2**64 - 1)):
        with pytest.raises(ValueError, match="too many"):
            sketch.encode(b"", first, count)
    for raw in (b"", b"1" * 11, b"1" * 13):
        with pytest.raises(ValueError, match="row of symbols"):
            sketch.decode(b"", raw)
    for low, bits in ((1, 0), (1, 60), (1 << 59, 4), (0, 61), (0, 64), (0, 2**32 - 1)):
        with pytest.raises(ValueError, match="range"):
            sketch.split(b"", low, bits)
    with pytest.raises(ValueError, match="16 bytes"):
        sketch.hash_items([b"name"], KEY[:15])
    for wrong in ([None], ["name"]):
        with pytest.raises(TypeError):
            sketch.hash_items(wrong, KEY)


# The sketch -----------------------------------------------------------------------------------------------------------


def told(ours, theirs, first):
    """A taker that got a first batch, and then what it wanted until it had enough."""
    taker, count = Taker(row(ours)), first
    while taker.wanted:
        taker.receive(symbols(row(theirs), taker.held, count))
        count = taker.wanted
    return taker


@given(pairs, st.integers(1, 200))
def test_a_sketch_ends_with_the_difference(both, first):
    ours, theirs = both
    taker = told(ours, theirs, first)
    assert taker.difference == difference(ours, theirs)


@given(pairs, st.integers(1, 50))
def test_the_first_batch_may_have_any_size(both, size):
    """The others are as many as the taker wants; each time more, so that there is an end soon."""
    ours, theirs = both
    taker, batches = Taker(row(ours)), 0
    while taker.wanted:
        batches += 1
        taker.receive(symbols(row(theirs), taker.held, taker.wanted if taker.held else size))
        assert taker.difference in (None, difference(ours, theirs))
    assert taker.difference == difference(ours, theirs)
    assert batches <= 10


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 10, 30, 100, 300, 1_000])
def test_the_first_batch_decodes_nearly_always(count):
    decoded = 0
    for seed in range(100):
        ours, theirs = scattered(seed, 50, count // 2, count - count // 2)
        taker = Taker(row(ours))
        taker.receive(symbols(row(theirs), 0, symbols_for(count)))
        decoded += taker.difference == difference(ours, theirs)
    assert decoded >= 95


@pytest.mark.parametrize(("count", "bytes_max"), [(10, 500), (100, 3_000), (1_000, 24_000), (10_000, 240_000)])
def test_a_sketch_keeps_to_its_budget(count, bytes_max):
    ours, theirs = scattered(3, 1_000, count // 2, count // 2)
    taker = told(ours, theirs, symbols_for(count))
    assert taker.difference == difference(ours, theirs)
    assert taker.held * reconcile.SYMBOL_BYTES <= bytes_max


def test_a_taker_gives_up_at_the_cap(monkeypatch):
    monkeypatch.setattr(reconcile, "SKETCH_SYMBOLS_MAX", 100)
    ours, theirs = scattered(4, 10, 100, 100)
    taker = told(ours, theirs, 60)
    assert (taker.difference, taker.held, taker.wanted) == (None, 100, 0)
    assert symbols_for(2**70) == 100


def test_what_is_no_batch_is_refused():
    taker = Taker(row({1, 2, 3}))
    taker.receive(symbols(row({4, 5, 6}), 0, 1))
    for batch in (b"", b"1" * 11, b"1" * 13, bytes(12 * limits.SKETCH_SYMBOLS_MAX)):
        with pytest.raises(DecodeError, match="next symbols"):
            taker.receive(batch)
    for count in (taker.wanted - 1, taker.wanted + 1):
        with pytest.raises(DecodeError, match="next symbols"):
            taker.receive(symbols(row({4, 5, 6}), 1, count))
    assert taker.held == 1
    while taker.wanted:
        taker.receive(symbols(row({4, 5, 6}), taker.held, taker.wanted))
    with pytest.raises(DecodeError, match="next symbols"):
        taker.receive(symbols(row({4, 5, 6}), taker.held, 1))


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 0), (0, -1), (0, 2**16 + 1), (2**16, 1), (2**70, 1)])
def test_symbols_that_no_taker_wants_are_refused(first, count):
    with pytest.raises(DecodeError, match="no such symbols"):
        symbols(b"", first, count)


def test_the_stream_of_symbols_never_changes():
    items = reconcile.items_of([b"one", b"two", b"three"], KEY)
    assert items.hex() == GOLDEN_ITEMS
    assert symbols(items, 0, 8).hex() == GOLDEN_SYMBOLS
    assert symbols(row(mix(n) for n in range(1_000)), 4_000, 4).hex() == GOLDEN_FAR
    assert sketch.split(items, 0, 0)[1].hex() == GOLDEN_FINGERPRINTS


GOLDEN_ITEMS = "5c0aaf3853240e9a6c7bd43edeec0fd291075b53625f291a"
GOLDEN_SYMBOLS = (
    "a1762055ef972852a0a4aaabcd0df46b317b2780de5a5f40fd7c8f6dbcb326c8997eaacb91075b53625f291ae7805f20"
    "0000000000000000000000000000000000000000000000000000000000000000000000006c7bd43edeec0fd27efef5eb"
)
GOLDEN_FAR = "000000000000000000000000ebf02bcf13c0ed02be6213a5000000000000000000000000000000000000000000000000"
GOLDEN_FINGERPRINTS = (
    "000000000000000000000000000000000000000000000000000000000000000000000000000000009bed3e0489daceef"
    "1e4f3ecd9c0883d800000000000000000000000000000000c77f71974675daa800000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
)


# Ranges ---------------------------------------------------------------------------------------------------------------


def asked(ours, theirs):
    """The difference that ranges find, and the messages they took."""
    asker, messages = Asker(row(ours)), []
    while question := asker.question():
        messages += [question, answer(row(theirs), question)]
        asker.receive(messages[-1])
    return asker.difference, messages


CASES = {
    "both empty": (set(), set()),
    "nothing here": scattered(5, 0, 0, 3_000),
    "nothing there": scattered(6, 0, 3_000, 0),
    "equal": scattered(7, 3_000, 0, 0),
    "disjoint": scattered(8, 0, 2_000, 2_000),
    "a few": scattered(9, 20_000, 3, 4),
    "many": scattered(10, 5_000, 500, 400),
    "close together": (set(range(0, 9_000, 2)), set(range(0, 9_000, 3))),
    "at the end": (set(range(ALL - 600, ALL)), set(range(ALL - 500, ALL + 1))),
    "one against many": ({0}, set(range(ALL - 500, ALL + 1))),
}
cases = pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=CASES.keys())


@given(pairs)
def test_ranges_end_with_the_difference(both):
    assert asked(*both)[0] == difference(*both)


@cases
def test_ranges_end_in_few_rounds(ours, theirs):
    found, messages = asked(ours, theirs)
    assert found == difference(ours, theirs)
    assert len(messages) <= 2 * 9  # a round narrows by 8 of 64 bits


@cases
def test_ranges_end_however_small_the_messages(ours, theirs, monkeypatch):
    bounds = {"QUESTION_BYTES": 600, "ANSWER_BYTES": 7_000, "ITEMS": 100}
    for name, bound in bounds.items():
        monkeypatch.setattr(reconcile, f"RANGE_{name}_MAX", bound)
    found, messages = asked(ours, theirs)
    assert found == difference(ours, theirs)
    assert all(len(question) <= 600 for question in messages[::2])
    assert all(len(reply) <= 7_000 for reply in messages[1::2])


def test_an_answer_about_any_range_fits():
    assert limits.RANGE_ITEMS_MAX < 2**16
    assert 3 + 8 * limits.RANGE_ITEMS_MAX <= limits.RANGE_ANSWER_BYTES_MAX
    assert 16 * (3 + 8 * limits.RANGE_ITEMS_TARGET) <= limits.RANGE_ANSWER_BYTES_MAX


PRINTS = bytes(128)
BAD_QUESTIONS = {
    "empty": b"",
    "an unknown head": b"\x20",
    "no prefix": b"\x02",
    "no fingerprints": b"\x10",
    "short fingerprints": b"\x10" + PRINTS[1:],
    "a prefix beyond its depth": b"\x01\x11",
    "the same range twice": b"\x01\x10" * 2,
    "ranges inside each other": b"\x00\x01\x00",
    "ranges in disorder": b"\x01\x20\x01\x10",
    "too long": b"\x10" + PRINTS + bytes(limits.RANGE_QUESTION_BYTES_MAX),
}


@pytest.mark.parametrize("question", BAD_QUESTIONS.values(), ids=BAD_QUESTIONS.keys())
def test_what_is_no_question_is_refused(question):
    with pytest.raises(DecodeError):
        answer(row({1, 2, 3}), question)


ITEM = (3).to_bytes(8, "big")
BAD_ANSWERS = {
    "empty": b"",
    "an unknown mark": b"\x03",
    "same, to a range asked for whole": b"\x00",
    "short fingerprints": b"\x01" + PRINTS[1:],
    "no count": b"\x02\x00",
    "fewer items than told": b"\x02\x00\x02" + ITEM,
    "an item twice": b"\x02\x00\x02" + ITEM * 2,
    "items in disorder": b"\x02\x00\x02" + ITEM + bytes(8),
    "more than was asked for": b"\x02\x00\x00" * 2,
    "too long": bytes(limits.RANGE_ANSWER_BYTES_MAX + 1),
}


@pytest.mark.parametrize("reply", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_what_is_no_answer_is_refused(reply):
    asker = Asker(row({1, 2}))
    assert asker.question() == b"\x00"
    with pytest.raises(DecodeError):
        asker.receive(reply)


def test_items_outside_their_range_are_refused():
    asker = Asker(row(range(1_000)))
    assert asker.question()[:1] == b"\x10"
    above = bytes([0x10]) + bytes(7)  # the first of the 16 parts ends before it
    with pytest.raises(DecodeError, match="within"):
        asker.receive(b"\x02\x00\x01" + above + bytes(15))


def test_an_answer_that_was_not_asked_for_is_refused():
    with pytest.raises(DecodeError, match="more than was asked"):
        Asker(b"").receive(b"\x02\x00\x00")


def test_a_giver_that_never_comes_to_an_end_is_refused():
    asker, splits, none = Asker(b""), b"\x01" + b"\xff" * 128, b"\x02\x00\x00"
    for _ in range(limits.RANGE_ROUNDS_MAX):
        depth = asker.question()[0]
        asker.receive(splits if depth < reconcile.DEPTH_MAX else none)
    assert asker.question()
    with pytest.raises(DecodeError, match="one too many"):
        asker.receive(none)


@given(pairs, st.data())
def test_changed_messages_are_answered_or_refused(both, data):
    ours, theirs = both
    asker = Asker(row(ours))
    try:
        while question := asker.question():
            reply = answer(row(theirs), data.draw(st.sampled_from([question, changed(question, data)])))
            asker.receive(data.draw(st.sampled_from([reply, changed(reply, data)])))
    except DecodeError:
        return
    found = asker.difference
    assert set(each(found.ours)) <= set(each(row(ours)))
    assert not set(each(found.theirs)) & set(each(row(ours)))
    assert all(a < b for side in found for a, b in pairwise(each(side)))


def changed(message, data):
    at = data.draw(st.integers(0, len(message)))
    return message[:at] + data.draw(st.binary(max_size=3)) + message[at + data.draw(st.integers(0, 3)) :]
