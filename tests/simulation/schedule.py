"""Seeded schedules: what devices do, which frames move, what breaks; then all sync, and all must be as it has to be."""

from __future__ import annotations

import hashlib
import io
import random
import tempfile
import traceback
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.simulation import cells
from tests.simulation.device import DECLARATIONS, Device, World
from tests.simulation.inner import Op
from tests.simulation.oracle import Violation

from fieldsync import bundle, exchange, giving
from fieldsync.errors import ClosedError, DigestMismatch, DiskFull, NotDelivered, ProtocolError, SyncError
from fieldsync.memory import join
from fieldsync.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOPES = ["job/1", "job/2", "job/3"]
MINUTE, DAY, YEAR = 60_000, 86_400_000, 31_557_600_000
OFFSETS_MS = [0, 0, 0, 0, 2_000, -MINUTE, 20 * MINUTE, -10 * YEAR, 10 * YEAR, 76 * YEAR]  # the last: the year 2100
STEPS_MS = [0, 0, 1, 1, 30, 1_000, MINUTE, 10 * MINUTE, DAY]
CHUNK_CELLS = [1, 1, 4, 20, 50_000]
ACTIONS = {  # how often each is done; a run leaves some out and does others more
    "transact": 40,
    "inner": 16,
    "load": 4,
    "link": 24,
    "cut": 8,
    "enter": 3,
    "leave": 6,
    "pack": 3,
    "unpack": 5,
    "trim": 6,
    "reopen": 3,
    "set_clock": 2,
    "fill_disk": 2,
    "lose": 0.3,
}
OUTER = ["create", *["update"] * 5, "delete", "replace"]
INNER = ["tag", "tag", "untag", "write", "write", "compact", "later", "dismiss"]


@dataclass
class Outcome:
    """What came of one seed."""

    seed: int
    violation: str | None = None
    trace: list[str] = field(default_factory=list)
    stats: Counter[str] = field(default_factory=Counter)


@contextmanager
def _small_chunks(chance: random.Random) -> Iterator[None]:
    """Streams of many frames, and declarations that leave something out."""
    cells, groups = chance.choice(CHUNK_CELLS), chance.choice([1, 16])
    with (
        patch.object(giving, "CHUNK_CELLS_TARGET", cells),
        patch.object(exchange, "PROVISIONAL_GROUPS_MAX", groups),
    ):
        yield


def run(seed: int) -> Outcome:
    """Play one seed's schedule."""
    outcome = Outcome(seed)
    chance = random.Random(seed)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder, _small_chunks(chance):
        schedule = Schedule(World(Path(folder), chance), outcome)
        try:
            schedule.play()
        except Violation as violation:
            outcome.violation = str(violation)
        except Exception:  # whatever an honest run raises is a violation too
            outcome.violation = traceback.format_exc()
        finally:
            schedule.close()
    if outcome.violation:
        outcome.trace.append(outcome.violation)
    return outcome


class Link:
    """One conversation between two devices, frame by frame."""

    def __init__(self, number: int, devices: tuple[Device, Device], scopes: list[str] | None) -> None:
        self.number = number
        self.devices = devices
        self.sides = (
            Session(devices[0].replica, initiator=True, scopes=scopes, peer=devices[1].name),
            Session(devices[1].replica, initiator=False),
        )
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())  # frames on their way from each side
        self.is_faulty = False  # a frame came twice: the protocol may refuse to go on

    def close(self) -> None:
        for side in self.sides:
            side.close()


class Schedule:
    """One run."""

    def __init__(self, world: World, outcome: Outcome) -> None:
        self.world, self.chance, self.outcome = world, world.chance, outcome
        self.links: list[Link] = []
        self.link_count = 0
        self.lost: list[Device] = []
        self.bundles: list[bytes] = []
        self.scopes = SCOPES[: self.chance.choice([1, 1, 1, 2, 3])]
        self.keys = [f"k{i}" for i in range(self.chance.choice([1, 2, 4]))]
        self.weights = {name: weight * self.chance.choice([0.2, 1, 1, 4]) for name, weight in ACTIONS.items()}
        self.haste = self.chance.choice([6, 12, 40])  # how many frames move between two actions, at most
        count = self.chance.randrange(3, 7)
        hub = self.chance.random() < 0.6
        self.devices = [
            Device(world, f"d{i}", is_hub=hub and i == 0, declared=self.chance.choice(DECLARATIONS))
            for i in range(count)
        ]
        for device in self.devices:
            held = self.chance.randrange(1, min(len(self.scopes), 2) + 1)
            some = self.scopes if device.is_hub else self.chance.sample(self.scopes, held)
            device.database.enter(*some)
            device.offset_ms = self.chance.choice(OFFSETS_MS)

    def say(self, text: str) -> None:
        self.outcome.trace.append(text)

    def close(self) -> None:
        for link in self.links:
            link.close()
        for device in self.devices + self.lost:
            device.database.close()

    # --- under fire ---

    def play(self) -> None:
        """Safety under fire; then the faults stop, all sync, and all go on working."""
        for _ in range(self.chance.randrange(30, 140)):
            self.world.now_ms += self.chance.choice(STEPS_MS)
            self.act()
            for _ in range(self.chance.randrange(self.haste)):
                if self.links:
                    self.move(self.chance.choice(self.links))
            if self.chance.random() < 0.15:
                self.chance.choice(self.devices).check()
                self.check_pairs()
        while self.links:
            self.drop(self.links[0])
        for device in self.devices:
            device.store.is_full = False
        self.converge()
        for device in self.devices:
            self.world.now_ms += 1_000
            self.transact(device)
            self.inner(device)
        self.converge()

    def act(self) -> None:
        (name,) = self.chance.choices(list(self.weights), list(self.weights.values()))
        getattr(self, name)(self.chance.choice(self.devices))

    def values(self, device: Device, op: Op) -> Op:
        """Chance values for an op, of types that every version of the app knows."""
        names = ["status", "price"] if op.collection == "orders" else ["text", "state"]
        declared = device.database._collections.get(op.collection)
        if declared is not None:
            names = [name for name in names if name in declared.places]
        some = names if op.kind != "update" else self.chance.sample(names, self.chance.randrange(len(names) + 1))
        values = {name: self.value(name) for name in some}
        hours = self.chance.randrange(4) if declared is not None else 0
        if op.kind == "update" and not values and not hours:
            values = {names[0]: self.value(names[0])}
        return Op(op.kind, op.scope, op.collection, op.key, values, hours)

    def value(self, name: str) -> Any:
        return self.chance.randrange(1_000) if name == "price" else f"v{self.chance.randrange(1_000)}"

    def transact(self, device: Device) -> None:
        held = device.scopes()
        ops: dict[tuple[str, str, str], Op] = {}
        for _ in range(self.chance.choice([1, 1, 2, 3, 5])):
            place = self.chance.choice(held), self.chance.choice(["orders", "notes"]), self.chance.choice(self.keys)
            live = place[2] in device.keys(*place[:2])
            kind = self.chance.choice(OUTER) if live else "create"
            if kind != "create" or not live:
                ops[place] = self.values(device, Op(kind, *place))
        self.attempt(device, f"{list(ops.values())}", lambda: device.transact(list(ops.values())))

    def inner(self, device: Device) -> None:
        scope = self.chance.choice(device.scopes())
        ops = []
        for _ in range(self.chance.choice([1, 1, 2, 4])):
            kind = self.chance.choice(INNER)
            number = self.chance.randrange(2 if kind in ("tag", "untag") else 1_000)
            values = {"tag": f"t{number}", "text": b"%d" % number, "later": number}
            ops.append(Op(kind, scope, "orders", self.chance.choice(self.keys), values))
        self.attempt(device, f"inner {ops}", lambda: device.inner(scope, ops))

    def load(self, device: Device) -> None:
        scope, collection = self.chance.choice(device.scopes()), self.chance.choice(["orders", "notes"])
        keys = self.chance.sample(self.keys, self.chance.randrange(1, len(self.keys) + 1))
        rows = {key: self.values(device, Op("create", scope, collection, key)).values for key in keys}
        self.attempt(device, f"load {scope} {collection} {rows}", lambda: device.load(scope, collection, rows))

    def attempt(self, device: Device, text: str, action: Any) -> None:
        try:
            action()
        except DiskFull:
            text += " -> disk full"
        except NotDelivered:
            text += " -> not delivered"
        self.say(f"{device.name} {text}")

    def reopen(self, device: Device) -> None:
        """Close and open a device, with another version of the app; its links are cut before or after."""
        here = [link for link in self.links if device in link.devices]
        early = self.chance.random() < 0.5
        device.store.is_full = False  # whether opening writes depends on what is declared
        for link in here if early else ():
            self.drop(link)
        declared = self.chance.choice(DECLARATIONS)
        self.say(f"{device.name} reopens with {declared}")
        device.reopen(declared)
        for link in here if not early else ():
            self.drop(link)

    def enter(self, device: Device) -> None:
        scope = self.chance.choice(self.scopes)
        self.attempt(device, f"enters {scope}", lambda: device.database.enter(scope))

    def trim(self, device: Device) -> None:
        """Forget removals: all, or all but some of the latest."""
        keep = self.chance.choice([None, 0, 1, 3])
        before_ms = self.chance.choice([0, self.world.now_ms, 2 * self.world.now_ms])
        self.attempt(
            device, f"trims {before_ms} {keep}", lambda: device.replica.trim(None, before_ms=before_ms, keep=keep)
        )

    def leave(self, device: Device) -> None:
        """Leave a scope, if a hub has all of it; its streams end by themselves."""
        if device.is_hub:
            return
        scope = self.chance.choice(device.scopes())
        self.attempt(device, f"leaves {scope}", lambda: device.replica.leave([scope]))
        for link in self.links:  # in which a peer may speak of a scope that is no longer there
            link.is_faulty |= device in link.devices
        if len(device.scopes()) == 0 or self.chance.random() < 0.5:
            self.attempt(device, f"enters {scope} again", lambda: device.database.enter(scope))

    def pack(self, device: Device) -> None:
        """Write a bundle, for anybody or for what another device has now, to be carried about."""
        other, bases = self.chance.choice(self.devices), None
        if self.chance.random() < 0.5:
            with other.store.reading() as reader:
                bases = {scope.name: reader.context(scope.id) for scope in reader.scopes()}
        file = io.BytesIO()
        bundle.write(device.replica, file, self.chance.choice([None, device.scopes()[:1]]), bases)
        self.bundles = [*self.bundles[-4:], file.getvalue()]
        self.say(f"{device.name} packs {len(file.getvalue())} bytes {'for ' + other.name if bases else ''}")

    def unpack(self, device: Device) -> None:
        """Take some bundle in, for the first time or again."""
        if self.bundles:
            data = self.chance.choice(self.bundles)
            self.attempt(device, f"unpacks {len(data)} bytes", lambda: bundle.read(device.replica, io.BytesIO(data)))

    def set_clock(self, device: Device) -> None:
        device.offset_ms = self.chance.choice(OFFSETS_MS)
        self.say(f"{device.name} clock {device.offset_ms}")

    def fill_disk(self, device: Device) -> None:
        device.store.is_full = True
        self.say(f"{device.name} disk full")

    def lose(self, device: Device) -> None:
        """A device is gone for ever, with what only it had."""
        if len(self.devices) == 2:
            return
        self.say(f"{device.name} is lost")
        for link in [link for link in self.links if device in link.devices]:
            self.drop(link)
        self.devices.remove(device)
        self.lost.append(device)

    # --- links ---

    def link(self, one: Device) -> None:
        other = self.chance.choice([device for device in self.devices if device is not one])
        only = self.chance.sample(self.scopes, 1) if self.chance.random() < 0.1 else None
        link = Link(self.link_count, (one, other), only)
        self.link_count += 1
        self.links.append(link)
        self.say(f"link {link.number}: {one.name} -> {other.name} {only or ''}")

    def cut(self, device: Device) -> None:
        """A link dies, with what is on its way."""
        if self.links:
            self.drop(self.chance.choice(self.links))

    def drop(self, link: Link) -> None:
        self.say(f"link {link.number} ends")
        link.close()
        self.links.remove(link)

    def move(self, link: Link) -> None:
        """Let one side send a frame, or the other receive one."""
        side = self.chance.randrange(2)
        try:
            if link.queues[side] and self.chance.random() < 0.6:
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
            if not all(one.finished for one in link.sides):
                raise Violation(f"link {link.number}: both sides wait")
            self.drop(link)

    def deliver(self, link: Link, side: int) -> None:
        frame = link.queues[side].popleft()
        if self.chance.random() < 0.01:
            link.is_faulty = True
            link.queues[side].appendleft(frame)
            self.say(f"link {link.number} side {side} doubles a frame")
        self.say(f"link {link.number} side {side} arrives {frame[0]}")
        link.sides[1 - side].receive(frame)

    # --- what must hold ---

    def check_pairs(self) -> None:
        """Equal contexts and nothing provisional: equal digests."""
        states: dict[tuple[str, bytes], tuple[str, bytes]] = {}
        for device in self.devices:
            with device.store.reading() as reader:
                for scope in reader.scopes():
                    state = exchange.state_of(reader, scope)
                    if not state.is_provisional:
                        known = states.setdefault((scope.name, state.context_hash), (device.name, state.digest))
                        if known[1] != state.digest:
                            raise Violation(f"{scope.name}: {known[0]} and {device.name} differ at equal contexts")

    def converge(self) -> None:
        """Each pair syncs once; then nothing differs, nothing moves, and all is as the oracle says."""
        for one, other in combinations(self.devices, 2):
            self.say(f"{one.name} syncs {other.name}")
            join(one.replica, other.replica)
        for device in self.devices:
            device.check()
        self.check_pairs()
        for scope in self.scopes:
            self.check_scope(scope, [device for device in self.devices if scope in device.scopes()])
        for one, other in combinations(self.devices, 2):
            join(one.replica, other.replica)  # what went along with the greeting may have come by way of others
            report = join(one.replica, other.replica)
            if report.round_trips != 1 or report.changes_sent or report.changes_received:
                raise Violation(f"{one.name} and {other.name} still sync: {report}")

    def check_scope(self, scope: str, holders: list[Device]) -> None:
        """All who hold a scope hold the same, and all of it is accounted for unless it was lost with a device."""
        states = [(device, device.context(scope), device.rows(scope)) for device in holders]
        for device, context, rows in states:
            first, first_context, first_rows = states[0]
            if context != first_context:
                raise Violation(f"{scope}: {first.name} and {device.name} have other contexts after syncing")
            if cells.all_cells(rows).keys() != cells.all_cells(first_rows).keys():
                raise Violation(f"{scope}: {first.name} and {device.name} hold other cells after syncing")
            names = [{(*row.record, row.name) for row in some if row.is_orphan} for some in (rows, first_rows)]
            self.outcome.stats["names of orphans differ"] |= names[0] != names[1]
            with device.store.reading() as reader:
                held = reader.scope(scope)
                assert held is not None
                if not self.lost and reader.provisional(held.id):
                    raise Violation(f"{scope}: {device.name} still holds provisional changes")
                self.say(f"{scope} {device.name} {held.digest.hex()}")
