"""The columns of a collection's table: which there are, and what they show of values that are converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fieldsync import record
from fieldsync.converting import MISFIT
from fieldsync.limits import COLUMNS_MAX, DECLARATIONS_SERVED
from fieldsync.query import column_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fieldsync.record import Dictionary
    from fieldsync.store import Column


def join(known: Sequence[Column], wanted: Sequence[Column]) -> tuple[Column, ...]:
    """The columns of a table that is made anew: those wanted, and those that other declarations asked for not long ago.

    So apps of two versions that open one file in turn find their columns, indexes and searches there.
    """
    taken = {column.name.lower() for column in wanted}
    tokenizers = {column.tokenizer for column in wanted if column.tokenizer}
    young = [
        column._replace(age=column.age + 1, tokenizer=column.tokenizer if tokenizers <= {column.tokenizer} else "")
        for column in known
        if column.age + 1 < DECLARATIONS_SERVED
    ]
    others = [column for column in young if column.name.lower() not in taken]
    before = {column.name: column for column in young}
    return (
        *[_with(column, before.get(column.name)) for column in wanted],
        *others[: max(0, COLUMNS_MAX - len(wanted))],
    )


def _with(wanted: Column, before: Column | None) -> Column:
    """A wanted column, with the index and the search that it had, if it shows the same."""
    if before is None or not before.serves(wanted._replace(indexed=False, tokenizer="")):
        return wanted
    more = before._replace(indexed=before.indexed or wanted.indexed, tokenizer=before.tokenizer or wanted.tokenizer)
    return wanted if more == wanted._replace(age=more.age) else more


def convert(
    dictionary: Dictionary, columns: Sequence[Column], ids: Sequence[int], rows: Sequence[tuple[Any, ...]]
) -> Sequence[tuple[Any, ...]]:
    """Rows that end with columns and a packed record, with what converting columns show; ids: of their fields."""
    places = [place for place, column in enumerate(columns) if column.conversion]
    if not places:
        return rows
    wanted, absent = tuple(ids[place] for place in places), tuple(columns[place].default for place in places)
    converted = []
    for row in rows:
        shown = list(row)
        first = len(row) - 1 - len(columns)
        for place, value in zip(places, record.read(dictionary, row[-1], wanted, absent), strict=True):
            shown[first + place] = column_value(_shown(columns[place], value))
        converted.append(tuple(shown))
    return converted


def _shown(column: Column, value: Any) -> Any:
    found = column.conversion.read(value) if column.conversion else value
    return column.default if found is MISFIT else found
