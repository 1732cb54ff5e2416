"""The command line: arguments in, calls out."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from datetime import timedelta
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
ScopeNames = Annotated[list[str], typer.Argument(metavar="SCOPE", help="Names of scopes.")]


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
    if report.changes_ahead:
        _say(f"{report.changes_ahead:,} changes are stamped ahead of this clock: one of the two is wrong", "yellow")
    if report.refused:
        _say(f"not held by the peer: {', '.join(report.refused)}", "yellow")
    for mended in report.mended:
        _say(f"damaged, {mended}", "yellow")


@app.command(epilog=_example("fieldsync enter --db field.db job/7 job/8"))
def enter(scopes: ScopeNames, db: DatabasePath) -> None:
    """Hold scopes from now on: the next syncs fill them."""
    with fieldsync.open(db) as database:
        database.enter(*scopes)
    _say(f"entered: {', '.join(scopes)}")


@app.command(epilog=_example("fieldsync leave --db field.db job/7 --escrow job-7.bundle"))
def leave(
    scopes: ScopeNames,
    db: DatabasePath,
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
) -> None:
    """Hold scopes no longer: their records go from this file, and stay wherever else they are."""
    from fieldsync.progress import bar_of_bytes

    with fieldsync.open(db) as database, bar_of_bytes(escrow.name) if escrow else nullcontext() as progress:
        report = database.leave(*scopes, lose_pending=lose_pending, escrow=escrow, whole=whole, progress=progress)
    if report is not None and whole:
        _say(f"{report.changes:,} changes are in {escrow}: import it to hold the scopes again")
    elif report is not None:
        _say(f"{report.changes:,} changes that no hub is known to have are in {escrow}: import it at a hub")
    _say(f"left: {', '.join(scopes)}")


@app.command(epilog=_example("fieldsync trim --db hub.db --older-than 90d --keep 10000"))
def trim(
    db: DatabasePath,
    scopes: Annotated[
        list[str] | None, typer.Argument(metavar="SCOPE", help="All that are held if none is named.")
    ] = None,
    older_than: Annotated[str, typer.Option(help="An age, such as 90d, 12h, 30m or 0s.")] = "30d",
    keep: Annotated[int | None, typer.Option(min=0, help="Keep so many of the latest in each scope at most.")] = None,
) -> None:
    """Forget old removals. Devices that come back after any absence still learn what was deleted."""
    age = _age(older_than)
    with fieldsync.open(db) as database:
        count = database.trim(*scopes or [], older_than=age, keep=keep)
    _say(f"{count:,} changes of removals forgotten")


def _age(text: str) -> timedelta:
    units = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
    try:
        age = int(text[:-1]) * units[text[-1:]]
        if age >= timedelta(0):
            return age
    except (KeyError, ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is not an age, such as 90d, 12h, 30m or 0s")


@app.command(epilog=_example("fieldsync export --db ada.db job-7.bundle --scope job/7"))
def export(
    file: Annotated[Path, typer.Argument(help="The bundle to write.")],
    db: DatabasePath,
    scope: Annotated[
        list[str] | None, typer.Option(help="All that are held if none is given; may be repeated.")
    ] = None,
    known_to: Annotated[
        str | None, typer.Option(help="Only what the peer of this address did not have after the last sync with it.")
    ] = None,
) -> None:
    """Write scopes into a bundle: a file to be carried by hand, which any replica can import."""
    from fieldsync.progress import bar_of_bytes

    with fieldsync.open(db) as database, bar_of_bytes(file.name) as progress:
        report = database.export(file, *scope or [], known_to=known_to, progress=progress)
    _say(f"{len(report.scopes)} scopes, {report.changes:,} changes, {report.bytes:,} bytes in {file}")


@app.command(epilog=_example("fieldsync import-bundle --db ben.db job-7.bundle"))
def import_bundle(
    file: Annotated[Path, typer.Argument(help="The bundle to read.", exists=True, dir_okay=False)], db: DatabasePath
) -> None:
    """Take a bundle in: the same end as a sync with its writer. Scopes that are not held are entered."""
    from fieldsync.progress import bar_of_bytes

    with fieldsync.open(db) as database, bar_of_bytes(file.name, file.stat().st_size) as progress:
        report = database.import_bundle(file, progress=progress)
    _say(
        f"{len(report.scopes)} scopes: {report.changes:,} changes received, {report.records_changed:,} records changed"
    )
    if report.incomplete:
        why = "builds on changes that are not here yet, or takes away more than it may; a sync brings the rest"
        _say(f"{why}: {', '.join(report.incomplete)}", "yellow")


@app.command(epilog=_example("fieldsync verify ada.db hub.db --scope job/7"))
def verify(
    one: Annotated[Path, typer.Argument(help="A database file.", exists=True)],
    other: Annotated[Path, typer.Argument(help="Another.", exists=True)],
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
        _say(str(compared), None if compared.agrees else "yellow")
        for collection, key in compared.differing[:20]:
            _say(f"  {collection} {key}" if key else "  cells without their record")
    for path, alone in report.only_one.items():
        if alone:
            _say(f"only {path} holds {len(alone):,} other scopes")
    _say(_verdict(report), "green" if report.agree else "red")
    if not report.agree:
        raise typer.Exit(1)


def _verdict(report: fieldsync.Comparison) -> str:
    if not report.scopes:
        return "they hold no scope in common"
    count = sum(not scope.agrees for scope in report.scopes)
    return f"they differ in {count:,} of {len(report.scopes):,} scopes" if count else "they agree"


@app.command(epilog=_example("fieldsync why --db field.db orders o-17"))
def why(
    collection: Annotated[str, typer.Argument(help="The record's collection.")],
    key: Annotated[str, typer.Argument(help="The record's key.")],
    db: DatabasePath,
    scope: Annotated[str | None, typer.Option(help="Ask this scope only.")] = None,
) -> None:
    """Tell why a record is here or is not."""
    with fieldsync.open(db) as database:
        _say(str(database.why(collection, key, scope=scope)))


@app.command(epilog=_example("fieldsync conflicts --db field.db orders"))
def conflicts(
    db: DatabasePath,
    collection: Annotated[str | None, typer.Argument(help="Of this collection only.")] = None,
    scope: Annotated[str | None, typer.Option(help="Of this scope only.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Show so many.")] = 100,
) -> None:
    """Show fields that were written apart, and what was written to deleted records. Exit code 1 if there is any."""
    with fieldsync.open(db) as database:
        found = [*database.conflicts(collection, scope=scope), *database.late_edits(collection, scope=scope)]
    for entry in found[:most]:
        _say(str(entry))
    if len(found) > most:
        _say(f"... and {len(found) - most:,} more", "yellow")
    if found:
        raise typer.Exit(1)
    _say("no conflicts", "green")


@app.command(epilog=_example("fieldsync info field.db"))
def info(file: Annotated[Path, typer.Argument(help="The database file.", exists=True)]) -> None:
    """Show the scopes that a file holds."""
    with fieldsync.open(file) as database:
        grid = Grid("scope", "records", "changes", "state", "digest")
        for held in database.scopes():
            grid.add_row(held.name, f"{held.records:,}", f"{held.changes:,}", held.state, held.digest)
        console.print(grid)


@app.command(epilog=_example("fieldsync schema field.db --app myapp.models"))
def schema(
    file: Annotated[Path, typer.Argument(help="The database file.", exists=True)],
    app_module: Annotated[
        str | None, typer.Option("--app", metavar="MODULE", help="Hold it against the records that a module declares.")
    ] = None,
) -> None:
    """Show the fields that a file holds, and what a declaration would make of them. Nothing is changed."""
    from fieldsync.progress import bar_of_rows

    declared = _declared_in(app_module) if app_module else []
    with fieldsync.open(file) as database, bar_of_rows(file.name) as progress:
        found = database.describe(*declared, progress=progress)
    for collection in found:
        _say(str(collection))


def _declared_in(name: str) -> list[type[fieldsync.Record]]:
    """The record classes of a module, by its name; BadParameter if there is no such module, or none in it."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--app") from None
    found = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, fieldsync.Record)]
    declared = [one for one in found if one is not fieldsync.Record]
    if not declared:
        raise typer.BadParameter(f"{name} declares no records", param_hint="--app")
    return declared


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
    """Show it all in about a minute: a hub and its devices, offline edits, peer sync, long absences, damage, a file."""
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
