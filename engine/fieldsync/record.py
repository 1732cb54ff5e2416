"""A record's cells in their packed form: making, reading and merging them, under one file's dictionary of numbers."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import codec, texts
from fieldsync._native import authorship, fresh, merge
from fieldsync._native import read as read_kernel
from fieldsync._native import removals as removals_kernel
from fieldsync._native import write as write_kernel
from fieldsync.errors import Corrupt, DecodeError
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fieldsync.context import Context
    from fieldsync.store import Cells

SHOWN = frozenset({Kind.REGISTER, Kind.COUNTER, Kind.SET, *texts.KINDS})  # kinds of cells that records show
Removal = tuple[int, int, int, bytes]  # incarnation (author id, seq, n) and what the remover had seen of it
Name = tuple[str, str]  # collection, key
MergeItem = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[Removal, ...], Name | None]  # olds, pieces, removals
Side = tuple[int, bytes, Any, bool, dict[int, int] | None]  # field id, sub, value, replaces those there, within limits
WriteItem = tuple[bytes, tuple[tuple[int, Any], ...], tuple[tuple[int, Any], ...], tuple[Side, ...]]
# packed, registers, increments, cells beside others
Rivals = tuple[int, list[tuple[int, int, int, Any]]]  # field id, claims as (author id, seq, time, value)
Orphan = tuple[int, int, int, bytes]  # incarnation (author id, seq, n) and its packed cells
Events = tuple[tuple[int, int, int], ...]  # (author id, seq, by): live cells gained or lost by a change
Outcome = tuple[bytes, tuple[Orphan, ...], Events]  # live, orphans, events


class Birth(NamedTuple):
    """The head of an incarnation in a packed record; time 0 where its existence cell is not there."""

    author: int
    seq: int
    n: int
    time: int


class Edited(NamedTuple):
    """What edits of some records made of these, as far as they changed."""

    updates: list[tuple[int, bytes]]  # (row number, packed)
    keys: list[str]  # of the same
    events: dict[tuple[int, int], tuple[int, list[int], list[int]]]  # change -> live cells gained; in which rows; lost
    difference: bytes  # of the scope's digest


def _pack_fields(names: Sequence[tuple[str, int]]) -> bytes:
    raw = [name.encode() for name, _ in names]
    offset = 8 * len(names)
    table = []
    for name, (_, kind) in zip(raw, names, strict=True):
        table.append(struct.pack("<IHBx", offset, len(name), kind))
        offset += len(name)
    return b"".join(table) + b"".join(raw)


class Dictionary(NamedTuple):
    """The numbers one file uses for authors and fields. Immutable; `with_...` gives a larger one. Ids begin at 1."""

    authors: bytes = bytes(8)
    fields: bytes = _pack_fields([("", 0)])
    author_ids: dict[bytes, int] = {}  # noqa: RUF012 - which nobody changes
    field_ids: dict[tuple[str, int], int] = {}  # noqa: RUF012
    field_names: tuple[tuple[str, int], ...] = (("", 0),)

    def with_authors(self, names: Sequence[bytes]) -> Dictionary:
        """With more authors, numbered on in the order given."""
        first = len(self.authors) // 8
        ids = self.author_ids | {name: first + i for i, name in enumerate(names)}
        return Dictionary(self.authors + b"".join(names), self.fields, ids, self.field_ids, self.field_names)

    def with_fields(self, names: Sequence[tuple[str, int]]) -> Dictionary:
        """With more fields, (name, kind), numbered on in the order given."""
        every = self.field_names + tuple(names)
        ids = {pair: i for i, pair in enumerate(every) if i}
        return Dictionary(self.authors, _pack_fields(every), self.author_ids, ids, every)

    def author(self, number: int) -> bytes:
        """The 8 bytes of an author."""
        return self.authors[8 * number : 8 * number + 8]

    def numbered(self, dots: Context) -> list[tuple[int, int, int]]:
        """A context's intervals as (author id, low, high), ascending; authors that have no id are left out."""
        ids = self.author_ids
        return sorted((ids[author], low, high) for author, low, high in dots.intervals() if author in ids)

    @property
    def author_count(self) -> int:
        """How many author ids there are, the reserved 0 included."""
        return len(self.authors) // 8


def digest_key(scope: str) -> bytes:
    """The key of a scope's digest: BLAKE2b-128 of its name."""
    return hashlib.blake2b(scope.encode(), digest_size=16).digest()


def add_digests(a: bytes, b: bytes) -> bytes:
    """The sum of two digests, modulo 2**128."""
    total = int.from_bytes(a, "little") + int.from_bytes(b, "little")
    return (total & ((1 << 128) - 1)).to_bytes(16, "little")


def create(
    dictionary: Dictionary, author: int, seq: int, time: int, rows: list[tuple[int, tuple[int, ...], tuple[Any, ...]]]
) -> list[bytes]:
    """New incarnations of one change: rows of (n, field ids, values) -> packed pieces. Ellipsis leaves a field out."""
    return write_kernel.create(author, seq, time, rows, dictionary.fields)


def write(
    dictionary: Dictionary, author: int, seq: int, time: int, items: list[WriteItem]
) -> list[tuple[bytes, int, int]]:
    """Local writes over live records: (the piece that merges into it, its incarnations, its cells) for each."""
    return write_kernel.write(items, author, seq, time, dictionary.fields, dictionary.authors)


def read(dictionary: Dictionary, packed: bytes, wanted: tuple[int, ...], defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of the wanted fields; a field without a cell reads as its default. Corrupt where it is damaged."""
    (values,) = read_each(dictionary, [packed], wanted, defaults)
    return values


def read_each(
    dictionary: Dictionary, records: list[bytes], wanted: tuple[int, ...], defaults: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """As read, of many packed records."""
    try:
        return read_kernel.read(records, wanted, defaults, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def widen(
    dictionary: Dictionary,
    rows: Sequence[tuple[Any, ...]],
    wanted: tuple[int, ...],
    defaults: tuple[Any, ...],
    convert: Callable[[Any], Any],
) -> list[tuple[Any, ...]]:
    """Rows that end with a packed record, with the values of the wanted fields before it, as columns hold them."""
    try:
        return read_kernel.widen(rows, wanted, defaults, convert, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def read_all(dictionary: Dictionary, packed: bytes) -> dict[str, Any]:
    """Every field of a record by name, as far as its type is known. Corrupt where it is damaged."""
    try:
        values = read_kernel.read_all(packed, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None
    for name, value in values.items():
        if type(value) is codec.Updates:
            values[name] = texts.shown(value)
    return values


def read_cells(dictionary: Dictionary, packed: bytes) -> dict[tuple[str, int], Any]:
    """As read_all, by the names and kinds of cells, as several kinds may have one name. Corrupt where it is damaged."""
    (every,) = stamps(dictionary, [packed])
    pairs = sorted({(name, kind) for name, kind, *_ in every if kind in SHOWN and not name.startswith("_")})
    values = read(dictionary, packed, tuple([dictionary.field_ids[pair] for pair in pairs]), (None,) * len(pairs))
    shown = [texts.shown(value) if type(value) is codec.Updates else value for value in values]
    return dict(zip(pairs, shown, strict=True))


def updates(dictionary: Dictionary, packed: bytes) -> dict[int, codec.Updates]:
    """The updates of the texts, lists and maps of a record, by field id. Corrupt where it is damaged."""
    (found,) = updates_each(dictionary, [packed])
    return dict(found)


def updates_each(dictionary: Dictionary, records: list[bytes]) -> list[list[tuple[int, codec.Updates]]]:
    """As updates, of many packed records."""
    try:
        return read_kernel.updates(records, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def stamps(dictionary: Dictionary, records: list[bytes]) -> list[list[tuple[str, int, int, int, int]]]:
    """(field name, kind, author id, seq, time) of each cell but existence of each packed record."""
    try:
        return authorship.stamps(records, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def writers(dictionary: Dictionary, packed: bytes) -> dict[tuple[str, int], tuple[int, bytes]]:
    """Who wrote each field of an app's last, by stamp: (name, kind) -> (time, author). Corrupt."""
    (every,) = stamps(dictionary, [packed])
    ordered = sorted((time, dictionary.author(author), seq, name, kind) for name, kind, author, seq, time in every)
    return {(name, kind): (time, author) for time, author, _, name, kind in ordered if not name.startswith("_")}


def rivals(dictionary: Dictionary, records: list[bytes]) -> list[list[Rivals]]:
    """Of each packed record the registers that were written apart: (field id, claims), the topmost claim first.

    A claim is (author id, seq, time, value). Corrupt where a record is damaged.
    """
    try:
        return authorship.rivals(records, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def incarnations(dictionary: Dictionary, records: list[bytes]) -> list[list[tuple[int, int, int]]]:
    """The names of the incarnations in each packed record: (author id, seq, n)."""
    try:
        return authorship.incarnations(records, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def births(packed: bytes) -> list[Birth]:
    """The heads of the incarnations in a packed record, which a kernel has found readable."""
    found, at = [], 0
    while at < len(packed):
        size, at = varint(packed, at)
        end, alive = at + size, packed[at]
        author, inner = varint(packed, at + 1)
        seq, inner = varint(packed, inner)
        n, inner = varint(packed, inner)
        found.append(Birth(author, seq, n, int.from_bytes(packed[inner : inner + 8]) if alive else 0))
        at = end
    return found


def incarnation(packed: bytes, name: tuple[int, int, int]) -> bytes | None:
    """The part of a packed record, which a kernel has found readable, that is one incarnation; None without it."""
    at = 0
    while at < len(packed):
        size, inner = varint(packed, at)
        one = packed[at : inner + size]
        if births(one)[0][:3] == name:
            return one
        at = inner + size
    return None


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number as packed cells have it, and where what follows it begins. IndexError where the bytes end before."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def merge_all(dictionary: Dictionary, key: bytes, items: list[MergeItem]) -> tuple[list[Outcome | None], bytes]:
    """Merge a batch in one call: the outcome of each item, None where nothing changed, and the digest's difference."""
    try:
        return merge.merge(items, key, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None


def edit_all(
    dictionary: Dictionary, key: bytes, scope: int, rows: Sequence[Cells], pieces: dict[int, tuple[bytes, ...]]
) -> Edited | None:
    """Merge pieces, by row number, into records of a scope; None where they create anything, or are of what is gone."""
    try:
        found = merge.edit(rows, pieces, scope, key, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise Corrupt(str(error)) from None
    return Edited._make(found) if found is not None else None


def digest_of_new(dictionary: Dictionary, key: bytes, pieces: list[bytes], collection: str, keys: list[str]) -> bytes:
    """What records that are new in a scope add to its digest. DecodeError unless each is one live incarnation."""
    try:
        return fresh.digest(pieces, collection, keys, key, dictionary.fields, dictionary.authors)
    except ValueError as error:
        raise DecodeError(str(error)) from None


def removals(dictionary: Dictionary, packed: bytes) -> list[Removal]:
    """The removal of each incarnation in a packed record, carrying what is seen of it here."""
    return removals_kernel.removals(packed, dictionary.fields)


def removals_at(dictionary: Dictionary, packed: bytes, addresses: set[tuple[int, bytes]]) -> list[Removal]:
    """The removals of what lives at some addresses, as (field id, sub), of a packed record."""
    return removals_kernel.removals_at(packed, addresses, dictionary.fields)


def named(dictionary: Dictionary, some: list[Removal]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What removals name: (author id, seq) up to which all was seen; single dots, the creating changes among them."""
    try:
        return removals_kernel.named(some, dictionary.fields)
    except ValueError as error:
        raise Corrupt(str(error)) from None
