"""The write transaction on a file; see store.Writer."""

from __future__ import annotations

from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from fieldsync.context import Context
from fieldsync.errors import Corrupt
from fieldsync.limits import ENTRIES_BYTES_A_CELL, ENTRIES_BYTES_SPARE
from fieldsync.sqlite import tails
from fieldsync.sqlite.audit import AuditLog
from fieldsync.sqlite.forwards import ForwardsWriter
from fieldsync.sqlite.inspection import OF_SCOPES
from fieldsync.sqlite.layout import SCOPED_TABLES, dump_entries, record_table
from fieldsync.sqlite.memory import Memory
from fieldsync.sqlite.searching import tables_of
from fieldsync.sqlite.warming import Warming

if TYPE_CHECKING:
    from fieldsync.record import Dictionary, Removal
    from fieldsync.sqlite.store import SQLiteStore
    from fieldsync.store import ChangeRow, Dot, Edits, Incarnation, OrphanRow, RemovalRow, Scope
    from fieldsync.warm import Warm


LOGGED = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
LOG = f"INSERT OR REPLACE INTO fs_removal VALUES{LOGGED}"
LOGGED_ROWS = 50  # a statement, as far as there are: a quarter less time than one by one


class Left(NamedTuple):
    """What a write transaction leaves to the next one."""

    version: int  # of the file, which other processes' commits change
    dictionary: Dictionary
    scopes: dict[str, Scope]  # some
    warm: dict[tuple[int, str], Warm]  # the records at hand


class SQLiteWriter(Warming, AuditLog, ForwardsWriter, Memory):
    """The write transaction; see store.Writer."""

    def __init__(self, store: SQLiteStore, connection: apsw.Connection) -> None:
        self._warm = {}
        Warming.__init__(self, store, connection, "BEGIN IMMEDIATE")
        AuditLog.__init__(self)
        ForwardsWriter.__init__(self)
        self._edits: dict[int, dict[Dot, Edits]] = {}  # that landed in this transaction, by scope
        self.issued: dict[int, tuple[int, int]] = {}  # scope -> (author, seq) of the own last change made in it
        self.digests: dict[str, tuple[bytes, bytes]] = {}  # of the scopes that were written in, before and after

    def _latest_dictionary(self) -> Dictionary:
        """As the last transaction left it, if no other process has written since; then the scopes are known as well."""
        self._version = int(self._db.execute("PRAGMA data_version").get)
        left = self._store.take_left(self._version)
        if left is None:
            self._store.lately.clear()
            return super()._latest_dictionary()
        self._scopes, self._warm = left.scopes, left.warm
        return left.dictionary

    def commit(self) -> None:
        """Make it durable."""
        self._db.execute("COMMIT")
        self._store.leave(Left(self._version, self.dictionary, self._scopes, self._warm))
        for scope, edits in self._edits.items():
            self._store.lately.put(scope, edits)

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
        if scope.name not in self.digests:
            known = self._scopes.get(scope.name)
            self.digests[scope.name] = known.digest if known else b"", b""
        self.digests[scope.name] = self.digests[scope.name][0], scope.digest
        self._scopes[scope.name] = scope

    def erase(self, scope: Scope) -> None:
        """Forget all of a scope at once."""
        self.forget_edits()
        self._forget_tails(scope.id)
        for words in tables_of(self.collections()):
            words.leave(self._db, "_scope=?", (scope.id,))
        for known in self.collections():
            self._db.execute(f"DELETE FROM {record_table(known.id)} WHERE _scope=?", (scope.id,))
        for table in SCOPED_TABLES:
            self._db.execute(f"DELETE FROM {table} WHERE scope=?", (scope.id,))
        self._db.execute("DELETE FROM fs_giver WHERE id NOT IN (SELECT giver FROM fs_provisional)")
        self._db.execute("DELETE FROM fs_scope WHERE id=?", (scope.id,))
        del self._scopes[scope.name]

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

    def remembered(self, scope: int) -> set[Dot]:
        """The changes of whose edits anything is remembered."""
        earlier, landed = self._store.lately.dots(scope), self._edits.get(scope)
        return earlier | landed.keys() if landed else earlier

    def note_edits(self, scope: int, edits: dict[Dot, Edits], stale: list[tuple[Dot, int, int]]) -> None:
        """Remember edits, which replaced some of what is remembered of others: (change, collection, row) each."""
        self._store.lately.drop(scope, stale)  # before others see what replaced it
        landed = self._edits.setdefault(scope, {})
        for dot, collection, row in stale:
            if dot in landed:
                landed[dot].pieces.get(collection, {}).pop(row, None)
        landed.update(edits)

    def forget_edits(self) -> None:
        """Remember none, for what they are of is mended."""
        self._store.lately.clear()
        self._edits = {}

    def lose_cells(self, scope: int, losses: list[tuple[Dot, int]]) -> list[Dot]:
        """Changes of which so many cells no longer live; those with none left leave the index.

        Returns those whose entries are longer than what is left of them may have (limits.py).
        """
        left = list(
            self._db.executemany(
                "UPDATE fs_change SET live=live-? WHERE scope=? AND author=? AND seq=? "
                "RETURNING author, seq, live, length(entries)",
                [(count, scope, *dot) for dot, count in losses],
            )
        )
        self.delete_changes(scope, [(author, seq) for author, seq, live, _ in left if live <= 0])
        return [
            (author, seq)
            for author, seq, live, size in left
            if live > 0 and size > ENTRIES_BYTES_SPARE + ENTRIES_BYTES_A_CELL * live
        ]

    def put_removals(
        self, scope: int, dot: Dot, removals: list[Removal], names: dict[Incarnation, tuple[int, str]]
    ) -> None:
        """Keep the removals that one change made, with (collection, key) of the records they hit where it is known."""
        rows: list[RemovalRow] = [
            (scope, author, seq, n, *dot, item, *names.get((author, seq, n), (None, None)))
            for author, seq, n, item in removals
        ]
        self.log_removals(scope, rows)

    def log_removals(self, scope: int, rows: list[RemovalRow]) -> None:
        """As put_removals, of rows as the table has them."""
        self.note_removed(scope, ((row[1], row[2], row[3], row[6]) for row in rows))
        whole = len(rows) - len(rows) % LOGGED_ROWS
        for first in range(0, whole, LOGGED_ROWS):
            some = rows[first : first + LOGGED_ROWS]
            self._db.execute(LOG + f", {LOGGED}" * (LOGGED_ROWS - 1), tuple(chain.from_iterable(some)))
        self._db.executemany(LOG, rows[whole:])

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
        if stray := self._stray_tails():
            tails.drop(self._db, stray)
        for words in tables_of(self.collections()):
            words.leave(self._db, "_scope NOT IN (SELECT id FROM fs_scope)", ())
        tables = [(record_table(known.id), "_scope") for known in self.collections()]
        for table, column in [*tables, *((table, "scope") for table in ("fs_orphan", *OF_SCOPES))]:
            self._db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM fs_scope)")

    def damage(self, most: int) -> list[str]:
        """As a reader's. Where SQLite undoes the transaction, for it is out of memory, another one begins."""
        found = super().damage(most)
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        return found

    def damaged_searches(self) -> list[str]:
        """Which search tables are wrong."""
        wrong = [words.name for words in tables_of(self.collections()) if not words.is_sound(self._db)]
        return [f"the search index {name} has other words than its columns" for name in wrong]

    def reindex(self) -> None:
        """Build all of SQLite's indexes anew; Corrupt where two rows are under one key."""
        try:
            self._db.execute("REINDEX")
        except apsw.ConstraintError as error:
            raise Corrupt(f"two rows where there may be one ({error}): enter the same scopes in a new file") from None
        for words in tables_of(self.collections()):
            words.rebuild(self._db)

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
