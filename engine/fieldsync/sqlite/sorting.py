"""Sorting more rows than memory should hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Sorter:
    """Rows of so many integers each, in a file of SQLite's own that goes with it."""

    def __init__(self, columns: int) -> None:
        self._db = apsw.Connection("")
        names = [f"c{place}" for place in range(columns)]
        self._order = ", ".join(names)
        self._insert = f"INSERT INTO rows VALUES({', '.join('?' * columns)})"
        self._db.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-4000")
        self._db.execute(f"CREATE TABLE rows({self._order}); BEGIN")

    def add(self, rows: Iterable[tuple[int, ...]]) -> None:
        """Take more rows."""
        self._db.executemany(self._insert, rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._db.execute(f"SELECT * FROM rows ORDER BY {self._order}")
