"""Keeping a replica in sync, in an event loop: does what the agenda says, and tells it what came of that."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fieldsync.errors import ConnectionFailed, IdentityError
from fieldsync.limits import CONNECT_SECONDS_MAX, PROBE_SECONDS, RETRY_SECONDS_MAX, STANDBY_SECONDS, TICK_SECONDS
from fieldsync.network.agenda import Agenda, Begin, Dial, Phase
from fieldsync.network.line import Line
from fieldsync.network.lines import Lines
from fieldsync.network.server import Listener
from fieldsync.network.spending import Spending
from fieldsync.network.standby import Place
from fieldsync.network.status import PeerStatus, Status
from fieldsync.network.wire import code_of, dial, failures, local_addresses, peer_of
from fieldsync.syncing.session import Session
from fieldsync.trust.rights import Reason, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fieldsync.network.agenda import Budget
    from fieldsync.network.discovery import Discovery
    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report
    from fieldsync.trust.identity import Identity

log = logging.getLogger("fieldsync")


def clock() -> float:
    """Seconds that never go back, and that go on while the device sleeps, where the system counts those."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep a replica in sync with."""

    hub: str | None = None  # an address
    peers: tuple[str, ...] = ()  # addresses
    listen: tuple[str, int] | None = None  # where to accept connections
    lan: bool = False  # announce that, and look for others
    identity: Identity | None = None
    budget: Budget | None = None


@dataclass(slots=True)
class _Link:
    """A peer that this side may dial."""

    addresses: list[str]
    is_named: bool = False  # in the plan; else it was announced
    device: str = ""  # who was there, as soon as that is known
    line: Line | None = None
    failed: Exception | None = None  # what ended the session that ended the line


@dataclass(slots=True)
class _Moment:
    """By what a sleep, a set clock or another network is noticed."""

    at: float = field(default_factory=clock)
    offset: float = field(default_factory=lambda: time.time() - clock())  # of the wall clock
    network: list[str] = field(default_factory=local_addresses)

    def differs(self, before: _Moment) -> bool:
        slept = self.at - before.at > 2 * TICK_SECONDS or abs(self.offset - before.offset) > TICK_SECONDS
        return slept or self.network != before.network


class Keeper:
    """The links of one replica, kept until told to stop."""

    def __init__(self, replica: Replica, plan: Plan, on_change: Callable[[], object]) -> None:
        """on_change: called in the loop when the status may have changed; it does not wait."""
        self.port: int | None = None  # on which connections are accepted
        self._replica = replica
        self._plan = plan
        self._identity = plan.identity
        self._on_change = on_change
        self._agenda = Agenda(random.random)
        self._lines = Lines(replica, plan.identity.device if plan.identity is not None else None)
        self._links: dict[str, _Link] = {}
        self._roll: object = None  # by which this device holds what it is to hold
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._discovery: Discovery | None = None
        self._looking = asyncio.Lock()
        self._place = Place(replica.store.path)
        self._is_standing_by = False
        self._blocked = ""  # why this one cannot work in the place of an agent that has ended
        self._spending = Spending(replica, plan.budget, clock)
        for address in filter(None, (plan.hub, *plan.peers)):
            self._links[address] = _Link([address], is_named=True)
            self._agenda.see(address, clock(), is_urgent=address == plan.hub)

    # --- from outside ---

    async def keep(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Listen, look for peers, and sync, until told to stop; not before another agent of the same file ends."""
        try:
            while not stop.is_set():
                try:
                    self._blocked = ""
                    if self._place.take():
                        return await self._live(ready, stop)
                except OSError as error:  # a port that is taken is told at once, or else may be free before long
                    if not self._is_standing_by:
                        raise
                    self._place.leave()  # to one that needs no such port
                    self._blocked = str(error)
                self._is_standing_by = True
                ready()
                self._on_change()
                with suppress(TimeoutError):
                    async with asyncio.timeout(STANDBY_SECONDS):
                        await stop.wait()
        finally:
            self._place.leave()

    async def _live(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            if self._plan.listen is not None:
                listener = Listener(self._replica, self._lines, self._identity)
                listener.on_line, listener.on_session = self._on_line, self._on_session
                self.port = await stack.enter_async_context(listener.listen(*self._plan.listen))
            stack.push_async_callback(self._end)
            self._is_standing_by = False
            await self._spending.resume()
            self._spawn(self._spending.remember())
            self._spawn(self._lines.spread())
            ready()
            self._spawn(self._discover())
            await self._work(stop)

    def wake(self) -> None:
        """Try all peers again at once, and see which links still stand."""
        self._agenda.wake()
        for line in self._lines:
            self._spawn(line.probe(PROBE_SECONDS))
        self._stir()

    async def settle(self) -> None:
        """Try all peers, and wait until each of them has been synced with, or cannot be now."""
        asked = clock()
        self.wake()
        while not (self._is_standing_by or self._agenda.is_settled(asked)):
            await asyncio.sleep(0.02)

    async def status(self, pending: int) -> Status:
        """How things stand with each peer; pending: what waits for a hub."""
        now, wall = clock(), datetime.now(UTC)
        peers = [
            PeerStatus(
                self._label(name),
                one.phase.value,
                one.phase in (Phase.LINKED, Phase.BUSY),
                wall - timedelta(seconds=now - one.last_success) if one.last_success >= 0 else None,
                one.why_not,
                one.code,
            )
            for name, one in self._agenda.peers.items()
            if one.phase is not Phase.COVERED
        ]
        lan = self._discovery.why_not if self._discovery is not None else ""
        return Status(peers, pending, lan, self._is_standing_by, self._blocked)

    def _label(self, name: str) -> str:
        """What people call a peer: its address where they configured that, else the name of the device."""
        link = self._links.get(name)
        line = link.line if link is not None else self._lines.get(name)
        is_named = link is not None and link.is_named
        return name if is_named or line is None or line.peer is None else line.peer.name

    # --- the loop ---

    async def _work(self, stop: asyncio.Event) -> None:
        """Do what the agenda says, whenever something has happened or is due."""
        stopping = asyncio.create_task(stop.wait())
        moment = _Moment()
        while not stop.is_set():
            self._changed.clear()
            for decision in self._agenda.decide(clock()):
                self._spawn(self._connect(decision.peer) if isinstance(decision, Dial) else self._sync(decision))
            self._on_change()
            changing = asyncio.create_task(self._changed.wait())
            seconds = max(0.0, min(self._agenda.next_at() - clock(), TICK_SECONDS))
            await asyncio.wait({changing, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()
            before, moment = moment, _Moment()
            if moment.differs(before):
                self.wake()
                self._spawn(self._discover())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stir(self) -> None:
        self._changed.set()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._spending.write_down()
        if self._discovery is not None:
            await self._discovery.close()

    # --- peers on the local network ---

    async def _discover(self) -> None:
        """Announce this device and look for others; anew if the network has changed, or did not allow it."""
        if not self._plan.lan or self._identity is None or self.port is None:
            return
        from fieldsync.network.discovery import Discovery

        async with self._looking:  # which takes a while, and no work waits for it
            if self._discovery is not None:
                await self._discovery.close()
            for name in [name for name, link in self._links.items() if not link.is_named]:
                self._on_lost(name)  # who is here will be seen again, and nobody takes back what he announced elsewhere
            discovery = Discovery(self._identity.organisation, self.port, self._on_seen, self._on_lost)
            self._discovery = discovery
            await discovery.start()
            self._stir()
        if discovery.why_not:
            await asyncio.sleep(RETRY_SECONDS_MAX)
            if self._discovery is discovery:
                self._spawn(self._discover())

    def _on_seen(self, name: str, addresses: list[str]) -> None:
        self._agenda.see(name, clock())
        if name in self._agenda.peers:
            self._links.setdefault(name, _Link([])).addresses = addresses
        self._stir()

    def _on_lost(self, name: str) -> None:
        self._agenda.lose(name)
        self._tidy(name)
        self._stir()

    def _tidy(self, name: str) -> None:
        if name not in self._agenda.peers:
            self._links.pop(name, None)

    # --- connections of others ---

    def _on_line(self, line: Line, is_open: bool) -> None:
        """A peer has connected to this device, or is gone."""
        device = _device(line)
        if is_open:
            self._agenda.link_up(device, is_ours=False)
        elif (other := self._lines.get(device)) is None or other.is_dialer:
            self._agenda.link_down(device, clock())
            self._uncover()
        self._stir()

    def _on_session(self, line: Line, error: BaseException | None) -> None:
        """A session that a peer began is over."""
        if error is None:
            self._agenda.session_over(_device(line), clock())
            self._tell_lapsed(_device(line), line)
            self._stir()

    # --- devices with several names ---

    def _is_double(self, name: str, link: _Link) -> bool:
        """Whether a device has a line, or is being dialled, by another name."""
        ways = [other for other, one in self._links.items() if one.device == link.device and other != name]
        is_dialled = any(self._agenda.phase(other) is Phase.DIALLING for other in ways)
        return bool(link.device) and (is_dialled or self._lines.has(link.device))

    def _uncover(self) -> None:
        """Something ended: names that stood back for it may be dialled."""
        for name, link in list(self._links.items()):
            if self._agenda.phase(name) is Phase.COVERED and not self._is_double(name, link):
                self._agenda.uncover(name, clock())
                self._tidy(name)

    # --- own connections ---

    async def _connect(self, name: str) -> None:
        """Connect to a peer, and keep the line until it ends."""
        link, line = self._links[name], None
        failed: Exception | None = None
        if not link.is_named and self._is_double(name, link):
            self._agenda.cover(name)
            self._tidy(name)
            return
        try:
            line = await self._reach(name, link)
            link.device = _device(line)
            if await self._lines.add(line):
                link.line = line
                self._agenda.link_up(name, is_ours=True)
                self._stir()
                await line.run()
        except failures() as error:
            failed = error
        finally:
            failed, link.line, link.failed = link.failed or failed, None, None
            self._disconnect(name, line, failed)

    def _disconnect(self, name: str, line: Line | None, failed: Exception | None) -> None:
        """A line ended, or was not made; or another line to the same device counts."""
        if line is not None:
            self._lines.remove(line)
        if line is not None and self._lines.has(_device(line)):
            self._agenda.cover(name)
        else:
            why_not = (str(failed) or type(failed).__name__, code_of(failed)) if failed is not None else ("", "")
            self._agenda.link_down(name, clock(), *why_not)
        self._tidy(name)
        self._uncover()
        self._stir()

    async def _reach(self, name: str, link: _Link) -> Line:
        """A line to a peer, over the first of its addresses that answers."""
        failed: Exception = ConnectionFailed("no address is known", code=Reason.UNREACHABLE)
        for address in link.addresses:
            try:
                connection = await dial(address, self._identity, seconds=CONNECT_SECONDS_MAX)
            except failures() as error:
                failed = error
                continue
            try:
                peer = peer_of(connection, self._identity)
                if peer is not None and self._identity is not None and peer.device == self._identity.device:
                    raise IdentityError(tell(Reason.OWN_DEVICE), code=Reason.OWN_DEVICE)
                if peer is not None and name == self._plan.hub and not peer.is_hub:
                    raise IdentityError(tell(Reason.NO_HUB), code=Reason.NO_HUB)
            except failures():
                await connection.close()
                raise
            return Line(connection, on_news=lambda: self._on_news(name), on_over=self._on_over, peer=peer)
        raise failed

    def _on_news(self, name: str) -> None:
        self._agenda.news(name)
        self._stir()

    async def _on_over(self, line: Line, session: Session, error: BaseException | None) -> None:
        if error is None:
            await self._lines.catch_up(line, session.report)

    async def _sync(self, decision: Begin) -> None:
        """Hold one session with a peer over its line."""
        name, link = decision.peer, self._links.get(decision.peer)
        line = link.line if link is not None else None
        if link is None or line is None:
            return  # it ended meanwhile, and the agenda knows
        try:
            session = await asyncio.to_thread(self._session, name, line)
            pay = self._spending.meter()
            try:
                report = await line.sync(session, pay)
            finally:
                pay(session.report)
                await self._spending.write_down()
            await asyncio.to_thread(self._obey)
        except Exception as error:
            if link.line is line:  # else the line ended first, and told why
                link.failed = error
            if not isinstance(error, failures()):
                log.exception("a session failed")
            await line.close()
        else:
            self._after(name, link, line, report)
            self._stir()

    def _after(self, name: str, link: _Link, line: Line, report: Report) -> None:
        """A session ended well, or because it was enough."""
        budget = self._plan.budget
        if budget is not None and not report.complete:
            self._agenda.rest(name, budget.renewed_at, tell(Reason.BUDGET_USED), Reason.BUDGET_USED)
        elif link.line is line:  # and not another one that was made since
            is_partial, is_crowded = bool(report.apart), bool(report.superseded)
            self._agenda.session_over(name, clock(), is_partial=is_partial, is_crowded=is_crowded)
            self._tell_lapsed(name, line)
            refused = next((one for one in report.refusals if one.is_ours), None)
            if refused is not None and not line.lapsed:
                self._agenda.note(name, str(refused), refused.code)

    def _tell_lapsed(self, name: str, line: Line) -> None:
        """A session with somebody who may be told nothing, or may tell nothing here, went well and brought nothing."""
        if line.lapsed:
            self._agenda.note(name, line.lapsed, Reason.EXPIRED)

    def _obey(self) -> None:
        """Hold what this device is to hold by now, and show the latest certificate from the next connection on."""
        if self._identity is None:
            return
        from fieldsync.trust.membership import membership_of

        membership = membership_of(self._replica, self._identity)
        if (roll := membership.roll) is not self._roll:
            self._roll = roll
            self._replica.announce(membership.follow())
            self._identity = membership.renewed()

    def _session(self, name: str, line: Line) -> Session:
        trust = self._lines.prepare(line, self._identity)
        return Session(self._replica, initiator=True, peer=name, enough=self._spending.enough(), trust=trust)


def _device(line: Line) -> str:
    """Under which name a line is known whose peer was not dialled by name."""
    return line.peer.device if line.peer is not None else f"connection {id(line):x}"
