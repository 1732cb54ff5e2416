"""Lookups by key, by an indexed field and by one without, ranges, and counts, in a table of records."""

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from bench import clock, data, peers
from bench.data import STATUSES
from bench.runner import Result

CONTENDERS = ("fieldsync", "sqlite3")
NOTES = {
    "key_us, indexed_us": "one record by its key; those of one quantity, which is indexed, about one",
    "range_ms": "all records of a hundredth of the quantities",
    "scan_ms, count_ms": "the records of one code, which is not indexed; how many have a status, which is not either",
    "medians": "all of them; records as objects of their class, in sqlite3 tuples",
}
TARGETS = ()
LOOKUPS = 500
SCANS = 10
QUANTITIES = 100_000


class Fieldsync(peers.Fieldsync):
    """With an index."""

    def declared(self, *, indexed: bool = True) -> Any:
        """The class of the records."""
        return super().declared(indexed=indexed)

    def by_key(self, key: str) -> Any:
        """One record."""
        return [self.db[self.thing].get(key, scope=peers.SCOPE)]

    def indexed(self, quantity: int) -> Any:
        """The records of a quantity."""
        return self.db[self.thing].where(quantity=quantity).all()

    def range(self, low: int, high: int) -> Any:
        """The records of quantities from one to below the other."""
        return self.db[self.thing].where(quantity__ge=low, quantity__lt=high).all()

    def scan(self, code: str) -> Any:
        """The records of a code."""
        return self.db[self.thing].where(code=code).all()

    def count(self, status: str) -> int:
        """How many records have a status."""
        found: int = self.db[self.thing].where(status=status).count()
        return found

    @staticmethod
    def keys(found: Iterable[Any]) -> list[str]:
        """The keys of what was found."""
        return sorted(record.key for record in found)


class Sqlite(peers.Sqlite):
    """With an index."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.db.execute("CREATE INDEX by_quantity ON things(quantity)")

    def by_key(self, key: str) -> Any:
        """One record."""
        return self.db.execute("SELECT * FROM things WHERE key=?", (key,)).fetchall()

    def indexed(self, quantity: int) -> Any:
        """The records of a quantity."""
        return self.db.execute("SELECT * FROM things WHERE quantity=?", (quantity,)).fetchall()

    def range(self, low: int, high: int) -> Any:
        """The records of quantities from one to below the other."""
        return self.db.execute("SELECT * FROM things WHERE quantity>=? AND quantity<?", (low, high)).fetchall()

    def scan(self, code: str) -> Any:
        """The records of a code."""
        return self.db.execute("SELECT * FROM things WHERE code=?", (code,)).fetchall()

    def count(self, status: str) -> int:
        """How many records have a status."""
        found: int = self.db.execute("SELECT count(*) FROM things WHERE status=?", (status,)).get
        return found

    @staticmethod
    def keys(found: Iterable[Any]) -> list[str]:
        """The keys of what was found."""
        return sorted(row[0] for row in found)


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build, then ask; the digest is of all that was found."""
    records = data.records(count)
    chance = Random(4)
    some = chance.choices(records, k=LOOKUPS)
    lows = [chance.randrange(QUANTITIES) for _ in range(SCANS)]
    make = {"fieldsync": Fieldsync, "sqlite3": Sqlite}[contender]
    data.set_aside()
    peer: Any = make(folder)
    peer.build(records)
    hasher = hashlib.sha256()

    def timed(ask: Callable[..., Any], questions: Iterable[tuple[Any, ...]]) -> float:
        seconds = []
        for question in questions:
            began = clock.now()
            found = ask(*question)
            seconds.append(clock.now() - began)
            hasher.update(repr(found if isinstance(found, int) else peer.keys(found)).encode())
        return median(seconds)

    figures = {
        "key_us": timed(peer.by_key, ((key,) for key, _ in some)) * 1e6,
        "indexed_us": timed(peer.indexed, ((row["quantity"],) for _, row in some)) * 1e6,
        "range_ms": timed(peer.range, ((low, low + QUANTITIES // 100) for low in lows)) * 1e3,
        "scan_ms": timed(peer.scan, ((row["code"],) for _, row in some[:SCANS])) * 1e3,
        "count_ms": timed(peer.count, ((status,) for status in STATUSES)) * 1e3,
    }
    peer.close()
    return Result(figures, hasher.hexdigest())


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "query", *sys.argv[1:]]))
