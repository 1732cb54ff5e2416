"""Rules on what a disaster may cost, each switched off in the engine by a patch: see rules.py."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from fieldsync import copies, verify
from fieldsync.context import Context
from fieldsync.limits import SEQ_MAX
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteWriter
from fieldsync.syncing.greeting import Greeting
from fieldsync.syncing.session import Session
from fieldsync.trust.rights import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.examine import Loss
    from fieldsync.store import Writer


@contextmanager
def copies_unrecognised() -> Iterator[None]:
    """A file is taken for the one that was last open at its path, whichever it is."""
    with patch.object(copies, "_is_known", lambda store, note: True):
        yield


@contextmanager
def unsynced_leaves() -> Iterator[None]:
    """Own changes leave a device before they are durable there, and promises before what they rest on is."""
    with patch.object(Replica, "before_leaving", lambda replica: None):
        yield


@contextmanager
def settled_unsynced() -> Iterator[None]:
    """A hub says that it has all of a scope before that is durable."""
    kept = Session._settle

    def settle(session: Session, *rest: Any) -> None:
        with patch.object(session._replica, "before_leaving", lambda: None):
            kept(session, *rest)

    with patch.object(Session, "_settle", settle):
        yield


@contextmanager
def equals_unsynced() -> Iterator[None]:
    """A hub says that it has what a device has before that is durable."""
    kept = Session._begin

    def begin(session: Session) -> None:
        with patch.object(session._replica, "takes_all", False):
            kept(session)

    with patch.object(Session, "_begin", begin):
        yield


@contextmanager
def anyone_is_hub() -> Iterator[None]:
    """What any peer has counts as delivered."""
    kept = Greeting._trust

    def trust(greeting: Greeting, replica: bytes, says_hub: bool) -> None:
        kept(greeting, replica, says_hub)
        greeting.trust = Trust(is_hub=True)

    with patch.object(Greeting, "_trust", trust):
        yield


@contextmanager
def enough_is_done() -> Iterator[None]:
    """Who has had enough of a stream joins the giver's context."""
    kept = Session.close

    def close(session: Session) -> None:
        if session.finished and not session.report.complete:
            for shared in session._shared:
                if shared.own and shared.peer and not shared.received and not shared.gone:
                    session._landing.end(shared, None, Trust(), yields=False)
                    shared.received = True
        kept(session)

    with patch.object(Session, "close", close):
        yield


@contextmanager
def repairs_claim_all() -> Iterator[None]:
    """A repair leaves the context as it was, with what was lost in it."""
    with patch.object(SQLiteWriter, "set_context", lambda writer, scope, context: None):
        yield


@contextmanager
def repairs_claim_parts() -> Iterator[None]:
    """A repair claims changes that are not here whole, if nothing of them is known to be lost."""
    kept = verify._drop

    def drop(writer: Writer, loss: Loss) -> Any:
        numbers = {author for author, _, _ in writer.intervals(loss.scope.id)}
        return kept(writer, replace(loss, whole=[(number, 1, SEQ_MAX) for number in numbers]))

    with patch.object(verify, "_drop", drop):
        yield


def _drop_keeping(fact: str) -> Any:
    """Repairs that leave a fact of the scope as it was."""
    kept = verify._drop

    def drop(writer: Writer, loss: Loss) -> Any:
        touched, scope = kept(writer, loss), writer.scope(loss.scope.name)
        assert scope is not None
        writer.save_scope(scope._replace(**{fact: getattr(loss.scope, fact)}))
        return touched

    return patch.object(verify, "_drop", drop)


@contextmanager
def repairs_keep_streams() -> Iterator[None]:
    """Streams that run into a scope go on after a repair, though they were told of a context that holds no longer."""
    with _drop_keeping("taker"):
        yield


@contextmanager
def repairs_keep_floors() -> Iterator[None]:
    """A repair leaves the floor as it was."""
    with _drop_keeping("floor"):
        yield


@contextmanager
def repairs_keep_givers() -> Iterator[None]:
    """What was provisional before a repair stays so under its giver's context, though some of it may be lost."""
    kept = SQLiteWriter.drop_provisional

    def admit(writer: SQLiteWriter, name: str) -> None:
        scope = writer.scope(name)
        assert scope is not None
        known, author = writer.context(scope.id), writer.dictionary.author
        dots = [(author(change.author), change.seq) for change, _ in writer.indexed(scope.id)]
        partly = set(writer.provisional_dots(scope.id))
        kept(writer, scope.id, [dot for dot in partly if known.covers(*dot)])
        writer.put_provisional(scope.id, [d for d in dots if d not in partly and not known.covers(*d)], Context())

    with patch.object(verify, "_admit", admit):
        yield


DISASTER_RULES = [
    copies_unrecognised,
    unsynced_leaves,
    settled_unsynced,
    equals_unsynced,
    anyone_is_hub,
    enough_is_done,
    repairs_claim_all,
    repairs_claim_parts,
    repairs_keep_streams,
    repairs_keep_floors,
    repairs_keep_givers,
]
