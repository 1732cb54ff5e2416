"""A database's place in its organisation: what its peers may do, and what this device says to the others.

While a Membership is attached to a replica, every author under which the file writes is vouched for by this device, in
the transaction that first uses the name. At a hub, who comes back is given a new lease before it runs out.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.errors import IdentityError, NotDelivered
from fieldsync.leaving import leave
from fieldsync.limits import GRANT_DAYS, MINTED_MAX, ROLL_LOOK_MS
from fieldsync.trust import certificates, control, statements, voiding
from fieldsync.trust.certificates import Role
from fieldsync.trust.control import Reading
from fieldsync.trust.grants import DeviceRights, FileRights, Roll
from fieldsync.trust.rights import CONTROL, Reason, Trust, tell
from fieldsync.trust.statements import Assignment, Author, Grant, Hub, Issuer, Member, Revocation
from fieldsync.trust.voiding import Undone
from fieldsync.trust.who import ORGANISATION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.trust.identity import Identity, IssuerKey, Peer
    from fieldsync.trust.statements import Signed, Statement
    from fieldsync.trust.voiding import VoidChanges

DAY_MS = 86_400_000
UNHEARD_MAX = 1_000  # renewals of a grant by hubs that have not heard of the next one


_lock = threading.Lock()


def membership_of(replica: Replica, identity: Identity) -> Membership:
    """The membership of a replica, which it keeps: it is of one device for as long as it is open. IdentityError."""
    with _lock:
        if replica.membership is None:
            replica.membership = Membership(replica, identity)
        if replica.membership.identity.device != identity.device:
            raise IdentityError("this database was opened as another device's")
        return replica.membership


class Membership:
    """One replica as one device of an organisation. Thread-safe."""

    def __init__(self, replica: Replica, identity: Identity) -> None:
        self.identity = identity
        self.replica = replica
        self._lock = threading.Lock()
        self._reading = Reading()
        self._said = [statements.read(data) for data in identity.said()]
        self._roll = Roll(identity.organisation, self._said)
        self._is_stale = True
        self._looked_ms = 0
        self._minted: list[bytes] = []
        self._mint = replica.mint
        replica.mint = self._remember
        replica.listeners.append(self._on_commit)
        replica.rights_of_files = FileRights(self._current)
        replica.may_write = self._may_write
        replica.vouch = self._vouch
        with replica.writing() as batch:
            self._begin(batch)

    def _remember(self) -> bytes:
        name = self._mint()
        self._minted.append(name)
        del self._minted[:-MINTED_MAX]
        return name

    def _may_write(self, author: bytes, scope: str) -> bool:
        return self._current().why_not_written(author, scope) is None

    def _on_commit(self, scopes: Collection[str]) -> None:
        """What was said may let more be shared than before: with whom, the lines that are open will see."""
        if CONTROL in scopes:
            self._is_stale = True
            with self.replica.store.reading() as reader:
                others = [scope.name for scope in reader.scopes() if scope.name != CONTROL]
            self.replica.announce(others)

    def _begin(self, batch: WriteBatch) -> None:
        """Hold the control scope, and vouch for the authors that are in use."""
        batch.writer.enter(CONTROL)
        if batch.writer.meta(ORGANISATION) != self.identity.organisation:
            batch.writer.set_meta(ORGANISATION, self.identity.organisation)
        if self.identity.issuer is not None:  # a device hears of it from the hub
            self._add(batch, [one.data for one in self._said])
        self._answer_for(batch, self._unanswered(batch.writer))

    def answer_for_others(self) -> None:
        """Answer for the authors under which other processes have written to this file, which have no identity."""
        with self.replica.store.reading() as reader:
            names = self._unanswered(reader)
        if names:
            with self.replica.writing() as batch:
                self._answer_for(batch, self._unanswered(batch.writer))

    def _unanswered(self, reader: SQLiteReader) -> list[bytes]:
        roll = self._look(reader)
        written = [scope for scope in reader.authored() if scope.name != CONTROL]
        names = [reader.dictionary.author(scope.author) for scope in written]
        own = [name for name in names if self.identity.device not in roll.devices_of(name)]
        if self.identity.issuer is not None:  # a hub answers for all that its operator let in
            own += [name for name in _authors(reader) if not roll.devices_of(name)]
        return list(dict.fromkeys(own))

    def _vouch(self, batch: WriteBatch) -> None:
        """Answer for the authors that this transaction was the first to use."""
        minted, self._minted = self._minted, []
        known = batch.writer.dictionary.author_ids
        self._answer_for(batch, [name for name in minted if name in known])

    def _answer_for(self, batch: WriteBatch, names: Iterable[bytes]) -> None:
        self._add(batch, [self._sign(Author(self.identity.device, name)) for name in names])

    def _sign(self, statement: Statement) -> bytes:
        return statements.sign(self.identity.key, statement)

    def _add(self, batch: WriteBatch, some: list[bytes]) -> None:
        if some:
            for news in control.add(batch.writer, some, self.identity.key, self.replica.wall_ms(), self._mint):
                batch.note(CONTROL, *news)

    # --- who is who ---

    @property
    def roll(self) -> Roll:
        """Who is who, by all that came here so far."""
        with self.replica.store.reading() as reader:
            return self._look(reader)

    def _current(self) -> Roll:
        """The same; of what other processes wrote it may know up to ROLL_LOOK_MS later."""
        now_ms = self.replica.wall_ms()
        if self._is_stale or abs(now_ms - self._looked_ms) >= ROLL_LOOK_MS:
            self._looked_ms = now_ms
            return self.roll
        return self._roll

    def _look(self, reader: SQLiteReader) -> Roll:
        with self._lock:
            self._is_stale = False
            if self._reading.changed(reader):
                self._roll = Roll(self.identity.organisation, [*self._reading.every, *self._said])
            return self._roll

    def trust(self, peer: Peer) -> Trust:
        """What a peer may do in a session. IdentityError where it may hold none. A hub first renews what runs out."""
        with suppress(IdentityError, OSError):  # one that does not fit, or cannot be kept, is no reason not to talk
            self.renewed()
        self.check_standing(peer)
        if self.identity.issuer is not None and not peer.is_hub:
            self.renew(peer.device)
        elif not peer.is_hub:
            self._bring_said()
        rights = DeviceRights(
            self._current,
            peer.device,
            self.replica.wall_ms,
            is_hub=peer.is_hub,
            to_hub=self.identity.issuer is not None,
            is_believed=self._is_believed(peer.device),
        )
        return Trust(is_hub=peer.is_hub, rights=rights, device=peer.device)

    def lapsed(self, peer: Peer) -> str:
        """Whose grant has run out, so that this device and a peer share nothing, and what to do; empty if nobody's."""
        if peer.is_hub or self.identity.is_hub:
            return ""  # a hub renews what has run out, unless that was final, and tells its refusals
        roll, now_ms = self.roll, self.replica.wall_ms()
        whose = ((self.identity.device, "this device's grant"), (peer.device, f"the grant of {peer.name}"))
        said = [name for device, name in whose if roll.has_lapsed(device, now_ms)]
        return f"{' and '.join(said)} ran out; a sync with a hub renews it" if said else ""

    def believe(self, device: str, seconds: int) -> None:
        """For so long, believe at this hub whatever a device says that it has. IdentityError where this is no hub.

        For people who know it: what others wrote, and cannot answer for any more, is so settled.
        """
        self.issuer()
        with self.replica.store.writing() as writer:
            writer.set_meta(f"believed {device}", self.replica.wall_ms() + 1000 * seconds)

    def _is_believed(self, device: str) -> bool:
        with self.replica.store.reading() as reader:
            return self.replica.wall_ms() < (reader.meta(f"believed {device}") or 0)

    def check_standing(self, peer: Peer) -> None:
        """IdentityError where a peer is out, or was admitted by who is out and by nobody else since."""
        roll, shown = self.roll, peer.certificate
        if roll.is_revoked(peer.device):
            raise IdentityError(f"{peer.name!r}: {tell(Reason.REVOKED)}", code=Reason.REVOKED)
        if shown is None or peer.is_hub or roll.member(peer.device) is not None:
            return
        if any(certificates.names_issuer(shown, public) for public in roll.fallen):
            raise IdentityError(f"{peer.name!r}: {tell(Reason.ISSUER_REVOKED)}", code=Reason.ISSUER_REVOKED)

    def _bring_said(self) -> None:
        """Who meets a device before any hub says himself what was said of him: else it is in the control scope."""
        with self.replica.store.reading() as reader:
            is_there = all(control.has(reader, one.data) for one in self._said)
        if not is_there:
            with self.replica.writing() as batch:
                self._add(batch, [one.data for one in self._said])

    def renewed(self) -> Identity:
        """The identity with the latest certificate that an issuer gave this device, which is kept in its folder."""
        member = self.roll.member(self.identity.device)
        if member is not None:
            chain = [certificates.decode(der) for der in member.chain]
            if chain[0].not_valid_after_utc > self.identity.chain[0].not_valid_after_utc:
                self.identity = self.identity.renew(chain)
        return self.identity

    def why_not_write(self, scope: str) -> Reason | None:
        """Why nobody would take what this device writes in a scope; None if they would, once they know of its grant."""
        if self.identity.is_hub:
            return None
        reason = self.roll.why_not_write(self.identity.device, scope, 0)
        return None if reason is Reason.UNKNOWN_DEVICE else reason

    def find(self, device: str) -> str:
        """The id of the one device of that name or id. IdentityError."""
        roll = self.roll
        found = [one for one in roll.devices() if device in (one, roll.name(one))]
        if len(found) != 1:
            what, which = ("several devices", f": {', '.join(found)}") if found else ("no device", "")
            raise IdentityError(f"{what} of the name or id {device!r}{which}; `fieldsync devices` shows all")
        return found[0]

    def said_of(self, device: str) -> list[bytes]:
        """What a new device begins with: who may say what, and what was said of it."""
        every = [*self.everything()]
        hubs = self._roll.hubs()  # whose certificates it needs, to seal something to them
        high = [
            one.data
            for one in every
            if isinstance(one.statement, Hub | Issuer)
            or (isinstance(one.statement, Member) and one.statement.device in hubs)
        ]
        return [*high, *(one.data for one in every if one.statement.device == device and one.data not in high)]

    def everything(self) -> list[Signed]:
        """All that was said and is here, whether it counts or not."""
        with self.replica.store.reading() as reader:
            self._look(reader)
        return self._reading.every

    # --- what a hub says ---

    def issuer(self) -> IssuerKey:
        """What this hub admits devices with. IdentityError where it is none."""
        if self.identity.issuer is None:
            raise IdentityError("only a hub says who may do what: it has the organisation's issuer key")
        return self.identity.issuer

    def say(self, *some: Statement) -> None:
        """Say something to all devices, as their issuer. IdentityError unless this is a hub."""
        self.say_as(self.issuer().key, *some)

    def say_as(self, key: Ed25519PrivateKey, *some: Statement) -> None:
        """Say something to all devices by a key that is at hand, such as the root's."""
        with self.replica.writing() as batch:
            self._add(batch, [statements.sign(key, one) for one in some])

    def grant(
        self,
        device: str,
        *,
        read: Iterable[str] = (),
        write: Iterable[str] = (),
        assign: Iterable[str] = (),
        days: int = GRANT_DAYS,
        renews: bool = True,
    ) -> Grant:
        """Say what a device may do from now on, in place of all that it was granted. See statements.Grant."""
        until_ms = self.replica.wall_ms() + days * DAY_MS
        serial = self.roll.next_serial(device) + UNHEARD_MAX  # above what a hub renews that has not heard of this one
        grant = Grant(device, tuple(read), tuple(write), tuple(assign), until_ms, days if renews else 0, serial)
        self.say(grant)
        return grant

    def renew(self, device: str) -> bool:
        """Give a device a new lease, or certificate, where less than half of its time is left; whether it did."""
        issuer, roll, now_ms = self.identity.issuer, self.roll, self.replica.wall_ms()
        grant, member = roll.grant(device), roll.member(device)
        some: list[Statement] = []
        serial = roll.next_serial(device)
        if grant is not None and grant.renew_days and grant.until_ms - now_ms < grant.renew_days * DAY_MS // 2:
            until_ms = now_ms + grant.renew_days * DAY_MS
            patterns = grant.read, grant.write, grant.assign
            some.append(Grant(device, *patterns, until_ms, grant.renew_days, serial))
        if issuer is not None and member is not None:
            old = certificates.decode(member.chain[0])
            if certificates.left_ms(old, now_ms) < certificates.LIFE_MS[Role.DEVICE] // 2:
                chain = issuer.admit(certificates.public_key(old), member.name, now_ms)
                some.append(Member(device, member.name, tuple(map(certificates.encode, chain)), serial))
        if some:
            self.say(*some)
        return bool(some)

    def revoke(self, device: str, *, keep: bool = True) -> Revocation:
        """Say that a device is out. keep: what of its changes is here counts; else none does.

        Void are, by that, the changes that are not here yet. IdentityError for a hub, which only the root revokes.
        """
        if self.roll.is_high(device):
            raise IdentityError("a hub is revoked by the root: name the folder where the organisation's key is kept")
        revocation = Revocation(device, self.last_of(device) if keep else ())
        self.say(revocation)
        return revocation

    def last_of(self, device: str) -> tuple[tuple[bytes, int], ...]:
        """Of each author for whom a device answers the last change of which anything is here, whatever it claimed."""
        roll, last = self.roll, dict[bytes, int]()
        with self.replica.store.reading() as reader:
            for scope in reader.scopes():
                some = [one for one in reader.context(scope.id).intervals() if device in roll.devices_of(one[0])]
                for change in reader.changes(scope.id, Context.of(some)):
                    author = reader.dictionary.author(change.author)
                    last[author] = max(change.seq, last.get(author, 0))
        return tuple(sorted(last.items()))

    def void(self) -> list[VoidChanges]:
        """What is here of changes that do not count, since their devices were revoked, scope by scope."""
        with self.replica.store.reading() as reader:
            return voiding.find(reader, self._look(reader))

    def undo_void(self) -> Undone:
        """Undo what can be undone of them, by writing; a hub does that. What is left is for people to look at."""
        self.issuer()
        undone = 0
        while True:
            with self.replica.writing() as batch:
                done = voiding.undo(batch, self._look(batch.writer))
            undone += done.undone
            if not done.undone:
                return Undone(undone, done.left)

    # --- which scopes a device is to hold ---

    def assign(self, device: str, scopes: Iterable[str]) -> Assignment:
        """Say which scopes a device is to hold, in place of what this one said before. It counts as far as granted."""
        assignment = Assignment(device, tuple(scopes), self.roll.next_serial(device))
        with self.replica.writing() as batch:
            key = self.identity.issuer.key if self.identity.issuer is not None else self.identity.key
            self._add(batch, [statements.sign(key, assignment)])
        return assignment

    def follow(self) -> set[str]:
        """Enter the scopes that this device is to hold, and leave those that it is to hold no longer; returns them.

        What it is to leave stays until a hub has all that is in it. Scopes that the app entered are the app's.
        """
        wanted = self.roll.assigned(self.identity.device)
        with self.replica.writing() as batch:
            writer = batch.writer
            before = set(filter(None, (writer.meta("assigned") or "").split("\n")))
            held = {scope.name: scope for scope in writer.scopes()}
            for name in wanted - held.keys():
                writer.enter(name)
            kept = {name for name in before - wanted if name in held and not self._leave(batch, name)}
            mine = (before & wanted) | (wanted - held.keys()) | kept
            writer.set_meta("assigned", "\n".join(sorted(mine)))
        return wanted

    def _leave(self, batch: WriteBatch, name: str) -> bool:
        scope = batch.writer.scope(name)
        assert scope is not None
        try:
            batch.note(name, leave(batch.writer, scope), Context())
        except NotDelivered:
            return False
        return True


def _authors(reader: SQLiteReader) -> list[bytes]:
    """All who wrote what is held, the control scope apart."""
    contexts = [reader.context(scope.id) for scope in reader.scopes() if scope.name != CONTROL]
    return [author for context in contexts for author, _, _ in context.intervals()]
