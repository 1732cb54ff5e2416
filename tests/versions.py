"""One collection, as three versions of an app declare it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fieldsync as fs

if TYPE_CHECKING:
    from pathlib import Path

SCOPE = "west"


class One(fs.Record, table="customers"):
    telephone: str | None = None
    size: str | None = fs.field(default=None, index=True)
    fax: str | None = None
    hours: fs.Counter
    tags: set[str]
    notes: fs.Text


class Two(fs.Record, table="customers"):
    """Renamed four, added one."""

    phone: str | None = fs.field(default=None, stored_as="telephone", index=True)
    size: str | None = None
    fax: str | None = None
    visits: fs.Counter = fs.field(default=0, stored_as="hours")
    labels: set[str] = fs.field(stored_as="tags")
    body: fs.Text = fs.field(stored_as="notes")
    mail: str | None = None


class Three(fs.Record, table="customers"):
    """Retyped one, gave its old name to another, and dropped two."""

    mobile: str | None = fs.field(default=None, stored_as="telephone")
    telephone: int | None = fs.field(default=None, stored_as="telephone_extension")
    size: int | None = fs.field(default=None, converts=str, index=True)
    tags: set[str]
    body: fs.Text = fs.field(stored_as="notes")
    mail: str | None = None


class Every(fs.Record, table="customers"):
    """What cells hold, under the names that they are stored by."""

    telephone: Any = None
    telephone_extension: Any = None
    size: Any = None
    fax: Any = None
    mail: Any = None
    hours: fs.Counter
    tags: set[str]
    notes: fs.Text


def opened(path: Path, version: type[fs.Record] | None) -> fs.Database:
    return fs.open(path, *([version] if version else []), durability="fast", notes=path.parent / "notes")


def values(record: Any) -> dict[str, Any]:
    return {name: value for name, value in record.as_dict().items() if name not in ("key", "scope")}
