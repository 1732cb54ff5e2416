"""Declared collections and fields, and the two faces of a record.

    class Order(Record, table="orders"):        # without table=: "order" + "s", the class name in lower case
        customer: str                           # required at create
        status: str = field(default="open", index=True)
        price: Decimal | None = None
        hours: Counter = 0                      # adds up what devices counted apart

A read gives a frozen snapshot; a write transaction gives a draft, the same class, whose attributes can be set.
Values pass one door, `Field.check`, and come back as they left it: a subclass of a supported type (an enum of texts)
becomes the plain type, a datetime becomes UTC, and an int in a float or Decimal field becomes one if nothing is lost.
What other devices wrote is read as it is, whatever is declared here. A list or dict that is read belongs to the reader.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from functools import lru_cache
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

from fieldsync.errors import SchemaError
from fieldsync.limits import COLLECTION_NAME_BYTES_MAX, FIELD_NAME_BYTES_MAX

VALUE_DEPTH_MAX = 32  # lists and dicts inside each other, the outermost included
RESERVED = frozenset({"key", "scope", "collection", "as_dict"})  # names that every record has already

Value: TypeAlias = "bool | int | float | Decimal | str | bytes | date | list[Value] | dict[str, Value] | None"
Number: TypeAlias = int | float | Decimal
Check: TypeAlias = Callable[[object, int], Value]  # (value, depth) -> as stored, or a Refusal
T = TypeVar("T")

_COUNTER = "fieldsync.Counter"
Counter: TypeAlias = Annotated[int | float, _COUNTER]
REQUIRED: Final[Any] = Ellipsis  # the default of a field that has none: no field can hold it
EXACT = Context(prec=5000)  # differences of Decimals are not rounded


# --- the door: values by type ---


class Refusal(TypeError):  # noqa: N818 (not an error that an app sees)
    """Why a value is refused: the end of a sentence that starts with the field's name. Does not leave this module."""


def _wrong(wanted: str, value: object) -> Refusal:
    return Refusal(f" wants {wanted}, got {type(value).__name__}")


def _plain(kind: type[bool] | type[bytes]) -> Check:
    def check(value: object, _depth: int) -> Value:
        if type(value) is kind:
            return value
        if isinstance(value, kind):
            return kind(value)
        raise _wrong(kind.__name__, value)

    return check


def _int(value: object, _depth: int) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("int", value)
    if not -(2**63) <= value < 2**63:
        raise Refusal(f" wants an int of 64 bits, got one of {value.bit_length() + 1}")
    return int.__int__(value)


def _float(value: object, depth: int) -> float:
    if isinstance(value, float):
        return value if type(value) is float else float.__float__(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("float", value)
    number = float(_int(value, depth))
    if number != value:
        raise Refusal(f" wants float, got the int {value}, which no float equals")
    return number


def _decimal(value: object, depth: int) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(_int(value, depth))
    if not isinstance(value, Decimal):
        raise _wrong("Decimal", value)
    if not value.is_finite():
        raise Refusal(f" wants a finite Decimal, got {value}")
    return value if type(value) is Decimal else Decimal(value)


def _str(value: object, _depth: int) -> str:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise _wrong("str", value)
    try:
        str.encode(value)
    except UnicodeEncodeError:
        raise Refusal(" wants text, got a lone surrogate, which UTF-8 cannot hold") from None
    return value if type(value) is str else str.__str__(value)


def _datetime(value: object, _depth: int) -> datetime:
    if not isinstance(value, datetime):
        raise _wrong("datetime", value)
    if value.utcoffset() is None:
        raise Refusal(" wants a datetime with a time zone, got a naive one: attach one, such as tzinfo=datetime.UTC")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise Refusal(" wants a datetime of the years 1 to 9999 in UTC") from None
    return moment if type(moment) is datetime else datetime.combine(moment.date(), moment.time(), UTC)


def _date(value: object, _depth: int) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _wrong("date", value)
    return value if type(value) is date else date(value.year, value.month, value.day)


def _nested(kind: type[list[Any]] | type[dict[Any, Any]], item: Check) -> Check:
    def check(value: object, depth: int) -> Value:
        if not isinstance(value, kind):
            raise _wrong(kind.__name__, value)
        if depth >= VALUE_DEPTH_MAX:
            raise Refusal(f" is nested deeper than {VALUE_DEPTH_MAX} levels")
        try:
            if isinstance(value, dict):
                return {_str(key, depth): item(element, depth + 1) for key, element in value.items()}
            return [item(element, depth + 1) for element in value]
        except Refusal as refusal:
            raise Refusal(f"[...]{refusal}") from None

    return check


def _or_none(check: Check) -> Check:
    return lambda value, depth: None if value is None else check(value, depth)


def _any(value: object, depth: int) -> Value:
    check = CHECKS.get(type(value))
    if check is None:
        if value is None:
            return None
        check = next((check for kind, check in CHECKS.items() if isinstance(value, kind)), None)
    if check is None:
        raise _wrong(f"one of {SUPPORTED}", value)
    return check(value, depth)


def _number(value: object, depth: int) -> Value:
    """What a counter can hold: an int, or a finite float or Decimal."""
    if isinstance(value, bool) or not isinstance(value, Number):
        raise _wrong("a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal(f" wants a finite number, got {value}")
    return _any(value, depth)


CHECKS: dict[type, Check] = {  # a datetime is a date too, so it comes first
    bool: _plain(bool),
    int: _int,
    float: _float,
    Decimal: _decimal,
    str: _str,
    bytes: _plain(bytes),
    datetime: _datetime,
    date: _date,
    list: _nested(list, _any),
    dict: _nested(dict, _any),
}
SUPPORTED = ", ".join(kind.__name__ for kind in CHECKS)


def check_value(name: str, value: object) -> Value:
    """The value as it is stored where no type is declared; TypeError, naming `name`, if it cannot be held."""
    try:
        return _any(value, 0)
    except Refusal as refusal:
        raise TypeError(f"{name}{refusal}") from None


# --- declarations ---


class Field(NamedTuple):
    """One field of a collection; `checker` is its type, compiled to a function."""

    collection: str
    name: str
    kind: Literal["register", "counter"]
    type: type
    optional: bool
    default: Any  # REQUIRED if it has none
    default_factory: Callable[[], object] | None
    indexed: bool
    checker: Check

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
        """What a record reads that has no cell for this field: a counter 0, a register its plain default or None."""
        if self.kind == "counter":
            return 0
        value: Value = None if self.default is REQUIRED else self.default
        return value

    def initial(self) -> Value:
        """The value at create when none is given; TypeError if one is required."""
        if self.default_factory is not None:
            return self.check(self.default_factory())
        if self.default is REQUIRED:
            raise TypeError(f"{self.collection}.{self.name} is required")
        value: Value = self.default
        return value


class Options(NamedTuple):
    """What field(...) was given."""

    default: Any = REQUIRED
    default_factory: Callable[[], object] | None = None
    indexed: bool = False


@overload
def field(*, default: T, index: bool = False) -> T: ...
@overload
def field(*, default_factory: Callable[[], T], index: bool = False) -> T: ...
@overload
def field(*, index: bool = False) -> Any: ...
def field(*, default: Any = REQUIRED, default_factory: Callable[[], Any] | None = None, index: bool = False) -> Any:
    """Options of a declared field: its value at create, or what makes one, and whether queries by it need an index."""
    return Options(default, default_factory, index)


class Collection:
    """A named set of records; `record` and `fields` are None and empty where nothing is declared. Immutable."""

    __slots__ = ("_fields", "_steps", "absent", "fields", "name", "places", "record")

    def __init__(self, name: str, record: "type[Record] | None" = None, fields: Iterable[Field] = ()) -> None:
        if problem := _problem_of_name(name, COLLECTION_NAME_BYTES_MAX):
            raise SchemaError(f"collection {name!r}: {problem}")
        if name.lower().startswith(("sqlite_", "fs_")):
            raise SchemaError(f"collection {name!r}: tables of the file itself start with sqlite_ and fs_")
        self.name: Final = name
        self.record: Final = record
        self.fields: Final = tuple(fields)
        self.absent: Final = tuple(field.absent for field in self.fields)
        self._fields: Final = {field.name: field for field in self.fields}
        self._steps: Final = [(field.name, field.optional, field.checker, field) for field in self.fields]
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

    def signature(self) -> str:
        """A text that changes when columns or indexes of this collection have to be rebuilt."""
        return repr(sorted((field.name, field.kind, field.indexed, field.absent) for field in self.fields))

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
        return tuple(map(cells.get, self.places, self.absent))

    def snapshot(self, key: str, scope: str, values: Any) -> "BaseRecord":
        """A frozen record over `values`: a tuple in the order of `fields`, or a dict where nothing is declared."""
        face: BaseRecord = _new(self.record or Snapshot)
        _set(face, "key", key)
        _set(face, "scope", scope)
        _set(face, "_values", values)
        if self.record is None:
            _set(face, "_collection", self)
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
    return Field(collection, name, "register", object, True, None, None, False, _any)


def _declared(collection: str, name: str, annotation: Any, default: Any) -> Field:
    """The field that one annotated line of a class body declares."""
    label = f"{collection}.{name}"
    if problem := _problem_of_name(name):
        raise SchemaError(f"{label}: {problem}")
    options = default if isinstance(default, Options) else Options(default)
    if get_origin(annotation) is Annotated and _COUNTER in get_args(annotation):
        field = Field(collection, name, "counter", float, False, 0, None, options.indexed, _number)
    else:
        kind, optional, check = _compiled(annotation, label)
        field = Field(collection, name, "register", kind, optional, REQUIRED, None, options.indexed, check)
    if options.default_factory is not None:
        if options.default is not REQUIRED:
            raise SchemaError(f"{label}: give default or default_factory, not both")
        return field._replace(default_factory=options.default_factory)
    if options.default is REQUIRED:
        return field._replace(default=None) if field.optional else field
    if isinstance(options.default, list | dict):
        raise SchemaError(f"{label}: records would share a default that can change; use default_factory")
    try:
        return field._replace(default=field.check(options.default))
    except TypeError as refusal:
        raise SchemaError(f"default of {refusal}") from None


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
        return origin, False, _nested(origin, _or_none(item) if optional else item)
    if annotation is Any or annotation is object:
        return object, True, _any
    kind = origin or annotation
    if isinstance(kind, type) and kind in CHECKS:
        return kind, False, CHECKS[kind]
    raise SchemaError(
        f"{label}: {annotation!r} is no type of a field; they are {SUPPORTED}, each | None, Any and Counter"
    )


# --- the faces of a record ---

_new: Callable[[Any], Any] = object.__new__  # past the __init__ that tells apps where records come from
_set = object.__setattr__  # past the frozen face
_CONTAINERS = (list, dict)


class BaseRecord:
    """What declared and undeclared records share: key, scope, values by attribute and by [name]. Frozen, or a draft."""

    __slots__ = ("_draft", "_values", "key", "scope")
    key: str
    scope: str
    _collection: Collection
    _values: Any  # tuple or dict; list or dict in a draft
    _draft: Any  # a Draft; unset in a snapshot

    def __init__(self, *_args: object, **_values: object) -> None:
        raise TypeError("records come from a database: tx.create(...) makes one, db[...] reads them")

    @property
    def collection(self) -> str:
        """The name of the record's collection."""
        return self._collection.name

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


# --- drafts ---


class Draft:
    """What a transaction does to one record: `record` is what the app gets, reads and sets attributes of."""

    __slots__ = ("_assigned", "_before", "_over", "_texts", "_values", "collection", "record")

    def __init__(self, collection: Collection, key: str, scope: str, values: Any) -> None:
        self._before = values
        self._values: Any = dict(values) if collection.record is None else list(values)
        self._assigned: dict[str, Field] = {}
        self._over = False
        # by text, because 1, True and 1.0 are equal and yet different values
        named = values.items() if isinstance(values, dict) else zip(collection.places, values, strict=True)
        self._texts = {name: repr(value) for name, value in named if isinstance(value, _CONTAINERS)}
        self.collection: Final = collection
        self.record: Final = collection.snapshot(key, scope, self._values)
        _set(self.record, "_draft", self)

    @classmethod
    def create(cls, collection: Collection, key: str, scope: str, given: Mapping[str, object]) -> "Draft":
        """A draft of a record that does not exist yet: what it is given and its defaults are its first writes."""
        written = collection.check_new(given)
        draft = cls(collection, key, scope, collection.fill(written))
        draft._before = collection.absent
        draft._assigned = {name: collection.field(name) for name in written}
        return draft

    def assign(self, name: str, value: object) -> None:
        """Set one field; SchemaError for a name that cannot be one, TypeError for a value that it cannot hold."""
        if self._over:
            raise AttributeError(f"cannot set {name!r}: the transaction of this draft is over")
        field = self.collection.field(name)
        checked = field.check(value)
        if field.kind == "counter":
            self._difference(field, checked)
        self._values[self.collection.place(name)] = checked
        self._assigned[name] = field

    def changes(self) -> dict[str, Value]:
        """Registers that were assigned, an equal value included, and lists and dicts that were changed in place."""
        touched = self._assigned | {
            name: self.collection.field(name) for name, text in self._texts.items() if repr(self._value(name)) != text
        }
        changes = {name: self._value(name) for name, field in touched.items() if field.kind == "register"}
        return {
            name: touched[name].check(value) if isinstance(value, _CONTAINERS) else value
            for name, value in changes.items()
        }

    def increments(self) -> dict[str, Number]:
        """By how much counters differ from when the draft was made; those that do not are left out."""
        counters = [field for field in self._assigned.values() if field.kind == "counter"]
        by = {field.name: self._difference(field, self._value(field.name)) for field in counters}
        return {name: difference for name, difference in by.items() if difference}

    def close(self) -> None:
        """Refuse further writes: the transaction is over."""
        self._over = True

    def _value(self, name: str) -> Any:
        return self._values[self.collection.place(name)]

    def _difference(self, field: Field, after: Any) -> Number:
        """A counter's total `after` less the one before, exact for int and Decimal; TypeError where they do not add."""
        before = self._before[self.collection.place(field.name)]
        if {type(after), type(before)} == {float, Decimal}:
            label = f"{field.collection}.{field.name}"
            raise TypeError(f"{label} counts in {type(before).__name__} already, got {type(after).__name__}")
        if isinstance(after, Decimal) or isinstance(before, Decimal):
            return EXACT.subtract(Decimal(after), Decimal(before))
        difference: Any = field.check(after - before)
        return difference  # type: ignore[no-any-return]
