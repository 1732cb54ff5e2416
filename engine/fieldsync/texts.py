"""Texts, lists and maps that several write at once: a Yjs document each (pycrdt), whose updates live as cells.

What is read is a function of the updates alone, in whatever order they came. One transaction's edits are one update.
Whoever writes next merges what has piled up into one update again: its cell has seen those that it replaces.

An update that this version cannot read is left out, and so is one that builds on what is not here; neither is ever
merged away. Items of lists and values of maps are canonical bytes, so that they come back as what they were.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from fieldsync import codec
from fieldsync._native import update as _kernel
from fieldsync.errors import Corrupt, DecodeError, LimitExceeded
from fieldsync.limits import (
    TEXT_BYTES_MAX,
    TEXT_CACHE_BYTES_MAX,
    TEXT_CACHE_COUNT_MAX,
    TEXT_EDITS_TARGET,
    TEXT_FAULTS_MAX,
    TEXT_SLACK_BYTES,
)
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fieldsync.codec import Updates

T = TypeVar("T")
Key = tuple[int, frozenset[bytes]]  # kind, updates
Sound = tuple[bytes, dict[int, int], dict[int, int]]  # an update, what it needs, how far it reaches
Limits = dict[int, int]  # author id -> highest seq up to which all of the author is known
ROOT = "value"
KINDS = frozenset({Kind.TEXT, Kind.LIST, Kind.MAP})


class Splice(NamedTuple):
    """Replace `deleted` from `at` on: bytes of UTF-8 in a text, items of a list. Of a map, the value of a name."""

    at: int | str
    deleted: int
    inserted: str | tuple[bytes, ...]


class Written(NamedTuple):
    """An update to be written; with limits, it replaces the cells there that lie within them."""

    value: bytes
    limits: Limits | None


class _Recent(Generic[T]):
    """The last few of something, up to so many bytes. Each step is atomic, so threads may share it."""

    def __init__(self) -> None:
        self._items: dict[Key, tuple[int, T]] = {}

    def take(self, key: Key) -> T | None:
        """Hand out, and forget."""
        found = self._items.pop(key, None)
        return found[1] if found else None

    def put(self, key: Key, size: int, value: T) -> None:
        """Keep as the latest."""
        self._items.pop(key, None)
        self._items[key] = size, value
        while self._items and self._is_full():
            self._items.pop(next(iter(list(self._items))), None)

    def get(self, key: Key) -> T | None:
        """What is kept, which stays."""
        found = self._items.get(key)
        return found[1] if found else None

    def _is_full(self) -> bool:
        sizes = [size for size, _ in list(self._items.values())]
        return len(sizes) > TEXT_CACHE_COUNT_MAX or sum(sizes) > TEXT_CACHE_BYTES_MAX


class Document:
    """A Yjs document of one root. It is never given an update that builds on what it does not have."""

    def __init__(self, kind: int, client: int) -> None:
        import pycrdt

        self.kind = kind
        self.state: dict[int, int] = {}  # client -> clocks that are here
        self._heard: list[bytes] = []
        self._doc: Any = pycrdt.Doc(client_id=client, allow_multithreading=True)
        types = {Kind.TEXT: pycrdt.Text, Kind.LIST: pycrdt.Array, Kind.MAP: pycrdt.Map}
        self.root: Any = self._doc.get(ROOT, type=types[Kind(kind)])

    @property
    def client(self) -> int:
        """As whom it writes."""
        return int(self._doc.client_id)

    def apply(self, update: bytes, ends: dict[int, int]) -> None:
        """Take an update in; ValueError where pycrdt cannot, after which the document is of no use."""
        try:
            self._doc.apply_update(update)
        except BaseException as error:
            raise _wrapped(error, ValueError) from None
        for client, end in ends.items():
            self.state[client] = max(end, self.state.get(client, 0))

    def lacks(self, needs: dict[int, int]) -> tuple[int, int] | None:
        """A client of whom an update needs more than is here, and up to which clock."""
        return next((need for need in needs.items() if self.state.get(need[0], 0) < need[1]), None)

    def edit(self, splices: Sequence[Splice]) -> bytes:
        """Make edits, one after the other; returns them as one update."""
        import pycrdt

        subscription = self._doc.observe(lambda event: self._heard.append(event.update))
        try:
            for first in range(0, len(splices), TEXT_EDITS_TARGET):  # a transaction's effort grows with its square
                with self._doc.transaction():
                    for splice in splices[first : first + TEXT_EDITS_TARGET]:
                        self._splice(splice)
        except BaseException as error:
            raise _wrapped(error, Corrupt) from None
        finally:
            self._doc.unobserve(subscription)
        heard, self._heard = self._heard, []
        update: bytes = heard[0] if len(heard) == 1 else pycrdt.merge_updates(*heard) if heard else b"\0\0"
        try:
            _, ends = _kernel.clocks(update, self.kind)
        except ValueError:
            raise LimitExceeded("an edit of a text, list or map that is too large; make it in several") from None
        for client, end in ends.items():
            self.state[client] = max(end, self.state.get(client, 0))
        return update

    def _splice(self, splice: Splice) -> None:
        at, deleted, inserted = splice
        if isinstance(at, str):
            if inserted:
                self.root[at] = inserted[0]
            elif at in self.root:
                del self.root[at]
            return
        if deleted:
            del self.root[at : at + deleted]
        if isinstance(inserted, str):
            if inserted:
                self.root.insert(at, inserted)
            return
        for place, item in enumerate(inserted):
            self.root.insert(at + place, item)

    def raw(self) -> Any:
        """What it holds: a str, a tuple of items or a dict of them."""
        if self.kind == Kind.TEXT:
            return str(self.root)
        held = self.root.to_py() or ()
        return dict(held) if self.kind == Kind.MAP else tuple(held)

    def whole(self) -> bytes:
        """All of it as one update."""
        return bytes(self._doc.get_update())


def _wrapped(error: BaseException, kind: type[Exception]) -> BaseException:
    """What pycrdt raises as an error of another kind: its panics are no Exceptions."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return kind(f"a text, list or map that pycrdt stumbles over: {error}")


_documents: _Recent[Document] = _Recent()  # as they were written last; who takes one out has it alone
_shown: _Recent[Any] = _Recent()


def client_of(author: bytes, seq: int) -> int:
    """As whom a change's author writes a document that it opens anew: 42 bits, which no other change has but by chance.

    Not the author's own number: what was undone, or is not here any more, must not have its clocks used again.
    """
    return int.from_bytes(blake2b(author + seq.to_bytes(8), digest_size=8).digest()) >> 22 or 1


def shown(updates: Updates) -> Any:
    """The str, list or dict that updates merge to; what this version cannot read of them is left out."""
    key = _key(updates.kind, updates)
    raw = _shown.get(key)
    if raw is None:
        document, _ = _merge(updates.kind, updates, 1)
        raw = document.raw()
        _shown.put(key, _size(updates), raw)
    return _plain(raw)


def merged(updates: Updates) -> bytes:
    """Updates as one, as far as they can be read."""
    document, _ = _merge(updates.kind, updates, 1)
    return document.whole()


def begin(kind: int, value: Any, client: int) -> bytes:
    """The update that makes an empty text, list or map the value; bytes pass as an update already."""
    if isinstance(value, bytes):
        return value
    document = Document(kind, client)
    update = document.edit(as_splices(kind, value))
    _documents.put((kind, frozenset({update})), len(update), document)
    return update


def as_splices(kind: int, value: Any) -> list[Splice]:
    """What makes an empty text, list or map the value."""
    if kind == Kind.TEXT:
        return [Splice(0, 0, value)] if value else []
    if kind == Kind.LIST:
        return [Splice(0, 0, tuple(map(codec.encode, value)))] if value else []
    return [Splice(name, 0, (codec.encode(item),)) for name, item in value.items()]


def compose(
    updates: Updates, splices: Sequence[Splice], client: int, contiguous: Callable[[], Limits], room: int
) -> Written:
    """The update to write for edits of what updates merge to: just these, or all anew, within `room` bytes.

    client: as whom, if the document is not at hand. LimitExceeded where it would be larger than it may.
    """
    kind, key = updates.kind, _key(updates.kind, updates)
    document, complete = _documents.take(key), True
    if document is None:
        document, complete = _merge(kind, updates, client)
        while document.client in document.state:
            client += 1
            document, complete = _merge(kind, updates, client)
    update = document.edit(splices)
    total, raw = _size(updates) + len(update), document.raw()
    whole = document.whole() if _may_shrink(updates, total, len(update), raw) else None
    if whole is not None and len(whole) > TEXT_BYTES_MAX and any(splice.inserted for splice in splices):
        raise LimitExceeded(f"a text, list or map takes at most {TEXT_BYTES_MAX} bytes as an update")
    written = Written(update, None)
    sizes = [len(update), *[len(one) for one in updates if type(one) is bytes]]
    if complete and whole is not None and len(whole) <= room and _is_due(total, sizes, whole):
        written = _compacted(updates, update, whole, contiguous()) or written
    every, limits = zip(updates, updates.stamps, strict=True), written.limits
    stays = [one for one, stamp in every if not _is_within(stamp, limits)] if limits else updates
    key = _key(kind, [*stays, written.value])
    _shown.put(key, total, raw)
    if complete:
        _documents.put(key, total, document)
    return written


def check(updates: Updates) -> None:
    """DecodeError unless each can be read by this version."""
    for update in updates:
        try:
            _, ends = _kernel.clocks(update, updates.kind)
            Document(updates.kind, 1).apply(update, ends)
        except (ValueError, TypeError):
            raise DecodeError("an update of a text, list or map that cannot be read") from None


def _may_shrink(updates: Updates, total: int, latest: int, raw: Any) -> bool:
    """Whether it may pay to write all anew: updates take twice the largest, or more than twice what is read.

    What is read is less than what all anew would take.
    """
    if not updates or total <= TEXT_SLACK_BYTES:
        return False
    largest = max(latest, *(len(one) for one in updates if type(one) is bytes), 0)
    return total >= 2 * largest or total > 2 * _content(raw)


def _compacted(updates: Updates, update: bytes, whole: bytes, limits: Limits) -> Written | None:
    """All anew, if what goes for it is twice as large, or is as much beside its largest as that."""
    going = [len(one) for one, stamp in zip(updates, updates.stamps, strict=True) if _is_within(stamp, limits)]
    total = sum(going) + len(update)
    is_due = _is_due(total, [*going, len(update)], whole)
    if not going or total <= max(len(whole), TEXT_SLACK_BYTES) or not is_due:
        return None
    try:
        _kernel.clocks(whole, updates.kind)
    except ValueError:
        return None
    return Written(whole, limits)


def _is_due(total: int, sizes: list[int], whole: bytes) -> bool:
    return total > 2 * len(whole) or total >= 2 * max(sizes)


def _is_within(stamp: tuple[int, int, int], limits: Limits) -> bool:
    return stamp[1] <= limits.get(stamp[0], 0)


def _merge(kind: int, updates: Sequence[Any], client: int) -> tuple[Document, bool]:
    """The document of updates, each once what it builds on is there; and whether that was all of them."""
    sound = _sound(kind, updates)
    document = Document(kind, client)
    queue = deque(sound)
    waiting: dict[int, list[tuple[int, int, Sound]]] = {}  # by client, a heap by the clock that is needed
    applied: list[tuple[bytes, dict[int, int]]] = []
    faults = 0
    while queue and faults <= TEXT_FAULTS_MAX:
        update, needs, ends = one = queue.popleft()
        lacking = document.lacks(needs)
        if lacking is not None:
            heappush(waiting.setdefault(lacking[0], []), (lacking[1], id(one), one))
            continue
        try:
            document.apply(update, ends)
        except ValueError:
            faults += 1
            document = Document(kind, client)
            for earlier in applied:
                document.apply(*earlier)
            continue
        applied.append((update, ends))
        for writer in ends:
            heap = waiting.get(writer, [])
            while heap and heap[0][0] <= document.state[writer]:
                queue.append(heappop(heap)[2])
    return document, len(applied) == len(updates)


def _sound(kind: int, updates: Sequence[Any]) -> list[Sound]:
    """The well-formed updates with what they need and how far they reach."""
    found = []
    for update in updates:
        try:
            found.append((update, *_kernel.clocks(update, kind)))
        except (ValueError, TypeError):
            continue
    return found


def _key(kind: int, updates: Iterable[Any]) -> Key:
    return kind, frozenset([one for one in updates if type(one) is bytes])


def _size(updates: Iterable[Any]) -> int:
    return sum([len(one) for one in updates if type(one) is bytes])


def _content(raw: Any) -> int:
    """The bytes that what is read takes at least."""
    if isinstance(raw, str):
        return len(raw) if raw.isascii() else len(raw.encode())
    items = raw.values() if isinstance(raw, dict) else raw
    return sum([len(item) for item in items if isinstance(item, bytes | bytearray)])


def _plain(raw: Any) -> Any:
    """Items as values; what no version of this library wrote stays as it is."""
    if isinstance(raw, tuple | list):
        return [_plain(item) for item in raw]
    if isinstance(raw, dict):
        return {name: _plain(item) for name, item in raw.items()}
    if isinstance(raw, bytes | bytearray):
        try:
            return codec.decode(bytes(raw))
        except DecodeError:
            return bytes(raw)
    return raw
