"""Following records that were moved with what was written to them elsewhere before that was known there.

It comes as cells without their record. The hub writes them again where the record lives now, as concurrent with what
was written there, counters as differences, and dismisses them where they came. A late removal removes the record where
it lives now; what was written to it there stays in the ledger. So does what comes when the hub has forgotten the move.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fieldsync import carrying, codec, record
from fieldsync.apply import Arrival, Target
from fieldsync.carrying import News
from fieldsync.changes import REMOVING
from fieldsync.limits import MOVED_BYTES_MAX, MOVES_FOLLOWED_MAX
from fieldsync.store import HEADLESS, KILLS
from fieldsync.transaction import LocalChange
from fieldsync.types import PER_AUTHOR, SIDE_BY_SIDE, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.store import Forward, Incarnation, Late, OrphanRow, Row, Writer

T = TypeVar("T")
K = TypeVar("K")
Place = tuple[str, int, str]  # scope, collection, key
KILLED = bytes([KILLS, 0])  # a removal of an incarnation: what was written to it since its creation stays, headless


def follow(writer: Writer, wall_ms: int, mint: Callable[[], bytes]) -> list[News]:
    """Write what a transaction brought too late where it belongs now."""
    headless, killed = writer.take_late()
    if not (headless or killed) or not writer.has_forwards():
        return []
    return _Follower(writer, wall_ms, mint).follow(headless, killed)


class _Heir(NamedTuple):
    """As what an incarnation that was moved lives on."""

    place: Place
    row: Row
    incarnation: Incarnation


@dataclass(slots=True)
class _Late:
    """What came too late for one incarnation, which lives on elsewhere."""

    heir: _Heir
    orphans: list[OrphanRow] = field(default_factory=list)
    amounts: dict[int, Any] = field(default_factory=dict)  # counter's field id -> by how much it rises
    forwards: list[Forward] = field(default_factory=list)  # with what is counted then
    counts: bool = True  # whether there is a number for each
    weight: int = 0  # in bytes, with what counters come to

    @property
    def packed(self) -> bytes:
        """All that came."""
        return b"".join([orphan.packed for orphan in self.orphans])

    @property
    def living(self) -> bytes:
        """The incarnation for which it came."""
        return record.incarnation(self.heir.row.packed, self.heir.incarnation) or b""

    @property
    def increments(self) -> tuple[tuple[int, Any], ...]:
        """What counters rise by, as the kernel takes it."""
        return tuple((number, amount) for number, amount in self.amounts.items() if amount)


class _Follower:
    """One transaction of a hub."""

    def __init__(self, writer: Writer, wall_ms: int, mint: Callable[[], bytes]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._mint = mint
        self._names = {known.id: known.name for known in writer.collections()}

    def follow(self, headless: list[Late], killed: list[Late]) -> list[News]:
        """Removals first: what was removed is not written again."""
        scopes = {scope.id: scope.name for scope in self._writer.scopes()}
        news: list[News] = []
        for number, some in _grouped(killed, lambda late: late.scope).items():
            news += self._remove(number, [late.incarnation for late in some])
        for number, some in _grouped(headless, lambda late: late.scope).items():
            news += self._write(number, scopes[number], [late.incarnation for late in some])
        return news

    def _heir(self, forward: Forward) -> _Heir | None:
        """As what an incarnation that was moved lives now, along the chain of its moves; None where it does not."""
        for _ in range(MOVES_FOLLOWED_MAX):
            scope = self._writer.scope(forward.target)
            if scope is None:
                return None
            further = self._writer.forward(scope.id, forward.heir)
            if further is None:
                break
            forward = further
        else:
            return None
        for row in self._writer.by_key(forward.collection, scope.id, [forward.key]):
            (living,) = record.incarnations(self._writer.dictionary, [row.packed])
            if forward.heir in living:
                return _Heir((scope.name, forward.collection, forward.key), row, forward.heir)
        return None

    # --- removals ---

    def _remove(self, source: int, incarnations: list[Incarnation]) -> list[News]:
        """Remove records that were moved from a scope, and removed by who had not heard of that, where they live."""
        found: dict[Place, dict[Incarnation, _Heir]] = defaultdict(dict)
        for incarnation in incarnations:
            forward = self._writer.forward(source, incarnation)
            heir = self._heir(forward) if forward else None
            if heir is not None:
                self._writer.drop_forward(source, incarnation)
                found[heir.place][heir.incarnation] = heir
        return [
            self._kill(target, some)
            for target, every in _grouped(found.values(), _scope_of).items()
            for some in carrying.batches(every, lambda heirs: len(KILLED) * len(heirs))
        ]

    def _kill(self, target: str, rows: list[dict[Incarnation, _Heir]]) -> News:
        targets = []
        for heirs in rows:
            one = next(iter(heirs.values()))
            _, collection, key = one.place
            removals = tuple((*incarnation, KILLED) for incarnation in heirs)
            targets.append(Target(collection, self._names[collection], key, one.row, removals=removals))
        return self._land_removals(target, targets)

    def _land_removals(self, scope_name: str, targets: list[Target]) -> News:
        change = LocalChange(self._writer, self._writer.enter(scope_name, ready=True))
        scope = change.begin(self._wall_ms, self._mint)
        scope = scope._replace(seq=scope.seq + 1)
        every = [removal for target in targets for removal in target.removals]
        arrival = Arrival((scope.author, scope.seq), scope.time, REMOVING, len(every), every)
        return News(scope_name, change.put(scope, targets, [arrival]), change.dots)

    # --- cells ---

    def _write(self, source: int, name: str, incarnations: list[Incarnation]) -> list[News]:
        """Write what came too late for records that were moved from a scope where they live now."""
        late = [one for one in self._gather(source, incarnations) if self._can_be_written(one)]
        rows = _grouped(late, lambda one: one.heir.place).values()
        news = [
            one
            for target, every in _grouped(rows, lambda some: some[0].heir.place[0]).items()
            for some in carrying.batches(every, lambda some: sum(one.weight for one in some))
            for one in self._write_again(target, [one for row in some for one in row])
        ]
        for one in late:
            self._writer.put_forwards(source, one.forwards)
        orphans = [orphan for one in late for orphan in one.orphans]
        return news + [self._dismiss(name, some) for some in carrying.batches(orphans, self._weight)]

    def _weight(self, orphan: OrphanRow) -> int:
        return carrying.weight(self._writer.dictionary, orphan.packed)

    def _gather(self, source: int, incarnations: list[Incarnation]) -> Iterable[_Late]:
        found: dict[tuple[Place, Incarnation], _Late] = {}
        for orphan in self._writer.orphans(source, incarnations) if incarnations else ():
            forward = self._writer.forward(source, orphan.incarnation)
            heir = self._heir(forward) if forward else None
            if forward is None or heir is None:
                continue  # what was edited lives no more: that is the ledger's
            late = found.setdefault((heir.place, heir.incarnation), _Late(heir))
            late.orphans.append(orphan)
            try:
                self._count(forward, orphan, late)
            except ArithmeticError:  # infinities that cancel each other
                late.counts = False
        return found.values()

    def _count(self, forward: Forward, orphan: OrphanRow, late: _Late) -> None:
        """Note by how much late totals differ from those that are counted."""
        dictionary = self._writer.dictionary
        came = carrying.totals(dictionary, [orphan.packed])[0].get(orphan.incarnation, {})
        if came:
            known = carrying.load_totals(forward.totals)
            for name, amount in carrying.differences(came, known).items():
                number = dictionary.field_ids[name, int(Kind.COUNTER)]
                late.amounts[number] = codec.add(late.amounts.get(number, 0), amount)
            late.forwards.append(forward._replace(totals=carrying.dump_totals({**known, **came})))

    def _can_be_written(self, late: _Late) -> bool:
        """Whether changes within their bounds can write it: else it stays in the ledger."""
        dictionary = self._writer.dictionary
        if not late.counts or not carrying.can_be_carried(dictionary, late.packed):
            return False
        scope = self._writer.scope(late.heir.place[0])
        author = dictionary.author(scope.author) if scope else b""
        own = carrying.totals(dictionary, [late.living])[0].get(late.heir.incarnation, {})
        amounts = late.amounts.items()
        before = {number: own.get((dictionary.field_names[number][0], author), 0) for number, _ in amounts}
        alone = carrying.bytes_of(amount for _, amount in amounts)  # as under a new author
        added = carrying.bytes_of(codec.add(before[number], amount) for number, amount in amounts)
        if alone is None or added is None:
            return False
        late.weight = carrying.weight(dictionary, late.packed) + max(alone, added)
        return late.weight <= MOVED_BYTES_MAX

    def _write_again(self, target: str, late: list[_Late]) -> list[News]:
        change = LocalChange(self._writer, self._writer.enter(target, ready=True))
        if any(self._would_replace(change.scope.author, one) for one in late):
            change.scope = change.scope._replace(author=0, seq=0)
        scope = change.begin(self._wall_ms, self._mint)
        dictionary, author, seq = self._writer.dictionary, scope.author, scope.seq + 1
        names = [record.births(one.living)[0] for one in late]
        items = [(one.packed, name[:3], name.time, True) for one, name in zip(late, names, strict=True)]
        every = carrying.carry(dictionary, items, author, seq)
        time = min([scope.time, *[carried.lowest for carried in every]])  # no cell's may be below its change's
        rises = record.write(dictionary, author, seq, time, [(one.living, (), one.increments, ()) for one in late])
        parts = carrying.Parts()
        targets: dict[Place, Target] = {}
        for one, carried, (piece, _, cells) in zip(late, every, rises, strict=True):
            pieces = (*[packed for packed, _ in carried.pieces], *([piece] if cells else ()))
            if pieces:
                _, collection, key = one.heir.place
                new = Target(collection, self._names[collection], key, one.heir.row)
                targets.setdefault(one.heir.place, new).pieces += pieces
            parts.add(carried, cells)
        return [parts.put(change, scope, list(targets.values()), time)] if parts else []

    def _would_replace(self, author: int, late: _Late) -> bool:
        """Whether an author has written since the creation where it is to write now: it would replace its own cells.

        Under a new author what came stays beside them, as concurrent with them.
        """
        dictionary = self._writer.dictionary
        came, here = record.stamps(dictionary, [late.packed, late.living])
        fields = {(name, kind) for name, kind, *_ in came if not kind & (SIDE_BY_SIDE | PER_AUTHOR)}
        creation = late.heir.incarnation[:2]
        return any((name, kind) in fields and dot[0] == author and (*dot,) != creation for name, kind, *dot, _ in here)

    def _dismiss(self, source: str, orphans: list[OrphanRow]) -> News:
        """Remove what was written again elsewhere, cell by cell."""
        targets = []
        for orphan in orphans:
            removals = tuple(record.removals(self._writer.dictionary, orphan.packed))
            target = Target(orphans=(orphan,), removals=removals)
            if orphan.collection != HEADLESS and orphan.key is not None:
                target.collection, target.key = orphan.collection, orphan.key
                target.collection_name = self._names[orphan.collection]
            targets.append(target)
        return self._land_removals(source, targets)


def _scope_of(heirs: dict[Incarnation, _Heir]) -> str:
    return next(iter(heirs.values())).place[0]


def _grouped(items: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[by(item)].append(item)
    return found
