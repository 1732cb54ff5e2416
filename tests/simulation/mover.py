"""What a hub does by itself in the transaction that brings a wish to move, or an edit too late: told to the oracle.

The engine says only which changes it made. What they wrote and took away is found by looking at the file before and
after, and each scope's oracle is told so as it is told of what apps write. Whether the hub should have done it is
judged by true causality over all scopes:

- a wish is executed at once; a record moves once, lives on in one place, and reads there what it read;
- what comes too late is written where the record lives by then, each cell once; it replaces what it had truly replaced,
  there or where that came from, and what the record was created with, and nothing else; counters rise by what the
  increments come to that were not counted yet;
- who removed a record too late removes it where it lives, with what it had seen.

What the owner is to remember for that it may forget after a time, or in a disaster: then nothing more is asked of it.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests import canonical, model
from tests.simulation import cells, fields
from tests.simulation.cells import EXISTENCE
from tests.simulation.glance import Glance, Place, Settled, is_register, note
from tests.simulation.oracle import Violation

from fieldsync import moving
from fieldsync.limits import FORWARDS_KEPT_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.model import Address, Dot
    from tests.simulation.cells import Cid, Held
    from tests.simulation.device import Device
    from tests.simulation.oracle import Truth

    from fieldsync.carrying import News

WISH = model.Address("_scope", model.REGISTER)
Far = tuple[str, "Cid"]  # a cell
Came = dict[Place, dict[Place, "Held"]]  # where it is to be written -> where it came -> what came


def wish_of(row: Held) -> str | None:
    return model.read(row.record, *WISH[:2], None)


def what_came(cell: model.Cell) -> tuple[Any, ...]:
    """By what a late cell is known where it was written again; one element may have been added several times."""
    is_element = cell.address.kind & model.SIDE_BY_SIDE and cell.address.kind & model.HAS_SUB
    return (cell.address,) if is_element else (cell.address, cell.value, cell.stamp.time)


class Movers:
    """What all hubs did by themselves."""

    def __init__(self, truth: Callable[[str], Truth]) -> None:
        self._truth = truth
        self.count = 0  # of the transactions in which a hub did something by itself
        self._told: list[Settled] = []
        self._last: dict[str, Glance] = {}  # of each hub's file, when it last settled
        self._made: set[Place] = set()
        self._lineage = Lineage(truth, self._made)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look over the shoulder of each hub, whose store says when it has committed."""
        kept = moving.settle

        def settle(writer: Any, touched: list[Any], owns: Any, wall_ms: int, *rest: Any) -> list[News]:
            names = {known.id: known.name for known in writer.collections()}
            before = writer._store.began_at = Glance.at(writer)
            writer._store.began_with = {
                scope.name: (writer.dictionary.author(scope.author), scope.seq) for scope in writer.scopes()
            }
            news = kept(writer, touched, owns, wall_ms, *rest)
            places = {(one.scope, names[one.collection], one.key) for one in touched if one.after}
            after = Glance.at(writer) if news else before
            done = Settled(writer._store.path, owns(""), wall_ms, before, after, places)
            for some in news:
                done.dots[some.scope] |= cells.dots_of(some.dots)
            writer._store.at_commit(lambda: self._told.append(done))
            return news

        with patch.object(moving, "settle", settle):
            yield

    def forget(self, device: Device) -> None:
        """A device's file is not what it was: nothing more is asked of what it did by itself until now."""
        self.flush()
        if self._last.pop(str(device.path), None) is not None and device.is_owner:
            self._lineage = Lineage(self._truth, self._made)

    def flush(self) -> None:
        """Tell the oracle of what was committed, and judge it."""
        while self._told:
            done = self._told.pop(0)
            self.count += bool(done.dots)
            for scope in done.dots:
                note(self._truth(scope), scope, done)
                self._made |= {(scope, cid[0]) for cid in done.new(scope) if cid[1] == EXISTENCE}
            self._lineage.judge(done, self._last.get(done.hub))
            self._last[done.hub] = done.after


class Lineage:
    """As what records that were moved live on, and what of what was written to them is where."""

    def __init__(self, truth: Callable[[str], Truth], made: set[Place]) -> None:
        self._truth = truth
        self._made = made  # by hubs
        self._heirs: dict[Place, Place] = {}
        self._moved_ms: dict[Place, int] = {}
        self._latest_ms = 0
        self._origins: dict[Far, set[Far]] = defaultdict(set)  # what a cell that the hub wrote stands for
        self._counted: dict[Place, set[Dot]] = defaultdict(set)  # whose increments moved, or followed
        self._followed: set[Far] = set()  # what was written where its record went

    def judge(self, done: Settled, last: Glance | None) -> None:
        """Violation where a hub did not do what it should. last: what was in its file before the transaction."""
        self._latest_ms = max(self._latest_ms, done.wall_ms)
        removed = self._late_removals(done, last) if last and done.is_owner else set()
        came = self._late_cells(done, last, removed) if last and done.is_owner else {}
        self._check_once(done)
        for removal in done.removals():
            if removal.kills and (removal.scope, removal.name) not in removed:
                self._moved(done, (removal.scope, removal.name), came, removed)
        for scope, collection, key in done.touched if done.is_owner else ():
            for row in done.after.rows.get(scope, ()):
                name = canonical.encode([collection, key])
                if not row.is_orphan and row.name == name and wish_of(row) not in (None, scope):
                    raise Violation(f"{scope}: {key!r} stays, though it is to move to {wish_of(row)}")

    def _heir(self, place: Place) -> Place | None:
        """As what an incarnation lives, if it was moved, and if the hub is to remember that."""
        found = None
        while place in self._heirs and self._is_remembered(place):
            found = place = self._heirs[place]
        return found

    def _is_remembered(self, place: Place) -> bool:
        scope, name = self._heirs[place]
        was_committed = (name, EXISTENCE, name.dot) in self._truth(scope).written
        return was_committed and self._latest_ms - self._moved_ms[place] < FORWARDS_KEPT_MS

    def _stands_for(self, far: Far, some: Iterable[Far]) -> bool:
        """Whether a cell is where one of some others came to."""
        return not self._origins[far].isdisjoint(some)

    # --- moves ---

    def _moved(self, done: Settled, place: Place, came: Came, removed: set[Place]) -> None:
        """A record was moved: note its heir, which has to hold what it held, but for what was removed too late."""
        row = done.before.row_of(place)
        if row is not None:
            left = {name: cells for name, cells in row.record.items() if (place[0], name) not in removed}
            row = replace(row, record=left)
        is_late = row is not None and any((place[0], name) in came for name in row.record)
        if row is None or (wish_of(row) in (None, place[0]) and not is_late):
            return  # it came and went in this transaction; or was removed where it came from, longer ago than is asked
        born = {(scope, cid[0]) for scope in done.dots for cid, value in done.new(scope).items() if value == row.name}
        heirs = [heir for heir in born if heir[0] == wish_of(row)] if len(born) > 1 else list(born)
        if not heirs and not (is_late and born) and place not in self._made:  # of several, a late wish tells which
            raise Violation(f"{place} was to move to {wish_of(row)} and lives nowhere")
        if len(heirs) != 1:
            return
        if place in self._heirs and self._is_remembered(place) and self._heirs[place] != heirs[0]:
            raise Violation(f"{place} moved to {self._heirs[place]}, and again to {heirs[0]}")
        self._heirs[place], self._moved_ms[place] = heirs[0], done.wall_ms
        self._check_moved(done, place, row, heirs[0], is_late)
        for name in row.record:
            self._note_written(done, (place[0], name), heirs[0], came.get((place[0], name), {}))

    def _check_moved(self, done: Settled, place: Place, row: Held, heir: Place, is_late: bool) -> None:
        scope, truth, there = place[0], self._truth(place[0]), done.after.row_of(heir)
        assert there is not None
        for total in row.cells():
            if total[0] == place[1] and total[1].kind == model.COUNTER:
                self._counted[place] |= {cid[2] for cid in (total, *truth.replaced[total])}
        for _, name, cell in model.carried(row.record):
            for cid, value in there.cells().items():
                if (cid[0], cid[1], value) == (heir[1], cell.address, cell.value):
                    old = scope, (name, cell.address, cell.stamp.dot)
                    self._origins[heir[0], cid] |= {old} | self._origins[old]
        was = fields.read_all(row.record, truth.rank)
        now = fields.read_all({heir[1]: there.record[heir[1]]}, self._truth(heir[0]).rank)
        if len(row.record) > 1:  # of several texts, made apart, one was read; all of them move
            was, now = ({name: some[name] for name in some.keys() - fields.KINDS.keys()} for some in (was, now))
        if was != now and not is_late:
            raise Violation(f"{row.key!r} read {was} in {scope}, and where it moved {now}")

    # --- what comes too late ---

    def _check_once(self, done: Settled) -> None:
        """What came late is written once where its record went: a hub that has done so takes it away where it came."""
        followed = {
            (one.scope, cid)
            for one in done.removals()
            if not one.kills
            for cid in done.gone(one.scope)
            if cid[0] == one.name
        }
        if twice := followed & self._followed:
            raise Violation(f"{sorted(twice)[:3]} came late, and was followed twice")
        self._followed |= followed

    def _late_removals(self, done: Settled, last: Glance) -> set[Place]:
        """The incarnations that were removed elsewhere by who had not heard of their move."""
        saw: dict[Place, set[Far]] = defaultdict(set)
        for scope, dot, name, kills in done.before.kept - last.kept:
            heir = self._heir((scope, name)) if kills else None
            if heir and done.lived(heir):
                saw[heir] |= {(scope, cid) for cid in self._truth(scope).removed[dot]}
        for heir, some in saw.items():
            if done.lives(heir):
                raise Violation(f"{heir} was removed where it came from, and lives")
            row, scope = done.before.row_of(heir), heir[0]
            left = done.after.late().get(heir, frozenset())
            for cid in row.cells() if row else ():
                if cid[0] == heir[1] and is_register(cid[1]):
                    was_seen = cid[2] == heir[1].dot or self._stands_for((scope, cid), some)
                    if was_seen == (cid in left):
                        raise Violation(f"{scope}: {cid} is {'left' if was_seen else 'lost'}, whoever removed the rest")
        return set(saw)

    def _late_cells(self, done: Settled, last: Glance, removed: set[Place]) -> Came:
        """What came too late, by the incarnations to which it is to be written, and by those that they were."""
        known, left = last.late(), done.after.late()
        came: Came = defaultdict(dict)
        for place, row in done.before.late_rows().items():
            heir = self._heir(place)
            if heir is None or heir in removed or not done.lived(heir) or row.cells().keys() <= known.get(place, set()):
                continue
            if row.cells().keys() & left.get(place, set()):
                raise Violation(f"{place}: what came late stays aside, though it lives on as {heir}")
            came[heir][place] = row
        for heir, rows in came.items():
            if done.lives(heir):
                self._check_counted(done, heir, rows)
                self._check_replaced(done, heir, rows)
                self._note_written(done, heir, heir, rows)
        return came

    def _note_written(self, done: Settled, heir: Place, now: Place, rows: dict[Place, Held]) -> None:
        """All that came is there, with the times that it had. now: as what it lives that it was written to."""
        there, new, written = done.after.row_of(now), done.new(now[0]), defaultdict(list)
        for cell in there.record[now[1]].cells if there else ():
            cid = now[1], cell.address, cell.stamp.dot
            if cid in new:
                written[what_came(cell)].append(cid)
        for (scope, name), row in rows.items():
            for cell in row.record[name].cells:
                old = scope, (name, cell.address, cell.stamp.dot)
                found = written[what_came(cell)]
                if now == heir and not found and not cell.address.kind & model.PER_AUTHOR:
                    raise Violation(f"{old} came late, and is not at {heir}")
                for cid in found:
                    self._origins[now[0], cid] |= {old} | self._origins[old]

    def _check_counted(self, done: Settled, heir: Place, rows: dict[Place, Held]) -> None:
        """Counters rise by the increments that were not counted yet."""
        due: dict[str, float] = defaultdict(int)
        for place, row in rows.items():
            truth = self._truth(place[0])
            for total in row.cells():
                if total[1].kind == model.COUNTER:
                    fresh = {cid[2] for cid in (total, *truth.replaced[total])} - self._counted[place]
                    self._counted[place] |= fresh
                    due[total[1].field] += sum(
                        amount
                        for dot, name, counter, amount in truth.increments
                        if (name, counter) == (place[1], total[1].field) and dot in fresh
                    )
        for dot, name, counter, amount in self._truth(heir[0]).increments:
            if name == heir[1] and dot in done.dots[heir[0]]:
                due[counter] -= amount
        if any(due.values()):
            raise Violation(f"{heir}: increments that came late are miscounted by {dict(due)}")

    def _check_replaced(self, done: Settled, heir: Place, rows: dict[Place, Held]) -> None:
        """Registers that were there went if one that came late had truly replaced them, or what they stand for."""
        saw: dict[Address, set[Far]] = defaultdict(set)
        for (scope, name), row in rows.items():
            for cid in row.cells():
                if is_register(cid[1]):
                    some = {*self._truth(scope).replaced[cid], (name, cid[1], name.dot)}
                    saw[cid[1]] |= {(scope, old) for old in some}
        there, gone = done.before.row_of(heir), done.gone(heir[0])
        for cid in there.cells() if there else ():
            if cid[0] == heir[1] and is_register(cid[1]):
                is_due = cid[1] in saw and (cid[2] == heir[1].dot or self._stands_for((heir[0], cid), saw[cid[1]]))
                if is_due != (cid in gone):
                    what = "stays, though what came late had seen it" if is_due else "went, though nobody had seen it"
                    raise Violation(f"{heir[0]}: {cid} {what}")
