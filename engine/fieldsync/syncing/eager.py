"""Eager changes: all that a scope has beyond what the peer is known to have, along with a greeting.

An Eager is a whole stream, with its Done, for a taker whose declaration is a context that both remember: its base. So
it needs no rules of its own but when it may be made, and when it may be taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fieldsync.context import Context
from fieldsync.limits import EAGER_CELLS_MAX
from fieldsync.syncing import claims, exchange, giving, taking
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Eager
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from fieldsync.replica import Replica
    from fieldsync.store import Reader
    from fieldsync.syncing.exchange import State
    from fieldsync.trust.rights import Rights


class Offer(NamedTuple):
    """An Eager that goes along."""

    message: Eager
    changes: int
    context: Context  # of the giver, which the taker has when it has taken it


class Landed(NamedTuple):
    """An Eager that was taken."""

    base: Context
    context: Context  # of the giver
    before: State
    after: State
    changes: int
    ahead: int  # of these, the ones that are stamped far ahead of the wall clock
    records: int


def offer(reader: Reader, name: str, place: int, base: Context | None) -> Offer | None:
    """All that a scope has beyond the base, which the peer has; None where it may not go along, or is not little."""
    scope = reader.scope(name)
    if scope is None or base is None:
        return None
    own = reader.context(scope.id)
    news = own - base
    if base - own or not news or Context(scope.floor) - base or reader.is_provisional(scope.id):
        return None
    if reader.count_cells(scope.id, news) > EAGER_CELLS_MAX:
        return None
    chunks = list(giving.give(reader, scope, news))
    if len(chunks) > 1:
        return None
    chunk, changes = chunks[0] if chunks else (None, 0)
    return Offer(Eager(place, base.hash(), news, chunk), changes if name != CONTROL else 0, own)


def agreed(reader: Reader, name: str, pair: bytes) -> Context | None:
    """The context of a scope that both of a pair remember, if it is held and they do."""
    scope = reader.scope(name)
    return reader.agreed(pair, scope.id) if scope is not None else None


class _Refused(Exception):
    """Not all of an Eager may be taken; never leaves this module."""


def land(replica: Replica, name: str, eager: Eager, pair: bytes, base: Context | None, rights: Rights) -> Landed | None:
    """Take an Eager on a base that is remembered of the pair, or on the one given; None where it may not be taken."""
    if rights.why_not_write(name):
        return None
    try:
        return _land(replica, name, eager, pair, base, rights)
    except _Refused:
        return None


def _land(
    replica: Replica, name: str, eager: Eager, pair: bytes, base: Context | None, rights: Rights
) -> Landed | None:
    with replica.writing() as batch:
        writer = batch.writer
        scope = writer.scope(name)
        if scope is None:
            return None
        known = [one for one in (base, writer.agreed(pair, scope.id)) if one is not None and one.hash() == eager.base]
        held = writer.context(scope.id)
        if not known or scope.taker or known[0] - held:
            return None
        before, giver = exchange.state_of(writer, scope), known[0] | eager.news
        if eager.chunk is not None:
            scope, taken = taking.take(writer, scope, known[0], giver, eager.chunk, replica.wall_ms(), rights)
            if taken.refused:
                raise _Refused
            if not rights.knows_all:
                claims.check_size(scope, held, writer.context(scope.id))
            batch.rights = rights
            batch.receive(name, taken)
        if taking.why_not_join(writer, scope, giver, rights):
            raise _Refused
        declared = Declaration(giver, Context(), [])
        if claims.believed(writer, scope, declared, rights) != declared:
            raise _Refused
        scope = taking.finish(writer, scope, declared)
        writer.save_scope(scope)
        batch.join(name, giver)
        after = exchange.state_of(writer, scope)
    if name == CONTROL:  # counts are of the app's records
        return Landed(known[0], giver, before, after, 0, 0, 0)
    records = batch.changed()
    return Landed(known[0], giver, before, after, batch.received, batch.ahead, records)
