"""Sealed bundles: who in an organisation can read one, and what who wrote it may do where it is read.

A bundle says of scopes what a session may: each reader may read every scope in it, and of it is taken what would be
taken from its writer now. Who he is goes along, and all that was said of who may do what: so somebody can read it who
never met him, with nobody to ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.bundles import bundle
from fieldsync.bundles.sealing import Seal, Unsealed
from fieldsync.errors import DecodeError, IdentityError
from fieldsync.trust import certificates
from fieldsync.trust.grants import DeviceRights
from fieldsync.trust.identity import Peer, check_chain
from fieldsync.trust.rights import Reason, Trust, tell
from fieldsync.trust.signing import id_of, public_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import BinaryIO

    from fieldsync.bundles.bundle import BundleReport, Readable
    from fieldsync.context import Context
    from fieldsync.trust.grants import Roll
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.membership import Membership


# --- writing ---


def write(
    membership: Membership,
    file: BinaryIO,
    scopes: list[str],
    readers: list[str],
    bases: Mapping[str, Context] | None = None,
    progress: Callable[[BundleReport], object] | None = None,
) -> BundleReport:
    """Write scopes, sealed to devices, by their ids. IdentityError where one may not read them all, or has no key."""
    identity, roll = membership.identity, membership.roll
    keys = [_key_for(membership, roll, device, scopes) for device in readers]
    membership.answer_for_others()
    seal = Seal(file, keys, identity.key, [certificates.encode(one) for one in identity.chain])
    report = bundle.write(membership.replica, seal, scopes, bases, progress)
    seal.end()
    report.bytes, report.writer = seal.size, identity.name
    report.readers = [_name(membership, roll, device) for device in readers]
    return report


def _name(membership: Membership, roll: Roll, device: str) -> str:
    return membership.identity.name if device == membership.identity.device else roll.name(device)


def _key_for(membership: Membership, roll: Roll, device: str, scopes: list[str]) -> bytes:
    for scope in scopes:
        if reason := roll.why_not_read(device, scope, membership.replica.wall_ms()):
            name = _name(membership, roll, device)
            raise IdentityError(f"{name!r} may not read {scope!r}: {tell(reason)}; leave out the one or the other")
    public = _public(membership.identity, roll, device)
    if public is None:
        raise IdentityError(f"the key of {roll.name(device)!r} is not known here: sync with a hub first")
    return public


def _public(identity: Identity, roll: Roll, device: str) -> bytes | None:
    """The key of a device, which its id proves; None where nobody has told it here."""
    if device == identity.device:
        return public_of(identity.key)
    member = roll.member(device)
    if member is None:
        return None
    try:
        public = certificates.public_key(certificates.decode(member.chain[0]))
    except IdentityError:
        return None
    return public if id_of(public) == device else None


def readers_of(membership: Membership, scopes: list[str], named: Iterable[str] | None = None) -> list[str]:
    """The ids of devices of these names or ids; if None, of all that may read all the scopes, and whose key is known.

    IdentityError where a name is nobody's or several devices', or where nobody else is found.
    """
    roll, own, now_ms = membership.roll, membership.identity, membership.replica.wall_ms()
    if named is not None:
        return list(dict.fromkeys(find(membership, one) for one in named))
    found = [
        device
        for device in dict.fromkeys([own.device, *roll.hubs(), *roll.devices()])
        if not any(roll.why_not_read(device, scope, now_ms) for scope in scopes) and _public(own, roll, device)
    ]
    if not set(found) - {own.device}:
        raise IdentityError("nobody else is known here who may read all these scopes: sync with a hub, or name fewer")
    return found


def keepers_of(membership: Membership, *, whole: bool) -> list[str]:
    """The ids of those for whom an escrow is: the hubs; of a whole one who leaves, too. IdentityError without a hub."""
    hubs = membership.roll.hubs()
    if not hubs:
        raise IdentityError("no hub is known here for which an escrow could be sealed: sync with one first")
    return list(dict.fromkeys([*hubs, *([membership.identity.device] if whole else [])]))


def find(membership: Membership, text: str) -> str:
    """The id of the one device, or hub, of that name or id. IdentityError."""
    roll, own = membership.roll, membership.identity
    every = dict.fromkeys([*roll.hubs(), *roll.devices()])
    found = {device for device in every if text in (device, roll.name(device))}
    found |= {own.device} if text in (own.device, own.name) else set()
    if len(found) != 1:
        raise IdentityError(f"{'several devices' if found else 'no device'} of the name or id {text!r}")
    return found.pop()


# --- reading ---


class _OwnRights(DeviceRights):
    """What this device may do with a bundle of its own: hold again what it may read."""

    def why_not_write(self, scope: str, /) -> Reason | None:
        """See why_not_read."""
        return self.why_not_read(scope)


def read(
    membership: Membership, file: Readable, progress: Callable[[BundleReport], object] | None = None
) -> BundleReport:
    """Take a sealed bundle in, as far as who wrote it may. Nothing is taken before all of it was looked at.

    IdentityError where it is not for this device, or nobody of the organisation, or somebody who is out, has written
    it. DecodeError where it is damaged.
    """
    unsealed = Unsealed(file, membership.identity.key)
    peer = _writer(membership.identity, unsealed, membership.replica.wall_ms())
    membership.check_standing(peer)
    at_hub = membership.identity.issuer is not None
    kind = _OwnRights if peer.device == membership.identity.device else DeviceRights
    rights = kind(lambda: membership.roll, peer.device, membership.replica.wall_ms, is_hub=peer.is_hub, to_hub=at_hub)
    trust = Trust(is_hub=peer.is_hub, rights=rights, device=peer.device)
    report = bundle.read(membership.replica, unsealed, progress, trust)
    report.writer = peer.name
    return report


def _writer(identity: Identity, unsealed: Unsealed, now_ms: int) -> Peer:
    """Who sealed it. IdentityError where that is nobody of the organisation."""
    chain = [certificates.decode(der) for der in unsealed.chain]
    public = certificates.public_key(chain[0])
    check_chain(chain, identity.root, public)
    if any(certificates.left_ms(one, now_ms) < 0 for one in (*chain, identity.root)):
        raise IdentityError(f"the certificate of {certificates.name_of(chain[0])!r}, who wrote this, has expired")
    if not unsealed.is_signed(public):
        raise DecodeError("a bundle that was not sealed by whom it names, or not for these readers")
    return Peer(id_of(public), certificates.name_of(chain[0]), certificates.is_hub(chain[0], identity.root), chain[0])
