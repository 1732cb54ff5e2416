"""The commands that sync: once, or until they are interrupted."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

import fieldsync
from fieldsync.cli.options import MaybeKeys, NewOrOld, identity_of
from fieldsync.cli.terminal import add, plain, say
from fieldsync.limits import GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

Port = typer.Option(min=0, max=65535, help="0 takes a free one.")
LOCAL = "127.0.0.1"


def register(app: typer.Typer) -> None:
    """Add these commands to others."""
    add(
        app,
        "Sync",
        (sync, "fieldsync sync --db field.db --scope job/7 ws://127.0.0.1:8765"),
        (agent, "fieldsync agent --db field.db --identity me --hub wss://hub.example.org:8765 --lan"),
        (serve, "fieldsync serve --db hub.db --identity hub --host '' --page 9464"),
    )


def sync(
    url: Annotated[str, typer.Argument(help="The peer's address, such as ws://127.0.0.1:8765.")],
    db: NewOrOld,
    scope: Annotated[list[str] | None, typer.Option(help="Enter this scope first; may be repeated.")] = None,
    only: Annotated[bool, typer.Option("--only", help="Sync the given scopes and no others.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds without progress before the link counts as cut.")] = 60,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Stop after so many bytes, both ways.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    identity: MaybeKeys = None,
) -> None:
    """Sync a database with a peer once. Where it stops before all is done, what landed stays, and the rest waits."""
    own = identity_of(identity)
    with fieldsync.open(db) as database:
        if scope:
            database.enter(*scope)
        report = database.sync(
            url,
            scopes=scope if only else None,
            timeout=timeout,
            max_bytes=max_bytes,
            max_seconds=max_seconds,
            identity=own,
        )
    say(
        f"{len(report.scopes)} scopes: {report.changes_received:,} changes received, {report.changes_sent:,} sent, "
        f"{report.bytes_received:,} bytes in, {report.bytes_sent:,} out, {report.round_trips} round trips, "
        f"{report.seconds:.2f} s"
    )
    if not report.complete:
        say("stopped by its budget; the next sync goes on from there", "yellow")
    if report.superseded:
        say(f"somebody else is bringing {', '.join(report.superseded)}; sync again for the rest", "yellow")
    if report.changes_ahead:
        say(f"{report.changes_ahead:,} changes are stamped ahead of this clock: one of the two is wrong", "yellow")
    if lacking := [refused.scope for refused in report.refusals if refused.code == "not-held"]:
        say(f"not held by the peer: {', '.join(lacking)}", "yellow")
    for refused in report.refusals:
        if refused.scope not in lacking:
            say(str(refused), "yellow")
    for mended in report.mended:
        say(f"damaged, {mended}", "yellow")


def serve(
    db: NewOrOld,
    port: Annotated[int, Port] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to listen at; all if empty. Without TLS loopback only.")
    ] = LOCAL,
    hub: Annotated[
        bool, typer.Option("--hub", help="Take every scope that a peer offers; remembered in the file.")
    ] = False,
    identity: MaybeKeys = None,
    page: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Show /healthz and /metrics on this port, to this machine only."),
    ] = None,
    admit: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Let devices enrol on this port that have a code.")
    ] = None,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for open sessions to end in, when it is stopped.")] = (
        GRACE_SECONDS
    ),
    json: Annotated[bool, typer.Option("--json", help="Log each session and each failure as a line of JSON.")] = False,
) -> None:
    """Serve a database to peers until interrupted. The file of an organisation's hub takes all scopes."""
    from fieldsync.network.hub import Hub

    own = identity_of(identity)
    stop = _stopping()
    with _logging(as_json=json), fieldsync.open(db, hub=hub or (own is not None and own.is_hub)) as database:
        served = Hub(
            database.replica,
            host,
            port,
            identity=own,
            page=None if page is None else (LOCAL, page),
            admit=None if admit is None else (host, admit),
        )
        try:
            say(f"serving {db} on {served.url}; Ctrl-C ends it")
            for what, where in (("its page is", served.page_url), ("devices enrol at port", served.admit_port)):
                if where is not None:
                    say(f"{what} {where}")
            sys.stdout.flush()
            stop.wait()
        finally:
            served.close(grace)
    say("stopped")


def agent(
    db: NewOrOld,
    identity: MaybeKeys = None,
    hub: Annotated[str | None, typer.Option(help="The hub's address, such as wss://hub.example.org:8765.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="The address of a peer; may be repeated.")] = None,
    lan: Annotated[bool, typer.Option("--lan", help="Find peers on the local network, and be found there.")] = False,
    listen: Annotated[int | None, typer.Option(min=0, max=65535, help="Accept peers on this port.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Sync with whoever can be reached, then end.")] = False,
    deadline: Annotated[float, typer.Option(min=0, help="Seconds after which --once waits no longer.")] = 60,
    bytes_a_day: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Begin no session once so many were used, for links that are dear; scopes of higher priority go "
            "first. Counted in the file, over all starts, without sessions that others begin.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Tell each status as a line of JSON, for an app to read.")
    ] = False,
) -> None:
    """Keep a database in sync in the background, beside the app that uses it, until interrupted."""
    stop, changed, told = _stopping(), threading.Event(), ""
    text = _as_json if json else str
    with (
        _logging(),
        fieldsync.open(db) as database,
        fieldsync.Agent(
            database,
            hub=hub,
            peers=peer or [],
            lan=lan,
            listen=None if listen is None else ("" if identity else LOCAL, listen),
            identity=identity_of(identity),
            budget=None if bytes_a_day is None else fieldsync.Budget(bytes_a_day),
            on_change=changed.set,
        ) as running,
    ):
        if once:
            status = running.sync_now(deadline)
            say(text(status))
            raise typer.Exit(1 if status.last_success is None else 0)
        while not stop.is_set():
            if (now := text(running.status)) != told:
                say(now)
                sys.stdout.flush()
                told = now
            changed.clear()
            while not (stop.wait(0.2) or changed.is_set()):
                pass
    if not json:
        say("stopped")


def _as_json(status: fieldsync.Status) -> str:
    """A status in one line, with what it comes to."""
    summary = {"is_connected": status.is_connected, "last_success": status.last_success}
    return dumps(
        {**summary, "why_not": status.why_not, "code": status.code, **asdict(status)},
        default=lambda at: at.isoformat(timespec="seconds"),
    )


def _stopping() -> threading.Event:
    """Set when the process is asked to end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


class _Lines(logging.Formatter):
    """What is logged, for a terminal: errors quote what peers have sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        return plain(super().format(record))


@contextmanager
def _logging(*, as_json: bool = False) -> Iterator[None]:
    """Log what fails; as JSON, each session too."""
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("fieldsync")
    handler.setFormatter(_Lines())
    if as_json:
        from fieldsync.network.hub import JsonLines

        handler.setFormatter(JsonLines())
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
