"""What a real store holds of a scope, in the words of tests/model.py; and the model's records and removals as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tests import canonical, model

if TYPE_CHECKING:
    from fieldsync.context import Context
    from fieldsync.record import Dictionary
    from fieldsync.sqlite import SQLiteReader

EXISTENCE = model.Address("", model.EXISTENCE)

Fields = tuple[tuple[str, int], ...]
Cid = tuple[model.Name, model.Address, model.Dot]  # what names a cell everywhere


@dataclass(frozen=True)
class Held:
    """One row of records or of orphans."""

    id: int
    collection: int  # 0 for an orphan whose record is not known
    name: bytes  # the encoded [collection, key]; empty where it is not known
    key: str | None
    packed: bytes
    record: model.Record
    is_orphan: bool

    def cells(self) -> dict[Cid, bytes]:
        """Its live cells and their values; of an existence cell the record's name."""
        return cells_of(self.record, self.name)

    @property
    def place(self) -> tuple[int, int]:
        """How the index names it."""
        return 0 if self.is_orphan else self.collection, self.id

    def dots(self) -> set[model.Dot]:
        """The changes that have a cell in it, or created it."""
        return {dot for _, _, dot in self.cells()} | {name.dot for name in self.record}


def cells_of(record: model.Record, name: bytes = b"") -> dict[Cid, bytes]:
    """The live cells of a record and their values."""
    out: dict[Cid, bytes] = {}
    for inc, held in record.items():
        if held.time is not None:
            out[inc, EXISTENCE, inc.dot] = name
        out.update({(inc, cell.address, cell.stamp.dot): cell.value for cell in held.cells})
    return out


def all_cells(rows: list[Held]) -> dict[Cid, bytes]:
    """The live cells of all rows and their values."""
    return {cid: value for row in rows for cid, value in row.cells().items()}


def numbers(dictionary: Dictionary) -> model.Numbers:
    """One file's dictionary as the model has it."""
    authors = [dictionary.author(number) for number in range(dictionary.author_count)]
    return model.Numbers(authors, list(dictionary.field_names))


def unpack(packed: bytes, dictionary: Dictionary) -> model.Record:
    """The record of packed bytes (native/packed.pxd). Not to be changed: it is remembered."""
    return _unpack(packed, dictionary.authors, dictionary.field_names)


@lru_cache(maxsize=10_000)
def _unpack(packed: bytes, authors: bytes, fields: Fields) -> model.Record:
    source, out = canonical.Source(packed), {}
    while source.at < len(packed):
        name, incarnation = _incarnation(canonical.Source(source.sized()), authors, fields)
        out[name] = incarnation
    return out


def _dot(source: canonical.Source, authors: bytes) -> model.Dot:
    at = 8 * source.varint()
    return authors[at : at + 8], source.varint()


def _incarnation(source: canonical.Source, authors: bytes, fields: Fields) -> tuple[model.Name, model.Incarnation]:
    (alive,) = source.take(1)
    name = model.Name(*_dot(source, authors), source.varint())
    stamps = []
    time = 0
    if alive:
        time = int.from_bytes(source.take(8), "big")
        stamps.append(model.Stamp(time, *name.dot))
    born = time if alive else None
    for _ in range(source.varint()):
        dot = _dot(source, authors)
        time += source.signed()
        stamps.append(model.Stamp(time, *dot))
    cells = set()
    while source.at < len(source.data):
        cells.add(_cell(source, stamps, authors, fields))
    return name, model.Incarnation(born, frozenset(cells))


def _cell(source: canonical.Source, stamps: list[model.Stamp], authors: bytes, fields: Fields) -> model.Cell:
    field, kind = fields[source.varint()]
    (head,) = source.take(1)
    index = head & 31
    if index == 31:
        index += source.varint()
    sub = source.sized() if kind & model.HAS_SUB else b""
    seen = [_dot(source, authors) for _ in range(source.varint())] if head & 32 else []
    start = source.at
    source.value()
    value = source.data[start : source.at]
    return model.Cell(model.Address(field, kind, sub), stamps[index], value, tuple(sorted(seen)))


def held(reader: SQLiteReader, scope: int) -> list[Held]:
    """All rows of a scope, those of orphans last."""
    out = []
    names = {0: ""}
    for collection in reader.collections():
        names[collection.id] = collection.name
    for number, rows in reader.records(scope):
        for row in rows:
            record = unpack(row.packed, reader.dictionary)
            name = canonical.encode([names[number], row.key])
            out.append(Held(row.id, number, name, row.key, row.packed, record, is_orphan=False))
    sql = "SELECT id, collection, key, cells FROM fs_orphan WHERE scope=?"
    for number, collection_id, key, packed in reader._db.execute(sql, (scope,)):
        name = canonical.encode([names[collection_id], key]) if collection_id else b""
        record = unpack(packed, reader.dictionary)
        out.append(Held(number, collection_id, name, key, packed, record, is_orphan=True))
    return out


def record(reader: SQLiteReader, scope: str, collection: str, key: str) -> model.Record:
    """The live incarnations of a key."""
    known, held = reader.collection(collection), reader.scope(scope)
    rows = reader.by_key(known.id, held.id, [key]) if known and held else []
    return unpack(rows[0].packed, reader.dictionary) if rows else {}


def dots_of(context: Context) -> set[model.Dot]:
    """A context dot by dot."""
    return {(author, seq) for author, low, high in context.intervals() for seq in range(low, high + 1)}


def contiguous(context: Context) -> dict[bytes, int]:
    """Of each author, the highest seq below which nothing lacks."""
    return {author: high for author, low, high in context.intervals() if low == 1}
