"""The audit log as an app reads it (docs/audit.md): what each change that landed did to which record, and who wrote it.

recording.py writes it, sqlite/audit.py keeps it; in SQL it is the view fieldsync_audit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldsync import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fieldsync.sqlite import SQLiteReader

COLUMNS = "landed, scope, collection, key, kind, field, old, new, won, author, stamp"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What a change did to a record, or to one field of it."""

    landed: datetime  # when it came into this file, in UTC
    scope: str
    collection: str | None  # None, as the key, where the record's creation had not come
    key: str | None
    kind: str  # "create", "edit", "delete", "move", "drop" or "dismiss"
    field: str | None  # None: all of the record, whose values are a dict then
    old: Any  # as JSON has it, as the new one
    new: Any
    won: bool  # the record read it then; else it lost to what was written apart, or to a deletion
    author: str | None  # 16 hex digits; None where a peer had something no more
    written: datetime | None  # by the author's clock, in UTC
    device: str | None  # the name of the author's device, in an organisation

    def __str__(self) -> str:
        shown = [json.dumps(value, ensure_ascii=False) for value in (self.old, self.new)]
        what = f"{self.field}: {' -> '.join(shown)}" if self.field else shown[self.new is not None]
        who = self.device or self.author
        by = f"by {who}, {self.written:%Y-%m-%d %H:%M:%S}" if who else "which a peer had no more"
        place = f"{self.scope}: {self.collection or 'a record'} {self.key or 'of no known key'}"
        return f"{self.landed:%Y-%m-%d %H:%M:%S} {place}: {self.kind}{'' if self.won else ', lost'}: {what} {by}"


def entries(
    reader: SQLiteReader,
    wanted: dict[str, Any],
    since: datetime | None,
    most: int,
    device_of: Callable[[bytes], str | None],
) -> list[AuditEntry]:
    """The last so many rows of the log whose columns are as wanted, None being any; the oldest of them first."""
    given = {f"{name}=?": value for name, value in wanted.items() if value is not None}
    if since is not None:
        given["landed>=?"] = since.timestamp() * 1000
    where = " AND ".join(given) or "1"
    last = f"SELECT id, {COLUMNS} FROM fs_audit WHERE {where} ORDER BY id DESC LIMIT ?"
    rows = reader.sql(f"SELECT {COLUMNS} FROM ({last}) ORDER BY id", (*given.values(), most))[1]
    return [_entry(device_of, *row) for row in rows]


def _entry(device_of: Callable[[bytes], str | None], landed: int, *row: Any) -> AuditEntry:
    scope, collection, key, kind, field, *texts, won, author, stamp = row
    old, new = (None if text is None else json.loads(text) for text in texts)
    when = clock.to_datetime(landed << clock.COUNTER_BITS)
    written = None if stamp is None else clock.to_datetime(stamp)
    who, device = (author.hex(), device_of(author)) if author else (None, None)
    return AuditEntry(when, scope, collection, key, kind, field, old, new, bool(won), who, written, device)
