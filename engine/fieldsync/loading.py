"""Loading many rows: batches a scope, several batches a commit."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import codec, plain, record, texts
from fieldsync.draft import increment
from fieldsync.edits import replacing
from fieldsync.errors import DataError, LimitExceeded, MissingDependency, SchemaError
from fieldsync.limits import (
    CHANGE_RECORDS_MAX,
    KEY_BYTES_MAX,
    LOAD_BUFFER_ROWS_MAX,
    LOAD_COMMIT_ROWS,
    LOAD_SHAPES_MAX,
    REJECTED_ROWS_KEPT,
)
from fieldsync.pending import Creation
from fieldsync.template import columns_in, fill_template
from fieldsync.transaction import KINDS, LocalChange, check_names
from fieldsync.writing import check_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fieldsync.record import Dictionary
    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.schema import Collection
    from fieldsync.store import Row

    Namer = str | Callable[[Mapping[str, Any]], str]

PLAIN = (str, int, bytes, bool, type(None))  # types whose values are the same where they are equal


class Shape(NamedTuple):
    """What rows of the same fields share."""

    fields: tuple[tuple[str, int], ...]  # (name, kind) of their cells
    given: frozenset[tuple[str, int]]  # what the rows named; the others are defaults, which an update leaves alone


class Waiting(NamedTuple):
    """A row on its way into a scope."""

    number: int
    key: str
    shape: Shape
    values: tuple[Any, ...]


class Gathered:
    """Rows on their way into a scope, by key; in parts, which Python's garbage collector need not look through."""

    __slots__ = ("numbers", "shapes", "values")

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, ...]] = {}
        self.numbers: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}  # of those that have not just the declared fields

    def shape_as(self, key: str, shape: Shape | None) -> None:
        """Note the shape of a row that was put in."""
        if shape is not None:
            self.shapes[key] = shape
        else:
            self.shapes.pop(key, None)

    def shape(self, declared: Shape) -> Shape | None:
        """That of all rows; None where they have several."""
        shapes = list(self.shapes.values())
        if not shapes:
            return declared
        return shapes[0] if shapes.count(shapes[0]) == len(self.values) else None

    def rows(self, declared: Shape) -> list[Waiting]:
        """The rows one by one."""
        every = self.values.items()
        return [Waiting(self.numbers[key], key, self.shapes.get(key, declared), values) for key, values in every]


@dataclass(slots=True)
class LoadReport:
    """What a load did."""

    loaded: int = 0  # rows created or updated
    unchanged: int = 0  # rows that said what was there already
    repeated: int = 0  # rows whose key came again soon after; the later row is the one that counts
    rejected: list[tuple[int, str]] = field(default_factory=list)  # (row number from 1, reason); the first ones
    rejected_count: int = 0
    scopes: set[str] = field(default_factory=set)
    seconds: float = 0.0


def load(
    replica: Replica,
    collection: Collection,
    rows: Iterable[Mapping[str, Any]],
    *,
    key: Namer,
    scope: Namer,
    progress: bool | Callable[[int], object] = False,
) -> LoadReport:
    """See Database.load."""
    began = time.perf_counter()
    with _progress(progress) as tell:
        loader = _Loader(replica, collection, key, scope, tell)
        loader.take(rows)
    loader.report.seconds = time.perf_counter() - began
    return loader.report


def _namer(name: Namer) -> Callable[[Mapping[str, Any]], str]:
    return fill_template(name) if isinstance(name, str) else name


def _address(collection: Collection, key: Namer, scope: Namer) -> set[str]:
    """The columns that say where a row goes and are no fields."""
    named = {name for template in (key, scope) if isinstance(template, str) for name in columns_in(template)}
    return named & {"key", "scope"} if collection.record is None else named - collection.places.keys()


@contextmanager
def _progress(progress: bool | Callable[[int], object]) -> Iterator[Callable[[int], object]]:
    if not progress:
        yield lambda _: None
        return
    if callable(progress):
        yield progress
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        raise MissingDependency('a progress bar needs the package rich: pip install "fieldsync[cli]"') from None
    with Progress(TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done: bar.update(task, completed=done)


class _Loader:
    """Gathers rows a scope, so that changes are full, and commits several changes at a time."""

    def __init__(
        self,
        replica: Replica,
        collection: Collection,
        key: Namer,
        scope: Namer,
        tell: Callable[[int], object],
    ) -> None:
        self.report = LoadReport()
        self._replica = replica
        self._collection = collection
        self._key = _namer(key)
        self._scope = _namer(scope)
        self._address = _address(collection, key, scope)
        self._tell = tell
        self._whole = Shape(collection.cells, frozenset(collection.cells))
        self._shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], Shape] = {}
        self._fields = dict(zip(collection.cells, collection.fields, strict=True))
        self._absent = dict(zip(collection.cells, collection.absent, strict=True))
        self._has_none = collection.record is None or any(one.optional for one in collection.fields)
        self._waiting: dict[str, Gathered] = {}
        self._ready: list[tuple[str, Gathered]] = []
        self._waiting_rows = 0
        self._ready_rows = 0
        self._finds_none = True  # whether all rows that were written last were new

    def take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Load rows, and report which not and why."""
        key_of, scope_of, pick = self._key, self._scope, plain.pick
        (names, kinds), others = self._collection.usual_kinds, len(self._address)
        last = None  # the scope of the row before, mostly the same text; its rows are gathered in `batch`
        number = 0
        for number, row in enumerate(rows, 1):
            try:
                key, scope = key_of(row), scope_of(row)
                if scope is not last or type(key) is not str or not (key.isascii() and 0 < len(key) <= KEY_BYTES_MAX):
                    check_names(scope, key)
                values, shape = pick(row, names, kinds, others), None
                if values is None:
                    values, shape = self._checked(row)
            except (DataError, TypeError, ValueError, KeyError) as error:
                self._reject(number, error)
                continue
            if scope is not last:
                batch, last = self._waiting.setdefault(scope, Gathered()), scope
            if key in batch.values:
                self.report.repeated += 1
            else:
                self._waiting_rows += 1
            batch.values[key], batch.numbers[key] = values, number  # in the place of an earlier one
            if shape is not None or batch.shapes:
                batch.shape_as(key, shape)
            if len(batch.values) >= CHANGE_RECORDS_MAX or self._waiting_rows >= LOAD_BUFFER_ROWS_MAX:
                self._move(max(self._waiting, key=lambda name: len(self._waiting[name].values)), number)
                last = None
        for scope in sorted(self._waiting):
            self._move(scope, number)
        self._commit(number)

    def _checked(self, row: Mapping[str, Any]) -> tuple[tuple[Any, ...], Shape]:
        """The values of a row that is not as rows mostly are, from the doors of its fields."""
        if self._address:
            row = {name: value for name, value in row.items() if name not in self._address}
        # nothing declared: the kernel checks the values when it packs them
        written = row if self._collection.record is None else self._collection.check_new(row)
        return tuple(written.values()), self._shape(tuple(written), tuple(row))

    def _shape(self, names: tuple[str, ...], given: tuple[str, ...]) -> Shape:
        shape = self._shapes.get((names, given))
        if shape is None:
            fields = tuple(self._collection.field(name).cell for name in names)
            shape = Shape(fields, frozenset(self._collection.field(name).cell for name in given))
            if len(self._shapes) < LOAD_SHAPES_MAX:
                self._shapes[names, given] = shape
        return shape

    def _reject(self, number: int, error: Exception) -> None:
        self.report.rejected_count += 1
        if len(self.report.rejected) < REJECTED_ROWS_KEPT:
            reason = f"no value for {error}" if isinstance(error, KeyError) else str(error)
            self.report.rejected.append((number, reason))

    def _move(self, scope: str, taken: int) -> None:
        """Rows that are enough for a change go into the next commit, of so many rows taken."""
        batch = self._waiting.pop(scope)
        self._waiting_rows -= len(batch.values)
        self._ready_rows += len(batch.values)
        self._ready.append((scope, batch))
        if self._ready_rows >= LOAD_COMMIT_ROWS:
            self._commit(taken)

    def _commit(self, taken: int) -> None:
        if not self._ready:
            return
        with self._replica.writing() as writing:
            for scope, batch in self._ready:
                self.report.scopes.add(scope)
                self._write(writing, scope, batch)
        self._ready, self._ready_rows = [], 0
        self._tell(taken)

    def _write(self, writing: WriteBatch, scope: str, gathered: Gathered) -> None:
        """Create the rows whose keys are new in the scope, and update those that differ from what is there."""
        writer = writing.writer
        (number,) = writer.collection_ids([self._collection.name])
        shape = gathered.shape(self._whole)
        if self._finds_none and self._create_plain(writing, number, scope, shape, gathered.values, may_be_there=True):
            return
        batch = gathered.rows(self._whole)
        entered = writer.enter(scope, ready=True)
        known = {row.key: row for row in writer.by_key(number, entered.id, [one.key for one in batch])}
        self._finds_none = not known
        self._split([one for one in batch if one.key not in known], partial(self._create, writing, number, scope))
        if known:
            update = partial(self._update, writing, number, scope, known)
            self._split([one for one in batch if one.key in known], update)

    def _split(self, batch: list[Waiting], write: Callable[[list[Waiting]], None]) -> None:
        """One change of these rows; in halves where they are too large together or one has a value that none may."""
        if not batch:
            return
        try:
            write(batch)
        except (LimitExceeded, SchemaError, TypeError) as error:
            if len(batch) == 1:
                self._reject(batch[0].number, self._named(batch[0], error))
                return
            self._split(batch[: len(batch) // 2], write)
            self._split(batch[len(batch) // 2 :], write)

    def _named(self, one: Waiting, error: Exception) -> Exception:
        """The error with the name of the field that it is about, where that is for the door to say."""
        try:
            for cell, value in zip(one.shape.fields, one.values, strict=True):
                (self._fields.get(cell) or self._collection.field(cell[0])).check(value)
        except TypeError as named:
            return named
        return error

    def _create(self, writing: WriteBatch, number: int, scope: str, batch: list[Waiting]) -> None:
        shapes, values = [one.shape for one in batch], {one.key: one.values for one in batch}
        shape = shapes[0] if shapes.count(shapes[0]) == len(batch) else None
        if self._create_plain(writing, number, scope, shape, values, may_be_there=False):
            return
        change = LocalChange(writing.writer, writing.writer.enter(scope, ready=True))
        name = self._collection.name
        if self._collection.record is None:
            check_kinds(writing.writer, name, b"", {cell: None for one in batch for cell in one.shape.fields})
        each = [(one.key, one.shape.fields, self._written(one.shape.fields, one.values)) for one in batch]
        creations = [Creation(number, name, *one) for one in each]
        touched = change.create(creations, self._replica.wall_ms(), self._replica.mint)
        writing.note(scope, touched, change.dots)
        self.report.loaded += len(batch)

    def _create_plain(
        self,
        writing: WriteBatch,
        number: int,
        scope: str,
        shape: Shape | None,
        rows: dict[str, tuple[Any, ...]],
        *,
        may_be_there: bool,
    ) -> bool:
        """The same at once, where all have the same fields and plain values and none is there; else nothing is done."""
        if shape is None:
            return False
        fields = shape.fields
        change = LocalChange(writing.writer, writing.writer.enter(scope, ready=True))
        records = list(rows.values())
        if self._has_none:
            records = [values if None not in values else self._written(fields, values) for values in records]
        batches = [plain.Batch(number, self._collection.name, fields, list(rows), records)]
        now_ms, mint = self._replica.wall_ms(), self._replica.mint
        try:
            if self._collection.record is None:
                check_kinds(writing.writer, self._collection.name, b"", fields)
            touched = change.create_plain(batches, now_ms, mint, may_be_there=may_be_there)
        except (LimitExceeded, SchemaError):
            return False  # as some of them may be fine
        if touched is None:
            return False
        writing.note(scope, touched, change.dots)
        self.report.loaded += len(rows)
        return True

    def _written(self, fields: tuple[tuple[str, int], ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
        """A new row's values; None is left out where a field without a cell reads as None anyway."""
        pairs = zip(fields, values, strict=True)
        return tuple([... if value is None and self._absent.get(cell) is None else value for cell, value in pairs])

    def _update(
        self, writing: WriteBatch, number: int, scope: str, known: dict[str, Row], batch: list[Waiting]
    ) -> None:
        change = LocalChange(writing.writer, writing.writer.enter(scope, ready=True))
        for one in batch:
            row = known[one.key]
            if self._collection.record is None:
                check_kinds(writing.writer, self._collection.name, row.packed, one.shape.fields)
            before = self._before(writing.writer.dictionary, row.packed)
            differing, elements = self._differences(before, one), self._elements(before, one)
            shared = [pair for pair in differing if pair[1] in texts.KINDS]
            splices = {pair: replacing(pair[1], before[pair], differing.pop(pair)) for pair in shared}
            if differing or elements or splices:
                pending = change.add(number, self._collection.name, one.key, row)
                pending.fields, pending.elements, pending.splices = differing, elements, splices
        updated = len(change.pending)
        touched = change.land(self._replica.wall_ms(), self._replica.mint)
        writing.note(scope, touched, change.dots)
        self.report.loaded += updated
        self.report.unchanged += len(batch) - updated

    def _before(self, dictionary: Dictionary, packed: bytes) -> dict[tuple[str, int], Any]:
        """What a record holds, by cell; of undeclared ones as if all were registers."""
        if self._collection.record is None:
            return {(name, KINDS["register"]): value for name, value in record.read_all(dictionary, packed).items()}
        ids = tuple(dictionary.field_ids.get(cell, 0) for cell in self._absent)
        values = record.read(dictionary, packed, ids, tuple(self._absent.values()))
        shown = [texts.shown(value) if isinstance(value, codec.Updates) else value for value in values]
        return dict(zip(self._absent, shown, strict=True))

    def _differences(self, before: dict[tuple[str, int], Any], one: Waiting) -> dict[tuple[str, int], Any]:
        """The given fields that say something else than is there; for counters, by how much."""
        differing: dict[tuple[str, int], Any] = {}
        for cell, value in zip(one.shape.fields, one.values, strict=True):
            if cell not in one.shape.given:
                continue
            if cell[1] == KINDS["counter"]:
                if by := increment(self._fields[cell], before[cell], value):
                    differing[cell] = by
            elif cell[1] != KINDS["set"] and not _is_same(before.get(cell), value):
                differing[cell] = value
        return differing

    def _elements(self, before: dict[tuple[str, int], Any], one: Waiting) -> dict[tuple[str, int], tuple[Any, Any]]:
        """What comes into the given sets, and what goes."""
        found: dict[tuple[str, int], tuple[Any, Any]] = {}
        for cell, value in zip(one.shape.fields, one.values, strict=True):
            if cell[1] == KINDS["set"] and cell in one.shape.given:
                held = frozenset(before[cell])
                if held != value:
                    found[cell] = value - held, held - value
        return found


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are stored alike; 1, True and 1.0 are not, nor are Decimals of other digits."""
    if type(one) is type(other) and isinstance(one, PLAIN):
        return bool(one == other)
    return codec.encode(one) == codec.encode(other)
