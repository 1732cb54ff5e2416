"""Collections: a named set of records with the fields that are declared, as drafts, queries and stores use them."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from fieldsync.errors import SchemaError
from fieldsync.fields import Field, plain_kind, problem_of_name
from fieldsync.limits import COLLECTION_NAME_BYTES_MAX
from fieldsync.plain import pick
from fieldsync.records import BaseRecord, Snapshot, closest
from fieldsync.store import CollectionRow
from fieldsync.values import Refusal, Value, check_any

if TYPE_CHECKING:
    from fieldsync.record import Dictionary
    from fieldsync.schema import Record

_new: Callable[[Any], Any] = object.__new__  # past the __init__ that tells apps where records come from
_set = object.__setattr__  # past the frozen face
_SLOTS = [vars(BaseRecord)[name].__set__ for name in ("key", "scope", "_values", "_cells")]


class Collection:
    """A named set of records; `record` and `fields` are None and empty where nothing is declared. Immutable."""

    __slots__ = (
        "_fields",
        "_names",
        "_numbers",
        "_steps",
        "absent",
        "cells",
        "counters",
        "fields",
        "name",
        "places",
        "plain",
        "record",
        "renamed",
        "row",
        "search",
        "sets",
        "shared",
        "special",
        "usual_kinds",
    )

    def __init__(self, name: str, record: "type[Record] | None" = None, fields: Iterable[Field] = ()) -> None:
        if problem := problem_of_name(name, COLLECTION_NAME_BYTES_MAX):
            raise SchemaError(f"collection {name!r}: {problem}")
        if name.lower().startswith(("sqlite_", "fs_", "fieldsync_")):
            raise SchemaError(f"collection {name!r}: what the file itself has starts with sqlite_, fs_ and fieldsync_")
        self.name: Final = name
        self.record: Final = record
        self.fields: Final = tuple(fields)
        self.absent: Final = tuple(field.absent for field in self.fields)
        self.counters: Final = frozenset(field.name for field in self.fields if field.kind == "counter")
        self.renamed: Final = tuple((field.name, field.stored_as) for field in self.fields if field.stored_as)
        self.special: Final = tuple(place for place, one in enumerate(self.fields) if one.is_special)
        self.shared: Final = tuple(field for field in self.fields if field.is_shared)
        self.sets: Final = tuple(field.name for field in self.fields if field.kind == "set")
        self._fields: Final = {field.name: field for field in self.fields}
        self.cells: Final = tuple(field.cell for field in self.fields)  # the name and kind of each one's cells
        self._names: Final = dict(zip(self.cells, self._fields, strict=True))
        self._numbers: tuple[Any, tuple[int, ...]] = (None, ())  # those that were asked for last
        # what plain.pick is told of the fields
        self.usual_kinds: Final = tuple(self._fields), bytes(map(plain_kind, self.fields))
        # whether all are registers of texts, numbers, bools and bytes, which nobody can change in place
        self.plain: Final = bool(self.fields) and all(self.usual_kinds[1]) and not self.counters and not self.special
        self._steps: Final = [(field.name, field.optional, field.checker, field) for field in self.fields]
        columns = tuple(field.column for field in self.fields)
        self.row: Final = CollectionRow(0, name, columns, repr(sorted(column.token for column in columns)))
        self.search: Final = self.row.search
        self.places: Final = {field.name: place for place, field in enumerate(self.fields)}
        if len({"key", "scope"} | {name.lower() for name in self._fields}) < len(self.fields) + 2:
            raise SchemaError(f"{name}: names of columns that differ in upper and lower case only are one to SQL")
        if len({field.tokenizer for field in self.fields} - {""}) > 1:
            raise SchemaError(f"{name}: all fields that are searched have one tokenizer")
        if len(self._names) < len(self.fields):
            twice = sorted({stored for stored, kind in self.cells if self.cells.count((stored, kind)) > 1})
            raise SchemaError(f"{name}: two fields are stored as {', '.join(twice)}; one cell holds one value")

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, fields={[field.name for field in self.fields]})"

    @staticmethod
    def of(record: "type[Record]") -> "Collection":
        """The collection that a record class declares."""
        collection = getattr(record, "_collection", None)
        if not isinstance(record, type) or not isinstance(collection, Collection):
            raise SchemaError(f"{record!r} declares no collection: it is not a class derived from Record")
        return collection

    def field(self, name: str) -> Field:
        """The field of that name, where nothing is declared a register of any type; SchemaError if there is none."""
        if self.record is None:
            return _any(self.name, name)
        try:
            return self._fields[name]
        except KeyError:
            raise SchemaError(f"{self.name} has no field {name!r}{closest(name, self._fields)}") from None

    def place(self, name: str) -> int | str:
        """Where a record's values hold a field: its number if declared, else its name. KeyError if there is none."""
        return name if self.record is None else self.places[name]

    def usual(self, given: Mapping[str, object]) -> "tuple[Any, ...] | None":
        """The values of a row as it mostly is: one for each field, and each of its type, to be stored as it is."""
        return pick(given, *self.usual_kinds, 0)

    def check_new(self, given: Mapping[str, object]) -> dict[str, Value]:
        """What to write at create: given values, checked, and defaults that say something. SchemaError, TypeError."""
        if self.record is None:
            return {name: self.field(name).check(value) for name, value in given.items()}
        if (values := self.usual(given)) is not None:
            return dict(zip(self._fields, values, strict=True))
        written: dict[str, Value] = {}
        try:
            for name, optional, checker, field in self._steps:  # Field.check, but a call less for each value
                if name in given:
                    value = given[name]
                    written[name] = None if value is None and optional else checker(value, 0)
                elif (value := field.initial()) is not None and (value or field.kind == "register"):
                    written[name] = value
        except Refusal as refusal:
            raise TypeError(f"{self.name}.{name}{refusal}") from None
        if not given.keys() <= self._fields.keys():
            self.field(next(name for name in given if name not in self._fields))
        return written

    def numbers(self, dictionary: "Dictionary") -> tuple[int, ...]:
        """The ids of the fields' cells in a file; 0 for those that it has none of."""
        known, numbers = self._numbers
        if known is not dictionary:
            numbers = tuple([dictionary.field_ids.get(cell, 0) for cell in self.cells])
            self._numbers = dictionary, numbers
        return numbers

    def fill(self, cells: Mapping[str, Value]) -> "tuple[Value, ...] | dict[str, Value]":
        """A record's values as `snapshot` takes them, from those it has cells for; undeclared names are left out."""
        if self.record is None:
            return dict(cells)
        return self.shown(tuple(map(cells.get, self.places, self.absent)))

    def shown(self, values: "tuple[Any, ...]") -> "tuple[Any, ...]":
        """Values as they are read, as a record shows them."""
        if not self.special:
            return values
        shown = list(values)
        for place in self.special:
            shown[place] = self.fields[place].shown(shown[place])
        return tuple(shown)

    def snapshot(self, key: str, scope: str, values: Any, *, draft: object = None, cells: Any = None) -> "BaseRecord":
        """A record over `values`: a tuple in the order of `fields`, or a dict where nothing is declared; frozen.

        A draft passes itself, and values that it may change; who read it from cells, these: (dictionary, packed).
        """
        face: BaseRecord = _new(self.record or Snapshot)
        _set(face, "key", key)
        _set(face, "scope", scope)
        _set(face, "_values", values)
        if self.record is None:
            _set(face, "_collection", self)
        if draft is not None:
            _set(face, "_draft", draft)
        if cells is not None:
            _set(face, "_cells", cells)
        return face

    def snapshots(
        self, keys: Sequence[str], scopes: Iterable[str], values: Iterable[Any], cells: Iterable[Any]
    ) -> "list[BaseRecord]":
        """As snapshot, of many that were read: slot after slot, without a call in Python for each."""
        faces: list[BaseRecord] = [*map(_new, repeat(self.record or Snapshot, len(keys)))]
        for put, given in zip(_SLOTS, (keys, scopes, values, cells), strict=True):
            deque(map(put, faces, given), maxlen=0)
        if self.record is None:
            for face in faces:
                _set(face, "_collection", self)
        return faces

    def name_of(self, cell: tuple[str, int]) -> str:
        """What cells of a name and a kind are called here: the declared field's name, their own where there is none.

        Empty where that name is another field's.
        """
        name = self._names.get(cell, cell[0])
        return "" if cell not in self._names and name in self._fields else name

    def pickled(self, key: str, scope: str, values: Any) -> tuple[Any, ...]:
        """How a record is copied and pickled: as a snapshot."""
        return _thawed, (self.record or self.name, key, scope, values)


@lru_cache(maxsize=256)
def undeclared(name: str) -> Collection:
    """The collection of a name that nobody declares; SchemaError for a name that none can have."""
    return Collection(name)


def _thawed(of: "type[Record] | str", key: str, scope: str, values: Any) -> BaseRecord:
    return (undeclared(of) if isinstance(of, str) else Collection.of(of)).snapshot(key, scope, values)


@lru_cache(maxsize=4096)
def _any(collection: str, name: str) -> Field:
    """A field that nobody declares."""
    if problem := problem_of_name(name):
        raise SchemaError(f"field {name!r} of {collection}: {problem}")
    return Field(collection, name, "register", object, True, None, None, False, check_any)
