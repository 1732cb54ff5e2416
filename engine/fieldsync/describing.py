"""What a file holds, collection by collection and field by field, and what a declaration would make of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fieldsync import record
from fieldsync.columns import join
from fieldsync.converting import MISFIT
from fieldsync.limits import MISFITS_NAMED
from fieldsync.transaction import KIND_NAMES, KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.schema import Collection, Field
    from fieldsync.store import CollectionRow, Column, Reader, Row

    Cell = tuple[str, int]  # the name and kind of cells


class TableChange(NamedTuple):
    """One thing that opening a file with a declaration does to a collection's table."""

    what: Literal["table", "column", "index", "search"]
    name: str  # of the table, or of a column
    action: Literal["made", "dropped", "filled anew"]

    def __str__(self) -> str:
        return f"{self.what} {self.name} {self.action}"


@dataclass(slots=True)
class FieldInfo:
    """One field that records hold, or that is declared."""

    name: str  # as it is declared, or as it is stored
    kind: str  # "register", "counter", "set", ... or a number, of a later version
    stored_as: str = ""  # the name of its cells, where that is another
    records: int = 0  # that have a value
    types: dict[str, int] = field(default_factory=dict)  # the types of the values, and how many records have each
    misfits: int = 0  # records whose value the declared field cannot show: they read as its default
    misfit_keys: list[str] = field(default_factory=list)  # of the first of them
    notes: list[str] = field(default_factory=list)  # where it is not as it is declared

    def __str__(self) -> str:
        types = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.types.items()))
        held = f"{self.kind} of {self.records:,} records" + (f" ({types})" if types else "")
        name = f"{self.name} (stored as {self.stored_as})" if self.stored_as else self.name
        return f"{name}: {'; '.join([held, *self.notes])}"


@dataclass(slots=True)
class CollectionInfo:
    """One collection of a file, or of a declaration."""

    name: str
    records: int
    fields: list[FieldInfo]
    changes: list[TableChange] = field(default_factory=list)  # that opening the file with the declaration makes
    rows_rebuilt: int = 0  # by that

    def __str__(self) -> str:
        head = f"{self.name}: {self.records:,} records"
        if self.changes:
            rebuilt = f"{self.rows_rebuilt:,} rows would be written anew: " if self.rows_rebuilt else ""
            head += f"; {rebuilt}{', '.join(map(str, self.changes))}"
        return "\n".join([head, *(f"  {one}" for one in self.fields)])


def describe(
    reader: Reader, declared: Iterable[Collection], progress: Callable[[int, int], object] | None = None
) -> list[CollectionInfo]:
    """All collections of a file, and those that are declared, by name. progress(done, total): numbers of records."""
    tell = _told(reader, progress)
    wanted = {collection.name: collection for collection in declared}
    held = {row.name: row for row in reader.collections()}
    return [_described(reader, name, held.get(name), wanted.get(name), tell) for name in sorted(held.keys() | wanted)]


def _told(reader: Reader, progress: Callable[[int, int], object] | None) -> Callable[[int], object]:
    if progress is None:
        return lambda _: None
    done, total = 0, reader.count_rows()

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, max(done, total))

    return tell


def _described(
    reader: Reader,
    name: str,
    row: CollectionRow | None,
    declared: Collection | None,
    tell: Callable[[int], object],
) -> CollectionInfo:
    info = CollectionInfo(name, 0, [])
    fields: dict[Cell, FieldInfo] = {}
    known = dict(zip(declared.cells, declared.fields, strict=True)) if declared else {}
    for some in _rows(reader, row):
        info.records += len(some)
        _count(reader, some, fields, known)
        tell(len(some))
    if declared is not None:
        _compare(known, fields)
        _compare_indexes(declared, row, fields)
        info.changes = table_changes(row, declared.row)
        info.rows_rebuilt = info.records if row and info.changes else 0
    info.fields = sorted(fields.values(), key=attrgetter("name", "kind"))
    return info


def _rows(reader: Reader, row: CollectionRow | None) -> Iterator[list[Row]]:
    for scope in reader.scopes() if row else ():
        for number, rows in reader.records(scope.id):
            if row and number == row.id:
                yield rows


def _count(reader: Reader, some: list[Row], fields: dict[Cell, FieldInfo], known: dict[Cell, Field]) -> None:
    """Count the fields of records, the types of their values, and those that the declared fields cannot show."""
    every = record.stamps(reader.dictionary, [row.packed for row in some])
    for row, stamps in zip(some, every, strict=True):
        cells = sorted({(name, kind) for name, kind, *_ in stamps if not name.startswith("_")})
        for cell in cells:
            fields.setdefault(cell, _info(cell, known.get(cell))).records += 1
        read = [cell for cell in cells if cell[1] in KIND_NAMES]
        ids = tuple(reader.dictionary.field_ids[cell] for cell in read)
        values = record.read(reader.dictionary, row.packed, ids, (None,) * len(ids))
        for cell, value in zip(read, values, strict=True):
            _count_value(fields[cell], cell, value, known.get(cell), row.key)


def _info(cell: Cell, known: Field | None) -> FieldInfo:
    name, kind = cell
    kind_name = KIND_NAMES.get(kind, f"kind {kind}")
    return FieldInfo(known.name, kind_name, known.stored_as) if known else FieldInfo(name, kind_name)


def _count_value(info: FieldInfo, cell: Cell, value: Any, known: Field | None, key: str) -> None:
    shared = {KINDS["text"]: "str", KINDS["list"]: "list", KINDS["map"]: "dict"}
    types = {type(element).__name__ for element in value} if cell[1] == KINDS["set"] else {_type(value)}
    for name in {shared[cell[1]]} if cell[1] in shared else types:
        info.types[name] = info.types.get(name, 0) + 1
    if known and known.conversion and known.conversion.read(value) is MISFIT:
        info.misfits += 1
        if len(info.misfit_keys) < MISFITS_NAMED:
            info.misfit_keys.append(key)


def _type(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _compare(known: dict[Cell, Field], fields: dict[Cell, FieldInfo]) -> None:
    """Note where what is held is not what is declared."""
    strangers = [cell for cell in fields if cell not in known]
    kinds = {name: KIND_NAMES[kind] for name, kind in known}
    for name, kind in strangers:
        here = f"declared as a {kinds[name]}: kept, not shown" if name in kinds else "not declared: kept, and passed on"
        fields[name, kind].notes.append(here)
    for cell, one in known.items():
        if cell in fields:
            fields[cell].notes += _misread(one, fields[cell])
            continue
        fields[cell] = _info(cell, one)
        others = [
            name
            for name, kind in strangers
            if kind == cell[1] and name not in kinds and _may_be(one, fields[name, kind])
        ]
        hint = f'; if it was called {" or ".join(others[:3])} before, say so: stored_as="{others[0]}"' if others else ""
        fields[cell].notes.append("declared, held by none" + hint)


def _compare_indexes(declared: Collection, row: CollectionRow | None, fields: dict[Cell, FieldInfo]) -> None:
    """Note where the table has an index or a search that is declared no more."""
    wanted = {column.name: column for column in declared.row.columns}
    for column in row.columns if row and row.serves(declared.row) else ():
        one = wanted.get(column.name)
        if one is None:
            continue
        extra = ["an index"] * (column.indexed > one.indexed) + ["a search"] * (column.tokenizer > one.tokenizer)
        if extra:
            fields[column.cell].notes.append(f"has {' and '.join(extra)} that is not declared")


def _may_be(known: Field, info: FieldInfo) -> bool:
    """Whether what is held could have been written to a declared field under another name."""
    if known.kind != "register" or known.type is object:
        return True
    return info.types.keys() <= {known.type.__name__, "None", *(known.conversion.sources if known.conversion else ())}


def _misread(known: Field, info: FieldInfo) -> list[str]:
    """Where values are not of the declared type."""
    wanted = {known.type.__name__, "None", *(("int", "Decimal") if known.kind == "counter" else ())}
    others = ", ".join(sorted(info.types.keys() - wanted))
    if known.kind not in ("register", "counter") or known.type is object or not (others or info.misfits):
        return []
    if known.conversion is None:
        return [f"declared as {known.type.__name__}: {others} is shown as it is"]
    notes = [f"declared as {known.type.__name__}: {others} is converted"] if known.conversion.sources and others else []
    if info.misfits:
        keys = ", ".join(info.misfit_keys) + (", ..." if info.misfits > len(info.misfit_keys) else "")
        notes.append(f"{info.misfits:,} cannot be, and read as {known.absent!r}: {keys}")
    return notes


def table_changes(row: CollectionRow | None, wanted: CollectionRow) -> list[TableChange]:
    """What a declaration would do to a collection's table; nothing where that has all it asks for."""
    if row is None:
        return [TableChange("table", wanted.name, "made")]
    if row.serves(wanted):
        return []
    before = {column.name: column for column in row.columns}
    after = {column.name: column for column in join(row.columns, wanted.columns)}
    changes = [TableChange("column", name, "dropped") for name in before if name not in after]
    for name, column in after.items():
        old = before.get(name)
        if old is None:
            changes.append(TableChange("column", name, "made"))
        elif _shows(old) != _shows(column):
            changes.append(TableChange("column", name, "filled anew"))
        if column.indexed != (old is not None and old.indexed):
            changes.append(TableChange("index", name, "made" if column.indexed else "dropped"))
        if column.tokenizer != (old.tokenizer if old else ""):
            changes.append(TableChange("search", name, "made" if column.tokenizer else "dropped"))
    return changes or [TableChange("table", wanted.name, "made")]


def _shows(column: Column) -> str:
    return column._replace(indexed=False, tokenizer="", age=0).token
