"""One replica: a store, a clock, and the news of what changed. Under the front door (database.py), over the store."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fieldsync import clock
from fieldsync.apply import Touched
from fieldsync.changes import REMOVING
from fieldsync.context import Context
from fieldsync.entries import expand
from fieldsync.errors import NotFound
from fieldsync.leaving import leave
from fieldsync.limits import (
    AUDIT_KEPT_MS,
    AUDIT_ROWS_MAX,
    FORWARDS_KEPT_MS,
    FORWARDS_MAX,
    REMOVALS_KEPT_MAX,
    REMOVALS_KEPT_MS,
    TRIM_PAUSE_MS,
)
from fieldsync.store import HEADLESS
from fieldsync.transaction import LocalChange, check_names, mint_name
from fieldsync.trimming import trim
from fieldsync.trust.rights import CONTROL, EVERYTHING, Rights, Trust, trust_all
from fieldsync.watch import News, Watches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from fieldsync.sqlite import SQLiteReader, SQLiteStore, SQLiteWriter
    from fieldsync.syncing.exchange import Turn
    from fieldsync.syncing.taking import Taken
    from fieldsync.trust.membership import Membership


def peer_id(peer: str) -> bytes:
    """Under which name an initiator remembers what it told a peer."""
    return hashlib.blake2b(b"to" + peer.encode(), digest_size=8).digest()


class WriteBatch:
    """The write transaction of a replica: one LocalChange for each scope it writes in."""

    def __init__(self, writer: SQLiteWriter) -> None:
        self.writer = writer
        self._changes: dict[str, LocalChange] = {}
        self.touched: list[Touched] = []
        self.received = self.ahead = 0  # changes of a peer's; those of them stamped far ahead of the wall clock
        self.dots: dict[str, Context] = {}  # changes that came, or were said to be here, by scope
        self.told: dict[str, Context] = {}  # those of them of which `touched` tells
        self.rights: Rights = EVERYTHING  # of who brings what is written

    def is_heard(self, author: bytes, seq: int) -> bool:
        """Whether a change came in this transaction, and from its author himself."""
        return self.rights.answers_for(author) and any(dots.covers(author, seq) for dots in self.dots.values())

    def scope(self, name: str) -> LocalChange:
        """What is written in a scope, which is entered if it is not held."""
        change = self._changes.get(name)
        if change is None:
            check_names(name, "-")
            change = self._changes[name] = LocalChange(self.writer, self.writer.enter(name, ready=True))
        return change

    def land(self, wall_ms: int, mint: Callable[[], bytes]) -> None:
        """Write what was collected since the last time: a change, or two, in each scope."""
        for change in self._changes.values():
            self.note(change.scope.name, change.land(wall_ms, mint), change.dots)
        self._changes = {}

    def receive(self, scope: str, taken: Taken) -> None:
        """Remember what a peer's changes did."""
        self.received += taken.changes
        self.ahead += taken.ahead
        self.note(scope, taken.touched, taken.dots)

    def changed(self) -> int:
        """How many records were touched, but those that the organisation itself is made of."""
        scopes = [one.scope for one in self.touched]
        return len(scopes) - scopes.count(CONTROL)

    def note(self, scope: str, touched: list[Touched], dots: Context) -> None:
        """Remember what changes that landed have to tell the watches."""
        self.touched.extend(touched)
        self.told[scope] = self.told[scope] | dots if scope in self.told else dots
        self.join(scope, dots)

    def join(self, scope: str, context: Context) -> None:
        """Remember that these changes are here now; some are another process's, which watches have yet to hear of."""
        self.dots[scope] = self.dots[scope] | context if scope in self.dots else context


class Replica:
    """Transactions, snapshots and news over one store. Thread-safe."""

    def __init__(
        self,
        store: SQLiteStore,
        *,
        takes_all: bool = False,
        wall_ms: Callable[[], int] = clock.now_ms,
        mint: Callable[[], bytes] = mint_name,
        trust: Callable[[bytes, bool], Trust] = trust_all,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """trust: (a peer's replica id, whether it says that it is a hub) -> what it may do here.

        owns: of which scopes this, if it is a hub, executes the moves; there must be one such hub for each.
        """
        self.store = store
        self.wall_ms = wall_ms
        self.mint = mint
        self.trust = trust
        self.owns = owns
        with store.reading() as reader:
            self.id: bytes = reader.meta("replica")
            self.takes_all = takes_all or bool(reader.meta("takes_all"))
        if takes_all:
            with store.writing() as writer:
                writer.set_meta("takes_all", 1)
        self.membership: Membership | None = None  # the device whose database this is, where it has an identity
        self.rights_of_files: Rights = EVERYTHING  # of who wrote a bundle, whoever that was
        self.may_write: Callable[[bytes, str], bool] = lambda *_: True  # and so wish records there
        self.vouch: Callable[[WriteBatch], None] | None = None  # answers for what a transaction was written under
        self.turns: dict[bytes, Turn] = {}  # of sessions that stream into a scope here, by the token of the stream
        self.watches = Watches(self._news)
        self.listeners: list[Callable[[Collection[str]], None]] = []  # told of the scopes that a commit here changed
        self._news_lock = threading.Lock()
        self._seen: dict[str, Context] | None = None  # contexts at the last look
        self._told: dict[str, Context] = {}  # changes of this process since then

    @contextmanager
    def writing(self) -> Iterator[WriteBatch]:
        """A write transaction; durable at the end of the block, undone whole by an exception. Watches hear of it."""
        told: dict[str, Context] = {}
        try:
            with self.store.writing() as writer:
                batch = WriteBatch(writer)
                yield batch
                batch.land(self.wall_ms(), self.mint)
                if self.takes_all:
                    is_heard = batch.is_heard if self.membership is not None else lambda *_: True
                    asked = writer, batch.touched, self.owns, self.wall_ms(), self.mint, self.may_write, is_heard
                    from fieldsync.moving import settle  # that and the log load on first use: few devices have them

                    for news in settle(*asked):
                        batch.note(*news)
                if self.vouch is not None:
                    self.vouch(batch)
                if writer.is_audited():
                    from fieldsync.recording import record_landed

                    record_landed(writer, self.wall_ms())
                told = batch.told
                self._tell(told)  # before others can see them in the file
        except BaseException:
            self._take_back(told)
            raise
        if batch.touched:
            self.watches.announce(News(batch.touched, writer.digests))
        self.announce(batch.dots)

    def announce(self, scopes: Collection[str]) -> None:
        """Tell the listeners that these scopes are not as they were."""
        if scopes:
            for listener in list(self.listeners):
                listener(scopes)

    def trim(self, scopes: list[str] | None, *, before_ms: int, keep: int | None = None) -> int:
        """Forget removals of these scopes, of all if None; see trimming.trim. Returns how many changes went."""
        count = 0
        with self.store.writing() as writer:
            for scope in writer.scopes():
                if scopes is None or scope.name in scopes:
                    known = None if self.membership is None or self.takes_all else Context(scope.delivered)
                    trimmed, gone = trim(writer, scope, before_ms=before_ms, keep=keep, known=known)
                    if gone:
                        writer.save_scope(trimmed)
                        count += gone
        return count

    def keep_audit(self) -> None:
        """Keep an audit log in the file from now on, whichever process writes."""
        with self.store.reading() as reader:
            is_audited = reader.is_audited()
        if not is_audited:
            with self.store.writing() as writer:
                writer.begin_audit()

    def trim_audit(self, before_ms: int, most: int) -> int:
        """Forget what of the audit log landed before a wall time, and all but the last so many rows; how many went."""
        with self.store.writing() as writer:
            return writer.trim_audit(before_ms, most) if writer.is_audited() else 0

    def tidy(self) -> int:
        """Forget old removals and moves where this is a hub, at most once per TRIM_PAUSE_MS; how many changes went.

        And what is old in an audit log, where the file keeps one.

        To be called where there is time, such as at the end of a session.
        """
        now_ms = self.wall_ms()
        with self.store.reading() as reader:
            last_ms, is_audited = reader.meta("tidied"), reader.is_audited()
        if not (self.takes_all or is_audited) or (last_ms is not None and 0 <= now_ms - last_ms < TRIM_PAUSE_MS):
            return 0
        with self.store.writing() as writer:
            writer.set_meta("tidied", now_ms)
            writer.forget_forwards(now_ms - FORWARDS_KEPT_MS, FORWARDS_MAX)
            if is_audited:
                writer.trim_audit(now_ms - AUDIT_KEPT_MS, AUDIT_ROWS_MAX)
        if not self.takes_all:
            return 0
        return self.trim(None, before_ms=now_ms - REMOVALS_KEPT_MS, keep=REMOVALS_KEPT_MAX)

    def leave(self, scopes: list[str], *, lose_pending: bool = False) -> None:
        """Erase scopes, all or none; NotFound, and see leaving.leave."""
        with self.writing() as batch:
            for name in scopes:
                scope = batch.writer.scope(name)
                if scope is None:
                    raise NotFound(f"the scope {name!r} is not held here")
                batch.note(name, leave(batch.writer, scope, lose_pending=lose_pending), Context())

    def agreed_with(self, peer: str, scopes: list[str]) -> dict[str, Context]:
        """By scope, the context that a peer of that name and this replica both had when they last met."""
        found: dict[str, Context] = {}
        with self.store.reading() as reader:
            for name in scopes:
                scope = reader.scope(name)
                context = reader.agreed(peer_id(peer), scope.id) if scope is not None else None
                if context is not None:
                    found[name] = context
        return found

    def before_leaving(self) -> None:
        """To be called before own dots leave the device: what others will have seen must survive a power cut here."""
        self.store.sync_log()

    def _tell(self, dots: dict[str, Context]) -> None:
        """Changes of this process, which its watches hear of without a look at the file."""
        if self.watches.any:
            with self._news_lock:
                for name, some in dots.items():
                    self._told[name] = self._told.get(name, Context()) | some

    def _take_back(self, dots: dict[str, Context]) -> None:
        with self._news_lock:
            for name, some in dots.items():
                self._told[name] = self._told.get(name, Context()) - some

    def _news(self) -> list[Touched]:
        """What commits of other processes touched since the last look, by the changes that are new in the file."""
        with self._news_lock, self.store.reading() as reader:
            now = {scope.name: reader.context(scope.id) for scope in reader.scopes()}
            before, self._seen = self._seen, now
            told = self._told
            self._told = {name: dots - now.get(name, Context()) for name, dots in told.items()}
            if before is None or before == now:
                return []
            return [
                touched
                for name, context in now.items()
                for touched in changed(reader, name, context - before.get(name, Context()) - told.get(name, Context()))
            ]

    def close(self) -> None:
        """Stop the watches and close the store."""
        self.watches.close()
        self.store.close()


def changed(reader: SQLiteReader, name: str, dots: Context) -> list[Touched]:
    """The records that some changes of a scope wrote or removed."""
    scope = reader.scope(name)
    if not dots or scope is None:
        return []
    found: list[Touched] = []
    for change in reader.changes(scope.id, dots):
        if change.flags & REMOVING:
            named = reader.removed_by(scope.id, (change.author, change.seq), change.entries)
            found.extend(Touched(collection, name, key, True, False) for collection, key in named)
            continue
        for entry in expand(change.entries):
            if entry.collection != HEADLESS:
                rows = reader.by_id(entry.collection, [entry.row])
                found.extend(Touched(entry.collection, name, row.key, entry.n < 0, True) for row in rows)
    return found
