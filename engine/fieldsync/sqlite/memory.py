"""What a file remembers for a while: pairs of replicas and what they agreed on, chunks half come, and the trash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fieldsync.limits import BEGUN_CHUNKS_MAX, PAIR_BYTES_MAX, PAIRS_MAX, TRASH_KEPT_MS, TRASH_ROWS_MAX

if TYPE_CHECKING:
    import apsw

    from fieldsync.context import Context
    from fieldsync.store import Pair, TrashRow


class Memory:
    """Writes it; see store.Writer."""

    _db: apsw.Connection

    def rename_pair(self, old: bytes, new: bytes) -> None:
        """Remember a pair under another name."""
        if old != new:
            self._db.execute("DELETE FROM fs_pair WHERE id=?", (old,))
            self._db.execute("UPDATE OR REPLACE fs_agreed SET pair=? WHERE pair=?", (new, old))

    def put_pair(self, name: bytes, pair: Pair, wall_ms: int) -> bool:
        """Remember a pair; of very many, those that met last, and none of very many scopes: then False."""
        names = json.dumps(pair.names)
        if len(names) > PAIR_BYTES_MAX:
            return False
        self._db.execute(
            "INSERT OR REPLACE INTO fs_pair VALUES(?, ?, ?, ?, ?, ?, ?)",
            (name, pair.replica, names, pair.states, pair.is_hub, pair.was_hub, wall_ms),
        )
        if self._db.execute("SELECT count(*) FROM fs_pair").get > PAIRS_MAX:
            self.drop_pair(self._db.execute("SELECT id FROM fs_pair ORDER BY wall_ms LIMIT 1").get)
        return True

    def drop_pair(self, name: bytes) -> None:
        """Forget a pair."""
        self._db.execute("DELETE FROM fs_pair WHERE id=?", (name,))
        self._db.execute("DELETE FROM fs_agreed WHERE pair=?", (name,))

    def put_agreed(self, pair: bytes, scope: int, context: Context) -> None:
        """Remember the context of a scope that both of a pair have now."""
        self._db.execute("INSERT OR REPLACE INTO fs_agreed VALUES(?, ?, ?)", (scope, pair, context.data))

    def put_begun(self, scope: int, cells: int, body: bytes) -> None:
        """Keep what came of the body of a chunk, in place of an earlier one; of very many scopes, the latest."""
        self.drop_begun(scope)
        self._db.execute("INSERT INTO fs_begun VALUES(NULL, ?, ?, ?)", (scope, cells, body))
        oldest = "SELECT id FROM fs_begun ORDER BY id DESC LIMIT -1 OFFSET ?"
        self._db.execute(f"DELETE FROM fs_begun WHERE id IN ({oldest})", (BEGUN_CHUNKS_MAX,))

    def drop_begun(self, scope: int) -> None:
        """Forget what was begun: a chunk has landed, and the next one is another."""
        self._db.execute("DELETE FROM fs_begun WHERE scope=?", (scope,))

    def put_trash(self, rows: list[TrashRow]) -> None:
        """Keep records that went for a while; of very many, the latest."""
        if not rows:
            return
        self._db.executemany("INSERT INTO fs_trash VALUES(?, ?, ?, ?, ?, ?)", [(None, *row[1:]) for row in rows])
        self._db.execute(
            "DELETE FROM fs_trash WHERE id NOT IN (SELECT id FROM fs_trash ORDER BY id DESC LIMIT ?)",
            (TRASH_ROWS_MAX,),
        )
        self._db.execute("DELETE FROM fs_trash WHERE wall_ms<?", (rows[-1].wall_ms - TRASH_KEPT_MS,))

    def delete_trash(self, ids: list[int]) -> None:
        """Take records out of the trash."""
        self._db.executemany("DELETE FROM fs_trash WHERE id=?", [(number,) for number in ids])
