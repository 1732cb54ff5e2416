"""One read transaction on a file; see store.Reader."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from fieldsync import named
from fieldsync.changes import REMOVING
from fieldsync.context import Context
from fieldsync.limits import LOOKUPS_MAX, SCAN_ROWS_TARGET
from fieldsync.sqlite import tails
from fieldsync.sqlite.forwards import ForwardsReader
from fieldsync.sqlite.gone import GoneReader
from fieldsync.sqlite.inspection import Inspector
from fieldsync.sqlite.layout import load_change, record_table
from fieldsync.store import KILLS, ChangeRow, CollectionRow, Entry, OrphanRow, Pair, Row, Scope, TrashRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fieldsync.record import Dictionary, Removal
    from fieldsync.sqlite.store import Schema, SQLiteStore
    from fieldsync.store import Cells, Dot, Edits, Incarnation


OF_DOTS = (
    "json_each(?) CROSS JOIN fs_change ON scope=? AND author=json_each.value->>0 "
    "AND seq BETWEEN json_each.value->>1 AND json_each.value->>2"
)  # the changes of ranges of an author's numbers


POINTS_MAX = 4  # incarnations of a run that are looked up one by one: of a set, each has removals of many changes


IN_SEARCHES = re.compile("fts5|fs_words_", re.IGNORECASE)  # messages of SQLite, not all of which name the table


class SQLiteReader(ForwardsReader, GoneReader, Inspector):
    """One read transaction; see store.Reader."""

    def __init__(self, store: SQLiteStore, connection: apsw.Connection, begin: str) -> None:
        self._store = store
        self._db = connection
        self._point = connection.cursor()  # for questions about one row, to which making a cursor would add a third
        self._schema: Schema | None = None
        self._scopes: dict[str, Scope] = {}  # as far as they were asked for
        self._db.execute(begin)
        try:
            self.dictionary = self._latest_dictionary()
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _latest_dictionary(self) -> Dictionary:
        return self._store.latest_dictionary(self._db)

    def close(self) -> None:
        """End the transaction and give the connection back."""
        self._store.release(self._db)

    def scopes(self) -> list[Scope]:
        """All scopes, by name."""
        return [_scope(row) for row in self._db.execute("SELECT * FROM fs_scope ORDER BY name")]

    def authored(self) -> list[Scope]:
        """The scopes that were written in here."""
        return [_scope(row) for row in self._db.execute("SELECT * FROM fs_scope WHERE author<>0")]

    def scope(self, name: str) -> Scope | None:
        """The scope of that name, if it is held."""
        if name not in self._scopes:
            row = self._db.execute("SELECT * FROM fs_scope WHERE name=?", (name,)).fetchone()
            if row is None:
                return None
            self._scopes[name] = _scope(row)
        return self._scopes[name]

    def lasts(self, scopes: Sequence[int]) -> list[tuple[int, int, int]]:
        """(scope, author, seq) of the own last change in those of the scopes that are held; zeros for none."""
        sql = "SELECT fs_scope.id, author, seq FROM json_each(?) j CROSS JOIN fs_scope ON fs_scope.id=j.value"
        rows: Any = self._db.execute(sql, (json.dumps(scopes),)).fetchall()
        return list(rows)

    def collections(self) -> list[CollectionRow]:
        """All collections, by number."""
        return list(self._tables().collections.values())

    def collection(self, name: str) -> CollectionRow | None:
        """The collection of that name, if the file has it."""
        return self._tables().collections.get(name)

    def is_audited(self) -> bool:
        """Whether the file keeps an audit log."""
        return self._tables().is_audited

    def _tables(self) -> Schema:
        if self._schema is None:
            schema = self._store.latest_schema(self._db)
            self._schema = schema._replace(collections=dict(schema.collections))  # a writer adds to it
        return self._schema

    def context(self, scope: int) -> Context:
        """The dots accounted for in a scope, provisional ones left out."""
        name = self.dictionary.author
        rows = self._db.execute("SELECT author, low, high FROM fs_context WHERE scope=?", (scope,))
        return Context.of((name(author), low, high) for author, low, high in rows)

    def provisional(self, scope: int) -> list[tuple[Context, Context]]:
        """The dots held but not accounted for, grouped: (context of the giver under which they came, dots)."""
        name = self.dictionary.author
        groups: dict[int, list[tuple[bytes, int, int]]] = {}
        for giver, author, seq in self._db.execute(
            "SELECT giver, author, seq FROM fs_provisional WHERE scope=?", (scope,)
        ):
            groups.setdefault(giver, []).append((name(author), seq, seq))
        given = "SELECT context FROM fs_giver WHERE id=?"
        return [(Context(self._db.execute(given, (giver,)).get), Context.of(dots)) for giver, dots in groups.items()]

    def provisional_dots(self, scope: int) -> list[tuple[bytes, int]]:
        """The same without the contexts, one by one."""
        rows = self._db.execute("SELECT author, seq FROM fs_provisional WHERE scope=?", (scope,))
        return [(self.dictionary.author(author), seq) for author, seq in rows]

    def is_provisional(self, scope: int) -> bool:
        """Whether any dots are held but not accounted for."""
        return self._db.execute("SELECT 1 FROM fs_provisional WHERE scope=? LIMIT 1", (scope,)).fetchone() is not None

    def _rows(self, collection: int, found: Iterable[Any]) -> list[Row]:
        """The rows of records that SQL found, as (number, scope, key, cells), whole."""
        rows = named.of_rows(Row, list(found))
        return tails.with_tails(self._db, self.dictionary, collection, rows) if self._tables().has_tails else rows

    def by_key(self, collection: int, scope: int, keys: Sequence[str]) -> list[Row]:
        """The rows of those keys that exist, in any order."""
        if len(keys) == 1:
            return self._rows(collection, self._point.execute(_at_key(collection), (scope, keys[0])).fetchall())
        table = record_table(collection)
        sql = f"SELECT _id, _scope, _key, _cells FROM json_each(?) j CROSS JOIN {table} ON _scope=? AND _key=j.value"
        return self._rows(collection, self._db.execute(sql, (json.dumps(keys), scope)))

    def by_key_anywhere(self, collection: int, key: str) -> list[Row]:
        """The rows of a key in all scopes."""
        sql = (
            f"SELECT _id, _scope, _key, _cells FROM fs_scope CROSS JOIN {record_table(collection)} "
            "ON _scope=fs_scope.id AND _key=?"
        )
        return self._rows(collection, self._db.execute(sql, (key,)))

    def by_keys_anywhere(self, collection: int, keys: Sequence[str]) -> list[Row]:
        """The rows of some keys in all scopes."""
        table = record_table(collection)
        if len(keys) * self._db.execute("SELECT count(*) FROM fs_scope").get > LOOKUPS_MAX:
            among = f"SELECT _id FROM {table} WHERE _key IN (SELECT value FROM json_each(?))"  # by the index alone
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id IN ({among})"
        else:
            pairs = f"json_each(?) j CROSS JOIN fs_scope CROSS JOIN {table} ON _scope=fs_scope.id AND _key=j.value"
            sql = f"SELECT _id, _scope, _key, _cells FROM {pairs}"
        return self._rows(collection, self._db.execute(sql, (json.dumps(keys),)))

    def by_pairs(self, collection: int, pairs: Sequence[tuple[int, str]]) -> list[Row]:
        """The rows of (scope, key) pairs that exist, in any order."""
        sql = (
            f"SELECT _id, _scope, _key, _cells FROM json_each(?) j CROSS JOIN {record_table(collection)} "
            "ON _scope=j.value->>0 AND _key=j.value->>1"
        )
        return self._rows(collection, self._db.execute(sql, (json.dumps(pairs),)))

    def by_id(self, collection: int, ids: Sequence[int]) -> list[Row]:
        """The rows of those numbers that exist, in any order."""
        return self._rows(collection, self._at(collection, ids))

    def cells_by_id(self, collection: int, ids: Sequence[int]) -> Sequence[Cells]:
        """As by_id, with one object less for each of many."""
        found: Any = self._at(collection, ids)
        return self._rows(collection, found) if self._tables().has_tails else found.fetchall()

    def _at(self, collection: int, ids: Sequence[int]) -> apsw.Cursor:
        table = record_table(collection)
        if len(ids) > 1 and ids[-1] - ids[0] == len(ids) - 1 and list(ids) == list(range(ids[0], ids[-1] + 1)):
            sql = f"SELECT _id, _scope, _key, _cells FROM {table} WHERE _id BETWEEN ? AND ?"
            return self._db.execute(sql, (ids[0], ids[-1]))
        sql = f"SELECT _id, _scope, _key, _cells FROM json_each(?) CROSS JOIN {table} ON _id=json_each.value"
        return self._db.execute(sql, (json.dumps(ids),))

    def query(self, collection: int, where: str, bindings: Sequence[Any]) -> Iterator[tuple[str, int, bytes]]:
        """(key, scope, packed) of the rows that an SQL tail (WHERE, ORDER BY, LIMIT) selects."""
        sql = f"FROM {record_table(collection)} {where}"
        if not self._tables().has_tails:
            return self._db.execute(f"SELECT _key, _scope, _cells {sql}", tuple(bindings))
        found = self._db.execute(f"SELECT _id, _scope, _key, _cells {sql}", tuple(bindings))
        every = (row for some in batched(found) for row in self._rows(collection, some))
        return ((row.key, row.scope, row.packed) for row in every)

    def count(self, collection: int, where: str, bindings: Sequence[Any]) -> int:
        """How many rows an SQL tail selects."""
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {record_table(collection)} {where})"
        return int(self._db.execute(sql, tuple(bindings)).get)

    def sql(self, statement: str, bindings: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a statement that only reads; apsw.AuthError for any other."""
        self._db.authorizer = _only_reads
        try:
            cursor = self._db.execute(statement, bindings)
            try:
                names = [column[0] for column in cursor.get_description()]
            except apsw.ExecutionCompleteError:
                return [], []
            return names, cursor.fetchall()
        finally:
            self._db.authorizer = None

    def change(self, scope: int, dot: Dot) -> ChangeRow | None:
        """What the index knows of one change."""
        sql = (
            "SELECT author, seq, time, flags, parts, live, entries FROM fs_change WHERE scope=? AND author=? AND seq=?"
        )
        row = self._db.execute(sql, (scope, *dot)).fetchone()
        return load_change(row) if row else None

    def edits(self, scope: int, dot: Dot) -> Edits | None:
        """What a change edited, as far as that is remembered; the rest its records have."""
        return self._store.lately.get(scope, dot)

    def changes(self, scope: int, lacking: Context) -> Iterator[ChangeRow]:
        """The changes of those dots of which anything is held, in the order of their times."""
        sql = f"SELECT author, seq, time, flags, parts, live, entries FROM {OF_DOTS} ORDER BY time, author, seq"
        return map(load_change, self._db.execute(sql, (json.dumps(self.dictionary.numbered(lacking)), scope)))

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

    def count_cells(self, scope: int, dots: Context) -> int:
        """How many live cells and kept removals the changes of some dots have, as the index counts them."""
        sql = f"SELECT coalesce(sum(live), 0) FROM {OF_DOTS}"
        return int(self._db.execute(sql, (json.dumps(self.dictionary.numbered(dots)), scope)).get)

    def pair(self, name: bytes) -> Pair | None:
        """What is remembered of a pair."""
        sql = "SELECT replica, names, states, is_hub, was_hub FROM fs_pair WHERE id=?"
        row = self._db.execute(sql, (name,)).fetchone()
        return Pair(row[0], json.loads(row[1]), row[2], bool(row[3]), bool(row[4])) if row else None

    def agreed(self, pair: bytes, scope: int) -> Context | None:
        """The context of a scope that both of a pair had when they last met."""
        row = self._db.execute("SELECT context FROM fs_agreed WHERE scope=? AND pair=?", (scope, pair)).fetchone()
        return Context(row[0]) if row else None

    def begun(self, scope: int) -> tuple[int, bytes] | None:
        """What came of the body of a chunk that a cut link broke off, and the giver's number for its size."""
        row = self._db.execute("SELECT cells, body FROM fs_begun WHERE scope=?", (scope,)).fetchone()
        return (row[0], row[1]) if row else None

    def removing(self, scope: int) -> list[ChangeRow]:
        """The changes of kept removals, in the order of their times."""
        sql = (
            "SELECT author, seq, time, flags, parts, live, entries FROM fs_change WHERE scope=? "
            f"AND flags&{REMOVING} ORDER BY time, author, seq"
        )
        return [load_change(row) for row in self._db.execute(sql, (scope,))]

    def removals_by(self, scope: int, dot: Dot, entries: list[Entry]) -> list[Removal]:
        """The removals that one change made, which its entries name."""
        sql = (
            "SELECT inc_author, inc_seq, inc_n, item FROM fs_removal WHERE scope=? AND inc_author=? AND inc_seq=? "
            "AND inc_n {} AND author=? AND seq=?"
        )
        long = [(scope, author, seq, n, n + count - 1, *dot) for author, seq, n, count in entries if count > POINTS_MAX]
        short = [
            (scope, author, seq, n, *dot)
            for author, seq, first, count in entries
            if count <= POINTS_MAX
            for n in range(first, first + count)
        ]
        rows: Any = list(self._db.executemany(sql.format("=?"), short))  # past what other changes removed there
        rows += self._db.executemany(sql.format("BETWEEN ? AND ?"), long)
        return sorted(rows)

    def removals_of_key(self, scope: int, collection: int, key: str) -> list[tuple[Dot, int]]:
        """The kept changes that removed a record, with their times, in the order of these."""
        sql = (
            "SELECT c.time, c.author, c.seq, item FROM fs_removal r JOIN fs_change c "
            "ON c.scope=r.scope AND c.author=r.author AND c.seq=r.seq WHERE r.scope=? AND r.collection=? AND r.key=?"
        )
        rows: Any = self._db.execute(sql, (scope, collection, key))
        killing = {row[:3] for row in rows if row[3][0] & KILLS}  # others removed elements of a set, or late edits
        return [((author, seq), time) for time, author, seq in sorted(killing)]

    def names_of_removed(self, scope: int, incarnations: Sequence[Incarnation]) -> dict[Incarnation, tuple[int, str]]:
        """(collection, key) of those incarnations that kept removals have hit here."""
        sql = (
            "SELECT inc_author, inc_seq, inc_n, collection, r.key FROM json_each(?) j CROSS JOIN fs_removal r ON "
            "scope=? AND inc_author=j.value->>0 AND inc_seq=j.value->>1 AND inc_n=j.value->>2 WHERE r.key IS NOT NULL"
        )
        rows: Any = self._db.execute(sql, (json.dumps(incarnations), scope)) if incarnations else ()
        return {(author, seq, n): (collection, key) for author, seq, n, collection, key in rows}

    def trash(self) -> Iterator[TrashRow]:
        """The records that went because a peer had them no more, the latest first."""
        return map(TrashRow._make, self._db.execute("SELECT * FROM fs_trash ORDER BY id DESC"))

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

    def records(self, scope: int) -> Iterator[tuple[int, list[Row]]]:
        """All records of a scope: (collection, some of its rows)."""
        for known in self.collections():
            sql = f"SELECT _id, _scope, _key, _cells FROM {record_table(known.id)} WHERE _scope=?"
            for some in batched(self._db.execute(sql, (scope,))):
                yield known.id, self._rows(known.id, some)

    def all_orphans(self, scope: int) -> Iterator[list[OrphanRow]]:
        """All cells held without existence cell, some at a time."""
        sql = "SELECT id, author, seq, n, collection, key, cells FROM fs_orphan WHERE scope=?"
        for some in batched(self._db.execute(sql, (scope,))):
            yield list(map(_orphan, some))

    def has_orphans(self, scope: int) -> bool:
        """Whether the scope has any cells without their existence cell."""
        return self._db.execute("SELECT 1 FROM fs_orphan WHERE scope=? LIMIT 1", (scope,)).fetchone() is not None

    def orphans(self, scope: int, incarnations: Sequence[Incarnation]) -> list[OrphanRow]:
        """The cells held without existence cell of those incarnations."""
        sql = (
            "SELECT o.id, author, seq, n, collection, o.key, cells FROM json_each(?) j CROSS JOIN fs_orphan o "
            "ON scope=? AND author=j.value->>0 AND seq=j.value->>1 AND n=j.value->>2"
        )
        return [_orphan(row) for row in self._db.execute(sql, (json.dumps(incarnations), scope))]

    def orphans_by_id(self, ids: Sequence[int]) -> list[OrphanRow]:
        """The cells held without existence cell, by their rows' numbers."""
        sql = (
            "SELECT o.id, author, seq, n, collection, o.key, cells FROM json_each(?) j "
            "CROSS JOIN fs_orphan o ON o.id=j.value"
        )
        return [_orphan(row) for row in self._db.execute(sql, (json.dumps(ids),))]

    def orphans_of_key(self, scope: int, collection: int, key: str) -> list[OrphanRow]:
        """The cells held without existence cell whose record had this key."""
        sql = (
            "SELECT id, author, seq, n, collection, key, cells FROM fs_orphan WHERE (scope, collection, key)=(?, ?, ?)"
        )
        return [_orphan(row) for row in self._db.execute(sql, (scope, collection, key))]

    def meta(self, name: str) -> Any:
        """A fact about the file; None if it was never set."""
        return self._db.execute("SELECT value FROM fs_meta WHERE name=?", (name,)).get

    def damage(self, most: int) -> list[str]:
        """What SQLite finds wrong with its pages, its indexes and what is searched, and with the tables of numbers.

        Of what is searched a writer tells: a reader's connection may have the words of a moment long ago at hand.
        """
        found = super().damage(most)
        others = [text for text in found if not IN_SEARCHES.search(text)]
        if others or not any(row.search for row in self.collections()):
            return others or found
        return self.damaged_searches()

    def strays(self) -> tuple[list[tuple[int, int]], int]:
        """Rows of no scope: (collection, number) of records and orphans, and how many others."""
        places, others = super().strays()
        return places, others + len(self._stray_tails())

    def _stray_tails(self) -> list[tuple[int, int]]:
        return tails.strays(self._db, self._collections()) if self._tables().has_tails else []

    def damaged_searches(self) -> list[str]:
        """Which search tables are wrong; of such, SQLite tells none but a writer."""
        if not any(row.search for row in self.collections()):
            return []
        with self._store.looking() as writer:
            return writer.damaged_searches()

    def count_records(self, scope: int) -> int:
        """How many live records a scope has, over all collections."""
        sql = "SELECT count(*) FROM {} WHERE _scope=?"
        return sum(self._db.execute(sql.format(record_table(row.id)), (scope,)).get for row in self.collections())

    def count_changes(self, scope: int) -> int:
        """How many changes the index of a scope has."""
        return int(self._db.execute("SELECT count(*) FROM fs_change WHERE scope=?", (scope,)).get)


READING = frozenset(
    {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
)  # what a statement of an app's own may do


DESCRIBING = frozenset(
    {
        *("table_info", "table_xinfo", "table_list", "index_info", "index_xinfo", "index_list", "database_list"),
        "data_version",  # which a search asks for
    }
)  # pragmas that only tell


def _only_reads(operation: int, first: str | None, *_: str | None) -> int:
    is_described = operation == apsw.SQLITE_PRAGMA and (first or "").lower() in DESCRIBING
    return apsw.SQLITE_OK if operation in READING or is_described else apsw.SQLITE_DENY


def batched(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """Rows, some at a time."""
    while some := list(islice(rows, SCAN_ROWS_TARGET)):
        yield some


@lru_cache(maxsize=256)
def _at_key(collection: int) -> str:
    return f"SELECT _id, _scope, _key, _cells FROM {record_table(collection)} WHERE _scope=? AND _key=?"


def _scope(row: Any) -> Scope:
    number, name, author, seq, time, digest, floor, taker, ready, delivered, priority = row
    return Scope(number, name, author, seq, time, digest, floor, taker, bool(ready), delivered, priority)


def _orphan(row: Any) -> OrphanRow:
    number, author, seq, n, collection, key, packed = row
    return OrphanRow(number, (author, seq, n), collection, key, packed)
