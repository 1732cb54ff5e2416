"""Declaring collections: their tables, indexes and views, made as they are new and made anew as columns change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from fieldsync.columns import join
from fieldsync.errors import SchemaError
from fieldsync.query import quote
from fieldsync.sqlite.layout import dump_columns, record_table
from fieldsync.sqlite.rows import Form, RowsWriter
from fieldsync.sqlite.searching import drop, table_of
from fieldsync.store import CollectionRow, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Declarer(RowsWriter):
    """Makes the tables of collections; see store.Writer."""

    def collection_ids(self, names: Sequence[str]) -> list[int]:
        """The numbers of collections, whose tables are made if they are new."""
        return [self._collection_id(name) for name in names]

    def _collection_id(self, name: str) -> int:
        known = self.collection(name)
        if known is None:
            known = self._create_collection(CollectionRow(0, name, (), ""))
        return known.id

    def declare(self, declared: CollectionRow, progress: Callable[[int, int], None] | None) -> None:
        """Give a collection the declared columns, filled from the cells; nothing to do where it has them."""
        known = self.collection(declared.name)
        if known is None:
            self._create_collection(declared)
            return
        if known.serves(declared):
            return
        self.fold(known.id)
        row = declared._replace(id=known.id, columns=join(known.columns, declared.columns))
        table = record_table(row.id)
        self._db.execute(f"DROP VIEW IF EXISTS {quote(row.name)}")
        self._create_table(row, "fs_rebuilt")
        drop(self._db, row)
        if words := table_of(row):
            words.make(self._db)
        self._refill(Form(row, "fs_rebuilt"), table, progress)
        self._db.execute(f"DROP TABLE {table}")
        self._db.execute(f"ALTER TABLE fs_rebuilt RENAME TO {table}")
        self._db.execute(
            "UPDATE fs_collection SET columns=?, signature=? WHERE id=?",
            (dump_columns(row.columns), row.signature, row.id),
        )
        self._create_view(row)
        self._note(row)

    def _refill(self, form: Form, table: str, progress: Callable[[int, int], None] | None) -> None:
        total = int(self._db.execute(f"SELECT count(*) FROM {table}").get)
        done, last = 0, -1
        while True:
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id>? ORDER BY _id LIMIT 5000"
            rows = [Row(*found) for found in self._db.execute(sql, (last,))]
            if not rows:
                return
            self.insert(form, rows)
            done, last = done + len(rows), rows[-1].id
            if progress:
                progress(done, total)

    def _create_collection(self, declared: CollectionRow) -> CollectionRow:
        row = declared._replace(id=max((other.id for other in self.collections()), default=0) + 1)
        self._db.execute(
            "INSERT INTO fs_collection VALUES(?, ?, ?, ?)", (row.id, row.name, dump_columns(row.columns), row.signature)
        )
        self._create_table(row, record_table(row.id))
        if words := table_of(row):
            words.make(self._db)
        self._create_view(row)
        self._note(row)
        return row

    def _note(self, row: CollectionRow) -> None:
        """Know a collection as it has become in this transaction."""
        self._tables().collections[row.name] = row

    def _create_table(self, row: CollectionRow, table: str) -> None:
        columns = "".join(f", {quote(name)}" for name, *_ in row.columns)
        self._db.execute(
            f"CREATE TABLE {table}(_id INTEGER PRIMARY KEY, _scope INTEGER NOT NULL, _key TEXT NOT NULL{columns}, "
            "_room BLOB, _cells BLOB NOT NULL, UNIQUE(_scope, _key))"
        )

    def _create_view(self, row: CollectionRow) -> None:
        """Indexes, and the view by which apps and SQL tools know the collection."""
        table = record_table(row.id)
        for position, (name, _, indexed, *_) in enumerate(row.columns):
            if indexed:
                self._db.execute(f"CREATE INDEX {table}_{position} ON {table}({quote(name)})")
        if row.name.lower().startswith(("fs_", "sqlite_")) or not row.name.isprintable():
            return  # some other app's name, which it cannot have meant for SQL
        fields = "".join(f", r.{quote(name)}" for name, *_ in row.columns)
        try:
            self._db.execute(
                f"CREATE VIEW {quote(row.name)} AS SELECT r._key AS key, s.name AS scope{fields} "
                f"FROM {table} r JOIN fs_scope s ON s.id=r._scope"
            )
        except apsw.SQLError as error:
            if row.signature:  # declared here; what only came from a peer does without, as two names that SQL confuses
                raise SchemaError(f"collection {row.name!r} cannot be a table's name: {error}") from None
        if words := table_of(row):
            words.make_view(self._db)
