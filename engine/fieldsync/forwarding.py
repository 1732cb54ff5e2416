"""Following records that were moved with what was written to them elsewhere before that was known there.

It comes as cells without their record. The hub writes them again where the record lives now, as concurrent with what
was written there, counters as differences, and dismisses them where they came. They replace what they had seen where
they were written, though it moved. Elements and fields that were taken out of it there are taken out where it lives now
(thinning.py). A late removal removes it there; what that had not seen stays in the ledger. So does what comes when the
hub has forgotten the move, and the wish for another move of who may not write where the record lives now, or is to go:
it would bring it back to him.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from fieldsync import carrying, codec, record, thinning
from fieldsync.apply import Arrival, Target, of_orphan
from fieldsync.carrying import News
from fieldsync.changes import REMOVING
from fieldsync.heirs import Heirs
from fieldsync.limits import DOT_BYTES_MAX, LATE_ROUNDS_MAX, MOVED_BYTES_MAX
from fieldsync.store import KILLS
from fieldsync.transaction import LocalChange
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.carrying import Seen
    from fieldsync.heirs import Heir, Place
    from fieldsync.store import Forward, Incarnation, Late, OrphanRow, Writer

T = TypeVar("T")
K = TypeVar("K")


def follow(
    writer: Writer,
    owns: Callable[[str], bool],
    wall_ms: int,
    mint: Callable[[], bytes],
    may_write: Callable[[bytes, str], bool],
    is_heard: Callable[[bytes, int], bool],
) -> list[News]:
    """Write what a transaction brought too late where it belongs now; in the scopes that are owned here, as moves.

    may_write: whether an author may write in a scope; who wishes another move has to, in both. is_heard: whether a
    change (author, seq) came from its author; only then is a wish in it followed.
    """
    headless, killed, thinned = writer.take_late()
    if not (headless or killed or thinned):
        return []
    owned = {scope.id for scope in writer.scopes() if owns(scope.name)}
    headless, killed, thinned = ([one for one in some if one.scope in owned] for some in (headless, killed, thinned))
    return _Follower(writer, wall_ms, mint, may_write, is_heard).follow(headless, killed, thinned)


@dataclass(slots=True)
class _Late:
    """What came too late for one incarnation, which lives on elsewhere."""

    heir: Heir
    orphans: list[OrphanRow] = field(default_factory=list)
    heard: list[OrphanRow] = field(default_factory=list)  # the same without wishes that may not be made
    parts: list[bytes] = field(default_factory=list)  # what of each can be written in one change
    sees: Seen = field(default_factory=lambda: defaultdict(set))  # what it had seen, as it is there now
    amounts: dict[int, Any] = field(default_factory=dict)  # counter's field id -> by how much it rises
    forwards: list[Forward] = field(default_factory=list)  # of each orphan, with what is counted then
    counts: bool = True  # whether there is a number for each
    weight: int = 0  # in bytes, with what counters come to

    @property
    def packed(self) -> bytes:
        """All of it that can be written in one change."""
        return b"".join(self.parts)

    @property
    def increments(self) -> tuple[tuple[int, Any], ...]:
        """What counters rise by, as the kernel takes it."""
        return tuple((number, amount) for number, amount in self.amounts.items() if amount)


class _Follower:
    """One transaction of a hub."""

    def __init__(
        self,
        writer: Writer,
        wall_ms: int,
        mint: Callable[[], bytes],
        may_write: Callable[[bytes, str], bool],
        is_heard: Callable[[bytes, int], bool],
    ) -> None:
        self._writer = writer
        self._may_write = may_write
        self._is_heard = is_heard
        self._wall_ms = wall_ms
        self._mint = mint
        self._heirs = Heirs(writer)
        self._names = {known.id: known.name for known in writer.collections()}

    def follow(self, headless: list[Late], killed: list[Late], thinned: list[Late]) -> list[News]:
        """Removals first: what was removed is not written again."""
        scopes = {scope.id: scope.name for scope in self._writer.scopes()}
        news: list[News] = []
        for number, some in _grouped(killed, lambda late: late.scope).items():
            news += self._remove(number, some)
        for number, some in _grouped(thinned, lambda late: late.scope).items():
            news += self._thin(number, some)
        for number, some in _grouped(headless, lambda late: late.scope).items():
            incarnations = [late.incarnation for late in some]
            for _ in range(LATE_ROUNDS_MAX):
                if incarnations:
                    written, incarnations = self._write(number, scopes[number], incarnations)
                    news += written
        return news

    # --- removals ---

    def _remove(self, source: int, removals: list[Late]) -> list[News]:
        """Remove records that were moved from a scope, and removed by who had not heard of that, where they live."""
        found: dict[Place, dict[Incarnation, tuple[Heir, Seen]]] = defaultdict(dict)
        followed: list[Incarnation] = []
        for late in removals:
            chain = self._heirs.chain(source, late.incarnation)
            heir = self._heirs.heir(chain)
            if heir is not None:
                _, sees = found[heir.place].setdefault(heir.incarnation, (heir, defaultdict(set)))
                self._heirs.add_seen(sees, chain, heir, removals=((*late.incarnation, late.item),))
                followed.append(late.incarnation)
        for incarnation in followed:
            self._writer.drop_forward(source, incarnation)
        rows = [self._killing(heirs) for heirs in found.values()]
        return [
            self._land_removals(target, some)
            for target, every in _grouped(rows, lambda row: row[0]).items()
            for some in carrying.batches([row[1] for row in every], _weight_of_removals)
        ]

    def _killing(self, heirs: dict[Incarnation, tuple[Heir, Seen]]) -> tuple[str, Target]:
        """The removal of some incarnations of one key: the scope, and what is to land there."""
        (scope, collection, key), row, _ = next(iter(heirs.values()))[0]
        removals = tuple(
            (*incarnation, carrying.killing(self._writer.dictionary, sees)) for incarnation, (_, sees) in heirs.items()
        )
        return scope, Target(collection, self._names[collection], key, row, removals=removals)

    def _thin(self, source: int, removals: list[Late]) -> list[News]:
        """Take elements and fields out of records that were moved from a scope, which were taken out of them there."""
        found: dict[Incarnation, tuple[Heir, set[thinning.Address]]] = {}
        for late in removals:
            chain = self._heirs.chain(source, late.incarnation)
            heir = self._heirs.heir(chain)
            if heir is not None:
                found.setdefault(heir.incarnation, (heir, set()))[1].update(self._thinned(source, late, chain))
        rows: dict[Place, Target] = {}
        for heir, some in found.values():
            item = thinning.removing(self._writer.dictionary, heir.living, heir.incarnation[:2], some)
            if item:
                _, collection, key = heir.place
                target = rows.setdefault(heir.place, Target(collection, self._names[collection], key, heir.row))
                target.removals += ((*heir.incarnation, item),)
        return [
            self._land_removals(scope, some)
            for scope, every in _grouped(rows, lambda place: place[0]).items()
            for some in carrying.batches([rows[place] for place in every], _weight_of_removals)
        ]

    def _thinned(self, source: int, late: Late, chain: list[Forward]) -> set[thinning.Address]:
        """The addresses of what a late removal took out of an incarnation, as far as that moved as it had been seen."""
        dictionary, some = self._writer.dictionary, set()
        for forward in chain:
            kept = self._writer.removals_of(source, [forward.incarnation[:2]]).get(forward.incarnation, [])
            moved = [item for *_, item in kept if item[0] & KILLS]
            if len(moved) != 1 or not self._writer.moved_alone(source, forward):
                return set()  # what moved is forgotten; or somebody removed the record, too; or it was several
            if forward is chain[0]:
                some = thinning.of_what_moved(dictionary, late.item, moved[0], forward.incarnation[:2])
            else:
                some = thinning.untouched(dictionary, moved[0], forward.incarnation[:2], some)
            scope = self._writer.scope(forward.target)
            source = scope.id if scope else 0
        return some

    def _land_removals(self, scope_name: str, targets: list[Target]) -> News:
        change = LocalChange(self._writer, self._writer.enter(scope_name, ready=True))
        scope = change.begin(self._wall_ms, self._mint)
        scope = scope._replace(seq=scope.seq + 1)
        every = [removal for target in targets for removal in target.removals]
        arrival = Arrival((scope.author, scope.seq), scope.time, REMOVING, len(every), every)
        return News(scope_name, change.put(scope, targets, [arrival]), change.dots)

    # --- cells ---

    def _write(self, source: int, name: str, incarnations: list[Incarnation]) -> tuple[list[News], list[Incarnation]]:
        """Write what came too late for records that were moved from a scope where they live now.

        Also gives those of which something is left: of what was written apart to one field only the topmost is written,
        and the next of it the next time, under another author, beside that.
        """
        late = [one for one in self._gather(source, incarnations) if self._can_be_written(one)]
        rows = _grouped(late, lambda one: one.heir.place).values()
        news = [
            one
            for target, every in _grouped(rows, lambda some: some[0].heir.place[0]).items()
            for some in carrying.batches(every, lambda some: sum(one.weight for one in some))
            for one in self._write_again(source, target, [one for row in some for one in row])
        ]
        pairs = [pair for one in late for pair in zip(one.orphans, one.parts, strict=True)]
        news += [self._dismiss(name, some) for some in carrying.batches(pairs, self._weight)]
        return news, [orphan.incarnation for orphan, part in pairs if part != orphan.packed]

    def _weight(self, pair: tuple[OrphanRow, bytes]) -> int:
        return carrying.weight(self._writer.dictionary, pair[1])

    def _gather(self, source: int, incarnations: list[Incarnation]) -> Iterable[_Late]:
        found: dict[tuple[Place, Incarnation], tuple[_Late, list[list[Forward]]]] = {}
        for orphan in self._writer.orphans(source, incarnations) if incarnations else ():
            chain = self._heirs.chain(source, orphan.incarnation)
            heir = self._heirs.heir(chain)
            if heir is None:
                continue  # what was edited lives no more: that is the ledger's
            heard = carrying.heard(self._writer.dictionary, orphan, self._may_wish(heir.place[0]))
            if not heard.packed:
                continue
            late, chains = found.setdefault((heir.place, heir.incarnation), (_Late(heir), []))
            late.orphans.append(orphan)
            late.heard.append(heard)
            chains.append(chain)
        for late, chains in found.values():
            self._look_at(late, chains)
        return [late for late, _ in found.values()]

    def _may_wish(self, place: str) -> Callable[[bytes, int, str], bool]:
        """Whether an author may move a record from the scope in which it lives now to another one, and says so."""
        may = self._may_write
        return lambda author, seq, to: self._is_heard(author, seq) and may(author, place) and may(author, to)

    def _look_at(self, late: _Late, chains: list[list[Forward]]) -> None:
        """What of it can be written in one change, what that had seen, and what it counts."""
        late.parts = carrying.topmost(self._writer.dictionary, late.heard)
        for orphan, part, chain in zip(late.orphans, late.parts, chains, strict=True):
            self._heirs.add_seen(late.sees, chain, late.heir, pieces=(part,) if part else ())
            try:
                late.forwards.append(self._count(chain[0], orphan._replace(packed=part), late))
            except ArithmeticError:  # infinities that cancel each other
                late.counts = False

    def _count(self, forward: Forward, orphan: OrphanRow, late: _Late) -> Forward:
        """Note by how much late totals differ from those that are counted; the forward with what is counted then."""
        dictionary = self._writer.dictionary
        came = carrying.totals(dictionary, [orphan.packed])[0].get(orphan.incarnation, {})
        if not came:
            return forward
        known = carrying.load_totals(forward.totals)
        for name, amount in carrying.differences(came, known).items():
            number = dictionary.field_ids[name, int(Kind.COUNTER)]
            late.amounts[number] = codec.add(late.amounts.get(number, 0), amount)
        return forward._replace(totals=carrying.dump_totals({**known, **came}))

    def _can_be_written(self, late: _Late) -> bool:
        """Whether changes within their bounds can write it: else it stays in the ledger."""
        dictionary = self._writer.dictionary
        if not late.counts or not carrying.can_be_carried(dictionary, late.packed):
            return False
        scope = self._writer.scope(late.heir.place[0])
        author = dictionary.author(scope.author) if scope else b""
        own = carrying.totals(dictionary, [late.heir.living])[0].get(late.heir.incarnation, {})
        amounts = late.amounts.items()
        before = {number: own.get((dictionary.field_names[number][0], author), 0) for number, _ in amounts}
        alone = carrying.bytes_of(amount for _, amount in amounts)  # as under a new author
        added = carrying.bytes_of(codec.add(before[number], amount) for number, amount in amounts)
        if alone is None or added is None:
            return False
        seen = sum(map(len, late.sees.values()))
        late.weight = carrying.weight(dictionary, late.packed) + max(alone, added) + DOT_BYTES_MAX * seen
        return late.weight <= MOVED_BYTES_MAX

    def _write_again(self, source: int, target: str, late: list[_Late]) -> list[News]:
        change = LocalChange(self._writer, self._writer.enter(target, ready=True))
        if any(self._would_replace(change.scope.author, one) for one in late):
            change.scope = change.scope._replace(author=0, seq=0)
        scope = change.begin(self._wall_ms, self._mint)
        dictionary, author, seq = self._writer.dictionary, scope.author, scope.seq + 1
        items = [(one.packed, one.heir.incarnation, dict(one.sees)) for one in late]
        every = carrying.follow(dictionary, items, author, seq)
        time = min([scope.time, *[piece.lowest for some in every for piece in some]])
        rises = record.write(dictionary, author, seq, time, [(one.heir.living, (), one.increments, ()) for one in late])
        parts = carrying.Parts(time)
        targets: dict[Place, Target] = {}
        for one, some, (piece, _, cells) in zip(late, every, rises, strict=True):
            pairs = zip(one.forwards, one.parts, strict=True)
            known = [carrying.remembering(dictionary, old, part, (author, seq)) for old, part in pairs if part]
            self._writer.put_forwards(source, known)
            pieces = (*[carried.packed for carried in some], *([piece] if cells else ()))
            if pieces:
                _, collection, key = one.heir.place
                new = Target(collection, self._names[collection], key, one.heir.row)
                targets.setdefault(one.heir.place, new).pieces += pieces
            parts.add(some, cells)
        return [parts.put(change, scope, list(targets.values()))] if parts else []

    def _would_replace(self, author: int, late: _Late) -> bool:
        """Whether an author has written since the creation where it is to write now: it would replace its own cells.

        Under a new author what came stays beside them, as concurrent with them; but it may replace what it had seen.
        """
        dictionary, creation = self._writer.dictionary, late.heir.incarnation[:2]
        came = {cell.at for cell in carrying.registers(dictionary, late.packed)}
        return any(
            dot[0] == author and at in came and dot != creation and dot not in late.sees.get(at, ())
            for at, dot, *_ in carrying.registers(dictionary, late.heir.living)
        )

    def _dismiss(self, source: str, pairs: list[tuple[OrphanRow, bytes]]) -> News:
        """Remove what was written again elsewhere, cell by cell."""
        dictionary = self._writer.dictionary
        targets = [of_orphan(orphan, self._names, record.removals(dictionary, part)) for orphan, part in pairs if part]
        return self._land_removals(source, targets)


def _weight_of_removals(target: Target) -> int:
    return sum(len(item) for *_, item in target.removals)


def _grouped(items: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[by(item)].append(item)
    return found
