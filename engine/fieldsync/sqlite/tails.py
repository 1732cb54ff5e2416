"""Edits of long texts, lists and maps, as pieces beside the rows of their records (warm.py), which they belong to.

Whoever reads a row reads its pieces with it; whoever writes one takes them in. There are few at a time, of few rows:
the columns follow with each piece, and only the cells of the row lag behind. The table is made with the first piece.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.errors import Corrupt
from fieldsync.query import quote
from fieldsync.sqlite.layout import record_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import apsw

    from fieldsync.record import Dictionary
    from fieldsync.store import Column, Row

TABLE = """
CREATE TABLE fs_tail(collection INTEGER, row INTEGER, n INTEGER, piece BLOB NOT NULL, PRIMARY KEY(collection, row, n))
    WITHOUT ROWID;
CREATE INDEX fs_tailed ON fs_tail(collection, row) WHERE n=0;
"""
DAMAGED = b"\x01"  # cells that nobody can read
JOINED = 16  # pieces at a time: each is merged into those before it


def tailed(db: apsw.Connection) -> dict[int, set[int]]:
    """The rows that have pieces beside them, by collection."""
    found: dict[int, set[int]] = {}
    for collection, row in db.execute("SELECT collection, row FROM fs_tail WHERE n=0"):
        found.setdefault(collection, set()).add(row)
    return found


def with_tails(db: apsw.Connection, dictionary: Dictionary, collection: int, rows: list[Row]) -> list[Row]:
    """The same rows of a collection, with the pieces that lie beside them."""
    some = tailed(db).get(collection, ())
    sql = "SELECT piece FROM fs_tail WHERE collection=? AND row=? ORDER BY n"
    for place, row in enumerate(rows):
        if row.id in some:
            pieces = [piece for (piece,) in db.execute(sql, (collection, row.id))]
            rows[place] = row._replace(packed=_whole(dictionary, row.packed, pieces))
    return rows


def _whole(dictionary: Dictionary, packed: bytes, pieces: list[Any]) -> bytes:
    """A record with pieces, each of new cells of one incarnation of it; where that cannot be, what nobody can read."""
    try:
        while len(pieces) > 1:
            some = [tuple(pieces[first : first + JOINED]) for first in range(0, len(pieces), JOINED)]
            outcomes, _ = record.merge_all(dictionary, bytes(16), [((), one, (), None) for one in some])
            pieces = [outcome[1][0][3] for outcome in outcomes if outcome]
        (outcome,), _ = record.merge_all(dictionary, bytes(16), [((packed,), tuple(pieces), (), None)])
    except (Corrupt, IndexError, TypeError):
        return DAMAGED
    return packed if outcome is None else DAMAGED if outcome[1] else outcome[0]


def forget(db: apsw.Connection, collection: int, ids: Sequence[int]) -> None:
    """Take the pieces beside rows away."""
    gone = tailed(db).get(collection, set()).intersection(ids)
    drop(db, [(collection, row) for row in sorted(gone)])


def forget_scope(db: apsw.Connection, collection: int, scope: int) -> None:
    """The same, of the rows of a scope."""
    for row in sorted(tailed(db).get(collection, ())):
        if db.execute(f"SELECT _scope FROM {record_table(collection)} WHERE _id=?", (row,)).get == scope:
            drop(db, [(collection, row)])


def put(db: apsw.Connection, collection: int, row: int, n: int, piece: bytes) -> None:
    """Lay one more piece beside a row."""
    db.execute("INSERT OR REPLACE INTO fs_tail VALUES(?, ?, ?, ?)", (collection, row, n, piece))


def strays(db: apsw.Connection, collections: Iterable[int]) -> list[tuple[int, int]]:
    """What pieces lie beside though it is not there: (collection, row); and those of which the first is gone."""
    found: Any = db.execute("SELECT DISTINCT collection, row FROM fs_tail").fetchall()
    first, known = tailed(db), set(collections)
    there = "SELECT 1 FROM {} WHERE _id=? AND _scope IN (SELECT id FROM fs_scope)"
    return [
        (collection, row)
        for collection, row in found
        if collection not in known
        or row not in first.get(collection, ())
        or db.execute(there.format(record_table(collection)), (row,)).get is None
    ]


def drop(db: apsw.Connection, places: list[tuple[int, int]]) -> None:
    """Take the pieces beside rows away: (collection, row) each."""
    db.executemany("DELETE FROM fs_tail WHERE collection=? AND row=?", places)


@lru_cache(maxsize=256)
def _update(collection: int, names: tuple[str, ...]) -> str:
    """The statement that changes columns and keeps the row as long as it is, so that SQLite writes few of its pages.

    What a column gains, _room before the cells loses; where there is too little of it, a sixteenth more.
    """
    columns = [quote(name) for name in names]
    sets = "".join(f"{name}=?{place}, " for place, name in enumerate(columns, 2))
    before = "".join(f"+coalesce(octet_length({name}), 0)" for name in columns)
    after = "+".join(f"octet_length(?{place})" for place in range(2, 2 + len(columns)))
    left = f"coalesce(length(_room), 0){before}-({after})"
    room = f"zeroblob(iif({left}>=0, {left}, 256+({after})/16))"
    return f"UPDATE {record_table(collection)} SET {sets}_room={room} WHERE _id=?1"


def show(
    db: apsw.Connection, collection: int, row: int, columns: Sequence[Column], shown: dict[tuple[str, int], Any]
) -> None:
    """Change the columns of a row to what some of its cells show."""
    pairs = [(column.name, shown[column.cell]) for column in columns if column.cell in shown]
    if pairs:
        db.execute(_update(collection, tuple(map(itemgetter(0), pairs))), (row, *map(itemgetter(1), pairs)))
