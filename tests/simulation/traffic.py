"""Conversations, frame by frame: several at a time, cut, stalled one way, out of budget, with a frame doubled.

Frames of one conversation keep their order: a carrier has to see to that (docs/protocol.md).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.simulation.oracle import Violation
from tests.simulation.stage import Link, Stage

from fieldsync.errors import ClosedError, DigestMismatch, DiskFull, ProtocolError, SyncError

if TYPE_CHECKING:
    from tests.simulation.device import Device


class Traffic(Stage):
    """Actions on links."""

    link_count = 0
    scopes: list[str]

    def link(self, one: Device) -> None:
        other = self.chance.choice([device for device in self.devices if device is not one])
        only = self.chance.sample(self.scopes, 1) if self.chance.random() < 0.1 else None
        bytes_max = self.chance.choice([60, 200, 600, 2_000]) if self.chance.random() < 0.15 else None
        link = Link(self.link_count, (one, other), only, bytes_max)
        self.link_count += 1
        self.links.append(link)
        self.say(f"link {link.number}: {one.name} -> {other.name} {only or ''} {bytes_max or ''}")

    def cut(self, _: Device) -> None:
        """A link dies, with what is on its way; what has landed stays."""
        if self.links:
            link = self.chance.choice(self.links)
            self.drop(link)
            self.chance.choice(link.devices).check()

    def stall(self, _: Device) -> None:
        """One direction of a link stands still, or moves again."""
        if self.links:
            link, side = self.chance.choice(self.links), self.chance.randrange(2)
            link.stalled ^= {side}
            self.say(f"link {link.number} side {side} {'stalls' if side in link.stalled else 'moves again'}")

    def move(self, link: Link) -> None:
        """Let one side send a frame, or the other receive one."""
        side = self.chance.randrange(2)
        try:
            if link.queues[side] and side not in link.stalled and self.chance.random() < 0.6:
                self.deliver(link, side)
            elif len(link.queues[side]) < 4 and not self.pull(link, side) and not any(link.queues):
                self.end(link, 1 - side)
        except (DiskFull, ClosedError) as error:
            self.say(f"link {link.number} fails: {error}")
            self.drop(link)
        except (ProtocolError, SyncError) as error:
            if not link.is_faulty or isinstance(error, DigestMismatch):
                raise
            self.say(f"link {link.number} is refused: {error}")
            self.drop(link)

    def pull(self, link: Link, side: int) -> bool:
        """Put a side's next frame on the wire, if it has one."""
        frame = link.sides[side].next_frame()
        if frame is not None:
            link.queues[side].append(frame)
            name = hashlib.blake2b(frame, digest_size=4).hexdigest()
            self.say(f"link {link.number} side {side} sends {frame[0]} {len(frame)} {name}")
        return frame is not None

    def end(self, link: Link, side: int) -> None:
        """One side has nothing to say and nothing is on the wire: either the other speaks, or all is said."""
        if not self.pull(link, side):
            if not link.has_enough and not all(one.finished for one in link.sides):
                raise Violation(f"link {link.number}: both sides wait")
            self.drop(link)

    def deliver(self, link: Link, side: int) -> None:
        queue = link.queues[side]
        frame = queue.popleft()
        if self.chance.random() < 0.01:
            link.is_faulty = True
            queue.appendleft(frame)
            self.say(f"link {link.number} side {side} doubles a frame")
        self.say(f"link {link.number} side {side} arrives {frame[0]}")
        link.sides[1 - side].receive(frame)
