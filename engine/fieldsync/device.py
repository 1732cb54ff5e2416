"""A device of the demo: a child process that holds one database and does what its parent says, a line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import fieldsync
from fieldsync.errors import SyncError

if TYPE_CHECKING:
    from pathlib import Path

    from fieldsync.websocket import Server

Edits = list[tuple[str, dict[str, Any]]]  # (key, fields)


class Device:
    """The parent's handle: each method is done in the child, and gives what it answers."""

    def __init__(self, name: str, path: Path, *, hub: bool = False) -> None:
        self.name = name
        self._url: str | None = None
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and this module
            [sys.executable, "-m", "fieldsync.device", str(path), "hub" if hub else "device"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

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

    def delete(self, collection: str, scope: str, keys: list[str]) -> None:
        """Delete records, in one transaction."""
        self._ask(do="delete", collection=collection, scope=scope, keys=keys)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(timeout=30)


class _Child:
    """The child's side."""

    def __init__(self, database: fieldsync.Database) -> None:
        self._database = database
        self._server: Server | None = None

    def do(self, order: dict[str, Any]) -> Any:
        """Carry out one order."""
        return getattr(self, f"_{order.pop('do')}")(**order)

    def _serve(self) -> str:
        self._server = fieldsync.serve(self._database)
        return self._server.url

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _sync(self, url: str, enter: list[str]) -> dict[str, Any]:
        self._database.enter(*enter)
        return dataclasses.asdict(self._database.sync(url))

    def _scopes(self) -> dict[str, Any]:
        return {held.name: {"records": held.records, "digest": held.digest} for held in self._database.scopes()}

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

    def _delete(self, collection: str, scope: str, keys: list[str]) -> None:
        with self._database.write() as tx:
            for key in keys:
                tx.delete(collection, key, scope=scope)

    def close(self) -> None:
        """Stop serving."""
        self._stop()


def main(path: str, role: str) -> None:
    """Do what comes in, until the parent closes the pipe."""
    with fieldsync.open(path, hub=role == "hub") as database:
        child = _Child(database)
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
