"""Templates of keys and scopes: "{origin}/{carrier}" and a row -> "JFK/DL"."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fieldsync.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping


def fill_template(template: str, columns: Iterable[str] | None = None) -> Callable[[Mapping[str, object]], str]:
    """Make a function row -> text of a column's name, such as "id", or of a template, such as "job/{job}".

    SchemaError for a template that cannot be read or a column not in `columns` (without them: in the row it is called
    with). The function raises ValueError, with the reason, for a row whose value is None, empty or not a plain value.
    Datetimes are written as 2013-01-31T05:00:00Z, the rest as by str.
    """
    literals, names = _parts(template)
    if columns is not None:
        check_columns(names, list(columns))
    pattern = "%s".join(literal.replace("%", "%%") for literal in literals)

    def fill(row: Mapping[str, object]) -> str:
        try:
            texts = [_WRITERS[type(value := row[name])](value) for name in names]
        except KeyError:
            raise _unusable(names, row) from None
        if "" in texts:
            raise _unusable(names, row)
        return pattern % tuple(texts)

    return fill


def columns_in(template: str) -> list[str]:
    """The columns that a template names; SchemaError for one that cannot be read."""
    return _parts(template)[1]


def _parts(template: str) -> tuple[list[str], list[str]]:
    """The literal texts round the columns of a template, and the columns."""
    parts = re.split(r"\{([^{}]*)\}", template) if re.search("[{}]", template) else ["", template, ""]
    literals, names = parts[::2], parts[1::2]
    if not names or not all(names) or any(re.search("[{}]", literal) for literal in literals):
        raise SchemaError(f"{template!r} is neither a column nor a template such as 'job/{{job}}'")
    return literals, names


def check_columns(wanted: Iterable[str], names: Collection[str]) -> None:
    """SchemaError for a wanted column that there is not."""
    for name in wanted:
        if name not in names:
            raise SchemaError(f"there is no column {name!r}; the columns are {', '.join(names)}")


def _write_datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


_WRITERS: dict[type, Callable[[Any], str]] = {
    datetime: _write_datetime,
    **dict.fromkeys([bool, int, float, str, Decimal, date], str),
}


def _unusable(names: list[str], row: Mapping[str, object]) -> ValueError:
    check_columns(names, list(row))
    name, value = next((name, row[name]) for name in names if type(row[name]) not in _WRITERS or row[name] == "")
    if value is None or value == "":
        return ValueError(f"column {name!r} has no value, and the key or scope is made from it")
    return ValueError(f"column {name!r} has a {type(value).__name__}, which cannot be in a key or scope")
