"""One session with a server, over a WebSocket of its own; for whoever can wait for its end."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fieldsync.errors import ConnectionFailed
from fieldsync.limits import IDLE_SECONDS_MAX, TURN_ASK_SECONDS, TURN_MS_MAX
from fieldsync.network.line import Line
from fieldsync.network.news import states
from fieldsync.network.wire import check_address, dial, failures, link_errors, peer_of, trust_of, websockets
from fieldsync.syncing.session import Session
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report
    from fieldsync.trust.identity import Identity

SUMMED = (
    *("bytes_sent", "bytes_received", "round_trips", "changes_sent", "changes_received", "changes_ahead"),
    *("records_changed", "mended"),
)


def connect(
    replica: Replica,
    address: str,
    *,
    scopes: list[str] | None = None,
    timeout: float = IDLE_SECONDS_MAX,
    progress: Callable[[Report], object] | None = None,
    enough: Callable[[Report], bool] | None = None,
    identity: Identity | None = None,
) -> Report:
    """Sync with a server. ConnectionFailed where there is no link, or it was cut; what had landed stays."""
    check_address(address, identity)
    websockets()
    outcome: list[Report | BaseException] = []

    async def hold(line: Line) -> Report:
        def make() -> Session:
            trust = trust_of(replica, identity, line.peer)
            return Session(replica, initiator=True, scopes=scopes, peer=address, enough=enough, trust=trust)

        before = await asyncio.to_thread(states, replica, [CONTROL])
        report = await line.sync(await asyncio.to_thread(make), progress)
        knows_more = before != await asyncio.to_thread(states, replica, [CONTROL])  # each, of who asks and who answers
        end = time.monotonic() + TURN_MS_MAX / 1000
        with suppress(*failures()):  # what was done stands
            while enough is None and (knows_more or (report.superseded and time.monotonic() < end)):
                await asyncio.sleep(0 if knows_more else TURN_ASK_SECONDS)
                report = _sum(report, await line.sync(await asyncio.to_thread(make), progress))
                knows_more = False
        return report

    def run() -> None:
        try:
            outcome.append(asyncio.run(_converse(address, identity, hold, timeout)))
        except BaseException as error:
            outcome.append(error)

    # a thread of its own: the caller may be inside an event loop
    thread = threading.Thread(target=run, name="fieldsync-sync")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


async def _converse(
    address: str,
    identity: Identity | None,
    hold: Callable[[Line], Awaitable[Report]],
    timeout: float,
) -> Report:
    began = time.perf_counter()
    try:
        connection = await dial(address, identity, seconds=timeout)
        line = Line(connection, idle_seconds=timeout, peer=peer_of(connection, identity))
        running = asyncio.create_task(line.run())
        try:
            report = await hold(line)
        finally:
            await line.close()
            await asyncio.gather(running, return_exceptions=True)
    except link_errors() as error:
        detail = str(error) or type(error).__name__
        raise ConnectionFailed(f"{address}: {detail}; what had landed is kept, sync again to go on") from None
    report.seconds = time.perf_counter() - began
    return report


def _sum(first: Report, last: Report) -> Report:
    """What two sessions did, one after the other."""
    for name in SUMMED:
        setattr(last, name, getattr(first, name) + getattr(last, name))
    return last
