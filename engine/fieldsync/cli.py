"""The command line: arguments in, calls out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from fieldsync.errors import FieldsyncError

try:
    import typer
    from rich.console import Console
    from rich.table import Table as Grid
except ImportError:
    sys.exit('the fieldsync command needs the packages typer and rich: pip install "fieldsync[cli]"')

import fieldsync

app = typer.Typer(
    name="fieldsync",
    help="A durable replica of just the records in scope, on every device, that never needs a rebuild.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# what is printed holds names out of files: none of it is markup
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

DatabasePath = Annotated[Path, typer.Option("--db", help="The database file; made if it does not exist.")]


def _example(text: str) -> str:
    return f"Example: [bold]{text}[/bold]"


def _say(text: str, style: str | None = None) -> None:
    console.print(text, style=style, soft_wrap=True)


@app.command(
    epilog=_example(
        'fieldsync load flights.csv.zip --db hub.db --collection flights --key "{time_hour}/{flight}" '
        '--scope "{origin}/{carrier}"'
    )
)
def load(
    file: Annotated[Path, typer.Argument(help="A table: .csv, .csv.gz or .csv.zip, its first line the column names.")],
    db: DatabasePath,
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
        _say(f"line {line} left out: {reason}", "yellow")
    if report.rejected_count > 20:
        _say(f"... and {report.rejected_count - 20:,} more", "yellow")
    _say(
        f"{report.loaded:,} records written, {report.unchanged:,} unchanged, {report.rejected_count:,} rows left out, "
        f"{len(report.scopes)} scopes, {report.seconds:.1f} s"
    )


def _pairs(types: list[str]) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in types)
    for column, kind in pairs.items():
        if not kind:
            raise typer.BadParameter(f"{column!r} is not column=type, such as price=decimal")
    return pairs


@app.command(epilog=_example("fieldsync serve --db hub.db --hub --port 8765"))
def serve(
    db: DatabasePath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Loopback only, until there is TLS.")] = "127.0.0.1",
    hub: Annotated[
        bool, typer.Option("--hub", help="Take every scope that a peer offers; remembered in the file.")
    ] = False,
) -> None:
    """Serve a database to peers until interrupted."""
    import threading

    with fieldsync.open(db, hub=hub) as database, fieldsync.serve(database, host, port) as server:
        _say(f"serving {db} on {server.url}; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            _say("stopped")


@app.command(epilog=_example("fieldsync sync --db field.db --scope job/7 ws://127.0.0.1:8765"))
def sync(
    url: Annotated[str, typer.Argument(help="The peer's address, such as ws://127.0.0.1:8765.")],
    db: DatabasePath,
    scope: Annotated[list[str] | None, typer.Option(help="Enter this scope first; may be repeated.")] = None,
    only: Annotated[bool, typer.Option("--only", help="Sync the given scopes and no others.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds without progress before the link counts as cut.")] = 60,
) -> None:
    """Sync a database with a peer once."""
    with fieldsync.open(db) as database:
        if scope:
            database.enter(*scope)
        report = database.sync(url, scopes=scope if only else None, timeout=timeout)
    _say(
        f"{len(report.scopes)} scopes: {report.changes_received:,} changes received, {report.changes_sent:,} sent, "
        f"{report.bytes_received:,} bytes in, {report.bytes_sent:,} out, {report.round_trips} round trips, "
        f"{report.seconds:.2f} s"
    )
    if report.refused:
        _say(f"not held by the peer: {', '.join(report.refused)}", "yellow")


@app.command(epilog=_example("fieldsync info field.db"))
def info(file: Annotated[Path, typer.Argument(help="The database file.", exists=True)]) -> None:
    """Show the scopes that a file holds."""
    with fieldsync.open(file) as database:
        grid = Grid("scope", "records", "changes", "state", "digest")
        for held in database.scopes():
            grid.add_row(held.name, f"{held.records:,}", f"{held.changes:,}", held.state, held.digest)
        console.print(grid)


@app.command(epilog=_example("fieldsync doctor field.db --repair"))
def doctor(
    file: Annotated[Path, typer.Argument(help="The database file.", exists=True)],
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Look at all of a file for damage: each record, and all that follows from it. Exit code 1 if any is left."""
    from fieldsync.progress import bar_of_rows

    with fieldsync.open(file) as database, bar_of_rows(file.name) as progress:
        report = database.verify(repair=repair, progress=progress)
    for fault in report.faults[:20]:
        _say(f"{fault} ({fault.remedy})" if repair else str(fault), "yellow")
    if report.fault_count > 20:
        _say(f"... and {report.fault_count - 20:,} more", "yellow")
    for scope, count in report.fetching.items():
        _say(f"{scope}: {count:,} records come back with the next sync from a replica that holds them")
    if report.unproven:
        _say(f"digests computed again, which the next sync compares: {', '.join(report.unproven)}")
    _say(
        f"{report.scopes:,} scopes, {report.records:,} records, {report.changes:,} changes: "
        f"{report.fault_count:,} faults, {len(report.left) if repair else report.fault_count:,} left"
    )
    if not report.is_sound:
        _say(_advice(repair), "red")
        raise typer.Exit(1)


def _advice(repaired: bool) -> str:
    if not repaired:
        return "keep a copy of the file, then run this again with --repair"
    return (
        "sync with an undamaged replica, then run this again; if anything is left then, enter the same scopes in a new "
        "file and sync it (docs/recovery.md)"
    )


@app.command(epilog=_example("fieldsync demo --rows 20000"))
def demo(
    rows: Annotated[int | None, typer.Option(min=1000, help="Load so many rows only.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep the databases in this folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of the generated records, where the flights are not installed.")] = 1,
) -> None:
    """Show it all in about a minute: a hub and three devices, offline edits, peer sync, a long absence."""
    from fieldsync.demo import run

    if not run(console, rows=rows, folder=folder, seed=seed):
        raise typer.Exit(1)


def main() -> None:
    """The entry point: what goes wrong is one line, not a traceback."""
    try:
        app()
    except (FieldsyncError, OSError) as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
