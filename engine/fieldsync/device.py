"""A device of the demo: a child process that holds one database and does what its parent says, a line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fieldsync
from fieldsync.errors import SyncError

if TYPE_CHECKING:
    from fieldsync.websocket import Server

Edits = list[tuple[str, dict[str, Any]]]  # (key, fields)


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
        """Close the file and end the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(timeout=30)

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

    def export(self, path: Path, scopes: list[str]) -> dict[str, Any]:
        """Write scopes into a bundle; the report as a dict."""
        report: dict[str, Any] = self._ask(do="export", path=str(path), scopes=scopes)
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

    def _export(self, path: str, scopes: list[str]) -> dict[str, Any]:
        return dataclasses.asdict(self._database.export(path, *scopes))

    def _import_bundle(self, path: str) -> dict[str, Any]:
        return dataclasses.asdict(self._database.import_bundle(path))

    def close(self) -> None:
        """Stop serving."""
        self._stop()


def notes_beside(path: str | Path) -> Path:
    """Where notes of a demo's files are kept: not in the user's home."""
    return Path(path).parent / "notes"


def main(path: str, role: str) -> None:
    """Do what comes in, until the parent closes the pipe."""
    with fieldsync.open(path, hub=role == "hub", notes=notes_beside(path)) as database:
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
