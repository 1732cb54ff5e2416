"""Void changes: what a revoked device wrote beyond the last change that counts, found and, where it can be, undone.

Void changes merge like all others, so that replicas end equal in whatever order they hear of things. To undo them is to
write: a hub deletes the records that are all theirs, and where they won over what somebody wrote apart, it writes that
again. What they replaced or removed is nowhere any more but in an audit log (docs/audit.md): it is left to people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.context import Context
from fieldsync.limits import CHANGE_RECORDS_MAX
from fieldsync.replica import changed
from fieldsync.trust.rights import CONTROL
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.apply import Touched
    from fieldsync.record import Dictionary
    from fieldsync.replica import WriteBatch
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.store import Row, Scope
    from fieldsync.trust.grants import Roll


@dataclass(frozen=True, slots=True)
class VoidChanges:
    """What devices that are out wrote in a scope beyond what counts of them."""

    scope: str
    devices: tuple[str, ...]
    changes: int
    records: list[tuple[str, str]]  # (collection, key) of those in which it still shows, or that it removed


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of void changes."""

    undone: int  # records
    left: list[tuple[str, str, str]]  # (scope, collection, key) of what people have to look at


def void_dots(reader: SQLiteReader, scope: int, roll: Roll) -> Context:
    """The changes of a scope that do not count."""
    found = []
    for author, low, high in reader.context(scope).intervals():
        last = roll.last_counted(author)
        if last is not None and high > last:
            found.append((author, max(low, last + 1), high))
    return Context.of(found)


def find(reader: SQLiteReader, roll: Roll) -> list[VoidChanges]:
    """What is void here, scope by scope."""
    names = {known.id: known.name for known in reader.collections()}
    found = []
    for scope in reader.scopes():
        dots = void_dots(reader, scope.id, roll)
        records = dict.fromkeys((names[one.collection], one.key) for one, _ in _touched(reader, scope, dots))
        if records:
            devices = {device for author, _, _ in dots.intervals() for device in roll.devices_of(author)}
            found.append(VoidChanges(scope.name, tuple(sorted(devices)), dots.count(), list(records)))
    return found


def undo(batch: WriteBatch, roll: Roll) -> Undone:
    """Undo what can be undone of void changes, as many records as one change of a scope may write; what is left."""
    writer = batch.writer
    names = {known.id: known.name for known in writer.collections()}
    undone, left = 0, []
    for scope in writer.scopes():
        dots = void_dots(writer, scope.id, roll) if scope.name != CONTROL else Context()
        room = CHANGE_RECORDS_MAX
        for one, row in _touched(writer, scope, dots):
            if not room:
                break
            is_undone = row is not None and _undo(batch, names, one, row, dots)
            room -= is_undone
            undone += is_undone
            if not is_undone:
                left.append((scope.name, names[one.collection], one.key))
    return Undone(undone, left)


def _touched(reader: SQLiteReader, scope: Scope, dots: Context) -> Iterator[tuple[Touched, Row | None]]:
    """The records in which some changes show, and those that are gone, which they may have removed."""
    seen = set()
    for one in changed(reader, scope.name, dots):
        if (one.collection, one.key) in seen:
            continue
        seen.add((one.collection, one.key))
        rows = reader.by_key(one.collection, scope.id, [one.key])
        if not rows or any(_is_in(reader.dictionary, dots, *writer) for writer in _writers(reader.dictionary, rows[0])):
            yield one, rows[0] if rows else None


def _writers(dictionary: Dictionary, row: Row) -> list[tuple[int, int]]:
    """The changes of which anything lives in a record."""
    (cells,) = record.stamps(dictionary, [row.packed])
    births = [(birth.author, birth.seq) for birth in record.births(row.packed)]
    return births + [(author, seq) for _, _, author, seq, _ in cells]


def _undo(batch: WriteBatch, names: dict[int, str], one: Touched, row: Row, dots: Context) -> bool:
    """Undo what void changes did to one record, if all of it can be."""
    dictionary = batch.writer.dictionary
    (cells,) = record.stamps(dictionary, [row.packed])
    place = one.collection, names[one.collection], one.key, row
    if all(_is_in(dictionary, dots, *writer) for writer in _writers(dictionary, row)):
        batch.scope(one.scope).at(*place).deletes = True
        return True
    void = {(name, kind) for name, kind, author, seq, _ in cells if _is_in(dictionary, dots, author, seq)}
    (rivals,) = record.rivals(dictionary, [row.packed])
    better = {}
    for number, claims in rivals:
        sound = [value for author, seq, _, value in claims if not _is_in(dictionary, dots, author, seq)]
        if sound:
            better[dictionary.field_names[number]] = sound[0]
    if not void or any(field not in better or field[1] != Kind.REGISTER for field in void):
        return False
    pending = batch.scope(one.scope).at(*place)
    pending.fields = {**pending.fields, **{field: better[field] for field in void}}
    return True


def _is_in(dictionary: Dictionary, dots: Context, author: int, seq: int) -> bool:
    return dots.covers(dictionary.author(author), seq)
