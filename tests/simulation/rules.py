"""The rules of the protocol, each switched off in the engine by a patch: the simulator must notice."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests import model
from tests.simulation import cells

from fieldsync import exchange, giving, record, taking
from fieldsync.changes import TakenChange
from fieldsync.context import Context
from fieldsync.sqlite import SQLiteReader

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

    __hash__ = None  # type: ignore[assignment]

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

    def give(reader: Reader, scope: Scope, dots: Context) -> Iterator[tuple[Chunk, int]]:
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


RULES = {
    rule.__name__: rule
    for rule in (
        context_joined_midstream,
        removals_forget,
        parts_are_wholes,
        many_streams,
        giver_moves,
        seen_is_direct,
        times_of_one_incarnation,
        one_incarnation_written,
        edits_of_the_dead_vanish,
        parts_are_held_back,
    )
}
