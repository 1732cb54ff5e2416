"""A child process of the demo: holds one database and does what its parent says (device.py), a line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fieldsync
from fieldsync.device import notes_beside
from fieldsync.trust import enrolment
from fieldsync.trust.desk import Desk, ask
from fieldsync.trust.identity import Identity
from fieldsync.trust.membership import membership_of
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from fieldsync.device import Edits, Splices
    from fieldsync.network.agent import Agent
    from fieldsync.network.server import Server
    from fieldsync.trust.membership import Membership

INVITE_SECONDS = 600
LOCAL = "127.0.0.1"


class Note(fieldsync.Record, table="notes"):
    """What several write at once."""

    body: fieldsync.Text


class _Child:
    """What carries out the orders, each by the method of its name."""

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
            tx.delete(collection, *keys, scope=scope)

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
