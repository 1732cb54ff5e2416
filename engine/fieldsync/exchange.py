"""Giving and taking the changes of one scope: what a stream does to a store, without the conversation round it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldsync import changes, clock, record
from fieldsync.apply import Arrival, NewRecords, Target, Touched, expand, land, land_new
from fieldsync.changes import GROUPED, REMOVING, Chunk, GivenChange, TakenChange
from fieldsync.context import Context
from fieldsync.errors import DecodeError
from fieldsync.limits import (
    CHANGE_BYTES_MAX,
    CHANGE_INCARNATIONS_MAX,
    CHUNK_BYTES_TARGET,
    CHUNK_CELLS_TARGET,
    CHUNK_CHANGES_MAX,
    FETCH_ROWS_TARGET,
    KEY_BYTES_MAX,
    PROVISIONAL_GROUPS_MAX,
    SEQ_MAX,
)
from fieldsync.store import HEADLESS, ChangeRow, Incarnation, OrphanRow, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fieldsync.changes import Name, Piece
    from fieldsync.store import Dot, Entry, Reader, Scope, Writer


class Superseded(Exception):
    """A newer stream has begun to write this scope, so this one may not any more. Never leaves the engine."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a taker says it holds, and a giver what it can give: one moment of one replica's scope."""

    context: Context
    floor: Context
    provisional: list[tuple[Context, Context]]  # (context of the giver they came under, dots)


@dataclass(frozen=True, slots=True)
class State:
    """What two replicas compare: equal contexts must mean equal digests."""

    context_hash: bytes
    digest: bytes
    is_provisional: bool

    def short(self) -> bytes:
        """Eight bytes that differ, all but surely, where two replicas have anything to tell each other."""
        # not whether anything is provisional: where contexts are equal, neither side can account for it
        return hashlib.blake2b(self.context_hash + self.digest, digest_size=8).digest()


def state_of(reader: Reader, scope: Scope) -> State:
    """The state of a scope at the reader's moment."""
    return State(reader.context(scope.id).hash(), scope.digest, reader.is_provisional(scope.id))


def begin(writer: Writer, scope: Scope, token: bytes) -> None:
    """Make a new stream, which random bytes name, the only one that may write this scope."""
    writer.save_scope(scope._replace(taker=token))


def declare(reader: Reader, scope: Scope) -> Declaration:
    """The declaration of a scope at the reader's moment."""
    provisional = reader.provisional(scope.id)[:PROVISIONAL_GROUPS_MAX]
    return Declaration(reader.context(scope.id), Context(scope.floor), provisional)


def lacking(reader: Reader, scope: Scope, own: Context, taker: Declaration) -> Context:
    """The dots that a giver at this moment holds and the taker has not declared."""
    found = (own | _provisional(reader, scope)) - taker.context
    for giver, dots in taker.provisional:
        if not giver - own:  # all that this giver's context had is in ours: what it no longer had, we do not lack
            found = found - (dots & giver)  # of what it held only in part itself, we may have more
    return found


def _provisional(reader: Reader, scope: Scope) -> Context:
    return Context.of((author, seq, seq) for author, seq in reader.provisional_dots(scope.id))


# --- giving ---


@dataclass(slots=True)
class _Load:
    """Changes gathered for one chunk, and the numbers it gives to collections."""

    changes: list[GivenChange] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    parts: int = 0
    weight: int = 0  # bytes of the packed records read, and of names

    def has_room(self, row: ChangeRow) -> bool:
        """Whether a change may join; a second part of a group has to."""
        if not self.changes or row.flags & GROUPED:
            return True
        is_full = self.parts + row.live > CHUNK_CELLS_TARGET or self.weight > CHUNK_BYTES_TARGET
        return not is_full and len(self.changes) < CHUNK_CHANGES_MAX - 1


def give(reader: Reader, scope: Scope, dots: Context) -> Iterator[tuple[Chunk, int]]:
    """Chunks of the changes of those dots, oldest first and whole, with the number of changes in each."""
    names = {row.id: row.name for row in reader.collections()}

    def chunk_of(load: _Load) -> tuple[Chunk, int]:
        return changes.encode(reader.dictionary, load.changes, [names[number] for number in load.numbers]), len(
            load.changes
        )

    load = _Load()
    for rows in _slices(reader.changes(scope.id, dots)):
        held = _fetch(reader, rows)
        for row in rows:
            if not load.has_room(row):
                yield chunk_of(load)
                load = _Load()
            _add(reader, scope, row, held, load)
    if load.changes:
        yield chunk_of(load)


def _slices(rows: Iterator[ChangeRow]) -> Iterator[list[ChangeRow]]:
    """Changes whose records are fetched together: few at a time, for records may be large."""
    some: list[ChangeRow] = []
    places = 0
    for row in rows:
        some.append(row)
        places += sum(entry.count for entry in row.entries)
        if places >= FETCH_ROWS_TARGET:
            yield some
            some, places = [], 0
    if some:
        yield some


Held = dict[tuple[int, int], Row | OrphanRow]


def _fetch(reader: Reader, rows: list[ChangeRow]) -> Held:
    """The rows that changes name, by (collection, row number)."""
    wanted: dict[int, set[int]] = {}
    for row in rows:
        if not row.flags & REMOVING:
            for entry in row.entries:
                wanted.setdefault(entry.collection, set()).update(range(entry.row, entry.row + entry.count))
    held: Held = {}
    for collection, ids in wanted.items():
        found = reader.orphans_by_id(sorted(ids)) if collection == HEADLESS else reader.by_id(collection, sorted(ids))
        held.update({(collection, row.id): row for row in found})
    return held


def _add(reader: Reader, scope: Scope, row: ChangeRow, held: Held, load: _Load) -> None:
    """Add one change, as the kernel takes it, to a chunk's load."""
    records: list[tuple[bytes, Name | None]] = []
    removals = []
    if row.flags & REMOVING:
        removals = reader.removals_by(scope.id, (row.author, row.seq), row.entries)
    else:
        # a row once, though entries may name it twice: as where the change created a record, and where it has cells
        for place in dict.fromkeys((entry.collection, entry.row) for entry in expand(row.entries)):
            found = held.get(place)
            if isinstance(found, OrphanRow):
                known = found.key is not None and found.collection != HEADLESS
                number = load.numbers.setdefault(found.collection, len(load.numbers)) if known else 0
                records.append((found.packed, (number, found.key or "") if known else None))
            elif found is not None and found.scope == scope.id:
                number = load.numbers.setdefault(place[0], len(load.numbers))
                records.append((found.packed, (number, found.key)))
    load.changes.append((row.author, row.seq, row.time, row.flags, row.parts, records, removals))
    load.parts += row.live
    load.weight += sum(len(packed) + len(name[1] if name else "") for packed, name in records)
    load.weight += sum(len(item) for *_, item in removals)


# --- taking ---


@dataclass(slots=True)
class Taken:
    """What one chunk did."""

    changes: int
    touched: list[Touched]
    dots: Context


def take(
    writer: Writer, scope: Scope, declared: Context, giver: Context, received: Chunk, wall_ms: int
) -> tuple[Scope, Taken]:
    """Land a chunk, inside a write transaction; returns the scope, not yet saved. DecodeError where it is malformed."""
    changes.check(received)
    writer.author_ids([received.authors[i : i + 8] for i in range(0, len(received.authors), 8)])
    writer.field_ids(received.fields)
    decoded = changes.decode(writer.dictionary, received)
    _check(decoded)
    taken = _unknown(writer, decoded, declared | writer.context(scope.id))
    if any(change.author == scope.author and change.seq > scope.seq for change in taken):
        scope = scope._replace(author=0, seq=0)  # somebody else wrote under our author: never reuse its numbers
    collections = writer.collection_ids(received.collections)
    news = _all_new(writer, scope, taken, collections, received.collections)
    if news is not None:
        scope, touched = land_new(writer, scope, news)
    else:
        scope, touched = _merge(writer, scope, taken, collections, received.collections)
    _account(writer, scope, taken, giver)
    for change in taken:
        scope = scope._replace(time=clock.observe(scope.time, change.time, wall_ms))
    return scope, Taken(len(taken), touched, _dots(writer, taken))


def _merge(
    writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]
) -> tuple[Scope, list[Touched]]:
    targets = _locate(writer, scope, taken, ids, names)
    provisional = set(writer.provisional_dots(scope.id))
    arrivals = [_arrival(writer, change, provisional) for change in taken]
    return land(writer, scope, targets, arrivals)


def _all_new(
    writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]
) -> list[NewRecords] | None:
    """The records that changes create, if they do nothing else and nothing of any of them is held; else None."""
    news: dict[tuple[Dot, int], NewRecords] = {}
    for change in taken:
        if change.removals or not change.is_whole:
            return None
        dot = (change.author, change.seq)
        arrival = Arrival(dot, change.time, change.flags, change.parts, [], live=change.received)
        for author, seq, n, name, packed in change.pieces:
            if name is None or (author, seq) != dot:
                return None
            number, key = name
            new = news.get((dot, number))
            if new is None:
                new = news[dot, number] = NewRecords(arrival, ids[number], names[number], [])
            new.records.append((n, key, packed))
    if writer.has_orphans(scope.id) or writer.removals_of(scope.id, {dot for dot, _ in news}):
        return None
    keys: dict[int, list[str]] = {}
    for new in news.values():
        keys.setdefault(new.collection, []).extend([key for _, key, _ in new.records])
    for collection, some in keys.items():
        if len(set(some)) != len(some) or writer.by_key(collection, scope.id, some):
            return None
    return list(news.values())


def _dots(writer: Writer, some: Iterable[TakenChange]) -> Context:
    name = writer.dictionary.author
    return Context.of((name(change.author), change.seq, change.seq) for change in some)


def _unknown(writer: Writer, taken: list[TakenChange], accounted: Context) -> list[TakenChange]:
    """The changes not accounted for yet; others may be gone again, and a peer that sends one twice may twist it."""
    known = _dots(writer, taken) & accounted
    if not known:
        return taken
    return [change for change in taken if not known.covers(writer.dictionary.author(change.author), change.seq)]


def _check(taken: list[TakenChange]) -> None:
    if len({(change.author, change.seq) for change in taken}) != len(taken):
        raise DecodeError("a chunk holds a change twice")
    for change in taken:
        if change.flags & ~(GROUPED | REMOVING):
            raise DecodeError(f"a change has flags that this version does not know: {change.flags}")
        if bool(change.removals) != bool(change.flags & REMOVING) or change.received > change.parts:
            raise DecodeError("a change does not hold what it says")
        if len(change.pieces) > CHANGE_INCARNATIONS_MAX or len(change.removals) > CHANGE_INCARNATIONS_MAX:
            raise DecodeError(f"a change of more than {CHANGE_INCARNATIONS_MAX} incarnations")
        size = sum(len(piece[4]) for piece in change.pieces) + sum(len(item) for *_, item in change.removals)
        if size > 2 * CHANGE_BYTES_MAX:  # in this file's numbers, which may be longer than the writer's
            raise DecodeError(f"a change of {size} bytes; at most {CHANGE_BYTES_MAX} may be written")
        created = [piece[3] for piece in change.pieces if piece[:2] == (change.author, change.seq)]
        if len(set(created)) != len(created):
            raise DecodeError("a change creates one record twice")
        for piece in change.pieces:
            name = piece[3]
            if name is not None and not 0 < len(name[1].encode()) <= KEY_BYTES_MAX:
                raise DecodeError(f"a key has 1 to {KEY_BYTES_MAX} bytes")


def _arrival(writer: Writer, change: TakenChange, provisional: set[tuple[bytes, int]]) -> Arrival:
    dot = (change.author, change.seq)
    known = (writer.dictionary.author(change.author), change.seq) in provisional
    return Arrival(dot, change.time, change.flags, change.parts, change.removals, known)


def _account(writer: Writer, scope: Scope, taken: list[TakenChange], giver: Context) -> None:
    """Whole changes that the giver vouches for are accounted for; the others are provisional until a Done."""
    vouched = _dots(writer, (change for change in taken if change.is_whole)) & giver
    writer.account(scope.id, vouched)
    _drop_provisional(writer, scope, vouched)
    partial = _dots(writer, taken) - vouched
    if partial:
        partial = partial - writer.context(scope.id)
        writer.put_provisional(scope.id, _one_by_one(partial), giver)


def _drop_provisional(writer: Writer, scope: Scope, accounted: Context) -> None:
    writer.drop_provisional(scope.id, _one_by_one(_provisional(writer, scope) & accounted))


def _one_by_one(dots: Context) -> list[tuple[bytes, int]]:
    return [(author, seq) for author, low, high in dots.intervals() for seq in range(low, high + 1)]


def finish(writer: Writer, scope: Scope, giver: Context) -> Scope:
    """Done: join the giver's context; returns the scope, not yet saved."""
    own = writer.dictionary.author(scope.author)
    writer.account(scope.id, giver)
    _drop_provisional(writer, scope, giver)
    if scope.author and giver & Context.of([(own, scope.seq + 1, SEQ_MAX)]):
        scope = scope._replace(author=0, seq=0)  # somebody else wrote under our author: never reuse its numbers
    return scope._replace(ready=True)


def _locate(writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]) -> list[Target]:
    """The records that changes touch, each once, with all that is to be merged into it."""
    pieces: dict[Incarnation, list[tuple[TakenChange, Piece]]] = {}
    removals: dict[Incarnation, list[tuple[int, int, int, bytes]]] = {}
    for change in taken:
        for piece in change.pieces:
            pieces.setdefault(piece[:3], []).append((change, piece))
        for removal in change.removals:
            removals.setdefault(removal[:3], []).append(removal)
    wanted = list(dict.fromkeys([*pieces, *removals]))
    kept = writer.removals_of(scope.id, {incarnation[:2] for incarnation in wanted})
    finder = _Finder(writer, scope, ids, names)
    finder.find(wanted, {incarnation: _name_of(found) for incarnation, found in pieces.items()})
    for incarnation in wanted:
        target = finder.target_of(incarnation)
        for change, piece in pieces.get(incarnation, ()):
            target.pieces.append(piece[4])
            if (change.author, change.seq) == incarnation[:2]:
                target.created[incarnation[:2]] = incarnation[2]
        target.removals.extend(removals.get(incarnation, ()))
        target.removals.extend(kept.get(incarnation, ()))
    return finder.targets


def _name_of(found: list[tuple[TakenChange, Piece]]) -> Name | None:
    return next((piece[3] for _, piece in found if piece[3] is not None), None)


class _Finder:
    """Finds where incarnations live: by the index, by their key, or among the orphans."""

    def __init__(self, writer: Writer, scope: Scope, ids: list[int], names: list[str]) -> None:
        self._writer = writer
        self._scope = scope
        self._collections = dict(zip(ids, names, strict=True))
        self._numbers = ids
        self._by_place: dict[tuple[int, str], Target] = {}
        self._by_incarnation: dict[Incarnation, Target] = {}
        self.targets: list[Target] = []

    def find(self, wanted: list[Incarnation], named: dict[Incarnation, Name | None]) -> None:
        """Look all of them up, a few queries a batch."""
        orphans = {}
        if self._writer.has_orphans(self._scope.id):
            orphans = {row.incarnation: row for row in self._writer.orphans(self._scope.id, wanted)}
        names = {
            incarnation: (self._numbers[name[0]], name[1]) for incarnation, name in named.items() if name is not None
        }
        for incarnation, orphan in orphans.items():
            if orphan.key is not None and orphan.collection != HEADLESS:
                names.setdefault(incarnation, (orphan.collection, orphan.key))
        rows = self._rows_by_index(incarnation for incarnation in wanted if incarnation not in names)
        for incarnation, (collection, row) in rows.items():
            names[incarnation] = (collection, row.key)
        known = self._rows_by_name(set(names.values()))
        for incarnation in wanted:
            target = self._target(names.get(incarnation), known)
            if incarnation in orphans:
                target.orphans.append(orphans[incarnation])
            self._by_incarnation[incarnation] = target

    def target_of(self, incarnation: Incarnation) -> Target:
        """The record that an incarnation belongs to."""
        return self._by_incarnation[incarnation]

    def _target(self, place: tuple[int, str] | None, rows: dict[tuple[int, str], Row]) -> Target:
        if place is not None and place in self._by_place:
            return self._by_place[place]
        target = Target()
        if place is not None:
            target = Target(place[0], self._name(place[0]), place[1], rows.get(place))
            self._by_place[place] = target
        self.targets.append(target)
        return target

    def _name(self, collection: int) -> str:
        if collection not in self._collections:
            self._collections.update({row.id: row.name for row in self._writer.collections()})
        return self._collections[collection]

    def _rows_by_name(self, places: set[tuple[int, str]]) -> dict[tuple[int, str], Row]:
        keys: dict[int, list[str]] = {}
        for collection, key in places:
            keys.setdefault(collection, []).append(key)
        return {
            (collection, row.key): row
            for collection, some in keys.items()
            for row in self._writer.by_key(collection, self._scope.id, some)
        }

    def _rows_by_index(self, wanted: Iterable[Incarnation]) -> dict[Incarnation, tuple[int, Row]]:
        """Where the index says that incarnations were created, if they still are there: row numbers are used again."""
        created: dict[Dot, list[Entry]] = {}
        places: dict[int, dict[int, list[Incarnation]]] = {}
        for incarnation in wanted:
            dot = incarnation[:2]
            if dot not in created:
                change = self._writer.change(self._scope.id, dot)
                known = change is not None and not change.flags & REMOVING
                created[dot] = [entry for entry in change.entries if entry.n >= 0] if change and known else []
            for entry in created[dot]:
                if entry.n <= incarnation[2] < entry.n + entry.count:
                    number = entry.row + incarnation[2] - entry.n
                    places.setdefault(entry.collection, {}).setdefault(number, []).append(incarnation)
        found = {}
        for collection, numbers in places.items():
            for row in self._writer.by_id(collection, sorted(numbers)):
                here = record.incarnations(self._writer.dictionary, row.packed) if row.scope == self._scope.id else []
                found.update({incarnation: (collection, row) for incarnation in numbers[row.id] if incarnation in here})
        return found
