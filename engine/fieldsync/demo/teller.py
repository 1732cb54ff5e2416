"""How the demo is told: steps, the figures of syncs, and facts with a yes or a NO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console


class Teller:
    """Prints the steps, and the figures of each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = 0
        self.failures: list[str] = []

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True)

    def step(self, title: str) -> None:
        """Print the heading of the next step."""
        self._step += 1
        self._console.print(f"\n{self._step}. {title}", style="bold cyan", soft_wrap=True)

    def syncs(self, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """A line for each sync: records, bytes both ways, round trips, seconds."""
        grid = Grid("sync", "records", "bytes in", "bytes out", "round trips", "seconds")
        for name, report in rows:
            grid.add_row(
                name,
                f"{report['records_changed']:,}",
                f"{report['bytes_received']:,}",
                f"{report['bytes_sent']:,}",
                str(report["round_trips"]),
                f"{report['seconds']:.2f}",
            )
        self._console.print(grid)

    def check(self, what: str, holds: bool) -> None:
        """State a fact that the demo has just verified."""
        answer = ("yes", "green") if holds else ("NO", "red")
        self._console.print(Text.assemble("   ", answer, f"  {what}"), soft_wrap=True)
        if not holds:
            self.failures.append(what)

    def digests(self, held: dict[str, dict[str, dict[str, Any]]], scopes: list[str]) -> None:
        """The digests of scopes on every replica, side by side."""
        grid = Grid("scope", "records", *held)
        for scope in scopes:
            found = {name: states.get(scope) for name, states in held.items()}
            records = next((state["records"] for state in found.values() if state), 0)
            grid.add_row(scope, f"{records:,}", *[state["digest"][:12] if state else "-" for state in found.values()])
        self._console.print(grid)
