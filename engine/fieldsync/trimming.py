"""Trimming: forgetting removals. The floor remembers how far; who has seen less compares what lives (existence.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import clock, record
from fieldsync.context import Context

if TYPE_CHECKING:
    from fieldsync.store import ChangeRow, Scope, Writer


def trim(
    writer: Writer, scope: Scope, *, before_ms: int, keep: int | None = None, known: Context | None = None
) -> tuple[Scope, int]:
    """Forget the removals of a scope stamped up to a wall time, and all but the `keep` latest ones.

    Those that may not be forgotten yet stay; known: and those beyond these changes, with what they name. Returns the
    scope with its new floor, not yet saved, and how many changes of removals went.
    """
    kept = writer.removing(scope.id)
    surplus = max(0, len(kept) - keep) if keep is not None else 0
    own = writer.context(scope.id)
    if known is not None:
        own = own & known
    guard = _Guard(writer, scope, own)
    forgotten = [
        change
        for place, change in enumerate(kept)
        if (place < surplus or clock.to_ms(change.time) <= before_ms) and guard.allows(change)
    ]
    if not forgotten:
        return scope, 0
    writer.forget_removals(scope.id, forgotten)
    name = writer.dictionary.author
    floor = Context(scope.floor) | Context.of((name(change.author), 1, change.seq) for change in forgotten)
    return scope._replace(floor=floor.data), len(forgotten)


class _Guard:
    """A removal may go when all that it names is inside the own context: nothing it must be held against can come."""

    def __init__(self, writer: Writer, scope: Scope, own: Context) -> None:
        self._writer = writer
        self._scope = scope
        self._own = own
        self._contiguous = own.contiguous()

    def allows(self, change: ChangeRow) -> bool:
        """Whether a change of removals may be forgotten."""
        dictionary = self._writer.dictionary
        name = dictionary.author
        # the floor is a vector, so what it covers has to be without gaps
        if not self._contiguous.covers(name(change.author), change.seq):
            return False
        removals = self._writer.removals_by(self._scope.id, (change.author, change.seq), change.entries)
        vector, exact = record.named(dictionary, removals)
        seen = Context.of((name(author), 1, seq) for author, seq in vector)
        single = Context.of((name(author), seq, seq) for author, seq in exact)
        return not seen - self._contiguous and not single - self._own
