"""Verifying a file: every record and all that follows from it; and mending what can be mended without being made up.

What follows from the cells is computed again from them (rebuild.py). A record whose own cells are damaged is dropped,
and the dots of all changes that may have lived in it leave the scope's context: whoever still holds them streams them
again, and nobody is told that they are held here. An own author whose scope lost anything is never used again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fieldsync.apply import Touched
from fieldsync.changes import REMOVING
from fieldsync.context import Context
from fieldsync.examine import (
    FETCHED,
    LEFT,
    REBUILT,
    Examiner,
    Fault,
    Loss,
    VerifyReport,
    places,
)
from fieldsync.limits import DAMAGE_MESSAGES_MAX
from fieldsync.rebuild import rebuild
from fieldsync.sound import UNREADABLE
from fieldsync.store import HEADLESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.store import Dot, Reader, Scope, Writer


def verify(reader: Reader, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
    """Look at all of a file, changing nothing. progress(done, total) is called with numbers of rows."""
    report = VerifyReport()
    _look(reader, report, _told(reader, progress, passes=1), _damage(reader))
    return report


def repair(writer: Writer, progress: Callable[[int, int], object] | None = None) -> tuple[VerifyReport, list[Touched]]:
    """Look at all of a file, mend what can be mended, and look again. Also gives the records that were dropped.

    Only for a file of which a report says that it is mendable.
    """
    report = VerifyReport(repaired=True)
    tell = _told(writer, progress, passes=3)
    damage = _damage(writer)
    if damage:
        writer.reindex()  # before rows are looked for by an index that leaves some out
    losses = _look(writer, report, tell, damage)
    readable = [loss for loss in losses if not loss.is_unreadable]
    touched = [one for loss in readable for one in _drop(writer, loss)]
    writer.delete_strays()
    names = [loss.scope.name for loss in readable]
    rebuild(writer, [scope for scope in writer.scopes() if scope.name in names], tell)
    for name in names:
        _admit(writer, name)
    report.unproven = [loss.scope.name for loss in readable if not loss.is_sum]
    report.fetching = {loss.scope.name: len(loss.rows) for loss in readable if loss.rows}
    after = VerifyReport()
    _look(writer, after, tell, _damage(writer))
    report.left = list(dict.fromkeys([*(fault for fault in report.faults if fault.remedy == LEFT), *after.faults]))
    return report, touched


def look_at(reader: Reader, scope: Scope) -> VerifyReport:
    """Look at one scope of which a replica with the same changes says that its records are others."""
    report = VerifyReport()
    _examine(reader, Loss(scope, is_doubted=True), report)
    return report


def mend(
    writer: Writer, scope: Scope, condemned: frozenset[tuple[int, int]] = frozenset()
) -> tuple[VerifyReport, list[Touched]]:
    """Repair one scope as `repair` does all; also drop the rows at those places, to be fetched again."""
    report = VerifyReport(repaired=True)
    loss = Loss(scope, is_doubted=True, condemned=condemned)
    _examine(writer, loss, report)
    if loss.is_unreadable:
        return report, []
    touched = _drop(writer, loss)
    rebuild(writer, [one for one in writer.scopes() if one.id == scope.id])
    _admit(writer, scope.name)
    if loss.rows:
        report.fetching[scope.name] = len(loss.rows)
    return report, touched


def _told(reader: Reader, progress: Callable[[int, int], object] | None, passes: int) -> Callable[[int], object] | None:
    """What adds up numbers of rows for a progress."""
    if progress is None:
        return None
    done, total = 0, 0
    with suppress(*UNREADABLE):
        total = reader.count_rows() * passes

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, max(done, total))

    return tell


def _damage(reader: Reader) -> list[Fault]:
    """What SQLite finds, of which it mends only its indexes."""
    texts = reader.damage(DAMAGE_MESSAGES_MAX)
    is_of_index = [" index " in text and "page" not in text for text in texts]
    return [
        Fault("", "", "", f"SQLite: {' '.join(text.split())}", REBUILT if mends else LEFT)
        for text, mends in zip(texts, is_of_index, strict=True)
    ]


def _look(
    reader: Reader, report: VerifyReport, tell: Callable[[int], object] | None, damage: list[Fault]
) -> list[Loss]:
    for fault in damage:
        report.add(fault)
    strays: list[tuple[int, int]] = []
    with suppress(*UNREADABLE):  # where it cannot be told, scopes cannot be read either
        strays, others = reader.strays()
        if strays or others:
            report.add(Fault("", "", "", f"{len(strays) + others} rows belong to no scope", FETCHED))
    losses = []
    for scope in reader.scopes():
        losses.append(Loss(scope, strays=set(strays)))
        _examine(reader, losses[-1], report, tell)
    report.scopes = len(losses)
    return losses


def _examine(reader: Reader, loss: Loss, report: VerifyReport, tell: Callable[[int], object] | None = None) -> None:
    examiner = Examiner(reader, loss.scope, loss, report, tell)
    try:
        examiner.look()
    except UNREADABLE as error:
        loss.is_unreadable = True
        examiner.fault(f"cannot be read to its end ({error})", LEFT)


def _drop(writer: Writer, loss: Loss) -> list[Touched]:
    """Take what is damaged out of a scope, and claim only those changes further on that are here whole.

    Of the others nobody can tell what was lost with the record: a change that replaced or removed them may have gone
    too, unsent. Streams that run into the scope end, for they were told of a context that holds no longer.
    """
    if not loss.is_any:
        return []
    name = writer.dictionary.author
    holes = Context.of((name(author), seq, seq) for author, seq in _named_holes(writer, loss))
    whole = Context.of((name(author), low, high) for author, low, high in loss.whole)
    context = (loss.context - holes) & whole
    floor = Context(loss.scope.floor) & context  # who forgot the same removals is made to compare what lives
    writer.set_context(loss.scope.id, context)
    writer.save_scope(loss.scope._replace(author=0, seq=0, taker=b"", floor=floor.data))
    writer.delete_removals(loss.scope.id, loss.removals)
    touched = []
    for (collection, number), row in loss.rows.items():
        if collection == HEADLESS:
            writer.delete_orphans([number])
        else:
            writer.delete_rows(collection, [number])
            touched.append(Touched(collection, loss.scope.name, row.name[1] if row.name else "", True, False))
    return touched


def _named_holes(writer: Writer, loss: Loss) -> Iterable[Dot]:
    yield from loss.dots
    gone = loss.rows.keys() | loss.strays
    for change, _ in writer.indexed(loss.scope.id) if gone else ():
        if not change.flags & REMOVING and not gone.isdisjoint(places(change.entries)):
            yield change.author, change.seq


def _admit(writer: Writer, name: str) -> None:
    """Mark as provisional, under nobody's context, what is held and not accounted for: any giver sends it again."""
    scope = writer.scope(name)
    assert scope is not None
    author = writer.dictionary.author
    context = writer.context(scope.id)
    # those of a giver too: it would not send again what of them was lost
    writer.drop_provisional(scope.id, [(author(number), seq) for number, seq, _ in writer.givers(scope.id)])
    dots = ((author(change.author), change.seq) for change, _ in writer.indexed(scope.id))
    writer.put_provisional(scope.id, [dot for dot in dots if not context.covers(*dot)], Context())
