"""Prints the worked examples of format.md and protocol.md: `python docs/examples.py`. Names and clocks are fixed."""

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import msgpack

import fieldsync as fs
from fieldsync import changes, codec, record
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.memory import join
from fieldsync.replica import Replica
from fieldsync.session import Session
from fieldsync.sqlite import SQLiteStore
from fieldsync.sqlite.layout import dump_entries
from fieldsync.store import Entry

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SCOPE = "job/7"
STREAMS = ("changes", "pieces", "names", "cells", "seens", "removals")
VALUES: list[object] = [
    *(None, False, True, -16, 0, 47, -17, 48, 2**63 - 1, 1.5, Decimal(0), Decimal("-12.50"), "done", "x" * 64, b"\1\2"),
    *(dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), [1, "a"], {"b": 1, "a": None}),
    codec.Unknown(200, b"new"),
]


class Order(fs.Record, table="orders"):
    """An order, as in the README."""

    customer: str
    status: str = "open"
    hours: fs.Counter = 0


def replica(folder: str, name: str) -> Database:
    """A database whose author, replica id and clock are fixed."""
    store = SQLiteStore(Path(folder) / f"{name}.db")
    one = Replica(store, takes_all=name == "hub", wall_ms=lambda: NOW_MS, mint=lambda: f"{name}-auth"[:8].encode())
    one.id = f"{name}-replica-0001"[:16].encode()
    return Database(one, [Order])


def say(name: str, value: object) -> None:
    """One line of output, bytes in hex."""
    print(f"{name:<28}{value.hex(' ') if isinstance(value, bytes) else value}")


def print_record(hub: Database) -> None:
    """The order in the hub's file, packed; what a removal of it is; and what the file has beside it."""
    with hub.replica.store.reading() as reader:
        (scope,), dictionary = reader.scopes(), reader.dictionary
        (row,) = reader.by_key(reader.collections()[0].id, scope.id, ["o-17"])
        say("fs_author", [dictionary.author(i).decode() for i in range(1, dictionary.author_count)])
        say("fs_field", list(enumerate(dictionary.field_names))[1:])
        say("packed record", row.packed)
        say("removal of it", record.removals(dictionary, row.packed)[0][3])
        say("context", reader.context(scope.id).data)
        for change in reader.changes(scope.id, reader.context(scope.id)):
            say("fs_change", tuple(change))


def print_digest() -> None:
    """What is hashed of a record with one register, and the sums without it and with it."""
    dictionary = record.Dictionary().with_authors([b"hub-auth"]).with_fields([("status", 8)])
    key, name = record.digest_key(SCOPE), codec.encode(["orders", "o-17"])
    stamp = b"hub-auth" + (1).to_bytes(8, "big") + (NOW_MS << 16).to_bytes(8, "big")
    say("digest key", key)
    say("existence cell", stamp[:16] + bytes(8) + stamp + bytes([0]) + name)
    say("status cell", stamp[:16] + bytes(8) + stamp + b"\x08\x06status\x00\x00" + codec.encode("open"))
    for fields in ((), (1,)):
        pieces = record.create(dictionary, 1, 1, NOW_MS << 16, [(0, fields, ("open",) * len(fields))])
        say(f"digest with {len(fields)} fields", record.digest_of_new(dictionary, key, pieces, "orders", ["o-17"]))


def print_session(van: Database, hub: Database) -> None:
    """All frames of a session, the maps in them, and the columns of the chunks."""
    sides, turn, idle = (Session(van.replica, initiator=True), Session(hub.replica, initiator=False)), 0, 0
    while idle < len(sides):
        frame = sides[turn].next_frame()
        if frame is None:
            idle, turn = idle + 1, 1 - turn
            continue
        idle, body = 0, msgpack.unpackb(frame[1:])
        say(f"{'hub' if turn else 'van'} sends {len(frame)} bytes", frame)
        columns = changes.decompress([(size, data) for size, data in body.pop("z", [])])
        say(f"    type {frame[0]}", body)
        names = [*STREAMS, *(f"values of {name}" for name, _ in body.get("f", []))]
        for name, column in zip(names, columns, strict=False):
            say(f"    {name}", column)
        sides[1 - turn].receive(frame)


if __name__ == "__main__":
    for value in VALUES:
        say(repr(value)[:26], codec.encode(value))
    say("context", Context.of([(b"hub-auth", 1, 300), (b"hub-auth", 302, 302), (b"van-auth", 4, 9)]).data)
    say("entries", dump_entries([Entry(1, 0, 17, 3), Entry(1, -1, 40, 1)]))
    print_digest()
    with tempfile.TemporaryDirectory() as folder, replica(folder, "hub") as hub, replica(folder, "van") as van:
        with hub.write() as tx:
            tx.create(Order, scope=SCOPE, key="o-17", customer="Acme")
        with hub.write() as tx:
            tx.create("notes", scope=SCOPE, key="n-1", text="gate code 4711")
        van.enter(SCOPE)
        join(van.replica, hub.replica)
        with van.write() as tx:
            order = tx.get(Order, "o-17")
            order.status, order.hours = "done", order.hours + 1.5
        with hub.write() as tx:
            tx.delete("notes", "n-1")
            tx.create("notes", scope=SCOPE, key="n-2", text="key at desk")
        print_session(van, hub)
        with hub.write() as tx:
            tx.update(Order, "o-17", status="paid")
        print_record(hub)
