"""The ledger of conflicts: registers that were written apart, and what was written to records that are deleted.

It follows from the cells alone, so it is the same on all replicas that hold a scope: cells that no other has seen live
side by side, and leave when somebody overwrites them all. Equal values are no conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import clock, codec, record, texts
from fieldsync.errors import AlreadyExists, NotFound
from fieldsync.store import HEADLESS
from fieldsync.trash import fields_of
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from fieldsync.record import Dictionary
    from fieldsync.replica import WriteBatch
    from fieldsync.store import OrphanRow, Reader, Scope


class Names(NamedTuple):
    """What cells and authors are called here."""

    field: Callable[[str, tuple[str, int]], str]  # (collection, name and kind of cells) -> the field
    device: Callable[[bytes], str | None]  # author -> the device that answers for it, where one is known


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that somebody wrote."""

    value: Any
    author: str  # 16 hex digits: one file's stay in one scope
    when: datetime  # in UTC, by the author's clock
    is_own: bool  # it was this file
    device: str | None = None  # the name of the author's device, in an organisation

    def __str__(self) -> str:
        who = "this file" if self.is_own else self.device or self.author
        return f"{self.value!r} by {who} on {self.when:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that was written apart: its record reads the first of the claims."""

    scope: str
    collection: str
    key: str
    field: str
    claims: tuple[Claim, ...]
    stored_as: str = ""  # the field's name in cells, as all versions of the app share it

    @property
    def winner(self) -> Claim:
        """What the record reads."""
        return self.claims[0]

    @property
    def losers(self) -> tuple[Claim, ...]:
        """What was written apart from that."""
        return self.claims[1:]

    def __str__(self) -> str:
        others = "; ".join(map(str, self.losers))
        return f"{self.scope}: {self.collection} {self.key}: {self.field} reads {self.winner}; apart from it {others}"


@dataclass(frozen=True, slots=True)
class LateEdit:
    """What was written to a record by who had not heard that it is deleted."""

    scope: str
    collection: str  # empty, as the key, where the record's creation never came here
    key: str
    values: dict[str, Claim]
    incarnation: tuple[str, int, int] = field(repr=False)

    def __str__(self) -> str:
        name = f"{self.collection} {self.key}" if self.collection else "a record that was never here"
        values = ", ".join(f"{field} = {claim}" for field, claim in self.values.items())
        return f"{self.scope}: {name} is deleted, but was written to: {values}"


def conflicts(reader: Reader, scopes: list[Scope], collection: str | None, called: Names) -> Iterator[Conflict]:
    """The fields of scopes that were written apart, of one collection or of all."""
    names = {row.id: row.name for row in reader.collections()}
    for scope in scopes:
        for number, rows in reader.records(scope.id):
            if collection in (None, names[number]):
                every = record.rivals(reader.dictionary, [row.packed for row in rows])
                for row, rivals in zip(rows, every, strict=True):
                    yield from _conflicts(reader.dictionary, scope, (names[number], row.key), rivals, called)


def _conflicts(
    dictionary: Dictionary, scope: Scope, name: record.Name, rivals: list[record.Rivals], called: Names
) -> Iterator[Conflict]:
    for number, found in rivals:
        cell = dictionary.field_names[number]
        is_shown = not cell[0].startswith("_")
        if is_shown and len({codec.encode(value) for *_, value in found}) > 1:
            name_of, own = dictionary.author, _own(dictionary, scope)
            claims = tuple(_claim(own, name_of(author), time, value, called) for author, _, time, value in found)
            yield Conflict(scope.name, *name, called.field(name[0], cell), claims, cell[0])


def stands(dictionary: Dictionary, packed: bytes, conflict: Conflict) -> bool:
    """Whether a packed record has a conflict still, with the same claims."""
    number = dictionary.field_ids.get((conflict.stored_as, Kind.REGISTER), 0)
    (rivals,) = record.rivals(dictionary, [packed])
    found = [
        (dictionary.author(author).hex(), clock.to_datetime(time), codec.encode(value))
        for author, _, time, value in dict(rivals).get(number, ())
    ]
    return found == [(claim.author, claim.when, codec.encode(claim.value)) for claim in conflict.claims]


def late_edits(reader: Reader, scopes: list[Scope], collection: str | None, called: Names) -> Iterator[LateEdit]:
    """What was written to deleted records of scopes, of one collection or of all."""
    names = {row.id: row.name for row in reader.collections()}
    for scope in scopes:
        context = reader.context(scope.id) if reader.has_orphans(scope.id) else None
        for orphans in reader.all_orphans(scope.id) if context else ():
            for orphan in orphans:
                author, seq, n = orphan.incarnation
                name = reader.dictionary.author(author)
                is_deleted = context is not None and context.covers(name, seq)  # else its creation is still to come
                if is_deleted and collection in (None, names.get(orphan.collection)):
                    known = names.get(orphan.collection, "")
                    values = _values(reader.dictionary, scope, known, orphan, called)
                    yield LateEdit(scope.name, known, orphan.key or "", values, (name.hex(), seq, n))


def _values(
    dictionary: Dictionary, scope: Scope, collection: str, orphan: OrphanRow, called: Names
) -> dict[str, Claim]:
    """What the cells of a deleted record read, by field, with who wrote it last."""
    read = record.read_cells(dictionary, orphan.packed)
    for number, updates in record.updates(dictionary, orphan.packed).items():
        read[dictionary.field_names[number]] = texts.salvaged(updates)  # what it built on is gone
    writers = sorted(record.writers(dictionary, orphan.packed).items(), key=itemgetter(1))
    name_of, own = partial(called.field, collection), _own(dictionary, scope)
    claims = {name_of(cell): _claim(own, author, time, read.get(cell), called) for cell, (time, author) in writers}
    return {name: claims[name] for name in sorted(claims)}


def _own(dictionary: Dictionary, scope: Scope) -> bytes | None:
    """As whom this file writes in a scope, if it ever did."""
    return dictionary.author(scope.author) if scope.author else None


def _claim(own: bytes | None, author: bytes, time: int, value: Any, called: Names) -> Claim:
    return Claim(value, author.hex(), clock.to_datetime(time), author == own, called.device(author))


def dismiss(batch: WriteBatch, late: LateEdit) -> OrphanRow:
    """Take what was written to a deleted record out of the ledger; returns what it was. NotFound if it is gone."""
    writer, scope = batch.writer, batch.writer.scope(late.scope)
    name, seq, n = late.incarnation
    author = writer.dictionary.author_ids.get(bytes.fromhex(name))
    if scope is not None and author is not None:
        for orphan in writer.orphans(scope.id, [(author, seq, n)]):
            batch.scope(late.scope).dismiss(orphan)
            return orphan
    raise NotFound(f"what was written to {late.collection} {late.key!r} is not in the ledger any more")


def recreate(batch: WriteBatch, late: LateEdit) -> None:
    """Make a deleted record again from what was written to it, and take that out of the ledger.

    NotFound; AlreadyExists where a record of the key lives.
    """
    orphan = dismiss(batch, late)
    if orphan.collection == HEADLESS or orphan.key is None:
        raise NotFound("the creation of that record never came here, so its name is not known")
    pending = batch.scope(late.scope).at(orphan.collection, late.collection, orphan.key)
    if pending.is_live:
        raise AlreadyExists(f"{late.collection} {late.key!r} exists in scope {late.scope!r}")
    pending.creates = True
    pending.fields = fields_of(batch.writer.dictionary, orphan.packed)
