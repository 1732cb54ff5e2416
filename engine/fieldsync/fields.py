"""One field of a declared collection: what it holds, what is read without a cell, and how its cells are named."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, overload

from fieldsync import codec, texts
from fieldsync.converting import MISFIT, Conversion
from fieldsync.limits import FIELD_NAME_BYTES_MAX
from fieldsync.store import Column
from fieldsync.transaction import KINDS
from fieldsync.values import Check, Refusal, Value

RESERVED = frozenset({"key", "scope", "collection", "as_dict", "stamps"})  # names that every record has already
REQUIRED: Final[Any] = Ellipsis  # the default of a field that has none: no field can hold it
T = TypeVar("T")
Converts: TypeAlias = type[Any] | tuple[type[Any], ...] | Mapping[Any, Any] | None  # see converting.py


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
    stored_as: str = ""  # its name in cells, where that is another
    conversion: Conversion | None = None  # of values of other types; without one they are read as they came
    tokenizer: str = ""  # what makes words of its text for searches; empty: it is not searched
    references: str = ""  # the collection whose records' keys it holds

    def check(self, value: object) -> Value:
        """The value as it is stored; TypeError, naming collection.field, if it is not of the field's type."""
        if value is None and self.optional:
            return None
        try:
            return self.checker(value, 0)
        except Refusal as refusal:
            raise TypeError(f"{self.collection}.{self.name}{refusal}") from None

    @property
    def cell(self) -> tuple[str, int]:
        """The name and the kind of its cells."""
        return self.stored_as or self.name, KINDS[self.kind]

    @property
    def column(self) -> Column:
        """Its column in the collection's table."""
        absent = {"set": "[]", "list": "[]", "map": "{}"}.get(self.kind, self.absent)
        own = (self.stored_as, self.conversion, 0, self.tokenizer)
        return Column(self.name, KINDS[self.kind], self.indexed, absent, *own)

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

    @property
    def is_special(self) -> bool:
        """Whether it may show something else than what is read."""
        return self.kind == "set" or self.keeps_all or self.is_shared or self.conversion is not None

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
        if self.conversion is not None:
            converted = self.conversion.read(stored)
            return self.absent if converted is MISFIT else converted
        return stored


_PLAIN: Final = {str: 1, int: 2, float: 3, bool: 4, bytes: 5}
_NUMBER, _OPTIONAL = 6, 8


def plain_kind(field: Field) -> int:
    """A field's type as plain.pick knows it; 0, which no value is, where there is more to check."""
    is_plain = not (field.keeps_all or field.is_shared)
    kind = _NUMBER if field.kind == "counter" else _PLAIN.get(field.type, 0) if is_plain else 0
    return kind | (_OPTIONAL if field.optional and kind else 0)


class Options(NamedTuple):
    """What field(...) was given."""

    default: Any = REQUIRED
    default_factory: Callable[[], object] | None = None
    indexed: bool = False
    keep: str = "latest"
    stored_as: str | None = None
    converts: Converts = None
    search: bool | str = False
    references: Any = None


@overload
def field(
    *,
    default: T,
    index: bool = False,
    keep: Literal["latest", "all"] = "latest",
    stored_as: str | None = None,
    converts: Converts = None,
    search: bool | str = False,
    references: Any = None,
) -> T: ...
@overload
def field(
    *,
    default_factory: Callable[[], T],
    index: bool = False,
    keep: Literal["latest", "all"] = "latest",
    stored_as: str | None = None,
    converts: Converts = None,
    search: bool | str = False,
    references: Any = None,
) -> T: ...
@overload
def field(
    *,
    index: bool = False,
    keep: Literal["latest", "all"] = "latest",
    stored_as: str | None = None,
    converts: Converts = None,
    search: bool | str = False,
    references: Any = None,
) -> Any: ...
def field(
    *,
    default: Any = REQUIRED,
    default_factory: Callable[[], Any] | None = None,
    index: bool = False,
    keep: Literal["latest", "all"] = "latest",
    stored_as: str | None = None,
    converts: Converts = None,
    search: bool | str = False,
    references: Any = None,
) -> Any:
    """Options of a declared field: its value at create, or what makes one, and whether queries by it need an index.

    keep="all", of a field of type tuple[T, ...]: it shows all values that were written apart, the one with the highest
    stamp first, until one is set, as a tuple of one. stored_as: its first name, for ever, where it was renamed since.
    converts: a type, a tuple of types or a dict of values that earlier versions wrote, which read as this type; all
    others read as the default then.

    search, of a str or a Text: True, or a tokenizer of SQLite's FTS5 like "porter unicode61", for db[...].search(...).
    references, of a str: a record class or a collection's name; it holds keys of that one's records, and is indexed.
    """
    return Options(default, default_factory, index, keep, stored_as, converts, search, references)


def problem_of_name(name: str, bytes_max: int = FIELD_NAME_BYTES_MAX, reserved: frozenset[str] = RESERVED) -> str:
    """Why a field or a collection cannot have a name; empty if it can."""
    if not isinstance(name, str) or not name.isprintable():
        return "a name is a text without control characters"
    if not 1 <= len(name.encode()) <= bytes_max:
        return f"a name has 1 to {bytes_max} bytes in UTF-8"
    if name.startswith("_"):
        return "names that start with _ are kept for Fieldsync"
    return "every record has this attribute already; take another name" if name in reserved else ""
