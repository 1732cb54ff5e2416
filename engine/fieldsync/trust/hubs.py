"""What becomes of a hub that is out: the root revokes it, and another hub says again what it had said of devices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fieldsync.errors import IdentityError
from fieldsync.trust import certificates
from fieldsync.trust.statements import Assignment, Member, Revocation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.trust.identity import Organisation
    from fieldsync.trust.membership import Membership
    from fieldsync.trust.statements import Statement


def revoke(membership: Membership, root: Organisation, hub: str, *, stolen: bool = False, keep: bool = True) -> None:
    """Say by the root's key that a hub of that name or id is out; stolen: so is the key with which it admits devices.

    Then what it said of devices counts no more: have another one adopt them first. keep: what of the hub's changes is
    here counts, else none does. Any device that is not out can carry this to the others. IdentityError.
    """
    roll = membership.roll
    if root.id != membership.identity.organisation:
        raise IdentityError("that is another organisation's key")
    found = [one for one in roll.hubs() if hub in (one, roll.name(one))]
    if len(found) != 1:
        raise IdentityError(f"{'several hubs' if found else 'no hub'} of the name or id {hub!r}")
    out = [Revocation(found[0], membership.last_of(found[0]) if keep else ())]
    if stolen:
        out += [Revocation(one, ()) for one in roll.issuers() if roll.name(one) == roll.name(found[0])]
    membership.say_as(root.key, *out)


def adopt(membership: Membership, hub: str) -> list[str]:
    """Say at this hub what another one of that name said of devices, so that it counts without that one.

    Returns the ids of the devices. What was said by a key that is out counts for nothing already. IdentityError.
    """
    roll = membership.roll
    issuers = {one for one in roll.issuers() if roll.name(one) == hub}
    if not issuers:
        raise IdentityError(f"no hub of the name {hub!r} admits devices")
    said = [one.statement for one in membership.everything() if one.signer in issuers]
    devices = sorted({one.device for one in said if not roll.is_high(one.device)})
    membership.say(*(one for device in devices for one in _again(membership, device, issuers)))
    return devices


def _again(membership: Membership, device: str, issuers: set[str]) -> Iterator[Statement]:
    """All that counts of a device; its certificate anew, since its issuer's may go."""
    roll = membership.roll
    if (last := roll.revoked(device)) is not None:
        yield Revocation(device, last)
        return
    serial = roll.next_serial(device)
    if (member := roll.member(device)) is not None:
        public = certificates.public_key(certificates.decode(member.chain[0]))
        chain = membership.issuer().admit(public, member.name, membership.replica.wall_ms())
        yield Member(device, member.name, tuple(map(certificates.encode, chain)), serial)
    if (grant := roll.grant(device)) is not None:
        yield replace(grant, serial=serial)
    if scopes := sorted({scope for one in issuers for scope in roll.assigned_by(one, device)}):
        yield Assignment(device, tuple(scopes), serial)
