"""The table of the audit log: there only in files that keep one, so that its being there says that one is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import apsw

    from fieldsync.apply import Landed
    from fieldsync.sqlite.store import Schema
    from fieldsync.store import AuditRow

# REPLACE deletes without a trigger of DELETE, hence the one of INSERT; what was trimmed may go, and nothing else
TABLES = """
CREATE TABLE fs_audit(
    id INTEGER PRIMARY KEY AUTOINCREMENT, landed INTEGER NOT NULL, scope TEXT NOT NULL, collection TEXT, key TEXT,
    kind TEXT NOT NULL, field TEXT, old TEXT, new TEXT, won INTEGER NOT NULL, author BLOB, seq INTEGER, stamp INTEGER);
CREATE INDEX fs_audit_key ON fs_audit(key);
CREATE TRIGGER fs_audit_no_update BEFORE UPDATE ON fs_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER fs_audit_no_replace BEFORE INSERT ON fs_audit WHEN EXISTS (SELECT 1 FROM fs_audit WHERE id=NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER fs_audit_no_delete BEFORE DELETE ON fs_audit
WHEN OLD.id > coalesce((SELECT value FROM fs_meta WHERE name='audit_trimmed'), 0)
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE VIEW fieldsync_audit AS SELECT
    id, strftime('%Y-%m-%dT%H:%M:%fZ', landed / 1000.0, 'unixepoch') AS landed, scope, collection, key, kind, field,
    old ->> '$' AS old, new ->> '$' AS new, won, lower(hex(author)) AS author, seq,
    strftime('%Y-%m-%dT%H:%M:%fZ', (stamp >> 16) / 1000.0, 'unixepoch') AS stamp
FROM fs_audit;
"""


class AuditLog:
    """Writes it, and notes in a transaction what lands; see store.Writer."""

    _db: apsw.Connection
    _schema: Schema | None
    _tables: Callable[[], Schema]

    def __init__(self) -> None:
        self._landed: list[Landed] = []

    def begin_audit(self) -> None:
        """Keep a log from now on."""
        if not self._tables().is_audited:
            self._db.execute(TABLES)
            self._schema = self._tables()._replace(is_audited=True)

    def note_landed(self, landed: Landed) -> None:
        """Something was merged, or came anew."""
        if self._tables().is_audited:
            self._landed.append(landed)

    def take_landed(self) -> list[Landed]:
        """What the transaction brought since the last call; nothing where no log is kept."""
        landed, self._landed = self._landed, []
        return landed

    def put_audit(self, rows: Iterable[AuditRow]) -> None:
        """Append to the log."""
        self._db.executemany("INSERT INTO fs_audit VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def trim_audit(self, before_ms: int, most: int) -> int:
        """Forget the rows up to the first one that landed since then, and all but the last so many; how many went."""
        first = self._db.execute("SELECT id FROM fs_audit WHERE landed>=? ORDER BY id LIMIT 1", (before_ms,)).get
        last = self._db.execute("SELECT max(id) FROM fs_audit").get or 0
        mark = max(last if first is None else first - 1, last - most)
        self._db.execute(
            "INSERT INTO fs_meta VALUES('audit_trimmed', ?) ON CONFLICT DO UPDATE SET value=max(value, excluded.value)",
            (mark,),
        )
        self._db.execute("DELETE FROM fs_audit WHERE id<=?", (mark,))
        return self._db.changes()
