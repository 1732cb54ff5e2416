"""The world of a run: the true time, what was truly written, and what the app that writes it declares."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.simulation.mover import Movers
from tests.simulation.oracle import Truth

import fieldsync as fs
from fieldsync import copies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Order(fs.Record, table="orders"):
    status: str = fs.field(default="open", index=True)
    price: int | None = None
    hours: fs.Counter = 0
    tags: set[str]
    phones: tuple[str, ...] = fs.field(keep="all")
    notes: fs.Text
    steps: fs.List
    facts: fs.Map


class EarlierOrder(fs.Record, table="orders"):
    status: str = "open"
    hours: fs.Counter = fs.field(default=0, index=True)


OWNER = "d0"
DECLARATIONS: list[tuple[type[fs.Record], ...]] = [(Order,), (Order,), (EarlierOrder,), ()]


class World:
    """What all devices share: the true time, what was truly written, and names for authors."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self._names = random.Random(chance.random())  # apart: what the engine draws does not change the schedule
        self.now_ms = 1_700_000_000_000
        self.truths: dict[str, Truth] = {}
        self.movers = Movers(self.truth)

    def truth(self, scope: str) -> Truth:
        return self.truths.setdefault(scope, Truth())

    def mint(self) -> bytes:
        return self._names.randbytes(8)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Files are named by this world's chance: frames name them, and equal seeds give equal frames."""
        with patch.object(copies.os, "urandom", self._names.randbytes):
            yield
