"""Looking at a file for damage: what SQLite says of it, rows of no scope, and what is kept, row by row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync.query import quote
from fieldsync.sqlite.layout import load_change, record_table
from fieldsync.store import HEADLESS, ChangeRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fieldsync.record import Removal
    from fieldsync.store import CollectionRow, Dot

OF_SCOPES = ("fs_change", "fs_removal", "fs_context", "fs_provisional")
NUMBERED = {  # tables whose numbers have no gaps, and what makes a row of one right
    "fs_author": "typeof(name)='blob' AND length(name)=8 AND name<>zeroblob(8)",
    "fs_field": "typeof(name)='text' AND kind BETWEEN 1 AND 255",
    "fs_collection": "typeof(name)='text'",
}


class Inspector:
    """Reads what a look for damage needs; see store.Reader."""

    _db: apsw.Connection

    def _collections(self) -> list[int]:
        return [number for (number,) in self._db.execute("SELECT id FROM fs_collection ORDER BY id")]

    def damage(self, most: int) -> list[str]:
        """What SQLite finds wrong with its pages and indexes, and what is wrong with the file's tables of numbers."""
        found: list[str] = []
        try:
            for (text,) in self._db.execute(f"PRAGMA integrity_check({int(most)})"):
                found += [text] if text != "ok" else []
        except (apsw.CorruptError, apsw.SQLError) as error:  # the second of a search table
            found.append(str(error))
        except apsw.NoMemError:  # it asks for what a damaged search table says that it has
            found.append("fts5: out of memory")
        for table, rule in NUMBERED.items():
            row: Any = self._db.execute(f"SELECT count(*), max(id), total({rule}) FROM {table}").fetchone()
            count, last, good = row
            if count != (last or 0) or count != good:
                found.append(f"{table} does not number 1 to {count}, or not what it has to")
        return found

    def count_rows(self) -> int:
        """How many rows of records and orphans there are."""
        tables = ["fs_orphan", *map(record_table, self._collections())]
        return sum(self._db.execute(f"SELECT count(*) FROM {table}").get for table in tables)

    def strays(self) -> tuple[list[tuple[int, int]], int]:
        """Rows of no scope: (collection, number) of records and orphans, and how many others."""
        unknown = "NOT IN (SELECT id FROM fs_scope)"
        places = [(HEADLESS, row) for (row,) in self._db.execute(f"SELECT id FROM fs_orphan WHERE scope {unknown}")]
        for number in self._collections():
            sql = f"SELECT _id FROM {record_table(number)} WHERE _scope {unknown}"
            places += [(number, row) for (row,) in self._db.execute(sql)]
        count = "SELECT count(*) FROM {} WHERE scope " + unknown
        return places, sum(self._db.execute(count.format(table)).get for table in OF_SCOPES)

    def indexed(self, scope: int) -> Iterator[tuple[ChangeRow, bool]]:
        """All changes of the index in the order of their dots, and whether their entries could be read."""
        sql = "SELECT author, seq, time, flags, parts, live, entries FROM fs_change WHERE scope=? ORDER BY author, seq"
        rows: Any = self._db.execute(sql, (scope,))
        for row in rows:
            try:
                yield load_change(row), True
            except (ValueError, TypeError):
                author, seq, time, flags, parts, live, _ = row
                yield ChangeRow(author, seq, time, flags, parts, live, []), False

    def removal_log(self, scope: int) -> Iterator[tuple[Dot, Removal]]:
        """All kept removals with the dots of their changes, in the order of these."""
        sql = (
            "SELECT author, seq, inc_author, inc_seq, inc_n, item FROM fs_removal WHERE scope=? "
            "ORDER BY author, seq, inc_author, inc_seq, inc_n"
        )
        for author, seq, *removal in self._db.execute(sql, (scope,)):
            yield (author, seq), tuple(removal)

    def shown(self, collection: CollectionRow, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """What the columns of records show, by their numbers."""
        names = "".join(f", {quote(name)}" for name, *_ in collection.columns)
        sql = f"SELECT _id{names} FROM json_each(?) CROSS JOIN {record_table(collection.id)} ON _id=json_each.value"
        return {row[0]: row[1:] for row in self._db.execute(sql, (json.dumps(ids),))}

    def intervals(self, scope: int) -> list[tuple[int, int, int]]:
        """The context as it is kept: (author id, low, high)."""
        sql = "SELECT author, low, high FROM fs_context WHERE scope=? ORDER BY author, low"
        rows: Any = self._db.execute(sql, (scope,)).fetchall()
        return list(rows)

    def givers(self, scope: int) -> list[tuple[int, int, bytes | None]]:
        """The provisional dots as they are kept: (author id, seq, context of the giver or None)."""
        sql = (
            "SELECT author, seq, context FROM fs_provisional LEFT JOIN fs_giver ON fs_giver.id=giver WHERE scope=? "
            "ORDER BY author, seq"
        )
        rows: Any = self._db.execute(sql, (scope,)).fetchall()
        return list(rows)
