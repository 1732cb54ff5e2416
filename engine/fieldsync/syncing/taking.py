"""Taking the changes of one scope: a chunk lands in one transaction; Done joins the giver's context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fieldsync import changes, clock, record, texts
from fieldsync.apply import Arrival, NewRecords, Touched, land, land_edits, land_new
from fieldsync.changes import GROUPED, REMOVING, Chunk, TakenChange
from fieldsync.context import Context
from fieldsync.errors import DecodeError
from fieldsync.limits import CHANGE_BYTES_MAX, CHANGE_INCARNATIONS_MAX, KEY_BYTES_MAX, SEQ_MAX
from fieldsync.syncing.exchange import provisional_dots
from fieldsync.syncing.locating import locate, locate_edits
from fieldsync.trust import control
from fieldsync.trust.rights import CONTROL, EVERYTHING, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.store import Dot, Scope, Writer
    from fieldsync.syncing.exchange import Declaration
    from fieldsync.trust.rights import Rights


@dataclass(slots=True)
class Taken:
    """What one chunk did."""

    changes: int
    ahead: int  # of these, the ones that are stamped too far ahead of the wall clock to move the own clock
    touched: list[Touched]
    dots: Context
    refused: Reason | None  # why a change was left out, if any was


def take(
    writer: Writer,
    scope: Scope,
    declared: Context,
    giver: Context,
    received: Chunk,
    wall_ms: int,
    rights: Rights = EVERYTHING,
) -> tuple[Scope, Taken]:
    """Land a chunk, inside a write transaction; returns the scope, not yet saved. DecodeError where it is malformed.

    Changes of authors from whom the giver may bring none are left out, and so are those with unreadable texts.
    """
    changes.check(received)
    writer.author_ids([received.authors[i : i + 8] for i in range(0, len(received.authors), 8)])
    writer.field_ids(received.fields)
    decoded = changes.decode(writer.dictionary, received)
    _check(decoded)
    taken = _unknown(writer, decoded, declared | writer.context(scope.id))
    taken, refused = _admitted(writer, scope, taken, rights)
    if any(kind in texts.KINDS for _, kind in received.fields):
        taken, refused = _readable(writer, taken, refused)
    if scope.name == CONTROL:
        for change in taken:
            control.check(writer, change, received.collections)
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
    ahead = sum(not clock.is_trusted(change.time, wall_ms) for change in taken)
    return scope, Taken(len(taken), ahead, touched, _dots(writer, taken), refused)


def _merge(
    writer: Writer, scope: Scope, taken: list[TakenChange], ids: list[int], names: list[str]
) -> tuple[Scope, list[Touched]]:
    provisional = set(writer.provisional_dots(scope.id))
    arrivals = [_arrival(writer, change, provisional) for change in taken]
    targets = partial(locate, writer, scope, taken, ids, names)
    edits = locate_edits(writer, scope, taken)
    if edits is not None:
        return land_edits(writer, scope, edits, arrivals, targets)
    return land(writer, scope, targets(), arrivals)


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


def _admitted(
    writer: Writer, scope: Scope, taken: list[TakenChange], rights: Rights
) -> tuple[list[TakenChange], Reason | None]:
    """The changes of authors that the giver may bring, and why not the others."""
    refused = {
        author: reason
        for author in {change.author for change in taken}
        if (reason := rights.why_not_take(scope.name, writer.dictionary.author(author)))
    }
    if not refused:
        return taken, None
    return [change for change in taken if change.author not in refused], max(refused.values())


def _readable(
    writer: Writer, taken: list[TakenChange], refused: Reason | None
) -> tuple[list[TakenChange], Reason | None]:
    """The changes whose texts, lists and maps can be read: others would stay for ever."""
    pieces = [(at, piece[4]) for at, change in enumerate(taken) for piece in change.pieces]
    found = record.updates_each(writer.dictionary, [packed for _, packed in pieces])
    bad = {
        at
        for (at, _), fields in zip(pieces, found, strict=True)
        if not all(texts.is_readable(updates) for _, updates in fields)
    }
    if not bad:
        return taken, refused
    return [change for at, change in enumerate(taken) if at not in bad], Reason.UNREADABLE


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
        created = [piece[3] for piece in change.pieces if piece[1] == change.seq and piece[0] == change.author]
        if len(set(created)) != len(created):
            raise DecodeError("a change creates one record twice")
        for name in [piece[3] for piece in change.pieces if piece[3] is not None]:
            if not 0 < len(name[1].encode()) <= KEY_BYTES_MAX:
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
    writer.drop_provisional(scope.id, _one_by_one(provisional_dots(writer, scope) & accounted))


def _one_by_one(dots: Context) -> list[tuple[bytes, int]]:
    return [(author, seq) for author, low, high in dots.intervals() for seq in range(low, high + 1)]


def why_not_join(writer: Writer, scope: Scope, giver: Context, rights: Rights) -> Reason | None:
    """Why a context is not joined; None if it is: it holds changes of authors from whom its giver may bring none.

    Though none of them came. Else whoever gives could have their numbers used up, or authors known who are nobody's.
    """
    if scope.name == CONTROL:
        return None
    names = (giver - writer.context(scope.id)).authors()
    reasons = (rights.why_not_take(scope.name, names[i : i + 8]) for i in range(0, len(names), 8))
    return max((reason for reason in reasons if reason), default=None)


def finish(writer: Writer, scope: Scope, declared: Declaration) -> Scope:
    """Done: join the giver's context and its floor; returns the scope, not yet saved.

    Of the control scope nothing is joined: nothing leaves it, so what came is all that there is to account for, and no
    peer can hide from this side what it has not brought.
    """
    if scope.name == CONTROL:
        return scope._replace(ready=True)
    giver = declared.context
    own = writer.dictionary.author(scope.author)
    writer.account(scope.id, giver)
    _drop_provisional(writer, scope, giver)
    if scope.author and giver & Context.of([(own, scope.seq + 1, SEQ_MAX)]):
        scope = scope._replace(author=0, seq=0)  # somebody else wrote under our author: never reuse its numbers
    # together: a context that covers removals which are nowhere any more must say so
    return scope._replace(ready=True, floor=(Context(scope.floor) | declared.floor).data)
