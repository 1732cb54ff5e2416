"""The commands that load records and look at them."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as Grid

import fieldsync
from fieldsync.cli.options import Existing, File, NewOrOld, age
from fieldsync.cli.terminal import add, console, plain, say

LOAD = (
    'fieldsync load flights.csv.zip --db hub.db --collection flights --key "{time_hour}/{flight}" '
    '--scope "{origin}/{carrier}"'
)


def register(app: typer.Typer) -> None:
    """Add these commands to others."""
    add(
        app,
        "Records",
        (load, LOAD),
        (info, "fieldsync info field.db"),
        (why, "fieldsync why --db field.db orders o-17"),
        (conflicts, "fieldsync conflicts --db field.db orders"),
        (audit, "fieldsync audit hub.db --key o-17 --since 2026-11-01"),
        (schema, "fieldsync schema field.db --app myapp.models --app myapp.visits:Visit"),
    )


def load(
    file: Annotated[Path, typer.Argument(help="A table: .csv, .csv.gz or .csv.zip, its first line the column names.")],
    db: NewOrOld,
    collection: Annotated[str, typer.Option(help="The collection to load into.")],
    key: Annotated[str, typer.Option(help='A column, or a template such as "{year}-{number}".')],
    scope: Annotated[str, typer.Option(help='A column, or a template such as "{origin}/{carrier}".')],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="column=type, where the guess is wrong; may be repeated.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A power cut may cost the last commits.")] = False,
) -> None:
    """Load a table. Empty cells and NA are None; rows that cannot be read are reported and left out."""
    from fieldsync.progress import load_table
    from fieldsync.tables import open_table

    table = open_table(file, types=_pairs(types or []))
    with fieldsync.open(db, durability="fast" if fast else "full") as database:
        report = load_table(database, table, collection, key=key, scope=scope)
    for line, reason in report.rejected[:20]:
        say(f"line {line} left out: {reason}", "yellow")
    if report.rejected_count > 20:
        say(f"... and {report.rejected_count - 20:,} more", "yellow")
    say(
        f"{report.loaded:,} records written, {report.unchanged:,} unchanged, {report.rejected_count:,} rows left out, "
        f"{len(report.scopes)} scopes, {report.seconds:.1f} s"
    )


def _pairs(types: list[str]) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in types)
    for column, kind in pairs.items():
        if not kind:
            raise typer.BadParameter(f"{column!r} is not column=type, such as price=decimal")
    return pairs


def info(file: File) -> None:
    """Show the scopes that a file holds, and what peers refused of its changes."""
    with fieldsync.open(file) as database:
        grid = Grid("scope", "records", "changes", "state", "digest")
        for held in database.scopes():
            grid.add_row(plain(held.name), f"{held.records:,}", f"{held.changes:,}", held.state, held.digest)
        console.print(grid)
        for refused in database.refused():
            say(str(refused), "yellow")


def why(
    collection: Annotated[str, typer.Argument(help="The record's collection.")],
    key: Annotated[str, typer.Argument(help="The record's key.")],
    db: Existing,
    scope: Annotated[str | None, typer.Option(help="Ask this scope only.")] = None,
) -> None:
    """Tell why a record is here or is not."""
    with fieldsync.open(db) as database:
        say(str(database.why(collection, key, scope=scope)))


def conflicts(
    db: Existing,
    collection: Annotated[str | None, typer.Argument(help="Of this collection only.")] = None,
    scope: Annotated[str | None, typer.Option(help="Of this scope only.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Show so many.")] = 100,
) -> None:
    """Show fields that were written apart, and what was written to deleted records. Exit code 1 if there is any."""
    with fieldsync.open(db) as database:
        found = [*database.conflicts(collection, scope=scope), *database.late_edits(collection, scope=scope)]
    for entry in found[:most]:
        say(str(entry))
    if len(found) > most:
        say(f"... and {len(found) - most:,} more", "yellow")
    if found:
        raise typer.Exit(1)
    say("no conflicts", "green")


def audit(
    file: File,
    collection: Annotated[str | None, typer.Option(help="Of this collection only.")] = None,
    key: Annotated[str | None, typer.Option(help="Of records of this key only.")] = None,
    scope: Annotated[str | None, typer.Option(help="Of this scope only.")] = None,
    since: Annotated[datetime | None, typer.Option(help="What landed from then on, in UTC.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Show so many, the last ones.")] = 100,
    begin: Annotated[bool, typer.Option("--begin", help="Keep a log in this file from now on, for good.")] = False,
    forget: Annotated[str | None, typer.Option(help="First forget what is older than an age, such as 365d.")] = None,
) -> None:
    """Show who changed what, and when it landed in a file that keeps an audit log."""
    from_then = since.replace(tzinfo=UTC) if since else None
    with fieldsync.open(file, audit=begin) as database:
        if forget:
            say(f"{database.trim_audit(older_than=age(forget)):,} entries forgotten")
        for entry in database.audit(collection, key, scope=scope, since=from_then, most=most):
            say(str(entry))


def schema(
    file: File,
    apps: Annotated[
        list[str] | None,
        typer.Option(
            "--app",
            metavar="MODULE[:CLASS]",
            help="Hold it against a class, or against all that a module declares; may be repeated.",
        ),
    ] = None,
) -> None:
    """Show the fields that a file holds, and what opening it with a declaration would change. Nothing is changed.

    Tables, columns and indexes that would be made or dropped; rows that would be written anew; values that do not fit.
    """
    from fieldsync.progress import bar_of_rows

    declared = list(dict.fromkeys(one for name in apps or [] for one in _declared_in(name)))
    tables = [fieldsync.schema.Collection.of(one).name for one in declared]
    if twice := sorted({name for name in tables if tables.count(name) > 1}):
        raise typer.BadParameter(
            f"several classes declare {', '.join(twice)}; name one: MODULE:CLASS", param_hint="--app"
        )
    with fieldsync.open(file) as database, bar_of_rows(file.name) as progress:
        found = database.describe(*declared, progress=progress)
    for collection in found:
        say(str(collection))


def _declared_in(name: str) -> list[type[fieldsync.Record]]:
    """A record class, or those of a module, by MODULE[:CLASS]; BadParameter where there is none.

    The module may lie in the current folder, where Python does not look for those of an installed command.
    """
    module_name, _, class_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--app") from None
    some = [vars(module).get(class_name)] if class_name else vars(module).values()
    found = [one for one in some if isinstance(one, type) and issubclass(one, fieldsync.Record)]
    declared = [one for one in found if one is not fieldsync.Record]
    if not declared:
        raise typer.BadParameter(f"{name} declares no records", param_hint="--app")
    return declared
