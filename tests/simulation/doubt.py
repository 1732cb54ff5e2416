"""Devices that prove who they are: a hub is believed what it says that it has, a device only what it wrote itself."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.simulation import schedule
from tests.simulation.device import Device
from tests.simulation.schedule import Schedule

from fieldsync import replica
from fieldsync.context import Context
from fieldsync.trust.rights import Everything, Trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.store import Scope, Writer

SILENCED = ("restore", "lose", "back_up", "copy", "leave", "repair")  # then nobody can speak of what somebody wrote


class OwnWord(Everything):
    """The rights of a device that may do everything, and is believed what it says of itself."""

    knows_all = False

    def __init__(self, giver: Device, counts: Counter[str]) -> None:
        self._giver = giver
        self._counts = counts

    def may_claim(self, author: bytes, /) -> bool:
        """Whether the device has minted the name."""
        is_own = author in self._giver.minted
        self._counts["believed" if is_own else "doubted"] += 1
        return is_own


@contextmanager
def doubting() -> Iterator[Counter[str]]:
    """Schedules with hubs and such devices; counts of whose word counted how often."""
    counts: Counter[str] = Counter()
    opened, converge, trim = Device._open, Schedule.converge, replica.trim
    files: dict[bytes, Device] = {}

    def _open(device: Device, *arguments: Any) -> Any:
        database = opened(device, *arguments)
        files[device.replica.id] = device

        def trust(replica_id: bytes, says_hub: bool) -> Trust:
            return Trust(is_hub=True) if says_hub else Trust(rights=OwnWord(files[replica_id], counts))

        device.replica.trust = trust
        return database

    def twice(played: Schedule) -> None:
        """Who was not believed may be when the author has come by."""
        for one, other in 2 * list(combinations(played.devices, 2)):
            played.join(one, other)
        converge(played)

    def trim_known(writer: Writer, scope: Scope, *, known: Context | None, **options: Any) -> tuple[Scope, int]:
        """A device forgets removals that a hub knows."""
        known = None if writer.meta("takes_all") else Context(scope.delivered)
        return trim(writer, scope, known=known, **options)

    with (
        patch.object(Device, "_open", _open),
        patch.object(Schedule, "converge", twice),
        patch.object(replica, "trim", trim_known),
        patch.object(schedule, "HUBS", [1, 1, 2]),
        patch.dict(schedule.ACTIONS, dict.fromkeys(SILENCED, 0)),
    ):
        yield counts
