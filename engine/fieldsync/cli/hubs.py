"""The commands for an organisation's hubs: to make one, and to do without one that is lost or stolen."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from fieldsync import clock
from fieldsync.cli.options import Keys, NewOrOld, opened_as
from fieldsync.cli.terminal import add, group, say

hub = group("The hub: it admits devices and holds every scope.")


def register(app: typer.Typer, panel: str) -> None:
    """Add these commands to others."""
    app.add_typer(hub, name="hub", rich_help_panel=panel)
    add(
        hub,
        None,
        (init, "fieldsync hub init hub --org acme --name office"),
        (adopt, "fieldsync hub adopt office --db second.db --identity second"),
        (revoke, "fieldsync hub revoke office --org acme --db second.db --identity second --stolen"),
    )


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, for the hub's keys.")],
    org: Annotated[Path, typer.Option("--org", help="The organisation's folder.", exists=True)],
    name: Annotated[str, typer.Option(help="The hub's name.")],
) -> None:
    """Make a hub of an organisation."""
    from fieldsync.trust.identity import Organisation

    made = Organisation.load(org).create_hub(folder, name, clock.now_ms())
    say(f"{name} ({made.device}): its keys are in {folder}")


def adopt(
    name: Annotated[str, typer.Argument(metavar="HUB", help="The other hub's name.")], db: NewOrOld, identity: Keys
) -> None:
    """Say again at this hub what another one said of devices, so that it counts when that one is out."""
    from fieldsync.trust import hubs

    with opened_as(db, identity, hub=True) as member:
        found = hubs.adopt(member, name)
        say(f"{len(found):,} devices of {name!r} are this hub's now, too; they hear of it by sync")


def revoke(
    name: Annotated[str, typer.Argument(metavar="HUB", help="The hub's name or id.")],
    org: Annotated[Path, typer.Option("--org", help="The organisation's folder.", exists=True)],
    db: NewOrOld,
    identity: Keys,
    stolen: Annotated[
        bool, typer.Option("--stolen", help="What it said of devices is void, too: let another hub adopt them first.")
    ] = False,
    all_of_it: Annotated[bool, typer.Option("--all", help="None of its changes count, not even those here.")] = False,
) -> None:
    """Say that a hub is out, for good. It takes the organisation's key, and any device's database to carry the word."""
    from fieldsync.trust import hubs
    from fieldsync.trust.identity import Organisation

    with opened_as(db, identity) as member:
        hubs.revoke(member, Organisation.load(org), name, stolen=stolen, keep=not all_of_it)
    say(f"the hub {name!r} is out" + (", and with it what it said of devices" if stolen else ""))
