"""What the engine asks of a store: batches in, batches out, under numbers of the store's own.

A Reader sees one consistent moment. A Writer is a Reader inside the one write transaction there is at a time; it lands
whole or not at all. Scope comes first in every key. sqlite/ implements this.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fieldsync.apply import Landed
    from fieldsync.context import Context
    from fieldsync.converting import Conversion
    from fieldsync.record import Dictionary, Removal
    from fieldsync.warm import Warm

KILLS = 1  # the bit of a removal's flags that says that it removes the incarnation, not just cells of it
HEADLESS = 0  # in place of a collection's number: cells without their existence cell
Dot = tuple[int, int]  # author id, seq
Incarnation = tuple[int, int, int]  # author id, seq, n
Cells = tuple[int, int, str, bytes]  # as a Row
Layout = tuple[tuple[int, ...], tuple[Any, ...]]  # of each column a value's place, or -1; what it shows without


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
    delivered: bytes  # a context: what a hub is known to cover
    priority: int  # the higher ones sync first


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


RemovalRow = tuple[int, int, int, int, int, int, bytes, int | None, str | None]  # of the log, as the file has it


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


class Edits(NamedTuple):
    """What a change wrote in records that it did not create, as far as all of it lives there still."""

    parts: int  # of the change
    pieces: dict[int, dict[int, bytes]]  # collection -> row -> packed


class Pair(NamedTuple):
    """What is remembered of a pair of replicas: what the initiator told last of the scopes that it offered."""

    replica: bytes  # the other one's id
    names: list[str]
    states: bytes  # 8 bytes each
    is_hub: bool  # the other one
    was_hub: bool  # this one; both as they said then

    def each(self) -> list[bytes]:
        """The states one by one."""
        return [self.states[at : at + 8] for at in range(0, len(self.states), 8)]


class TrashRow(NamedTuple):
    """A record that went because a peer no longer had it; kept for a while."""

    id: int
    scope: int
    collection: int
    key: str
    packed: bytes
    wall_ms: int


class Forward(NamedTuple):
    """Where an incarnation went that this hub moved to another scope."""

    incarnation: Incarnation
    target: str  # the scope
    heir: Incarnation  # as which it lives on there
    collection: int
    key: str
    totals: bytes  # of its counters at that moment (carrying.py)
    edited: bytes  # its registers that were written since its creation (carrying.py)
    wall_ms: int


class Gone(NamedTuple):
    """What is known last of a key that is not there: somebody deleted it, a hub moved it, or a peer had it no more."""

    key: str
    scope: int
    ms: int  # since 1970, by the clock of whoever did it
    dot: Dot | None = None  # of its removal
    time: int = 0  # of that
    target: str | None = None  # the scope that it was moved to


class Late(NamedTuple):
    """Something came for an incarnation that does not live, or has not come, in a scope."""

    scope: int
    incarnation: Incarnation
    item: bytes = b""  # of a removal: what it had seen


class Column(NamedTuple):
    """One column of a collection's table: what its records read in a field."""

    name: str
    kind: int
    indexed: bool
    default: Any  # what is read where there is no cell
    stored_as: str = ""  # the field's name in cells, where that is another
    conversion: Conversion | None = None  # of values of other types
    age: int = 0  # how many times the table was made anew for declarations that did not ask for all of it
    tokenizer: str = ""  # what makes words of it for searches; empty: it is not searched

    @property
    def cell(self) -> tuple[str, int]:
        """The name and the kind of the cells that it shows."""
        return self.stored_as or self.name, self.kind

    @property
    def token(self) -> str:
        """What tells it from other columns, as a text: by value, 1 and 1.0 are equal."""
        return repr(self._replace(age=0))

    def serves(self, wanted: Column) -> bool:
        """Whether it shows what another column should, and is indexed and searched if that has to be."""
        wanted = wanted._replace(indexed=self.indexed or wanted.indexed, tokenizer=wanted.tokenizer or self.tokenizer)
        return self.token == wanted.token


class Searched(NamedTuple):
    """The columns of a collection that are searched."""

    columns: tuple[str, ...]
    tokenizer: str  # of all of them


class AuditRow(NamedTuple):
    """One row of the audit log: what a change that landed did to a record, or to a field of it."""

    landed_ms: int
    scope: str
    collection: str | None
    key: str | None
    kind: str
    field: str | None
    old: str | None  # JSON
    new: str | None
    won: bool  # the record reads it; else it lost to what was written apart, or to a deletion
    author: bytes | None
    seq: int | None
    stamp: int | None


class CollectionRow(NamedTuple):
    """One collection of the file, with the fields that have columns."""

    id: int
    name: str
    columns: tuple[Column, ...]
    signature: str  # of what was declared last; empty before

    @property
    def search(self) -> Searched | None:
        """Its columns that are searched, if any are."""
        some = [column for column in self.columns if column.tokenizer]
        return Searched(tuple(column.name for column in some), some[0].tokenizer) if some else None

    def serves(self, wanted: CollectionRow) -> bool:
        """Whether its table has all that is declared, and maybe more."""
        return self.signature == wanted.signature or (bool(self.signature) and _serve(self.columns, wanted.columns))


@lru_cache(maxsize=256)
def _serve(columns: tuple[Column, ...], wanted: tuple[Column, ...]) -> bool:
    own = {column.name: column for column in columns}
    return all(column.name in own and own[column.name].serves(column) for column in wanted)


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
    def is_audited(self) -> bool: ...
    def context(self, scope: int) -> Context: ...
    def provisional(self, scope: int) -> list[tuple[Context, Context]]: ...
    def is_provisional(self, scope: int) -> bool: ...
    def provisional_dots(self, scope: int) -> list[tuple[bytes, int]]: ...
    def by_key(self, collection: int, scope: int, keys: Sequence[str]) -> list[Row]: ...
    def by_key_anywhere(self, collection: int, key: str) -> list[Row]: ...
    def by_keys_anywhere(self, collection: int, keys: Sequence[str]) -> list[Row]: ...
    def by_pairs(self, collection: int, pairs: Sequence[tuple[int, str]]) -> list[Row]: ...
    def by_id(self, collection: int, ids: Sequence[int]) -> list[Row]: ...
    def cells_by_id(self, collection: int, ids: Sequence[int]) -> Sequence[Cells]:
        """As by_id, with one object less for each of many."""
        ...

    def query(self, collection: int, where: str, bindings: Sequence[Any]) -> Iterator[tuple[str, int, bytes]]: ...
    def change(self, scope: int, dot: Dot) -> ChangeRow | None: ...
    def changes(self, scope: int, lacking: Context) -> Iterator[ChangeRow]: ...
    def edits(self, scope: int, dot: Dot) -> Edits | None:
        """What a change edited, as far as that is remembered; the rest its records have."""
        ...

    def removals_of(self, scope: int, creations: Iterable[Dot]) -> dict[Incarnation, list[Removal]]: ...
    def removing(self, scope: int) -> list[ChangeRow]: ...
    def removals_by(self, scope: int, dot: Dot, entries: list[Entry]) -> list[Removal]: ...
    def records(self, scope: int) -> Iterator[tuple[int, list[Row]]]: ...
    def has_orphans(self, scope: int) -> bool: ...
    def all_orphans(self, scope: int) -> Iterator[list[OrphanRow]]: ...
    def orphans(self, scope: int, incarnations: Sequence[Incarnation]) -> list[OrphanRow]: ...
    def orphans_by_id(self, ids: Sequence[int]) -> list[OrphanRow]: ...
    def orphans_of_key(self, scope: int, collection: int, key: str) -> list[OrphanRow]: ...
    def damage(self, most: int) -> list[str]: ...
    def count_rows(self) -> int: ...
    def strays(self) -> tuple[list[tuple[int, int]], int]: ...
    def indexed(self, scope: int) -> Iterator[tuple[ChangeRow, bool]]: ...
    def removal_log(self, scope: int) -> Iterator[tuple[Dot, Removal]]: ...
    def shown(self, collection: CollectionRow, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]: ...
    def intervals(self, scope: int) -> list[tuple[int, int, int]]: ...
    def givers(self, scope: int) -> list[tuple[int, int, bytes | None]]: ...
    def count_records(self, scope: int) -> int: ...
    def count_cells(self, scope: int, dots: Context) -> int: ...
    def pair(self, name: bytes) -> Pair | None: ...
    def agreed(self, pair: bytes, scope: int) -> Context | None: ...
    def begun(self, scope: int) -> tuple[int, bytes] | None: ...
    def trash(self) -> Iterator[TrashRow]: ...
    def names_of_removed(
        self, scope: int, incarnations: Sequence[Incarnation]
    ) -> dict[Incarnation, tuple[int, str]]: ...
    def removals_of_key(self, scope: int, collection: int, key: str) -> list[tuple[Dot, int]]: ...
    def gone(self, collection: int, keys: Sequence[str]) -> Iterator[Gone]: ...
    def forward(self, scope: int, incarnation: Incarnation) -> Forward | None: ...
    def forward_of(self, scope: int, collection: int, key: str) -> Forward | None: ...
    def moved_alone(self, scope: int, forward: Forward) -> bool: ...
    def close(self) -> None: ...


class Writer(Reader, Protocol):
    """The one write transaction."""

    def enter(self, name: str, *, ready: bool = False) -> Scope: ...
    def erase(self, scope: Scope) -> None: ...
    def save_scope(self, scope: Scope) -> None: ...
    def author_ids(self, names: Sequence[bytes]) -> list[int]: ...
    def field_ids(self, names: Sequence[tuple[str, int]]) -> list[int]: ...
    def collection_ids(self, names: Sequence[str]) -> list[int]: ...
    def next_row(self, collection: int) -> int: ...
    def insert_rows(self, collection: int, rows: list[Row]) -> None: ...
    def layout(self, collection: int, fields: tuple[tuple[str, int], ...]) -> Layout | None: ...
    def insert_wide(self, collection: int, rows: list[tuple[Any, ...]], *, may_be_there: bool) -> bool: ...
    def update_rows(self, collection: int, rows: list[tuple[int, bytes]]) -> None: ...
    def delete_rows(self, collection: int, ids: list[int]) -> None: ...
    def at_hand(self, collection: int, key: str, scope: str | None) -> tuple[str, Row] | None: ...
    def keep_at_hand(self, warm: Warm) -> None: ...
    def append(self, warm: Warm, piece: bytes, shown: dict[tuple[str, int], Any]) -> None: ...
    def rename_pair(self, old: bytes, new: bytes) -> None: ...
    def put_pair(self, name: bytes, pair: Pair, wall_ms: int) -> bool: ...
    def put_agreed(self, pair: bytes, scope: int, context: Context) -> None: ...
    def put_begun(self, scope: int, cells: int, body: bytes) -> None: ...
    def drop_begun(self, scope: int) -> None: ...
    def take_late(self) -> tuple[list[Late], list[Late], list[Late]]: ...
    def put_forwards(self, scope: int, forwards: Iterable[Forward]) -> None: ...
    def drop_forward(self, scope: int, incarnation: Incarnation) -> None: ...
    def forget_forwards(self, before_ms: int, most: int) -> None: ...
    def put_trash(self, rows: list[TrashRow]) -> None: ...
    def delete_trash(self, ids: list[int]) -> None: ...
    def put_orphan(self, scope: int, orphan: OrphanRow) -> int: ...
    def delete_orphans(self, ids: list[int]) -> None: ...
    def account_own(self, scope: int, author: int, seq: int) -> None: ...
    def put_changes(self, scope: int, changes: list[ChangeRow]) -> None: ...
    def lose_cells(self, scope: int, losses: list[tuple[Dot, int]]) -> list[Dot]: ...
    def put_removals(
        self, scope: int, dot: Dot, removals: list[Removal], names: dict[Incarnation, tuple[int, str]]
    ) -> None: ...
    def log_removals(self, scope: int, rows: list[RemovalRow]) -> None: ...
    def forget_removals(self, scope: int, changes: list[ChangeRow]) -> None: ...
    def account(self, scope: int, dots: Context) -> None: ...
    def set_context(self, scope: int, context: Context) -> None: ...
    def delete_changes(self, scope: int, dots: list[Dot]) -> None: ...
    def delete_removals(self, scope: int, removals: list[tuple[Dot, Incarnation]]) -> None: ...
    def delete_strays(self) -> None: ...
    def reindex(self) -> None: ...
    def begin_audit(self) -> None: ...
    def note_landed(self, landed: Landed) -> None: ...
    def remembered(self, scope: int) -> set[Dot]:
        """The changes of whose edits anything is remembered."""
        ...

    def note_edits(self, scope: int, edits: dict[Dot, Edits], stale: list[tuple[Dot, int, int]]) -> None:
        """Remember edits, which replaced some of what is remembered of others: (change, collection, row) each."""
        ...

    def forget_edits(self) -> None:
        """Remember none, for what they are of is mended."""
        ...

    def take_landed(self) -> list[Landed]: ...
    def put_audit(self, rows: Iterable[AuditRow]) -> None: ...
    def trim_audit(self, before_ms: int, most: int) -> int: ...
    def put_provisional(self, scope: int, dots: list[tuple[bytes, int]], giver: Context) -> None: ...
    def drop_provisional(self, scope: int, dots: list[tuple[bytes, int]]) -> None: ...


class Store(Protocol):
    """A durable store that several threads share."""

    def reading(self) -> AbstractContextManager[Reader]: ...
    def snapshot(self) -> Reader: ...
    def writing(self) -> AbstractContextManager[Writer]: ...
    def declare(self, collections: list[CollectionRow], progress: Callable[[int, int], None] | None) -> None: ...
    def close(self) -> None: ...
