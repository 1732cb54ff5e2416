"""Leaving scopes with an escrow: what no hub is known to have goes into a bundle first, which a hub can import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.bundles import bundle, parcel
from fieldsync.context import Context
from fieldsync.errors import NotFound
from fieldsync.leaving import deliver, held, leave

if TYPE_CHECKING:
    import os
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
    with replica.writing() as batch:
        for name in scopes:
            deliver(batch.writer, name, packed[name])  # for as long as this transaction lasts: then the scope is gone
            scope = batch.writer.scope(name)
            if scope is None:
                raise NotFound(f"the scope {name!r} was left meanwhile")
            batch.note(name, leave(batch.writer, scope, lose_pending=lose_pending), Context())
    return report
