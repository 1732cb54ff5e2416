"""Looking at one scope of a file: what is wrong with its rows, its context and its index, and what may be lost.

A row is sound if it comes out the same after the way it would take to a peer: encoded as changes, decoded, merged. What
follows from the cells is computed again (rebuild.py) and compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldsync.changes import REMOVING
from fieldsync.context import Context
from fieldsync.entries import expand
from fieldsync.errors import Corrupt, DecodeError
from fieldsync.limits import FAULTS_KEPT, SEQ_MAX
from fieldsync.rebuild import Held, Tally, has_facts, held_rows, indexed, is_behind, misfits
from fieldsync.sound import UNREADABLE, are_sound, travel_removals
from fieldsync.store import HEADLESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.rebuild import Indexed
    from fieldsync.store import Dot, Entry, Incarnation, Reader, Scope

REBUILT = "rebuilt from the cells"
FETCHED = "fetched back by the next syncs"
LEFT = "cannot be mended from this file alone"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a file."""

    scope: str  # empty: the file as a whole
    collection: str  # empty: no one record
    key: str
    what: str
    remedy: str  # what a repair makes of it: REBUILT, FETCHED or LEFT

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.scope, self.collection, self.key) if part)
        return f"{place}: {self.what}" if place else self.what


@dataclass(slots=True)
class VerifyReport:
    """What a look at a whole file found, and what a repair made of it."""

    scopes: int = 0
    records: int = 0
    changes: int = 0
    faults: list[Fault] = field(default_factory=list)  # the first of them
    fault_count: int = 0
    repaired: bool = False  # a repair was asked for; `left` tells what it could not mend
    left: list[Fault] = field(default_factory=list)
    fetching: dict[str, int] = field(default_factory=dict)  # scope -> records that come back with the next syncs
    unproven: list[str] = field(
        default_factory=list
    )  # scopes whose digest had to be computed again: a sync compares it

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return not self.left if self.repaired else not self.fault_count

    @property
    def is_mendable(self) -> bool:
        """Whether there is anything to mend, and no damage to the file as a whole: to such pages nothing is written."""
        return self.fault_count > 0 and not any(fault.remedy == LEFT and not fault.scope for fault in self.faults)

    def add(self, fault: Fault) -> None:
        """Count a fault; the first are kept, and those that a repair leaves."""
        self.fault_count += 1
        if len(self.faults) < FAULTS_KEPT or fault.remedy == LEFT:
            self.faults.append(fault)


@dataclass(slots=True)
class Loss:
    """What of one scope has to go, and what may have gone with it."""

    scope: Scope
    context: Context = field(default_factory=Context)  # as far as it can be read
    rows: dict[tuple[int, int], Held] = field(default_factory=dict)  # damaged, by place
    strays: set[tuple[int, int]] = field(default_factory=set)  # places of rows whose scope is not known
    dots: list[Dot] = field(default_factory=list)  # of changes that lost something
    removals: list[tuple[Dot, Incarnation]] = field(default_factory=list)  # those kept that are wrong
    whole: list[tuple[int, int, int]] = field(default_factory=list)  # author id, low, high: changes that lost nothing
    is_index_damaged: bool = False
    is_context_damaged: bool = False
    is_unreadable: bool = False
    is_sum: bool = False  # whether the digest is that of the cells
    is_doubted: bool = False  # a replica with the same changes has others: so the index is believed where cells lack
    condemned: frozenset[tuple[int, int]] = frozenset()  # places of rows that have to go, however sound

    @property
    def is_any(self) -> bool:
        """Whether the context has to tell of it."""
        return bool(self.rows or self.strays or self.dots or self.is_context_damaged)

    def keep(self, dot: Dot) -> None:
        """Note a change of which all is here."""
        if self.whole and self.whole[-1][0] == dot[0] and self.whole[-1][2] == dot[1] - 1:
            self.whole[-1] = (*self.whole[-1][:2], dot[1])
        else:
            self.whole.append((*dot, dot[1]))


class Examiner:
    """Looks at one scope."""

    def __init__(
        self, reader: Reader, scope: Scope, loss: Loss, report: VerifyReport, tell: Callable[[int], object] | None
    ) -> None:
        self._reader = reader
        self._scope = scope
        self._loss = loss
        self._report = report
        self._tell = tell
        self._tally = Tally(reader.dictionary, scope)
        self._misfits: list[Held] = []
        self._orphans: dict[Dot, dict[int, Held]] = {}  # by the dot and the number of their incarnation
        self._unknown: set[tuple[int, int]] = set()  # places of cells that the index does not know
        self._lacking: set[tuple[int, int]] = set()  # places of which the index knows more cells than are there
        self._surplus: set[tuple[int, int]] = set()  # places of changes that have more cells than the index counts
        self._short: set[tuple[int, int]] = set()  # and fewer

    def fault(self, what: str, remedy: str, row: Held | None = None) -> None:
        """Report what is wrong with a row, or with the scope."""
        collection, key = row.name if row and row.name else ("", "")
        self._report.add(Fault(self._scope.name, collection, key, what, remedy))

    def look(self) -> None:
        """Everything, in the order in which one thing tells of the next."""
        for some in held_rows(self._reader, self._scope):
            self._look_at(some)
        is_sum = self._loss.is_sum = self._tally.digest == self._scope.digest
        self._judge_columns(is_sum)
        self._look_at_context()
        gone = self._look_at_index(is_sum)
        if not is_sum and not gone and not self._loss.rows:
            self.fault(
                "the digest is not that of the records: it was damaged itself, or a value that still reads well was; "
                "the next sync with an undamaged replica tells which",
                LEFT,
            )

    # --- rows ---

    def _look_at(self, some: list[Held]) -> None:
        condemned = self._loss.condemned
        sound = self._sound([one for one in some if one.place not in condemned])
        for one in some if condemned else ():
            if one.place in condemned:
                self._lose(one, "the record is not what others made of the same changes")
        self._tally.add(sound)
        for one in sound:
            if one.orphan:
                self._orphans.setdefault(one.orphan[:2], {})[one.orphan[2]] = one._replace(packed=b"")
        self._misfits += [one._replace(packed=b"") for one in misfits(self._reader, sound)]
        self._report.records += len(some) if some and not some[0].orphan else 0
        if self._tell:
            self._tell(len(some))

    def _sound(self, some: list[Held]) -> list[Held]:
        """Those whose cells are as they have to be; the others are lost."""
        try:
            if are_sound(self._reader, self._scope, some):
                return some
        except UNREADABLE:
            pass
        if len(some) > 1:
            half = len(some) // 2
            return self._sound(some[:half]) + self._sound(some[half:])
        for one in some:
            what = "cells without their record are damaged" if one.orphan else "the record's cells are damaged"
            self._lose(one, what)
        return []

    def _lose(self, row: Held, what: str) -> None:
        self.fault(what, FETCHED, row)
        self._loss.rows[row.place] = row

    def _judge_columns(self, is_sum: bool) -> None:
        """Where the digest is not that of the cells either, it is the cells that are wrong."""
        for row in self._misfits:
            if is_sum or self._loss.rows:
                self.fault("the columns do not show what the record's cells say", REBUILT, row)
        if not is_sum and not self._loss.rows:
            for row in self._misfits:
                self._lose(row, "the record's cells are damaged: neither its columns nor the digest agree with them")

    # --- contexts ---

    def _look_at_context(self) -> None:
        reader, scope, loss = self._reader, self._scope, self._loss
        good, bad = _canonical(reader.intervals(scope.id), reader.dictionary.author_count)
        name = reader.dictionary.author
        loss.context = Context.of((name(author), low, high) for author, low, high in good)
        for author in bad:
            self.fault(f"what is known of author {author} is damaged in the context", FETCHED)
        own = [(low, high) for author, low, high in good if author == scope.author]
        if scope.author and scope.author not in bad and own != ([(1, scope.seq)] if scope.seq else []):
            self.fault("the own author's changes have gaps, or not the number of the last", FETCHED)
            bad.append(scope.author)
        loss.is_context_damaged = bool(bad)
        if not is_context(scope.floor):
            raise Corrupt("the floor is damaged")
        if Context(scope.floor) - loss.context:
            self.fault("the floor names removals that were never seen", FETCHED)
            loss.is_context_damaged = True
        for author, seq, giver in reader.givers(scope.id):
            if not is_context(giver) or loss.context.covers(name(author), seq):
                self.fault("a change is marked as provisional that is none, or under a giver who is not known", FETCHED)
                loss.dots.append((author, seq))

    # --- the index ---

    def _look_at_index(self, is_sum: bool) -> int:
        """How many cells the index counts that are not here, where the digest says that something is amiss."""
        loss = self._loss
        name = self._reader.dictionary.author
        known = Context.of((name(author), seq, seq) for author, seq, _ in self._reader.givers(self._scope.id))
        known = known | loss.context
        gone = 0
        is_amiss = self._loss.is_doubted or not is_sum
        for found in indexed(self._reader, self._scope, self._tally):
            one = self._without_impostors(found)
            self._report.changes += 1
            is_known = known.covers(name(one.dot[0]), one.dot[1])
            if not is_known:
                self.fault(f"{self._named(one)} is held and not accounted for", FETCHED)
                loss.dots.append(one.dot)
            self._look_at_removals(one, is_known)
            self._look_at_orphans(one)
            self._look_at_change(one, is_sum)
            live = one.living.cells if one.living else len(one.removals)
            if one.change and one.change.live > live and (loss.rows or is_amiss):
                loss.dots.append(one.dot)
                gone += one.change.live - live
            elif one.change and live == one.change.parts:
                loss.keep(one.dot)
            if is_amiss:
                self._compare_places(one, live, is_known)
        self._judge_places()
        if gone and not loss.rows:
            self.fault(f"up to {gone} cells are gone that the change index counts", FETCHED)
        return gone

    def _look_at_orphans(self, one: Indexed) -> None:
        """Cells that are held without their record, though it is here."""
        orphans = self._orphans.get(one.dot, {})
        for entry, _ in one.living.born if one.living and orphans else ():
            if entry.n in orphans:
                self._lose(orphans[entry.n], "cells are held apart from their record, which is here")

    def _compare_places(self, one: Indexed, live: int, is_known: bool) -> None:
        """Note rows in which a change lives unknown to the index, or too much, and those in which it lacks cells."""
        here = places(one.living.entries) if one.living else set()
        told = places(one.change.entries) if one.change and not one.change.flags & REMOVING else set()
        self._unknown |= here - told
        if one.change is None and not is_known:
            self._lacking |= here  # of a change that was never taken
        elif one.change and one.change.live > live:
            self._lacking |= told - here
            self._short |= told
        elif one.change and one.change.live < live:
            self._surplus |= here

    def _judge_places(self) -> None:
        """Rows that, by the index, lack cells of one change and have too many of another: their names are damaged."""
        self._lose_rows(self._unknown & self._lacking | (self._unknown | self._surplus) & self._short)

    def _without_impostors(self, one: Indexed) -> Indexed:
        """A change of removals has no cells: where log and index agree on it, they are those of a damaged record."""
        is_sure = one.change is not None and one.change.flags & REMOVING and one.is_readable
        kept = {removal[:3] for removal in one.removals}
        if not (one.living and kept and is_sure and _named_by(one) == kept):
            return one
        self._lose_rows(places(one.living.entries))
        return one._replace(living=None)

    def _lose_rows(self, lost: set[tuple[int, int]]) -> None:
        names = {row.id: row.name for row in self._reader.collections()}
        for collection, number in sorted(lost - self._loss.rows.keys()):
            if collection == HEADLESS:
                self._lose(Held(HEADLESS, number, None, b"", (0, 0, 0)), "cells without their record are damaged")
            else:
                for row in self._reader.by_id(collection, [number]):
                    held = Held(collection, number, (names[collection], row.key), b"", None)
                    self._lose(held, "the record's cells are damaged: they are of changes that did not write it")

    def _look_at_change(self, one: Indexed, is_sum: bool) -> None:
        loss = self._loss
        if one.change is None:
            self.fault(f"the change index does not know {self._named(one)}, of which something is here", FETCHED)
        elif (one.living or one.removals) and not has_facts(one):
            self.fault(f"what the change index says of {self._named(one)} cannot be", FETCHED)
        else:
            self._look_at_births(one, is_sum)
            if is_behind(one) and (one.living or one.removals or not one.is_readable):
                self.fault(f"the change index leaves out a part of {self._named(one)}, or miscounts it", REBUILT)
                loss.is_index_damaged = True
            return
        loss.dots.append(one.dot)
        loss.is_index_damaged = True

    def _look_at_births(self, one: Indexed, is_sum: bool) -> None:
        """Records that their change did not create at that time; where all say so, the index is wrong (is_behind)."""
        times = {time for _, time in one.living.born} if one.living else set()
        assert one.change is not None
        if times <= {one.change.time} or (len(times) == 1 and is_sum):
            return
        names = {row.id: row.name for row in self._reader.collections()}
        for entry, time in one.living.born if one.living else ():
            if time != one.change.time and (entry.collection, entry.row) not in self._loss.rows:
                for row in self._reader.by_id(entry.collection, [entry.row]):
                    held = Held(entry.collection, row.id, (names[entry.collection], row.key), b"", None)
                    self._lose(held, "the record's cells are damaged: it was not created when its change was made")

    def _look_at_removals(self, one: Indexed, is_known: bool) -> None:
        """Each kept removal must travel, be of a change that was taken, and be there if the index names it."""
        kept = {removal[:3] for removal in one.removals}
        named = kept
        if one.change and one.change.flags & REMOVING and one.is_readable:
            named = _named_by(one)
        if kept and (one.living or not (one.change or is_known)):
            what, wrong = "holds removals that it cannot have made", kept
        elif not travel_removals(self._reader, one):
            what, wrong = "holds a removal that is damaged", kept
        elif named - kept:
            what, wrong = "lost removals that the change index names", kept - named
        else:
            return
        self.fault(f"{self._named(one)} {what}", FETCHED)
        self._loss.dots.append(one.dot)
        self._loss.removals += [(one.dot, incarnation) for incarnation in sorted(wrong)]

    def _named(self, one: Indexed) -> str:
        return f"change {one.dot[1]} of author {self._reader.dictionary.author(one.dot[0]).hex()}"


def _named_by(one: Indexed) -> set[Incarnation]:
    """The incarnations that the index says a change of removals names."""
    entries = one.change.entries if one.change else []
    return {(run.collection, run.n, run.row + i) for run in entries for i in range(run.count)}


def is_context(data: bytes | None) -> bool:
    """Whether bytes are a context."""
    try:
        Context(data).check()  # type: ignore[arg-type]  # what is no context raises
    except (DecodeError, TypeError):
        return False
    return True


def _canonical(rows: list[tuple[int, int, int]], authors: int) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The intervals of authors all of whose intervals can be, and the other authors."""
    bad, last = [], (0, 0)
    for author, low, high in rows:
        below = last[1] + 1 if last[0] == author else 0
        if not (0 < author < authors and below < low <= high <= SEQ_MAX):
            bad.append(author)
        last = author, high
    return [row for row in rows if row[0] not in bad], sorted(set(bad))


def places(entries: list[Entry]) -> set[tuple[int, int]]:
    """The rows that entries name: (collection, number) each."""
    return {(entry.collection, entry.row) for entry in expand(entries)}
