"""All that a file holds, before and after a transaction: so the oracle learns what an engine did by itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests import canonical, model
from tests.simulation import cells
from tests.simulation.cells import EXISTENCE
from tests.simulation.oracle import Violation

from fieldsync.store import KILLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.model import Address, Dot, Name
    from tests.simulation.cells import Cid, Held
    from tests.simulation.oracle import Truth

    from fieldsync.sqlite import SQLiteReader

Place = tuple[str, "Name"]  # an incarnation


class Kept(NamedTuple):
    """A removal that a file keeps, and whether it is of the whole incarnation."""

    scope: str
    dot: Dot
    name: Name
    kills: bool


@dataclass(frozen=True)
class Glance:
    """All that a file holds."""

    rows: dict[str, list[Held]]
    kept: frozenset[Kept]

    @classmethod
    def at(cls, reader: SQLiteReader) -> Glance:
        author, kept, rows = reader.dictionary.author, [], {}
        sql = "SELECT author, seq, inc_author, inc_seq, inc_n, item FROM fs_removal WHERE scope=?"
        for scope in reader.scopes():
            rows[scope.name] = cells.held(reader, scope.id)
            for by, seq, creator, created, n, item in reader._db.execute(sql, (scope.id,)):
                name = model.Name(author(creator), created, n)
                kept.append(Kept(scope.name, (author(by), seq), name, bool(item[0] & KILLS)))
        return cls(rows, frozenset(kept))

    def cells(self, scope: str) -> dict[Cid, bytes]:
        return cells.all_cells(self.rows.get(scope, []))

    def row_of(self, place: Place) -> Held | None:
        """The row in which an incarnation lives."""
        rows = self.rows.get(place[0], ())
        return next((row for row in rows if not row.is_orphan and place[1] in row.record), None)

    def late_rows(self) -> dict[Place, Held]:
        """Cells that are held without their record."""
        orphans = [(scope, row) for scope, rows in self.rows.items() for row in rows if row.is_orphan]
        return {(scope, name): row for scope, row in orphans for name in row.record}

    def late(self) -> dict[Place, set[Cid]]:
        """Their names."""
        return {place: set(row.cells()) for place, row in self.late_rows().items()}


@dataclass
class Settled:
    """One transaction of a hub."""

    hub: str
    is_owner: bool
    wall_ms: int
    before: Glance
    after: Glance
    touched: set[tuple[str, str, str]]  # scope, collection, key
    dots: dict[str, set[Dot]] = field(default_factory=lambda: defaultdict(set))  # of the changes that it made itself

    def lived(self, place: Place) -> bool:
        return self.before.row_of(place) is not None

    def lives(self, place: Place) -> bool:
        return self.after.row_of(place) is not None

    def new(self, scope: str) -> dict[Cid, bytes]:
        before, after = self.before.cells(scope), self.after.cells(scope)
        return {cid: after[cid] for cid in sorted(after.keys() - before.keys(), key=lambda cid: cid[2][1])}

    def gone(self, scope: str) -> set[Cid]:
        return self.before.cells(scope).keys() - self.after.cells(scope).keys()

    def removals(self) -> list[Kept]:
        """Those that it made itself."""
        return sorted(one for one in self.after.kept if one.dot in self.dots.get(one.scope, ()))


def is_register(address: Address) -> bool:
    return not address.kind & (model.SIDE_BY_SIDE | model.PER_AUTHOR) and address != EXISTENCE


def note(truth: Truth, scope: str, done: Settled) -> None:
    """Tell the oracle of a scope what a hub did there by itself."""
    truth.expect_new(done.dots[scope])
    gone, new = done.gone(scope), done.new(scope)
    for dot in done.dots[scope]:
        truth.by_dot.setdefault(dot, [])
    for removal in done.removals():
        if removal.scope == scope:
            some = {cid for cid in gone if cid[0] == removal.name}
            gone -= some
            if removal.kills:
                truth.delete(removal.dot, removal.name, some)
            else:
                truth.remove(removal.dot, some)
    for cid, value in new.items():
        if cid[2] not in done.dots[scope]:
            raise Violation(f"{scope}: {cid} is new, and no change of the hub's")
        replaced = replaced_by(cid, gone)
        born = truth.creation(cid[0], cid[1]) if is_register(cid[1]) and cid[2] != cid[0].dot else []
        truth.write(cid, value, [*replaced, *born], replaced)
        if cid[1].kind == model.COUNTER:
            before = sum(canonical.decode(truth.written[old]) for old in replaced)
            truth.increments.append((cid[2], cid[0], cid[1].field, canonical.decode(value) - before))
    unexplained = gone - {old for cid in new for old in replaced_by(cid, gone)}
    if unexplained:
        raise Violation(f"{scope}: the hub neither replaced nor removed {sorted(unexplained)[:3]}, which went")


def replaced_by(cid: Cid, gone: Iterable[Cid]) -> list[Cid]:
    """Which of the cells that went are where a new one came."""
    name, address, (author, _) = cid
    some = [old for old in gone if old[:2] == (name, address)]
    return [old for old in some if old[2][0] == author] if address.kind & model.PER_AUTHOR else some
