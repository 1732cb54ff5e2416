"""What two sets of items differ by, in bytes proportional to the difference: a sketch, and ranges where it gives up.

Items are 8-byte keyed hashes, ascending, in one row of bytes (`items_of` makes it). Two sides, a taker who learns the
difference and a giver who answers:

    sketch    giver -> symbols              as many as a guess at the difference needs (`symbols_for`)
              taker -> wanted more          until they decode, or the taker gives up
              giver -> symbols              the next ones of the same stream
    ranges    taker -> question             of ranges of items: their parts' fingerprints, or nothing where it holds few
              giver -> answer               which parts differ, with their items, or with their own parts' fingerprints
              taker -> question             about those; a round trip narrows a range 256 times

    question := (0x10 | depth, prefix, 16 fingerprints)  or  (depth, prefix)     ascending, no range inside another
    answer   := for each range in turn, as far as they fit: 16 marks  or  1 mark
    mark     := 0 same  |  1 split, 16 fingerprints  |  2 items, count: 2 bytes, (what the prefix leaves of an item)*

A range is the items that begin with the same `depth` half-bytes, at most 15; its prefix is those, in whole bytes.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

from fieldsync._native import sketch as _kernel
from fieldsync.errors import DecodeError
from fieldsync.limits import (
    RANGE_ANSWER_BYTES_MAX,
    RANGE_FOUND_MAX,
    RANGE_ITEMS_MAX,
    RANGE_ITEMS_TARGET,
    RANGE_QUESTION_BYTES_MAX,
    RANGE_ROUNDS_MAX,
    RANGES_OPEN_MAX,
    SKETCH_SYMBOLS_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEM_BYTES = 8
SYMBOL_BYTES = 12
PARTS = 16
DEPTH_MAX = 15  # of a range that has parts
FINGERPRINTS_BYTES = 8 * PARTS
WITH_FINGERPRINTS = 0x10
SAME, SPLIT, ITEMS = 0, 1, 2


class Difference(NamedTuple):
    """The items that only the giver has, and those that only the taker has; each ascending, in one row of bytes."""

    theirs: bytes
    ours: bytes


def items_of(names: list[bytes], key: bytes) -> bytes:
    """The set of items of names in any order, hashed under a key of 16 bytes."""
    return _kernel.hash_items(names, key)


def each(items: bytes) -> list[bytes]:
    """The single items of a row."""
    return [items[at : at + ITEM_BYTES] for at in range(0, len(items), ITEM_BYTES)]


# The sketch -----------------------------------------------------------------------------------------------------------


def symbols_for(difference: int) -> int:
    """How many symbols decode so large a difference 99 times in 100, from 0 to 10,000; measured."""
    return min(136 * difference // 100 + 5 * isqrt(difference) + 7, SKETCH_SYMBOLS_MAX)


def symbols(items: bytes, first: int, count: int) -> bytes:
    """A giver's symbols `first` and on, 12 bytes each. DecodeError for more than a taker may want."""
    if first < 0 or count < 1 or first + count > SKETCH_SYMBOLS_MAX:
        raise DecodeError("no such symbols of a sketch")
    return _kernel.encode(items, first, count)


class Taker:
    """Collects a giver's symbols until they decode: then `difference` is set; else `wanted` more, 0 if it gives up."""

    def __init__(self, items: bytes) -> None:
        self.difference: Difference | None = None
        self.wanted = symbols_for(0)
        self._items = items
        self._symbols = b""
        self._misses = 0

    @property
    def held(self) -> int:
        """How many symbols came so far: the number of the next one."""
        return len(self._symbols) // SYMBOL_BYTES

    def receive(self, batch: bytes) -> None:
        """Take the next symbols, as many as the giver chose. DecodeError for what is none, too many, or not awaited."""
        count, broken = divmod(len(batch), SYMBOL_BYTES)
        chosen = not self._symbols  # the giver guesses how many the first are; then the taker says
        if broken or not count or not self.wanted or not (chosen or count == self.wanted):
            raise DecodeError("not the next symbols of a sketch")
        if self.held + count > SKETCH_SYMBOLS_MAX:
            raise DecodeError("not the next symbols of a sketch")
        self._symbols += batch
        found = _kernel.decode(self._items, self._symbols)
        if found is None:
            self._misses += 1
            # nearly enough, as a rule; where the guess at the difference was a bad one, few more round trips
            more = self.held // 4 + 8 if self._misses == 1 else 3 * self.held
            self.wanted = min(more, SKETCH_SYMBOLS_MAX - self.held)
        else:
            self.difference, self.wanted = Difference(*found), 0


# Ranges ---------------------------------------------------------------------------------------------------------------


class Range(NamedTuple):
    """The items that begin with the first `depth` half-bytes of `low`."""

    low: int
    depth: int

    def part(self, number: int) -> Range:
        """One of its 16 equal parts."""
        return Range(self.low | number << (60 - 4 * self.depth), self.depth + 1)

    @property
    def end(self) -> int:
        """The first number above it."""
        return self.low + (1 << (64 - 4 * self.depth))


WHOLE = Range(0, 0)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise DecodeError("a message about ranges is cut short")
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _differing(own: bytes, other: bytes) -> Iterator[int]:
    """The numbers of the parts whose fingerprints differ."""
    return (i for i in range(PARTS) if own[8 * i : 8 * i + 8] != other[8 * i : 8 * i + 8])


def _mark(items: bytes, range_: Range, start: int, stop: int, count_max: int) -> bytes:
    """What a giver says of a range that differs: its items from `start` to `stop`, or its fingerprints if too many."""
    if stop - start > count_max:
        return bytes([SPLIT]) + _kernel.split(items, range_.low, 4 * range_.depth)[1]
    known = range_.depth // 2
    row = items[start * ITEM_BYTES : stop * ITEM_BYTES]
    rests = b"".join(row[at + known : at + ITEM_BYTES] for at in range(0, len(row), ITEM_BYTES))
    return bytes([ITEMS]) + (stop - start).to_bytes(2, "big") + rests


def answer(items: bytes, question: bytes) -> bytes:
    """A giver's answer. DecodeError for a question that is not canonical, or too long."""
    if not question or len(question) > RANGE_QUESTION_BYTES_MAX:
        raise DecodeError("a question about no ranges, or too many")
    reader, end, out = _Reader(question), 0, bytearray()
    while reader:
        range_, fingerprints = _read_range(reader)
        if range_.low < end:
            raise DecodeError("ranges that do not ascend")
        end = range_.end
        reply = _reply(items, range_, fingerprints)
        if len(out) + len(reply) > RANGE_ANSWER_BYTES_MAX:
            break
        out += reply
    return bytes(out)


def _read_range(reader: _Reader) -> tuple[Range, bytes | None]:
    head = reader.number(1)
    if head >= 2 * WITH_FINGERPRINTS:
        raise DecodeError("not the head of a range")
    depth = head % WITH_FINGERPRINTS
    size = (depth + 1) // 2
    low = reader.number(size) << (64 - 8 * size)
    if low & ((1 << (64 - 4 * depth)) - 1):
        raise DecodeError("a prefix longer than its range's")
    return Range(low, depth), reader.take(FINGERPRINTS_BYTES) if head >= WITH_FINGERPRINTS else None


def _reply(items: bytes, range_: Range, fingerprints: bytes | None) -> bytes:
    places, own = _kernel.split(items, range_.low, 4 * range_.depth)
    if fingerprints is None:
        return _mark(items, range_, places[0], places[PARTS], RANGE_ITEMS_MAX)
    marks = [bytes([SAME])] * PARTS
    for i in _differing(own, fingerprints):
        marks[i] = _mark(items, range_.part(i), places[i], places[i + 1], RANGE_ITEMS_TARGET)
    return b"".join(marks)


class _Asked(NamedTuple):
    range: Range
    places: list[int]
    whole: bool  # asked for its items, not for those of its parts that differ


class Asker:
    """A taker's side of ranges: ask `question` and `receive` the answer, until there is no question."""

    def __init__(self, items: bytes) -> None:
        self._items = items
        self._open = [WHOLE]  # ranges that differ, ascending
        self._asked: list[_Asked] = []
        self._rounds = 0
        self._theirs: list[bytes] = []
        self._ours: list[bytes] = []

    def question(self) -> bytes | None:
        """What to ask next; None when the difference is complete."""
        self._asked = []
        out, awaited = bytearray(), 0
        for range_ in self._open:
            places, fingerprints = _kernel.split(self._items, range_.low, 4 * range_.depth)
            whole = places[PARTS] - places[0] <= RANGE_ITEMS_TARGET
            head = range_.depth | (0 if whole else WITH_FINGERPRINTS)
            entry = bytes([head]) + range_.low.to_bytes(8, "big")[: (range_.depth + 1) // 2]
            entry += b"" if whole else fingerprints
            awaited += ITEM_BYTES * RANGE_ITEMS_TARGET if whole else PARTS * FINGERPRINTS_BYTES
            if self._asked and (len(out) + len(entry) > RANGE_QUESTION_BYTES_MAX or awaited > RANGE_ANSWER_BYTES_MAX):
                break
            out += entry
            self._asked.append(_Asked(range_, places, whole))
        return bytes(out) or None

    def receive(self, answer: bytes) -> None:
        """Take the answer to the last question. DecodeError for one that is none, or for answers without end."""
        self._rounds += 1
        if not answer or len(answer) > RANGE_ANSWER_BYTES_MAX or self._rounds > RANGE_ROUNDS_MAX:
            raise DecodeError("an answer about ranges that is empty, too long or one too many")
        reader, answered, found = _Reader(answer), 0, []
        for asked in self._asked:
            if not reader:
                break
            found += self._read_marks(reader, asked)
            answered += 1
        if reader:
            raise DecodeError("an answer to more than was asked")
        self._open[:answered] = found
        if len(self._theirs) + len(self._ours) > RANGE_FOUND_MAX:
            raise DecodeError("answers about ranges that list items without end")
        if len(self._open) > RANGES_OPEN_MAX:
            raise DecodeError("answers about ranges that differ without end")
        self._asked = []

    @property
    def difference(self) -> Difference:
        """The items found so far: all of them once there is no question."""
        return Difference(b"".join(sorted(self._theirs)), b"".join(sorted(self._ours)))

    def _read_marks(self, reader: _Reader, asked: _Asked) -> list[Range]:
        """The ranges that are open after what the giver said about one."""
        if asked.whole:
            return self._read_mark(reader, asked.range, asked.places[0], asked.places[PARTS], is_whole=True)
        found = []
        for i in range(PARTS):
            found += self._read_mark(reader, asked.range.part(i), *asked.places[i : i + 2], is_whole=False)
        return found

    def _read_mark(self, reader: _Reader, range_: Range, start: int, stop: int, *, is_whole: bool) -> list[Range]:
        mark = reader.number(1)
        if mark == SAME and not is_whole:
            return []
        if mark == SPLIT and range_.depth < DEPTH_MAX:
            other = reader.take(FINGERPRINTS_BYTES)
            return [range_.part(i) for i in _differing(self._parts(range_), other)]
        if mark == ITEMS:
            own = set(each(self._items[start * ITEM_BYTES : stop * ITEM_BYTES]))
            theirs = self._read_items(reader, range_)
            self._theirs += theirs - own
            self._ours += own - theirs
            return []
        raise DecodeError("not a mark of a range")

    def _parts(self, range_: Range) -> bytes:
        return _kernel.split(self._items, range_.low, 4 * range_.depth)[1]

    def _read_items(self, reader: _Reader, range_: Range) -> set[bytes]:
        count, known = reader.number(2), range_.depth // 2
        prefix = range_.low.to_bytes(8, "big")[:known]
        found = [prefix + reader.take(ITEM_BYTES - known) for _ in range(count)]
        first, last = range_.low.to_bytes(8, "big"), (range_.end - 1).to_bytes(8, "big")
        if found != sorted(set(found)) or (found and not first <= found[0] <= found[-1] <= last):
            raise DecodeError("items of a range that do not ascend within it")
        return set(found)
