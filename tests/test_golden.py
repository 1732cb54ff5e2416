"""The formats of files and wire, pinned: what an earlier version wrote is in golden/, and must be read and made alike.

FIELDSYNC_GOLDEN=write writes the files anew. Only a new format version is a reason to.
"""

import datetime as dt
import math
import os
import re
from decimal import Decimal
from pathlib import Path

import pytest
from tests import canonical, model
from tests.model import Address, Cell, Incarnation, Name, Numbers, Removal, Stamp

from fieldsync._native import chunk_decode, chunk_encode, codec, diff, merge, read, write
from fieldsync._native import removals as removals_kernel
from fieldsync._native.codec import Unknown

FOLDER = Path(__file__).parent / "golden"
A, B, C, D = map(bytes.fromhex, ("0123456789abcdef", "ff00ff00ff00ff00", "0000000000000001", "8000000000000000"))
PRICE, STATUS, NEW = Address("price", 0x08), Address("status", 0x08), Address("größe", 0x40)
HOURS, NOTES, RIGHTS = Address("hours", 0x14), Address("notes", 0x29), Address("rights", 0x22, A + B)
URGENT, SEVEN = (Address("tags", 0x1B, codec.encode(element)) for element in ("urgent", 7))
NUMBERS = Numbers.of([A, B, C, D], [address[:2] for address in (PRICE, STATUS, HOURS, URGENT, NOTES, RIGHTS, NEW)])
FIELDS, AUTHORS = NUMBERS.field_bytes, NUMBERS.author_bytes
KEY = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
RECORD = ("orders", "o-17")
RECORD_NAME = codec.encode([*RECORD])
YEAR_2026 = 1_767_225_600_000 << 16

VALUES = [
    *(None, False, True, 0, -16, 47, -17, 48, 2**63 - 1, -(2**63)),
    *(0.0, 1.5, -1e300, 5e-324, math.inf, -math.inf, math.nan),
    *(Decimal(0), Decimal("-0"), Decimal("5.00"), Decimal("-12.50"), Decimal("1e100000"), Decimal(2**64)),
    *("", "a", "größe", "\U0001f69a", "x" * 63, "x" * 64, b"", b"\x00\xff"),
    *(dt.date(1970, 1, 1), dt.date(1969, 12, 31), dt.date.min, dt.date.max),
    *(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=dt.UTC)),
    *([], [1, [2.0, []], "x"], {}, {"": [], "a": {"größe": None}, "b": 1}),
    *(Unknown(12, b""), Unknown(160, b"new"), Unknown(255, b"x" * 130)),
]


def check(name, made):
    """Compare named bytes to the file of that name."""
    path = FOLDER / f"{name}.hex"
    if os.environ.get("FIELDSYNC_GOLDEN") == "write":
        path.write_text("".join(as_lines(key, data.hex()) for key, data in made.items()), encoding="utf-8")
    parts = [part.split("\n", 1) for part in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))]
    kept = {key: bytes.fromhex("".join(lines)) for key, *lines in parts}
    assert made == kept
    return kept


def as_lines(key, text):
    """A name, and below it its bytes."""
    return f"{key}\n" + "".join(f"    {text[i : i + 96]}\n" for i in range(0, len(text), 96))


def cell(address, author, seq, value, seen=(), time=0):
    return Cell(address, Stamp(YEAR_2026 + time, author, seq), codec.encode(value), model.join(seen))


def everything():
    """A record with two living incarnations, one without existence cell, and cells of all kinds."""
    first = [
        cell(PRICE, A, 1, Decimal("19.90")),
        cell(PRICE, B, 7, Decimal("21.00"), [(C, 3), (D, 2**62)], 65_536),
        cell(PRICE, C, 4, None, [(D, 9)], 1),
        cell(STATUS, A, 2, "done", [(B, 3)], -1),
        cell(HOURS, A, 1, 0),
        cell(HOURS, B, 8, 7.5, (), 131_072),
        cell(URGENT, A, 1, None),
        cell(URGENT, B, 2, None),
        cell(SEVEN, C, 1, None),
        cell(NOTES, D, 1, b"\x01\x02", [(A, 5), (B, 1)]),
        cell(NOTES, D, 2, b"\x03"),
        cell(RIGHTS, A, 3, 12, [(B, 9)]),
        cell(NEW, C, 5, Unknown(200, b"from a later version")),
    ]
    second = [cell(PRICE, B, 7, Decimal("21.00"), (), 65_536)]
    headless = [cell(STATUS, B, 9, ["a", {"b": 1}], [(A, 4)])]
    return {
        Name(A, 1, 0): Incarnation(YEAR_2026, frozenset(first)),
        Name(B, 6, 999): Incarnation(2**63 - 1, frozenset(second)),
        Name(C, 1, 1): Incarnation(None, frozenset(headless)),
        Name(D, 2**63 - 2, 2**32 - 1): Incarnation(0, frozenset()),
    }


def many_stamps():
    """More stamps than the first byte of a cell can name."""
    tags = [URGENT._replace(sub=codec.encode(i)) for i in range(40)]
    cells = [cell(tag, (A, B, C, D)[i % 4], 100 - i, None, (), i * i) for i, tag in enumerate(tags)]
    return {Name(A, 60, 0): Incarnation(YEAR_2026, frozenset(cells))}


RECORDS = {"everything": everything(), "many stamps": many_stamps(), "nothing": {}}


def merged(record):
    item = (), (NUMBERS.pack(record),), (), RECORD
    (outcome,), digest = merge.merge([item], KEY, FIELDS, AUTHORS)
    live, headless, _ = outcome or (b"", (), ())
    return live, [row[3] for row in headless], digest


def test_values():
    kept = check("values", {f"{i}: {repr(value)[:60]}": codec.encode(value) for i, value in enumerate(VALUES)})
    assert len(kept) == len(VALUES)
    assert [repr(codec.decode(data)) for data in kept.values()] == list(map(repr, VALUES))


def test_records():
    made = {}
    for name, record in RECORDS.items():
        live, headless, _ = merged(record)
        made |= {f"{name}: live": live} | {f"{name}: headless {i}": data for i, data in enumerate(headless)}
        assert live == NUMBERS.pack(model.living(record))
    kept = check("records", made)
    assert read.read_all(kept["everything: live"], FIELDS, AUTHORS) == {
        "price": Decimal("21.00"),
        "status": "done",
        "hours": 7.5,
        "größe": Unknown(200, b"from a later version"),
        "tags": (7, "urgent"),
    }


def test_writes():
    row = (3, (2, 1), ("open", 5))
    (born,) = write.create(1, 1, YEAR_2026, [row], FIELDS)
    live = NUMBERS.pack(model.living(everything()))
    ((written, _, _),) = write.write([(live, ((1, 1), (2, None)), ((3, 2),), ())], 3, 6, 5, FIELDS, AUTHORS)
    check("writes", {"created": born, "written over everything": written})


def test_removals():
    made = {}
    for name, record in RECORDS.items():
        for author, seq, n, item in removals_kernel.removals(NUMBERS.pack(record), FIELDS):
            made[f"{name}: of ({author}, {seq}, {n})"] = item
    kept = check("removals", made)
    (item,) = [data for key, data in kept.items() if key.startswith("many")]
    packed = merged(many_stamps())[0]
    (outcome,), _ = merge.merge([((packed,), (), ((1, 60, 0, item),), None)], KEY, FIELDS, AUTHORS)
    assert outcome[:2] == (b"", ())


def test_digests():
    made = {name: merged(record)[2] for name, record in RECORDS.items()}
    check("digests", made)
    for name, record in RECORDS.items():
        assert int.from_bytes(made[name], "little") == model.digest(record, RECORD_NAME, KEY)


CONTEXTS = {
    "nothing": [],
    "one dot": [(A, 1, 1)],
    "a vector": [(A, 1, 300), (B, 1, 2), (D, 1, 2**40)],
    "with clouds": [(A, 1, 5), (A, 7, 7), (A, 1000, 2**32), (C, 3, 4)],
    "the highest number": [(C, 1, 1), (C, 2**63 - 2, 2**63 - 2), (D, 1, 2**63 - 2)],
}


def test_contexts():
    kept = check("contexts", {name: diff.build(runs) for name, runs in CONTEXTS.items()})
    assert {name: diff.intervals(data) for name, data in kept.items()} == {n: sorted(r) for n, r in CONTEXTS.items()}


def changes():
    """A creation, writes, a removal and a dismissal, of two records."""
    live = NUMBERS.pack(model.living(everything()))
    headless = NUMBERS.pack({name: inc for name, inc in everything().items() if inc.time is None})
    records = [(live, (1, "o-17")), (headless, (1, "o-17"))]
    (other,) = write.create(1, 1, YEAR_2026, [(1, (1, 2), (5, "x" * 70))], FIELDS)
    removals = [(4, 2, 0, bytes([1, 0])), *removals_kernel.removals(live, FIELDS)]
    return [
        (1, 1, YEAR_2026, 0, 6, [*records, (other, (0, "größe"))], []),
        (2, 7, YEAR_2026 + 65_536, 0, 2, records, []),
        (4, 3, YEAR_2026 + 70_000, 2, 4, [], removals),
        (2, 9, YEAR_2026, 0, 1, records, []),
        (3, 7, YEAR_2026 - 5, 3, 1, [], removals_kernel.removals(headless, FIELDS)),
        (4, 4, YEAR_2026, 1, 0, [], []),
    ]


def test_chunks():
    streams, authors, fields = chunk_encode.encode(changes(), FIELDS, 5)
    made = {"authors": bytes(authors), "fields": bytes(fields)} | {f"stream {i}": s for i, s in enumerate(streams)}
    kept = list(check("chunks", made).values())
    taken = chunk_decode.decode(kept[2:], 6, list(kept[0]), list(kept[1]), 2, 100, FIELDS)
    assert [change[:5] for change in taken] == [change[:5] for change in changes()]
    assert [change[6] for change in taken] == [change[6] for change in changes()]
    again = [(*head, [(packed, name) for *_, name, packed in pieces], removals) for *head, pieces, removals, _ in taken]
    assert chunk_encode.encode(again, FIELDS, 5) == (streams, authors, fields)


def test_what_a_removal_of_one_element_looks_like():
    """No kernel makes these yet, but all hold them against what comes."""
    removal = Removal(Name(A, 1, 0), False, {URGENT: ((), frozenset([(A, 1), (B, 2)]))})
    item = NUMBERS.pack_removal(removal)
    check("element", {"tags: urgent": item})
    packed = NUMBERS.pack(model.living(everything()))
    (outcome,), _ = merge.merge([((packed,), (), ((1, 1, 0, item),), None)], KEY, FIELDS, AUTHORS)
    assert outcome[0] == NUMBERS.pack(model.living(model.remove(everything(), [removal])))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "a3817f04ba25a8e66df67214c7550293"), (1, "da87c1d86b99af44347659119b22fc45")],
)
def test_the_models_siphash_is_that_of_the_reference_code(size, expected):
    assert canonical.siphash(KEY, bytes(range(size))).to_bytes(16, "little").hex() == expected
