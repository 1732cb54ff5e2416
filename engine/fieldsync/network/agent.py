"""A device's syncs in the background, for an app to embed: `agent = fs.Agent(db, hub=...)`, and `agent.close()`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from fieldsync.errors import ConnectionFailed, SyncError
from fieldsync.leaving import pending
from fieldsync.network.background import Background
from fieldsync.network.keeper import Keeper, Plan
from fieldsync.network.wire import check_address, websockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fieldsync.database import Database
    from fieldsync.network.agenda import Budget
    from fieldsync.network.status import Status
    from fieldsync.trust.identity import Identity

ANSWER_SECONDS = 30.0  # within which the agent's thread says how things stand


class Agent:
    """Keeps a database in sync with a hub and with peers, until closed. Thread-safe. Use as a context manager, too."""

    def __init__(
        self,
        database: Database,
        *,
        hub: str | None = None,
        peers: Iterable[str] = (),
        lan: bool = False,
        listen: tuple[str, int] | None = None,
        identity: Identity | None = None,
        budget: Budget | None = None,
        on_change: Callable[[], object] | None = None,
    ) -> None:
        """hub, peers: addresses to stay connected with. lan: find peers on the local network, and be found there.

        listen: the address and port on which peers are accepted; with lan ("", 0), which is any. budget: of bytes, for
        links that are dear. on_change: called, in a thread, when the status has changed. Without an identity only ws://
        on loopback addresses.
        """
        if lan and identity is None:
            raise SyncError("peers are found on the local network by devices with an identity: enroll this one first")
        for address in filter(None, (hub, *peers)):
            check_address(address, identity)
        websockets()
        plan = Plan(hub, tuple(peers), ("", 0) if lan and listen is None else listen, lan, identity, budget)
        self._database = database
        self._on_change = on_change
        self._telling: asyncio.Task[None] | None = None
        self._untold = False
        self._keeper: Keeper
        try:
            self._background = Background("fieldsync-agent", lambda background: self._live(background, plan))
        except OSError as error:
            raise ConnectionFailed(f"cannot accept connections on {plan.listen}: {error}") from None

    async def _live(self, background: Background, plan: Plan) -> None:
        self._keeper = Keeper(self._database.replica, plan, self._tell)
        await self._keeper.keep(background.ready, background.stop)

    @property
    def status(self) -> Status:
        """Peers, what waits to be delivered, the last success, and why not."""
        replica = self._database.replica
        with replica.store.reading() as reader:
            waiting = 0 if replica.takes_all else sum(pending(reader, scope).count() for scope in reader.scopes())
        return self._background.ask(self._keeper.status(waiting), ANSWER_SECONDS)

    @property
    def port(self) -> int | None:
        """On which peers are accepted, if they are."""
        return self._keeper.port

    def subscribe(self, *scopes: str, priority: int | None = None) -> None:
        """Hold these scopes from now on; they are filled at once where a peer is connected. See Database.enter."""
        self._database.enter(*scopes, priority=priority)

    def sync_now(self, deadline: float = 30.0) -> Status:
        """Try all peers at once, and wait until each has been synced with or cannot be; the status then.

        deadline: seconds after which nothing more is waited for, as in an app that is about to be suspended. What has
        landed stays, and the rest goes on when the app does.
        """
        with suppress(TimeoutError):
            self._background.ask(self._keeper.settle(), deadline)
        return self.status

    def network_changed(self) -> None:
        """Say that links have come or gone; without it the agent notices some seconds later."""
        self._background.call(self._keeper.wake)

    def close(self) -> None:
        """Stop. What has landed stays; a session that is being held is cut."""
        self._background.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self) -> None:
        """Tell the app that the status may have changed: not again before it has heard of the last time."""
        if self._on_change is None:
            return
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._call(self._on_change))
        else:
            self._untold = True

    async def _call(self, on_change: Callable[[], object]) -> None:
        self._untold = True
        while self._untold:
            self._untold = False
            await asyncio.to_thread(on_change)
