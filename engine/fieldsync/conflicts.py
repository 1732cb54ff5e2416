"""The ledger of conflicts: registers that were written apart, and what was written to records that are deleted.

It follows from the cells alone, so it is the same on all replicas that hold a scope: cells that no other has seen live
side by side, and leave when somebody overwrites them all. Equal values are no conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from fieldsync import clock, codec, record, texts
from fieldsync.errors import AlreadyExists, NotFound
from fieldsync.store import HEADLESS
from fieldsync.trash import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from fieldsync.replica import WriteBatch
    from fieldsync.store import OrphanRow, Reader, Scope

    Named = Callable[[str, tuple[str, int]], str]


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that somebody wrote."""

    value: Any
    author: str  # 16 hex digits: one file's stay in one scope
    when: datetime  # in UTC, by the author's clock
    is_own: bool  # it was this file

    def __str__(self) -> str:
        return f"{self.value!r} by {'this file' if self.is_own else self.author} on {self.when:%Y-%m-%d %H:%M:%S} UTC"


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


def conflicts(reader: Reader, scopes: list[Scope], collection: str | None, named: Named) -> Iterator[Conflict]:
    """The fields of scopes that were written apart, of one collection or of all.

    named: (collection, name and kind of cells) -> what the field is called.
    """
    names = {row.id: row.name for row in reader.collections()}
    for scope in scopes:
        for number, rows in reader.records(scope.id):
            if collection in (None, names[number]):
                every = record.rivals(reader.dictionary, [row.packed for row in rows])
                for row, rivals in zip(rows, every, strict=True):
                    yield from _conflicts(reader, scope, (names[number], row.key), rivals, named)


def _conflicts(
    reader: Reader, scope: Scope, name: record.Name, rivals: list[record.Rivals], named: Named
) -> Iterator[Conflict]:
    for number, found in rivals:
        cell = reader.dictionary.field_names[number]
        is_shown = not cell[0].startswith("_")
        if is_shown and len({codec.encode(value) for *_, value in found}) > 1:
            name_of = reader.dictionary.author
            claims = tuple(_claim(reader, scope, name_of(author), time, value) for author, _, time, value in found)
            yield Conflict(scope.name, *name, named(name[0], cell), claims, cell[0])


def late_edits(reader: Reader, scopes: list[Scope], collection: str | None, named: Named) -> Iterator[LateEdit]:
    """What was written to deleted records of scopes, of one collection or of all. named: see conflicts."""
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
                    values = _values(reader, scope, orphan, partial(named, known))
                    yield LateEdit(scope.name, known, orphan.key or "", values, (name.hex(), seq, n))


def _values(
    reader: Reader, scope: Scope, orphan: OrphanRow, name_of: Callable[[tuple[str, int]], str]
) -> dict[str, Claim]:
    """What the cells of a deleted record read, by field, with who wrote it last."""
    read = record.read_cells(reader.dictionary, orphan.packed)
    for number, updates in record.updates(reader.dictionary, orphan.packed).items():
        read[reader.dictionary.field_names[number]] = texts.salvaged(updates)  # what it built on is gone
    writers = sorted(record.writers(reader.dictionary, orphan.packed).items(), key=itemgetter(1))
    claims = {name_of(cell): _claim(reader, scope, author, time, read.get(cell)) for cell, (time, author) in writers}
    return {name: claims[name] for name in sorted(claims)}


def _claim(reader: Reader, scope: Scope, author: bytes, time: int, value: Any) -> Claim:
    is_own = scope.author > 0 and author == reader.dictionary.author(scope.author)
    return Claim(value, author.hex(), clock.to_datetime(time), is_own)


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
