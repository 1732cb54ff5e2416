"""A text that an editor holds open: what it types is written at each pause, what others write comes into it.

The editor's document is its own, under a client id that nobody else ever has. What is typed into it is gathered and
written as one update: LIVE_PAUSE_SECONDS after the first of it, or by flush. A crash loses what was not written yet.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from fieldsync import codec, record, texts
from fieldsync.documents import Document, Typed, reach
from fieldsync.edits import replacing
from fieldsync.errors import FieldsyncError, NotFound
from fieldsync.limits import LIVE_PAUSE_SECONDS
from fieldsync.reading import find, only
from fieldsync.types import Kind
from fieldsync.watch import Event
from fieldsync.writing import find_to_edit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import pycrdt

    from fieldsync.replica import Replica
    from fieldsync.schema import Collection
    from fieldsync.watch import News, Watch


class LiveText:
    """What `db.edit(...)` gives. `text` is a pycrdt.Text: edit it, observe it, in one thread at a time.

    flush and close may be called in any thread, but not inside db.write(); refresh where the text is edited.
    """

    def __init__(
        self, replica: Replica, collection: Collection, key: str, field: str, scope: str | None, via: Any
    ) -> None:
        if collection.field(field).kind != "text":
            raise TypeError(f"{collection.name}.{field} is no text: declare it as fs.Text")
        self.error: FieldsyncError | None = None  # why what was typed is not written, or what others wrote is not here
        self.is_closed = False
        self._replica = replica
        self._collection = collection
        self._key = key
        self._scope = scope
        self._cell = collection.field(field).cell
        self._via = via
        self._lock = threading.Lock()  # of what follows
        self._unsaved: list[bytes] = []
        self._base: dict[int, int] = {}  # how much of each client is known to be in the file
        self._timer: threading.Timer | None = None
        self._writing = threading.Lock()  # held by who writes: one update builds on the other
        self._is_taking = self._is_behind = False
        self._watch: Watch | None = None
        self._document = self._open()
        self.text: pycrdt.Text = self._document.root
        self._document.doc.observe(self._hear)
        if via is not None:
            self._watch = replica.watches.add(self._describe, lambda _: self._follow(), via)

    def __enter__(self) -> LiveText:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_saved(self) -> bool:
        """Whether all that was typed is in the file."""
        with self._lock:
            return not self._unsaved

    def assign(self, text: str) -> None:
        """Make it another text by one edit: what both begin and end with stays. For editors that tell all there is."""
        with self.text.doc.transaction():
            for at, deleted, inserted in replacing(Kind.TEXT, str(self.text), text):
                assert isinstance(at, int)
                assert isinstance(inserted, str)
                if deleted:
                    del self.text[at : at + deleted]
                if inserted:
                    self.text.insert(at, inserted)

    def flush(self) -> None:
        """Write what was typed since the last time, durably, as one edit.

        NotFound where the record, or the text that was edited, is not here any more; LimitExceeded, StoreError. What
        could not be written stays in `text`, and goes along with the next flush.
        """
        with self._writing:
            with self._lock:
                self._stop_timer()
                some = tuple(self._unsaved)
                base = dict(self._base)
            if not some:
                return
            try:
                ends = self._write(Typed(some, base))
            except FieldsyncError as error:
                self.error = error
                with self._lock:
                    self._start_timer()
                raise
            with self._lock:
                del self._unsaved[: len(some)]
                self._base.update(ends)
            self.error = None

    def refresh(self) -> bool:
        """Take in what others wrote, and say whether that could be: not while the editor is in a transaction.

        With via, it is called there after each commit, and when the editor's transaction is over. NotFound as flush.
        """
        doc = self._document.doc
        try:
            with doc.new_transaction(timeout=0):
                self._is_taking = True
                update, state = self._news(doc.get_state())
                doc.apply_update(update)
        except TimeoutError:
            self._is_behind = True
            return False
        finally:
            self._is_taking = False
        with self._lock:
            self._base.update(state)
        self._is_behind = False
        return True

    def close(self) -> None:
        """Write what is left, and follow the record no more. Raises as flush; `text` stays readable all the same."""
        if self._watch is not None:
            self._watch.close()
        with self._lock:
            self.is_closed = True
        self.flush()

    def _open(self) -> Document:
        """The text as it is, under a client id that nobody has used."""
        while True:
            self._document = document = Document(Kind.TEXT, self._mint())
            self.refresh()
            if document.client not in self._base:
                return document

    # --- towards the file ---

    def _hear(self, event: Any) -> None:
        """The editor's transaction is over."""
        if self._is_taking:
            return
        with self._lock:
            self._unsaved.append(event.update)
            self._start_timer()
        if self._is_behind and self._via is not None:
            self._via(self._follow)

    def _start_timer(self) -> None:
        if self._timer is None and not self.is_closed:
            self._timer = threading.Timer(LIVE_PAUSE_SECONDS, self._pause)
            self._timer.daemon = True
            self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self) -> None:
        self._quietly(self.flush)

    def _write(self, typed: Typed) -> dict[int, int]:
        """Write it; returns how far it reaches."""
        with self._replica.writing() as batch:
            rows = find_to_edit(batch.writer, self._collection, self._key, self._scope)
            name = only(self._collection, self._key, rows)
            (number,) = batch.writer.collection_ids([self._collection.name])
            pending = batch.scope(name).at(number, self._collection.name, self._key, rows[name])
            pending.splices = {**pending.splices, self._cell: typed}
        return reach(self._cell[1], typed.updates)

    # --- from the file ---

    def _news(self, known: bytes) -> tuple[bytes, dict[int, int]]:
        """What is in the file beyond that, and how much of each client is there."""
        with self._replica.store.reading() as reader:
            rows = find(reader, self._collection, self._key, self._scope)
            row = rows[only(self._collection, self._key, rows)]
            number = reader.dictionary.field_ids.get(self._cell, 0)
            updates = record.updates(reader.dictionary, row.packed).get(number) or codec.Updates()
        updates.kind = self._cell[1]
        update, state = texts.news(updates, self._mint(), known)
        if any(state.get(client, 0) < clock for client, clock in self._base.items()):
            raise NotFound(f"{self._collection.name} {self._key!r} has another text now: it was made anew")
        return update, state

    def _describe(self, news: News) -> Event:
        """Whether commits touched the record."""
        with self._replica.store.reading() as reader:
            known = reader.collection(self._collection.name)
        place = known.id if known is not None else 0, self._key
        return Event([], [], [(one.scope, one.key) for one in news.touched if (one.collection, one.key) == place])

    def _follow(self) -> None:
        if not self.is_closed:
            self._quietly(self.refresh)

    def _quietly(self, do: Callable[[], object]) -> None:
        try:
            do()
        except FieldsyncError as error:
            self.error = error

    def _mint(self) -> int:
        return texts.client_of(self._replica.mint(), 0)
