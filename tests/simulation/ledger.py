"""Who accounts for which change, and which may be lost: none that was ever made, unless a disaster took the last of it.

A change is accounted for by whoever has it in its context, or by an escrow that no hub has read yet. A disaster is
measured: what its device accounted for before it and not after, and nobody else does, may be lost, and nothing more.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation import cells
from tests.simulation.glance import Glance
from tests.simulation.oracle import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model import Dot
    from tests.simulation.device import Device
    from tests.simulation.world import World


@dataclass(frozen=True)
class Escrow:
    """What went into a bundle before a scope was left."""

    scope: str
    dots: frozenset[Dot]
    base: frozenset[Dot]  # what it builds on: some hub had that
    data: bytes


class Ledger:
    """Of all scopes."""

    def __init__(self, world: World, devices: list[Device]) -> None:
        self.world = world
        self.devices = devices  # those that are not lost
        self.escrows: list[Escrow] = []
        self.lost: dict[str, set[Dot]] = defaultdict(set)  # may be lost
        self.broken: dict[str, set[Dot]] = defaultdict(set)  # a hub had them, and a disaster took them from it

    def held(self, scope: str) -> set[Dot]:
        """What anybody accounts for."""
        known = [device.context(scope) for device in self.devices]
        return set().union(*known, *(escrow.dots for escrow in self.escrows if escrow.scope == scope))

    def check(self) -> None:
        """Violation where nobody accounts for a change that was made, and no disaster took it."""
        for scope, truth in self.world.truths.items():
            nowhere = truth.dots() - self.held(scope) - self.lost[scope]
            if nowhere:
                raise Violation(f"{scope}: nobody has {sorted(nowhere)[:3]} any more")

    @contextmanager
    def disaster(self, device: Device) -> Iterator[None]:
        """Something takes from a device what it may take."""
        self.world.movers.forget(device)
        before = device.contexts()
        yield
        for scope, gone in self._gone(device, before).items():
            self.lose(scope, gone)
            if device.is_hub:
                self.broken[scope] |= gone

    @contextmanager
    def repair(self, device: Device) -> Iterator[None]:
        """A disaster after which nobody may know any more what had become of changes that it took."""
        before = device.contexts()
        with self.disaster(device):
            yield
        for scope, gone in self._gone(device, before).items():
            with device.store.reading() as reader:
                kept = {one.dot for one in Glance.at(reader).kept if one.scope == scope}
            live = cells.all_cells(device.rows(scope))
            self.world.truth(scope).doubt(gone, device.context(scope), kept, live)

    @contextmanager
    def power_cut(self, device: Device) -> Iterator[None]:
        """What was not synced goes, of which nothing may have left the device; nor may anybody rely on a hub for it."""
        self.world.movers.forget(device)
        before, authors = device.contexts(), device.authors()
        yield
        for scope, gone in self._gone(device, before).items():
            own = {dot for dot in gone if dot[0] == authors.get(scope)}
            elsewhere = self.held(scope).union(*(other.provisional(scope) for other in self.devices))
            if own & elsewhere:
                raise Violation(f"{scope}: {device.name} gave away {sorted(own)[:3]} before they were durable")
            undone = own | {dot for dot in gone - elsewhere if dot[0] in device.minted}
            self.world.truth(scope).undo(undone)
            self.lose(scope, gone - undone)

    def _gone(self, device: Device, before: dict[str, set[Dot]]) -> dict[str, set[Dot]]:
        after = device.contexts() if device in self.devices else {}
        return {scope: gone for scope, dots in before.items() if (gone := dots - after.get(scope, set()))}

    def lose(self, scope: str, dots: set[Dot]) -> None:
        """Some changes may be lost, if nobody else has them."""
        self.lost[scope] |= dots - self.held(scope)

    @contextmanager
    def leaving(self, device: Device, scope: str) -> Iterator[None]:
        """What is left behind must be where a hub is sure to have it, or in an escrow."""
        before = device.context(scope)
        try:
            yield
        finally:
            if scope not in device.scopes():
                hubs = [hub.context(scope) for hub in self.devices if hub.is_hub]
                escrows = [escrow.dots for escrow in self.escrows if escrow.scope == scope]
                nowhere = before - self.broken[scope].union(*hubs, *escrows)
                if nowhere:
                    raise Violation(f"{device.name} left {scope} though no hub has {sorted(nowhere)[:3]}")
                self.lose(scope, before & self.broken[scope])

    def read(self, escrow: Escrow, device: Device) -> None:
        """An escrow was taken in: what it builds on may be lost, and with it what it held in part."""
        self.escrows.remove(escrow)
        unread = set(escrow.dots) - device.context(escrow.scope)
        if unread and escrow.base <= device.context(escrow.scope) and not self.broken[escrow.scope]:
            raise Violation(f"{device.name} has {sorted(unread)[:3]} not, which came in an escrow")
        self.lose(escrow.scope, unread)
