"""The rules of the protocol, each switched off in the engine by a patch: the simulator must notice."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests import model
from tests.simulation import cells
from tests.simulation.disaster_rules import DISASTER_RULES
from tests.simulation.moving_rules import MOVING_RULES

from fieldsync import leaving, record
from fieldsync.changes import TakenChange
from fieldsync.context import Context
from fieldsync.limits import SEQ_MAX
from fieldsync.sqlite import SQLiteReader
from fieldsync.syncing import exchange, existence, giving, taking
from fieldsync.syncing.session import Session
from fieldsync.transaction import LocalChange
from fieldsync.trust.rights import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fieldsync.changes import Chunk
    from fieldsync.record import Dictionary
    from fieldsync.store import Reader, Scope, Writer


@contextmanager
def context_joined_midstream() -> Iterator[None]:
    """The giver's context is joined at the first chunk of its stream, and not at Done."""
    kept = taking.take

    def take(writer: Writer, scope: Scope, declared: Context, giver: Context, *rest: Any) -> Any:
        out = kept(writer, scope, declared, giver, *rest)
        writer.account(scope.id, giver)
        writer.drop_provisional(scope.id, [dot for dot in writer.provisional_dots(scope.id) if giver.covers(*dot)])
        return out

    with patch.object(taking, "take", take):
        yield


@contextmanager
def gaps_joined_midstream() -> Iterator[None]:
    """A change that is accounted for in the middle of a stream takes all of its author's before it along."""
    kept = taking._account

    def account(writer: Writer, scope: Scope, taken: list[TakenChange], giver: Context) -> None:
        kept(writer, scope, taken, giver)
        whole = taking._dots(writer, (change for change in taken if change.is_whole)) & giver
        filled = Context.of((author, 1, high) for author, _, high in whole.intervals())
        writer.account(scope.id, filled)
        taking._drop_provisional(writer, scope, filled)

    with patch.object(taking, "_account", account):
        yield


@contextmanager
def removals_forget() -> Iterator[None]:
    """A removal that is kept is not held against cells that arrive after it."""
    with patch.object(SQLiteReader, "removals_of", lambda self, scope, creations: {}):
        yield


@contextmanager
def parts_are_wholes() -> Iterator[None]:
    """A change that the giver no longer holds whole is accounted for as soon as a part of it is here."""
    with patch.object(TakenChange, "is_whole", True):
        yield


class AnyToken(bytes):
    """The token of whichever stream asks."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def many_streams() -> Iterator[None]:
    """Several incoming streams write one scope at a time, each filtered by the context it declared."""
    kept = SQLiteReader.scope

    def scope(reader: SQLiteReader, name: str) -> Scope | None:
        found = kept(reader, name)
        return found and found._replace(taker=AnyToken())

    with patch.object(SQLiteReader, "scope", scope):
        yield


@contextmanager
def giver_moves() -> Iterator[None]:
    """What a giver streams is not of the moment that its context is of."""
    kept = giving.give

    def give(reader: Reader, scope: Scope, dots: Context, first: int = 0) -> Iterator[tuple[Chunk, int]]:
        store = reader._store  # type: ignore[attr-defined]
        for author, low, high in dots.intervals():
            for seq in range(low, high + 1):
                with store.reading() as later:
                    now = later.scope(scope.name)
                    assert now is not None
                    yield from kept(later, now, Context.of([(author, seq, seq)]))

    with patch.object(giving, "give", give):
        yield


def _repacked(change: Callable[[model.Record, model.Record, int], model.Record]) -> Any:
    """Local writes that are not as they should be: (record before, piece, time) -> another piece."""
    kept = record.write

    def write(dictionary: Dictionary, author: int, seq: int, time: int, items: list[Any]) -> list[Any]:
        out = []
        for item, (packed, _, _) in zip(items, kept(dictionary, author, seq, time, items), strict=True):
            piece = change(cells.unpack(item[0], dictionary), cells.unpack(packed, dictionary), time)
            count = sum(len(inc.cells) for inc in piece.values())
            out.append((cells.numbers(dictionary).pack(piece), len(piece), count))
        return out

    return patch.object(record, "write", write)


def _rewritten(change: Callable[[model.Record, model.Name, model.Cell, int], model.Cell]) -> Any:
    """Local writes whose registers are not as they should be."""

    def every(old: model.Record, piece: model.Record, time: int) -> model.Record:
        return {
            name: model.Incarnation(inc.time, frozenset(change(old, name, cell, time) for cell in inc.cells))
            for name, inc in piece.items()
        }

    return _repacked(every)


@contextmanager
def seen_is_direct() -> Iterator[None]:
    """A cell sees those that it replaced, and not what those had seen."""

    def change(old: model.Record, name: model.Name, cell: model.Cell, time: int) -> model.Cell:
        direct = {c.stamp.dot for c in old[name].cells if c.address == cell.address}
        direct -= {name.dot} | {dot for dot in direct if dot[0] == cell.stamp.author}
        return model.replace(cell, seen=model.join(list(direct)) if cell.seen else ())

    with _rewritten(change):
        yield


@contextmanager
def times_of_one_incarnation() -> Iterator[None]:
    """A write's time is above that field's cells in its own incarnation only."""

    def change(old: model.Record, name: model.Name, cell: model.Cell, time: int) -> model.Cell:
        here = [c.stamp.time + 1 for c in old[name].cells if c.address == cell.address]
        return model.replace(cell, stamp=cell.stamp._replace(time=max([time, *here])))

    with _rewritten(change):
        yield


@contextmanager
def one_incarnation_written() -> Iterator[None]:
    """A register write goes to one live incarnation of several."""
    with _repacked(lambda old, piece, time: {name: piece[name] for name in sorted(piece)[:1]}):
        yield


@contextmanager
def edits_of_the_dead_vanish() -> Iterator[None]:
    """Whoever holds a removal throws away the edits that its author had not seen."""
    kept = record.merge_all

    def merge_all(dictionary: Dictionary, key: bytes, items: list[Any]) -> Any:
        outcomes, _ = kept(dictionary, key, items)
        return [o and (o[0], () if item[2] else o[1], *o[2:]) for item, o in zip(items, outcomes, strict=True)], _

    with patch.object(record, "merge_all", merge_all):
        yield


@contextmanager
def parts_are_held_back() -> Iterator[None]:
    """A giver does not send again what came under a context that it covers, though that one held it only in part."""
    kept = exchange.lacking

    def lacking(reader: Reader, scope: Scope, own: Context, taker: exchange.Declaration) -> Context:
        found = kept(reader, scope, own, taker)
        for giver, dots in taker.provisional:
            if not giver - own:
                found = found - dots
        return found

    with patch.object(exchange, "lacking", lacking):
        yield


@contextmanager
def parts_come_again() -> Iterator[None]:
    """A giver sends again what a taker holds in part, though it came under a context that it covers."""
    kept = exchange.lacking

    def lacking(reader: Reader, scope: Scope, own: Context, taker: exchange.Declaration) -> Context:
        return kept(reader, scope, own, replace(taker, provisional=[]))

    with patch.object(exchange, "lacking", lacking):
        yield


@contextmanager
def floors_unchecked() -> Iterator[None]:
    """A taker trusts the absence of removals though its giver has forgotten some that it never saw."""
    with patch.object(existence, "is_needed", lambda giver, taker: False):
        yield


@contextmanager
def floors_stay() -> Iterator[None]:
    """Done joins the giver's context, and not its floor."""
    kept = taking.finish

    def finish(writer: Writer, scope: Scope, declared: exchange.Declaration) -> Scope:
        return kept(writer, scope, replace(declared, floor=Context()))

    with patch.object(taking, "finish", finish):
        yield


@contextmanager
def trimmed_unguarded() -> Iterator[None]:
    """A removal is forgotten whatever it names."""
    with patch.object(record, "named", lambda dictionary, some: ([], [])):
        yield


@contextmanager
def trimmed_by_targets() -> Iterator[None]:
    """A removal is forgotten when the incarnations that it names are known, though cells that it names are not."""
    with patch.object(record, "named", lambda dictionary, some: ([], [removal[:2] for removal in some])):
        yield


@contextmanager
def incarnations_only() -> Iterator[None]:
    """Existence compares incarnations, and neither elements, texts nor cells without existence cell."""
    kept = existence._gone

    def gone(writer: Writer, taker: existence.Known, packed: list[bytes]) -> Any:
        found = kept(writer, taker, packed)
        return [tuple((*name, bytes([1, 0])) for *name, item in some if item[0]) for some in found]

    with patch.object(existence, "_gone", gone):
        yield


@contextmanager
def provisional_uncompared() -> Iterator[None]:
    """Existence compares what is accounted for, and not what is held in part."""
    with patch.object(existence, "compared", lambda giver, taker: giver & taker.context):
        yield


@contextmanager
def drops_before_done() -> Iterator[None]:
    """What a giver has no more goes as soon as that is known, ahead of the stream's end."""
    kept = Session._go_on

    def go_on(session: Session, index: int, shared: Any, gone: existence.Taker) -> None:
        if gone.alive is not None and not shared.dropped:
            with session._replica.writing() as batch:
                scope = batch.writer.scope(shared.name)
                if scope is not None and scope.taker == shared.token:
                    scope, _ = existence.drop(batch.writer, scope, gone.known(), Trust(), 0)
                    batch.writer.save_scope(scope)
        kept(session, index, shared, gone)

    with patch.object(Session, "_go_on", go_on):
        yield


@contextmanager
def left_with_relayed() -> Iterator[None]:
    """A scope is left when a hub has the own changes, whoever else's lack there."""
    kept = leaving.pending

    def pending(reader: Reader, scope: Scope) -> Context:
        own = reader.dictionary.author(scope.author)
        return kept(reader, scope) & Context.of([(own, 1, SEQ_MAX)] if scope.author else [])

    with patch.object(leaving, "pending", pending):
        yield


@contextmanager
def compacted_over_gaps() -> Iterator[None]:
    """A text is written anew over all that is known of each author, though some of it may not have come yet."""

    def known(change: LocalChange) -> dict[int, int]:
        numbered = change.writer.dictionary.numbered(change.writer.context(change.scope.id))
        return {author: high for author, _, high in numbered}

    with patch.object(LocalChange, "_contiguous", known):
        yield


@contextmanager
def author_again() -> Iterator[None]:
    """Who enters a scope again writes under the author of before, from number 1."""
    kept = LocalChange._with_author

    def with_author(change: LocalChange, mint: Callable[[], bytes]) -> Scope:
        path = change.writer._store.path  # type: ignore[attr-defined]
        name = hashlib.blake2b(f"{path} {change.scope.name}".encode(), digest_size=8).digest()
        return kept(change, lambda: name)

    with patch.object(LocalChange, "_with_author", with_author):
        yield


RULES = {
    rule.__name__: rule
    for rule in (
        context_joined_midstream,
        gaps_joined_midstream,
        removals_forget,
        parts_are_wholes,
        many_streams,
        giver_moves,
        seen_is_direct,
        times_of_one_incarnation,
        one_incarnation_written,
        edits_of_the_dead_vanish,
        parts_are_held_back,
        parts_come_again,
        floors_unchecked,
        floors_stay,
        trimmed_unguarded,
        trimmed_by_targets,
        incarnations_only,
        provisional_uncompared,
        drops_before_done,
        left_with_relayed,
        author_again,
        compacted_over_gaps,
        *DISASTER_RULES,
        *MOVING_RULES,
    )
}
