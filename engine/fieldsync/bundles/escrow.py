"""Leaving scopes with an escrow: what no hub is known to have goes into a bundle first, which a hub can import."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.bundles import bundle, parcel
from fieldsync.context import Context
from fieldsync.errors import NotFound
from fieldsync.leaving import deliver, held, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.replica import Replica
    from fieldsync.trust.identity import Identity


def leave_with_escrow(
    replica: Replica,
    scopes: list[str],
    path: str | os.PathLike[str],
    *,
    lose_pending: bool = False,
    whole: bool = False,
    identity: Identity | None = None,
    plaintext: bool = False,
    progress: Callable[[BundleReport], object] | None = None,
) -> BundleReport:
    """Write what no hub is known to have of scopes, or all if whole, into a new bundle; then erase them, all or none.

    FileExistsError rather than replacing another escrow; NotFound; NotDelivered where more was written meanwhile,
    unless that may be lost; and see parcel.writing.
    """
    write = parcel.writing(replica, identity=identity, plaintext=plaintext, escrow=True, whole=whole)
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already: it may be all that is left of other scopes; name another file")
    delivered, packed = {}, {}
    with replica.store.reading() as reader:
        for name in scopes:
            scope = reader.scope(name)
            if scope is None:
                raise NotFound(f"the scope {name!r} is not held here")
            delivered[name], packed[name] = Context(scope.delivered), held(reader, scope)
    bases = {} if whole else delivered
    report = bundle.replace_file(path, lambda file: write(file, scopes, bases, progress))
    _keep_name(Path(path))
    with replica.writing() as batch:
        for name in scopes:
            deliver(batch.writer, name, packed[name])  # for as long as this transaction lasts: then the scope is gone
            scope = batch.writer.scope(name)
            if scope is None:
                raise NotFound(f"the scope {name!r} was left meanwhile")
            batch.note(name, leave(batch.writer, scope, lose_pending=lose_pending), Context())
    return report


def _keep_name(path: Path) -> None:
    """Let a new file's name survive a power cut, where the system syncs folders."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
