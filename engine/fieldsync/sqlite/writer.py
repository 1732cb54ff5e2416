"""The write transaction on a file; see store.Writer."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync import record
from fieldsync.context import Context
from fieldsync.errors import Corrupt, LimitExceeded, SchemaError
from fieldsync.limits import (
    FIELDS_MAX,
)
from fieldsync.query import column_value, quote
from fieldsync.sqlite.forwards import ForwardsWriter
from fieldsync.sqlite.inspection import OF_SCOPES
from fieldsync.sqlite.layout import SCOPED_TABLES, dump_columns, dump_entries, record_table
from fieldsync.sqlite.memory import Memory
from fieldsync.sqlite.reader import SQLiteReader
from fieldsync.store import ChangeRow, CollectionRow, OrphanRow, Row, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fieldsync.record import Removal
    from fieldsync.sqlite.store import SQLiteStore
    from fieldsync.store import Dot, Incarnation


class _Form:
    """How one collection's records are written: SQL, and which values its columns hold."""

    def __init__(self, row: CollectionRow, table: str) -> None:
        self.insert = f"INSERT INTO {table} VALUES(?, ?, ?{', ?' * len(row.columns)}, ?)"
        columns = "".join(f"{quote(name)}=?{place}, " for place, (name, _, _, _) in enumerate(row.columns, 2))
        self.update = f"UPDATE {table} SET {columns}_cells=?{len(row.columns) + 2} WHERE _id=?1"
        self.fields = [(name, kind) for name, kind, _, _ in row.columns]
        self.absent = tuple(column_value(default) for _, _, _, default in row.columns)


@lru_cache(maxsize=256)
def _form(row: CollectionRow) -> _Form:
    return _Form(row, record_table(row.id))


class SQLiteWriter(SQLiteReader, ForwardsWriter, Memory):
    """The write transaction; see store.Writer."""

    def __init__(self, store: SQLiteStore, connection: apsw.Connection) -> None:
        SQLiteReader.__init__(self, store, connection, "BEGIN IMMEDIATE")
        ForwardsWriter.__init__(self)
        self.issued: dict[int, tuple[int, int]] = {}  # scope -> (author, seq) of the own last change made in it

    def commit(self) -> None:
        """Make it durable."""
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Undo all of it."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def set_meta(self, name: str, value: Any) -> None:
        """State a fact about the file."""
        self._db.execute("INSERT OR REPLACE INTO fs_meta VALUES(?, ?)", (name, value))

    def enter(self, name: str, *, ready: bool = False) -> Scope:
        """The scope of that name, begun if it is not held; ready where nobody else has anything of it yet."""
        known = self.scope(name)
        if known:
            return known
        self._db.execute(
            "INSERT INTO fs_scope VALUES(NULL, ?, 0, 0, 0, ?, ?, ?, ?, ?, 0)", (name, bytes(16), b"", b"", ready, b"")
        )
        entered = self.scope(name)
        assert entered is not None
        return entered

    def save_scope(self, scope: Scope) -> None:
        """Write a scope's facts back."""
        self._db.execute(
            "UPDATE fs_scope SET author=?, seq=?, time=?, digest=?, floor=?, taker=?, ready=?, delivered=?, priority=? "
            "WHERE id=?",
            (*scope[2:], scope.id),
        )
        self._scopes[scope.name] = scope

    def erase(self, scope: Scope) -> None:
        """Forget all of a scope at once."""
        for known in self.collections():
            self._db.execute(f"DELETE FROM {record_table(known.id)} WHERE _scope=?", (scope.id,))
        for table in SCOPED_TABLES:
            self._db.execute(f"DELETE FROM {table} WHERE scope=?", (scope.id,))
        self._db.execute("DELETE FROM fs_giver WHERE id NOT IN (SELECT giver FROM fs_provisional)")
        self._db.execute("DELETE FROM fs_scope WHERE id=?", (scope.id,))
        del self._scopes[scope.name]

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
        missing = [pair for pair in names if pair not in self.dictionary.field_ids]
        if missing:
            if len(self.dictionary.field_names) + len(missing) > FIELDS_MAX:
                raise LimitExceeded(f"a file holds at most {FIELDS_MAX} names of fields")
            self.dictionary = self.dictionary.with_fields(missing)
            ids = self.dictionary.field_ids
            self._db.executemany("INSERT INTO fs_field VALUES(?, ?, ?)", [(ids[pair], *pair) for pair in missing])
        return [self.dictionary.field_ids[pair] for pair in names]

    def collection_ids(self, names: Sequence[str]) -> list[int]:
        """The numbers of collections, whose tables are made if they are new."""
        return [self._collection_id(name) for name in names]

    def _collection_id(self, name: str) -> int:
        known = self.collection(name)
        if known is None:
            known = self._create_collection(CollectionRow(0, name, (), ""))
        return known.id

    def _create_collection(self, declared: CollectionRow) -> CollectionRow:
        row = declared._replace(id=max((other.id for other in self.collections()), default=0) + 1)
        self._db.execute(
            "INSERT INTO fs_collection VALUES(?, ?, ?, ?)", (row.id, row.name, dump_columns(row.columns), row.signature)
        )
        self._create_table(row, record_table(row.id))
        self._create_view(row)
        self._note(row)
        return row

    def _note(self, row: CollectionRow) -> None:
        """Know a collection as it has become in this transaction."""
        self.collections()
        assert self._known is not None
        self._known[row.name] = row

    def _create_table(self, row: CollectionRow, table: str) -> None:
        columns = "".join(f", {quote(name)}" for name, _, _, _ in row.columns)
        self._db.execute(
            f"CREATE TABLE {table}(_id INTEGER PRIMARY KEY, _scope INTEGER NOT NULL, _key TEXT NOT NULL{columns}, "
            "_cells BLOB NOT NULL, UNIQUE(_scope, _key))"
        )

    def _create_view(self, row: CollectionRow) -> None:
        """Indexes, and the view by which apps and SQL tools know the collection."""
        table = record_table(row.id)
        for position, (name, _, indexed, _) in enumerate(row.columns):
            if indexed:
                self._db.execute(f"CREATE INDEX {table}_{position} ON {table}({quote(name)})")
        if row.name.lower().startswith(("fs_", "sqlite_")) or not row.name.isprintable():
            return  # some other app's name, which it cannot have meant for SQL
        fields = "".join(f", r.{quote(name)}" for name, _, _, _ in row.columns)
        try:
            self._db.execute(
                f"CREATE VIEW {quote(row.name)} AS SELECT r._key AS key, s.name AS scope{fields} "
                f"FROM {table} r JOIN fs_scope s ON s.id=r._scope"
            )
        except apsw.SQLError as error:
            if row.signature:  # declared here; what only came from a peer does without, as two names that SQL confuses
                raise SchemaError(f"collection {row.name!r} cannot be a table's name: {error}") from None

    def declare(self, declared: CollectionRow, progress: Callable[[int, int], None] | None) -> None:
        """Give a collection the declared columns, filled from the cells; nothing to do where it has them."""
        known = self.collection(declared.name)
        if known is None:
            self._create_collection(declared)
            return
        if known.signature == declared.signature:
            return
        row = declared._replace(id=known.id)
        table = record_table(row.id)
        self._db.execute(f"DROP VIEW IF EXISTS {quote(row.name)}")
        self._create_table(row, "fs_rebuilt")
        self._refill(_Form(row, "fs_rebuilt"), table, progress)
        self._db.execute(f"DROP TABLE {table}")
        self._db.execute(f"ALTER TABLE fs_rebuilt RENAME TO {table}")
        self._db.execute(
            "UPDATE fs_collection SET columns=?, signature=? WHERE id=?",
            (dump_columns(row.columns), row.signature, row.id),
        )
        self._create_view(row)
        self._note(row)

    def _refill(self, form: _Form, table: str, progress: Callable[[int, int], None] | None) -> None:
        total = int(self._db.execute(f"SELECT count(*) FROM {table}").get)
        done, last = 0, -1
        while True:
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id>? ORDER BY _id LIMIT 5000"
            rows = [Row(*found) for found in self._db.execute(sql, (last,))]
            if not rows:
                return
            self._insert(form, rows)
            done, last = done + len(rows), rows[-1].id
            if progress:
                progress(done, total)

    def next_row(self, collection: int) -> int:
        """A row number above all that the collection's table has."""
        return (self._db.execute(f"SELECT max(_id) FROM {record_table(collection)}").get or 0) + 1

    def _form(self, collection: int) -> _Form:
        return _form(next(row for row in self.collections() if row.id == collection))

    def _widen(self, form: _Form, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Rows that end with a packed record, with the values of the columns before it."""
        if not form.fields:
            return rows
        wanted = tuple(self.field_ids(form.fields))
        return record.widen(self.dictionary, rows, wanted, form.absent, column_value)

    def insert_rows(self, collection: int, rows: list[Row]) -> None:
        """Add records."""
        self._insert(self._form(collection), rows)

    def _insert(self, form: _Form, rows: list[Row]) -> None:
        self._db.executemany(form.insert, self._widen(form, rows))

    def update_rows(self, collection: int, rows: list[tuple[int, bytes]]) -> None:
        """Replace the cells of records, and the columns that follow from them."""
        form = self._form(collection)
        self._db.executemany(form.update, self._widen(form, rows))

    def delete_rows(self, collection: int, ids: list[int]) -> None:
        """Take records away."""
        self._db.executemany(f"DELETE FROM {record_table(collection)} WHERE _id=?", [(number,) for number in ids])

    def put_orphan(self, scope: int, orphan: OrphanRow) -> int:
        """Add or replace the cells of an incarnation without existence cell; returns the row's number."""
        self._db.execute(
            "INSERT INTO fs_orphan(scope, author, seq, n, collection, key, cells) VALUES(?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(scope, author, seq, n) DO UPDATE SET cells=excluded.cells, "
            "collection=max(collection, excluded.collection), key=coalesce(excluded.key, key)",
            (scope, *orphan.incarnation, orphan.collection, orphan.key, orphan.packed),
        )
        self.note_headless(scope, orphan.incarnation)
        sql = "SELECT id FROM fs_orphan WHERE scope=? AND author=? AND seq=? AND n=?"
        return int(self._db.execute(sql, (scope, *orphan.incarnation)).get)

    def delete_orphans(self, ids: list[int]) -> None:
        """Take cells without existence cell away."""
        self._db.executemany("DELETE FROM fs_orphan WHERE id=?", [(number,) for number in ids])

    def put_changes(self, scope: int, changes: list[ChangeRow]) -> None:
        """Write what the index knows of some changes, in place of what it knew."""
        packed = dump_entries(change.entries for change in changes)
        self._db.executemany(
            "INSERT OR REPLACE INTO fs_change VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [(scope, *change[:6], entries) for change, entries in zip(changes, packed, strict=True)],
        )

    def lose_cells(self, scope: int, losses: list[tuple[Dot, int]]) -> None:
        """Changes of which so many cells no longer live; those with none left leave the index."""
        self._db.executemany(
            "UPDATE fs_change SET live=live-? WHERE scope=? AND author=? AND seq=?",
            [(count, scope, *dot) for dot, count in losses],
        )
        self._db.executemany(
            "DELETE FROM fs_change WHERE scope=? AND author=? AND seq=? AND live<=0",
            [(scope, *dot) for dot, _ in losses],
        )

    def put_removals(
        self, scope: int, dot: Dot, removals: list[Removal], names: dict[Incarnation, tuple[int, str]]
    ) -> None:
        """Keep the removals that one change made, with (collection, key) of the records they hit where it is known."""
        self.note_removed(scope, removals)
        self._db.executemany(
            "INSERT OR REPLACE INTO fs_removal VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (scope, author, seq, n, *dot, item, *names.get((author, seq, n), (None, None)))
                for author, seq, n, item in removals
            ],
        )

    def forget_removals(self, scope: int, changes: list[ChangeRow]) -> None:
        """Take changes of removals out of the index, and what they removed out of the log."""
        self._db.executemany(
            "DELETE FROM fs_removal WHERE scope=? AND inc_author=? AND inc_seq=? AND inc_n BETWEEN ? AND ? "
            "AND author=? AND seq=?",
            [
                (scope, author, seq, first, first + count - 1, change.author, change.seq)
                for change in changes
                for author, seq, first, count in change.entries
            ],
        )
        self._db.executemany(
            "DELETE FROM fs_change WHERE scope=? AND author=? AND seq=?",
            [(scope, change.author, change.seq) for change in changes],
        )

    def account(self, scope: int, dots: Context) -> None:
        """Take dots into the context."""
        for author, intervals in groupby(dots.intervals(), key=itemgetter(0)):
            (number,) = self.author_ids([author])
            rows = self._db.execute("SELECT low, high FROM fs_context WHERE scope=? AND author=?", (scope, number))
            known = Context.of((author, low, high) for low, high in rows)
            joined = known | Context.of(intervals)
            if joined == known:
                continue
            self._db.execute("DELETE FROM fs_context WHERE scope=? AND author=?", (scope, number))
            self._db.executemany(
                "INSERT INTO fs_context VALUES(?, ?, ?, ?)",
                [(scope, number, low, high) for _, low, high in joined.intervals()],
            )

    def account_own(self, scope: int, author: int, seq: int) -> None:
        """Take the own author's next dots into the context: all up to `seq`."""
        self._db.execute(
            "INSERT INTO fs_context VALUES(?, ?, 1, ?) ON CONFLICT DO UPDATE SET high=excluded.high",
            (scope, author, seq),
        )
        self.issued[scope] = author, seq

    def set_context(self, scope: int, context: Context) -> None:
        """State the context anew: with holes where something was lost, so that no peer is told it is held."""
        rows = [(scope, *self.author_ids([author]), low, high) for author, low, high in context.intervals()]
        self._db.execute("DELETE FROM fs_context WHERE scope=?", (scope,))
        self._db.executemany("INSERT INTO fs_context VALUES(?, ?, ?, ?)", rows)

    def delete_changes(self, scope: int, dots: list[Dot]) -> None:
        """Take changes out of the index."""
        self._db.executemany(
            "DELETE FROM fs_change WHERE scope=? AND author=? AND seq=?", [(scope, *dot) for dot in dots]
        )

    def delete_removals(self, scope: int, removals: list[tuple[Dot, Incarnation]]) -> None:
        """Take removals out of the log: (the change that made it, the incarnation it names) each."""
        self._db.executemany(
            "DELETE FROM fs_removal WHERE scope=? AND author=? AND seq=? AND inc_author=? AND inc_seq=? AND inc_n=?",
            [(scope, *dot, *incarnation) for dot, incarnation in removals],
        )

    def delete_strays(self) -> None:
        """Take away the rows of no scope."""
        tables = [(record_table(known.id), "_scope") for known in self.collections()]
        for table, column in [*tables, *((table, "scope") for table in ("fs_orphan", *OF_SCOPES))]:
            self._db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM fs_scope)")

    def reindex(self) -> None:
        """Build all of SQLite's indexes anew; Corrupt where two rows are under one key."""
        try:
            self._db.execute("REINDEX")
        except apsw.ConstraintError as error:
            raise Corrupt(f"two rows where there may be one ({error}): enter the same scopes in a new file") from None

    def put_provisional(self, scope: int, dots: list[tuple[bytes, int]], giver: Context) -> None:
        """Remember dots that are held but not accounted for, and the giver's context they came under."""
        if not dots:
            return
        self._db.execute("INSERT INTO fs_giver(context) VALUES(?) ON CONFLICT DO NOTHING", (giver.data,))
        number = self._db.execute("SELECT id FROM fs_giver WHERE context=?", (giver.data,)).get
        ids = self.author_ids([author for author, _ in dots])
        self._db.executemany(
            "INSERT OR REPLACE INTO fs_provisional VALUES(?, ?, ?, ?)",
            [(scope, author, seq, number) for author, (_, seq) in zip(ids, dots, strict=True)],
        )

    def drop_provisional(self, scope: int, dots: list[tuple[bytes, int]]) -> None:
        """Forget that dots are provisional."""
        if not dots:
            return
        ids = self.author_ids([author for author, _ in dots])
        self._db.executemany(
            "DELETE FROM fs_provisional WHERE scope=? AND author=? AND seq=?",
            [(scope, author, seq) for author, (_, seq) in zip(ids, dots, strict=True)],
        )
        self._db.execute("DELETE FROM fs_giver WHERE id NOT IN (SELECT giver FROM fs_provisional)")
