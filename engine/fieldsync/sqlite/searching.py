"""The search tables of a file: FTS5 over the columns of records, without a second copy of their text.

The writer keeps them, in the transaction that writes the rows: a trigger would make SQLite write the index out at every
row, which takes five times as long.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync import search
from fieldsync.errors import SchemaError
from fieldsync.query import quote
from fieldsync.sqlite.layout import record_table, search_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fieldsync.store import CollectionRow, Searched


class SearchTable:
    """The search table of one collection that is searched; `records`: the table that has its rows now."""

    def __init__(self, row: CollectionRow, searched: Searched, records: str = "") -> None:
        content = record_table(row.id)
        self.name = search_table(row.id)
        self.view = quote(f"fs_search_{row.name}")
        self._row = row
        self._searched = searched
        self._records = records or content
        self._options = f"content='{content}', content_rowid='_id'"
        places = {column.name: place for place, column in enumerate(row.columns, 1)}
        self._places = [places[name] for name in searched.columns]  # in a row that begins with its number
        self._columns = ", ".join(map(quote, searched.columns))

    def make(self, db: apsw.Connection) -> None:
        """Make it, empty; SchemaError where SQLite refuses the declaration."""
        try:
            db.execute(search.table_sql(self.name, self._searched, self._options))
        except apsw.SQLError as error:
            raise SchemaError(f"collection {self._row.name!r} cannot be searched: {error}") from None

    def make_view(self, db: apsw.Connection) -> None:
        """Make the view by which apps and SQL tools search: key, scope, rank, fields and, for MATCH, its own name."""
        fields = "".join(f", r.{quote(column.name)}" for column in self._row.columns if column.name.lower() != "rank")
        db.execute(
            f"CREATE VIEW {self.view} AS SELECT r._key AS key, s.name AS scope, w.rank AS rank{fields}, "
            f"w.{self.name} AS {self.view} FROM {self.name} w JOIN {record_table(self._row.id)} r ON r._id=w.rowid "
            "JOIN fs_scope s ON s.id=r._scope"
        )

    def rebuild(self, db: apsw.Connection) -> None:
        """Make it anew from the columns."""
        drop(db, self._row)
        self.make(db)
        self.enter(db, "1", ())
        self.make_view(db)

    def enter(self, db: apsw.Connection, where: str, bindings: Sequence[Any]) -> None:
        """Enter the words of rows, which are there and whose words are not."""
        db.execute(
            f"INSERT INTO {self.name}(rowid, {self._columns}) SELECT _id, {self._columns} FROM {self._records} "
            f"WHERE {where} ORDER BY _id",
            tuple(bindings),
        )

    def leave(self, db: apsw.Connection, where: str, bindings: Sequence[Any]) -> None:
        """Take the words of rows away, which are still there as they were when their words were entered."""
        db.execute(
            f"INSERT INTO {self.name}({self.name}, rowid, {self._columns}) SELECT 'delete', _id, {self._columns} "
            f"FROM {self._records} WHERE {where}",
            tuple(bindings),
        )

    def differing(self, db: apsw.Connection, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        """Of rows as they will be, the numbers of those whose words will be others."""
        where, bindings = of_ids([row[0] for row in rows])
        sql = f"SELECT _id, {self._columns} FROM {self._records} WHERE {where}"
        known = {number: values for number, *values in db.execute(sql, bindings)}
        return [row[0] for row in rows if not _is_same(known.get(row[0]), [row[place] for place in self._places])]

    def is_sound(self, db: apsw.Connection) -> bool:
        """Whether it has just the words of the columns; asks for a connection that may write."""
        try:
            db.execute(f"INSERT INTO {self.name}({self.name}, rank) VALUES('integrity-check', 1)")
        except (apsw.CorruptError, apsw.SQLError, apsw.NoMemError):
            return False
        return True


def _is_same(known: list[Any] | None, values: list[Any]) -> bool:
    return known == values and list(map(type, known)) == list(map(type, values))  # as texts 1 and 1.0 differ


def table_of(row: CollectionRow, records: str = "") -> SearchTable | None:
    """The search table of a collection, if any of its columns is searched."""
    return SearchTable(row, row.search, records) if row.search else None


def drop(db: apsw.Connection, row: CollectionRow) -> None:
    """Take a collection's search table and its view away, if there are any."""
    db.execute(f"DROP VIEW IF EXISTS {quote('fs_search_' + row.name)}")
    table = search_table(row.id)
    try:
        db.execute(f"DROP TABLE IF EXISTS {table}")
    except (apsw.SQLError, apsw.NoMemError):  # what FTS5 keeps of the table is damaged: give it what it wants to see
        db.execute(f"CREATE TABLE IF NOT EXISTS {table}_config(k PRIMARY KEY, v) WITHOUT ROWID")
        db.execute(f"REPLACE INTO {table}_config VALUES('version', 4)")
        db.execute(f"DROP TABLE {table}")


def tables_of(rows: Iterable[CollectionRow]) -> list[SearchTable]:
    """The search tables of some collections, as far as they are searched."""
    return [words for row in rows if (words := table_of(row))]


def of_ids(ids: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
    """The condition that finds rows by their numbers, and its bindings."""
    if ids and ids[-1] - ids[0] == len(ids) - 1 and list(ids) == list(range(ids[0], ids[-1] + 1)):
        return "_id BETWEEN ? AND ?", (ids[0], ids[-1])
    return "_id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
