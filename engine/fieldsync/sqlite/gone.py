"""What a file still knows of records that are not there: removals, moves and the trash, for many keys at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fieldsync import clock
from fieldsync.store import KILLS, Gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

AMONG = "key IN (SELECT value FROM json_each(?))"


class GoneReader:
    """Reads it; see store.Reader."""

    _db: apsw.Connection

    def gone(self, collection: int, keys: Sequence[str]) -> Iterator[Gone]:
        """All that tells of records of some keys that went, in any order."""
        bindings = collection, json.dumps(keys)
        removals = (
            "SELECT r.key, r.scope, c.time, c.author, c.seq, item FROM fs_removal r JOIN fs_change c "
            "ON c.scope=r.scope AND c.author=r.author AND c.seq=r.seq LEFT JOIN fs_forward f "
            "ON f.scope=r.scope AND f.author=inc_author AND f.seq=inc_seq AND f.n=inc_n "
            f"WHERE f.n IS NULL AND r.collection=? AND r.{AMONG}"
        )
        for key, scope, time, author, seq, item in self._db.execute(removals, bindings):
            if item[0] & KILLS:
                yield Gone(key, scope, clock.to_ms(time), (author, seq), time)
        moves = f"SELECT key, scope, wall_ms, target FROM fs_forward WHERE collection=? AND {AMONG}"
        for key, scope, ms, target in self._db.execute(moves, bindings):
            yield Gone(key, scope, ms, target=target)
        for key, scope, ms in self._db.execute(
            f"SELECT key, scope, wall_ms FROM fs_trash WHERE collection=? AND {AMONG}", bindings
        ):
            yield Gone(key, scope, ms)
