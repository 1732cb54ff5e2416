"""Many devices, connected with one hub over TLS: what each costs it, and how soon one sees what another wrote."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import fieldsync
from bench import network
from bench.link import OFFICE, converse
from bench.runner import Result, Target, peak_mb
from fieldsync.limits import WORKERS_MAX
from fieldsync.network.keeper import Keeper, Plan
from fieldsync.trust.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

CONTENDERS = ("fieldsync",)
NOTES = {
    "devices": "one for 2,500 records, in two processes of half of them each; the hub has a process of its own",
    "idle_kb, busy_kb": "of the hub's memory for each device: connected, and after all have edited; the first "
    "connections pay for what is imported then",
    "idle_cpu_percent, busy_cpu_percent": "of the hub, of one core: where nothing happens, and with an edit a second "
    "of each device",
    "p50_ms, p99_ms": "from just before a write to the watch of the other device that holds its scope, by way of the "
    "hub, TLS on both legs; as many edits a second as devices, each a transaction; files at durability fast, the "
    "devices' in memory where the system has a place for that; hub and devices share the machine",
    "hub_ms_an_edit": "of the hub's processor: a session with who wrote, another with who watches",
    "connect_s": "until all have connected, 50 a second, and synced",
}
TARGETS = (Target("fieldsync_p99_ms", 1_000),)
RUNS = 1
RECORDS_A_DEVICE = 2_500
DRIVERS = 2
APART_SECONDS = 0.04  # between the first dials of one driver's devices
BEATS_MAX = 15
PATIENCE_SECONDS = 120
MEMORY = Path("/dev/shm")  # where there is one: the devices' disks are not the hub's


class Pulse(fieldsync.Record, table="pulses"):
    """What a device writes again and again."""

    beat: int


class Look(NamedTuple):
    """The hub's process at one moment."""

    kb: float
    cpu_s: float
    at: float

    def cpu_since(self, before: Look) -> float:
        """Percent of one core."""
        return 100 * (self.cpu_s - before.cpu_s) / (self.at - before.at)


class Talk(NamedTuple):
    """What one device wrote and saw: when, by the number of the beat."""

    name: str
    written: list[float]
    seen: list[float]  # the partner's


def measure(_contender: str, count: int, folder: Path) -> Result:
    """Found a network, connect all devices, let them be idle and busy, and look at the hub meanwhile."""
    devices = max(count // RECORDS_A_DEVICE, 2) // 2 * 2
    beats = min(BEATS_MAX, 2 + devices)
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else folder)))
        _prepare(folder, place, devices)
        hub = stack.enter_context(_process(_serve, folder))
        url = hub.recv()
        before = _ask(hub, "look")
        halves = [range(number, devices, DRIVERS) for number in range(DRIVERS)]
        drivers = [stack.enter_context(_process(_drive, place, url, half, devices)) for half in halves]
        connect_s = max(driver.recv() for driver in drivers)
        connected = _ask(hub, "look")
        time.sleep(beats / 3)
        idle = _ask(hub, "look")
        for driver in drivers:
            driver.send(beats)
        talks = [talk for driver in drivers for talk in driver.recv()]
        busy = _ask(hub, "look")
        digests = {name: digest for driver in drivers for name, digest in _ask(driver, "end").items()}
        rows, at_hub = _ask(hub, "end")
    assert rows == {_name(number): beats for number in range(devices)}
    assert {name: digest for name, digest in at_hub.items() if name in digests} == digests
    delays = list(_delays(talks))
    assert len(delays) == beats * devices
    percentiles = quantiles(delays, n=100)
    figures = {
        "devices": devices,
        "connect_s": connect_s,
        "idle_kb": (idle.kb - before.kb) / devices,
        "busy_kb": (busy.kb - before.kb) / devices,
        "idle_cpu_percent": idle.cpu_since(connected),
        "busy_cpu_percent": busy.cpu_since(idle),
        "hub_ms_an_edit": (busy.cpu_s - idle.cpu_s) * 1_000 / len(delays),
        "p50_ms": percentiles[49] * 1_000,
        "p99_ms": percentiles[98] * 1_000,
    }
    return Result(figures, str(sorted(rows.items())))


def _name(number: int) -> str:
    return f"device{number}"


def _scope(number: int) -> str:
    """Each is held by two devices."""
    return f"pair/{number // 2}"


def _prepare(folder: Path, place: Path, devices: int) -> None:
    """Admit all, and let each make its record, and sync."""
    hub = network.Member(folder / "hub", network.found(folder), hub=True)
    for number in range(devices):
        network.admit(hub, place, _name(number))
    fleet = [_Device(place, number) for number in range(devices)]
    for device in fleet:
        device.write(0)
    for device in fleet * 2:  # so that all have heard of all
        converse(OFFICE, device, hub)
    for device in fleet:
        device.db.close()
    hub.close()


def _delays(talks: list[Talk]) -> Iterator[float]:
    """Seconds of each edit."""
    by_name = {talk.name: talk for talk in talks}
    for number in range(len(talks)):
        written, seen = by_name[_name(number)].written, by_name[_name(number ^ 1)].seen
        yield from (saw - wrote for wrote, saw in zip(written, seen, strict=True))


# --- processes ---


class _process:  # noqa: N801 - used as a function is
    """A process that runs a function, which has one end of a pipe; gives the other, and waits for its end."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        spawn = get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Connection:
        return self._ours

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._process.terminate()
        self._process.join()


def _ask(process: Connection, what: object) -> Any:
    process.send(what)
    return process.recv()


def _serve(pipe: Connection, folder: Path) -> None:
    """The hub: say where it is; tell how it does, whenever that is asked; in the end, what it holds."""
    identity = Identity.load(folder / "hub-keys")
    with fieldsync.open(folder / "hub" / "things.db", Pulse, durability="fast", hub=True) as database:
        with fieldsync.serve(database, identity=identity) as server:
            pipe.send(server.url)
            while pipe.recv() == "look":
                pipe.send(Look(_resident_kb(), time.process_time(), time.monotonic()))
        rows = {record.key: record.beat for record in database[Pulse].where().all()}
        pipe.send((rows, _digests(database)))


def _resident_kb() -> float:
    """Memory of this process now; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mb() * 1_000
    return pages * resource.getpagesize() / 1_000


def _digests(database: Any) -> dict[str, str]:
    return {scope.name: scope.digest for scope in database.scopes()}


def _drive(pipe: Connection, folder: Path, url: str, numbers: range, devices: int) -> None:
    """Some of the devices: say when they are connected; write when told so; tell of it; in the end, what they hold."""
    asyncio.run(_live(pipe, [_Device(folder, number) for number in numbers], url, devices))


async def _live(pipe: Connection, fleet: list[_Device], url: str, devices: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(WORKERS_MAX))
    began = loop.time()
    keeping = []
    for device in fleet:
        keeping.append(asyncio.create_task(device.keep(url, stop)))
        await asyncio.sleep(APART_SECONDS)
    await _until(lambda: all(device.is_synced for device in fleet))
    pipe.send(loop.time() - began)
    beats = await asyncio.to_thread(pipe.recv)
    began = loop.time()
    await asyncio.gather(*(device.beat(beats, began + device.number / devices) for device in fleet))
    await _until(lambda: all(len(device.seen) == beats for device in fleet))
    pipe.send([Talk(_name(device.number), device.written, device.seen) for device in fleet])
    await asyncio.to_thread(pipe.recv)
    stop.set()
    await asyncio.gather(*keeping)
    pipe.send({_scope(device.number): _digests(device.db)[_scope(device.number)] for device in fleet})
    for device in fleet:
        device.db.close()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


class _Device:
    """A device with what keeps it in sync, as an agent does; they share one event loop, which agents do not."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.written: list[float] = []
        self.seen: list[float] = []
        self.is_synced = False
        self.identity = Identity.load(folder / f"{_name(number)}-keys")
        self.db: Any = fieldsync.open(folder / f"{_name(number)}.db", Pulse, durability="fast")
        self.db.enter(_scope(number))
        self.db[Pulse].watch(self._see)

    async def keep(self, url: str, stop: asyncio.Event) -> None:
        """Stay connected until told to stop."""
        keeper = Keeper(self.db.replica, Plan(hub=url, identity=self.identity), lambda: None)
        keeping = asyncio.create_task(keeper.keep(lambda: None, stop))
        while (await keeper.status(0)).last_success is None:
            await asyncio.sleep(0.02)
        self.is_synced = True
        await keeping

    async def beat(self, beats: int, began: float) -> None:
        """Write once a second."""
        for beat in range(1, beats + 1):
            await asyncio.sleep(began + beat - 1 - asyncio.get_running_loop().time())
            self.written.append(time.monotonic())
            await asyncio.to_thread(self.write, beat)

    def write(self, beat: int) -> None:
        """Write a number into this device's record; make it by the number 0."""
        with self.db.write() as tx:
            if beat:
                tx.update(Pulse, _name(self.number), scope=_scope(self.number), beat=beat)
            else:
                tx.create(Pulse, scope=_scope(self.number), key=_name(self.number), beat=beat)

    def _see(self, event: Any) -> None:
        now = time.monotonic()
        for record in (*event.created, *event.updated):
            if record.key == _name(self.number ^ 1):
                self.seen += [now] * (record.beat - len(self.seen))


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "fleet", *sys.argv[1:]]))
