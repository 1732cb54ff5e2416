"""Records at hand: those of which a text, list or map was edited here last, so that the next edit need not read them.

A long text lies in its record as an update of all of it and thousands of small ones. To read, merge and write them
at every letter would take longer the longer it is. What the next edit has to know of them is kept instead, from one
write transaction to the next; what it writes is a piece beside the row (sqlite/tails.py).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from fieldsync import record, texts
from fieldsync.apply import Touched
from fieldsync.codec import Updates
from fieldsync.documents import as_varint
from fieldsync.limits import TAIL_RECORD_BYTES
from fieldsync.store import ChangeRow, Edits, Entry, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fieldsync.apply import Arrival, Target
    from fieldsync.pending import Pending
    from fieldsync.record import Dictionary, Side
    from fieldsync.store import Scope, Writer
    from fieldsync.texts import Held, Written

Cell = tuple[str, int]  # the name and the kind of a field's cells
MUTABLE = (list, dict, tuple)  # values that an app may change in place, or that hold such


class Warm:
    """What the next edit has to know of a record."""

    def __init__(self, collection: int, row: int, scope: int, key: str, head: bytes, held: dict[Cell, Held]) -> None:
        self.collection = collection
        self.id = row
        self.scope = scope
        self.key = key
        self.head = head  # its one incarnation, packed without its cells
        self.held = held  # of its texts, lists and maps
        # a declared collection, and what its record showed at first
        self.values: tuple[Any, tuple[Any, ...]] | None = None
        self.pieces = 0  # beside the row
        self.is_true = True  # until somebody else writes the record

    def read(self, collection: Any) -> tuple[Any, ...] | None:
        """What a record of a declared collection shows; None where that is not at hand."""
        if self.values is None or self.values[0] is not collection:
            return None
        values = list(self.values[1])
        for one in collection.shared:
            shown = texts.shown_of(self.held[one.cell]) if one.cell in self.held else one.absent
            if shown is None:
                return None
            values[collection.places[one.name]] = shown
        return tuple(values)

    def note(self, collection: Any, values: Any) -> None:
        """Keep what the record shows, unless that may be changed in place."""
        if collection.record is not None:
            shared = {collection.places[one.name] for one in collection.shared}
            kept = tuple([None if place in shared else value for place, value in enumerate(values)])
            self.values = None if any(isinstance(value, MUTABLE) for value in kept) else (collection, kept)


class WarmRow(Row):
    """The row of a record at hand: its cells are read when somebody asks for them."""

    warm: Warm
    load: Callable[[], bytes]

    @classmethod
    def of(cls, warm: Warm, load: Callable[[], bytes]) -> WarmRow:
        """load: reads its cells."""
        row = cls(warm.id, warm.scope, warm.key, b"")
        row.warm, row.load = warm, load
        return row

    @cached_property
    def packed(self) -> bytes:
        """Its cells."""
        return self.load()


def base_of(row: Row, sides: Sequence[Side]) -> bytes:
    """Over what cells beside others are written: over the record's head, where it is at hand and none replaces any."""
    if isinstance(row, WarmRow) and row.warm.is_true and sides and not any(replaces for _, _, _, replaces, _ in sides):
        return row.warm.head
    return row.packed


def is_edit(pending: Pending) -> bool:
    """Whether texts, lists or maps are edited and nothing else is done."""
    others = pending.deletes, pending.creates, pending.plain, pending.fields, pending.elements, pending.erased
    return bool(pending.splices) and not any(others)


class Shared:
    """The texts, lists and maps of a record, read as far as they are asked for; and what is written of them."""

    def __init__(self, dictionary: Dictionary, row: Row) -> None:
        self.written: dict[Cell, Written] = {}
        self._dictionary = dictionary
        self._row = row
        self._warm = row.warm if isinstance(row, WarmRow) and row.warm.is_true else None
        self._updates: dict[int, Updates] | None = None

    def updates(self, cell: Cell) -> Updates:
        """The updates of one."""
        if self._updates is None:
            self._updates = record.updates(self._dictionary, self._row.packed)
        found = self._updates.get(self._dictionary.field_ids[cell]) or Updates()
        found.kind = cell[1]
        return found

    def held(self, cell: Cell) -> Held:
        """What has to be known of the updates of one."""
        known = self._warm.held.get(cell) if self._warm else None
        return known or texts.held(self.updates(cell))

    @property
    def is_at_hand(self) -> bool:
        """Whether what is written needs no look at the record: none of it replaces anything."""
        return self._warm is not None and all(one.held and one.limits is None for one in self.written.values())

    def warmed(self, collection: int) -> Warm | None:
        """What the next edit has to know of the record; None where it is small, or was made twice."""
        now = {cell: one.held for cell, one in self.written.items() if one.held}
        if len(now) < len(self.written):
            return None
        warm = self._warm
        if warm is None and (head := _head_of(self._row.packed)) is not None:
            names = self._dictionary.field_names
            held = {names[number]: texts.held(some) for number, some in (self._updates or {}).items()}
            warm = Warm(collection, self._row.id, self._row.scope, self._row.key, head, held)
        if warm is not None:
            warm.held.update(now)
        return warm


def _head_of(packed: bytes) -> bytes | None:
    """Of a large record of one incarnation, that without its cells."""
    births = record.births(packed) if len(packed) >= TAIL_RECORD_BYTES else []
    if len(births) != 1:
        return None
    author, seq, n, time = births[0]
    head = b"\x01" + b"".join(map(as_varint, (author, seq, n))) + time.to_bytes(8) + b"\0"
    return as_varint(len(head)) + head


def append(
    writer: Writer, scope: Scope, target: Target, arrival: Arrival, written: dict[Cell, Written]
) -> tuple[Scope, list[Touched]]:
    """As apply.land, of an edit of a record at hand, that replaces nothing: without a look at its other cells."""
    row = target.row
    assert isinstance(row, WarmRow)
    warm, (piece,) = row.warm, target.pieces
    item = (warm.head,), (piece,), (), (target.collection_name, warm.key)
    _, difference = record.merge_all(writer.dictionary, record.digest_key(scope.name), [item])
    writer.append(warm, piece, {cell: one.shown() for cell, one in written.items()})
    place = Entry(warm.collection, -1, warm.id, 1)
    parts = arrival.parts
    writer.put_changes(scope.id, [ChangeRow(*arrival.dot, arrival.time, arrival.flags, parts, parts, [place])])
    writer.note_edits(scope.id, {arrival.dot: Edits(parts, {warm.collection: {warm.id: piece}})}, [])
    touched = Touched(warm.collection, scope.name, warm.key, before=True, after=True)
    return scope._replace(digest=record.add_digests(scope.digest, difference)), [touched]
