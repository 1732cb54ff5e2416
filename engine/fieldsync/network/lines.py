"""The open lines of one replica: at most one to each device; all hear of what changes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fieldsync.errors import ClosedError, FieldsyncError
from fieldsync.limits import PING_SECONDS, PROBE_SECONDS, WATCH_POLL_SECONDS
from fieldsync.network.logs import Sparing
from fieldsync.network.news import News, states
from fieldsync.network.wire import trust_of
from fieldsync.trust.rights import CONTROL, Reason

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

    from fieldsync.network.line import Line
    from fieldsync.network.news import States
    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.rights import Trust

log = logging.getLogger("fieldsync")
REPLACED = 4001  # the code with which a line is closed because the same two devices have another one


class Lines:
    """A registry. `spread` runs beside it and tells each line of news: a dialer begins a session, others are nudged."""

    def __init__(self, replica: Replica, device: str | None = None) -> None:
        """device: the own id, where peers have ids."""
        self._replica = replica
        self._device = device
        self._open: dict[object, Line] = {}  # by device; by line where it has no id
        self._commits: int | None = None  # of other processes, as of the last session
        self._news: News | None = None  # while they are spread
        self._lapsed = Sparing()
        self._aside: set[asyncio.Task[None]] = set()  # what takes a while where a peer is gone

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._open.values()))

    async def add(self, line: Line) -> bool:
        """Take a new line in, or close it: of two between the same devices one counts."""
        other = self._open.get(self._key(line))
        if other is not None and not self._wins(line, other):
            seconds = PING_SECONDS if other.is_busy else PROBE_SECONDS  # an answer waits behind what is being sent
            self._beside(other.probe(seconds))  # the peer may have lost it, and dialled anew for that
            await line.close(REPLACED, "another connection of these two devices is open")
            return False
        self._open[self._key(line)] = line
        if other is not None:
            self._beside(other.close(REPLACED, "another connection of these two devices took over"))
        return True

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def get(self, device: str) -> Line | None:
        """The line to a device, if one is open."""
        return self._open.get(device)

    def has(self, device: str) -> bool:
        """Whether a line to this device is open."""
        return device in self._open

    def remove(self, line: Line) -> None:
        """Forget a line that has ended."""
        if self._open.get(self._key(line)) is line:
            del self._open[self._key(line)]

    @staticmethod
    def _key(line: Line) -> object:
        return line.peer.device if line.peer is not None else line

    def _wins(self, line: Line, other: Line) -> bool:
        """Whether a new line replaces another one of the same devices; both ends judge alike."""
        if line.is_dialer == other.is_dialer or line.peer is None or self._device is None:
            return True  # who dials again has a reason: the older one is dead, or the device was seen anew
        dialler = self._device if line.is_dialer else line.peer.device
        return dialler == min(self._device, line.peer.device)

    async def close(self) -> None:
        """End all lines."""
        await asyncio.gather(*(line.close(1001, "going away") for line in self), return_exceptions=True)

    async def spread(self) -> None:
        """Tell of what changes, until cancelled."""
        news = self._news = News(self._replica)
        try:
            while True:
                try:
                    names = await news.next()
                    now = await asyncio.to_thread(states, self._replica, names)
                except ClosedError:
                    return
                except Exception as error:  # whatever it was: nobody would hear of anything any more
                    _warn(error)
                    await asyncio.sleep(WATCH_POLL_SECONDS)
                    news.add(None)
                else:
                    self._spread(names, now)
        finally:
            self._news = None
            news.close()

    def _spread(self, names: set[str] | None, now: States) -> None:
        for line in self:
            if line.is_busy or line.known is None:
                line.miss(names)  # what a session that is about to begin has read may be older
            else:
                self._tell(line, now)

    def prepare(self, line: Line, identity: Identity | None) -> Trust | None:
        """Before a session, in a thread: what the peer may do in it. IdentityError where it may hold none."""
        commits = self._replica.store.foreign_commits()
        if identity is not None and commits != self._commits:
            from fieldsync.trust.membership import membership_of

            self._commits = commits
            membership_of(self._replica, identity).answer_for_others()
        line.control = states(self._replica, [CONTROL])  # first: what comes between the two is news afterwards
        line.trust = trust_of(self._replica, identity, line.peer)
        self._note_lapsed(line, identity)
        return line.trust

    def _note_lapsed(self, line: Line, identity: Identity | None) -> None:
        """Where a grant has run out neither names a scope to the other: nobody is refused, so each sees by itself."""
        if identity is None or line.peer is None:
            return
        from fieldsync.trust.membership import membership_of

        before, line.lapsed = line.lapsed, membership_of(self._replica, identity).lapsed(line.peer)
        if line.lapsed and not before:
            fields = {"peer": line.peer.device, "code": str(Reason.EXPIRED)}
            self._lapsed.warn(f"nothing is synced with {line.peer.name}: {line.lapsed}", **fields)

    async def catch_up(self, line: Line, report: Report) -> None:
        """After a session: tell of what changed while it was held, and try again what was refused for want of news."""
        missed, line.missed = line.missed, set()
        line.was_refused = bool(report.refusals or line.lapsed)
        try:
            if line.was_refused and _knows_better(line, await asyncio.to_thread(states, self._replica, [CONTROL])):
                line.stir()
            elif missed is None or missed:
                self._tell(line, await asyncio.to_thread(states, self._replica, missed))
        except FieldsyncError as error:
            _warn(error)
            if self._news is not None:
                self._news.add(None)  # where it is tried again

    def _tell(self, line: Line, now: States) -> None:
        if line.known is None:
            return
        if _knows_better(line, now) or any(_may_hear(line, name) for name in line.known.lacks(now)):
            line.stir()


def _warn(error: Exception) -> None:
    is_known = isinstance(error, FieldsyncError)
    fields = {"error": str(error) or type(error).__name__}
    log.warning("news cannot be read", extra={"fields": fields}, exc_info=None if is_known else error)


def _knows_better(line: Line, now: States) -> bool:
    """Whether something was refused, and who they are and what they may is known better by now, from whomever."""
    return line.was_refused and CONTROL in now and now[CONTROL] != line.control.get(CONTROL)


def _may_hear(line: Line, scope: str) -> bool:
    """Who may not read a scope is not told that it changes; who is out shall hear of that."""
    return scope == CONTROL or line.trust is None or not line.trust.rights.why_not_read(scope)
