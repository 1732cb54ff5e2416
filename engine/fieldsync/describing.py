"""What a file holds, collection by collection and field by field, and what a declaration would make of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.transaction import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fieldsync.schema import Collection, Field
    from fieldsync.store import CollectionRow, Reader

KIND_NAMES = {number: name for name, number in KINDS.items()}


@dataclass(slots=True)
class FieldInfo:
    """One field that records hold, or that is declared."""

    name: str
    kind: str  # "register", "counter", "set", ... or a number, of a later version
    records: int = 0  # that have a value
    types: dict[str, int] = field(default_factory=dict)  # the types of the values, and how many records have each
    notes: list[str] = field(default_factory=list)  # where it is not as it is declared

    def __str__(self) -> str:
        types = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.types.items()))
        held = f"{self.kind} of {self.records:,} records" + (f" ({types})" if types else "")
        return f"{self.name}: {'; '.join([held, *self.notes])}"


@dataclass(slots=True)
class CollectionInfo:
    """One collection of a file, or of a declaration."""

    name: str
    records: int
    fields: list[FieldInfo]
    notes: list[str] = field(default_factory=list)  # what a declaration would change

    def __str__(self) -> str:
        head = "; ".join([f"{self.name}: {self.records:,} records", *self.notes])
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
    fields: dict[tuple[str, int], FieldInfo] = {}
    info = CollectionInfo(name, 0, [])
    for some in _rows(reader, row):
        info.records += len(some)
        _count(reader, some, fields)
        tell(len(some))
    if declared is not None:
        _compare(declared, fields)
        if row is None or row.signature != declared.signature:
            info.notes.append("its columns and indexes will be made anew" if row else "its table will be made")
    info.fields = [fields[pair] for pair in sorted(fields)]
    return info


def _rows(reader: Reader, row: CollectionRow | None) -> Iterator[list[bytes]]:
    for scope in reader.scopes() if row else ():
        for number, rows in reader.records(scope.id):
            if row and number == row.id:
                yield [one.packed for one in rows]


def _count(reader: Reader, some: list[bytes], fields: dict[tuple[str, int], FieldInfo]) -> None:
    """Count the fields of records, and the types of their values."""
    for packed, stamps in zip(some, record.stamps(reader.dictionary, some), strict=True):
        values = record.read_all(reader.dictionary, packed)
        pairs = {(name, kind) for name, kind, *_ in stamps if not name.startswith("_")}
        for name, kind in pairs:
            info = fields.setdefault((name, kind), FieldInfo(name, KIND_NAMES.get(kind, f"kind {kind}")))
            info.records += 1
            if name in values and (name, kind) == min(pair for pair in pairs if pair[0] == name):
                for type_name in _types(values[name], kind):
                    info.types[type_name] = info.types.get(type_name, 0) + 1


def _types(value: Any, kind: int) -> set[str]:
    if kind == KINDS["set"]:
        return {type(element).__name__ for element in value}
    return {"None" if value is None else type(value).__name__}


def _compare(declared: Collection, fields: dict[tuple[str, int], FieldInfo]) -> None:
    """Note where what is held is not what is declared."""
    for name, kind in list(fields):
        known = next((one for one in declared.fields if one.name == name), None)
        if known is None:
            fields[name, kind].notes.append("not declared: kept, and passed on")
        elif KINDS[known.kind] != kind:
            fields[name, kind].notes.append(f"declared as a {known.kind}: kept, not shown")
        else:
            _compare_types(known, fields[name, kind])
    for one in declared.fields:
        fields.setdefault((one.name, KINDS[one.kind]), FieldInfo(one.name, one.kind, notes=["declared, held by none"]))


def _compare_types(known: Field, info: FieldInfo) -> None:
    wanted = {known.type.__name__, "None", *(("int", "Decimal") if known.kind == "counter" else ())}
    others = sorted(info.types.keys() - wanted)
    if known.kind in ("register", "counter") and known.type is not object and others:
        info.notes.append(f"declared as {known.type.__name__}: {', '.join(others)} is shown as it is")
