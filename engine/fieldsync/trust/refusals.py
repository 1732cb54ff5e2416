"""What peers refused of this file's changes: remembered until somebody takes them, for their author to see.

Nothing is lost by a refusal. The changes stay here, are read as before and offered to every peer, until a grant lets
one take them, or the app takes them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync.leaving import pending
from fieldsync.limits import REFUSED_RECORDS_MAX
from fieldsync.replica import changed
from fieldsync.trust.rights import tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.sqlite import SQLiteReader, SQLiteStore
    from fieldsync.store import Scope
    from fieldsync.syncing.report import Refused


EVER = "refused"  # whether anything ever was


@dataclass(frozen=True, slots=True)
class RefusedChanges:
    """What is here of a scope that a peer would not take, and that no hub is known to have."""

    scope: str
    code: str  # one of trust.Reason, or of a newer version
    changes: int
    records: list[tuple[str, str]]  # (collection, key) of records that they wrote or removed, as many as are told

    def __str__(self) -> str:
        names = ", ".join(f"{collection} {key}" for collection, key in self.records[:5])
        more = ", ..." if len(self.records) > 5 else ""
        return f"{self.scope}: {self.changes:,} changes were refused: {tell(self.code)} ({names}{more})"


def _fact(scope: Scope) -> str:
    return f"refused {scope.id}"


def remember(store: SQLiteStore, settled: Iterable[str], refusals: Iterable[Refused]) -> None:
    """After a session: which scopes the peer took all of, and of which it refused what is here, and why."""
    refused = {one.scope: one.code for one in refusals if one.is_ours}
    with store.reading() as reader:
        if not refused and not reader.meta(EVER):
            return
        found = {name: reader.scope(name) for name in {*settled, *refused}}
        stale = [
            (_fact(scope), refused.get(name))
            for name, scope in found.items()
            if scope is not None and reader.meta(_fact(scope)) != refused.get(name)
        ]
    if stale:
        with store.writing() as writer:
            writer.set_meta(EVER, 1)
            for fact, code in stale:
                writer.set_meta(fact, code)


def entries(reader: SQLiteReader) -> list[RefusedChanges]:
    """What was refused and is still pending, scope by scope."""
    names = {known.id: known.name for known in reader.collections()}
    found = []
    for scope in reader.scopes():
        code = reader.meta(_fact(scope))
        if code and (dots := pending(reader, scope)):
            records = dict.fromkeys((names[one.collection], one.key) for one in changed(reader, scope.name, dots))
            found.append(RefusedChanges(scope.name, code, dots.count(), list(records)[:REFUSED_RECORDS_MAX]))
    return found
