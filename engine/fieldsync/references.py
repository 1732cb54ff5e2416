"""References between records: the record that a field names by its key, or why it cannot be read here.

A reference is a key, without a scope: a record that moves keeps its key. Nothing makes sure that the record is there,
for it may be deleted by somebody who has not heard of the reference; so where one leads is an answer, and no error.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from fieldsync.errors import LimitExceeded, SchemaError
from fieldsync.limits import FOLLOWED_MAX
from fieldsync.reading import snapshot
from fieldsync.schema import BaseRecord
from fieldsync.trash import to_datetime
from fieldsync.why import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fieldsync.schema import Collection
    from fieldsync.store import Gone, Row, Scope
    from fieldsync.why import Deed, Deeds

R = TypeVar("R", bound=BaseRecord)
State: TypeAlias = Literal["here", "empty", "ambiguous", "deleted", "moved", "not held", "filling", "unknown"]


@dataclass(frozen=True, slots=True)
class Followed(Generic[R]):
    """Where a reference led: true if to a record that is here; str() says it in words.

    "empty": it refers to nothing. "ambiguous": the key lives in several scopes and not in the referring record's.
    "deleted": as far as this file knows; to whoever is no hub, a move to a scope that is not held looks the same.
    "moved": this file, a hub, moved it to scopes[0], where it is no more. "not held": the scope that was named is not.
    "filling": the first syncs of scopes are not complete, it may come yet. "unknown": nothing was heard of it here.
    """

    collection: str  # of the record that it refers to
    key: str | None
    state: State
    record: R | None = None
    scopes: tuple[str, ...] = ()  # where it is, was deleted, went; those that are filling, or not held
    deed: Deed | None = None  # who deleted it, and when, where that is still known
    reason: str = ""  # why there is no record, in words

    def __bool__(self) -> bool:
        return self.record is not None

    def __str__(self) -> str:
        return self.reason or f"{self.collection} {self.key!r} is in scope {self.scopes[0]!r}."


class Reference(NamedTuple):
    """What one record's field holds: a key, or nothing."""

    scope: str  # of the record that refers
    target: Collection
    key: Any


def references(
    records: Iterable[BaseRecord], field: str, of: Collection | None, collection: Callable[[str], Collection]
) -> list[Reference]:
    """What a field of records refers to, in the declared collection or in `of`. SchemaError, LimitExceeded."""
    found: list[Reference] = []
    for record in records:
        own = collection(record.collection)
        name = own.field(field).references
        if not name and of is None:
            raise SchemaError(f"{own.name}.{field} refers to no collection: declare it with references=, or pass of=")
        if of is not None and name not in ("", of.name):
            raise SchemaError(f"{own.name}.{field} refers to {name}, not to {of.name}")
        try:
            key = record[field]
        except KeyError:
            key = None
        found.append(Reference(record.scope, of or collection(name), key))
        if len(found) > FOLLOWED_MAX:
            raise LimitExceeded(f"up to {FOLLOWED_MAX:,} references can be followed at once")
    return found


def follow(deeds: Deeds, some: Sequence[Reference], scope: str | None) -> list[Followed[Any]]:
    """Where references lead, in their order: with few queries, however many they are.

    The referring record's scope comes first, then all others; or just the one that is named.
    """
    targets = {one.target.name: one.target for one in some}
    ways = {name: _Way(deeds, target, scope) for name, target in targets.items()}
    for name, way in ways.items():
        way.look([one for one in some if one.target.name == name and isinstance(one.key, str)])
    return [ways[one.target.name].answer(one) for one in some]


class _Way:
    """Leads to the records of one collection."""

    def __init__(self, deeds: Deeds, target: Collection, scope: str | None) -> None:
        self._deeds = deeds
        self._reader = deeds.reader
        self._target = target
        self._scope = scope
        self._scopes = {held.id: held for held in self._reader.scopes() if scope in (None, held.name)}
        self._filling = tuple(held.name for held in self._scopes.values() if not held.ready)
        self._near: dict[tuple[str, str], Row] = {}  # by scope and key: where it is looked for first
        self._far: dict[str, list[Row]] = defaultdict(list)  # by key: in any scope
        self._gone: dict[str, Gone] = {}  # by key: what is known of it last

    def look(self, some: list[Reference]) -> None:
        """Find what the references need, all at once."""
        known = self._reader.collection(self._target.name)
        if known is None or not self._scopes or not some:
            return
        numbers = {held.name: held.id for held in self._scopes.values()}
        near = {(scope, one.key) for one in some if (scope := self._scope or one.scope) in numbers}
        for row in self._reader.by_pairs(known.id, [(numbers[scope], key) for scope, key in sorted(near)]):
            self._near[self._scopes[row.scope].name, row.key] = row
        missing = sorted({one.key for one in some if (self._scope or one.scope, one.key) not in self._near})
        if missing and self._scope is None:
            for row in self._reader.by_keys_anywhere(known.id, missing):
                self._far[row.key].append(row)
        missing = [key for key in missing if key not in self._far]
        for gone in self._reader.gone(known.id, missing) if missing else ():
            if gone.scope in self._scopes and (gone.key not in self._gone or gone.ms > self._gone[gone.key].ms):
                self._gone[gone.key] = gone

    def answer(self, one: Reference) -> Followed[Any]:
        """Where one reference leads."""
        if one.key is None:
            return Followed(self._target.name, None, "empty", reason="It refers to nothing.")
        if not isinstance(one.key, str):
            return Followed(self._target.name, None, "unknown", reason=f"{one.key!r} is no key.")
        if self._scope is not None and not self._scopes:
            return self._none(one, "not held", f"may be in scope {self._scope!r}, which is not held here", self._scope)
        near = self._near.get((self._scope or one.scope, one.key))
        rows = [near] if near else self._far.get(one.key, [])
        if len(rows) > 1:
            names = sorted(self._scopes[row.scope].name for row in rows)
            return self._none(one, "ambiguous", f"lives in several scopes, {listed(names)}; pass scope=", *names)
        return self._found(one, rows[0]) if rows else self._absent(one)

    def _found(self, one: Reference, row: Row) -> Followed[Any]:
        name = self._scopes[row.scope].name
        record = snapshot(self._target, self._reader, row.key, name, row.packed)
        return Followed(self._target.name, one.key, "here", record, (name,))

    def _none(self, one: Reference, state: State, what: str, *scopes: str, deed: Deed | None = None) -> Followed[Any]:
        reason = f"{self._target.name} {one.key!r} {what}."
        return Followed(self._target.name, one.key, state, None, scopes, deed, reason)

    def _absent(self, one: Reference) -> Followed[Any]:
        """Why a key is not here."""
        gone = self._gone.get(one.key)
        if gone is not None:
            return self._told(one, gone, self._scopes[gone.scope])
        if self._filling:
            what = f"is not here; the first sync is not complete of {listed(self._filling)}: it may come yet"
            return self._none(one, "filling", what, *self._filling)
        elsewhere = "" if self._deeds.is_hub or self._scope is not None else "; it may be in a scope that is not held"
        return self._none(one, "unknown", f"is not here, and nothing is known of it{elsewhere}")

    def _told(self, one: Reference, gone: Gone, scope: Scope) -> Followed[Any]:
        if gone.target is not None:
            end = ", and is there no more" if self._scope is None else ""
            return self._none(one, "moved", f"was moved to scope {gone.target!r}{end}", gone.target)
        if gone.dot is None:
            when = f"{to_datetime(gone.ms):%Y-%m-%d %H:%M:%S} UTC"
            return self._none(one, "deleted", f"went on {when} because a peer had it no more", scope.name)
        who = self._deeds.deed(scope, gone.dot, gone.time)
        what = f"was deleted {who}, in scope {scope.name!r}"
        if not self._deeds.is_hub and not who.is_own:
            what += "; or it was moved from there" + " to a scope that is not held here" * (self._scope is None)
        return self._none(one, "deleted", what, scope.name, deed=who)
