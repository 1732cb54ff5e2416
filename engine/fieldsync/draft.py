"""Drafts: what a transaction does to one record, until it is told to the store."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from fieldsync import codec
from fieldsync.documents import Splice
from fieldsync.edits import AnyDraft, draft
from fieldsync.schema import Collection, Field
from fieldsync.transaction import KINDS
from fieldsync.values import Number, Value

CONTAINERS = (list, dict)  # values that an app may change in place
_CONTAINER_TYPES = frozenset(CONTAINERS)
_NONE: Final[dict[Any, Any]] = {}  # what most drafts have none of; taken for a new one before anything is put in


class Draft:
    """What a transaction does to one record: `record` is what the app gets, reads and sets attributes of."""

    __slots__ = (
        "_assigned",
        "_before",
        "_given",
        "_kept",
        "_over",
        "_texts",
        "_values",
        "_whole",
        "collection",
        "record",
    )

    def __init__(self, collection: Collection, key: str, scope: str, values: Any, whole: Any = None) -> None:
        """whole: the values, if the record is new and they are plain ones of all fields."""
        self._before = values
        self._values: Any = dict(values) if collection.record is None else list(values)
        self._assigned: dict[str, Field] = _NONE
        self._over = False
        self._given: dict[str, Value] | None = None  # of a new record: what it was created with, until more is assigned
        self._whole: tuple[Value, ...] | None = whole  # the same, where it was a value of each field and all plain
        self._texts: dict[str, str] = _NONE
        self._kept: dict[tuple[str, int], Any] = _NONE  # what cells held, to be written as it came
        for name in collection.sets:
            place = collection.places[name]
            self._values[place] = set(self._values[place])
        for shared in collection.shared:
            place = collection.places[shared.name]
            self._values[place] = draft(KINDS[shared.kind], self._values[place])
        every = values.values() if isinstance(values, dict) else values
        if whole is None and not _CONTAINER_TYPES.isdisjoint(map(type, every)):
            # by text, because 1, True and 1.0 are equal and yet different values
            named = values.items() if isinstance(values, dict) else zip(collection.places, values, strict=True)
            self._texts = {name: repr(value) for name, value in named if isinstance(value, CONTAINERS)}
        self.collection: Final = collection
        self.record = collection.snapshot(key, scope, self._values, draft=self)  # until the transaction is over

    @classmethod
    def create(cls, collection: Collection, key: str, scope: str, given: Mapping[str, object]) -> "Draft":
        """A draft of a record that does not exist yet: what it is given and its defaults are its first writes."""
        if collection.plain and (whole := collection.usual(given)) is not None:
            draft = cls(collection, key, scope, whole, whole)
        else:
            written = collection.check_new(given)
            draft = cls(collection, key, scope, collection.fill(written))
            draft._given = written
        draft._before = collection.absent
        return draft

    def assign(self, name: str, value: object) -> None:
        """Set one field; SchemaError for a name that cannot be one, TypeError for a value that it cannot hold."""
        if self._over:
            raise AttributeError(f"cannot set {name!r}: the transaction of this draft is over")
        field = self.collection.field(name)
        if field.is_shared:
            if value is not self._value(name):  # which it is after +=
                self._value(name).assign(field.check(value))
            return
        checked: Any = field.check(value)
        if field.kind == "counter":
            self._increment(field, checked)
        self._values[self.collection.place(name)] = set(checked) if field.kind == "set" else field.shown(checked)
        self._open_up()
        self._kept.pop(field.cell, None)
        self._assigned = {**self._assigned, name: field}

    def keep(self, cell: tuple[str, int], value: object) -> None:
        """Write to a register, by the name and kind of its cells, what one of them held, of whatever type."""
        name = self.collection.name_of(cell)
        if self.collection.record is None or name in self.collection.places:
            self._values[self.collection.place(name)] = self.collection.field(name).shown(value)
            self._assigned.pop(name, None)
            self._texts.pop(name, None)
        self._kept = {**self._kept, cell: value}

    def kept(self) -> dict[tuple[str, int], Any]:
        """What is written as it came, by the names and kinds of the cells."""
        return self._kept

    def _open_up(self) -> None:
        """From here on, a new record is not just what it was created with."""
        if self._given is not None:
            self._assigned = {name: self.collection.field(name) for name in self._given}
            self._given = None
        if self._whole is not None:
            self._assigned = {field.name: field for field in self.collection.fields}
            self._whole = None

    def just_given(self) -> tuple[Value, ...] | None:
        """What a new record begins with, where that is all: a value of each field, and all of them plain."""
        return None if self._kept else self._whole

    def just_assigned(self) -> dict[tuple[str, int], Value] | None:
        """What a record that is there was assigned, by cells, where all its fields are plain; else None."""
        if not self.collection.plain or self._kept or self._texts:
            return None
        places, cells = self.collection.places, self.collection.cells
        return {cells[place]: self._values[place] for place in [places[name] for name in self._assigned]}

    def changes(self) -> dict[str, Value]:
        """Registers that were assigned, an equal value included, and lists and dicts that were changed in place."""
        if self._given is not None and not self._texts and not self.collection.counters and not self.collection.special:
            return self._given
        self._open_up()
        touched = self._assigned | {
            name: self.collection.field(name) for name, text in self._texts.items() if repr(self._value(name)) != text
        }
        changes = {name: self._value(name) for name, field in touched.items() if field.kind == "register"}
        return {
            name: touched[name].check(value) if isinstance(value, CONTAINERS) or touched[name].keeps_all else value
            for name, value in changes.items()
        }

    def increments(self) -> dict[str, Number]:
        """By how much counters differ from when the draft was made; those that do not are left out."""
        if not self.collection.counters:
            return {}
        self._open_up()
        counters = [field for field in self._assigned.values() if field.kind == "counter"]
        by = {field.name: self._increment(field, self._value(field.name)) for field in counters}
        return {name: difference for name, difference in by.items() if difference}

    def elements(self) -> dict[str, tuple[frozenset[Any], frozenset[Any]]]:
        """By set that differs from when the draft was made: the elements that came, and those that went."""
        found = {}
        for name in self.collection.sets:
            before = self._before[self.collection.places[name]]
            after: Any = self.collection.field(name).check(self._value(name))
            if before != after:
                found[name] = after - before, before - after
        return found

    def splices(self) -> dict[tuple[str, int], list[Splice]]:
        """By text, list or map, and its kind, the edits of those that were edited."""
        every = {one.cell: self._shared(one.name).splices() for one in self.collection.shared}
        return {pair: splices for pair, splices in every.items() if splices}

    def began_with(self) -> dict[tuple[str, int], Any]:
        """By text, list or map, and its kind, what those of a new record hold that are not empty."""
        every = {one.cell: self._shared(one.name).value() for one in self.collection.shared}
        return {pair: value for pair, value in every.items() if value}

    def close(self) -> None:
        """Refuse further writes: the transaction is over."""
        if self._over:
            return
        self._over = True
        del self.record  # which has the draft: as a ring, both would wait for the garbage collector
        for shared in self.collection.shared:
            self._shared(shared.name).close()

    def _shared(self, name: str) -> AnyDraft:
        found: AnyDraft = self._value(name)
        return found

    def _value(self, name: str) -> Any:
        return self._values[self.collection.place(name)]

    def _increment(self, field: Field, after: Any) -> Number:
        return increment(field, self._before[self.collection.place(field.name)], after)


def increment(field: Field, before: Any, after: Any) -> Number:
    """By how much a counter's total has to change, exact for int and Decimal; TypeError where the two do not add."""
    if {type(after), type(before)} == {float, Decimal}:
        label = f"{field.collection}.{field.name}"
        raise TypeError(f"{label} counts in {type(before).__name__} already, got {type(after).__name__}")
    if isinstance(after, Decimal) or isinstance(before, Decimal):
        return codec.subtract(after, before)
    difference: Any = field.check(after - before)
    return difference  # type: ignore[no-any-return]
