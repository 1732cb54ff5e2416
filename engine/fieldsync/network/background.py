"""An event loop in a thread of its own, so that what runs in it is embedded in any program by two lines."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fieldsync.errors import ClosedError
from fieldsync.limits import WORKERS_MAX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


class Background:
    """Runs one coroutine until `close`; what it raises before it says that it is ready is raised by the constructor."""

    def __init__(self, name: str, live: Callable[[Background], Awaitable[None]]) -> None:
        """live: awaited in the loop; it calls `ready` once, and ends soon after `stop` is set."""
        self.stop: asyncio.Event  # in the loop
        self._live = live
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
            if self._started.is_set():
                raise
        finally:
            self._started.set()

    async def _main(self) -> None:
        self.stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        # work at files, which asyncio.to_thread hands over, is done by so many threads and no more
        self._loop.set_default_executor(ThreadPoolExecutor(WORKERS_MAX, thread_name_prefix="fieldsync"))
        await self._live(self)

    def ready(self) -> None:
        """Let the constructor return."""
        self._started.set()

    @property
    def is_alive(self) -> bool:
        """Whether the coroutine still runs."""
        return self._thread.is_alive()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called in the loop soon; not at all after the end."""
        if self.is_alive:
            self._loop.call_soon_threadsafe(function, *arguments)

    def ask(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Wait for a coroutine in the loop; TimeoutError, with the coroutine cancelled. ClosedError."""
        if not self.is_alive:
            work.close()
            raise ClosedError("it was closed")
        done = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return done.result(seconds)
        except TimeoutError:
            done.cancel()
            raise

    def close(self) -> None:
        """Set `stop` and wait for the end."""
        if self.is_alive:
            self._loop.call_soon_threadsafe(self.stop.set)
            self._thread.join()
