"""The rows of records: their columns, which follow from the cells, and the numbers of names in these."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.columns import convert
from fieldsync.errors import LimitExceeded
from fieldsync.limits import FIELDS_MAX
from fieldsync.query import column_value, quote
from fieldsync.sqlite import tails
from fieldsync.sqlite.layout import record_table
from fieldsync.sqlite.reader import SQLiteReader
from fieldsync.sqlite.searching import of_ids, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fieldsync.store import CollectionRow, Layout, Row


# Room in a new row for its first edit, whose stamp takes some 8 bytes: SQLite fills pages to the brim, and parts one in
# which a row grows into two.
ROOM = f"x'{bytes(16).hex()}'"


def spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges, (first, last) each."""
    if not numbers:
        return
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


class Form:
    """How one collection's records are written: SQL, and which values its columns hold."""

    def __init__(self, row: CollectionRow, table: str) -> None:
        names = "".join(f",{quote(name)}" for name, *_ in row.columns)
        # short, for the driver looks a statement up by its text, of each row
        into = f"INTO {table}(_id,_scope,_key{names},_cells,_room)"
        values = f"VALUES(?,?,?{',?' * len(row.columns)},?,{ROOM})"
        self.insert = f"INSERT {into} {values}"
        self.insert_new = f"INSERT OR IGNORE {into} {values}"
        columns = "".join(f"{quote(name)}=?{place}, " for place, (name, *_) in enumerate(row.columns, 2))
        self.update = f"UPDATE {table} SET {columns}_cells=?{len(row.columns) + 2}, _room=NULL WHERE _id=?1"
        self.columns = row.columns
        self.converts = any(column.conversion for column in row.columns)
        self.fields = [column.cell for column in row.columns]
        self.absent = tuple(column_value(column.default) for column in row.columns)
        self.search = table_of(row, table)


@lru_cache(maxsize=256)
def _form(row: CollectionRow) -> Form:
    return Form(row, record_table(row.id))


@lru_cache(maxsize=256)
def _layout(form: Form, fields: tuple[tuple[str, int], ...]) -> Layout | None:
    places = {field: place for place, field in enumerate(fields)}
    return None if form.converts else (tuple([places.get(field, -1) for field in form.fields]), form.absent)


class RowsWriter(SQLiteReader):
    """Writes rows; see store.Writer."""

    def author_ids(self, names: Sequence[bytes]) -> list[int]:
        """The numbers of authors, given to those that have none."""
        missing = [name for name in names if name not in self.dictionary.author_ids]
        if missing:
            self.dictionary = self.dictionary.with_authors(missing)
            ids = self.dictionary.author_ids
            self._db.executemany("INSERT INTO fs_author VALUES(?, ?)", [(ids[name], name) for name in missing])
        return [self.dictionary.author_ids[name] for name in names]

    def field_ids(self, names: Sequence[tuple[str, int]]) -> list[int]:
        """The numbers of (name, kind) pairs, given to those that have none."""
        missing = [pair for pair in dict.fromkeys(names) if pair not in self.dictionary.field_ids]
        if missing:
            if len(self.dictionary.field_names) + len(missing) > FIELDS_MAX:
                raise LimitExceeded(f"a file holds at most {FIELDS_MAX} names of fields")
            self.dictionary = self.dictionary.with_fields(missing)
            ids = self.dictionary.field_ids
            self._db.executemany("INSERT INTO fs_field VALUES(?, ?, ?)", [(ids[pair], *pair) for pair in missing])
        return [self.dictionary.field_ids[pair] for pair in names]

    def next_row(self, collection: int) -> int:
        """A row number above all that the collection's table has."""
        return (self._db.execute(f"SELECT max(_id) FROM {record_table(collection)}").get or 0) + 1

    def _form(self, collection: int) -> Form:
        return _form(next(row for row in self.collections() if row.id == collection))

    def _widen(self, form: Form, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Rows that end with a packed record, with the values of the columns before it."""
        if not form.fields:
            return rows
        wanted = tuple(self.field_ids(form.fields))
        widened = record.widen(self.dictionary, rows, wanted, form.absent, column_value)
        return convert(self.dictionary, form.columns, wanted, widened) if form.converts else widened

    def insert_rows(self, collection: int, rows: list[Row]) -> None:
        """Add records."""
        self._take_over(collection, rows)
        self.insert(self._form(collection), rows)

    def insert(self, form: Form, rows: list[Row]) -> None:
        """Add records to the table that a form is of."""
        self._db.executemany(form.insert, self._widen(form, rows))
        if form.search:
            form.search.enter(self._db, *of_ids([row.id for row in rows]))

    def layout(self, collection: int, fields: tuple[tuple[str, int], ...]) -> Layout | None:
        """Of each column the place among the fields of what it shows, or -1, and what without; None if one converts."""
        return _layout(self._form(collection), fields)

    def insert_wide(self, collection: int, rows: list[tuple[Any, ...]], *, may_be_there: bool) -> bool:
        """Add records as `layout` lays them out, numbered from the next row on.

        may_be_there: others of the same scope and key may be there; then False, and none is added, where one is.
        """
        form = self._form(collection)
        self._take_over(collection, rows)
        before = self._db.total_changes()
        self._db.executemany(form.insert_new if may_be_there else form.insert, rows)
        if self._db.total_changes() - before < len(rows):
            self._db.execute(f"DELETE FROM {record_table(collection)} WHERE _id>=?", (rows[0][0],))
            return False
        if form.search:
            form.search.enter(self._db, *of_ids([row[0] for row in rows]))
        return True

    def update_rows(self, collection: int, rows: list[tuple[int, bytes]]) -> None:
        """Replace the cells of records, and the columns that follow from them."""
        form = self._form(collection)
        self._take_over(collection, rows)
        wide = self._widen(form, rows)
        if form.search is None:
            self._db.executemany(form.update, wide)
            return
        others = of_ids(form.search.differing(self._db, wide))
        form.search.leave(self._db, *others)
        self._db.executemany(form.update, wide)
        form.search.enter(self._db, *others)

    def _take_over(self, collection: int, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take away what lies beside rows that are written whole now; their numbers come first."""
        if self._tables().has_tails:
            tails.forget(self._db, collection, [row[0] for row in rows])

    def fold(self, collection: int, ids: Sequence[int] | None = None) -> None:
        """Take into rows what lies beside them; or into all, but where it is damaged, which waits for a repair."""
        if self._tables().has_tails:
            some = sorted(tails.tailed(self._db).get(collection, ())) if ids is None else ids
            rows = [(row.id, row.packed) for row in self.by_id(collection, some)]
            self.update_rows(collection, [row for row in rows if ids is not None or row[1] != tails.DAMAGED])

    def delete_rows(self, collection: int, ids: list[int]) -> None:
        """Take records away."""
        rows = [(number,) for number in ids]
        self._take_over(collection, rows)
        if words := self._form(collection).search:
            words.leave(self._db, *of_ids(ids))
        sql = f"DELETE FROM {record_table(collection)} WHERE _id BETWEEN ? AND ?"
        self._db.executemany(sql, spans(sorted(ids)))  # a range takes two thirds of the time of its rows one by one
