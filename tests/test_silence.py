"""No byte of a record, nor its scope's name, reaches who may not read it: every frame of random histories is searched.

Grants name what scopes begin with; the rest of their names is a secret, as keys and values are. Searched is what
a peer can make of the frames: streams decompressed, and parts put together.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.members import Members, between, converse
from tests.talking import hands

from fieldsync.errors import DigestMismatch
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Declare, Eager, Part, Sketch, Stream
from fieldsync.trust.membership import DAY_MS

SCOPES = tuple(f"{start}-{secret}" for start, secret in (("east", "quince"), ("west", "medlar"), ("north", "sorbus")))
PATTERNS = ("east*", "west*", "north*")
LONG = 400  # characters of a value, now and then: what parts are made of


def secrets(scope):
    """What nobody may see who may not read a scope: what keys and values have in them, and the end of its name."""
    name = scope.partition("-")[2]
    return [f"<{name[::-1]}>".encode(), f"[{name.upper()}]".encode(), name.encode()]


def contents(message):
    """What a frame holds, as its taker reads it."""
    chunk = message.chunk if isinstance(message, Stream | Eager) else None
    return b"".join([*chunk.streams, *(name.encode() for name in chunk.collections)]) if chunk is not None else b""


class Listener:
    """Searches all that goes over a wire, frame by frame and put together."""

    def __init__(self, one, other):
        self.nodes = one, other
        self.bodies = [bytearray(), bytearray()]
        self.readable = [set(), set()]
        self.kinds = set()

    def __call__(self, turn, frame):
        giver, taker = self.nodes[turn], self.nodes[1 - turn]
        rights = giver.membership.trust(taker.peer).rights
        self.readable[turn] |= {scope for scope in SCOPES if not rights.why_not_read(scope)}
        message = messages.decode(frame)
        self.kinds.add(type(message).__name__)
        if isinstance(message, Part):
            self.bodies[turn] += message.data
        elif isinstance(message, Stream) and message.rest:
            self.search(turn, contents(Stream(0, messages.decode_chunk(bytes(self.bodies[turn]) + message.rest), True)))
            self.bodies[turn].clear()
        self.search(turn, frame)
        self.search(turn, contents(message))
        return frame

    def search(self, turn, data):
        for scope in set(SCOPES) - self.readable[turn]:
            is_named = scope in self.nodes[1 - turn].digests()  # who holds it has said its name first
            for secret in secrets(scope)[: 2 if is_named else 3]:
                assert secret not in data, (self.nodes[1 - turn].identity.name, scope)


RIGHTS = st.fixed_dictionaries(
    {"read": st.lists(st.sampled_from(PATTERNS), max_size=2), "write": st.lists(st.sampled_from(PATTERNS), max_size=2)}
)
NODES = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("write"), NODES, st.sampled_from(SCOPES)),
    st.tuples(st.just("delete"), NODES, st.sampled_from(SCOPES)),
    *[st.tuples(st.just("sync"), NODES, NODES)] * 3,
    st.tuples(st.just("grant"), st.integers(1, 2), RIGHTS),
    st.tuples(st.just("trim"), NODES, st.none()),
    st.tuples(st.just("damage"), NODES, st.sampled_from(SCOPES)),
    st.tuples(st.just("later"), st.integers(1, 300), st.none()),
)


class History:
    """A hub and two devices to which anything happens."""

    def __init__(self, folder, rights):
        self.members = Members(folder)
        devices = [self.members.device(f"d{number}", **one) for number, one in enumerate(rights)]
        self.nodes = [self.members.hub, *devices]
        self.nodes[0].db.enter(*SCOPES)
        devices[0].db.enter(*SCOPES[:2])
        devices[1].db.enter(*SCOPES[1:])
        self.count = 0
        self.kinds = set()

    def write(self, who, scope):
        self.count += 1
        key, value, _ = (secret.decode() for secret in secrets(scope))
        text = value * (LONG // len(value) if self.count % 3 == 0 else 1)
        self.nodes[who].write(scope, f"{key}{self.count}", text=text)

    def delete(self, who, scope):
        for key in self.nodes[who].keys(scope)[:1]:
            with self.nodes[who].db.write() as tx:
                tx.delete("notes", key, scope=scope)

    def sync(self, one, other):
        if one != other:
            listener = Listener(self.nodes[one], self.nodes[other])
            with suppress(DigestMismatch):  # it has been tried as often as may be; another peer's word ends it
                converse(between(self.nodes[one], self.nodes[other]), listener)
            self.kinds |= listener.kinds

    def grant(self, who, rights):
        self.members.hub.membership.grant(self.nodes[who].device, **rights)

    def trim(self, who, _):
        self.nodes[who].db.trim(older_than=timedelta(0), keep=0)

    def damage(self, who, scope):
        """Its records are not those that its digest tells of: a session with an equal context mends that."""
        with hands(self.nodes[who].db) as db:
            db.execute("UPDATE fs_scope SET digest=randomblob(16) WHERE name=?", (scope,))

    def later(self, days, _):
        for node in self.nodes:
            node.now_ms += days * DAY_MS

    def close(self):
        for node in self.nodes:
            node.db.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rights=st.lists(RIGHTS, min_size=2, max_size=2), steps=st.lists(STEPS, min_size=5, max_size=30))
def test_who_may_not_read_learns_nothing(tmp_path_factory, rights, steps):
    history = History(tmp_path_factory.mktemp("silence"), rights)
    try:
        for what, *arguments in steps:
            getattr(history, what)(*arguments)
        for kind in history.kinds:
            event(kind)
    finally:
        history.close()


def full(folder):
    """A history that makes every kind of frame, with a device that may read east alone."""
    history = History(folder, [{"read": ["east*"], "write": []}, {"read": [], "write": ["east*", "west*"]}])
    for scope in SCOPES:
        for _ in range(12):
            history.write(0, scope)
    for node in (1, 2, 1, 2):
        history.sync(node, 0)
    for scope in SCOPES:
        history.write(0, scope)
        history.delete(0, scope)
    history.sync(1, 0)
    history.sync(1, 2)
    history.delete(0, SCOPES[0])
    history.trim(0, None)
    history.sync(1, 0)
    for _ in range(2):
        history.write(2, SCOPES[1])
        history.sync(2, 0)
    history.damage(0, SCOPES[0])
    for node in (1, 2):
        history.sync(node, 0)
    return history


def test_every_kind_of_frame_is_searched(tmp_path):
    history = full(tmp_path)
    assert history.nodes[1].keys(SCOPES[0])
    assert not history.nodes[1].keys(SCOPES[1])
    history.close()
    assert {kind.__name__ for kind in (Declare, Eager, Part, Sketch, Stream)} | {"Again", "Hello"} <= history.kinds


def test_the_search_notices(tmp_path, monkeypatch):
    """Without what keeps a scope from whoever may not read it, at the greeting and at each frame."""
    monkeypatch.setattr("fieldsync.syncing.greeting.Greeting._may_tell", lambda *_: True)
    monkeypatch.setattr("fieldsync.syncing.session.Session._check_may_hear", lambda *_: None)
    with pytest.raises(AssertionError):
        full(tmp_path)
