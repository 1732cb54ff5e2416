"""Bars on the terminal: loading a table, looking at all rows of a file, writing and reading a bundle."""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from fieldsync.limits import REJECTED_ROWS_KEPT
from fieldsync.template import fill_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.database import Database
    from fieldsync.loading import LoadReport
    from fieldsync.tables import Table


def load_table(
    database: Database, table: Table, collection: str, *, key: str, scope: str, rows_max: int | None = None
) -> LoadReport:
    """Load a table; the report's rejected rows are (line number, reason), those the reader refused among them."""
    lines = array("Q")  # of the rows, by number
    with _bar(TaskProgressColumn(), TextColumn("{task.fields[rows]:,} rows")) as bar:
        task = bar.add_task(table.path.name, total=table.bytes_total, rows=0)
        report = database.load(
            collection,
            _rows(table, lines, rows_max),
            key=fill_template(key, table.columns),
            scope=fill_template(scope, table.columns),
            progress=lambda done: bar.update(task, completed=table.bytes_read, rows=done),
        )
        bar.update(task, completed=table.bytes_total)
    report.rejected = [(lines[number - 1], reason) for number, reason in report.rejected]
    report.rejected = sorted(report.rejected + list(table.bad_rows))[:REJECTED_ROWS_KEPT]
    report.rejected_count += table.bad_row_count
    return report


def _rows(table: Table, lines: array[int], rows_max: int | None) -> Iterator[dict[str, Any]]:
    for count, (line, row) in enumerate(table):
        if count == rows_max:
            return
        lines.append(line)
        yield row


@contextmanager
def bar_of_rows(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total) of rows."""
    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def bar_of_bytes(name: str, total: int | None = None) -> Iterator[Callable[[BundleReport], None]]:
    """A bar that is told the report of a bundle, of so many bytes if that is known."""
    with _bar(DownloadColumn()) as bar:
        task = bar.add_task(name, total=total)
        yield lambda report: bar.update(task, completed=report.bytes)


def _bar(*columns: ProgressColumn) -> Progress:
    """A bar with these columns, on a terminal only: what is printed may be read by another program."""
    errors = Console(stderr=True)
    described = TextColumn("{task.description}", markup=False)
    return Progress(
        described, BarColumn(), *columns, TimeElapsedColumn(), console=errors, disable=not errors.is_terminal
    )
