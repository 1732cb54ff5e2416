"""What all actions of a schedule share: the devices, their links, chance, and what is told of it all."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.simulation.disk import Killed
from tests.simulation.ledger import Ledger
from tests.simulation.oracle import Violation

from fieldsync.errors import DiskFull, NotDelivered
from fieldsync.syncing import mending
from fieldsync.syncing.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.device import Device
    from tests.simulation.world import World

    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Mended, Report


@dataclass
class Outcome:
    """What came of one seed."""

    seed: int
    violation: str | None = None
    trace: list[str] = field(default_factory=list)
    stats: Counter[str] = field(default_factory=Counter)


@contextmanager
def nothing_to_mend(world: World | None = None) -> Iterator[None]:
    """A session that finds equal contexts and unequal records has found a bug, which it must not mend.

    But where damage made that out of what cannot be known any more (Truth.doubt), that is what mending is for.
    """
    kept = mending.look

    def look(replica: Replica, mended: Mended) -> None:
        if world is None or not world.truth(mended.scope).doubtful:
            raise Violation(f"{mended.scope}: equal contexts, and unequal records")
        kept(replica, mended)

    with patch.object(mending, "look", look):
        yield


class Link:
    """One conversation between two devices, frame by frame."""

    def __init__(
        self, number: int, devices: tuple[Device, Device], scopes: list[str] | None, bytes_max: int | None
    ) -> None:
        """bytes_max: after so many the initiator has had enough."""

        def enough(report: Report) -> bool:
            return bytes_max is not None and report.bytes_sent + report.bytes_received >= bytes_max

        self.number = number
        self.devices = devices
        self.sides = (
            Session(devices[0].replica, initiator=True, scopes=scopes, peer=devices[1].name, enough=enough),
            Session(devices[1].replica, initiator=False),
        )
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())  # frames on their way from each side
        self.stalled: set[int] = set()  # sides whose frames do not arrive for now
        self.is_faulty = False  # a frame came twice: the protocol may refuse to go on

    @property
    def has_enough(self) -> bool:
        return self.sides[0].finished and not self.sides[0].report.complete

    def close(self) -> None:
        for side in self.sides:
            side.close()


class Stage:
    """The devices and their links."""

    def __init__(self, world: World, outcome: Outcome) -> None:
        self.world, self.chance, self.outcome = world, world.chance, outcome
        self.devices: list[Device] = []
        self.lost: list[Device] = []
        self.links: list[Link] = []
        self.ledger = Ledger(world, self.devices)

    def say(self, text: str) -> None:
        self.outcome.trace.append(text)

    def drop(self, link: Link) -> None:
        self.say(f"link {link.number} ends")
        link.close()
        self.links.remove(link)

    def links_of(self, device: Device) -> list[Link]:
        return [link for link in self.links if device in link.devices]

    def attempt(self, device: Device, text: str, action: Any) -> bool:
        """Let a device do something that it may not be able to; whether it was."""
        error: BaseException | None = None
        try:
            action()
        except (DiskFull, NotDelivered, Killed) as caught:
            error = caught
        self.say(f"{device.name} {text}{f' -> {type(error).__name__}' if error else ''}")
        if isinstance(error, Killed):
            raise error
        return error is None

    def close(self) -> None:
        for link in self.links:
            link.close()
        for device in self.devices + self.lost:
            device.database.close()
