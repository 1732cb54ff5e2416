"""Bundles as files: sealed where the database is an organisation's; plain where it is nobody's, or on demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.bundles import bundle
from fieldsync.errors import DecodeError, IdentityError
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from typing import BinaryIO

    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.context import Context
    from fieldsync.replica import Replica
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.membership import Membership

    Progress = Callable[[BundleReport], object]
    Write = Callable[[BinaryIO, list[str], Mapping[str, Context], Progress | None], BundleReport]


def _membership(replica: Replica, identity: Identity | None) -> Membership | None:
    """As whose database a replica is open; None: as nobody's."""
    if identity is None:
        return replica.membership
    from fieldsync.trust.membership import membership_of

    return membership_of(replica, identity)


def _is_organised(replica: Replica) -> bool:
    with replica.store.reading() as reader:
        return reader.scope(CONTROL) is not None


def _check_plain(replica: Replica, *, plaintext: bool) -> None:
    if not plaintext and _is_organised(replica):
        raise IdentityError(
            "this database is an organisation's, so its bundles are sealed: name the identity; or say that plaintext "
            "is meant, which anybody can read and could have written"
        )


def writing(
    replica: Replica,
    *,
    identity: Identity | None = None,
    readers: Iterable[str] | None = None,
    plaintext: bool = False,
    escrow: bool = False,
    whole: bool = False,
) -> Write:
    """How a bundle of a replica is to be written. readers: names or ids; if None, whoever may read all of it.

    escrow: for the hubs, and if whole for this device, too. IdentityError, ValueError.
    """
    membership = _membership(replica, identity) if not plaintext else None
    if membership is None:
        if readers is not None:
            raise ValueError("a bundle is sealed to readers by somebody: name the identity, and not plaintext")
        _check_plain(replica, plaintext=plaintext)
        return lambda file, scopes, bases, progress: bundle.write(replica, file, scopes, bases, progress)
    from fieldsync.bundles import sealed_bundle

    def write(
        file: BinaryIO, scopes: list[str], bases: Mapping[str, Context], progress: Progress | None
    ) -> BundleReport:
        if escrow:
            chosen = sealed_bundle.keepers_of(membership, whole=whole)
        else:
            chosen = sealed_bundle.readers_of(membership, scopes, readers)
        return sealed_bundle.write(membership, file, scopes, chosen, bases, progress)

    return write


def known_to(replica: Replica, peer: str, scopes: list[str], identity: Identity | None = None) -> dict[str, Context]:
    """By scope, what a peer had at the end of the last sync with it. IdentityError where nobody has that name or id.

    It is known by its address; where peers prove who they are, by its name or id.
    """
    membership = _membership(replica, identity)
    if membership is not None and "://" not in peer:
        from fieldsync.bundles.sealed_bundle import find

        peer = find(membership, peer)
    return replica.agreed_with(peer, scopes)


def read(
    replica: Replica,
    path: str | os.PathLike[str],
    *,
    identity: Identity | None = None,
    plaintext: bool = False,
    progress: Progress | None = None,
) -> BundleReport:
    """Take the bundle of a file in; a plain one, where somebody could know who wrote it, only if plaintext.

    IdentityError where it is not for this device, or is not sealed though it should be; DecodeError.
    """
    membership = _membership(replica, identity)
    with Path(path).open("rb") as file:
        begin = file.read(len(bundle.SEALED))
        file.seek(0)
        if begin == bundle.MAGIC:
            _check_plain(replica, plaintext=plaintext)
            if membership is None and _is_organised(replica):
                raise IdentityError("this database is an organisation's: name the identity, so that rights count")
            return bundle.read(replica, file, progress)
        if begin != bundle.SEALED:
            raise DecodeError("not a bundle, or one of a newer version")
        if membership is None:
            raise IdentityError("this bundle is sealed: name the identity for which it is")
        from fieldsync.bundles import sealed_bundle

        return sealed_bundle.read(membership, file, progress)
