"""The tables of a file, and the few names and forms that readers and writers of it share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fieldsync import codec
from fieldsync._native import numbers
from fieldsync.converting import Conversion
from fieldsync.store import ChangeRow, Column, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORMAT = 1
APPLICATION_ID = 0x46535943  # "FSYC", in the file's header

TABLES = """
CREATE TABLE fs_meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE fs_author(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE fs_field(id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind INTEGER NOT NULL, UNIQUE(name, kind));
CREATE TABLE fs_collection(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, columns TEXT NOT NULL, signature TEXT NOT NULL);
CREATE TABLE fs_scope(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, author INTEGER NOT NULL, seq INTEGER NOT NULL,
    time INTEGER NOT NULL, digest BLOB NOT NULL, floor BLOB NOT NULL, taker BLOB NOT NULL, ready INTEGER NOT NULL,
    delivered BLOB NOT NULL, priority INTEGER NOT NULL);
CREATE TABLE fs_context(scope INTEGER, author INTEGER, low INTEGER, high INTEGER, PRIMARY KEY(scope, author, low))
    WITHOUT ROWID;
CREATE TABLE fs_giver(id INTEGER PRIMARY KEY, context BLOB NOT NULL UNIQUE);
CREATE TABLE fs_provisional(scope INTEGER, author INTEGER, seq INTEGER, giver INTEGER NOT NULL,
    PRIMARY KEY(scope, author, seq)) WITHOUT ROWID;
CREATE TABLE fs_change(
    scope INTEGER, author INTEGER, seq INTEGER, time INTEGER NOT NULL, flags INTEGER NOT NULL, parts INTEGER NOT NULL,
    live INTEGER NOT NULL, entries BLOB NOT NULL, PRIMARY KEY(scope, author, seq)) WITHOUT ROWID;
CREATE INDEX fs_removing ON fs_change(scope, time) WHERE flags&2;
CREATE TABLE fs_removal(
    scope INTEGER, inc_author INTEGER, inc_seq INTEGER, inc_n INTEGER, author INTEGER, seq INTEGER, item BLOB NOT NULL,
    collection INTEGER, key TEXT, PRIMARY KEY(scope, inc_author, inc_seq, inc_n, author, seq)) WITHOUT ROWID;
CREATE TABLE fs_pair(
    id BLOB PRIMARY KEY, replica BLOB NOT NULL, names TEXT NOT NULL, states BLOB NOT NULL, is_hub INTEGER NOT NULL,
    was_hub INTEGER NOT NULL, wall_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE fs_agreed(scope INTEGER, pair BLOB, context BLOB NOT NULL, PRIMARY KEY(scope, pair)) WITHOUT ROWID;
CREATE TABLE fs_begun(
    id INTEGER PRIMARY KEY, scope INTEGER NOT NULL UNIQUE, cells INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE fs_trash(
    id INTEGER PRIMARY KEY, scope INTEGER NOT NULL, collection INTEGER NOT NULL, key TEXT NOT NULL,
    cells BLOB NOT NULL, wall_ms INTEGER NOT NULL);
CREATE TABLE fs_forward(
    scope INTEGER, author INTEGER, seq INTEGER, n INTEGER, target TEXT NOT NULL, heir_author INTEGER NOT NULL,
    heir_seq INTEGER NOT NULL, heir_n INTEGER NOT NULL, collection INTEGER NOT NULL, key TEXT NOT NULL,
    totals BLOB NOT NULL, edited BLOB NOT NULL, wall_ms INTEGER NOT NULL,
    PRIMARY KEY(scope, author, seq, n)) WITHOUT ROWID;
CREATE INDEX fs_forward_key ON fs_forward(scope, collection, key);
CREATE TABLE fs_orphan(
    id INTEGER PRIMARY KEY, scope INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL, n INTEGER NOT NULL,
    collection INTEGER NOT NULL, key TEXT, cells BLOB NOT NULL, UNIQUE(scope, author, seq, n));
"""

SCOPED_TABLES = (
    *("fs_context", "fs_provisional", "fs_change", "fs_removal", "fs_trash", "fs_orphan"),
    *("fs_agreed", "fs_begun", "fs_forward"),
)


def record_table(collection: int) -> str:
    """The table of a collection's records."""
    return f"fs_record_{int(collection)}"


def search_table(collection: int) -> str:
    """The table by which a collection's records are found by words."""
    return f"fs_words_{int(collection)}"


def dump_columns(columns: Sequence[Column]) -> str:
    """A collection's columns as the file keeps them."""
    return json.dumps(
        [
            (name, kind, indexed, codec.encode(default).hex(), stored_as, given and given.as_json(), *rest)
            for name, kind, indexed, default, stored_as, given, *rest in columns
        ]
    )


def load_columns(text: str) -> tuple[Column, ...]:
    """The inverse of dump_columns."""
    return tuple(_column(*one) for one in json.loads(text))


def _column(name: str, kind: int, indexed: bool, default: str, stored_as: str, given: Any, *rest: Any) -> Column:
    conversion = Conversion.of_json(given) if given else None
    return Column(name, kind, indexed, codec.decode(bytes.fromhex(default)), stored_as, conversion, *rest)


def dump_entries(changes: Iterable[list[Entry]]) -> list[bytes]:
    """The entries of each change as the index keeps them."""
    return numbers.pack(list(changes), 4)


def load_change(row: Any) -> ChangeRow:
    """A row of the change index."""
    author, seq, time, flags, parts, live, entries = row
    return ChangeRow(author, seq, time, flags, parts, live, load_entries(entries))


def load_entries(data: bytes) -> list[Entry]:
    """The inverse of dump_entries."""
    return numbers.unpack(data, 4, Entry)
