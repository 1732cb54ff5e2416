"""What a transaction does to one key of a scope, until it lands (transaction.py), and as the kernels take it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import codec, plain, record
from fieldsync.types import Kind
from fieldsync.warm import base_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from fieldsync import texts
    from fieldsync.record import Removal
    from fieldsync.store import Row, Writer

    Elements = AbstractSet[Any]

Cell = tuple[str, int]  # the name and the kind of a field's cells
Plain = tuple[tuple[Cell, ...], tuple[Any, ...]]  # fields, and a value for each
NOTHING: Mapping[Any, Any] = MappingProxyType({})  # what most transactions do to most parts of most records


class Creation(NamedTuple):
    """A new record: fields as (name, kind), and a value for each; one of Ellipsis is left out.

    The value of a set is a collection of its elements.
    """

    collection: int
    collection_name: str
    key: str
    fields: tuple[tuple[str, int], ...]
    values: tuple[Any, ...]


class Pending:
    """What a transaction does to one key of one scope; the parts follow each other in this order."""

    __slots__ = (
        *("collection", "collection_name", "key", "row"),
        *("deletes", "creates", "plain", "fields", "elements", "erased", "splices"),
    )

    def __init__(self, collection: int, collection_name: str, key: str, row: Row | None) -> None:
        self.collection = collection
        self.collection_name = collection_name
        self.key = key
        self.row = row
        self.deletes = self.creates = False
        self.plain: Plain | None = None  # of a new record all that it begins with, if that is plain values alone
        self.fields: Mapping[Cell, Any] = NOTHING  # values, or amounts of counters
        self.elements: Mapping[Cell, tuple[Elements, Elements]] = NOTHING  # that come, that go
        self.erased: frozenset[Cell] = frozenset()  # fields of which all cells go
        self.splices: Mapping[Cell, texts.Edits] = NOTHING  # edits of texts, lists and maps

    def delete(self) -> None:
        """From here on it is a record that goes, whatever else the transaction did to it."""
        self.deletes = self.row is not None
        self.creates = False
        self.erased = frozenset()  # it goes whole

    def as_creation(self) -> Creation:
        """The same, where all that is pending is a new record."""
        every = self.plain
        if every is None:
            written = self.written
            every = tuple(written), tuple(written.values())
        return Creation(self.collection, self.collection_name, self.key, *every)

    @property
    def written(self) -> Mapping[Cell, Any]:
        """What a new record begins with."""
        if self.plain is not None:
            return dict(zip(*self.plain, strict=True))
        if not self.elements and not self.splices:
            return self.fields
        return {**self.fields, **{pair: come for pair, (come, _) in self.elements.items() if come}, **self.splices}

    @property
    def writes(self) -> bool:
        """Whether anything is written, not only taken away."""
        return bool(self.creates or (not self.deletes and self.written))

    @property
    def removes(self) -> bool:
        """Whether a record is deleted, elements are taken out of a set of it, or fields are erased."""
        if self.row is None:
            return False
        return self.deletes or bool(self.erased) or any(gone for _, gone in self.elements.values())

    @property
    def is_live(self) -> bool:
        """Whether the transaction reads a record here."""
        return self.creates or (self.row is not None and not self.deletes)


def as_batches(creating: list[Pending]) -> list[plain.Batch] | None:
    """New records by collection, each with the same fields; None where one is not plain or has others."""
    batches: dict[int, plain.Batch] = {}
    for pending in creating:
        if pending.plain is None:
            return None
        fields, values = pending.plain
        batch = batches.get(pending.collection)
        if batch is None:
            batch = plain.Batch(pending.collection, pending.collection_name, fields, [], [])
            batches[pending.collection] = batch
        elif batch.fields != fields:
            return None
        batch.keys.append(pending.key)
        batch.records.append(values)
    return list(batches.values())


def write_item(pending: Pending, ids: dict[tuple[str, int], int], shared: tuple[record.Side, ...]) -> record.WriteItem:
    """An update as the kernel takes it."""
    assert pending.row is not None
    registers = tuple((ids[pair], value) for pair, value in pending.fields.items() if pair[1] == Kind.REGISTER)
    increments = tuple((ids[pair], value) for pair, value in pending.fields.items() if pair[1] == Kind.COUNTER)
    # an element that comes is written beside its like: who took that away meanwhile has not seen this one
    sides = tuple(
        (ids[pair], codec.encode(element), None, True, None)
        for pair, (come, _) in pending.elements.items()
        for element in come
    )
    is_all = not (registers or increments or sides)
    return base_of(pending.row, shared) if is_all else pending.row.packed, registers, increments, sides + shared


def removals(writer: Writer, pending: Pending) -> list[Removal]:
    """Of the whole record, or of elements of its sets and of all cells of fields."""
    assert pending.row is not None
    dictionary, packed = writer.dictionary, pending.row.packed
    if pending.deletes:
        return record.removals(dictionary, packed)
    ids = dictionary.field_ids
    addresses = {(ids[pair], codec.encode(element)) for pair, (_, gone) in pending.elements.items() for element in gone}
    for pair in pending.erased & ids.keys():
        (held,) = record.read(dictionary, packed, (ids[pair],), ((),)) if pair[1] == Kind.SET else ((),)
        addresses |= {(ids[pair], codec.encode(element)) for element in held} or {(ids[pair], b"")}
    return record.removals_at(dictionary, packed, addresses)
