"""What the engine asks of a store: batches in, batches out, under numbers of the store's own.

A Reader sees one consistent moment. A Writer is a Reader inside the one write transaction there is at a time; it lands
whole or not at all. Scope comes first in every key. sqlite/ implements this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fieldsync.context import Context
    from fieldsync.record import Dictionary, Removal

HEADLESS = 0  # in place of a collection's number: cells without their existence cell
Dot = tuple[int, int]  # author id, seq
Incarnation = tuple[int, int, int]  # author id, seq, n


class Scope(NamedTuple):
    """What a replica keeps of one scope besides records."""

    id: int
    name: str
    author: int  # the own author's id; 0 before the first write
    seq: int  # of the own author's last change
    time: int  # the hybrid clock
    digest: bytes  # 16 bytes, the sum over all live cells
    floor: bytes  # a context: the removals forgotten here
    taker: bytes  # names the incoming stream that may write; empty: none
    ready: bool  # a stream has reached Done, or a local write began the scope


class Row(NamedTuple):
    """One record: all live incarnations of a key in a scope."""

    id: int
    scope: int
    key: str
    packed: bytes


class OrphanRow(NamedTuple):
    """Cells of one incarnation without its existence cell; collection 0 and key None while they are not known."""

    id: int
    incarnation: Incarnation
    collection: int
    key: str | None
    packed: bytes


class Entry(NamedTuple):
    """A run of rows in which a change has live cells; n is the first's number if the change created them, else -1.

    For a change of removals: (author id, seq, first n, count) of the incarnations that it names.
    """

    collection: int
    n: int
    row: int
    count: int  # type: ignore[assignment]  # a run has a length; nobody counts in an entry


class ChangeRow(NamedTuple):
    """One change as the index knows it: where its live cells are. May name rows in which none lives any more."""

    author: int
    seq: int
    time: int
    flags: int
    parts: int
    live: int
    entries: list[Entry]


class CollectionRow(NamedTuple):
    """One collection of the file, with the fields that have columns."""

    id: int
    name: str
    columns: tuple[tuple[str, int, bool, Any], ...]  # field name, kind, indexed, what a missing cell reads as
    signature: str


class Reader(Protocol):
    """One consistent moment of a store."""

    @property
    def dictionary(self) -> Dictionary:
        """The numbers of authors and fields."""
        ...

    def scopes(self) -> list[Scope]: ...
    def scope(self, name: str) -> Scope | None: ...
    def collections(self) -> list[CollectionRow]: ...
    def collection(self, name: str) -> CollectionRow | None: ...
    def context(self, scope: int) -> Context: ...
    def provisional(self, scope: int) -> list[tuple[Context, Context]]: ...
    def is_provisional(self, scope: int) -> bool: ...
    def provisional_dots(self, scope: int) -> list[tuple[bytes, int]]: ...
    def by_key(self, collection: int, scope: int, keys: Sequence[str]) -> list[Row]: ...
    def by_key_anywhere(self, collection: int, key: str) -> list[Row]: ...
    def by_id(self, collection: int, ids: Sequence[int]) -> list[Row]: ...
    def query(self, collection: int, where: str, bindings: Sequence[Any]) -> Iterator[tuple[str, int, bytes]]: ...
    def change(self, scope: int, dot: Dot) -> ChangeRow | None: ...
    def changes(self, scope: int, lacking: Context) -> Iterator[ChangeRow]: ...
    def removals_of(self, scope: int, creations: Iterable[Dot]) -> dict[Incarnation, list[Removal]]: ...
    def removals_by(self, scope: int, dot: Dot, entries: list[Entry]) -> list[Removal]: ...
    def has_orphans(self, scope: int) -> bool: ...
    def orphans(self, scope: int, incarnations: Sequence[Incarnation]) -> list[OrphanRow]: ...
    def orphans_by_id(self, ids: Sequence[int]) -> list[OrphanRow]: ...
    def orphans_of_key(self, scope: int, collection: int, key: str) -> list[OrphanRow]: ...
    def close(self) -> None: ...


class Writer(Reader, Protocol):
    """The one write transaction."""

    def enter(self, name: str, *, ready: bool = False) -> Scope: ...
    def save_scope(self, scope: Scope) -> None: ...
    def author_ids(self, names: Sequence[bytes]) -> list[int]: ...
    def field_ids(self, names: Sequence[tuple[str, int]]) -> list[int]: ...
    def collection_ids(self, names: Sequence[str]) -> list[int]: ...
    def next_row(self, collection: int) -> int: ...
    def insert_rows(self, collection: int, rows: list[Row]) -> None: ...
    def update_rows(self, collection: int, rows: list[tuple[int, bytes]]) -> None: ...
    def delete_rows(self, collection: int, ids: list[int]) -> None: ...
    def put_orphan(self, scope: int, orphan: OrphanRow) -> int: ...
    def delete_orphans(self, ids: list[int]) -> None: ...
    def account_own(self, scope: int, author: int, seq: int) -> None: ...
    def put_changes(self, scope: int, changes: list[ChangeRow]) -> None: ...
    def lose_cells(self, scope: int, losses: list[tuple[Dot, int]]) -> None: ...
    def put_removals(
        self, scope: int, dot: Dot, removals: list[Removal], names: dict[Incarnation, tuple[int, str]]
    ) -> None: ...
    def account(self, scope: int, dots: Context) -> None: ...
    def put_provisional(self, scope: int, dots: list[tuple[bytes, int]], giver: Context) -> None: ...
    def drop_provisional(self, scope: int, dots: list[tuple[bytes, int]]) -> None: ...


class Store(Protocol):
    """A durable store that several threads share."""

    def reading(self) -> AbstractContextManager[Reader]: ...
    def snapshot(self) -> Reader: ...
    def writing(self) -> AbstractContextManager[Writer]: ...
    def declare(self, collections: list[CollectionRow], progress: Callable[[int, int], None] | None) -> None: ...
    def close(self) -> None: ...
