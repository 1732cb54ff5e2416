"""The Store on SQLite, through apsw: one file, a writer connection behind one lock, and a pool of readers."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync import codec, record
from fieldsync._native import numbers
from fieldsync.context import Context
from fieldsync.errors import Busy, ClosedError, Corrupt, DiskFull, FormatTooNew, LimitExceeded, SchemaError, StoreError
from fieldsync.limits import BUSY_MS_MAX, FIELDS_MAX, READERS_MAX
from fieldsync.query import column_value, quote
from fieldsync.record import Dictionary, Removal
from fieldsync.store import ChangeRow, CollectionRow, Entry, OrphanRow, Row, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fieldsync.store import Dot, Incarnation

FORMAT = 1
APPLICATION_ID = 0x46535943
PLAIN = frozenset({str, int, float, bytes, type(None)})

TABLES = """
CREATE TABLE fs_meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE fs_author(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE fs_field(id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind INTEGER NOT NULL, UNIQUE(name, kind));
CREATE TABLE fs_collection(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, columns TEXT NOT NULL, signature TEXT NOT NULL);
CREATE TABLE fs_scope(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, author INTEGER NOT NULL, seq INTEGER NOT NULL,
    time INTEGER NOT NULL, digest BLOB NOT NULL, floor BLOB NOT NULL, taker BLOB NOT NULL, ready INTEGER NOT NULL);
CREATE TABLE fs_context(scope INTEGER, author INTEGER, low INTEGER, high INTEGER, PRIMARY KEY(scope, author, low))
    WITHOUT ROWID;
CREATE TABLE fs_giver(id INTEGER PRIMARY KEY, context BLOB NOT NULL UNIQUE);
CREATE TABLE fs_provisional(scope INTEGER, author INTEGER, seq INTEGER, giver INTEGER NOT NULL,
    PRIMARY KEY(scope, author, seq)) WITHOUT ROWID;
CREATE TABLE fs_change(
    scope INTEGER, author INTEGER, seq INTEGER, time INTEGER NOT NULL, flags INTEGER NOT NULL, parts INTEGER NOT NULL,
    live INTEGER NOT NULL, entries BLOB NOT NULL, PRIMARY KEY(scope, author, seq)) WITHOUT ROWID;
CREATE TABLE fs_removal(
    scope INTEGER, inc_author INTEGER, inc_seq INTEGER, inc_n INTEGER, author INTEGER, seq INTEGER, item BLOB NOT NULL,
    collection INTEGER, key TEXT, PRIMARY KEY(scope, inc_author, inc_seq, inc_n, author, seq)) WITHOUT ROWID;
CREATE TABLE fs_orphan(
    id INTEGER PRIMARY KEY, scope INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL, n INTEGER NOT NULL,
    collection INTEGER NOT NULL, key TEXT, cells BLOB NOT NULL, UNIQUE(scope, author, seq, n));
"""


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """SQLite's errors as the project's own."""
    try:
        yield
    except apsw.FullError:
        raise DiskFull(f"{path}: no room on the disk; the transaction was undone whole") from None
    except apsw.BusyError:
        raise Busy(f"{path}: another process has been writing for {BUSY_MS_MAX / 1000:.0f} s; try again") from None
    except apsw.NotADBError:
        raise StoreError(f"{path} is not a Fieldsync file") from None
    except (apsw.CorruptError, apsw.FormatError) as error:
        raise Corrupt(f"{path}: damaged ({error})") from None
    except apsw.IOError as error:
        raise StoreError(f"{path}: the disk answered with an error ({error})") from None
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StoreError(f"{path}: cannot be opened for writing ({error})") from None


class SQLiteReader:
    """One read transaction; see store.Reader."""

    def __init__(self, store: SQLiteStore, connection: apsw.Connection, begin: str) -> None:
        self._store = store
        self._db = connection
        self._db.execute(begin)
        try:
            self.dictionary = store.latest_dictionary(self._db)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """End the transaction and give the connection back."""
        self._store.release(self._db)

    def scopes(self) -> list[Scope]:
        """All scopes, by name."""
        return [_scope(row) for row in self._db.execute("SELECT * FROM fs_scope ORDER BY name")]

    def scope(self, name: str) -> Scope | None:
        """The scope of that name, if it is held."""
        row = self._db.execute("SELECT * FROM fs_scope WHERE name=?", (name,)).fetchone()
        return _scope(row) if row else None

    def collections(self) -> list[CollectionRow]:
        """All collections, by number."""
        rows = self._db.execute("SELECT id, name, columns, signature FROM fs_collection ORDER BY id")
        return [CollectionRow(number, name, _load_columns(columns), signature) for number, name, columns, signature in rows]

    def collection(self, name: str) -> CollectionRow | None:
        """The collection of that name, if the file has it."""
        return next((row for row in self.collections() if row.name == name), None)

    def context(self, scope: int) -> Context:
        """The dots accounted for in a scope, provisional ones left out."""
        name = self.dictionary.author
        rows = self._db.execute("SELECT author, low, high FROM fs_context WHERE scope=?", (scope,))
        return Context.of((name(author), low, high) for author, low, high in rows)

    def provisional(self, scope: int) -> list[tuple[bytes, int, Context]]:
        """The dots held but not accounted for: (author, seq, context of the giver under which they came)."""
        rows = self._db.execute(
            "SELECT author, seq, context FROM fs_provisional JOIN fs_giver ON id=giver WHERE scope=?", (scope,)
        )
        return [(self.dictionary.author(author), seq, Context(context)) for author, seq, context in rows]

    def provisional_dots(self, scope: int) -> list[tuple[bytes, int]]:
        """The same without the contexts."""
        rows = self._db.execute("SELECT author, seq FROM fs_provisional WHERE scope=?", (scope,))
        return [(self.dictionary.author(author), seq) for author, seq in rows]

    def by_key(self, collection: int, scope: int, keys: Sequence[str]) -> list[Row]:
        """The rows of those keys that exist, in any order."""
        table = _table(collection)
        if len(keys) == 1:
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _scope=? AND _key=?"
            return [Row(*row) for row in self._db.execute(sql, (scope, keys[0]))]
        sql = f"SELECT _id, _scope, _key, _cells FROM json_each(?) CROSS JOIN {table} ON _scope=? AND _key=json_each.value"
        return [Row(*row) for row in self._db.execute(sql, (json.dumps(keys), scope))]

    def by_key_anywhere(self, collection: int, key: str) -> list[Row]:
        """The rows of a key in all scopes."""
        sql = (
            f"SELECT _id, _scope, _key, _cells FROM fs_scope CROSS JOIN {_table(collection)} "
            "ON _scope=fs_scope.id AND _key=?"
        )
        return [Row(*row) for row in self._db.execute(sql, (key,))]

    def by_id(self, collection: int, ids: Sequence[int]) -> list[Row]:
        """The rows of those numbers that exist, in any order."""
        table = _table(collection)
        if len(ids) > 1 and ids[-1] - ids[0] == len(ids) - 1 and list(ids) == list(range(ids[0], ids[-1] + 1)):
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id BETWEEN ? AND ?"
            return [Row(*row) for row in self._db.execute(sql, (ids[0], ids[-1]))]
        sql = f"SELECT _id, _scope, _key, _cells FROM json_each(?) CROSS JOIN {table} ON _id=json_each.value"
        return [Row(*row) for row in self._db.execute(sql, (json.dumps(ids),))]

    def query(self, collection: int, where: str, bindings: Sequence[Any]) -> Iterator[tuple[str, int, bytes]]:
        """(key, scope, packed) of the rows that an SQL tail (WHERE, ORDER BY, LIMIT) selects."""
        sql = f"SELECT _key, _scope, _cells FROM {_table(collection)} {where}"
        return self._db.execute(sql, tuple(bindings))  # type: ignore[return-value]

    def count(self, collection: int, where: str, bindings: Sequence[Any]) -> int:
        """How many rows an SQL tail selects."""
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {_table(collection)} {where})"
        return int(self._db.execute(sql, tuple(bindings)).get)

    def sql(self, statement: str, bindings: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of any statement that only reads."""
        cursor = self._db.execute(statement, bindings)
        try:
            names = [column[0] for column in cursor.get_description()]
        except apsw.ExecutionCompleteError:
            return [], []
        return names, cursor.fetchall()

    def change(self, scope: int, dot: Dot) -> ChangeRow | None:
        """What the index knows of one change."""
        sql = "SELECT author, seq, time, flags, parts, live, entries FROM fs_change WHERE scope=? AND author=? AND seq=?"
        row = self._db.execute(sql, (scope, *dot)).fetchone()
        return _change(row) if row else None

    def changes(self, scope: int, lacking: Context) -> Iterator[ChangeRow]:
        """The changes of those dots of which anything is held, in the order of their times."""
        ids = self.dictionary.author_ids
        ranges = [(ids[author], low, high) for author, low, high in lacking.intervals() if author in ids]
        sql = (
            "SELECT author, seq, time, flags, parts, live, entries FROM json_each(?) CROSS JOIN fs_change ON scope=? "
            "AND author=json_each.value->>0 AND seq BETWEEN json_each.value->>1 AND json_each.value->>2 "
            "ORDER BY time, author, seq"
        )
        return map(_change, self._db.execute(sql, (json.dumps(ranges), scope)))

    def removals_of(self, scope: int, creations: Iterable[Dot]) -> dict[Incarnation, list[Removal]]:
        """The kept removals of incarnations that those changes created."""
        found: dict[Incarnation, list[Removal]] = {}
        if not self._db.execute("SELECT 1 FROM fs_removal WHERE scope=? LIMIT 1", (scope,)).fetchone():
            return found
        sql = "SELECT inc_n, item FROM fs_removal WHERE scope=? AND inc_author=? AND inc_seq=?"
        for author, seq in creations:
            for n, item in self._db.execute(sql, (scope, author, seq)):
                found.setdefault((author, seq, n), []).append((author, seq, n, item))
        return found

    def removals_by(self, scope: int, dot: Dot, entries: list[Entry]) -> list[Removal]:
        """The removals that one change made, which its entries name."""
        sql = (
            "SELECT inc_author, inc_seq, inc_n, item FROM fs_removal WHERE scope=? AND inc_author=? AND inc_seq=? "
            "AND inc_n BETWEEN ? AND ? AND author=? AND seq=?"
        )
        found: list[Removal] = []
        for author, seq, first, count in entries:
            found.extend(self._db.execute(sql, (scope, author, seq, first, first + count - 1, *dot)))  # type: ignore[arg-type]
        return found

    def removed_by(self, scope: int, dot: Dot, entries: list[Entry]) -> list[tuple[int, str]]:
        """(collection, key) of the records that one change removed, where they are known."""
        sql = (
            "SELECT collection, key FROM fs_removal WHERE scope=? AND inc_author=? AND inc_seq=? "
            "AND inc_n BETWEEN ? AND ? AND author=? AND seq=? AND key IS NOT NULL"
        )
        return [
            (collection, key)
            for author, seq, first, count in entries
            for collection, key in self._db.execute(sql, (scope, author, seq, first, first + count - 1, *dot))
        ]

    def has_orphans(self, scope: int) -> bool:
        """Whether the scope has any cells without their existence cell."""
        return self._db.execute("SELECT 1 FROM fs_orphan WHERE scope=? LIMIT 1", (scope,)).fetchone() is not None

    def orphans(self, scope: int, incarnations: Sequence[Incarnation]) -> list[OrphanRow]:
        """The cells held without existence cell of those incarnations."""
        sql = (
            "SELECT id, author, seq, n, collection, key, cells FROM json_each(?) CROSS JOIN fs_orphan ON scope=? "
            "AND author=json_each.value->>0 AND seq=json_each.value->>1 AND n=json_each.value->>2"
        )
        return [_orphan(row) for row in self._db.execute(sql, (json.dumps(incarnations), scope))]

    def orphans_by_id(self, ids: Sequence[int]) -> list[OrphanRow]:
        """The cells held without existence cell, by their rows' numbers."""
        sql = "SELECT id, author, seq, n, collection, key, cells FROM json_each(?) CROSS JOIN fs_orphan ON id=json_each.value"
        return [_orphan(row) for row in self._db.execute(sql, (json.dumps(ids),))]

    def orphans_of_key(self, scope: int, collection: int, key: str) -> list[OrphanRow]:
        """The cells held without existence cell whose record had this key."""
        sql = "SELECT id, author, seq, n, collection, key, cells FROM fs_orphan WHERE scope=? AND collection=? AND key=?"
        return [_orphan(row) for row in self._db.execute(sql, (scope, collection, key))]

    def meta(self, name: str) -> Any:
        """A fact about the file; None if it was never set."""
        return self._db.execute("SELECT value FROM fs_meta WHERE name=?", (name,)).get

    def count_records(self, scope: int) -> int:
        """How many live records a scope has, over all collections."""
        sql = "SELECT count(*) FROM {} WHERE _scope=?"
        return sum(self._db.execute(sql.format(_table(row.id)), (scope,)).get for row in self.collections())

    def count_changes(self, scope: int) -> int:
        """How many changes the index of a scope has."""
        return int(self._db.execute("SELECT count(*) FROM fs_change WHERE scope=?", (scope,)).get)


class SQLiteWriter(SQLiteReader):
    """The write transaction; see store.Writer."""

    def __init__(self, store: SQLiteStore, connection: apsw.Connection) -> None:
        super().__init__(store, connection, "BEGIN IMMEDIATE")
        self._columns = store.columns_of(self)

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

    def enter(self, name: str) -> Scope:
        """The scope of that name, begun if it is not held."""
        known = self.scope(name)
        if known:
            return known
        self._db.execute(
            "INSERT INTO fs_scope(name, author, seq, time, digest, floor, taker, ready) VALUES(?, 0, 0, 0, ?, ?, ?, 0)",
            (name, bytes(16), b"", b""),
        )
        entered = self.scope(name)
        assert entered is not None
        return entered

    def save_scope(self, scope: Scope) -> None:
        """Write a scope's facts back."""
        self._db.execute(
            "UPDATE fs_scope SET author=?, seq=?, time=?, digest=?, floor=?, taker=?, ready=? WHERE id=?",
            (scope.author, scope.seq, scope.time, scope.digest, scope.floor, scope.taker, scope.ready, scope.id),
        )

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
        known = {row.name: row.id for row in self.collections()}
        for name in names:
            if name not in known:
                row = CollectionRow(max(known.values(), default=0) + 1, name, (), "")
                known[name] = row.id
                self._create_collection(row)
        return [known[name] for name in names]

    def _create_collection(self, row: CollectionRow) -> None:
        self._db.execute(
            "INSERT INTO fs_collection VALUES(?, ?, ?, ?)", (row.id, row.name, _dump_columns(row.columns), row.signature)
        )
        self._create_table(row, _table(row.id))
        self._create_view(row)
        self._columns[row.id] = row

    def _create_table(self, row: CollectionRow, table: str) -> None:
        columns = "".join(f", {quote(name)}" for name, _, _, _ in row.columns)
        self._db.execute(
            f"CREATE TABLE {table}(_id INTEGER PRIMARY KEY, _scope INTEGER NOT NULL, _key TEXT NOT NULL{columns}, "
            "_cells BLOB NOT NULL, UNIQUE(_scope, _key))"
        )

    def _create_view(self, row: CollectionRow) -> None:
        """Indexes, and the view by which apps and SQL tools know the collection."""
        table = _table(row.id)
        for position, (name, _, indexed, _) in enumerate(row.columns):
            if indexed:
                self._db.execute(f"CREATE INDEX {table}_{position} ON {table}({quote(name)})")
        fields = "".join(f", r.{quote(name)}" for name, _, _, _ in row.columns)
        try:
            self._db.execute(
                f"CREATE VIEW {quote(row.name)} AS SELECT r._key AS key, s.name AS scope{fields} "
                f"FROM {table} r JOIN fs_scope s ON s.id=r._scope"
            )
        except apsw.SQLError as error:
            raise SchemaError(f"collection {row.name!r} cannot be a table's name: {error}") from None

    def declare(self, declared: CollectionRow, progress: Callable[[int, int], None] | None) -> None:
        """Give a collection the declared columns, filled from the cells; nothing to do where it has them."""
        known = self.collection(declared.name)
        if known is None:
            number = max((row.id for row in self.collections()), default=0) + 1
            self._create_collection(declared._replace(id=number))
            return
        if known.signature == declared.signature:
            return
        row = declared._replace(id=known.id)
        table = _table(row.id)
        self._db.execute(f"DROP VIEW {quote(row.name)}")
        self._create_table(row, "fs_rebuilt")
        self._columns[row.id] = row
        self._refill(row, table, progress)
        self._db.execute(f"DROP TABLE {table}")
        self._db.execute(f"ALTER TABLE fs_rebuilt RENAME TO {table}")
        self._db.execute(
            "UPDATE fs_collection SET columns=?, signature=? WHERE id=?",
            (_dump_columns(row.columns), row.signature, row.id),
        )
        self._create_view(row)

    def _refill(self, row: CollectionRow, table: str, progress: Callable[[int, int], None] | None) -> None:
        total = int(self._db.execute(f"SELECT count(*) FROM {table}").get)
        done, last = 0, -1
        while True:
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id>? ORDER BY _id LIMIT 5000"
            rows = [Row(*found) for found in self._db.execute(sql, (last,))]
            if not rows:
                return
            self._insert("fs_rebuilt", row, rows)
            done, last = done + len(rows), rows[-1].id
            if progress:
                progress(done, total)

    def next_row(self, collection: int) -> int:
        """A row number above all that the collection's table has."""
        return (self._db.execute(f"SELECT max(_id) FROM {_table(collection)}").get or 0) + 1

    def _column_reader(self, row: CollectionRow) -> Callable[[bytes], tuple[Any, ...]]:
        """packed record -> the values of its columns."""
        wanted = tuple(self.field_ids([(name, kind) for name, kind, _, _ in row.columns]))
        absent = tuple(default for _, _, _, default in row.columns)
        dictionary = self.dictionary

        def read(packed: bytes) -> tuple[Any, ...]:
            values = record.read(dictionary, packed, wanted, absent)
            return tuple([value if type(value) in PLAIN else column_value(value) for value in values])

        return read

    def insert_rows(self, collection: int, rows: list[Row]) -> None:
        """Add records."""
        self._insert(_table(collection), self._columns[collection], rows)

    def _insert(self, table: str, row: CollectionRow, rows: list[Row]) -> None:
        marks = ", ?" * len(row.columns)
        sql = f"INSERT INTO {table} VALUES(?, ?, ?{marks}, ?)"
        if not row.columns:
            self._db.executemany(sql, rows)
            return
        read = self._column_reader(row)
        self._db.executemany(sql, [(number, scope, key, *read(packed), packed) for number, scope, key, packed in rows])

    def update_rows(self, collection: int, rows: list[tuple[int, bytes]]) -> None:
        """Replace the cells of records, and the columns that follow from them."""
        row = self._columns[collection]
        columns = "".join(f", {quote(name)}=?" for name, _, _, _ in row.columns)
        sql = f"UPDATE {_table(collection)} SET _cells=?{columns} WHERE _id=?"
        if not row.columns:
            self._db.executemany(sql, [(packed, number) for number, packed in rows])
            return
        read = self._column_reader(row)
        self._db.executemany(sql, [(packed, *read(packed), number) for number, packed in rows])

    def delete_rows(self, collection: int, ids: list[int]) -> None:
        """Take records away."""
        self._db.executemany(f"DELETE FROM {_table(collection)} WHERE _id=?", [(number,) for number in ids])

    def put_orphan(self, scope: int, orphan: OrphanRow) -> int:
        """Add or replace the cells of an incarnation without existence cell; returns the row's number."""
        self._db.execute(
            "INSERT INTO fs_orphan(scope, author, seq, n, collection, key, cells) VALUES(?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(scope, author, seq, n) DO UPDATE SET cells=excluded.cells, "
            "collection=max(collection, excluded.collection), key=coalesce(excluded.key, key)",
            (scope, *orphan.incarnation, orphan.collection, orphan.key, orphan.packed),
        )
        sql = "SELECT id FROM fs_orphan WHERE scope=? AND author=? AND seq=? AND n=?"
        return int(self._db.execute(sql, (scope, *orphan.incarnation)).get)

    def delete_orphans(self, ids: list[int]) -> None:
        """Take cells without existence cell away."""
        self._db.executemany("DELETE FROM fs_orphan WHERE id=?", [(number,) for number in ids])

    def put_changes(self, scope: int, changes: list[ChangeRow]) -> None:
        """Write what the index knows of some changes, in place of what it knew."""
        self._db.executemany(
            "INSERT OR REPLACE INTO fs_change VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [(scope, *change[:6], numbers.pack(change.entries, 4)) for change in changes],  # type: ignore[arg-type]
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
        self._db.executemany(
            "INSERT OR REPLACE INTO fs_removal VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (scope, author, seq, n, *dot, item, *names.get((author, seq, n), (None, None)))
                for author, seq, n, item in removals
            ],
        )

    def account(self, scope: int, dots: Context) -> None:
        """Take dots into the context."""
        for author in {author for author, _, _ in dots.intervals()}:
            (number,) = self.author_ids([author])
            rows = self._db.execute("SELECT low, high FROM fs_context WHERE scope=? AND author=?", (scope, number))
            known = Context.of((author, low, high) for low, high in rows)
            new = Context.of(interval for interval in dots.intervals() if interval[0] == author)
            self._db.execute("DELETE FROM fs_context WHERE scope=? AND author=?", (scope, number))
            self._db.executemany(
                "INSERT INTO fs_context VALUES(?, ?, ?, ?)",
                [(scope, number, low, high) for _, low, high in (known | new).intervals()],
            )

    def account_own(self, scope: int, author: int, seq: int) -> None:
        """Take the own author's next dots into the context: all up to `seq`."""
        self._db.execute(
            "INSERT INTO fs_context VALUES(?, ?, 1, ?) ON CONFLICT DO UPDATE SET high=excluded.high", (scope, author, seq)
        )

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


class SQLiteStore:
    """One SQLite file; see store.Store. Threads share it; other processes may have it open too."""

    def __init__(self, path: str | os.PathLike[str], *, full: bool = True, page_bytes: int = 8192) -> None:
        self.path = os.fspath(path)
        self._full = full
        self._page_bytes = page_bytes
        self._pid = os.getpid()
        self._closed = False
        self._write_lock = threading.RLock()
        self._pool_lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._lent: set[apsw.Connection] = set()
        self._dictionary = Dictionary()
        self._schema: tuple[int, dict[int, CollectionRow]] = (-1, {})
        with _translated(self.path):
            self._writer = self._open()
            self._prepare()

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(self.path)
        connection.set_busy_timeout(BUSY_MS_MAX)
        connection.execute(f"PRAGMA page_size={self._page_bytes}")
        connection.execute("PRAGMA journal_mode=WAL").get  # noqa: B018
        connection.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")
        connection.execute("PRAGMA cache_size=-16000; PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=67108864")
        return connection

    def _prepare(self) -> None:
        """Make the tables of a new file; refuse a file that is not ours or newer than this version."""
        version = self._writer.execute("PRAGMA user_version").get
        application = self._writer.execute("PRAGMA application_id").get
        if application == APPLICATION_ID and version <= FORMAT:
            return
        if application == APPLICATION_ID:
            raise FormatTooNew(
                f"{self.path} has format {version}; this version of Fieldsync reads up to {FORMAT}: upgrade fieldsync"
            )
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            if self._writer.execute("PRAGMA application_id").get != APPLICATION_ID:
                if self._writer.execute("SELECT count(*) FROM sqlite_schema").get:
                    raise StoreError(f"{self.path} is an SQLite file, but not a Fieldsync one")
                self._writer.execute(TABLES)
                self._writer.execute("INSERT INTO fs_meta VALUES('replica', ?)", (os.urandom(16),))
                self._writer.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}")
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path} was closed")
        if os.getpid() != self._pid:
            raise ClosedError(f"{self.path} was opened before a fork; open it again in the child process")

    def latest_dictionary(self, connection: apsw.Connection) -> Dictionary:
        """The dictionary as the connection's transaction sees it; remembered only as far as it is committed."""
        known = self._dictionary
        authors = connection.execute("SELECT name FROM fs_author WHERE id>=? ORDER BY id", (known.author_count,)).fetchall()
        fields = connection.execute(
            "SELECT name, kind FROM fs_field WHERE id>=? ORDER BY id", (len(known.field_names),)
        ).fetchall()
        if authors:
            known = known.with_authors([name for (name,) in authors])
        if fields:
            known = known.with_fields(fields)
        if authors or fields:
            self._dictionary = known
        return known

    def columns_of(self, reader: SQLiteReader) -> dict[int, CollectionRow]:
        """The collections by number, as a transaction sees them."""
        version = reader._db.execute("PRAGMA schema_version").get  # noqa: SLF001
        if self._schema[0] != version:
            self._schema = (version, {row.id: row for row in reader.collections()})
        return dict(self._schema[1])

    def snapshot(self) -> SQLiteReader:
        """A reader that stays at this moment until it is closed; for streams that last."""
        self._check_open()
        with self._pool_lock:
            connection = self._idle.pop() if self._idle else None
        with _translated(self.path):
            if connection is None:
                connection = self._open()
                connection.execute("PRAGMA query_only=1")
            with self._pool_lock:
                self._lent.add(connection)
            return SQLiteReader(self, connection, "BEGIN")

    def release(self, connection: apsw.Connection) -> None:
        """Take a reader's connection back."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._pool_lock:
            self._lent.discard(connection)
            keep = not self._closed and len(self._idle) < READERS_MAX
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[SQLiteReader]:
        """A consistent moment, for the length of a with block."""
        reader = self.snapshot()
        try:
            with _translated(self.path):
                yield reader
        finally:
            reader.close()

    @contextmanager
    def writing(self) -> Iterator[SQLiteWriter]:
        """The write transaction, for the length of a with block: durable at its end, undone whole by an exception."""
        self._check_open()
        with self._write_lock, _translated(self.path):
            self._check_open()
            if self._writer.in_transaction:
                raise StoreError("a write transaction is open in this thread already; finish it first")
            writer = SQLiteWriter(self, self._writer)
            try:
                yield writer
                writer.commit()
            except BaseException:
                writer.rollback()
                raise
            self._dictionary = writer.dictionary

    def declare(self, collections: list[CollectionRow], progress: Callable[[int, int], None] | None) -> None:
        """Give collections their declared columns; see Writer.declare."""
        with self.reading() as reader:
            known = {row.name: row.signature for row in reader.collections()}
        if all(known.get(row.name) == row.signature for row in collections):
            return
        with self.writing() as writer:
            for row in collections:
                writer.declare(row, progress)

    def generation(self) -> int:
        """A number that changes when anybody, in any process, has committed; for those who wait for news."""
        with self.reading() as reader:
            return int(reader._db.execute("PRAGMA data_version").get)  # noqa: SLF001

    def sync_log(self) -> None:
        """Make all commits durable, for a store that is not so at each commit; before own dots leave the device."""
        if not self._full:
            with self._write_lock:
                self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def size(self) -> int:
        """The bytes of the file and its log."""
        return sum(path.stat().st_size for path in (Path(self.path), Path(self.path + "-wal")) if path.exists())

    def close(self) -> None:
        """Close all connections; readers still lent are closed when they come back."""
        if self._closed or os.getpid() != self._pid:
            self._closed = True
            return
        with self._write_lock:
            self._closed = True
            with self._pool_lock:
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._writer.close()


def _table(collection: int) -> str:
    return f"fs_record_{int(collection)}"


def _scope(row: Any) -> Scope:
    return Scope(*row[:8], bool(row[8]))


def _change(row: Any) -> ChangeRow:
    return ChangeRow(*row[:6], [Entry(*entry) for entry in numbers.unpack(row[6], 4)])


def _orphan(row: Any) -> OrphanRow:
    return OrphanRow(row[0], tuple(row[1:4]), *row[4:])


def _dump_columns(columns: Sequence[tuple[str, int, bool, Any]]) -> str:
    return json.dumps([(name, kind, indexed, codec.encode(default).hex()) for name, kind, indexed, default in columns])


def _load_columns(text: str) -> tuple[tuple[str, int, bool, Any], ...]:
    return tuple(
        (name, kind, indexed, codec.decode(bytes.fromhex(default))) for name, kind, indexed, default in json.loads(text)
    )
