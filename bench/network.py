"""An organisation, for topics of a network: a hub, and devices that it admitted, with real keys and certificates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.peers import Fieldsync
from fieldsync.trust.enrolment import answer, enrol, invite
from fieldsync.trust.identity import Organisation
from fieldsync.trust.membership import membership_of

if TYPE_CHECKING:
    from pathlib import Path

    from fieldsync.trust.identity import Identity


class Member(Fieldsync):
    """A replica in a folder of its own, made if there is none, that proves who it is."""

    def __init__(self, folder: Path, identity: Identity, *, hub: bool = False, scopes: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, hub=hub, scopes=scopes)
        self.identity = identity


def found(folder: Path) -> Identity:
    """Found an organisation; the identity of its hub."""
    now_ms = int(time.time() * 1000)
    return Organisation.create(folder / "root", "Bench", now_ms).create_hub(folder / "hub-keys", "hub", now_ms)


def admit(hub: Member, folder: Path, name: str) -> Identity:
    """Enrol a device with a hub, which lets it read and write everything."""
    membership = membership_of(hub.db.replica, hub.identity)
    code = invite(membership, name, "nowhere", seconds=600, write=["*"]).code
    return enrol(code, folder / f"{name}-keys", lambda _, request: answer(membership, request))
