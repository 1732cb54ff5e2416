"""The command line: arguments in, calls out. Each module holds the commands of one heading of `fieldsync --help`.

Exit codes: 0 done; 1 it failed, or found what it looks for (verify, doctor, conflicts, void); 2 a wrong command line.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

try:
    import typer

    from fieldsync.cli.terminal import add, console, errors, group, say
except ImportError:
    sys.exit('the fieldsync command needs the packages typer and rich: pip install "fieldsync[cli]"')

from fieldsync.cli import care, members, network, records, scopes
from fieldsync.errors import FieldsyncError


def demo(
    rows: Annotated[int | None, typer.Option(min=1000, help="Load so many rows only.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep the files in this folder, which is empty or new.")] = None,
    seed: Annotated[int, typer.Option(help="Of the generated records, where the flights are not installed.")] = 1,
) -> None:
    """Show it all in half a minute: a hub and its devices, offline edits, peer sync, long absences, damage, a file."""
    from fieldsync.demo import run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # which tidies up on its way
    if not run(console, rows=rows, folder=folder, seed=seed):
        raise typer.Exit(1)


app = group("A durable replica of just the records in scope, on every device, that never needs a rebuild.", "fieldsync")
add(app, "To begin with", (demo, "fieldsync demo --rows 20000"))
for part in (records, scopes, network, care, members):
    part.register(app)


def main() -> None:
    """The entry point: what goes wrong is one line, not a traceback."""
    try:
        app()
    except (FieldsyncError, OSError) as error:
        say(f"error: {error}", "red", to=errors)
        sys.exit(1)
