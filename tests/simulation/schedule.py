"""Seeded schedules: what devices do, which frames move, what breaks; then all sync, and all must be as it has to be."""

from __future__ import annotations

import io
import random
import tempfile
import traceback
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests import canonical
from tests.simulation import cells
from tests.simulation.apps import SCOPES, Apps
from tests.simulation.device import Device
from tests.simulation.disasters import Disasters
from tests.simulation.disk import Killed
from tests.simulation.ledger import Escrow
from tests.simulation.oracle import Violation
from tests.simulation.stage import Outcome, nothing_to_mend
from tests.simulation.traffic import Traffic
from tests.simulation.world import DECLARATIONS, World

from fieldsync import leaving, texts, warm
from fieldsync.bundles import bundle
from fieldsync.context import Context
from fieldsync.sqlite import warming, writer
from fieldsync.syncing import exchange, giving, parting
from fieldsync.syncing.memory import join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.syncing.report import Report

MINUTE, DAY, YEAR = 60_000, 86_400_000, 31_557_600_000
OFFSETS_MS = [0, 0, 0, 0, 2_000, -MINUTE, 20 * MINUTE, -10 * YEAR, 10 * YEAR, 76 * YEAR]  # the last: the year 2100
STEPS_MS = [0, 0, 1, 1, 30, 1_000, MINUTE, 10 * MINUTE, DAY]
CHUNK_CELLS = [1, 1, 4, 20, 50_000]
HUBS = [0, 1, 1, 1, 1, 2]  # how many of the devices
MOVING_ROUNDS_MAX = 4
ACTIONS = {  # how often each is done; a run leaves some out and does others more
    "transact": 40,
    "inner": 16,
    "load": 4,
    "wish": 8,
    "settle": 6,
    "amend": 12,
    "link": 24,
    "cut": 8,
    "stall": 4,
    "enter": 3,
    "leave": 6,
    "pack": 3,
    "unpack": 5,
    "read_escrow": 2,
    "trim": 6,
    "reopen": 3,
    "set_clock": 2,
    "fill_disk": 2,
    "die": 3,
    "repair": 4,
    "back_up": 2,
    "copy": 1,
    "restore": 2,
    "lose": 0.3,
}


@contextmanager
def _small_chunks(chance: random.Random) -> Iterator[None]:
    """Streams of many frames, declarations that leave something out, texts and entries that are soon made anew."""
    cells, groups = chance.choice(CHUNK_CELLS), chance.choice([1, 16])
    is_small = cells < max(CHUNK_CELLS)
    with (
        patch.object(giving, "CHUNK_CELLS_TARGET", cells),
        patch.object(parting, "PART_BYTES_MIN", 100 if is_small else parting.PART_BYTES_MIN),
        patch.object(writer, "ENTRIES_BYTES_SPARE", -(1 << 20) if is_small else writer.ENTRIES_BYTES_SPARE),
        patch.object(exchange, "PROVISIONAL_GROUPS_MAX", groups),
        patch.object(warm, "TAIL_RECORD_BYTES", 1 if is_small else warm.TAIL_RECORD_BYTES),
        patch.object(warming, "TAIL_PIECES_MAX", 3 if is_small else warming.TAIL_PIECES_MAX),
        patch.object(warming, "TAILS_MAX", 2 if is_small else warming.TAILS_MAX),
        patch.object(texts, "TEXT_SLACK_BYTES", chance.choice([0, 60, texts.TEXT_SLACK_BYTES])),
    ):
        yield


def run(seed: int) -> Outcome:
    """Play one seed's schedule."""
    for cache in (texts._documents, texts._shown):  # whoever finds a document there goes on as who left it
        cache.clear()
    outcome = Outcome(seed)
    chance = random.Random(seed)
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        _small_chunks(chance),
    ):
        world = World(Path(folder), chance)
        schedule = Schedule(world, outcome)
        try:
            with world.movers.watched(), nothing_to_mend(world):
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


def conflicts_of(device: Device, scope: str) -> tuple[set[Any], set[Any]]:
    """What a device's ledger says of a scope, but for which of it is its own."""
    database = device.database
    claims = {
        (
            one.collection,
            one.key,
            one.field,
            tuple((claim.author, claim.when, canonical.encode(claim.value)) for claim in one.claims),
        )
        for one in database.conflicts(scope=scope)
    }
    late = {
        (edit.incarnation, name, claim.author, claim.when, canonical.encode(claim.value))
        for edit in database.late_edits(scope=scope)
        for name, claim in edit.values.items()
    }
    return claims, late


class Schedule(Apps, Traffic, Disasters):
    """One run."""

    def __init__(self, world: World, outcome: Outcome) -> None:
        super().__init__(world, outcome)
        self.bundles: list[bytes] = []
        self.scopes = SCOPES[: self.chance.choice([1, 1, 2, 2, 3])]
        self.keys = [f"k{i}" for i in range(self.chance.choice([1, 2, 4]))]
        self.weights = {name: weight * self.chance.choice([0, 0.2, 1, 1, 4]) for name, weight in ACTIONS.items()}
        self.haste = self.chance.choice([6, 12, 40])  # how many frames move between two actions, at most
        self.device_count = self.chance.randrange(3, 6)
        hubs = self.chance.choice(HUBS)
        for i in range(self.device_count):
            device = Device(world, f"d{i}", is_hub=i < hubs, declared=self.chance.choice(DECLARATIONS))
            held = self.chance.randrange(1, min(len(self.scopes), 2) + 1)
            some = self.scopes if device.is_hub else self.chance.sample(self.scopes, held)
            device.database.enter(*some)
            device.offset_ms = self.chance.choice(OFFSETS_MS)
            self.devices.append(device)

    # --- under fire ---

    def play(self) -> None:
        """Safety under fire; then the faults stop, all sync, and all go on working."""
        for _ in range(self.chance.randrange(30, 140)):
            self.world.now_ms += self.chance.choice(STEPS_MS)
            self.step(self.act)
            for _ in range(self.chance.randrange(self.haste)):
                if self.links:
                    self.step(lambda: self.move(self.chance.choice(self.links)))
            if self.chance.random() < 0.1:
                self.chance.choice(self.devices).check()
                self.check_pairs()
                self.ledger.check()
        while self.links:
            self.step(lambda: self.drop(self.links[0]))
        for device in self.devices:
            device.store.be_sound()
        while self.ledger.escrows:
            self.read_escrow(self.devices[0])
        self.converge()
        for device in self.devices:
            self.world.now_ms += 1_000
            if not device.scopes():
                device.database.enter(self.scopes[0])
            self.transact(device)
            self.inner(device)
        self.converge()

    def step(self, action: Any) -> None:
        """Do something in which a process may die."""
        try:
            action()
        except Killed as killed:
            self.world.movers.flush()
            self.died(killed)
        self.world.movers.flush()

    def act(self) -> None:
        (name,) = self.chance.choices(list(self.weights), list(self.weights.values()))
        device = self.chance.choice(self.devices)
        if not device.scopes():
            name = "enter"
        self.outcome.stats[name] += 1
        getattr(self, name)(device)

    def enter(self, device: Device) -> None:
        """Hold a scope, or hold it more or less urgently."""
        scope, priority = self.chance.choice(self.scopes), self.chance.choice([None, 0, 1, 2])
        action = lambda: device.database.enter(scope, priority=priority)  # noqa: E731
        self.attempt(device, f"enters {scope} {priority}", action)

    def trim(self, device: Device) -> None:
        """Forget removals: all, or all but some of the latest."""
        keep = self.chance.choice([None, 0, 1, 3])
        before_ms = self.chance.choice([0, self.world.now_ms, 2 * self.world.now_ms])
        self.attempt(
            device, f"trims {before_ms} {keep}", lambda: device.replica.trim(None, before_ms=before_ms, keep=keep)
        )

    def leave(self, device: Device) -> None:
        """Leave a scope, if a hub has all of it or with an escrow; its streams end by themselves."""
        if device.is_hub:
            return
        scope, how = self.chance.choice(device.scopes()), self.chance.choice(["plain", "plain", "frozen", "escrow"])
        if how == "frozen":
            self.attempt(device, f"packs all of {scope}", lambda: self.write_bundle(device, [scope], None))
        for link in self.links_of(device):  # in which a peer may speak of a scope that is no longer there
            link.is_faulty = True
        action = self.leave_with_escrow if how == "escrow" else lambda device, scope: device.database.leave(scope)
        with self.ledger.leaving(device, scope):
            is_gone = self.attempt(device, f"leaves {scope} {how}", lambda: action(device, scope))
        if not device.scopes() or self.chance.random() < 0.5:
            self.attempt(device, f"enters {scope} again", lambda: device.database.enter(scope))
        if how == "frozen" and is_gone and self.chance.random() < 0.5:
            self.take(device, self.bundles[-1])

    def leave_with_escrow(self, device: Device, scope: str) -> None:
        """What no hub is known to have goes into a bundle, which counts once the scope is left."""
        path = self.world.folder / f"{device.name}.escrow"
        path.unlink(missing_ok=True)
        with device.store.reading() as reader:
            held = reader.scope(scope)
            assert held is not None
            # what is provisional goes too, but who takes it in need not account for it
            context = reader.context(held.id)
            dots = frozenset(cells.dots_of(leaving.pending(reader, held) & context))
            base = frozenset(cells.dots_of(Context(held.delivered) & context))
        try:
            device.database.leave(scope, escrow=path)
        finally:
            if scope not in device.scopes():
                self.ledger.escrows.append(Escrow(scope, dots, base, path.read_bytes()))

    def read_escrow(self, _: Device) -> None:
        """A hub takes an escrow in; where there is none any more, anybody does."""
        for escrow in self.ledger.escrows[:1]:
            device = self.chance.choice([one for one in self.devices if one.is_hub] or self.devices)
            if self.take(device, escrow.data):
                self.ledger.read(escrow, device)

    def pack(self, device: Device) -> None:
        """Write a bundle, for anybody or for what another device has now, to be carried about."""
        other, bases = self.chance.choice(self.devices), None
        if self.chance.random() < 0.5:
            with other.store.reading() as reader:
                bases = {scope.name: reader.context(scope.id) for scope in reader.scopes()}
        names = self.chance.choice([None, device.scopes()[:1]])
        text = f"packs {names} {'for ' + other.name if bases else ''}"
        self.attempt(device, text, lambda: self.write_bundle(device, names, bases))

    def write_bundle(self, device: Device, scopes: list[str] | None, bases: Any) -> None:
        file = io.BytesIO()
        bundle.write(device.replica, file, scopes, bases)
        self.bundles = [*self.bundles[-4:], file.getvalue()]

    def unpack(self, device: Device) -> None:
        """Take some bundle in, for the first time or again."""
        if self.bundles:
            self.take(device, self.chance.choice(self.bundles))

    def take(self, device: Device, data: bytes) -> bool:
        return self.attempt(device, f"unpacks {len(data)} bytes", lambda: bundle.read(device.replica, io.BytesIO(data)))

    def set_clock(self, device: Device) -> None:
        device.offset_ms = self.chance.choice(OFFSETS_MS)
        self.say(f"{device.name} clock {device.offset_ms}")

    # --- what must hold ---

    def check_pairs(self) -> None:
        """Equal contexts and nothing provisional: equal digests."""
        states: dict[tuple[str, bytes], tuple[str, object]] = {}
        for device in self.devices:
            with device.store.reading() as reader:
                for scope in reader.scopes():
                    state, doubtful = exchange.state_of(reader, scope), self.world.truth(scope.name).doubtful
                    held = cells.all_cells(cells.held(reader, scope.id)).keys() - doubtful if doubtful else state.digest
                    if not state.is_provisional:
                        known = states.setdefault((scope.name, state.context_hash), (device.name, held))
                        if known[1] != held:
                            raise Violation(f"{scope.name}: {known[0]} and {device.name} differ at equal contexts")

    def converge(self) -> None:
        """Each pair syncs once; then nothing differs, nothing moves, and all is as the oracle says."""
        moved = self.world.movers.count
        for one, other in combinations(self.devices, 2):
            self.say(f"{one.name} syncs {other.name}")
            self.join(one, other)
        if self.world.movers.count > moved:
            self.hear_of_moves()
        for device in self.devices:
            device.check()
        self.check_pairs()
        self.ledger.check()
        for scope in sorted(self.world.truths):
            self.check_scope(scope, [device for device in self.devices if scope in device.scopes()])
        for one, other in combinations(self.devices, 2):
            self.join(one, other)  # what went along with the greeting may have come by way of others
            report = self.join(one, other)
            if report.round_trips != 1 or report.changes_sent or report.changes_received:
                raise Violation(f"{one.name} and {other.name} still sync: {report}")

    def hear_of_moves(self) -> None:
        """What the owner did by itself comes to all others; what a disaster had held back may make it do some more."""
        for _ in range(MOVING_ROUNDS_MAX):
            moved = self.world.movers.count
            for owner, other in combinations(self.devices, 2):
                if owner.is_owner:
                    self.join(owner, other)
            if self.world.movers.count == moved:
                return
        raise Violation("the owner goes on moving")

    def join(self, one: Device, other: Device) -> Report:
        """One whole sync."""
        report = join(one.replica, other.replica)
        self.world.movers.flush()
        return report

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
            if conflicts_of(device, scope) != conflicts_of(first, scope):
                raise Violation(f"{scope}: {first.name} and {device.name} have other conflicts in their ledgers")
            if left := device.provisional(scope) - self.ledger.lost[scope]:
                raise Violation(f"{scope}: {device.name} still holds {sorted(left)[:3]} provisionally")
            with device.store.reading() as reader:
                held = reader.scope(scope)
                assert held is not None
                self.say(f"{scope} {device.name} {held.digest.hex()}")
