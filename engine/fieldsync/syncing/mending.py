"""Mending a scope of which two replicas hold the same changes and not the same records: damage, or a bug.

Both sides see the mismatch, by the same two settlements, and hold more rounds over the scope (docs/protocol.md,
Mending). First each looks at its own file as `verify` does: what is damaged there is forgotten, and comes again by
difference. Where that finds nothing, all that lives is compared. What lives at one side only, and is covered at the
other, goes: nothing is ever revived. Of a record that lives at both with other cells, one side's goes, to be fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fieldsync import verify
from fieldsync.context import Context
from fieldsync.limits import LOOK_PAUSE_MS, SCAN_ROWS_TARGET
from fieldsync.rebuild import held_rows, weigh
from fieldsync.store import HEADLESS, TrashRow
from fieldsync.syncing import existence, reconcile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.record import Events
    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.store import Reader, Scope, Writer
    from fieldsync.syncing.existence import Known
    from fieldsync.syncing.report import Mended
    from fieldsync.trust.rights import Trust

Place = tuple[int, int]  # collection, row number


# --- the own file ---


def look(replica: Replica, mended: Mended) -> None:
    """Look at a scope for damage, and mend it; not where that was done less than LOOK_PAUSE_MS ago.

    So what a peer can make this side do by saying that it has other records is bounded.
    """
    now_ms = replica.wall_ms()
    with replica.store.reading() as reader:
        scope = reader.scope(mended.scope)
        last_ms = reader.meta(_looked(scope)) if scope is not None else None
        if scope is None or (last_ms is not None and 0 <= now_ms - last_ms < LOOK_PAUSE_MS):
            return
        is_sound = not verify.look_at(reader, scope).fault_count
    with replica.writing() as batch:
        scope = batch.writer.scope(mended.scope)
        if scope is None:
            return
        batch.writer.set_meta(_looked(scope), now_ms)
        if not is_sound:
            report, touched = verify.mend(batch.writer, scope)
            batch.note(scope.name, touched, Context())
            mended.faults, mended.fetching = report.fault_count, report.fetching.get(scope.name, 0)


def _looked(scope: Scope) -> str:
    return f"looked {scope.id}"


# --- both ---


def items(reader: Reader, scope: Scope, dots: Context, key: bytes) -> bytes:
    """What is compared of all that lives: the items of removable cells, and one of each record's content."""
    removable = existence.items(reader, scope, dots, key)
    return existence.united(removable, *(content.item for content in _contents(reader, scope, key)))


class _Content(NamedTuple):
    """What one row holds: its item is the digest of its cells under a key, cut to 64 bits."""

    place: Place
    item: bytes
    shares: Events


def _contents(reader: Reader, scope: Scope, key: bytes) -> Iterator[_Content]:
    for some in held_rows(reader, scope):
        for one in some:
            (shares,), digest = weigh(reader.dictionary, key, [one])
            yield _Content(one.place, digest[reconcile.ITEM_BYTES - 1 :: -1], shares)


def others(reader: Reader, scope: Scope, known: Known) -> list[Place]:
    """The rows here that are other than any at the peer, though all changes in them were compared."""
    theirs = set(reconcile.each(known.alive))
    name = reader.dictionary.author
    return [
        content.place
        for content in _contents(reader, scope, known.key)
        if content.item not in theirs and all(known.dots.covers(name(author), seq) for author, seq, _ in content.shares)
    ]


def check(reader: Reader, scope: Scope, known: Known, trust: Trust) -> None:
    """TooMuch where more is other than at the peer than it may take away."""
    if not trust.may_drop(len(others(reader, scope, known)), reader.count_records(scope.id)):
        raise existence.TooMuch


def give_way(batch: WriteBatch, name: str, known: Known, wall_ms: int) -> int:
    """Drop the records that are others than the peer's, and forget their changes; returns how many.

    The records go to the trash. Their changes, and all that are not here whole, come again by difference.
    """
    writer = batch.writer
    scope = writer.scope(name)
    assert scope is not None
    condemned = others(writer, scope, known)
    if condemned:
        _to_trash(writer, scope, condemned, wall_ms)
        _, touched = verify.mend(writer, scope, frozenset(condemned))
        batch.note(name, touched, Context())
    return len(condemned)


def _to_trash(writer: Writer, scope: Scope, places: list[Place], wall_ms: int) -> None:
    """Keep records; cells without their record are not kept."""
    by_collection: dict[int, list[int]] = {}
    for collection, number in places:
        if collection != HEADLESS:
            by_collection.setdefault(collection, []).append(number)
    for collection, numbers in by_collection.items():
        for at in range(0, len(numbers), SCAN_ROWS_TARGET):
            rows = writer.by_id(collection, numbers[at : at + SCAN_ROWS_TARGET])
            writer.put_trash([TrashRow(0, scope.id, collection, row.key, row.packed, wall_ms) for row in rows])
