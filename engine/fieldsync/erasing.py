"""Erasing fields: taking all of their cells out of records, on all replicas, whatever the app declares today."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.errors import LimitExceeded
from fieldsync.limits import CHANGE_RECORDS_MAX
from fieldsync.transaction import KIND_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.record import Dictionary
    from fieldsync.replica import Replica
    from fieldsync.schema import Collection
    from fieldsync.store import Reader, Scope


def cells_named(dictionary: Dictionary, packed: bytes, collection: Collection, name: str) -> set[tuple[str, int]]:
    """The cells of a record that a field's name stands for, as (name, kind): a declared field's, or all stored so."""
    (stamps,) = record.stamps(dictionary, [packed])
    held = {cell[:2] for cell in stamps if cell[1] in KIND_NAMES and not cell[0].startswith("_")}
    if name in collection.places:
        return held & {collection.field(name).cell}
    return {cell for cell in held if cell[0] == name}


def erase(
    replica: Replica,
    collection: Collection,
    name: str,
    scopes: Iterable[Scope],
    tell: Callable[[int], object],
) -> int:
    """Erase a field in all records of some scopes, up to CHANGE_RECORDS_MAX a transaction; how many had it."""
    done = 0
    for scope in scopes:
        with replica.store.reading() as reader:
            known = reader.collection(collection.name)
            keys = list(_keys(reader, scope, known.id, collection, name)) if known else []
        for start in range(0, len(keys), CHANGE_RECORDS_MAX):
            done += _erase(replica, scope.name, keys[start : start + CHANGE_RECORDS_MAX], collection, name)
            tell(done)
    return done


def _erase(replica: Replica, scope: str, keys: list[str], collection: Collection, name: str) -> int:
    """Erase a field in some records, in halves where that is too much for one change."""
    done = 0
    try:
        with replica.writing() as batch:
            (number,) = batch.writer.collection_ids([collection.name])
            change = batch.scope(scope)
            for key in keys:
                pending = change.at(number, collection.name, key)
                if pending.row is not None:  # else it went meanwhile
                    pending.erased |= cells_named(batch.writer.dictionary, pending.row.packed, collection, name)
                    done += bool(pending.erased)
    except LimitExceeded:
        if len(keys) == 1:
            raise
        half = len(keys) // 2
        return sum(_erase(replica, scope, some, collection, name) for some in (keys[:half], keys[half:]))
    return done


def _keys(reader: Reader, scope: Scope, number: int, collection: Collection, name: str) -> Iterator[str]:
    for found, rows in reader.records(scope.id):
        if found == number:
            for row in rows:
                if cells_named(reader.dictionary, row.packed, collection, name):
                    yield row.key
