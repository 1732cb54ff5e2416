"""The trash: records that went because a peer had them no more; listed, and made again on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fieldsync import codec, record, texts
from fieldsync.errors import AlreadyExists, NotFound
from fieldsync.transaction import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.record import Dictionary
    from fieldsync.replica import WriteBatch
    from fieldsync.store import Reader, Scope, TrashRow


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """A record that went because a peer had it no more."""

    scope: str
    collection: str
    key: str
    when: datetime  # in UTC
    values: dict[str, Any]
    id: int = field(repr=False)  # in this file's trash


def entries(reader: Reader, scopes: list[Scope]) -> list[TrashEntry]:
    """What the trash has of scopes, the latest first."""
    names = {scope.id: scope.name for scope in scopes}
    collections = {row.id: row.name for row in reader.collections()}
    return [
        TrashEntry(
            names[row.scope],
            collections[row.collection],
            row.key,
            to_datetime(row.wall_ms),
            record.read_all(reader.dictionary, row.packed),
            row.id,
        )
        for row in reader.trash()
        if row.scope in names
    ]


def restore(batch: WriteBatch, some: Iterable[TrashEntry]) -> None:
    """Make records of the trash again, as new incarnations; NotFound, AlreadyExists.

    What a later version's types held in them stays behind.
    """
    writer = batch.writer
    wanted = {entry.id: entry for entry in some}
    rows = {row.id: row for row in writer.trash() if row.id in wanted}
    for entry in wanted.values():
        row, scope = rows.get(entry.id), writer.scope(entry.scope)
        if row is None or scope is None or not _is(entry, row, scope):
            raise NotFound(f"the trash has {entry.collection} {entry.key!r} of {entry.scope!r} no more")
        pending = batch.scope(entry.scope).at(row.collection, entry.collection, entry.key)
        if pending.is_live:
            raise AlreadyExists(f"{entry.collection} {entry.key!r} exists in scope {entry.scope!r}")
        pending.creates = True
        pending.fields = fields_of(writer.dictionary, row.packed)
    writer.delete_trash(list(wanted))


def _is(entry: TrashEntry, row: TrashRow, scope: Scope) -> bool:
    """Whether a row is that of an entry: a number is given again once its row is gone."""
    return (row.scope, row.key, to_datetime(row.wall_ms)) == (scope.id, entry.key, entry.when)


def fields_of(dictionary: Dictionary, packed: bytes) -> dict[tuple[str, int], Any]:
    """The values of a packed record by (field, kind), as a new record is written."""
    (stamps,) = record.stamps(dictionary, [packed])
    pairs = sorted({(name, kind) for name, kind, *_ in stamps if kind in KINDS.values() and not name.startswith("_")})
    wanted = tuple(dictionary.field_ids[pair] for pair in pairs)
    values = record.read(dictionary, packed, wanted, (0,) * len(wanted))
    values = tuple([texts.carried(value) if isinstance(value, codec.Updates) else value for value in values])
    is_counter = KINDS["counter"]
    return {pair: value for pair, value in zip(pairs, values, strict=True) if value or pair[1] != is_counter}


def to_datetime(wall_ms: int) -> datetime:
    """Milliseconds since 1970 as a datetime in UTC."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC)
