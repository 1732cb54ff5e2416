"""Leaving a scope: only what a hub covers may go, whoever wrote it; then all of it goes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.apply import Touched
from fieldsync.context import Context
from fieldsync.errors import NotDelivered

if TYPE_CHECKING:
    from fieldsync.store import Reader, Scope, Writer


def held(reader: Reader, scope: Scope) -> Context:
    """The changes of which anything is here, provisional ones too."""
    provisional = Context.of((author, seq, seq) for author, seq in reader.provisional_dots(scope.id))
    return reader.context(scope.id) | provisional


def pending(reader: Reader, scope: Scope) -> Context:
    """The changes here, own and relayed, that no hub is known to cover."""
    return held(reader, scope) - Context(scope.delivered)


def deliver(writer: Writer, name: str, dots: Context) -> None:
    """Note that a hub covers some changes of a scope."""
    scope = writer.scope(name)
    if scope is not None:
        delivered = Context(scope.delivered) | (dots & held(writer, scope))
        writer.save_scope(scope._replace(delivered=delivered.data))


def leave(writer: Writer, scope: Scope, *, lose_pending: bool = False) -> list[Touched]:
    """Erase a scope; returns its records. NotDelivered while a hub lacks anything of it, unless that may be lost.

    Whoever enters it again writes under a new author, so that no number of the old one can come twice.
    """
    count = pending(writer, scope).count()
    if count and not lose_pending:
        raise NotDelivered(
            f"{scope.name!r} holds {count} changes that no hub is known to have: sync with the hub first, then leave"
        )
    touched = [
        Touched(collection, scope.name, row.key, True, False)
        for collection, rows in writer.records(scope.id)
        for row in rows
    ]
    writer.erase(scope)
    return touched
