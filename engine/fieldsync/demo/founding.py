"""The first steps: an organisation, its hub with all records, its devices, and who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync import clock, database
from fieldsync.device import notes_beside
from fieldsync.errors import IdentityError, SyncError
from fieldsync.trust.identity import Identity, Organisation
from fieldsync.trust.membership import membership_of

if TYPE_CHECKING:
    from pathlib import Path

    from fieldsync.demo.scene import Scene
    from fieldsync.demo.story import Story
    from fieldsync.demo.teller import Teller


def found(teller: Teller, place: Path) -> None:
    """Make an organisation and the keys of its hub."""
    teller.step("An organisation, and its hub")
    now_ms = clock.now_ms()
    organisation = Organisation.create(place / "acme", "Acme", now_ms)
    hub = organisation.create_hub(place / "hub", "hub", now_ms)
    teller.say(f"   Acme {organisation.id[:12]}, whose key stays offline; its hub {hub.device[:12]}")
    teller.check("the root says that this is a hub", hub.is_hub and hub.organisation == organisation.id)


def fill(teller: Teller, story: Story, place: Path) -> int:
    """Load the hub; the size of its file in bytes."""
    teller.step(f"The hub loads {story.title}")
    path = place / "hub.db"
    with database.open(path, hub=True, durability="fast", notes=notes_beside(path)) as hub:
        membership_of(hub.replica, Identity.load(place / "hub"))
        report = story.load(hub)
        size = hub.replica.store.size()
    teller.say(
        f"   {report.loaded:,} records in {len(report.scopes)} scopes, {report.rejected_count} rows left out, "
        f"{report.seconds:.1f} s, {size / 1e6:.0f} MB on disk"
    )
    teller.check("every row became a record", report.rejected_count == 0)
    return size


def enrol(scene: Scene) -> None:
    """Each device is admitted by a code."""
    teller, story, hub, devices = scene
    teller.step("Each device enrols with a code, and is granted its scopes")
    rights = {name: {"write": scopes} for name, scopes in story.scopes.items()}
    rights["dan"] = {"read": [story.scopes["ada"][1]]}
    codes = {name: hub.invite(name, **rights[name]) for name in devices}
    names = [device.enrol(codes[name]) for name, device in devices.items()]
    for name, granted in rights.items():
        teller.say("   " + f"{name} may " + "; ".join(f"{what} {', '.join(some)}" for what, some in granted.items()))
    teller.check("each has a certificate in its name", names == list(devices))
    used = devices["dan"].try_to_enrol(codes["ada"])
    teller.check(f"a code is good once: {used}", "used already" in used)


def first_sync(scene: Scene) -> int:
    """Each device takes its scopes; how many bytes that took."""
    teller, story, hub, devices = scene
    teller.step("First sync, over TLS: each device takes only what is in its scope")
    url = hub.serve()
    rows = []
    for name, scopes in story.scopes.items():
        rows.append((f"{name} <-> hub: {', '.join(scopes)}", devices[name].sync(url, enter=scopes)))
    teller.syncs(rows)
    at_hub = hub.scopes()
    teller.check(f"all of it went over {url.partition('//')[0]}, with identities", url.startswith("wss://"))
    for name, scopes in story.scopes.items():
        held = devices[name].scopes()
        exact = set(held) == set(scopes) and all(held[scope] == at_hub[scope] for scope in held)
        teller.check(f"{name} holds exactly its scopes, equal to the hub's", exact)
    return sum(report["bytes_received"] + report["bytes_sent"] for _, report in rows)


def refuse(scene: Scene, place: Path) -> None:
    """A device asks and writes outside its grant, and a device of another organisation calls."""
    teller, story, hub, devices = scene
    cho, scope, key = devices["cho"], story.scopes["ben"][0], "by-cho"
    teller.step(f"Cho's device enters {scope}, which it was not granted, and writes there")
    url = hub.serve()
    before = hub.scopes()[scope]
    cho.create(story.collection, scope, [(key, {story.notes[0]: "not for Cho to write"})])
    report = cho.sync(url, enter=[scope])
    told = [refused["code"] for refused in report["refusals"] if refused["scope"] == scope]
    teller.check(f"Cho is told why: {', '.join(sorted(set(told))) or 'nothing'}", "not-granted" in told)
    teller.check("Cho gets none of its records", cho.keys(story.collection, scope, 2) == [key])
    teller.check("the hub takes nothing of what Cho wrote there", hub.scopes()[scope] == before)
    cho.leave(scope)
    error, records = _call(place, url, scope)
    teller.check(f"a device of another organisation gets no session: {error}", bool(error) and not records)


def _call(place: Path, url: str, scope: str) -> tuple[str, int]:
    """Have a device of another organisation sync: what it is told, and how many records it got."""
    now_ms = clock.now_ms()
    stranger = Organisation.create(place / "other", "Other", now_ms).create_hub(place / "stranger", "stranger", now_ms)
    with database.open(place / "stranger.db", notes=notes_beside(place / "stranger.db")) as own:
        own.enter(scope)
        try:
            own.sync(url, identity=stranger)
            error = ""
        except (IdentityError, SyncError) as raised:
            error = str(raised).removeprefix(f"{url}: ").partition(";")[0]
        return error, sum(held.records for held in own.scopes() if held.name == scope)
