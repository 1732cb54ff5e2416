"""Declared collections and fields, and the faces of a record.

    class Order(Record, table="orders"):        # without table=: "order" + "s", the class name in lower case
        customer: str                           # required at create
        status: str = field(default="open", index=True)
        price: Decimal | None = None
        hours: Counter = 0                      # adds up what devices counted apart
        tags: set[str]                          # elements that devices add and remove apart; empty at first
        phone: tuple[str, ...] = field(keep="all")  # concurrent values side by side, until one is set
        notes: Text                             # that several write at once; List and Map likewise

A read gives a frozen snapshot; a write transaction gives a draft, the same class, whose attributes can be set. Values
pass the door of values.py. What other devices wrote is read as it is, whatever is declared here. A list or dict that is
read belongs to the reader.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from fieldsync import clock, codec, edits, texts
from fieldsync import record as record_cells
from fieldsync.errors import SchemaError
from fieldsync.limits import COLLECTION_NAME_BYTES_MAX, FIELD_NAME_BYTES_MAX
from fieldsync.values import (
    CHECKS,
    SUPPORTED,
    Check,
    Refusal,
    Value,
    check_any,
    check_number,
    elements,
    nested,
    or_none,
    single,
)

RESERVED = frozenset({"key", "scope", "collection", "as_dict", "stamps"})  # names that every record has already
T = TypeVar("T")
_COUNTER = "fieldsync.Counter"
Counter: TypeAlias = Annotated[int | float, _COUNTER]
_TEXT, _LIST, _MAP = "fieldsync.Text", "fieldsync.List", "fieldsync.Map"
Text: TypeAlias = Annotated[Any, _TEXT]
List: TypeAlias = Annotated[Any, _LIST]
Map: TypeAlias = Annotated[Any, _MAP]
_SHARED: Final[dict[str, tuple[Any, type, Check]]] = {
    _TEXT: ("text", str, edits.TEXT),
    _LIST: ("list", list, edits.LIST),
    _MAP: ("map", dict, edits.MAP),
}
REQUIRED: Final[Any] = Ellipsis  # the default of a field that has none: no field can hold it


class Field(NamedTuple):
    """One field of a collection; `checker` is its type, compiled to a function."""

    collection: str
    name: str
    kind: Literal["register", "counter", "set", "text", "list", "map"]
    type: type
    optional: bool
    default: Any  # REQUIRED if it has none
    default_factory: Callable[[], object] | None
    indexed: bool
    checker: Check
    keeps_all: bool = False

    def check(self, value: object) -> Value:
        """The value as it is stored; TypeError, naming collection.field, if it is not of the field's type."""
        if value is None and self.optional:
            return None
        try:
            return self.checker(value, 0)
        except Refusal as refusal:
            raise TypeError(f"{self.collection}.{self.name}{refusal}") from None

    @property
    def absent(self) -> Value:
        """What is read where there is no cell: 0; an empty set, text, list or map; a register's default or None."""
        if self.kind == "counter":
            return 0
        if self.kind == "set":
            return frozenset()
        if self.is_shared:
            return self.type()  # type: ignore[no-any-return]
        value: Value = None if self.default is REQUIRED else self.default
        return value

    @property
    def is_shared(self) -> bool:
        """Whether it is a text, list or map that several write at once."""
        return self.kind in ("text", "list", "map")

    def initial(self) -> Value:
        """The value at create when none is given; TypeError if one is required."""
        if self.default_factory is not None:
            return self.check(self.default_factory())
        if self.default is REQUIRED:
            raise TypeError(f"{self.collection}.{self.name} is required")
        value: Value = self.default
        return value

    def shown(self, stored: Any) -> Any:
        """What a record shows for what is read: a set; a text, list or map; of a register that keeps all, a tuple."""
        if self.is_shared:
            return texts.shown(stored) if isinstance(stored, codec.Updates) else self.type(stored)
        if self.kind == "set":
            return frozenset([element for element in stored if not isinstance(element, list | dict)])
        if self.keeps_all:
            return stored if isinstance(stored, tuple) else () if stored is None else (stored,)
        return stored


_KINDS: Final = {str: 1, int: 2, float: 3, bool: 4, bytes: 5}
_NUMBER, _OPTIONAL = 6, 8


def _kind_of(field: Field) -> int:
    """A field's type as codec.conforms knows it; 0, which no value is, where there is more to check."""
    is_plain = not (field.keeps_all or field.is_shared)
    kind = _NUMBER if field.kind == "counter" else _KINDS.get(field.type, 0) if is_plain else 0
    return kind | (_OPTIONAL if field.optional and kind else 0)


class Options(NamedTuple):
    """What field(...) was given."""

    default: Any = REQUIRED
    default_factory: Callable[[], object] | None = None
    indexed: bool = False
    keep: str = "latest"


@overload
def field(*, default: T, index: bool = False, keep: Literal["latest", "all"] = "latest") -> T: ...
@overload
def field(*, default_factory: Callable[[], T], index: bool = False, keep: Literal["latest", "all"] = "latest") -> T: ...
@overload
def field(*, index: bool = False, keep: Literal["latest", "all"] = "latest") -> Any: ...
def field(
    *,
    default: Any = REQUIRED,
    default_factory: Callable[[], Any] | None = None,
    index: bool = False,
    keep: Literal["latest", "all"] = "latest",
) -> Any:
    """Options of a declared field: its value at create, or what makes one, and whether queries by it need an index.

    keep="all", of a field of type tuple[T, ...]: it shows all values that were written apart, the one with the highest
    stamp first, until one is set, as a tuple of one.
    """
    return Options(default, default_factory, index, keep)


class Collection:
    """A named set of records; `record` and `fields` are None and empty where nothing is declared. Immutable."""

    __slots__ = (
        "_fields",
        "_kinds",
        "_pick",
        "_steps",
        "absent",
        "counters",
        "fields",
        "name",
        "places",
        "record",
        "sets",
        "shared",
        "signature",
        "special",
    )

    def __init__(self, name: str, record: "type[Record] | None" = None, fields: Iterable[Field] = ()) -> None:
        if problem := _problem_of_name(name, COLLECTION_NAME_BYTES_MAX):
            raise SchemaError(f"collection {name!r}: {problem}")
        if name.lower().startswith(("sqlite_", "fs_")):
            raise SchemaError(f"collection {name!r}: tables of the file itself start with sqlite_ and fs_")
        self.name: Final = name
        self.record: Final = record
        self.fields: Final = tuple(fields)
        self.absent: Final = tuple(field.absent for field in self.fields)
        self.counters: Final = frozenset(field.name for field in self.fields if field.kind == "counter")
        # the places of fields that do not show just what is read
        self.special: Final = tuple(
            i for i, one in enumerate(self.fields) if one.kind == "set" or one.keeps_all or one.is_shared
        )
        self.shared: Final = tuple(field for field in self.fields if field.is_shared)
        self.sets: Final = tuple(field.name for field in self.fields if field.kind == "set")
        self._fields: Final = {field.name: field for field in self.fields}
        self._kinds: Final = bytes(map(_kind_of, self.fields))
        self._pick: Final = itemgetter(*self._fields) if len(self.fields) > 1 else None
        self._steps: Final = [(field.name, field.optional, field.checker, field) for field in self.fields]
        # changes when columns or indexes of this collection have to be rebuilt
        self.signature: Final = repr(sorted((one.name, one.kind, one.indexed, one.absent) for one in self.fields))
        self.places: Final = {field.name: place for place, field in enumerate(self.fields)}
        if len({"key", "scope"} | {name.lower() for name in self._fields}) < len(self.fields) + 2:
            raise SchemaError(f"{name}: names of columns that differ in upper and lower case only are one to SQL")

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, fields={[field.name for field in self.fields]})"

    @staticmethod
    def of(record: "type[Record]") -> "Collection":
        """The collection that a record class declares."""
        if not isinstance(record, type) or not issubclass(record, Record) or record is Record:
            raise SchemaError(f"{record!r} declares no collection: it is not a class derived from Record")
        return record._collection  # noqa: SLF001

    def field(self, name: str) -> Field:
        """The field of that name, where nothing is declared a register of any type; SchemaError if there is none."""
        if self.record is None:
            return _undeclared(self.name, name)
        try:
            return self._fields[name]
        except KeyError:
            raise SchemaError(f"{self.name} has no field {name!r}{closest(name, self._fields)}") from None

    def place(self, name: str) -> int | str:
        """Where a record's values hold a field: its number if declared, else its name. KeyError if there is none."""
        return name if self.record is None else self.places[name]

    def check_new(self, given: Mapping[str, object]) -> dict[str, Value]:
        """What to write at create: given values, checked, and defaults that say something. SchemaError, TypeError."""
        if self.record is None:
            return {name: self.field(name).check(value) for name, value in given.items()}
        if self._pick is not None and len(given) == len(self.fields) and given.keys() == self._fields.keys():
            values = self._pick(given)
            if codec.conforms(values, self._kinds):  # the usual row: nothing to turn into anything
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


def closest(name: str, names: Iterable[str]) -> str:
    """The end of an error message that points out the name that was probably meant, or nothing."""
    from difflib import get_close_matches  # only failures pay for the import

    matches = get_close_matches(name, names, 1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _problem_of_name(name: str, bytes_max: int = FIELD_NAME_BYTES_MAX) -> str:
    if not isinstance(name, str) or not name.isprintable():
        return "a name is a text without control characters"
    if not 1 <= len(name.encode()) <= bytes_max:
        return f"a name has 1 to {bytes_max} bytes in UTF-8"
    if name.startswith("_"):
        return "names that start with _ are kept for Fieldsync"
    return "every record has this attribute already; take another name" if name in RESERVED else ""


@lru_cache(maxsize=4096)
def _undeclared(collection: str, name: str) -> Field:
    if problem := _problem_of_name(name):
        raise SchemaError(f"field {name!r} of {collection}: {problem}")
    return Field(collection, name, "register", object, True, None, None, False, check_any)


def _declared(collection: str, name: str, annotation: Any, default: Any) -> Field:
    """The field that one annotated line of a class body declares."""
    label = f"{collection}.{name}"
    if problem := _problem_of_name(name):
        raise SchemaError(f"{label}: {problem}")
    options = default if isinstance(default, Options) else Options(default)
    if options.keep not in ("latest", "all"):
        raise SchemaError(f'{label}: keep is "latest" or "all", not {options.keep!r}')
    if get_origin(annotation) is Annotated and _COUNTER in get_args(annotation):
        field = Field(collection, name, "counter", float, False, 0, None, options.indexed, check_number)
    elif get_origin(annotation) is Annotated and (known := _SHARED.keys() & set(map(str, get_args(annotation)[1:]))):
        shared, shown, check = _SHARED[known.pop()]
        field = Field(collection, name, shared, shown, False, REQUIRED, shown, options.indexed, check)
    elif (get_origin(annotation) or annotation) in (set, frozenset):
        _, _, item = _compiled((get_args(annotation) or (Any,))[0], label)
        check = elements(item)
        field = Field(collection, name, "set", frozenset, False, frozenset(), None, options.indexed, check)
    elif options.keep == "all":
        field = _keeping_all(collection, name, annotation, options)
    else:
        kind, optional, check = _compiled(annotation, label)
        field = Field(collection, name, "register", kind, optional, REQUIRED, None, options.indexed, check)
    if options.default_factory is not None:
        if options.default is not REQUIRED:
            raise SchemaError(f"{label}: give default or default_factory, not both")
        return field._replace(default_factory=options.default_factory)
    if field.is_shared and options.default is not REQUIRED:
        field = field._replace(default_factory=None)
    if options.default is REQUIRED:
        return field._replace(default=None) if field.optional else field
    if field.keeps_all and options.default == ():
        return field
    if isinstance(options.default, list | dict):
        raise SchemaError(f"{label}: records would share a default that can change; use default_factory")
    try:
        return field._replace(default=field.check(options.default))
    except TypeError as refusal:
        raise SchemaError(f"default of {refusal}") from None


def _keeping_all(collection: str, name: str, annotation: Any, options: Options) -> Field:
    arguments = get_args(annotation)
    if get_origin(annotation) is not tuple or len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise SchemaError(f"{collection}.{name}: a field that keeps all is declared as tuple[T, ...]: it shows many")
    kind, optional, item = _compiled(arguments[0], f"{collection}.{name}")
    check = single(or_none(item) if optional else item)
    return Field(collection, name, "register", kind, True, None, None, options.indexed, check, keeps_all=True)


def _compiled(annotation: Any, label: str) -> tuple[type, bool, Check]:
    """An annotation as (type, may it be None, how to check the rest); SchemaError if no register can hold it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and _COUNTER not in arguments:
        return _compiled(arguments[0], label)
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        kind, _, check = _compiled(arguments[arguments[0] is NoneType], label)
        return kind, True, check
    if origin in (list, dict) and arguments:
        if origin is dict and arguments[0] is not str:
            raise SchemaError(f"{label}: keys of a dict are str")
        _, optional, item = _compiled(arguments[-1], label)
        return origin, False, nested(origin, or_none(item) if optional else item)
    if annotation is Any or annotation is object:
        return object, True, check_any
    kind = origin or annotation
    if isinstance(kind, type) and kind in CHECKS:
        return kind, False, CHECKS[kind]
    raise SchemaError(
        f"{label}: {annotation!r} is no type of a field; they are {SUPPORTED}, each | None, Any and Counter"
    )


# --- the faces of a record ---

_new: Callable[[Any], Any] = object.__new__  # past the __init__ that tells apps where records come from
_set = object.__setattr__  # past the frozen face


class BaseRecord:
    """What declared and undeclared records share: key, scope, values by attribute and by [name]. Frozen, or a draft."""

    __slots__ = ("_cells", "_draft", "_values", "key", "scope")
    key: str
    scope: str
    _cells: Any  # (dictionary, packed) from which it was read; unset in a draft
    _collection: Collection
    _values: Any  # tuple or dict; list or dict in a draft
    _draft: Any  # a Draft; unset in a snapshot

    def __init__(self, *_args: object, **_values: object) -> None:
        raise TypeError("records come from a database: tx.create(...) makes one, db[...] reads them")

    @property
    def collection(self) -> str:
        """The name of the record's collection."""
        return self._collection.name

    def stamps(self) -> "dict[str, Stamp]":
        """Who wrote last to each field that was ever written to, and when; TypeError for a draft."""
        cells = getattr(self, "_cells", None)
        if cells is None:
            raise TypeError("stamps are of records that were read: db[...].get(...).stamps()")
        writers = record_cells.writers(*cells)
        return {name: Stamp(author.hex(), clock.to_datetime(time)) for name, (author, time) in sorted(writers.items())}

    def as_dict(self) -> dict[str, Any]:
        """A new dict of key, scope and the fields."""
        values = self._values
        if self._collection.record is not None:
            values = zip(self._collection.places, values, strict=True)
        head = {"key": self.key, "scope": self.scope}
        return head | dict(values) | head  # another app's field of these names does not hide them

    def __getitem__(self, name: str) -> Any:
        if name == "key" or name == "scope":
            return getattr(self, name)
        try:
            return self._values[self._collection.place(name)]
        except KeyError:
            raise KeyError(f"{self.collection} {self.key!r} has no field {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.as_dict()

    if not TYPE_CHECKING:  # a type checker that saw it would let any name pass

        def __setattr__(self, name: str, value: object) -> None:
            draft = getattr(self, "_draft", None)
            if draft is None:
                raise AttributeError(
                    f"cannot set {name!r}: this is a frozen snapshot of {self.collection} {self.key!r}; "
                    "to change the record, use db.write() and set it on what tx.get(...) gives, or tx.update(...)"
                )
            try:
                draft.assign(name, value)
            except SchemaError as unknown:
                raise AttributeError(str(unknown)) from None

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"cannot delete {name!r}: fields of a record are set, to None if need be")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseRecord) or self._collection.record is not other._collection.record:
            return NotImplemented
        return self.collection == other.collection and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.collection, self.scope, self.key))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"{type(self).__name__}({values})"

    def __reduce__(self) -> tuple[Any, ...]:
        values = self._values
        frozen = dict(values) if isinstance(values, dict) else tuple(values)
        return _thawed, (self._collection.record or self.collection, self.key, self.scope, frozen)


def _thawed(of: "type[Record] | str", key: str, scope: str, values: Any) -> BaseRecord:
    """A copied or unpickled snapshot."""
    return (Collection(of) if isinstance(of, str) else Collection.of(of)).snapshot(key, scope, values)


class Stamp(NamedTuple):
    """Who wrote something, and when."""

    author: str  # 16 hex digits: one file's stay in one scope
    when: datetime  # in UTC, by the author's clock


class Snapshot(BaseRecord):
    """A record of a collection that is not declared: any name may be a field."""

    __slots__ = ("_collection",)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):  # a slot that is not set would ask again, for ever
            values = self._values
            if name in values:
                return values[name]
            name += closest(name, values)
        raise AttributeError(f"no field {name}")

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Record(BaseRecord):
    """Base of declared collections: each annotated name of a derived class is a field (SchemaError if it cannot be)."""

    __slots__ = ()

    def __init_subclass__(cls, table: str | None = None) -> None:
        super().__init_subclass__()
        name = cls.__name__.lower() + "s" if table is None else table
        fields = {field.name: field._replace(collection=name) for field in _inherited(cls)}
        try:
            hints = get_type_hints(cls, include_extras=True)
            own = [attribute for attribute in cls.__annotations__ if get_origin(hints[attribute]) is not ClassVar]
        except NameError as missing:
            raise SchemaError(
                f"{name}: {missing} when the class is made; a field's type is imported at the top of its module, "
                "not under TYPE_CHECKING or in a function"
            ) from None
        body = dict(vars(cls))
        for attribute, value in body.items():
            if attribute not in own and (attribute in fields or isinstance(value, Options)):
                raise SchemaError(f"{name}.{attribute} is a field; annotate it with its type")
        for attribute in own:
            fields[attribute] = _declared(name, attribute, hints[attribute], body.get(attribute, REQUIRED))
        cls._collection = Collection(name, cls, fields.values())
        for place, attribute in enumerate(fields):
            setattr(cls, attribute, _reader(place))


def _inherited(cls: type[Record]) -> Iterable[Field]:
    for base in reversed(cls.__mro__[1:]):
        if issubclass(base, Record) and base is not Record:
            yield from Collection.of(base).fields


def _reader(place: int) -> property:
    return property(lambda self: self._values[place])
