"""Existence: what a giver that forgot removals has no more, found by comparing what lives at both sides.

Only what both contexts cover is compared: of the rest, the giver's stream tells. A taker asks for a sketch of the
giver's items; where it does not decode, for ranges. What the taker holds of the dots compared, and the giver does not,
was removed: it goes in the transaction of Done (docs/protocol.md, Existence).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fieldsync._native import existence as _kernel
from fieldsync.apply import Target, Touched, land, of_orphan
from fieldsync.errors import ProtocolError
from fieldsync.limits import RANGE_ROUNDS_MAX, SKETCH_SYMBOLS_MAX
from fieldsync.store import TrashRow
from fieldsync.syncing import reconcile
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.context import Context
    from fieldsync.store import Reader, Scope, Writer
    from fieldsync.syncing.exchange import Declaration
    from fieldsync.syncing.reconcile import Difference
    from fieldsync.trust.rights import Trust

KEY_BYTES = 16


def is_needed(giver: Declaration, taker: Declaration) -> bool:
    """Whether a giver has forgotten removals that a taker may not have seen."""
    return bool(giver.floor - taker.context) and bool(compared(giver.context, taker))


def compared(giver: Context, taker: Declaration) -> Context:
    """The dots that a giver covers and of which a taker holds something, whether accounted for or provisional."""
    held = taker.context
    for _, dots in taker.provisional:
        held = held | dots
    return giver & held


def items(reader: Reader, scope: Scope, dots: Context, key: bytes) -> bytes:
    """The items of all removable cells of some dots that live in a scope, ascending."""
    intervals = reader.dictionary.numbered(dots)
    dictionary = reader.dictionary
    found = [
        _kernel.items(some, key, intervals, dictionary.fields, dictionary.authors) for some in _packed(reader, scope)
    ]
    return _kernel.ordered(b"".join(found))


def united(*some: bytes) -> bytes:
    """The items of several rows, as one set: ascending, each once."""
    return _kernel.ordered(b"".join(some))


def is_set(some: bytes) -> bool:
    """Whether bytes from outside are items, ascending."""
    return len(some) % reconcile.ITEM_BYTES == 0 and _kernel.ordered(some) == some


def _packed(reader: Reader, scope: Scope) -> Iterator[list[bytes]]:
    for _, rows in reader.records(scope.id):
        yield [row.packed for row in rows]
    for orphans in reader.all_orphans(scope.id):
        yield [orphan.packed for orphan in orphans]


class Giver:
    """Answers for what lives at one moment of a scope, by its items."""

    def __init__(self, items: bytes) -> None:
        self._items = items
        self._sent = 0
        self._answered = 0

    def sketch(self, number: int) -> bytes:
        """The next symbols: at first as many as a taker of so many items will need, then as many as it wants."""
        own = len(self._items) // reconcile.ITEM_BYTES
        wanted = number if self._sent else reconcile.symbols_for(abs(number - own))
        if not 0 < wanted <= SKETCH_SYMBOLS_MAX - self._sent:
            raise ProtocolError("more of a sketch than there may be")
        found = reconcile.symbols(self._items, self._sent, wanted)
        self._sent += wanted
        return found

    def answer(self, question: bytes) -> bytes:
        """The answer to a question about ranges."""
        self._answered += 1
        if self._answered > RANGE_ROUNDS_MAX:
            raise ProtocolError("questions about ranges without end")
        return reconcile.answer(self._items, question)


class Known(NamedTuple):
    """What lives at one side: its items, under a key, of the dots that are compared."""

    key: bytes
    dots: Context
    alive: bytes


class Taker:
    """Asks until it knows what of the compared dots lives at the giver: then `alive` are its items."""

    def __init__(self, reader: Reader, scope: Scope, own: Declaration, giver: Declaration, here: Known) -> None:
        """here: what lives at this side, at the reader's moment."""
        self.alive: bytes | None = None
        self._key, self._dots, self._items = here
        # what was removed here unseen by the giver lives there: it counts twice, since its number is taken away once
        self.held = len(self._items) // reconcile.ITEM_BYTES + 2 * _removed_unseen(reader, scope, own, giver)
        self._sketch = reconcile.Taker(self._items)
        self._ranges: reconcile.Asker | None = None

    @property
    def wanted(self) -> int:
        """How many symbols more to ask for; 0 where it is known, or ranges are to be asked for."""
        return self._sketch.wanted

    def receive(self, symbols: bytes) -> None:
        """Take the giver's next symbols."""
        self._sketch.receive(symbols)
        if self._sketch.difference is not None:
            self._know(self._sketch.difference)

    def question(self) -> bytes | None:
        """The next question about ranges, where the sketch gave up."""
        if self.alive is not None or self._sketch.wanted:
            return None
        if self._ranges is None:
            self._ranges = reconcile.Asker(self._items)
        question = self._ranges.question()
        if question is None:
            self._know(self._ranges.difference)
        return question

    def receive_answer(self, answer: bytes) -> None:
        """Take the giver's answer to the last question."""
        if self._ranges is None:
            raise ProtocolError("an answer to no question")
        self._ranges.receive(answer)

    def known(self) -> Known:
        """What was found out."""
        assert self.alive is not None
        return Known(self._key, self._dots, self.alive)

    def _know(self, difference: Difference) -> None:
        gone = set(reconcile.each(difference.ours))
        kept = [item for item in reconcile.each(self._items) if item not in gone] if gone else [self._items]
        self.alive = _kernel.ordered(b"".join([*kept, difference.theirs]))


def _removed_unseen(reader: Reader, scope: Scope, own: Declaration, giver: Declaration) -> int:
    """About how many incarnations were removed here unseen by the giver: by kept removals, and by forgotten ones."""
    kept = [change for change in reader.removing(scope.id) if not _covers(reader, giver.context, change[:2])]
    below = own.floor - giver.context  # of these changes, those without a live cell are mostly forgotten removals
    forgotten = below.count() - sum(1 for _ in reader.changes(scope.id, below)) if below else 0
    return sum(change.parts for change in kept) + forgotten


def _covers(reader: Reader, context: Context, dot: tuple[int, int]) -> bool:
    return context.covers(reader.dictionary.author(dot[0]), dot[1])


class TooMuch(Exception):
    """A giver would take away more than it may. Never leaves the engine."""


def drop(writer: Writer, scope: Scope, taker: Known, trust: Trust, wall_ms: int) -> tuple[Scope, list[Touched]]:
    """Remove what lives here of the compared dots and not at the giver; records go to the trash.

    Returns the scope with its new digest, not yet saved. TooMuch, and nothing done, where the giver may not do that.
    Nothing ever goes from the control scope.
    """
    if scope.name == CONTROL:
        return scope, []
    targets = [*_gone_records(writer, scope, taker), *_gone_orphans(writer, scope, taker)]
    if not trust.may_drop(len(targets), writer.count_records(scope.id)):
        raise TooMuch
    if not targets:
        return scope, []
    rows = [(target.collection, target.row) for target in targets if target.row is not None]
    scope, touched = land(writer, scope, targets, [])
    dropped = {(one.collection, one.key) for one in touched if not one.after}
    writer.put_trash(
        [
            TrashRow(0, scope.id, collection, row.key, row.packed, wall_ms)
            for collection, row in rows
            if (collection, row.key) in dropped
        ]
    )
    return scope, touched


def _gone_records(writer: Writer, scope: Scope, taker: Known) -> Iterator[Target]:
    names = {known.id: known.name for known in writer.collections()}
    for collection, rows in writer.records(scope.id):
        for row, removals in zip(rows, _gone(writer, taker, [row.packed for row in rows]), strict=True):
            if removals:
                yield Target(collection, names[collection], row.key, row, removals=removals)


def _gone_orphans(writer: Writer, scope: Scope, taker: Known) -> Iterator[Target]:
    names = {known.id: known.name for known in writer.collections()}
    for orphans in writer.all_orphans(scope.id):
        for orphan, removals in zip(orphans, _gone(writer, taker, [one.packed for one in orphans]), strict=True):
            if removals:
                yield of_orphan(orphan, names, removals)


def _gone(writer: Writer, taker: Known, packed: list[bytes]) -> list[tuple[tuple[int, int, int, bytes], ...]]:
    dictionary = writer.dictionary
    intervals = writer.dictionary.numbered(taker.dots)
    return _kernel.gone(packed, taker.key, intervals, taker.alive, dictionary.fields, dictionary.authors)
