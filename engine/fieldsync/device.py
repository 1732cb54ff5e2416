"""A device of the demo, as its parent has it: what it does is done in a child process (child.py).

Its keys are in a folder beside the database, of the same name without ".db": there from the start, or made by `enrol`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fieldsync.errors import SyncError

END_SECONDS = 30
Edits = list[tuple[str, dict[str, Any]]]  # (key, fields)
Splices = list[tuple[int, int, str]]  # (where in a text, how many characters go, what comes)


class Device:
    """The parent's handle: each method is done in the child, and gives what it answers."""

    def __init__(self, name: str, path: Path, *, hub: bool = False) -> None:
        self.name = name
        self.path = path
        self._command = [sys.executable, "-m", "fieldsync.child", str(path), "hub" if hub else "device"]
        self.switch_on()

    def switch_on(self) -> None:
        """Begin a process that opens the file."""
        self._url: str | None = None
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of this package
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


def notes_beside(path: str | Path) -> Path:
    """Where notes of a demo's files are kept: not in the user's home."""
    return Path(path).parent / "notes"
