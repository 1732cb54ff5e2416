"""The commands that keep files in order, and prove that they are."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

import fieldsync
from fieldsync.cli.options import Existing, File, age
from fieldsync.cli.terminal import add, say


def register(app: typer.Typer) -> None:
    """Add these commands to others."""
    add(
        app,
        "Care",
        (verify, "fieldsync verify ada.db hub.db --scope job/7"),
        (doctor, "fieldsync doctor field.db --repair"),
        (trim, "fieldsync trim --db hub.db --older-than 90d --keep 10000"),
    )


def verify(
    one: Annotated[Path, typer.Argument(help="A database file.", exists=True, dir_okay=False)],
    other: Annotated[Path, typer.Argument(help="Another.", exists=True, dir_okay=False)],
    scope: Annotated[
        list[str] | None, typer.Option(help="All that both hold if none is given; may be repeated.")
    ] = None,
) -> None:
    """Prove that two replicas agree, or show where they do not. Exit code 0 only if they agree."""
    from fieldsync.progress import bar_of_rows

    with (
        fieldsync.open(one) as first,
        fieldsync.open(other) as second,
        bar_of_rows(f"{one.name}, {other.name}") as progress,
    ):
        report = first.compare(second, *scope or [], progress=progress)
    for compared in report.scopes:
        say(str(compared), None if compared.agrees else "yellow")
        for collection, key in compared.differing[:20]:
            say(f"  {collection} {key}" if key else "  cells without their record")
    for path, alone in report.only_one.items():
        if alone:
            say(f"only {path} holds {len(alone):,} other scopes")
    say(_verdict(report), "green" if report.agree else "red")
    if not report.agree:
        raise typer.Exit(1)


def _verdict(report: fieldsync.Comparison) -> str:
    if not report.scopes:
        return "they hold no scope in common"
    count = sum(not scope.agrees for scope in report.scopes)
    return f"they differ in {count:,} of {len(report.scopes):,} scopes" if count else "they agree"


def doctor(
    file: File,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Look at all of a file for damage: each record, and all that follows from it. Exit code 1 if any is left."""
    from fieldsync.progress import bar_of_rows

    with fieldsync.open(file) as database, bar_of_rows(file.name) as progress:
        report = database.verify(repair=repair, progress=progress)
    for fault in report.faults[:20]:
        say(f"{fault} ({fault.remedy})" if repair else str(fault), "yellow")
    if report.fault_count > 20:
        say(f"... and {report.fault_count - 20:,} more", "yellow")
    for scope, count in report.fetching.items():
        say(f"{scope}: {count:,} records come back with the next sync from a replica that holds them")
    if report.unproven:
        say(f"digests computed again, which the next sync compares: {', '.join(report.unproven)}")
    say(
        f"{report.scopes:,} scopes, {report.records:,} records, {report.changes:,} changes: "
        f"{report.fault_count:,} faults, {len(report.left) if repair else report.fault_count:,} left"
    )
    if not report.is_sound:
        say(_advice(repair), "red")
        raise typer.Exit(1)


def _advice(repaired: bool) -> str:
    if not repaired:
        return "keep a copy of the file, then run this again with --repair"
    return (
        "sync with an undamaged replica, then run this again; if anything is left then, enter the same scopes in a new "
        "file and sync it (docs/recovery.md)"
    )


def trim(
    db: Existing,
    scopes: Annotated[
        list[str] | None, typer.Argument(metavar="SCOPE", help="All that are held if none is named.")
    ] = None,
    older_than: Annotated[str, typer.Option(help="An age, such as 90d, 12h, 30m or 0s.")] = "30d",
    keep: Annotated[int | None, typer.Option(min=0, help="Keep so many of the latest in each scope at most.")] = None,
) -> None:
    """Forget old removals. Devices that come back after any absence still learn what was deleted."""
    least = age(older_than)
    with fieldsync.open(db) as database:
        count = database.trim(*scopes or [], older_than=least, keep=keep)
    say(f"{count:,} changes of removals forgotten")
