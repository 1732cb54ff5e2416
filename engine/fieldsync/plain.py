"""Plain values, those that are stored as they come: picked from an app's rows, and landed as new records.

apply.land_new does the same for records of any kind: it takes what is packed already, and reads it for the columns and
the digest. Here the kernel makes all three of one look at the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import named, record
from fieldsync._native import plain
from fieldsync._native.plain import pick
from fieldsync.apply import Arrival, Landed, NewRecords, Touched
from fieldsync.store import ChangeRow, Entry

if TYPE_CHECKING:
    from fieldsync.store import Scope, Writer

__all__ = ["Batch", "Built", "build", "land_built", "pick"]


class Batch(NamedTuple):
    """New records of one collection: fields as (name, kind), and of each record a value for each, or Ellipsis."""

    collection: int
    collection_name: str
    fields: tuple[tuple[str, int], ...]
    keys: list[str]
    records: list[tuple[Any, ...]]


class Built(NamedTuple):
    """The same as it goes into the file."""

    batch: Batch
    rows: list[tuple[Any, ...]]  # number, scope, key, columns, packed; numbered one after the other
    digest: bytes
    cells: int
    size: int  # bytes


def build(writer: Writer, scope: Scope, batches: list[Batch]) -> list[Built] | None:
    """Make records of batches, one for each collection, as the scope's last change; None where a value is not plain."""
    change = scope.author, scope.seq, scope.time
    key = record.digest_key(scope.name)
    made: list[Built] = []
    first = 0
    for batch in batches:
        layout = writer.layout(batch.collection, batch.fields)
        if layout is None:
            return None
        ids = tuple(writer.field_ids(batch.fields))
        table = scope.id, writer.next_row(batch.collection), *layout
        numbers = writer.dictionary
        names = batch.collection_name, key, numbers.fields, numbers.authors
        built = plain.build(change, first, batch.keys, batch.records, ids, table, *names)
        if built is None:
            return None
        made.append(Built(batch, *built))
        first += len(batch.keys)
    return made


def land_built(
    writer: Writer, scope: Scope, every: list[Built], *, may_be_there: bool
) -> tuple[Scope, list[Touched]] | None:
    """As apply.land_new; None, and nothing is written, if records of these keys may be there and one is."""
    parts = sum([built.cells for built in every])
    touched: list[Touched] = []
    entries: list[Entry] = []
    n = 0
    for built in every:
        batch, rows = built.batch, built.rows
        if not writer.insert_wide(batch.collection, rows, may_be_there=may_be_there):
            return None
        entries.append(Entry(batch.collection, n, rows[0][0], len(rows)))
        n += len(rows)
        scope = scope._replace(digest=record.add_digests(scope.digest, built.digest))
        told = batch.collection, scope.name, batch.keys, False, True, b""
        touched += named.of_columns(Touched, len(batch.keys), told)
    dot = scope.author, scope.seq
    writer.put_changes(scope.id, [ChangeRow(*dot, scope.time, 0, parts, parts, sorted(entries))])
    if writer.is_audited():
        writer.note_landed(Landed(scope.name, [], [], [], _as_news(scope, every, parts)))
    return scope, touched


def _as_news(scope: Scope, every: list[Built], parts: int) -> list[NewRecords]:
    arrival = Arrival((scope.author, scope.seq), scope.time, 0, parts, [], live=parts)
    packed = [(built.batch, [(row[2], row[-1]) for row in built.rows]) for built in every]
    first, news = 0, []
    for batch, pairs in packed:
        records = [(n, key, piece) for n, (key, piece) in enumerate(pairs, first)]
        news.append(NewRecords(arrival, batch.collection, batch.collection_name, records))
        first += len(records)
    return news
