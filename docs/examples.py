"""Prints the worked examples of format.md and protocol.md: `python docs/examples.py`. Names and clocks are fixed."""

import datetime as dt
import io
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from math import sqrt
from pathlib import Path

import msgpack

import fieldsync as fs
from fieldsync import codec, record
from fieldsync.bundles import bundle
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.replica import Replica, peer_id
from fieldsync.sqlite import SQLiteStore
from fieldsync.sqlite.layout import dump_entries
from fieldsync.store import Entry
from fieldsync.syncing import existence, messages, reconcile
from fieldsync.syncing.memory import join
from fieldsync.syncing.pairs import pair_id
from fieldsync.syncing.session import Session

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SCOPE = "job/7"
HUB = "ws://127.0.0.1:8765"  # where the van knows the hub
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


def converse(van: Database, hub: Database) -> Iterator[tuple[str, bytes]]:
    """A whole session, frame by frame: who sends, what."""
    sides = Session(van.replica, initiator=True, peer=HUB), Session(hub.replica, initiator=False)
    turn = idle = 0
    while idle < len(sides):
        frame = sides[turn].next_frame()
        if frame is None:
            idle, turn = idle + 1, 1 - turn
            continue
        idle = 0
        yield "hub" if turn else "van", frame
        sides[1 - turn].receive(frame)


def print_session(van: Database, hub: Database) -> None:
    """All frames of a session, and how many bytes they have."""
    sent = {"van": 0, "hub": 0}
    for sender, frame in converse(van, hub):
        print_frame(sender, frame)
        sent[sender] += len(frame)
    say("bytes sent", sent)


def print_frame(sender: str, frame: bytes) -> None:
    """A frame, the map in it, and the columns of its chunk."""
    body, message = msgpack.unpackb(frame[1:]), messages.decode(frame)
    say(f"{sender}: {len(frame)} bytes", frame)
    chunk = getattr(message, "chunk", None)
    say(f"    type {frame[0]}, {type(message).__name__}", {k: v for k, v in body.items() if k != "z" and k != "y"})
    if chunk is not None:
        names = [*STREAMS, *(f"values of {name}" for name, _ in chunk.fields)]
        for name, column in zip(names, chunk.streams, strict=True):
            say(f"    {name}", column)


def print_pair(van: Database, hub: Database) -> None:
    """What both sides remember of each other, and how the pair's name comes about."""
    with van.replica.store.reading() as reader:
        (scope,), pair = reader.scopes(), reader.pair(peer_id(HUB))
        assert pair is not None
        name = pair_id(van.replica.id, pair.names, pair.each())
        say("the van's name for it", peer_id(HUB))
        say("the hub's name for it", name)
        say("hashed for that", bytes([1]) + van.replica.id + b'["job/7"]' + pair.states)
        say("agreed", van.replica.agreed_with(HUB, [SCOPE])[scope.name].data)
    with hub.replica.store.reading() as reader:
        assert reader.pair(name) is not None


def mix(number: int) -> int:
    """As the sketch mixes: the output function of SplitMix64."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


def indexes(item: int, end: int) -> list[int]:
    """The symbols below `end` in which an item is."""
    found, turn = [0], 0
    while found[-1] < end:
        turn += 1
        chance = (mix((item + turn * 0x9E3779B97F4A7C15) % 2**64) >> 12) + 1
        found.append(found[-1] + 1 + int((found[-1] + 1.5) * (67108864.0 / sqrt(chance) - 1.0)))
    return found[:-1]


def print_items(hub: Database, key: bytes) -> None:
    """What the hub compares, and the symbols of it that are not zero, computed as protocol.md says."""
    with hub.replica.store.reading() as reader:
        (scope,) = reader.scopes()
        items = existence.items(reader, scope, reader.context(scope.id), key)
    order = b"hub-auth" + (1).to_bytes(8, "big")
    hashed = order + bytes(8) + order + b"\0"
    assert reconcile.items_of([hashed], key) == items
    number = reconcile.symbols_for(1)
    item, symbols = int.from_bytes(items, "big"), [bytes(12)] * number
    check = mix(item ^ 0xD6E8FEB86659FD93) >> 32
    for index in indexes(item, number):
        symbols[index] = items + check.to_bytes(4, "big")
    assert b"".join(symbols) == reconcile.symbols(items, 0, number)
    say("hashed for an item", hashed)
    say("item", items)
    say("its check", check.to_bytes(4, "big"))
    say(f"its indexes below {number}", indexes(item, number))


def print_bundle(van: Database, hub: Database) -> None:
    """What the van carries to the hub on a stick: what is new since they last met."""
    file, bases = io.BytesIO(), van.replica.agreed_with(HUB, [SCOPE])
    bundle.write(van.replica, file, [SCOPE], bases)
    data = file.getvalue()
    say(f"bundle, {len(data)} bytes", data)
    at = len(bundle.MAGIC)
    while size := int.from_bytes(data[at : at + 4], "big"):
        print_frame("van", data[at + 4 : at + 4 + size])
        at += 4 + size
    say("its end", data[at:])
    file.seek(0)
    assert bundle.read(hub.replica, file).scopes == [SCOPE]


def meet_again(van: Database, hub: Database) -> None:
    """One edit of the hub, which comes along with its answer; one of the van, which goes along with its greeting."""
    print("\n-- again, with an eager answer")
    print_session(van, hub)
    with van.write() as tx:
        tx.update("notes", "n-2", text="key with Ann")
    print("\n-- again, with an eager change")
    print_pair(van, hub)
    print_session(van, hub)


def forget(van: Database, hub: Database) -> None:
    """A removal that the hub has forgotten before the van heard of it."""
    with hub.write() as tx:
        tx.delete("notes", "n-2")
    hub.trim(older_than=dt.timedelta(0))
    print("\n-- existence")
    print_items(hub, b"van-authvan-auth")
    print_session(van, hub)


if __name__ == "__main__":
    for value in VALUES:
        say(repr(value)[:26], codec.encode(value))
    say("context", Context.of([(b"hub-auth", 1, 300), (b"hub-auth", 302, 302), (b"van-auth", 4, 9)]).data)
    say("entries", dump_entries([[Entry(1, 0, 17, 3), Entry(1, -1, 40, 1)]])[0])
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
        print("\n-- a session")
        print_session(van, hub)
        with hub.write() as tx:
            tx.update(Order, "o-17", status="paid")
        print_record(hub)
        meet_again(van, hub)
        forget(van, hub)
        with van.write() as tx:
            tx.update(Order, "o-17", status="closed")
        print("\n-- a bundle")
        print_bundle(van, hub)
