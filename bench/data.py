"""The records and edits that every contender gets: seeded, so that all hold the same values at the end."""

from __future__ import annotations

import base64
import gc
import hashlib
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = dict[str, Any]
Records = list[tuple[str, Row]]  # (key, row)

FIELDS: dict[str, type] = {
    "customer": str,
    "street": str,
    "city": str,
    "phone": str,
    "code": str,
    "status": str,
    "quantity": int,
    "priority": int,
    "price": float,
    "urgent": bool,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
STATUSES = ("open", "scheduled", "done", "invoiced")


class Edit(NamedTuple):
    """One field of one record set to a value."""

    key: str
    field: str
    value: Any


def _makers(chance: Random) -> dict[str, Callable[[], Any]]:
    """How each field's values are drawn: names from a vocabulary, the rest at random; about 80 bytes a record."""

    def words(count: int, low: int, high: int) -> list[str]:
        return ["".join(chance.choices(LETTERS, k=chance.randint(low, high))).title() for _ in range(count)]

    customers, streets, cities = words(3_000, 10, 18), words(1_000, 7, 13), words(300, 5, 10)
    return {
        "customer": lambda: chance.choice(customers),
        "street": lambda: f"{chance.choice(streets)} {chance.randrange(1, 200)}",
        "city": lambda: chance.choice(cities),
        "phone": lambda: f"0{chance.randrange(10**10):010}",
        "code": lambda: "".join(chance.choices(LETTERS, k=8)),
        "status": lambda: chance.choice(STATUSES),
        "quantity": lambda: chance.randrange(100_000),
        "priority": lambda: chance.randrange(1, 6),
        "price": lambda: chance.randrange(10**7) / 100,
        "urgent": lambda: chance.random() < 0.1,
    }


def records(count: int, seed: int = 1) -> Records:
    """So many records of 10 fields under random keys of 22 characters."""
    chance = Random(seed)
    makers = _makers(chance)
    return [
        (base64.urlsafe_b64encode(chance.randbytes(16)).decode()[:22], {name: make() for name, make in makers.items()})
        for _ in range(count)
    ]


def edits(keys: list[str], count: int, seed: int) -> list[Edit]:
    """New values of random fields of random records."""
    chance = Random(seed)
    makers = _makers(chance)
    names = list(FIELDS)
    drawn = [(chance.choice(keys), chance.choice(names)) for _ in range(count)]
    return [Edit(key, name, makers[name]()) for key, name in drawn]


def overwrites(keys: list[str], seed: int) -> list[Edit]:
    """A new value of one field, always the same, of every record, in random order."""
    chance = Random(seed)
    makers = _makers(chance)
    names = list(FIELDS)
    made = [Edit(key, name, makers[name]()) for key, name in zip(keys, names * (len(keys) // 10 + 1), strict=False)]
    chance.shuffle(made)
    return made


def set_aside() -> None:
    """Keep what was made so far out of garbage collections: contenders should not pay for the harness's objects."""
    gc.collect()
    gc.freeze()


def batches(every: list[Edit], size: int = 1_000) -> list[list[Edit]]:
    """The edits of one transaction each."""
    return [every[start : start + size] for start in range(0, len(every), size)]


def edited(rows: Iterable[tuple[str, Row]], every: Iterable[Edit]) -> dict[str, Row]:
    """Copies of the rows by key, after the edits."""
    found = {key: dict(row) for key, row in rows}
    for key, name, value in every:
        found[key][name] = value
    return found


def digest(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A hash of all values; as declared, because SQLite gives ints for bools and pycrdt floats for a peer's ints."""
    hasher = hashlib.blake2b(digest_size=8)
    for key in sorted(rows):
        row = rows[key]
        hasher.update(repr((key, [kind(row[name]) for name, kind in FIELDS.items()])).encode())
    return hasher.hexdigest()
