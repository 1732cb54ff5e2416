"""The steps in which devices work apart and meet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.demo.scene import Scene
    from fieldsync.device import Device

FIND_SECONDS = 8
WAIT_SECONDS = 30


def offline_edits(scene: Scene) -> None:
    """Two edit the same record apart, and meet without the hub."""
    teller, story, hub, devices = scene
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


def converge(scene: Scene) -> None:
    """All sync with the hub."""
    teller, story, hub, devices = scene
    teller.step("The hub is back: everything converges")
    url = hub.serve()
    teller.syncs([(f"{name} <-> hub", devices[name].sync(url)) for name in ("ben", "ada")])
    teller.syncs([("ada <-> hub, nothing new", devices["ada"].sync(url))])
    scope = story.scopes["ben"][0]
    states = [device.scopes()[scope] for device in (hub, devices["ada"], devices["ben"])]
    teller.check(f"hub, ada and ben hold the same {scope}", states[0] == states[1] == states[2])


def note(scene: Scene) -> None:
    """Two write in the same note apart."""
    teller, story, hub, devices = scene
    teller.step("Ada and Ben write in the same note, each without a link")
    ada, ben, scope, key = devices["ada"], devices["ben"], story.scopes["ben"][0], "note-1"
    ada.create("notes", scope, [(key, {"body": "The pump leaks at the valve."})])
    url = hub.serve()
    for device in (ada, ben):
        device.sync(url)
    ada.edit_note(scope, key, [(0, 0, "Tuesday: "), (37, 0, " Seal ordered.")])
    ben.edit_note(scope, key, [(4, 4, "big pump"), (32, 0, " Badly.")])
    for device in (ada, ben):
        body = (device.read("notes", scope, key) or {}).get("body")
        teller.say(f"   {device.name} has written: {body}")
    teller.syncs([(f"{name} <-> hub", devices[name].sync(url)) for name in ("ada", "ben", "ada")])
    read = [(device.read("notes", scope, key) or {}).get("body", "") for device in (hub, ada, ben)]
    teller.check(f"all read the same: {read[0]}", read[0] == read[1] == read[2])
    written = ("Tuesday: The big pump leaks", " Seal ordered.", " Badly.")
    teller.check("all that both wrote is in it, where they wrote it", all(part in read[0] for part in written))


def move(scene: Scene) -> None:
    """A record moves while it is edited elsewhere."""
    teller, story, hub, devices = scene
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


def agents(scene: Scene) -> None:
    """Two agents find each other without a hub: by mDNS, or by an address where there is no multicast."""
    teller, story, hub, devices = scene
    teller.step(
        "The hub is away again: the agents of Ada and Ben find each other, and what is written travels by itself"
    )
    hub.stop_serving()
    ada, ben, scope = devices["ada"], devices["ben"], story.scopes["ben"][0]
    teller.check(*_acquaint(ada, ben))
    key, mark = ada.keys(story.collection, scope, 3)[2], "on its way by itself"
    ada.update(story.collection, scope, [(key, {story.notes[0]: mark})])

    def has_come() -> bool:
        return (ben.read(story.collection, scope, key) or {}).get(story.notes[0]) == mark

    began = time.perf_counter()
    came = _eventually(has_come, WAIT_SECONDS)
    teller.check(f"what Ada writes comes to Ben: {time.perf_counter() - began:.2f} s", came)
    equal = _eventually(lambda: ada.scopes()[scope] == ben.scopes()[scope], WAIT_SECONDS)
    teller.check(f"both hold the same {scope}, with no hub", equal)
    for device in (ada, ben):
        device.stop_agent()


def _acquaint(ada: Device, ben: Device) -> tuple[str, bool]:
    """Start the agents of two devices and have them connect; how they did, and whether."""
    began = time.perf_counter()
    for device in (ada, ben):
        device.start_agent(lan=True)

    def is_met() -> bool:
        return all(device.agent_is_connected() for device in (ada, ben))

    if _eventually(is_met, FIND_SECONDS):
        return f"they found each other by mDNS, {time.perf_counter() - began:.1f} s after their start", True
    why_not = ada.agent_on_lan() or f"which found nobody in {FIND_SECONDS} s"
    for device in (ada, ben):
        device.stop_agent()
    ben.start_agent(peer=f"wss://127.0.0.1:{ada.start_agent()}")
    return f"they met by an address, not by mDNS ({why_not})", _eventually(is_met, WAIT_SECONDS)


def _eventually(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something holds within so many seconds."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return held
