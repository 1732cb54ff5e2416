"""What commands share: arguments that are the same everywhere, and what is made of them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import fieldsync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.trust.identity import Identity
    from fieldsync.trust.membership import Membership

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

NewOrOld = Annotated[Path, typer.Option("--db", help="The database file; made if it does not exist.", dir_okay=False)]
Existing = Annotated[Path, typer.Option("--db", help="The database file.", exists=True, dir_okay=False)]
File = Annotated[Path, typer.Argument(help="The database file.", exists=True, dir_okay=False)]
Keys = Annotated[
    Path, typer.Option("--identity", help="The folder with this device's keys.", exists=True, file_okay=False)
]
MaybeKeys = Annotated[
    Path | None,
    typer.Option(
        "--identity", help="The folder with this device's keys; see `fieldsync enroll`.", exists=True, file_okay=False
    ),
]


def identity_of(folder: Path | None) -> Identity | None:
    """The identity of a folder, where one is named."""
    from fieldsync.trust.identity import Identity

    return Identity.load(folder) if folder is not None else None


@contextmanager
def opened_as(db: Path, keys: Path, *, hub: bool = False) -> Iterator[Membership]:
    """A database as this device's. hub: which has to be one. IdentityError."""
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.membership import membership_of

    own = Identity.load(keys)
    if hub and own.issuer is None:  # a file that was opened as a hub's takes every scope from then on
        raise fieldsync.IdentityError(f"{keys} holds the keys of a device: only a hub says who may do what")
    with fieldsync.open(db, hub=hub) as database:
        yield membership_of(database.replica, own)


def patterns(some: list[str] | None) -> list[str]:
    """Patterns of scopes, in which a star stands for the rest of a name; a BadParameter where it is elsewhere."""
    for one in some or []:
        if "*" in one[:-1]:
            raise typer.BadParameter(f'{one!r}: a star stands for the rest of a name, and is its end, as in "job/*"')
    return some or []


def age(text: str) -> timedelta:
    """A time such as 90d, 12h, 30m or 0s."""
    try:
        if found := re.fullmatch(r"([0-9]+)([dhms])", text):
            return timedelta(**{UNITS[found[2]]: int(found[1])})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is not a time, such as 90d, 12h, 30m or 0s")
