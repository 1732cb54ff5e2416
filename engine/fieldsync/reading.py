"""Reading records: one by its key, and queries, as frozen snapshots of one moment."""

from __future__ import annotations

from itertools import groupby, islice, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from fieldsync import record
from fieldsync.errors import AmbiguousKey, NotFound
from fieldsync.limits import SCAN_ROWS_TARGET
from fieldsync.schema import BaseRecord
from fieldsync.sqlite.layout import search_table
from fieldsync.watch import UNKNOWN, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Collection as Some

    from fieldsync.apply import Touched
    from fieldsync.query import Plan
    from fieldsync.record import Rivals
    from fieldsync.replica import Replica
    from fieldsync.schema import Collection
    from fieldsync.store import Reader, Row
    from fieldsync.watch import News, Watch

R = TypeVar("R", bound=BaseRecord)
# of Touched; C's item by number takes half the time of Python's by name
_place_of, _key_of, _was_there, _cells_of = itemgetter(0, 1), itemgetter(2), itemgetter(3), itemgetter(5)
SCOPE_NAME = "(SELECT name FROM fs_scope WHERE id=_scope)"


class Query(Generic[R]):
    """Records by conditions, in an order. Immutable: each method gives a new query."""

    __slots__ = ("_plan", "_replica")

    def __init__(self, replica: Replica, plan: Plan) -> None:
        self._replica = replica
        self._plan = plan

    def where(self, **conditions: Any) -> Query[R]:
        """With further conditions: field=value, or field__gt, __ge, __lt, __le, __ne, __in; also key and scope."""
        return Query(self._replica, self._plan.where(conditions))

    def search(self, words: str, *fields: str) -> Query[R]:
        """With all these words, as people type them: "a phrase" in quotes, val* for all words that begin so.

        In the fields that are declared with search=True, or just those named. The best come first, by how often and in
        how short a text the words are, unless order_by(...) says otherwise. Without a word it finds nothing.
        """
        return Query(self._replica, self._plan.search(words, fields))

    def order_by(self, *names: str) -> Query[R]:
        """In another order; "-price" for descending."""
        return Query(self._replica, self._plan.order_by(names))

    def limit(self, count: int) -> Query[R]:
        """At most so many."""
        return Query(self._replica, self._plan.only(limit=count))

    def offset(self, count: int) -> Query[R]:
        """Without the first so many."""
        return Query(self._replica, self._plan.only(offset=count))

    def __iter__(self) -> Iterator[R]:
        return iter(self.all())

    def all(self) -> list[R]:
        """The records, as frozen snapshots of one moment."""
        with self._replica.store.reading() as reader:
            return self._select(reader)

    def first(self) -> R | None:
        """The first record, or None."""
        found = self.limit(1).all()
        return found[0] if found else None

    def count(self) -> int:
        """How many records there are."""
        with self._replica.store.reading() as reader:
            number, has_columns = self._table(reader)
            if number is None:
                return 0
            if has_columns or not (self._plan.conditions.terms or self._plan.searches):
                return reader.count(number, *self._sql(reader, number))
            return len(self._select(reader))

    def _table(self, reader: Reader) -> tuple[int | None, bool]:
        """The collection's number, and whether its table has the columns that the plan's SQL is about."""
        collection = self._plan.conditions.collection
        known = reader.collection(collection.name)
        if known is None:
            return None, False
        return known.id, collection.record is not None and known.serves(collection.row)

    def _sql(self, reader: Reader, number: int) -> tuple[str, list[Any]]:
        numbers = {scope.name: scope.id for scope in reader.scopes()}
        return self._plan.sql(numbers.get, SCOPE_NAME, search_table(number))

    def _select(self, reader: Reader) -> list[R]:
        number, has_columns = self._table(reader)
        if number is None:
            return []
        collection = self._plan.conditions.collection
        names = {scope.id: scope.name for scope in reader.scopes()}
        tail, bindings = self._sql(reader, number) if has_columns else ("", [])
        found: list[Any] = []
        rows = reader.query(number, tail, bindings)
        while some := list(islice(rows, SCAN_ROWS_TARGET)):
            keys, scopes, packed = zip(*some, strict=True)
            values = values_of_each(collection, reader, list(packed))
            cells = zip(repeat(reader.dictionary), packed, strict=False)
            found += collection.snapshots(keys, map(names.__getitem__, scopes), values, cells)
        if not has_columns:
            found = self._plan.select(found)
        return found

    def watch(self, callback: Callable[[Event], object], *, via: Any = None) -> Watch:
        """Be called with an Event after each commit, local, synced or of another process, that touches the query.

        The callback runs in a thread of the library's, one call at a time; via, a function that schedules another
        (such as root.after_idle or loop.call_soon_threadsafe), runs it where the app wants. Conditions and searches
        count, order and limit do not; a changed record is in `updated` if it fulfils them now, else in `removed`.
        """
        return self._replica.watches.add(self._event, callback, via)

    def _event(self, news: News) -> Event:
        """What touched records, each named once, mean for the query, as they are now."""
        collection = self._plan.conditions.collection
        event = Event([], [], [])
        with self._replica.store.reading() as reader:
            number, _ = self._table(reader)
            scopes: dict[str, list[Touched]] = {}
            for (held, scope), every in groupby(news.touched, key=_place_of):
                if held == number:
                    scopes.setdefault(scope, []).extend(every)
            for scope, some in scopes.items():
                _, digest = news.digests.get(scope, UNKNOWN)
                records = self._plan.matching(_records(collection, reader, scope, some, digest))
                if len(records) == len(some) and all(map(_was_there, some)):  # mostly
                    event.updated.extend(records)
                    continue
                found = {one.key: one for one in records}
                for _, _, key, before, _, _ in some:
                    if key in found:
                        (event.updated if before else event.created).append(found[key])
                    elif before:
                        event.removed.append((scope, key))
        return event


class Table(Query[R]):
    """The records of one collection, as a query for all of them."""

    __slots__ = ()

    def __getitem__(self, key: str) -> R:
        """The record of a key. NotFound; AmbiguousKey where it lives in several scopes."""
        record = self.get(key)
        if record is None:
            raise NotFound(f"{self._plan.conditions.collection.name} has no {key!r}")
        return record

    def get(self, key: str, *, scope: str | None = None) -> R | None:
        """The record of a key, or None. AmbiguousKey where it lives in several scopes and none is named."""
        collection = self._plan.conditions.collection
        with self._replica.store.reading() as reader:
            rows = find(reader, collection, key, scope)
            if not rows:
                return None
            name = only(collection, key, rows)
            return cast("R", snapshot(collection, reader, key, name, rows[name].packed))


def find(reader: Reader, collection: Collection, key: str, scope: str | None) -> dict[str, Row]:
    """The rows of a key, by the names of their scopes: in one scope, or in all."""
    return find_each(reader, collection, [key], scope).get(key, {})


def find_each(
    reader: Reader, collection: Collection, keys: Sequence[str], scope: str | None
) -> dict[str, dict[str, Row]]:
    """As find, of many keys: those that have rows."""
    for key in keys:
        if not isinstance(key, str):
            raise TypeError(f"a key is a text, not {type(key).__name__}")
    known = reader.collection(collection.name)
    if known is None or not keys:
        return {}
    if scope is None:
        scopes = reader.scopes()
        rows = reader.by_key_anywhere(known.id, keys[0]) if len(keys) == 1 else reader.by_keys_anywhere(known.id, keys)
    else:
        held = reader.scope(scope)
        scopes, rows = ([held], reader.by_key(known.id, held.id, keys)) if held else ([], [])
    names = {held.id: held.name for held in scopes}
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.key, {})[names[row.scope]] = row
    return found


def _records(
    collection: Collection, reader: Reader, scope: str, touched: list[Touched], digest: bytes
) -> list[BaseRecord]:
    """Touched records of a scope that live; none where it was left meanwhile.

    digest: as long as the scope has it, nobody has written since, and what is at hand of records is what they are.
    """
    known, held = reader.collection(collection.name), reader.scope(scope)
    if known is None or held is None:
        return []
    keys, at_hand = list(map(_key_of, touched)), list(map(_cells_of, touched))
    if held.digest != digest or not any(at_hand):
        packed = {row.key: row.packed for row in reader.by_key(known.id, held.id, keys)}
    elif all(at_hand):  # mostly
        packed = dict(zip(keys, at_hand, strict=True))
    else:
        packed = {key: cells for key, cells in zip(keys, at_hand, strict=True) if cells}
        others = [key for key in keys if key not in packed]
        packed |= {row.key: row.packed for row in reader.by_key(known.id, held.id, others)}
    values = values_of_each(collection, reader, list(packed.values()))
    cells = zip(repeat(reader.dictionary), packed.values(), strict=False)
    return collection.snapshots(list(packed), repeat(scope), values, cells)


def only(collection: Collection, key: str, scopes: Some[str]) -> str:
    """The one scope in which a key lives; NotFound, AmbiguousKey."""
    if not scopes:
        raise NotFound(f"{collection.name} has no {key!r}")
    if len(scopes) > 1:
        raise AmbiguousKey(f"{collection.name} {key!r} lives in the scopes {', '.join(sorted(scopes))}; pass scope=")
    return next(iter(scopes))


def snapshot(collection: Collection, reader: Reader, key: str, scope: str, packed: bytes) -> BaseRecord:
    """The frozen record of a packed one."""
    cells = (reader.dictionary, packed)
    return collection.snapshot(key, scope, values_of(collection, reader, packed), cells=cells)


def values_of(collection: Collection, reader: Reader, packed: bytes) -> Any:
    """The values of a packed record as its collection's records hold them: a tuple if declared, else a dict."""
    (values,) = values_of_each(collection, reader, [packed])
    return values


def values_of_each(collection: Collection, reader: Reader, records: list[bytes]) -> list[Any]:
    """As values_of, of many packed records."""
    if collection.record is None:
        return [record.read_all(reader.dictionary, packed) for packed in records]
    wanted = collection.numbers(reader.dictionary)
    every = record.read_each(reader.dictionary, records, wanted, collection.absent)
    if not collection.special:
        return every
    if any(one.keeps_all for one in collection.fields):
        rivals = record.rivals(reader.dictionary, records)
        every = [_with_all(collection, wanted, *one) for one in zip(every, rivals, strict=True)]
    return [collection.shown(values) for values in every]


def _with_all(
    collection: Collection, wanted: tuple[int, ...], values: tuple[Any, ...], rivals: list[Rivals]
) -> tuple[Any, ...]:
    """With all that was written apart, in fields that keep it."""
    kept = {number: tuple([claim[3] for claim in claims]) for number, claims in rivals}
    every = zip(collection.fields, wanted, values, strict=True)
    return tuple([kept.get(number, value) if one.keeps_all else value for one, number, value in every])
