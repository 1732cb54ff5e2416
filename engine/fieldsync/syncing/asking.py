"""Questions and answers of a session about what lives: what is due, when, and what comes of it.

A taker asks where its giver has forgotten removals (existence.py), and both ask where a scope has to be mended
(mending.py). It sends Want, and the giver answers with Sketch; more of both if need be, then Ask and Answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.errors import ProtocolError
from fieldsync.syncing import existence, mending
from fieldsync.syncing.frames import Answer, Ask, Sketch, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.context import Context
    from fieldsync.syncing.frames import Message
    from fieldsync.syncing.shared import Shared


def first_question(index: int, shared: Shared, mint: Callable[[], bytes]) -> Want | None:
    """What a taker asks once both have declared, under a new random key; None where nothing has to be compared."""
    assert shared.own is not None
    assert shared.peer is not None
    assert shared.moment is not None
    if not shared.compares_all and not existence.is_needed(shared.peer, shared.own):
        return None
    key, dots = mint() + mint(), existence.compared(shared.peer.context, shared.own)
    here = existence.Known(key, dots, _items(shared, dots, key))
    shared.gone = existence.Taker(*shared.moment, shared.own, shared.peer, here)
    return Want(index, shared.gone.held, key)


def _items(shared: Shared, dots: Context, key: bytes) -> bytes:
    assert shared.moment is not None
    items = mending.items if shared.compares_all else existence.items
    return items(*shared.moment, dots, key)


def sketch(shared: Shared, want: Want) -> Sketch:
    """The giver's answer to a Want. ProtocolError where that was not due."""
    if shared.own is None or shared.peer is None or shared.heard is not None:
        raise ProtocolError(f"a question about {shared.name!r} that was not due")
    if not shared.compares_all and not existence.is_needed(shared.own, shared.peer):
        raise ProtocolError(f"a question about {shared.name!r} that was not due")
    if bool(want.key) == (shared.lives is not None):
        raise ProtocolError(f"a sketch of {shared.name!r} that begins twice, or never")
    if shared.lives is None:
        dots = existence.compared(shared.own.context, shared.peer)
        shared.lives = existence.Giver(_items(shared, dots, want.key))
    return Sketch(want.scope, shared.lives.sketch(want.number))


def answer(shared: Shared, ask: Ask, queued: Iterable[Message]) -> Answer:
    """The giver's answer to an Ask, where that was due and no other answer is still queued."""
    if shared.lives is None or shared.heard is not None:
        raise ProtocolError(f"a question about {shared.name!r} before any sketch of it")
    if any(isinstance(one, Answer) and one.scope == ask.scope for one in queued):
        raise ProtocolError(f"a question about {shared.name!r} before the last answer was read")
    return Answer(ask.scope, shared.lives.answer(ask.question))


def learn(shared: Shared, message: Sketch | Answer) -> existence.Taker:
    """Take in what a giver answered; returns the taker, which knows all or has another question."""
    if shared.gone is None or shared.gone.alive is not None:
        raise ProtocolError(f"an answer about {shared.name!r} that was not asked for")
    if isinstance(message, Sketch):
        shared.gone.receive(message.symbols)
    else:
        shared.gone.receive_answer(message.answer)
    return shared.gone
