"""Watches: after a commit, tell those who asked what changed. Bounded queues; a slow watcher gets events coalesced."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fieldsync.limits import WATCH_POLL_SECONDS, WATCH_QUEUE_BYTES_MAX, WATCH_QUEUE_EVENTS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from fieldsync.apply import Touched
    from fieldsync.schema import BaseRecord

UNKNOWN: Final = (b"", b"")  # digests of no scope


class News(NamedTuple):
    """What a commit did, for watches to say what it means to them."""

    touched: list[Touched]
    digests: Mapping[str, tuple[bytes, bytes]]  # of scopes that it wrote in, before and after


class Event(NamedTuple):
    """What one commit, or several that came close together, did to the records of a watch."""

    created: list[BaseRecord]
    updated: list[BaseRecord]
    removed: list[tuple[str, str]]  # (scope, key)

    def __bool__(self) -> bool:
        return bool(self.created or self.updated or self.removed)


class Watch:
    """One watcher: turns touched keys into events and hands them to its callback, one at a time, until closed."""

    def __init__(
        self, hub: Watches, describe: Callable[[News], Event], callback: Callable[[Event], object], via: Any
    ) -> None:
        self._hub = hub
        self._describe = describe
        self._callback = callback
        self._via = via
        self._pending: deque[News] = deque()
        self._bytes = 0  # of the records that these hold
        self._lock = threading.Lock()
        self._scheduled = False
        self._closed = False

    def push(self, news: News, size: int) -> None:
        """Queue a commit, with records of so many bytes. Past a bound, all becomes one, and records are read again."""
        with self._lock:
            self._pending.append(news)
            self._bytes += size
            if len(self._pending) > WATCH_QUEUE_EVENTS_MAX or self._bytes > WATCH_QUEUE_BYTES_MAX:
                every, digests = _as_one(self._pending)
                self._pending = deque([News([one._replace(packed=b"") for one in every], digests)])
                self._bytes = 0

    def run(self) -> None:
        """Hand over what is queued, unless that has been scheduled already."""
        with self._lock:
            if self._closed or self._scheduled or not self._pending:
                return
            self._scheduled = True
        if self._via is not None:
            self._via(self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._pending:
                    self._scheduled = False
                    return
                news = _as_one(self._pending)  # a record that came and went unseen is no news
                self._pending.clear()
                self._bytes = 0
            try:
                event = self._describe(news)
                if event:
                    self._callback(event)
            except Exception:
                import logging  # which takes as long to load as much of this package

                logging.getLogger("fieldsync").exception("a watch's callback failed")

    def close(self) -> None:
        """Stop; no callback begins after this."""
        with self._lock:
            self._closed = True
        self._hub.remove(self)


def _as_one(commits: Collection[News]) -> News:
    """Several commits as one: what was there before the first, and after the last."""
    every = [one for news in commits for one in news.touched]
    if len({one.key for one in every}) < len(every):
        before = _before(commits)
        merged = {one[:3]: one for one in every}
        every = [one._replace(before=before[place]) for place, one in merged.items()]
    return News(every, _joined([news.digests for news in commits]))


def _before(commits: Iterable[News]) -> dict[tuple[int, str, str], bool]:
    """Which records were there before the first of several commits, or may have been told to be there since.

    Commits of other processes (of unknown digests) are heard of later than they happened, and an event before may have
    told what they made. So what one of them touched counts as there if it was so before any of the commits.
    """
    first: dict[tuple[int, str, str], bool] = {}
    ever: dict[tuple[int, str, str], bool] = {}
    theirs: set[tuple[int, str, str]] = set()
    for news in commits:
        places = [one[:3] for one in news.touched]
        for place, one in zip(places, news.touched, strict=True):
            first.setdefault(place, one.before)
            ever[place] = ever.get(place, False) or one.before
        theirs.update(() if news.digests else places)
    return first | {place: ever[place] for place in theirs}


def _joined(every: Iterable[Mapping[str, tuple[bytes, bytes]]]) -> Mapping[str, tuple[bytes, bytes]]:
    """The digests before and after several commits; none of a scope in which others wrote in between."""
    joined: dict[str, tuple[bytes, bytes]] = {}
    for digests in every:
        for scope, (before, after) in digests.items():
            first, last = joined.get(scope, (before, before))
            joined[scope] = (first, after) if scope not in joined or (last == before != b"") else UNKNOWN
    return joined


class Watches:
    """All watches of one database, and the thread that runs them while there are any."""

    def __init__(self, poll: Callable[[], list[Touched]]) -> None:
        self._poll = poll  # commits of other processes since it was asked last
        self._watches: list[Watch] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, describe: Callable[[News], Event], callback: Callable[[Event], object], via: Any) -> Watch:
        """Begin to watch."""
        watch = Watch(self, describe, callback, via)
        with self._lock:
            self._watches.append(watch)
            if self._thread is None:
                self._poll()  # from here on
                self._thread = threading.Thread(target=self._loop, name="fieldsync-watch", daemon=True)
                self._thread.start()
        return watch

    def remove(self, watch: Watch) -> None:
        """Forget a closed watch."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    @property
    def any(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watches)

    def announce(self, news: News) -> None:
        """Queue a commit for every watch."""
        if news.touched and self._watches:
            size = sum([len(one.packed) for one in news.touched])
            with self._lock:
                for watch in self._watches:
                    watch.push(news, size)
            self._wake.set()

    def _loop(self) -> None:
        while not self._stopped:
            self._wake.wait(WATCH_POLL_SECONDS)
            self._wake.clear()
            if self._stopped:
                return
            self.announce(News(self._poll(), {}))
            for watch in list(self._watches):
                watch.run()

    def close(self) -> None:
        """Stop all watches."""
        self._stopped = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)
        self._watches.clear()
