"""Two sessions of one process talking, frame by frame, for tests that stop, twist and replay what they say."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation import cells

from fieldsync.replica import Replica
from fieldsync.session import Session
from fieldsync.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW_MS = 1_700_000_000_000


def open_replica(path: Path, *, hub: bool = False, seed: int = 0) -> Replica:
    """A replica whose clock stands still and whose chance is seeded: equal files, equal frames."""
    chance = random.Random(f"{path.name} {seed}")
    store = SQLiteStore(path, full=False)
    return Replica(store, takes_all=hub, wall_ms=lambda: NOW_MS, mint=lambda: chance.randbytes(8))


@dataclass
class Talk:
    """A conversation: `frames` are all that were said, in the order in which they arrived, as (side, frame)."""

    sides: tuple[Session, Session]
    frames: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    def between(cls, one: Replica, other: Replica, scopes: list[str] | None = None) -> Talk:
        return cls((Session(one, initiator=True, scopes=scopes), Session(other, initiator=False)))

    def run(self, cut_after: int | None = None, deliver: Callable[[Session, bytes], None] = Session.receive) -> Talk:
        """Take turns until nobody has more to say, or the link dies; the sides are closed in any case."""
        turn, idle = 0, 0
        try:
            while idle < 2 and len(self.frames) != cut_after:
                frame = self.sides[turn].next_frame()
                if frame is None:
                    turn, idle = 1 - turn, idle + 1
                    continue
                idle = 0
                self.frames.append((turn, frame))
                deliver(self.sides[1 - turn], frame)
        finally:
            for side in self.sides:
                side.close()
        return self

    @property
    def types(self) -> list[tuple[int, int]]:
        """Who said what."""
        return [(side, frame[0]) for side, frame in self.frames]


def state(replica: Replica) -> dict[str, tuple[bytes, bytes, dict[cells.Cid, bytes]]]:
    """Of each scope the digest, the context and the cells."""
    with replica.store.reading() as reader:
        return {
            scope.name: (scope.digest, reader.context(scope.id).data, cells.all_cells(cells.held(reader, scope.id)))
            for scope in reader.scopes()
        }
