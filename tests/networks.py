"""Organisations, hubs and devices for tests of networks: real certificates, real TLS, real sockets on this machine."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

import fieldsync as fs
from fieldsync.trust.enrolment import answer, enrol, invite
from fieldsync.trust.identity import Organisation
from fieldsync.trust.membership import membership_of

WAIT_SECONDS = 40  # for what happens in the background; nothing here measures how fast
POLL_SECONDS = 0.01


class Network:
    """An organisation with a hub, and devices as they are asked for; all files are closed at the end."""

    def __init__(self, folder, name="Acme"):
        self.folder = folder / name
        now_ms = int(time.time() * 1000)
        self.organisation = Organisation.create(self.folder / "root", name, now_ms)
        self.hub_identity = self.organisation.create_hub(self.folder / "hub", "office", now_ms)
        self._stack = ExitStack()
        self.hub = self.open("hub", hub=True)

    def open(self, name, **options):
        return self._stack.enter_context(fs.open(self.folder / f"{name}.db", durability="fast", **options))

    def admit(self, name, *, read=(), write=("*",)):
        """The identity of a new device, which enrols with the hub and may write that."""
        hub = membership_of(self.hub.replica, self.hub_identity)
        code = invite(hub, name, "nowhere", seconds=60, read=read, write=write).code
        return enrol(code, self.folder / name, lambda _, request: answer(hub, request))

    def device(self, name, *scopes):
        """A database that holds these scopes, and an identity."""
        database = self.open(name)
        database.enter(*scopes)
        return database, self.admit(name)

    def serve(self):
        return self._stack.enter_context(fs.serve(self.hub, identity=self.hub_identity))

    def stay(self, context):
        """Keep a context open until the end."""
        return self._stack.enter_context(context)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)


def fill(db, scope, *keys, **fields):
    with db.write() as tx:
        for key in keys:
            tx.create("notes", scope=scope, key=key, **fields)


def keys(db):
    return {(note.scope, note.key) for note in db["notes"]}


def agent_port():
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def eventually(holds):
    """Wait until something holds; gives what it gave."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(POLL_SECONDS)
    return pytest.fail("waited in vain")
