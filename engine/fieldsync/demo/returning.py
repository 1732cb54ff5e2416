"""The steps in which devices come back: from absences, from damage, and by a file carried by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fieldsync.demo.scene import Scene
    from fieldsync.device import Device

ABSENCE_CHANGES = 300  # of each kind, where the scope has records enough
DAMAGED_RECORDS = 50


def absence(scene: Scene) -> int:
    """A device comes back; how many bytes that took."""
    teller, story, hub, devices = scene
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


def forgetful_year(scene: Scene) -> int:
    """It comes back to a hub that has forgotten all removals; how many bytes that took."""
    teller, story, hub, devices = scene
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
    _check_year(scene, edited=edited, deleted=deleted, new=new, untouched=untouched)
    teller.check("cho and the hub agree again, nothing rebuilt", cho.scopes()[scope] == hub.scopes()[scope])
    return int(report["bytes_received"] + report["bytes_sent"])


def _check_year(
    scene: Scene,
    *,
    edited: list[str],
    deleted: list[str],
    new: list[str],
    untouched: str,
) -> None:
    teller, story, hub, devices = scene
    cho, scope, field = devices["cho"], story.scopes["cho"][0], story.notes[0]

    def read(device: Device, keys: list[str]) -> list[str | None]:
        return [(device.read(story.collection, scope, key) or {}).get(field) for key in keys]

    risen = [key for key in deleted for device in (hub, cho) if device.read(story.collection, scope, key)]
    teller.check("nothing that was deleted has risen, at either", not risen)
    teller.check(f"Cho's trash has all {len(deleted)} of them", set(cho.trash(scope)) >= set(deleted))
    came = [*edited, *new]
    teller.check(f"Cho has all {len(came)} edits and new records", read(cho, came) == read(hub, came))
    teller.check("the hub has what Cho wrote", read(hub, [untouched, "by-cho"]) == ["by Cho", "made while away"])


def damage(scene: Scene) -> None:
    """A file is damaged, and mended."""
    teller, story, hub, devices = scene
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


def bundle(scene: Scene) -> None:
    """A sealed file is carried by hand."""
    teller, story, hub, devices = scene
    teller.step("Dan has no link at all: Ada hands him a file")
    ada, dan, scope = devices["ada"], devices["dan"], story.scopes["ada"][1]
    path = ada.path.with_name("for-dan.bundle")
    written = ada.export(path, [scope], readers=["dan"])
    taken = dan.import_bundle(path)
    teller.say(
        f"   {scope} in a bundle of {written['bytes']:,} bytes: {written['changes']:,} changes written, "
        f"{taken['changes']:,} taken, {taken['records_changed']:,} records changed"
    )
    teller.check("it is signed by Ada and sealed to Dan", (taken["writer"], written["readers"]) == ("ada", ["dan"]))
    teller.check("dan holds that scope and no other", list(dan.scopes()) == [scope])
    states = [device.scopes()[scope] for device in (hub, ada, dan)]
    teller.check("hub, ada and dan hold the same", states[0] == states[1] == states[2])
    again = dan.import_bundle(path)
    teller.check("the same file once more changes nothing", again["records_changed"] == 0)


def close(scene: Scene) -> None:
    """All digests, side by side."""
    teller, story, hub, devices = scene
    teller.step("The digests of every scope on every replica, side by side")
    held = {name: device.scopes() for name, device in {"hub": hub, **devices}.items()}
    teller.digests(held, sorted(held["hub"]))
    for scope in sorted({scope for scopes in story.scopes.values() for scope in scopes}):
        digests = {states[scope]["digest"] for states in held.values() if scope in states}
        teller.check(f"{scope}: equal wherever it is held", len(digests) == 1)
