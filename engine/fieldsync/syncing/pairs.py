"""What a pair of replicas remembers when a conversation ends: the contexts that both have, and what a hub covers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.leaving import pending
from fieldsync.limits import PAIRS_OF_DEVICE_MAX
from fieldsync.syncing import exchange
from fieldsync.syncing.frames import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.sqlite import SQLiteWriter
    from fieldsync.store import Pair, Reader, Scope
    from fieldsync.syncing.shared import Shared

Answers = dict[str, tuple[bytes, Context]]  # by scope: the responder's state and context, where its changes came along


def pair_id(replica: bytes, names: Iterable[str], states: Iterable[bytes]) -> bytes:
    """What a responder knows an initiator by, that offered those scopes and told those states."""
    told = b"".join((bytes([VERSION]), replica, json.dumps(list(names)).encode(), *states))
    return hashlib.blake2b(told, digest_size=8).digest()


def equal_contexts(reader: Reader, every: list[Shared]) -> dict[str, Context]:
    """The contexts of scopes that did not differ."""
    found: dict[str, Context] = {}
    for shared in every:
        scope = reader.scope(shared.name)
        if scope is not None and not shared.differs and exchange.state_of(reader, scope).short() == shared.state:
            found[shared.name] = reader.context(scope.id)
    return found


def delivered(reader: Reader, every: list[Shared], answers: Answers) -> dict[str, Context]:
    """What the hub at the other end covers, of which this file did not know that a hub does."""
    found: dict[str, Context] = {}
    for shared in every:
        scope = reader.scope(shared.name)
        if scope is None or not (unknown := pending(reader, scope)):
            continue
        covered = _covered(reader, scope, shared, answers)
        if unknown & covered:
            found[shared.name] = covered
    return found


def _covered(reader: Reader, scope: Scope, shared: Shared, answers: Answers) -> Context:
    if not shared.differs:  # equal contexts
        is_same = exchange.state_of(reader, scope).short() == shared.state
        return reader.context(scope.id) if is_same else answers.get(shared.name, (b"", Context()))[1]
    assert shared.own is not None
    assert shared.peer is not None
    if shared.heard is not None and shared.heard.context_hash == reader.context(scope.id).hash():
        return reader.context(scope.id)  # what came in the meantime from others, it has from others, too
    return shared.peer.context | (Context() if was_dropped(shared) else shared.own.context)


def was_dropped(shared: Shared) -> bool:
    """Whether either side took away what the other had no more."""
    return shared.dropped or (shared.heard is not None and shared.heard.is_superseded)


def _make_room(writer: SQLiteWriter, device: str, name: bytes, old: bytes | None) -> None:
    """Forget the oldest pairs of a device beyond PAIRS_OF_DEVICE_MAX: mostly it has one database."""
    fact, size = f"pairs {device}", len(name)
    before: bytes = writer.meta(fact) or b""
    names = [before[at : at + size] for at in range(0, len(before), size)]
    names = [one for one in names if one not in (name, old)] + [name]
    for one in names[:-PAIRS_OF_DEVICE_MAX]:
        writer.drop_pair(one)
    writer.set_meta(fact, b"".join(names[-PAIRS_OF_DEVICE_MAX:]))


def write(
    writer: SQLiteWriter,
    name: bytes,
    pair: Pair,
    contexts: dict[str, Context],
    *,
    old: bytes | None,
    wall_ms: int,
    device: str | None = None,
) -> None:
    """Remember a pair, under the name that its next greeting will use; old: that of this one.

    device: of which it is, where that is proven; so nobody has this side remember more than a few.
    """
    if not writer.put_pair(name, pair, wall_ms):
        return
    if device is not None:
        _make_room(writer, device, name, old)
    if old is not None:
        writer.rename_pair(old, name)
    for scope_name, context in contexts.items():
        scope = writer.scope(scope_name)
        if scope is not None:
            writer.put_agreed(name, scope.id, context)
