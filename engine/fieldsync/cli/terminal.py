"""What all commands of the command line share: how they print, and how they look in --help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable

# what is printed holds names out of files: none of it is markup
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)


def group(help_text: str, name: str | None = None) -> typer.Typer:
    """A set of commands."""
    return typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )


def add(app: typer.Typer, panel: str | None, *commands: tuple[Callable[..., Any], str]) -> None:
    """Add commands, each with the example that ends its help, under a heading of the list of all."""
    for command, example in commands:
        app.command(rich_help_panel=panel, epilog=f"Example: [bold]{escape(example)}[/bold]")(command)


def plain(text: str) -> str:
    """A text in which what a terminal would obey is shown instead: names of records are anybody's who may write."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def say(text: str, style: str | None = None, *, to: Console = console) -> None:
    """Print a line, however long."""
    to.print(plain(text), style=style, soft_wrap=True)
