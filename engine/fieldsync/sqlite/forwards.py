"""Where records that a hub has moved went: the table of forwards, and what of a transaction came too late for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.store import KILLS, Forward, Late

if TYPE_CHECKING:
    from collections.abc import Iterable

    import apsw

    from fieldsync.record import Removal
    from fieldsync.store import Incarnation

COLUMNS = "author, seq, n, target, heir_author, heir_seq, heir_n, collection, key, totals, edited, wall_ms"


class ForwardsReader:
    """Reads forwards; see store.Reader."""

    _db: apsw.Connection

    def forward(self, scope: int, incarnation: Incarnation) -> Forward | None:
        """Where an incarnation went, if it was moved from here."""
        sql = f"SELECT {COLUMNS} FROM fs_forward WHERE (scope, author, seq, n)=(?, ?, ?, ?)"
        row = self._db.execute(sql, (scope, *incarnation)).fetchone()
        return _forward(row) if row else None

    def forward_of(self, scope: int, collection: int, key: str) -> Forward | None:
        """Where a record went that was moved from here, the last time."""
        sql = f"SELECT {COLUMNS} FROM fs_forward WHERE (scope, collection, key)=(?, ?, ?) ORDER BY wall_ms DESC LIMIT 1"
        row = self._db.execute(sql, (scope, collection, key)).fetchone()
        return _forward(row) if row else None

    def moved_alone(self, scope: int, forward: Forward) -> bool:
        """Whether no other incarnation was moved from here that lives on as the same one."""
        sql = (
            "SELECT count(*) FROM fs_forward WHERE (scope, collection, key)=(?, ?, ?) "
            "AND (heir_author, heir_seq, heir_n)=(?, ?, ?)"
        )
        row = self._db.execute(sql, (scope, forward.collection, forward.key, *forward.heir)).fetchone()
        return row == (1,)

    def has_forwards(self) -> bool:
        """Whether anything was ever moved here."""
        return self._db.execute("SELECT 1 FROM fs_forward LIMIT 1").fetchone() is not None


class ForwardsWriter(ForwardsReader):
    """Writes forwards, and notes in a transaction what may have come too late for them; see store.Writer."""

    def __init__(self) -> None:
        self._headless: list[Late] = []
        self._removals: list[tuple[int, Iterable[Removal]]] = []  # that came, by scope

    def note_headless(self, scope: int, incarnation: Incarnation) -> None:
        """Cells came without their incarnation."""
        self._headless.append(Late(scope, incarnation))

    def note_removed(self, scope: int, removals: Iterable[Removal]) -> None:
        """Removals came."""
        self._removals.append((scope, removals))

    def take_late(self) -> tuple[list[Late], list[Late], list[Late]]:
        """Of this transaction since the last call: cells without their incarnation, incarnations removed, thinned.

        Nothing where nothing was ever moved, for then nothing has to follow.
        """
        headless, removals = self._headless, self._removals
        self._headless, self._removals = [], []
        if not (headless or removals) or not self.has_forwards():
            return [], [], []
        removed = [Late(scope, one[:3], one[3]) for scope, some in removals for one in some if one[3]]
        killed = [one for one in removed if one.item[0] & KILLS]
        thinned = [one for one in removed if not one.item[0] & KILLS]
        return list(dict.fromkeys(headless)), list(dict.fromkeys(killed)), list(dict.fromkeys(thinned))

    def put_forwards(self, scope: int, forwards: Iterable[Forward]) -> None:
        """Remember where incarnations went, in place of what was known of them."""
        rows = [(scope, *forward.incarnation, forward.target, *forward.heir, *forward[3:]) for forward in forwards]
        self._db.executemany(f"INSERT OR REPLACE INTO fs_forward VALUES(?{', ?' * 12})", rows)

    def drop_forward(self, scope: int, incarnation: Incarnation) -> None:
        """Forget where an incarnation went."""
        self._db.execute("DELETE FROM fs_forward WHERE (scope, author, seq, n)=(?, ?, ?, ?)", (scope, *incarnation))

    def forget_forwards(self, before_ms: int, most: int) -> None:
        """Forget the forwards of before a wall time, and all but the latest so many."""
        self._db.execute("DELETE FROM fs_forward WHERE wall_ms<?", (before_ms,))
        sql = "SELECT wall_ms FROM fs_forward ORDER BY wall_ms DESC LIMIT 1 OFFSET ?"
        row = self._db.execute(sql, (most,)).fetchone()
        if row:
            self._db.execute("DELETE FROM fs_forward WHERE wall_ms<=?", row)


def _forward(row: tuple[object, ...]) -> Forward:
    author, seq, n, target, heir_author, heir_seq, heir_n, *rest = row
    return Forward((author, seq, n), target, (heir_author, heir_seq, heir_n), *rest)  # type: ignore[arg-type]  # columns are of the table's types
