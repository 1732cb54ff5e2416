"""The kernels alone, in nanoseconds a cell, beside copying the same bytes."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench import clock, data
from bench.runner import Result, Target
from fieldsync import record
from fieldsync.context import Context
from fieldsync.syncing import reconcile

CONTENDERS = ("fieldsync", "memcpy")
NOTES = {
    "encode_ns, decode_ns": "a cell of new records of 10 fields, from and to Python values",
    "merge_nothing_ns, _half, _all": "a cell of a record with 10 fields, of which so many were edited; digest included",
    "diff_ns": "an interval of two contexts of 1,000 intervals each, one taken from the other",
    "digest_ns": "a cell of new records",
    "sketch_ns": "an item of a sketch of 1,500 symbols",
    "memcpy": "the same bytes copied, cut as they are",
}
TARGETS = (Target("fieldsync_merge_nothing_ns", 50),)  # 20M cells a second, without hashing any
FIELDS = len(data.FIELDS)
CELLS = FIELDS + 1  # with the record's own
TIME = 1_767_225_600_000 << 16
REPEAT = 5
AUTHORS, INTERVALS = 100, 10


def measure(contender: str, count: int, _folder: Path) -> Result:
    """Time each kernel on the same records, or copies of what it takes; the digest is of what it makes."""
    subjects = _subjects(data.records(count))
    data.set_aside()
    is_copy = contender == "memcpy"
    figures: dict[str, float] = {}
    hasher = hashlib.sha256()
    for name, (call, cells, taken) in subjects.items():
        hasher.update(repr(call()).encode())
        seconds = [_seconds(_copy(taken) if is_copy else call) for _ in range(REPEAT)]
        figures[f"{name}_ns"] = median(seconds) / cells * 1e9
    return Result(figures, hasher.hexdigest())


def _seconds(call: Callable[[], Any]) -> float:
    began = clock.now()
    call()
    return clock.now() - began


def _copy(pieces: list[bytes]) -> Callable[[], Any]:
    """What copies each: a slice of a whole bytes would be the same object."""
    views = [memoryview(piece) for piece in pieces]
    return lambda: [view.tobytes() for view in views]


def _subjects(records: data.Records) -> dict[str, tuple[Callable[[], Any], int, list[bytes]]]:
    """By kernel: the call, how many cells it works on, the bytes that it reads or makes."""
    names = [(name, 8) for name in data.FIELDS]
    numbers = record.Dictionary().with_authors([b"author-1", b"author-2"]).with_fields(names)
    ids = tuple(range(1, FIELDS + 1))
    rows = [(n, ids, tuple(row.values())) for n, (_, row) in enumerate(records)]
    packed = record.create(numbers, 1, 1, TIME, rows)
    keys, cells = [key for key, _ in records], len(records) * CELLS
    key = record.digest_key("bench")

    def pieces(share: int) -> list[bytes]:
        """Edits of that many fields of each record."""
        items: list[record.WriteItem] = [(old, tuple((i, "new") for i in ids[:share]), (), ()) for old in packed]
        return [piece for piece, *_ in record.write(numbers, 2, 1, TIME + 1, items)]

    def merging(news: list[bytes]) -> tuple[Callable[[], Any], int, list[bytes]]:
        pairs = list(zip(packed, news, strict=True))
        items: list[record.MergeItem] = [
            ((old,), (new,), (), ("things", one)) for (old, new), one in zip(pairs, keys, strict=True)
        ]
        return lambda: record.merge_all(numbers, key, items), cells, [piece for pair in pairs for piece in pair]

    absent = (None,) * FIELDS
    one, other = _context(0), _context(5)
    items = reconcile.items_of([part.encode() for part in keys], key)
    return {
        "encode": (lambda: record.create(numbers, 1, 1, TIME, rows), cells, packed),
        "decode": (lambda: [record.read(numbers, one, ids, absent) for one in packed], cells, packed),
        "merge_nothing": merging(packed),
        "merge_half": merging(pieces(FIELDS // 2)),
        "merge_all": merging(pieces(FIELDS)),
        "diff": (lambda: [one - other for _ in range(100)], 200 * AUTHORS * INTERVALS, [one.data, other.data] * 100),
        "digest": (lambda: record.digest_of_new(numbers, key, packed, "things", keys), cells, packed),
        "sketch": (lambda: reconcile.symbols(items, 0, 1_500), len(records), [items]),
    }


def _context(shift: int) -> Context:
    """So many intervals of so many authors."""
    return Context.of(
        (author.to_bytes(8), 1 + 20 * place + shift, 10 + 20 * place + shift)
        for author in range(1, AUTHORS + 1)
        for place in range(INTERVALS)
    )


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "kernels", *sys.argv[1:]]))
