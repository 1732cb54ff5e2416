"""What changes in a replica while it is connected, and which peers should hear of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldsync.limits import NEWS_SCOPES_MAX, WATCH_POLL_SECONDS
from fieldsync.syncing import exchange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fieldsync.replica import Replica
    from fieldsync.store import Pair

States = dict[str, bytes | None]  # by scope; None where it is not held


class News:
    """The scopes that commits changed, of this process and of others that have the file open. In one event loop."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._names: set[str] | None = set()  # None: any
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._foreign = replica.store.foreign_commits()
        replica.listeners.append(self._listen)

    def _listen(self, scopes: Collection[str]) -> None:
        """Called in whichever thread commits."""
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self.add, list(scopes))

    def add(self, scopes: Collection[str] | None) -> None:
        """Note that these scopes have changed; None: any of them may have."""
        if self._names is not None and scopes is not None and len(self._names) + len(scopes) <= NEWS_SCOPES_MAX:
            self._names.update(scopes)
        else:
            self._names = None
        self._changed.set()

    async def next(self) -> set[str] | None:
        """Wait for changes; the scopes that have changed since this was asked last, None for any."""
        while not self._changed.is_set():
            try:
                async with asyncio.timeout(WATCH_POLL_SECONDS):  # wait_for of Python 3.11 may miss a cancellation
                    await self._changed.wait()
            except TimeoutError:
                self._look()
        self._changed.clear()
        names, self._names = self._names, set()
        return names

    def _look(self) -> None:
        """See whether another process has written."""
        now = self._replica.store.foreign_commits()
        if now is not None and now != self._foreign:
            self.add(None)
            self._foreign = now

    def close(self) -> None:
        """Listen no more."""
        self._replica.listeners.remove(self._listen)


def states(replica: Replica, names: Collection[str] | None) -> States:
    """The states of some scopes now, of all that are held if None."""
    with replica.store.reading() as reader:
        if names is None:
            return {scope.name: exchange.state_of(reader, scope).short() for scope in reader.scopes()}
        held = {name: reader.scope(name) for name in names}
        return {
            name: exchange.state_of(reader, scope).short() if scope is not None else None
            for name, scope in held.items()
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What the last session left a peer and this side with."""

    states: dict[str, bytes]  # of the scopes that the initiator named
    takes_more: bool  # whether another scope would be news, too

    @classmethod
    def after(cls, met: Pair, *, is_dialer: bool) -> Known:
        """A dialer may name more next time; a hub takes all."""
        return cls(dict(zip(met.names, met.each(), strict=True)), is_dialer or met.is_hub)

    def lacks(self, now: States) -> Iterator[str]:
        """The scopes of which the peer does not have the state that they are in now."""
        few = self.states if len(self.states) < len(now) else now
        for name in few:
            if now.get(name) is not None and now[name] != self.states.get(name, now[name]):
                yield name
        if self.takes_more:
            yield from (name for name, state in now.items() if state is not None and name not in self.states)
