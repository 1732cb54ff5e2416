"""Queries: what where(...), order_by(...), limit and offset mean, as SQL and in Python.

A declared collection is a table with the columns "_scope" (the scope's number in this file), "_key" (text) and one for
each field, of no declared type, holding `column_value` of what the record reads. Where nothing is declared there are no
columns and the same plan runs over snapshots. Both follow SQLite: None < numbers < texts < bytes, whatever the field's
declared type, so a cell that another version of the app wrote never makes a query fail. True is 1 and NaN is None; a
Decimal compares as the nearest float, a date or datetime as its ISO text in UTC, a list or dict as its JSON.

None is equal to None, different from all else, and neither greater nor less than anything. Words are searched in the
columns too, by a table of SQLite's FTS5 or by one made for the moment (search.py).
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from operator import ge, gt, le, lt
from typing import Any, NamedTuple, TypeAlias

from fieldsync import codec, search, texts
from fieldsync.errors import LimitExceeded, SchemaError
from fieldsync.limits import IN_VALUES_MAX, ROWS_MAX, SEARCHES_MAX, TERMS_MAX
from fieldsync.schema import BaseRecord, Collection, Field, Snapshot, closest
from fieldsync.store import Searched
from fieldsync.values import check_value

ColumnValue: TypeAlias = int | float | str | bytes | None
ScopeId: TypeAlias = Callable[[str], int | None]  # a scope's name -> its number in this file, None if it has none

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {"gt": gt, "ge": ge, "lt": lt, "le": le}
SYMBOLS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
EQUALITIES = ("eq", "ne", "in")
OPERATORS = ("eq", "ne", "in", "contains", *COMPARISONS)


def quote(name: str) -> str:
    """A table's or column's name as SQL writes it; SchemaError for a name with NUL in it."""
    if "\0" in name:
        raise SchemaError(f"the name {name!r} holds NUL")
    return '"' + name.replace('"', '""') + '"'


def column_value(value: object) -> ColumnValue:
    """What a column holds for a record's value; None for NaN and for kinds of value that this version does not know."""
    if value is None or type(value) is str or type(value) is bytes:
        return value
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else float(value)  # a counter's sum may be beyond
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Decimal):
        return None if value.is_nan() else float(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, frozenset | set):
        value = [element for _, element in sorted((codec.encode(element), element) for element in value)]
    if isinstance(value, codec.Updates):
        return column_value(texts.shown(value)) if value.kind in texts.KINDS else None
    if isinstance(value, list | dict | tuple):
        return TO_JSON(_json(value))
    return None


def _json(value: object) -> Any:
    """A value as JSON knows it: bytes as hexadecimal text, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {key: _json(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [element if type(element) is str else _json(element) for element in value]
    plain = value if isinstance(value, bool) else column_value(value)
    if isinstance(plain, bytes):
        return plain.hex()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _rank(value: ColumnValue) -> tuple[int, Any]:
    """What sorts as SQLite sorts column values."""
    if value is None:
        return 0, 0
    if isinstance(value, str):
        return 2, value
    return (3, value) if isinstance(value, bytes) else (1, value)


def _read(record: BaseRecord, name: str) -> ColumnValue:
    """What a column holds of a record: of a field that keeps all, the value with the highest stamp."""
    try:
        value = record[name]
    except KeyError:
        return None
    if isinstance(value, tuple) and not isinstance(record, Snapshot):
        value = value[0] if value else None
    return column_value(value)


def _elements(value: ColumnValue) -> list[Any]:
    """The elements of a column's JSON array, as SQLite's json_each gives them."""
    try:
        found = json.loads(value) if isinstance(value, str) else []
    except ValueError:
        return []
    some = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else [found]
    return [int(one) if isinstance(one, bool) else one for one in some if not isinstance(one, list | dict)]


class Term(NamedTuple):
    """One condition: `name operator operand`; the operand of `in` is a tuple."""

    name: str
    operator: str
    operand: Any

    def sql(self, column: str) -> tuple[str, list[ColumnValue]]:
        """The condition on an SQL expression, and its bind values."""
        if self.operator == "in":
            values = [value for value in self.operand if value is not None]
            sql = f"{column} IN ({', '.join('?' * len(values))})"
            return (sql if len(values) == len(self.operand) else f"({sql} OR {column} IS NULL)"), values
        if self.operator == "ne":
            return f"{column} IS NOT ?", [self.operand]
        if self.operator == "includes":
            return f"instr({column}, ?) > 0", [self.operand]
        if self.operator == "contains":
            found = f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value IS ?)"
            return f"(json_valid({column}) AND {found})", [self.operand]
        if self.operator == "eq":
            return f"{column} IS ?", [self.operand]
        return f"{column} {SYMBOLS[self.operator]} ?", [self.operand]

    def matches(self, value: ColumnValue) -> bool:
        """Whether the condition holds for a column's value."""
        rank = _rank(value)
        if self.operator == "in":
            return any(rank == _rank(operand) for operand in self.operand)
        if self.operator == "eq":
            return rank == _rank(self.operand)
        if self.operator == "ne":
            return rank != _rank(self.operand)
        if self.operator == "includes":
            return isinstance(value, str) and self.operand in value
        if self.operator == "contains":
            return any(_rank(element) == _rank(self.operand) for element in _elements(value))
        return value is not None and COMPARISONS[self.operator](rank, _rank(self.operand))


class Conditions(NamedTuple):
    """What where(...) asks for: terms that must all hold."""

    collection: Collection
    terms: tuple[Term, ...] = ()

    def where(self, given: Mapping[str, object]) -> "Conditions":
        """These conditions and further ones, {"price__gt": 10}; SchemaError for a name, TypeError for a value."""
        terms = self.terms + tuple(_term(self.collection, name, value) for name, value in given.items())
        if len(terms) > TERMS_MAX:
            raise LimitExceeded(f"a query takes up to {TERMS_MAX} conditions")
        return self._replace(terms=terms)

    def sql(self, scope_id: ScopeId, *, is_found: bool = False) -> tuple[str, list[ColumnValue]]:
        """An SQL expression over the collection's table, never empty, and its bind values.

        is_found: the rows are found by a search, so that no index of the table is of use.
        """
        parts, binds = ["1"], []
        for term in self.terms:
            column = "+" * is_found + quote(COLUMNS.get(term.name, term.name))
            part, values = (_numbered(term, scope_id) if term.name == "scope" else term).sql(column)
            parts.append(part)
            binds += values
        return " AND ".join(parts[1:] or parts), binds

    def matches(self, record: BaseRecord) -> bool:
        """Whether a record fulfils them all, exactly as the SQL would say of its columns."""
        return all(term.matches(_read(record, term.name)) for term in self.terms)


COLUMNS = {"key": "_key", "scope": "_scope"}


def _numbered(term: Term, scope_id: ScopeId) -> Term:
    """A term on a scope's name as one on its number; 0, which numbers no scope, stands for one that is not here."""
    if term.operator == "in":
        return term._replace(operand=tuple(scope_id(name) or 0 for name in term.operand))
    return term._replace(operand=scope_id(term.operand) or 0)


def _term(collection: Collection, given: str, value: object) -> Term:
    name, operator = _parsed(collection, given)
    label = f"{collection.name}.{given}"
    if operator in EQUALITIES and name not in COLUMNS and (field := collection.field(name)).kind == "set":
        return Term(name, operator, _operand_of_set(field, operator, label, value))
    if operator == "in":
        return Term(name, operator, tuple(_operand(name, label, item) for item in _bounded(label, value)))
    if name == "scope" and operator not in ("eq", "ne"):
        raise SchemaError(f"{label}: a scope can be compared by =, __ne and __in")
    if value is None and operator in COMPARISONS:
        raise TypeError(f"{label}: nothing is greater or less than None; {name}__ne=None asks for any value")
    if operator == "contains" and name not in COLUMNS and collection.field(name).kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"{label} wants str, got {type(value).__name__}")
        operator = "includes"
    return Term(name, operator, _operand(name, label, value))


def _parsed(collection: Collection, given: str) -> tuple[str, str]:
    """The name and operator in "price__gt"; a declared field may have "__" in its own name. SchemaError."""
    head, found, operator = given.rpartition("__")
    if given in COLUMNS or given in collection.places or not found or not head:
        return _known(collection, given), "eq"
    if operator not in OPERATORS:
        hint = closest(given, collection.places)
        raise SchemaError(f"{collection.name}.{given}: {operator!r} is none of {', '.join(OPERATORS)}{hint}")
    return _known(collection, head), operator


def _known(collection: Collection, name: str) -> str:
    return name if name in COLUMNS else collection.field(name).name


def _bounded(label: str, values: object) -> list[object]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise TypeError(f"{label} wants a list of values, got {type(values).__name__}")
    some = list(islice(values, IN_VALUES_MAX + 1))
    if len(some) > IN_VALUES_MAX:
        raise LimitExceeded(f"{label} takes up to {IN_VALUES_MAX} values")
    return some


def _operand(name: str, label: str, value: object) -> ColumnValue:
    operand = column_value(check_value(label, value))
    if name in COLUMNS and not isinstance(value, str):
        raise TypeError(f"{label} wants str, got {type(value).__name__}")
    if operand is None and value is not None:
        raise TypeError(f"{label}: NaN cannot be compared")
    return operand


def _operand_of_set(field: Field, operator: str, label: str, value: object) -> Any:
    """Of a set as a whole: a set, or a list of some."""
    try:
        if operator == "in":
            return tuple(column_value(field.check(item)) for item in _bounded(label, value))
        return column_value(field.check(value))
    except TypeError as refusal:
        raise TypeError(f"{refusal}; {field.name}__contains asks for an element") from None


class Ordering(NamedTuple):
    """What order_by(...) asks for: (name, descending) by falling weight. Equal records go by key."""

    collection: Collection
    terms: tuple[tuple[str, bool], ...] = ()

    def by(self, names: Iterable[str]) -> "Ordering":
        """Order by these names, a leading "-" for descending, instead; SchemaError for one that is not known."""
        terms = [(_known(self.collection, name.removeprefix("-")), name.startswith("-")) for name in names]
        if len(terms) > TERMS_MAX:
            raise LimitExceeded(f"a query is ordered by up to {TERMS_MAX} names")
        return self._replace(terms=tuple(terms))

    def sql(self, scope_name: str) -> str:
        """The terms of ORDER BY, empty if no order is asked for; `scope_name` is SQL for the name of a row's scope."""
        columns = {"key": quote("_key"), "scope": scope_name}
        return ", ".join(f"{columns.get(name) or quote(name)}{' DESC' * down}" for name, down in self._all())

    def sorted(self, records: Iterable[BaseRecord]) -> list[BaseRecord]:
        """The records in this order, exactly as the SQL would order their rows."""
        ordered = list(records)
        for name, down in reversed(self._all()):
            ordered.sort(key=lambda record: _rank(_read(record, name)), reverse=down)
        return ordered

    def _all(self) -> tuple[tuple[str, bool], ...]:
        return (*self.terms, ("key", False)) if self.terms else ()


class Plan(NamedTuple):
    """One query: conditions, searches, order, and which of the records that fulfil them: `limit` from `offset` on."""

    conditions: Conditions
    ordering: Ordering
    limit: int | None = None
    offset: int = 0
    searches: tuple[str, ...] = ()  # expressions of FTS5

    @classmethod
    def of(cls, collection: Collection) -> "Plan":
        """The query for all records of a collection."""
        return cls(Conditions(collection), Ordering(collection))

    def where(self, given: Mapping[str, object]) -> "Plan":
        """This query with further conditions."""
        return self._replace(conditions=self.conditions.where(given))

    def search(self, text: object, names: Iterable[str] = ()) -> "Plan":
        """This query for records with some words in searched fields, all if none is named; SchemaError, TypeError."""
        collection = self.conditions.collection
        columns = self._searched().columns
        for name in names:
            if _known(collection, name) not in columns:
                raise SchemaError(f"{collection.name}.{name} is not searched: declare it with search=True")
        if len(self.searches) == SEARCHES_MAX:
            raise LimitExceeded(f"a query takes up to {SEARCHES_MAX} searches")
        # always by name: the table may have columns that another version of the app declared
        return self._replace(searches=(*self.searches, search.expression(text, tuple(names) or columns)))

    def order_by(self, names: Iterable[str]) -> "Plan":
        """This query in another order."""
        return self._replace(ordering=self.ordering.by(names))

    def only(self, *, limit: int | None = None, offset: int | None = None) -> "Plan":
        """This query with another limit or offset, counts of records; TypeError, ValueError below 0."""
        return self._replace(
            limit=self.limit if limit is None else _count("limit", limit),
            offset=self.offset if offset is None else _count("offset", offset),
        )

    def sql(self, scope_id: ScopeId, scope_name: str, search_table: str = "") -> tuple[str, list[ColumnValue]]:
        """What follows FROM table, as `Conditions.sql` and `Ordering.sql` make it, and the bind values."""
        condition, binds = self.conditions.sql(scope_id, is_found=bool(self.searches))
        order = self.ordering.sql(scope_name)
        sql = f"WHERE {condition}"
        if self.searches:
            rank = "" if order else ", rank AS _rank"
            order = order or '_rank, "_key"'
            # the LIMIT, which is none, keeps SQLite from looking into the search table once for each record
            found = f"SELECT rowid AS _found{rank} FROM {search_table} WHERE {search_table} MATCH ? LIMIT -1"
            sql, binds = f"JOIN ({found}) ON _found=_id {sql}", [search.every(self.searches), *binds]
        sql += f" ORDER BY {order}" if order else ""
        if self.limit is None and not self.offset:
            return sql, binds
        return f"{sql} LIMIT ? OFFSET ?", [*binds, -1 if self.limit is None else self.limit, self.offset]

    def select(self, records: Iterable[BaseRecord]) -> list[BaseRecord]:
        """The same over all records of a collection that has no columns, or others."""
        found = self.ordering.sorted(self.matching(records))
        return found[self.offset :][: self.limit]

    def matching(self, records: Iterable[BaseRecord]) -> list[BaseRecord]:
        """Those that fulfil conditions and searches; of searches, the best first among these records."""
        if self.searches:
            records = sorted(records, key=lambda record: record.key)
            columns = self._searched().columns
            rows = [[_read(record, name) for name in columns] for record in records]
            places = search.ranked(self._searched(), search.every(self.searches), rows)
            records = [records[place] for place in places]
        if not self.conditions.terms:
            return list(records)
        return [record for record in records if self.conditions.matches(record)]

    def _searched(self) -> Searched:
        collection = self.conditions.collection
        if collection.search is None:
            raise SchemaError(f"{collection.name} has no field that is searched: declare one with search=True")
        return collection.search


def _count(what: str, number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{what} wants int, got {type(number).__name__}")
    if not 0 <= number <= ROWS_MAX:
        raise ValueError(f"{what} is a number of records from 0 on, got {number}")
    return int(number)
