"""Deleting whole records and doing nothing else: what that makes of the file, from one look at each record.

apply.land does the same for changes of any kind: it merges each record with its removal. Here a kernel takes it for
granted that nothing is left of a record when all of it is removed by who sees all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fieldsync import indexing, named, record
from fieldsync._native import delete
from fieldsync.apply import Touched
from fieldsync.changes import REMOVING
from fieldsync.errors import Corrupt
from fieldsync.store import ChangeRow, Dot, Entry

if TYPE_CHECKING:
    from fieldsync.store import RemovalRow, Row, Scope, Writer

Going: TypeAlias = "dict[tuple[int, str], list[Row]]"  # rows of records that go, by the id and name of their collection


class Deletion(NamedTuple):
    """What the deletion of some records comes to."""

    removals: list[RemovalRow]
    runs: list[tuple[int, int, int, int]]  # of the incarnations that go: author id, seq, first n, how many
    lost: dict[Dot, int]  # change -> live cells
    stale: list[tuple[Dot, int, int]]  # of remembered changes: change, collection, row
    difference: bytes  # of the scope's digest
    size: int  # bytes of what the removals say


def delete_all(writer: Writer, scope: Scope, going: Going) -> Deletion | None:
    """What it comes to if the scope's last change deletes records; None where one is not as it should be. Corrupt."""
    groups = [(*collection, rows) for collection, rows in going.items()]
    change = scope.id, scope.author, scope.seq
    key, remembered, known = record.digest_key(scope.name), writer.remembered(scope.id), writer.dictionary
    try:
        found = delete.delete(groups, change, key, remembered, known.fields, known.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None
    return Deletion._make(found) if found is not None else None


def land_deleted(writer: Writer, scope: Scope, going: Going, made: Deletion) -> tuple[Scope, list[Touched]]:
    """Delete the records, inside a write transaction; returns the scope with its new digest, not yet saved."""
    touched: list[Touched] = []
    for (collection, _), rows in going.items():
        writer.delete_rows(collection, [row[0] for row in rows])
        told = collection, scope.name, [row[2] for row in rows], True, False, b""
        touched += named.of_columns(Touched, len(rows), told)
    count = len(made.removals)
    entries = [Entry._make(run) for run in made.runs]
    change = ChangeRow(scope.author, scope.seq, scope.time, REMOVING, count, count, entries)
    writer.log_removals(scope.id, made.removals)
    writer.put_changes(scope.id, [change])
    indexing.lose(writer, scope, list(made.lost.items()))
    writer.note_edits(scope.id, {}, made.stale)
    return scope._replace(digest=record.add_digests(scope.digest, made.difference)), touched
