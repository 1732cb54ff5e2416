"""Declared collections: what an app writes down about its records.

    class Order(Record, table="orders"):        # without table=: "order" + "s", the class name in lower case
        customer: str                           # required at create
        status: str = field(default="open", index=True)
        price: Decimal | None = None
        hours: Counter = 0                      # adds up what devices counted apart
        tags: set[str]                          # elements that devices add and remove apart; empty at first
        phone: tuple[str, ...] = field(keep="all")  # concurrent values side by side, until one is set
        notes: Text                             # that several write at once; List and Map likewise
        size: int = field(stored_as="length", converts=str)  # what an earlier version called length, a text

A read gives a frozen snapshot; a write transaction gives a draft, the same class, whose attributes can be set. Values
pass the door of values.py. What other devices wrote is read as it is, whatever is declared here. A list or dict that is
read belongs to the reader.

annotations.py says what types there are, fields.py what one field is, collection.py what they are together, records.py
what reads and drafts look like; converting.py reads what earlier versions wrote.
"""

from collections.abc import Iterable
from typing import ClassVar, dataclass_transform, get_origin, get_type_hints

from fieldsync.annotations import Counter, List, Map, Set, Text, declared
from fieldsync.collection import Collection, undeclared
from fieldsync.errors import SchemaError
from fieldsync.fields import REQUIRED, Field, Options, field
from fieldsync.records import BaseRecord, Snapshot, Stamp, closest

__all__ = [
    "BaseRecord",
    "Collection",
    "Counter",
    "Field",
    "List",
    "Map",
    "Options",
    "Record",
    "Set",
    "Snapshot",
    "Stamp",
    "Text",
    "closest",
    "field",
    "undeclared",
]


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
            fields[attribute] = declared(name, attribute, hints[attribute], body.get(attribute, REQUIRED))
        cls._collection = Collection(name, cls, fields.values())
        for place, attribute in enumerate(fields):
            setattr(cls, attribute, _reader(place))


def _inherited(cls: type[Record]) -> Iterable[Field]:
    for base in reversed(cls.__mro__[1:]):
        if issubclass(base, Record) and base is not Record:
            yield from Collection.of(base).fields


def _reader(place: int) -> property:
    return property(lambda self: self._values[place])
