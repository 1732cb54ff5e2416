"""A device of the demo: a child process that holds one database and does what its parent says, a line of JSON each.

Its keys are in a folder beside the database, of the same name without ".db": there from the start, or made by `enrol`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fieldsync
from fieldsync.errors import SyncError
from fieldsync.trust import enrolment
from fieldsync.trust.desk import Desk, ask
from fieldsync.trust.identity import Identity
from fieldsync.trust.membership import membership_of
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from fieldsync.network.agent import Agent
    from fieldsync.network.server import Server
    from fieldsync.trust.membership import Membership

END_SECONDS = 30
INVITE_SECONDS = 600
LOCAL = "127.0.0.1"
Edits = list[tuple[str, dict[str, Any]]]  # (key, fields)
Splices = list[tuple[int, int, str]]  # (where in a text, how many characters go, what comes)


class Note(fieldsync.Record, table="notes"):
    """What several write at once."""

    body: fieldsync.Text


class Device:
    """The parent's handle: each method is done in the child, and gives what it answers."""

    def __init__(self, name: str, path: Path, *, hub: bool = False) -> None:
        self.name = name
        self.path = path
        self._command = [sys.executable, "-m", "fieldsync.device", str(path), "hub" if hub else "device"]
        self.switch_on()

    def switch_on(self) -> None:
        """Begin a process that opens the file."""
        self._url: str | None = None
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and this module
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def switch_off(self) -> None:
        """Close the file and end the process; one that does not end in time is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SyncError(f"the process of {self.name} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise SyncError(f"{self.name}: {answer['error']}")
        return answer["value"]

    def invite(self, name: str, **rights: list[str]) -> str:
        """At a hub: a code with which a device can enrol. rights: patterns of scopes, by read, write and assign."""
        code: str = self._ask(do="invite", name=name, rights=rights)
        return code

    def enrol(self, code: str) -> str:
        """Become a device of the organisation; the name in the certificate."""
        name: str = self._ask(do="enrol", code=code)
        return name

    def try_to_enrol(self, code: str) -> str:
        """Ask for another identity by a code; the hub's refusal, empty if there is none."""
        refusal: str = self._ask(do="try_to_enrol", code=code)
        return refusal

    def start_agent(self, *, lan: bool = False, peer: str | None = None) -> int:
        """Sync in the background from now on; the port on which peers are accepted."""
        port: int = self._ask(do="start_agent", lan=lan, peer=peer)
        return port

    def stop_agent(self) -> None:
        """Sync in the background no longer."""
        self._ask(do="stop_agent")

    def agent_is_connected(self) -> bool:
        """Whether the agent is connected with anybody."""
        connected: bool = self._ask(do="agent_is_connected")
        return connected

    def agent_on_lan(self) -> str:
        """Why the agent cannot look for peers on the local network; empty if it can."""
        why_not: str = self._ask(do="agent_on_lan")
        return why_not

    def serve(self) -> str:
        """Listen for peers; the address."""
        if self._url is None:
            self._url = self._ask(do="serve")
        return self._url

    def stop_serving(self) -> None:
        """Be out of reach."""
        self._ask(do="stop")
        self._url = None

    def sync(self, url: str, enter: list[str] | None = None) -> dict[str, Any]:
        """Sync with a peer; the report as a dict."""
        report: dict[str, Any] = self._ask(do="sync", url=url, enter=enter or [])
        return report

    def scopes(self) -> dict[str, dict[str, Any]]:
        """The numbers of records and the digests of all scopes."""
        held: dict[str, dict[str, Any]] = self._ask(do="scopes")
        return held

    def keys(self, collection: str, scope: str, count: int) -> list[str]:
        """The first keys of a scope."""
        found: list[str] = self._ask(do="keys", collection=collection, scope=scope, count=count)
        return found

    def first_key(self, collection: str, scope: str) -> str:
        """The first key of a scope."""
        return self.keys(collection, scope, 1)[0]

    def read(self, collection: str, scope: str, key: str) -> dict[str, Any] | None:
        """The texts of a record's fields, or None."""
        found: dict[str, Any] | None = self._ask(do="read", collection=collection, scope=scope, key=key)
        return found

    def update(self, collection: str, scope: str, edits: Edits) -> None:
        """Set fields of records, in one transaction."""
        self._ask(do="update", collection=collection, scope=scope, edits=edits)

    def create(self, collection: str, scope: str, edits: Edits) -> None:
        """Create records, in one transaction."""
        self._ask(do="create", collection=collection, scope=scope, edits=edits)

    def edit_note(self, scope: str, key: str, splices: Splices) -> None:
        """Edit the text of a note, in one transaction."""
        self._ask(do="edit_note", scope=scope, key=key, splices=splices)

    def delete(self, collection: str, scope: str, keys: list[str]) -> None:
        """Delete records, in one transaction."""
        self._ask(do="delete", collection=collection, scope=scope, keys=keys)

    def move(self, collection: str, scope: str, key: str, to: str) -> None:
        """Ask for a record to be moved to another scope."""
        self._ask(do="move", collection=collection, scope=scope, key=key, to=to)

    def why(self, collection: str, key: str) -> str:
        """Why a record is here or is not."""
        text: str = self._ask(do="why", collection=collection, key=key)
        return text

    def trim(self) -> int:
        """Forget all removals that may be forgotten; how many changes that were."""
        count: int = self._ask(do="trim")
        return count

    def trash(self, scope: str) -> list[str]:
        """The keys of the records that went because a peer had them no more."""
        found: list[str] = self._ask(do="trash", scope=scope)
        return found

    def verify(self, *, repair: bool = False) -> dict[str, Any]:
        """Look at all of the file: how many faults there are, and how many records a repair leaves to be fetched."""
        report: dict[str, Any] = self._ask(do="verify", repair=repair)
        return report

    def leave(self, scope: str) -> None:
        """Hold a scope no longer, and lose what is only here."""
        self._ask(do="leave", scope=scope)

    def export(self, path: Path, scopes: list[str], readers: list[str]) -> dict[str, Any]:
        """Write scopes into a bundle, sealed to readers; the report as a dict."""
        report: dict[str, Any] = self._ask(do="export", path=str(path), scopes=scopes, readers=readers)
        return report

    def import_bundle(self, path: Path) -> dict[str, Any]:
        """Take a bundle in; the report as a dict."""
        report: dict[str, Any] = self._ask(do="import_bundle", path=str(path))
        return report

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()


class _Child:
    """The child's side."""

    def __init__(self, database: fieldsync.Database, folder: Path) -> None:
        """folder: of its keys."""
        self._database = database
        self._folder = folder
        self._identity: Identity | None = None
        self._server: Server | None = None
        self._desk: Desk | None = None
        self._agent: Agent | None = None
        if folder.exists():
            self._be(Identity.load(folder))

    def _be(self, identity: Identity) -> Membership:
        self._identity = identity
        return membership_of(self._database.replica, identity)

    def do(self, order: dict[str, Any]) -> Any:
        """Carry out one order."""
        return getattr(self, f"_{order.pop('do')}")(**order)

    def _invite(self, name: str, rights: dict[str, Any]) -> str:
        assert self._identity is not None
        member = self._be(self._identity)
        self._desk = self._desk or Desk(member, LOCAL)
        address = f"wss://{LOCAL}:{self._desk.port}"
        return enrolment.invite(member, name, address, seconds=INVITE_SECONDS, **rights).code

    def _enrol(self, code: str) -> str:
        self._be(identity := enrolment.enrol(code, self._folder, ask))
        return identity.name

    def _try_to_enrol(self, code: str) -> str:
        try:
            enrolment.enrol(code, self._folder.with_name(f"{self._folder.name}-again"), ask)
        except fieldsync.IdentityError as error:
            return str(error)
        return ""

    def _start_agent(self, lan: bool, peer: str | None) -> int | None:
        listen = None if lan else (LOCAL, 0)  # with lan any address
        peers = [peer] if peer else []
        self._agent = fieldsync.Agent(self._database, lan=lan, listen=listen, peers=peers, identity=self._identity)
        return self._agent.port

    def _stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _agent_is_connected(self) -> bool:
        return self._agent is not None and self._agent.status.is_connected

    def _agent_on_lan(self) -> str:
        return self._agent.status.lan if self._agent is not None else ""

    def _serve(self) -> str:
        self._server = fieldsync.serve(self._database, identity=self._identity)
        return self._server.url

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _sync(self, url: str, enter: list[str]) -> dict[str, Any]:
        self._database.enter(*enter)
        return dataclasses.asdict(self._database.sync(url, identity=self._identity))

    def _scopes(self) -> dict[str, Any]:
        return {
            held.name: {"records": held.records, "digest": held.digest}
            for held in self._database.scopes()
            if held.name != CONTROL
        }

    def _keys(self, collection: str, scope: str, count: int) -> list[str]:
        sql = f'SELECT key FROM "{collection}" WHERE scope=? ORDER BY key LIMIT ?'
        return [key for (key,) in self._database.sql(sql, (scope, count))]

    def _read(self, collection: str, scope: str, key: str) -> dict[str, str] | None:
        found = self._database[collection].get(key, scope=scope)
        return None if found is None else {name: str(value) for name, value in found.as_dict().items()}

    def _update(self, collection: str, scope: str, edits: Edits) -> None:
        with self._database.write() as tx:
            for key, fields in edits:
                tx.update(collection, key, scope=scope, **fields)

    def _create(self, collection: str, scope: str, edits: Edits) -> None:
        with self._database.write() as tx:
            for key, fields in edits:
                tx.create(collection, scope=scope, key=key, **fields)

    def _edit_note(self, scope: str, key: str, splices: Splices) -> None:
        with self._database.write() as tx:
            body = tx.get(Note, key, scope=scope).body
            for at, gone, come in splices:
                body[at : at + gone] = come

    def _delete(self, collection: str, scope: str, keys: list[str]) -> None:
        with self._database.write() as tx:
            for key in keys:
                tx.delete(collection, key, scope=scope)

    def _move(self, collection: str, scope: str, key: str, to: str) -> None:
        with self._database.write() as tx:
            tx.move(collection, key, scope=scope, to=to)

    def _why(self, collection: str, key: str) -> str:
        return str(self._database.why(collection, key))

    def _trim(self) -> int:
        return self._database.trim(older_than=timedelta(0), keep=0)

    def _trash(self, scope: str) -> list[str]:
        return [entry.key for entry in self._database.trash(scope=scope)]

    def _verify(self, repair: bool) -> dict[str, Any]:
        report = self._database.verify(repair=repair)
        return {"faults": report.fault_count, "left": len(report.left), "fetching": sum(report.fetching.values())}

    def _leave(self, scope: str) -> None:
        self._database.leave(scope, lose_pending=True)

    def _export(self, path: str, scopes: list[str], readers: list[str]) -> dict[str, Any]:
        return dataclasses.asdict(self._database.export(path, *scopes, identity=self._identity, readers=readers))

    def _import_bundle(self, path: str) -> dict[str, Any]:
        return dataclasses.asdict(self._database.import_bundle(path, identity=self._identity))

    def close(self) -> None:
        """Stop all that runs in the background."""
        self._stop_agent()
        self._stop()
        if self._desk is not None:
            self._desk.close()


def notes_beside(path: str | Path) -> Path:
    """Where notes of a demo's files are kept: not in the user's home."""
    return Path(path).parent / "notes"


def main(path: str, role: str) -> None:
    """Do what comes in, until the parent closes the pipe; Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("fieldsync").addHandler(logging.NullHandler())  # links end on purpose here
    with fieldsync.open(path, Note, hub=role == "hub", notes=notes_beside(path)) as database:
        child = _Child(database, Path(path).with_suffix(""))
        try:
            for line in sys.stdin:
                try:
                    answer = {"value": child.do(json.loads(line))}
                except (fieldsync.FieldsyncError, TypeError, ValueError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                print(json.dumps(answer), flush=True)
        finally:
            child.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
