"""What may befall a device: its file is damaged, copied, put back; its process dies, the power goes, or all is lost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation import cells, damage
from tests.simulation.device import Device
from tests.simulation.disk import MOMENTS, Killed
from tests.simulation.oracle import Violation
from tests.simulation.stage import Stage
from tests.simulation.world import DECLARATIONS

from fieldsync.examine import LEFT

if TYPE_CHECKING:
    from tests.model import Dot
    from tests.simulation.cells import Held
    from tests.simulation.damage import Damage
    from tests.simulation.disk import Image
    from tests.simulation.stage import Outcome
    from tests.simulation.world import World

DEVICES_MAX = 6
BACKUPS_MAX = 4


@dataclass(frozen=True)
class Backup:
    """A copy of a device's file."""

    of: str
    is_hub: bool
    latest_ms: int  # that its clocks ever showed
    image: Image


class Disasters(Stage):
    """Actions that may cost data."""

    device_count: int

    def __init__(self, world: World, outcome: Outcome) -> None:
        super().__init__(world, outcome)
        self.backups: list[Backup] = []

    # --- processes and power ---

    def reopen(self, device: Device, image: Image | None = None) -> None:
        """Close and open a device, with another version of the app; its links are cut before or after."""
        here, early = self.links_of(device), self.chance.random() < 0.5
        device.store.be_sound()  # whether opening writes depends on what is declared
        for link in here if early or image else ():
            self.drop(link)
        declared = self.chance.choice(DECLARATIONS)
        self.say(f"{device.name} reopens with {declared}")
        device.reopen(declared, image)
        for link in self.links_of(device):
            self.drop(link)

    def die(self, device: Device) -> None:
        """The process of a device dies: in one of its next commits, or now."""
        commits, moment = self.chance.choice([0, 1, 1, 2, 3, 5]), self.chance.choice(MOMENTS)
        self.say(f"{device.name} dies {moment} commit {commits}")
        if commits:
            device.store.die_at(commits, moment)
        else:
            self.revive(device)

    def died(self, killed: Killed) -> None:
        (device,) = [device for device in self.devices if device.store is killed.store]
        try:
            self.revive(device)
        except Killed as another:  # the end of a link has been one commit too many for the device at its other end
            self.died(another)
            self.revive(device)

    def revive(self, device: Device) -> None:
        """Open the file of a process that died, or of a device that lost its power and what was not synced."""
        dead = device.store
        for link in self.links_of(device):
            self.drop(link)
        if self.chance.random() < 0.5:
            self.reopen(device, dead.image())
            device.store.survive(dead)
            return
        self.say(f"{device.name} had lost its power")
        with self.ledger.power_cut(device):
            self.reopen(device, dead.image_after_power_cut(self.chance))

    def fill_disk(self, device: Device) -> None:
        device.store.is_full = True
        self.say(f"{device.name} disk full")

    # --- files ---

    def back_up(self, device: Device) -> None:
        """Keep a copy of a file, which nobody has open meanwhile."""
        for link in self.links_of(device):
            self.drop(link)
        device.store.be_sound()
        device.database.close()
        image = device.store.image()
        self.say(f"{device.name} is backed up")
        device.database = device._open(self.chance.choice(DECLARATIONS))
        self.backups = self.backups[1 - BACKUPS_MAX :]
        self.backups.append(Backup(device.name, device.is_hub, device.latest_ms, image))

    def copy(self, _: Device) -> None:
        """Open a backup as another device."""
        if self.backups and len(self.devices) < DEVICES_MAX:
            backup, declared = self.chance.choice(self.backups), self.chance.choice(DECLARATIONS)
            name = f"d{self.device_count}"
            self.device_count += 1
            self.say(f"{name} is a copy of {backup.of}")
            made = Device(self.world, name, is_hub=backup.is_hub, declared=declared, image=backup.image)
            made.latest_ms = backup.latest_ms
            self.devices.append(made)

    def restore(self, device: Device) -> None:
        """Put a backup in the place of a file, most often one of its own."""
        own = [one for one in self.backups if one.of == device.name]
        some = own if own and self.chance.random() < 0.8 else self.backups
        some = [one for one in some if one.is_hub == device.is_hub]
        if some:
            backup = self.chance.choice(some)
            self.say(f"{device.name} is a backup of {backup.of}")
            with self.ledger.disaster(device):
                self.reopen(device, backup.image)
            device.latest_ms = max(device.latest_ms, backup.latest_ms)

    def lose(self, device: Device) -> None:
        """A device is gone for ever, with what only it had."""
        if len(self.devices) == 2:
            return
        self.say(f"{device.name} is lost")
        for link in self.links_of(device):
            self.drop(link)
        with self.ledger.disaster(device):
            self.devices.remove(device)
        self.lost.append(device)

    # --- damage ---

    def repair(self, device: Device) -> None:
        """Damage a file, and mend it: what was damaged goes, and nothing else."""
        device.store.be_sound()
        before = {scope: device.rows(scope) for scope in device.scopes()}
        whole = {scope: device.whole(scope) for scope in before}
        with self.ledger.repair(device):
            done = self.flip(device) if self.chance.random() < 0.3 else damage.harm(device.path, self.chance)
            report = device.database.verify(repair=True)
            device.store.sync_log()  # the damage is on the disk, and so has the repair to be
        self.say(f"{device.name} damaged {done.said}, fetching {report.fetching} left {report.left}")
        if report.left and not done.is_of_digest:  # nobody can tell that from a value that still reads well
            raise Violation(f"{device.name}: {done.said} leaves {report.left}")
        for scope, rows in before.items():
            self.check_repair(device, scope, rows, whole[scope], done)
        device.check()

    def flip(self, device: Device) -> Damage:
        """Flip a bit, and back where all of it still reads well: only a peer could tell."""
        done, back = damage.flip(device.path, self.chance)
        with suppress(ValueError, LookupError):  # it may not be readable now
            rows = [row for scope in device.scopes() for row in device.rows(scope)]
            done.reads_as.update(*(row.dots() for row in rows if done.hits(row)))
        faults = device.database.verify().faults
        if done.said and not faults:
            raise Violation(f"{device.name}: nobody notices {done.said}")
        if any(fault.remedy == LEFT for fault in faults):
            back()
            return damage.Damage()
        return done

    def check_repair(
        self, device: Device, scope: str, before: list[Held], whole: dict[Dot, set[tuple[int, int]]], done: Damage
    ) -> None:
        """The cells that were not damaged are here, and so are the claims to changes that lost nothing.

        Of a flipped bit nobody can tell, where all still reads well, which of the rows that share its changes it is in,
        nor which change it made a cell's.
        """
        rows = device.rows(scope)
        after = cells.all_cells(rows)
        sound = [row for row in before if not done.hits(row)]
        if done.is_flip:
            doubtful = done.reads_as.union(*(row.dots() for row in before if done.hits(row)))
            sound = [row for row in sound if row.cells().keys() <= after.keys() or not row.dots() & doubtful]
        if cells.all_cells(sound) != after:
            raise Violation(f"{device.name}, {scope}: a repair of {done.said} touched what was not damaged")
        gone = {row.place for row in before} - {row.place for row in rows}
        given_up = {dot for dot in whole.keys() - device.context(scope) if not done.covers(scope, dot)}
        if not done.is_flip and any(not whole[dot] & gone for dot in given_up):
            raise Violation(f"{device.name}, {scope}: a repair of {done.said} gave up {sorted(given_up)[:3]}")
