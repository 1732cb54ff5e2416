"""An organisation's hub and devices that talk in memory, on a clock that stands still, for tests of who may what."""

from __future__ import annotations

import ssl

from tests.talking import NOW_MS

from fieldsync.clock import now_ms
from fieldsync.database import Database
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore
from fieldsync.syncing.session import Session
from fieldsync.trust.certificates import encode
from fieldsync.trust.identity import Identity, Organisation, Peer
from fieldsync.trust.membership import membership_of
from fieldsync.trust.signing import public_of
from fieldsync.trust.statements import Member


def admit(hub, folder, name="ada", at_ms=None):
    """A device that this hub admits."""
    key = Identity.create_key(folder)
    chain = hub.issuer.admit(public_of(key), name, at_ms or now_ms())
    return Identity.create(folder, chain, hub.root, [])


def shake(server, client):
    """A handshake in memory, and a word each way; both ends as TLS objects. An ssl.SSLError where either refuses."""
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(*pipes, server_side=True),
        client.wrap_bio(*reversed(pipes), server_side=False),
    ]
    waiting = [1, 0]
    while waiting:
        for end in list(waiting):
            try:
                ends[end].do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    for one, other in (ends, ends[::-1]):
        one.write(b"word")
        assert other.read(4) == b"word"
    return ends


class Node:
    """A device with its database, whose clock stands still until it is set."""

    def __init__(self, identity, path, *, hub=False):
        self.identity = identity
        self.now_ms = NOW_MS
        replica = Replica(SQLiteStore(path, full=False), takes_all=hub, wall_ms=lambda: self.now_ms)
        self.db = Database(replica)
        self.membership = membership_of(replica, identity)

    @property
    def peer(self):
        return Peer(self.identity.device, self.identity.name, self.identity.is_hub)

    @property
    def device(self):
        return self.identity.device

    def write(self, scope, key, **fields):
        with self.db.write() as tx:
            tx.create("notes", scope=scope, key=key, **fields)

    def keys(self, scope):
        return sorted(row.key for row in self.db["notes"].where(scope=scope))

    def digests(self):
        return {held.name: held.digest for held in self.db.scopes()}


class Members:
    """An organisation of one hub, and of devices as they are asked for; all files are closed at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.organisation = Organisation.create(folder / "org", "Acme", NOW_MS)
        self.nodes = []
        self.hub = self.add(self.organisation.create_hub(folder / "hub", "office", NOW_MS), hub=True)

    def add(self, identity, hub=False):
        node = Node(identity, self.folder / f"{identity.name}.db", hub=hub)
        self.nodes.append(node)
        return node

    def device(self, name, **rights):
        """A device that was admitted, and knows what the hub says of it."""
        node = self.add(admit(self.hub.identity, self.folder / name, name, NOW_MS))
        chain = tuple(map(encode, node.identity.chain))
        self.hub.membership.say(Member(node.device, name, chain, 1))
        if rights:
            self.hub.membership.grant(node.device, **rights)
        sync(node, self.hub)
        return node

    def second_hub(self, name):
        """A hub beside the first, which it has not met."""
        return self.add(self.organisation.create_hub(self.folder / name, name, NOW_MS), hub=True)

    def check(self, but=""):
        """Nothing is wrong with the files, except perhaps with those of one."""
        for node in self.nodes:
            assert node.identity.name == but or node.db.verify().faults == [], node.identity.name

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for node in self.nodes:
            node.db.close()


def between(one, other, **options):
    """The two sides of a session of two who proved who they are."""
    trusts = one.membership.trust(other.peer), other.membership.trust(one.peer)
    return (
        Session(one.db.replica, initiator=True, peer="there", trust=trusts[0], **options),
        Session(other.db.replica, initiator=False, trust=trusts[1]),
    )


def converse(sides, deliver):
    """Let two sides talk to the end; gives all frames as they were delivered."""
    frames, turn, idle = [], 0, 0
    try:
        while idle < 2:
            frame = sides[turn].next_frame()
            if frame is None:
                turn, idle = 1 - turn, idle + 1
                continue
            idle = 0
            frames.append(deliver(turn, frame))
            sides[1 - turn].receive(frames[-1])
    finally:
        for side in sides:
            side.close()
    return frames


def sync(one, other, deliver=lambda turn, frame: frame, **options):
    """A session; the reports of both, and all frames."""
    sides = between(one, other, **options)
    frames = converse(sides, deliver)
    return sides[0].report, sides[1].report, frames


def told(report):
    """What was refused: scope, why, and whether it is of this side's."""
    return sorted((one.scope, one.code, one.is_ours) for one in report.refusals)
