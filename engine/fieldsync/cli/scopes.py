"""The commands that hold scopes, and carry them by hand."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

import fieldsync
from fieldsync.cli.options import Existing, MaybeKeys, NewOrOld, identity_of
from fieldsync.cli.terminal import add, say

ScopeNames = Annotated[list[str], typer.Argument(metavar="SCOPE", help="Names of scopes.")]
Plaintext = Annotated[
    bool, typer.Option("--plaintext", help="A bundle that is not sealed, though the database is an organisation's.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to others."""
    add(
        app,
        "Scopes",
        (enter, "fieldsync enter --db field.db job/7 job/8"),
        (leave, "fieldsync leave --db field.db job/7 --escrow job-7.bundle"),
        (export, "fieldsync export --db ada.db job-7.bundle --scope job/7 --identity me --reader ben"),
        (import_bundle, "fieldsync import-bundle --db ben.db job-7.bundle --identity me"),
    )


def enter(
    scopes: ScopeNames,
    db: NewOrOld,
    priority: Annotated[
        int | None, typer.Option(help="Scopes of higher numbers sync first; 0 at first, as it was if not given.")
    ] = None,
) -> None:
    """Hold scopes from now on: the next syncs fill them."""
    with fieldsync.open(db) as database:
        database.enter(*scopes, priority=priority)
    say(f"entered: {', '.join(scopes)}")


def leave(
    scopes: ScopeNames,
    db: Existing,
    lose_pending: Annotated[
        bool, typer.Option("--lose-pending", help="Leave all the same, and lose what no hub is known to have.")
    ] = False,
    escrow: Annotated[
        Path | None, typer.Option(help="First write what no hub is known to have into this new bundle.")
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Write all of them into it: `fieldsync import-bundle` brings them back."),
    ] = False,
    identity: MaybeKeys = None,
    plaintext: Plaintext = False,
) -> None:
    """Hold scopes no longer: their records go from this file, and stay wherever else they are."""
    from fieldsync.progress import bar_of_bytes

    own = identity_of(identity)
    with fieldsync.open(db) as database, bar_of_bytes(escrow.name) if escrow else nullcontext() as progress:
        report = database.leave(
            *scopes,
            lose_pending=lose_pending,
            escrow=escrow,
            whole=whole,
            identity=own,
            plaintext=plaintext,
            progress=progress,
        )
    if report is not None and whole:
        say(f"{report.changes:,} changes are in {escrow}: import it to hold the scopes again")
    elif report is not None:
        say(f"{report.changes:,} changes that no hub is known to have are in {escrow}: import it at a hub")
    say(f"left: {', '.join(scopes)}")


def export(
    file: Annotated[Path, typer.Argument(help="The bundle to write.")],
    db: Existing,
    scope: Annotated[
        list[str] | None, typer.Option(help="All that are held if none is given; may be repeated.")
    ] = None,
    known_to: Annotated[
        str | None,
        typer.Option(help="Only what the peer of this address, or name, did not have after the last sync with it."),
    ] = None,
    identity: MaybeKeys = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(help="Seal it to this device, by name or id; to all that may read it if none; may be repeated."),
    ] = None,
    plaintext: Plaintext = False,
) -> None:
    """Write scopes into a bundle: a file to be carried by hand; with an identity signed, and sealed to its readers."""
    from fieldsync.progress import bar_of_bytes

    own = identity_of(identity)
    with fieldsync.open(db) as database, bar_of_bytes(file.name) as progress:
        report = database.export(
            file,
            *scope or [],
            known_to=known_to,
            identity=own,
            readers=reader or None,
            plaintext=plaintext,
            progress=progress,
        )
    say(f"{len(report.scopes)} scopes, {report.changes:,} changes, {report.bytes:,} bytes in {file}")
    if report.readers:
        say(f"sealed to {', '.join(report.readers[:20])}{', ...' if len(report.readers) > 20 else ''}")


def import_bundle(
    file: Annotated[Path, typer.Argument(help="The bundle to read.", exists=True, dir_okay=False)],
    db: NewOrOld,
    identity: MaybeKeys = None,
    plaintext: Plaintext = False,
) -> None:
    """Take a bundle in: the same end as a sync with its writer. Scopes that are not held are entered."""
    from fieldsync.progress import bar_of_bytes

    own = identity_of(identity)
    with fieldsync.open(db) as database, bar_of_bytes(file.name, file.stat().st_size) as progress:
        report = database.import_bundle(file, identity=own, plaintext=plaintext, progress=progress)
    say(
        f"{f'sealed by {report.writer}; ' if report.writer else ''}"
        f"{len(report.scopes)} scopes: {report.changes:,} changes received, {report.records_changed:,} records changed"
    )
    for refused in report.refusals:
        say(str(refused), "yellow")
    if lacking := sorted(set(report.incomplete) - {refused.scope for refused in report.refusals}):
        why = "builds on changes that are not here yet, or takes away more than it may; a sync brings the rest"
        say(f"{why}: {', '.join(lacking)}", "yellow")
