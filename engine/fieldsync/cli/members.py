"""The commands for who belongs to an organisation, and what each device may do."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid

import fieldsync
from fieldsync import clock
from fieldsync.cli import hubs
from fieldsync.cli.options import Keys, NewOrOld, age, opened_as, patterns
from fieldsync.cli.terminal import add, console, errors, group, say
from fieldsync.limits import GRANT_DAYS

if TYPE_CHECKING:
    from fieldsync.trust.statements import Grant

DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help="Its name or id; see `fieldsync devices`.")]
Read = Annotated[list[str] | None, typer.Option(help='Scopes it may read, such as "job/*"; may be repeated.')]
Write = Annotated[list[str] | None, typer.Option(help="Scopes it may read and write; may be repeated.")]
Assign = Annotated[list[str] | None, typer.Option(help="Scopes that it may assign to devices; may be repeated.")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="For so long without meeting a hub, which then renews it.")]
Final = Annotated[bool, typer.Option("--final", help="Not renewed: after that many days it ends.")]

PANEL = "Organisation"
org = group("The organisation: the root of all trust.")


def register(app: typer.Typer) -> None:
    """Add these commands to others."""
    app.add_typer(org, name="org", rich_help_panel=PANEL)
    hubs.register(app, PANEL)
    add(org, None, (create, "fieldsync org create acme --name Acme"))
    add(
        app,
        PANEL,
        (invite, 'fieldsync invite "ada\'s laptop" --db hub.db --identity hub --address wss://hub.example.org:8766'),
        (enroll, "fieldsync enroll AEQCA-... me"),
        (grant, 'fieldsync grant ada --db hub.db --identity hub --write "job/*" --read prices'),
        (revoke, "fieldsync revoke ada --db hub.db --identity hub"),
        (believe, "fieldsync believe ada --db hub.db --identity hub"),
        (assign, "fieldsync assign ada job/7 job/8 --db dispatch.db --identity me"),
        (devices, "fieldsync devices --db hub.db --identity hub"),
        (void, "fieldsync void --db hub.db --identity hub"),
    )


def create(
    folder: Annotated[Path, typer.Argument(help="A new folder, for the organisation's key.")],
    name: Annotated[str, typer.Option(help="The organisation's name.")],
) -> None:
    """Make an organisation. Whoever has its key can make hubs: keep it offline, with a copy in a safe."""
    from fieldsync.trust.identity import Organisation

    made = Organisation.create(folder, name, clock.now_ms())
    say(f"{name} ({made.id}): keep {folder} where nobody else gets at it; it is needed again for each new hub")


def invite(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    db: NewOrOld,
    identity: Keys,
    address: Annotated[str, typer.Option(help="Where `fieldsync serve --admit` answers, as devices reach it.")],
    read: Read = None,
    write: Write = None,
    assign: Assign = None,
    valid: Annotated[str, typer.Option(help="How long the code is good: 30m, 2h, 7d.")] = "1d",
    days: Days = GRANT_DAYS,
    final: Final = False,
    qr: Annotated[bool, typer.Option("--qr", help="Draw the code, too.")] = False,
) -> None:
    """Print a code with which one device can enrol, once."""
    from fieldsync.network.wire import parse
    from fieldsync.trust import enrolment

    seconds = int(age(valid).total_seconds())
    rights = _given(read, write, assign)
    if not parse(address).is_secure:
        raise typer.BadParameter(f"{address!r}: devices enrol over TLS, at an address such as wss://host:8766")
    with opened_as(db, identity, hub=True) as member:
        made = enrolment.invite(member, name, address, seconds=seconds, days=days, renews=not final, **rights)
    say(made.code)
    if not any(rights.values()):
        say(f"{name} may read and write nothing yet: see `fieldsync grant`", "yellow", to=errors)
    if qr:
        _draw(made.code)


def _draw(code: str) -> None:
    try:
        import segno
    except ImportError:
        raise fieldsync.MissingDependency('a QR code needs the package segno: pip install "fieldsync[cli]"') from None
    segno.make(code.replace("-", ""), error="m").terminal(compact=True)


def enroll(
    code: Annotated[
        str,
        typer.Argument(help="From `fieldsync invite`; - reads it from standard input, where no other user sees it."),
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, for this device's keys.")],
) -> None:
    """Make this a device of an organisation, by a code. Where the link is cut, the same command goes on."""
    from fieldsync.trust.desk import ask
    from fieldsync.trust.enrolment import enrol

    made = enrol(sys.stdin.read() if code == "-" else code, folder, ask)
    say(f"enrolled as {made.name!r} ({made.device}): its keys are in {folder}")


def grant(
    device: DeviceName,
    db: NewOrOld,
    identity: Keys,
    read: Read = None,
    write: Write = None,
    assign: Assign = None,
    days: Days = GRANT_DAYS,
    final: Final = False,
) -> None:
    """Say what a device may do, in place of all that it was granted before."""
    rights = _given(read, write, assign)
    with opened_as(db, identity, hub=True) as member:
        made = member.grant(member.find(device), days=days, renews=not final, **rights)
        say(f"{member.roll.name(made.device)}: {_rights(made)}")


def revoke(
    device: DeviceName,
    db: NewOrOld,
    identity: Keys,
    all_of_it: Annotated[bool, typer.Option("--all", help="None of its changes count, not even those here.")] = False,
) -> None:
    """Say that a device is out, for good. Devices hear of it from each other; what it wrote and is here counts."""
    with opened_as(db, identity, hub=True) as member:
        made = member.revoke(member.find(device), keep=not all_of_it)
        say(f"{member.roll.name(made.device)} is out; {len(made.last)} of its authors count up to what is here")


def believe(
    device: DeviceName,
    db: NewOrOld,
    identity: Keys,
    lasting: Annotated[str, typer.Option("--for", help="So long: 30m, 2h, 7d.")] = "1d",
) -> None:
    """Believe at this hub what a device says that it has, where who wrote it was put back or damaged, and cannot."""
    with opened_as(db, identity, hub=True) as member:
        member.believe(member.find(device), int(age(lasting).total_seconds()))
    say(f"{device} is believed for {lasting}")


def assign(
    device: DeviceName,
    scopes: Annotated[list[str], typer.Argument(metavar="SCOPE", help="All that it is to hold by this device's word.")],
    db: NewOrOld,
    identity: Keys,
) -> None:
    """Say which scopes a device is to hold, in place of what was said here before. It hears of it by sync."""
    with opened_as(db, identity) as member:
        made = member.assign(member.find(device), scopes)
        say(f"{member.roll.name(made.device)} is to hold {', '.join(sorted(member.roll.assigned(made.device)))}")


def devices(db: NewOrOld, identity: Keys) -> None:
    """Show the devices of the organisation, as far as this one has heard."""
    with opened_as(db, identity) as member:
        roll, now_ms = member.roll, member.replica.wall_ms()
        grid = Grid("name", "id", "may", "until", "state")
        for device in roll.devices():
            held = roll.grant(device)
            until = "" if held is None else datetime.fromtimestamp(held.until_ms / 1000, UTC).date().isoformat()
            state = "revoked" if roll.is_revoked(device) else "run out" if held and held.until_ms < now_ms else ""
            grid.add_row(roll.name(device), device, _rights(held), until, state)
        console.print(grid)


def void(
    db: NewOrOld,
    identity: Keys,
    undo: Annotated[bool, typer.Option("--undo", help="At a hub: undo first what can be undone.")] = False,
) -> None:
    """Show what revoked devices wrote beyond what counts of them. Exit code 1 if anything of it is left."""
    with opened_as(db, identity) as member:
        if undo:
            say(f"{member.undo_void().undone:,} records were put right")
        found, roll = member.void(), member.roll
    for one in found:
        devices = ", ".join(roll.name(device) for device in one.devices)
        say(f"{one.scope}: {one.changes:,} changes of {devices}", "yellow")
        for collection, key in one.records[:20]:
            say(f"  {collection} {key}")
    if found:
        raise typer.Exit(1)
    say("nothing void is here", "green")


def _given(read: list[str] | None, write: list[str] | None, assign: list[str] | None) -> dict[str, list[str]]:
    return {"read": patterns(read), "write": patterns(write), "assign": patterns(assign)}


def _rights(held: Grant | None) -> str:
    if held is None:
        return "nothing"
    every = (("read", held.read), ("write", held.write), ("assign", held.assign))
    return "; ".join(f"{what} {', '.join(patterns)}" for what, patterns in every if patterns) or "nothing"
