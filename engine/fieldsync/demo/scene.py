"""What the steps of the demo work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fieldsync.demo.story import Story
    from fieldsync.demo.teller import Teller
    from fieldsync.device import Device


class Scene(NamedTuple):
    """Who takes part, what is told, and who tells it."""

    teller: Teller
    story: Story
    hub: Device
    devices: dict[str, Device]  # by name: ada, ben, cho and dan
