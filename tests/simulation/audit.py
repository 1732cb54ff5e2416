"""Everything that follows from a store's record blobs, computed again from nothing but them."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests import canonical, model
from tests.simulation import cells, fields

from fieldsync import query, record
from fieldsync.changes import REMOVING
from fieldsync.context import Context
from fieldsync.entries import expand
from fieldsync.store import Entry

if TYPE_CHECKING:
    from tests.simulation.cells import Held

    from fieldsync.sqlite import SQLiteReader, SQLiteStore
    from fieldsync.store import ChangeRow, Scope

siphash = lru_cache(maxsize=200_000)(canonical.siphash)


def audit(store: SQLiteStore) -> list[str]:
    """What is wrong in a store: digests, columns, change index, contexts; empty if all follows from the cells."""
    found: list[str] = []
    with store.reading() as reader:
        for scope in reader.scopes():
            rows = cells.held(reader, scope.id)
            faults = [
                *_rows(rows),
                *_digest(scope, rows),
                *_columns(reader, scope, rows),
                *_index(reader, scope, rows),
                *_removals(reader, scope),
                *_context(reader, scope),
            ]
            found.extend(f"{scope.name}: {fault}" for fault in faults)
    return found


def _rows(rows: list[Held]) -> list[str]:
    found = []
    for row in rows:
        alive = [name for name, inc in row.record.items() if inc.time is not None]
        if row.is_orphan and (alive or len(row.record) != 1 or not all(inc.cells for inc in row.record.values())):
            found.append(f"orphan {row.id} is none: {row.record}")
        if not row.is_orphan and (len(alive) != len(row.record) or not alive):
            found.append(f"the record {row.key!r} holds incarnations that do not live: {row.record}")
    names = [name for row in rows for name in row.record]
    if len(names) != len(set(names)):
        found.append("an incarnation is held in two rows")
    return found


def digest(scope: str, rows: list[Held]) -> bytes:
    """The digest of a scope, from the canonical bytes of each cell."""
    key = record.digest_key(scope)
    total = sum(siphash(key, data) for row in rows for data in model.canonical_cells(row.record, row.name))
    return (total % 2**128).to_bytes(16, "little")


def _digest(scope: Scope, rows: list[Held]) -> list[str]:
    return [] if digest(scope.name, rows) == scope.digest else ["the digest is not that of the cells"]


def _columns(reader: SQLiteReader, scope: Scope, rows: list[Held]) -> list[str]:
    """What SQL shows, and what the kernel reads, beside what the model reads from the same cells."""
    found = []
    columns = {collection.id: collection.columns for collection in reader.collections()}
    for row in rows:
        if row.is_orphan:
            continue
        if record.read_all(reader.dictionary, row.packed) != _read_all(row):
            found.append(f"{row.key!r} reads {record.read_all(reader.dictionary, row.packed)}")
        names = ", ".join(query.quote(name) for name, *_ in columns[row.collection])
        if names:
            sql = f"SELECT {names} FROM fs_record_{row.collection} WHERE _id=?"
            shown = reader._db.execute(sql, (row.id,)).fetchone()
            wanted = tuple(
                query.column_value(_read(row, *column.cell, column.default)) for column in columns[row.collection]
            )
            if shown != wanted:
                found.append(f"{row.key!r} has the columns {shown}, not {wanted}")
    return found


def _read_all(row: Held) -> dict[str, Any]:
    every = {cell.address[:2] for inc in row.record.values() for cell in inc.cells}
    kinds = {name: kind for name, kind in every if kind in fields.ROOTS}
    return {
        name: fields.merged(kinds[name], value) if name in kinds else value
        for name, value in model.read_all(row.record).items()
    }


def _read(row: Held, name: str, kind: int, absent: object) -> object:
    value = model.read(row.record, name, kind, absent)
    return fields.merged(kind, value) if kind in fields.ROOTS and isinstance(value, tuple) else value


def _index(reader: SQLiteReader, scope: Scope, rows: list[Held]) -> list[str]:
    """Each live cell's change is in the index, with an entry that names its row; the count of those that live is exact.

    Entries may name rows in which the change has no cell any more.
    """
    found = []
    index = {(reader.dictionary.author(row.author), row.seq): row for row in _changes(reader, scope)}
    living: Counter[model.Dot] = Counter()
    for row in rows:
        place = 0 if row.is_orphan else row.collection, row.id
        for name, address, dot in row.cells():
            living[dot] += 1
            entries = expand(index[dot].entries) if dot in index else []
            if place not in [(entry.collection, entry.row) for entry in entries]:
                found.append(f"the index does not find {address} of {dot} in {place}: {index.get(dot)}")
            if address == cells.EXISTENCE and Entry(row.collection, name.n, row.id, 1) not in entries:
                found.append(f"the index does not find the incarnation {name} in {place}: {index.get(dot)}")
    for dot, row in index.items():
        if row.live != living[dot] and not row.flags & REMOVING:
            found.append(f"the index counts {row.live} cells of {dot}, of which {living[dot]} live")
    return found


def _changes(reader: SQLiteReader, scope: Scope) -> list[ChangeRow]:
    held = reader._db.execute("SELECT DISTINCT author FROM fs_change WHERE scope=?", (scope.id,)).fetchall()
    every = Context.of((reader.dictionary.author(author), 1, 2**62) for (author,) in held)
    return list(reader.changes(scope.id, every))


def _removals(reader: SQLiteReader, scope: Scope) -> list[str]:
    """Each kept removal is what its change's row in the index gives, and nothing else is."""
    kept: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    sql = "SELECT author, seq, inc_author, inc_seq, inc_n FROM fs_removal WHERE scope=?"
    for author, seq, *name in reader._db.execute(sql, (scope.id,)):
        kept.setdefault((author, seq), set()).add(tuple(name))
    given = {
        (row.author, row.seq): {
            removal[:3] for removal in reader.removals_by(scope.id, (row.author, row.seq), row.entries)
        }
        for row in _changes(reader, scope)
        if row.flags & REMOVING
    }
    return [] if kept == given else [f"removals kept {kept}, in the index {given}"]


def _context(reader: SQLiteReader, scope: Scope) -> list[str]:
    """Nothing is held that is not accounted for or provisional; own changes have no gaps."""
    found = []
    context = reader.context(scope.id)
    provisional = reader.provisional_dots(scope.id)
    known = context | Context.of((author, seq, seq) for author, seq in provisional)
    for row in _changes(reader, scope):
        if not known.covers(reader.dictionary.author(row.author), row.seq):
            found.append(f"change {row} is held and not accounted for")  # noqa: PERF401
    if any(context.covers(*dot) for dot in provisional):
        found.append("a dot of the context is provisional")
    own = reader.dictionary.author(scope.author)
    intervals = [interval for interval in context.intervals() if interval[0] == own]
    if intervals != ([(own, 1, scope.seq)] if scope.author and scope.seq else []):
        found.append(f"own changes are {intervals}, the last is {scope.seq}")
    return found
