"""Comparing two replicas: proof, scope by scope, that they agree, or where they do not.

All digests are computed anew from the cells, so that damage in a file cannot hide behind one that was kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldsync import record
from fieldsync.errors import Corrupt, NotFound
from fieldsync.limits import FAULTS_KEPT
from fieldsync.rebuild import held_rows, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fieldsync.context import Context
    from fieldsync.rebuild import Held
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.store import Scope

Name = tuple[str, str]  # collection and key; both empty for cells whose record is not known
Identity = tuple[str, str, tuple[bytes, int, int] | None]  # of a record, or of an incarnation without one


@dataclass(slots=True)
class Side:
    """What one of two replicas has of a scope."""

    name: str  # the replica's path
    records: int = 0
    changes: int = 0  # accounted for
    provisional: int = 0  # held, not accounted for
    lacks: dict[str, int] = field(default_factory=dict)  # author -> changes that only the other one has
    digest: str = ""  # of its cells
    unreadable: int = 0  # records that are damaged
    is_sound: bool = True  # the digest that it keeps is that of its cells, and each can be read


@dataclass(slots=True)
class ScopeComparison:
    """One scope of two replicas."""

    scope: str
    sides: tuple[Side, Side]
    differing: list[Name] = field(default_factory=list)  # where only the records differ: the first of these
    differing_count: int = 0

    @property
    def agrees(self) -> bool:
        """Whether both account for the same changes and have the same cells."""
        one, other = self.sides
        return not self._lacks_any and one.digest == other.digest and one.is_sound and other.is_sound

    @property
    def _lacks_any(self) -> bool:
        return any(side.lacks for side in self.sides)

    def __str__(self) -> str:
        return "\n".join(f"{self.scope}: {sentence}" for sentence in self._sentences())

    def _sentences(self) -> Iterator[str]:
        one, other = self.sides
        if self.agrees:
            yield f"they agree: {one.records:,} records, {one.changes:,} changes, digest {one.digest}"
            return
        for side, its_peer in ((one, other), (other, one)):
            if side.lacks:
                by = ", ".join(f"{count:,} of author {author}" for author, count in sorted(side.lacks.items()))
                count = sum(side.lacks.values())
                yield f"{side.name} lacks {count:,} changes that {its_peer.name} has ({by})"
            if side.provisional:
                yield f"{side.name} holds {side.provisional:,} changes of which parts may be missing until a sync ends"
            if not side.is_sound:
                yield f"{side.name} is damaged; `fieldsync doctor` looks further"
        if self.differing_count:
            yield f"the same changes are in both, but {self.differing_count:,} records differ{self._guess()}"

    def _guess(self) -> str:
        return "" if any(side.provisional for side in self.sides) else ": one of the two is damaged"


@dataclass(slots=True)
class Comparison:
    """What two replicas have in common, scope by scope."""

    scopes: list[ScopeComparison] = field(default_factory=list)  # that both hold
    only_one: dict[str, list[str]] = field(default_factory=dict)  # path -> scopes that it alone holds

    @property
    def agree(self) -> bool:
        """Whether all that both hold is equal, and there is any."""
        return bool(self.scopes) and all(scope.agrees for scope in self.scopes)


def compare(
    readers: tuple[SQLiteReader, SQLiteReader],
    paths: tuple[str, str],
    only: list[str],
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Compare scopes, all that both hold if `only` is empty; NotFound. progress(done, total): numbers of rows."""
    held = [{scope.name: scope for scope in reader.scopes()} for reader in readers]
    shared = sorted(set(only) or held[0].keys() & held[1].keys())
    for path, mine in zip(paths, held, strict=True):
        if lacking := set(shared) - mine.keys():
            raise NotFound(f"{path} does not hold the scope {min(lacking)!r}")
    report = Comparison()
    if not only:
        report.only_one = {path: sorted(mine.keys() - set(shared)) for path, mine in zip(paths, held, strict=True)}
    pairs = [(held[0][name], held[1][name]) for name in shared]
    tell = _told(readers, pairs, progress)
    report.scopes = [_compared(readers, paths, scopes, tell) for scopes in pairs]
    return report


def _told(
    readers: tuple[SQLiteReader, SQLiteReader],
    pairs: list[tuple[Scope, Scope]],
    progress: Callable[[int, int], object] | None,
) -> Callable[[int], object]:
    """What adds up numbers of rows for a progress."""
    if progress is None:
        return lambda _: None
    total = sum(reader.count_records(scope.id) for pair in pairs for reader, scope in zip(readers, pair, strict=True))
    done = 0

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, max(done, total))

    return tell


def _compared(
    readers: tuple[SQLiteReader, SQLiteReader],
    paths: tuple[str, str],
    scopes: tuple[Scope, Scope],
    tell: Callable[[int], object],
) -> ScopeComparison:
    contexts = [reader.context(scope.id) for reader, scope in zip(readers, scopes, strict=True)]
    looks = [_Look(reader, scope) for reader, scope in zip(readers, scopes, strict=True)]
    sides = []
    for place, look in enumerate(looks):
        lacking = _by_author(contexts[1 - place] - contexts[place])
        sides.append(look.side(paths[place], contexts[place], lacking, tell))
    found = ScopeComparison(scopes[0].name, (sides[0], sides[1]))
    if contexts[0] == contexts[1] and (sides[0].digest != sides[1].digest or any(side.unreadable for side in sides)):
        differing = _differing(looks[0].each(), looks[1].each())
        found.differing, found.differing_count = differing[:FAULTS_KEPT], len(differing)
    return found


def _by_author(dots: Context) -> dict[str, int]:
    found: dict[str, int] = {}
    for author, low, high in dots.intervals():
        found[author.hex()] = found.get(author.hex(), 0) + high - low + 1
    return found


def _differing(ours: dict[Identity, bytes], theirs: dict[Identity, bytes]) -> list[Name]:
    """The records whose digests are not the same at both; one that cannot be read is like no other."""
    places = {place for place in ours.keys() | theirs.keys() if not ours.get(place) or ours[place] != theirs.get(place)}
    return sorted({place[:2] for place in places})


class _Look:
    """Looks at all rows of one scope of one replica."""

    def __init__(self, reader: SQLiteReader, scope: Scope) -> None:
        self._reader = reader
        self._scope = scope
        self._key = record.digest_key(scope.name)

    def side(self, path: str, context: Context, lacks: dict[str, int], tell: Callable[[int], object]) -> Side:
        """What there is, its digest computed from its cells."""
        provisional = len(self._reader.provisional_dots(self._scope.id))
        side = Side(path, changes=context.count(), provisional=provisional, lacks=lacks)
        digest = bytes(16)
        for some in held_rows(self._reader, self._scope):
            difference, unreadable = self._sum(some)
            digest = record.add_digests(digest, difference)
            side.unreadable += unreadable
            side.records += len(some) if some and not some[0].orphan else 0
            tell(len(some))
        side.digest = digest.hex()
        side.is_sound = digest == self._scope.digest and not side.unreadable
        return side

    def each(self) -> dict[Identity, bytes]:
        """The digest of each row; empty where it cannot be read."""
        rows = (one for some in held_rows(self._reader, self._scope) for one in some)
        return {self._identity(one): self._digest([one]) or b"" for one in rows}

    def _sum(self, some: list[Held]) -> tuple[bytes, int]:
        """The digest of those that can be read, and how many cannot."""
        digest = self._digest(some)
        if digest is not None:
            return digest, 0
        if len(some) == 1:
            return bytes(16), 1
        half = len(some) // 2
        (first, bad), (second, worse) = self._sum(some[:half]), self._sum(some[half:])
        return record.add_digests(first, second), bad + worse

    def _digest(self, some: list[Held]) -> bytes | None:
        """What rows add to the digest; None where one of them is damaged."""
        try:
            return weigh(self._reader.dictionary, self._key, some)[1]
        except (Corrupt, ValueError, TypeError):
            return None

    def _identity(self, one: Held) -> Identity:
        if one.orphan is None:
            assert one.name is not None
            return (*one.name, None)
        author, seq, n = one.orphan
        return "", "", (self._reader.dictionary.author(author), seq, n)
