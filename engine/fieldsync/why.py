"""Why a record is here or is not: what a file knows of one key, as facts and as sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync import clock, leaving, record
from fieldsync.context import Context
from fieldsync.moving import wish_of
from fieldsync.rebuild import Held, weigh
from fieldsync.trash import to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from fieldsync.record import Name
    from fieldsync.store import Dot, Reader, Scope

NAMED = 10  # scopes that a sentence names; of more, the number


@dataclass(frozen=True, slots=True)
class Deed:
    """Who created or removed a record, and when."""

    author: str  # 16 hex digits: one file's stay in one scope
    when: datetime  # in UTC, by the author's clock
    is_own: bool  # it was this file
    is_pending: bool  # no hub is known to have it
    is_ahead: bool  # that clock is over 5 minutes ahead of this one: one of the two is wrong
    device: str | None = None  # the name of the author's device, in an organisation

    def __str__(self) -> str:
        who = "this file" if self.is_own else self.device or f"author {self.author}"
        unknown = " (no hub is known to have that)" if self.is_pending else ""
        ahead = ", which is still to come: a clock is wrong" if self.is_ahead else ""
        return f"by {who} on {self.when:%Y-%m-%d %H:%M:%S} UTC{ahead}{unknown}"


@dataclass(frozen=True, slots=True)
class Trace:
    """What one scope knows of a record."""

    scope: str
    created: tuple[Deed, ...]  # incarnations that live; several where devices created the key apart
    removed: tuple[Deed, ...]  # as far as removals are kept
    dropped: datetime | None  # when it went because a peer had it no more, as the trash has it
    changes: int  # that live in it
    pending: int  # those that no hub is known to have
    provisional: int  # those of which a part may be missing until a sync is complete
    late: int  # cells that came for incarnations which are gone, or have not come
    wished: str | None  # the scope that it is to move to, once the hub has heard of that
    moved: str | None  # the scope that this file, a hub, has moved it to

    @property
    def is_here(self) -> bool:
        """Whether the record can be read."""
        return bool(self.created)

    def __bool__(self) -> bool:
        return bool(self.created or self.removed or self.dropped or self.late or self.moved)

    def sentences(self) -> Iterator[str]:
        """The same in words."""
        yield f"It {'lives' if self.is_here else 'is not'} in scope {self.scope!r}."
        for deed in self.created:
            yield f"It was created {deed}."
        if len(self.created) > 1:
            yield "Devices created the key apart, so it reads as one record of them all."
        for deed in self.removed:
            yield f"{'An earlier record of that key' if self.is_here else 'It'} was deleted {deed}."
        if self.moved:
            yield f"{'An earlier record of that key' if self.is_here else 'It'} was moved to scope {self.moved!r}."
        if self.wished:
            yield f"It is to move to scope {self.wished!r}, as soon as the hub has heard of that."
        if self.dropped:
            yield f"It went on {self.dropped:%Y-%m-%d %H:%M:%S} UTC because a peer had it no more; the trash has it."
        if self.late:
            yield f"{self.late} of its cells are kept aside: what they belong to was deleted, or has not come yet."
        if self.pending:
            yield f"No hub is known to have {self.pending} of its {self.changes} changes."
        if self.provisional:
            yield f"{self.provisional} of its changes are provisional: parts may be missing until a sync is complete."


@dataclass(frozen=True, slots=True)
class Why:
    """Why a record is here or is not; str() tells it in sentences."""

    collection: str
    key: str
    traces: tuple[Trace, ...]  # of the scopes that know anything of it
    scopes: tuple[str, ...]  # that were asked
    filling: tuple[str, ...]  # those of them whose first sync is not complete
    forgetful: tuple[str, ...]  # those that have forgotten removals

    @property
    def is_here(self) -> bool:
        """Whether the record can be read, in any scope."""
        return any(trace.is_here for trace in self.traces)

    def __str__(self) -> str:
        return "\n".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        yield f"{self.collection} {self.key!r} is {'here' if self.is_here else 'not here'}."
        for trace in self.traces:
            yield " ".join(trace.sentences())
        if self.is_here:
            return
        if not self.scopes:
            yield "No scope is held here."
        elif not self.traces:
            yield f"Nothing is known of it in {listed(self.scopes)}."
        if self.filling:
            yield f"The first sync is not complete of {listed(self.filling)}: it may come yet."
        unknown = set(self.forgetful) - {trace.scope for trace in self.traces}
        if unknown:
            yield f"Removals were forgotten in {listed(sorted(unknown))}: it may have been deleted there before."


def listed(names: Sequence[str]) -> str:
    """The names of scopes in a sentence; of very many, the first."""
    some = ", ".join(map(repr, names[:NAMED]))
    return f"{some} and {len(names) - NAMED} scopes more" if len(names) > NAMED else some


class Deeds:
    """Tells of changes as deeds, as this file sees them now."""

    def __init__(self, reader: Reader, *, is_hub: bool, wall_ms: int, device_of: Callable[[bytes], str | None]) -> None:
        self.reader = reader
        self.is_hub = is_hub
        self._wall_ms = wall_ms
        self._device_of = device_of
        self._pending: dict[int, Context] = {}  # by scope

    def pending(self, scope: Scope) -> Context:
        """The changes of a scope that no hub is known to have: none of a hub's own."""
        if scope.id not in self._pending:
            self._pending[scope.id] = Context() if self.is_hub else leaving.pending(self.reader, scope)
        return self._pending[scope.id]

    def deed(self, scope: Scope, dot: Dot, time: int) -> Deed:
        """A change of a scope."""
        author = self.reader.dictionary.author(dot[0])
        return Deed(
            author.hex(),
            clock.to_datetime(time),
            dot[0] == scope.author,
            self.pending(scope).covers(author, dot[1]),
            not clock.is_trusted(time, self._wall_ms),
            self._device_of(author),
        )


def why(deeds: Deeds, collection: str, key: str, scopes: list[Scope]) -> Why:
    """What scopes know of a key. Corrupt where the record is damaged."""
    known = deeds.reader.collection(collection)
    tracer = _Tracer(deeds, known.id, (collection, key)) if known else None
    return Why(
        collection,
        key,
        tuple(trace for scope in scopes if tracer and (trace := tracer.trace(scope))),
        tuple(scope.name for scope in scopes),
        tuple(scope.name for scope in scopes if not scope.ready),
        tuple(scope.name for scope in scopes if scope.floor),
    )


class _Tracer:
    """Looks for one key in scopes."""

    def __init__(self, deeds: Deeds, collection: int, name: Name) -> None:
        self._deeds = deeds
        self._reader = deeds.reader
        self._collection = collection
        self._name = name
        self._dropped: dict[int, datetime] = {}  # scope -> when it went to the trash last
        for row in self._reader.trash():
            if (row.collection, row.key) == (collection, name[1]):
                self._dropped.setdefault(row.scope, to_datetime(row.wall_ms))

    def trace(self, scope: Scope) -> Trace:
        """What a scope knows."""
        reader, dictionary, key = self._reader, self._reader.dictionary, self._name[1]
        pending, deed = self._deeds.pending(scope), self._deeds.deed
        rows = reader.by_key(self._collection, scope.id, [key])
        held = [Held(self._collection, row.id, self._name, row.packed, None) for row in rows]
        lives, _ = weigh(dictionary, record.digest_key(scope.name), held)
        dots = [(dictionary.author(author), seq) for share in lives for author, seq, _ in share]
        provisional = set(reader.provisional_dots(scope.id)) if dots else set()
        late = [orphan.packed for orphan in reader.orphans_of_key(scope.id, self._collection, key)]
        return Trace(
            scope.name,
            tuple(deed(scope, birth[:2], birth.time) for row in rows for birth in record.births(row.packed)),
            tuple(deed(scope, dot, time) for dot, time in reader.removals_of_key(scope.id, self._collection, key)),
            self._dropped.get(scope.id),
            len(dots),
            sum(pending.covers(*dot) for dot in dots),
            len(provisional.intersection(dots)),
            sum(map(len, record.stamps(dictionary, late))),
            next((wish for row in rows if (wish := wish_of(dictionary, row.packed)) != scope.name), None),
            forward.target if (forward := reader.forward_of(scope.id, self._collection, key)) else None,
        )
