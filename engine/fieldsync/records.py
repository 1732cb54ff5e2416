"""The faces of a record: a frozen snapshot, or a draft of a transaction, whose attributes can be set."""

from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import clock, record
from fieldsync.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fieldsync.collection import Collection


def closest(name: str, names: "Iterable[str]") -> str:
    """The end of an error message that points out the name that was probably meant, or nothing."""
    from difflib import get_close_matches  # only failures pay for the import

    matches = get_close_matches(name, names, 1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class BaseRecord:
    """What declared and undeclared records share: key, scope, values by attribute and by [name]. Frozen, or a draft."""

    __slots__ = ("_cells", "_draft", "_values", "key", "scope")
    key: str
    scope: str
    _cells: Any  # (dictionary, packed) from which it was read; unset in a draft
    _values: Any  # tuple or dict; list or dict in a draft
    _draft: Any  # a Draft; unset in a snapshot
    if TYPE_CHECKING:  # no annotation of a field's
        _collection: "Collection"

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
        dictionary, packed = cells
        name_of = self._collection.name_of
        writers = sorted(record.writers(dictionary, packed).items(), key=itemgetter(1))
        named = {name: told for cell, told in writers if (name := name_of(cell))}
        return {name: Stamp(author.hex(), clock.to_datetime(time)) for name, (time, author) in sorted(named.items())}

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
        return self._collection.pickled(self.key, self.scope, frozen)


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
