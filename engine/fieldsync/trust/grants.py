"""What all that was said comes to: who belongs to an organisation, and what each device may do.

A Roll is a function of a set of statements: in whatever order they came, it says the same. What nobody may have said
counts for nothing. Whether a change is taken does not depend on any clock: a grant that has run out, or was replaced by
a narrower one, ends what its device may bring and be told from then on, and voids nothing that was written under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.trust.rights import CONTROL, Reason
from fieldsync.trust.statements import Assignment, Author, Grant, Hub, Issuer, Member, Revocation, Signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def covers(patterns: Iterable[str], scope: str) -> bool:
    """Whether one of some patterns is a scope's name, or its beginning and a star. None covers the control scope."""
    if scope == CONTROL:
        return False
    return any(scope.startswith(one[:-1]) if one.endswith("*") else scope == one for one in patterns)


class Roll:
    """Who is who, by the statements that count."""

    def __init__(self, organisation: str, said: Iterable[Signed]) -> None:
        """organisation: the id of the root's key, which alone says who may say the rest."""
        self.organisation = organisation
        self._names: dict[str, str] = {}
        self._members: dict[str, Member] = {}
        self._grants: dict[str, list[Grant]] = {}
        self._authors: dict[bytes, set[str]] = {}
        self._revoked: dict[str, dict[bytes, int]] = {}
        # in an order of their own, so that ties end alike everywhere
        every = sorted(said, key=lambda one: one.data)
        by_root = [one.statement for one in every if one.signer == organisation]
        self._hubs = {one.device for one in by_root if isinstance(one, Hub)}
        out = {one.device for one in by_root if isinstance(one, Revocation)}
        self.fallen = {one.public for one in every if one.signer in out}  # keys by which something was said
        self._issuers = {one.device for one in by_root if isinstance(one, Issuer)} - out
        for one in every:
            self._note(one)
        self._assignments = [(one.signer, one.statement) for one in every if isinstance(one.statement, Assignment)]

    def _note(self, one: Signed) -> None:
        by_root = one.signer == self.organisation
        by_issuer = by_root or one.signer in self._issuers
        match one.statement:
            case Hub(device, name) | Issuer(device, name) if by_root:
                self._names[device] = name
            case Member() as member if by_issuer:
                if (known := self._members.get(member.device)) is None or member.serial >= known.serial:
                    self._members[member.device] = member
            case Grant() as grant if by_issuer:
                self._grants.setdefault(grant.device, []).append(grant)
            case Author(device, author) if by_issuer or one.signer == device:
                self._authors.setdefault(author, set()).add(device)
            case Revocation(device, last) if by_root or (by_issuer and not self.is_high(device)):
                self._revoke(device, dict(last))
            case _:
                pass  # said by who may not

    def _revoke(self, device: str, last: dict[bytes, int]) -> None:
        """Of several revocations the strictest counts, so that their order does not."""
        kept = self._revoked.get(device, last)
        both = last.keys() & kept.keys()
        self._revoked[device] = {author: min(last[author], kept[author]) for author in both}

    def is_high(self, device: str) -> bool:
        """Whether a key is a hub's, an issuer's or the root's, whose standing the root alone decides."""
        return device in self._hubs or device in self._issuers or device == self.organisation

    # --- who is who ---

    def name(self, device: str) -> str:
        """The name that people gave to a device; its id where nobody did."""
        member = self._members.get(device)
        return self._names.get(device) or (member.name if member is not None else device)

    def is_hub(self, device: str) -> bool:
        """Whether the root said that a device is a hub, and nobody that it is out."""
        return device in self._hubs and device not in self._revoked

    def hubs(self) -> list[str]:
        """All hubs that are not out."""
        return sorted(self._hubs - self._revoked.keys())

    def issuers(self) -> list[str]:
        """The keys that admit devices and are not out."""
        return sorted(self._issuers)

    def is_revoked(self, device: str) -> bool:
        """Whether a device is out."""
        return device in self._revoked

    def revoked(self, device: str) -> tuple[tuple[bytes, int], ...] | None:
        """What of the changes of a device that is out counts, as a Revocation says it; None if it is not out."""
        last = self._revoked.get(device)
        return None if last is None else tuple(sorted(last.items()))

    def member(self, device: str) -> Member | None:
        """The latest that was said of a device's name and certificate."""
        return self._members.get(device)

    def devices(self) -> list[str]:
        """All devices that anything was said of, hubs apart."""
        return sorted({*self._members, *self._grants} - self._hubs)

    def grant(self, device: str) -> Grant | None:
        """The grant that counts for a device now, whether it has run out or not."""
        return max(self._grants.get(device, []), key=lambda one: (one.serial, one.until_ms), default=None)

    def has_lapsed(self, device: str, now_ms: int) -> bool:
        """Whether the grant of a device has run out, and it may do nothing for that alone."""
        grant = self.grant(device)
        is_in = not (self.is_revoked(device) or self.is_hub(device))
        return is_in and grant is not None and now_ms > grant.until_ms

    # --- what a device may do now ---

    def why_not_read(self, device: str, scope: str, now_ms: int) -> Reason | None:
        """Why a device is not told of a scope; None if it is."""
        if self.is_revoked(device):
            return Reason.REVOKED
        if scope == CONTROL or self.is_hub(device):
            return None
        grant = self.grant(device)
        if grant is None:
            return Reason.NOT_GRANTED if device in self._members else Reason.UNKNOWN_DEVICE
        if not covers((*grant.read, *grant.write), scope):
            return Reason.NOT_GRANTED
        return Reason.EXPIRED if now_ms > grant.until_ms else None

    def why_not_write(self, device: str, scope: str, now_ms: int) -> Reason | None:
        """Why nothing is taken from a device in a scope; None if it is."""
        reason = self.why_not_read(device, scope, now_ms)
        if reason or scope == CONTROL or self.is_hub(device):
            return reason
        grant = self.grant(device)
        return None if grant is not None and covers(grant.write, scope) else Reason.READ_ONLY

    # --- what was written ---

    def why_not_written(self, author: bytes, scope: str) -> Reason | None:
        """Why a change under an author's name counts nowhere in a scope, whoever brings it; None if it does.

        It does if a device that answers for the author was ever granted to write there. Of several, one is enough.
        """
        devices = self._authors.get(author)
        if not devices:
            return Reason.UNKNOWN_AUTHOR
        may = any(
            device in self._hubs or any(covers(grant.write, scope) for grant in self._grants.get(device, []))
            for device in devices
        )
        return None if may else Reason.AUTHOR_NOT_GRANTED

    def devices_of(self, author: bytes) -> set[str]:
        """The devices that answer for an author."""
        return set(self._authors.get(author, ()))

    def answers_for(self, device: str, author: bytes) -> bool:
        """Whether a device answers for an author, and nobody else does who is not out."""
        return device in self._authors.get(author, ()) and not self.standing(author) - {device}

    def standing(self, author: bytes) -> set[str]:
        """The devices that answer for an author and are not out."""
        return {device for device in self._authors.get(author, ()) if device not in self._revoked}

    def last_counted(self, author: bytes) -> int | None:
        """The last change of an author that counts; None if all do. Of several devices, the most generous tells."""
        devices = self._authors.get(author)
        if not devices or any(device not in self._revoked for device in devices):
            return None
        return max(self._revoked[device].get(author, 0) for device in devices)

    # --- what a device is to hold ---

    def assigned(self, device: str) -> set[str]:
        """The scopes that a device is to hold: what each who may say so said last, together."""
        signers = {signer for signer, said in self._assignments if said.device == device}
        return {
            scope for signer in signers for scope in self.assigned_by(signer, device) if self._may_assign(signer, scope)
        }

    def assigned_by(self, signer: str, device: str) -> tuple[str, ...]:
        """The scopes that one key said last that a device is to hold, whether it may say so or not."""
        every = [said for by, said in self._assignments if by == signer and said.device == device]
        return max(reversed(every), key=lambda said: said.serial).scopes if every else ()

    def _may_assign(self, signer: str, scope: str) -> bool:
        if signer == self.organisation or signer in self._issuers or self.is_hub(signer):
            return True
        if self.is_revoked(signer):
            return False
        grant = self.grant(signer)  # the one that counts now, though it should have run out: no clock is asked
        return grant is not None and covers(grant.assign, scope)

    def next_serial(self, device: str) -> int:
        """A serial above all that were used of a device."""
        used = [grant.serial for grant in self._grants.get(device, [])]
        used += [said.serial for _, said in self._assignments if said.device == device]
        if device in self._members:
            used.append(self._members[device].serial)
        return max(used, default=0) + 1


class DeviceRights:
    """The rights of one device in a session, at each moment anew, as trust.Rights."""

    def __init__(
        self,
        roll: Callable[[], Roll],
        device: str,
        now_ms: Callable[[], int],
        *,
        is_hub: bool,
        to_hub: bool = False,
        is_believed: bool = False,
    ) -> None:
        """roll: who is who by now, which a session learns first. is_hub: its certificate says that it is one.

        to_hub: it is asked at a hub. is_believed: people said so (Membership.believe).
        """
        self._roll = roll
        self._device = device
        self._now_ms = now_ms
        self.knows_all = is_hub or is_believed
        self._is_hub = is_hub
        self._to_hub = to_hub

    def why_not_read(self, scope: str, /) -> Reason | None:
        """See Roll.why_not_read."""
        return self._of(self._roll().why_not_read(self._device, scope, self._now_ms()))

    def why_not_write(self, scope: str, /) -> Reason | None:
        """See Roll.why_not_write."""
        return self._of(self._roll().why_not_write(self._device, scope, self._now_ms()))

    def why_not_take(self, scope: str, author: bytes, /) -> Reason | None:
        """See Roll.why_not_written; the control scope has a proof of its own for each change."""
        return None if scope == CONTROL else self._roll().why_not_written(author, scope)

    def answers_for(self, author: bytes, /) -> bool:
        """See Roll.answers_for."""
        return self._roll().answers_for(self._device, author)

    def may_claim(self, author: bytes, /) -> bool:
        """A device for itself; at a hub each for those who are out, and cannot do so any more."""
        return self.answers_for(author) or (self._to_hub and not self._roll().standing(author))

    def _of(self, reason: Reason | None) -> Reason | None:
        return None if self._is_hub and reason is not Reason.REVOKED else reason


class FileRights:
    """The rights of whoever wrote a bundle, as trust.Rights: its changes count as their authors do."""

    knows_all = False

    def __init__(self, roll: Callable[[], Roll]) -> None:
        self._roll = roll

    def answers_for(self, _author: bytes, /) -> bool:
        """Who wrote it is not known."""
        return False

    def may_claim(self, _author: bytes, /) -> bool:
        """Who wrote it is not known."""
        return False

    def why_not_read(self, _scope: str, /) -> Reason | None:
        """Nothing is told to a file."""
        return None

    def why_not_write(self, _scope: str, /) -> Reason | None:
        """Who carries it is not known."""
        return None

    def why_not_take(self, scope: str, author: bytes, /) -> Reason | None:
        """See Roll.why_not_written."""
        return None if scope == CONTROL else self._roll().why_not_written(author, scope)
