"""Texts, lists and maps that several write at once: a Yjs document each (pycrdt), whose updates live as cells.

What is read is a function of the updates alone, in whatever order they came. One transaction's edits are one update.
Whoever writes next merges what has piled up into one update again: its cell has seen those that it replaces.

An update that this version cannot read is left out, and so is one that builds on what is not here; neither is ever
merged away. Items of lists and values of maps are canonical bytes, so that they come back as what they were.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from fieldsync import codec
from fieldsync.documents import (
    Clocks,
    Document,
    Splice,
    Typed,
    can_be_read,
    clients_of,
    is_sound,
    joined,
    merge,
    salvage,
    summary,
)
from fieldsync.errors import DecodeError, LimitExceeded
from fieldsync.limits import TEXT_BYTES_MAX, TEXT_CACHE_BYTES_MAX, TEXT_CACHE_COUNT_MAX, TEXT_SLACK_BYTES
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.codec import Updates

T = TypeVar("T")
Key = tuple[int, int]  # kind, and what stands for the updates
Limits = dict[int, int]  # author id -> highest seq up to which all of the author is known
Edits = list[Splice] | Typed
SPLICES_FEW = 8
KINDS = frozenset({Kind.TEXT, Kind.LIST, Kind.MAP})


class Held(NamedTuple):
    """What has to be known of updates for one more of them."""

    key: Key
    size: int  # bytes in all
    largest: int  # of them


class Written(NamedTuple):
    """An update to be written; with limits, it replaces the cells there that lie within them."""

    value: bytes
    limits: Limits | None
    held: Held | None  # of what is there then; None where that may be read as something else
    raw: Any  # what that merges to, as Yjs has it

    def shown(self) -> Any:
        """What that merges to."""
        return _plain(self.raw)


class _Recent(Generic[T]):
    """The last few of something, up to so many bytes. Each step is atomic, so threads may share it."""

    def __init__(self) -> None:
        self._items: dict[Key, tuple[int, T]] = {}
        self._size = 0  # about: threads that meet may miscount, until it is counted again

    def take(self, key: Key) -> T | None:
        """Hand out, and forget."""
        found = self._items.pop(key, None)
        self._size -= found[0] if found else 0
        return found[1] if found else None

    def put(self, key: Key, size: int, value: T) -> None:
        """Keep as the latest."""
        self.take(key)
        self._items[key] = size, value
        self._size += size
        if len(self._items) > TEXT_CACHE_COUNT_MAX or self._size > TEXT_CACHE_BYTES_MAX:
            self._drop()

    def get(self, key: Key) -> T | None:
        """What is kept, which stays."""
        found = self._items.get(key)
        return found[1] if found else None

    def clear(self) -> None:
        """Keep nothing."""
        self._items.clear()

    def _drop(self) -> None:
        """Forget the oldest, so many that there is room for some more."""
        kept = list(self._items.items())
        size, count = sum([size for _, (size, _) in kept]), len(kept)
        for key, (one, _) in kept:
            if count <= TEXT_CACHE_COUNT_MAX * 3 // 4 and size <= TEXT_CACHE_BYTES_MAX * 3 // 4:
                break
            self._items.pop(key, None)
            size, count = size - one, count - 1
        self._size = size


_documents: _Recent[Document] = _Recent()  # as they were written last; who takes one out has it alone
_shown: _Recent[Any] = _Recent()


def client_of(author: bytes, seq: int) -> int:
    """As whom a change's author writes a document that it opens anew: 42 bits, which no other change has but by chance.

    Not the author's own number: what was undone, or is not here any more, must not have its clocks used again.
    """
    return int.from_bytes(blake2b(author + seq.to_bytes(8), digest_size=8).digest()) >> 22 or 1


def shown(updates: Updates) -> Any:
    """The str, list or dict that updates merge to; what this version cannot read of them is left out."""
    key, size, _ = _summary(updates)
    raw = _shown.get(key)
    if raw is None:
        raw = merge(updates.kind, updates, 1).raw()
        _shown.put(key, size, raw)
    return _plain(raw)


def is_readable(updates: Updates) -> bool:
    """Whether each of some updates can be read by itself."""
    return all(can_be_read(updates.kind, update) for update in updates)


def salvaged(updates: Updates) -> Any:
    """As shown, but what is built on and nowhere any more counts as deleted: what was inserted is read all the same."""
    return _plain(salvage(updates.kind, updates).raw())


def merged(updates: Updates) -> bytes | None:
    """Updates as one that loses nothing; None where one cannot be read, or builds on what is not there."""
    if any(type(one) is not bytes for one in updates):
        return None
    document = merge(updates.kind, updates, 1)
    whole = document.whole()
    return None if document.left_out or not is_sound(updates.kind, whole) else whole


def carried(updates: Updates) -> Any:
    """What a new record begins with, to hold what updates held: all of them as one, or what can be read of them."""
    whole = merged(updates)
    return salvaged(updates) if whole is None else whole


def news(updates: Updates, client: int, known: bytes) -> tuple[bytes, Clocks]:
    """What updates have beyond a Yjs state vector, as one update; and how much of each client they have.

    client: as whom the document is edited by who comes next, if it is not at hand: one of its own.
    """
    key, size, _ = _summary(updates)
    document = _documents.take(key) or merge(updates.kind, updates, client)
    update, state = bytes(document.doc.get_update(known)), dict(document.state)
    _documents.put(key, size, document)
    return update, state


def begin(kind: int, value: Any, client: int) -> bytes:
    """The update that makes an empty text, list or map the value; bytes pass as an update already."""
    if isinstance(value, bytes):
        return value
    document = Document(kind, client)
    update = document.edit(as_splices(kind, value))
    _documents.put(summary(kind, [update])[0], len(update), document)
    return update


def as_splices(kind: int, value: Any) -> list[Splice]:
    """What makes an empty text, list or map the value."""
    if kind == Kind.TEXT:
        return [Splice(0, 0, value)] if value else []
    if kind == Kind.LIST:
        return [Splice(0, 0, tuple(map(codec.encode, value)))] if value else []
    return [Splice(name, 0, (codec.encode(item),)) for name, item in value.items()]


def held(updates: Updates) -> Held:
    """What has to be known of updates for one more of them."""
    return Held(*summary(updates.kind, updates))


def shown_of(some: Held) -> Any:
    """As shown, where what these updates merge to is at hand; else None."""
    raw = _shown.get(some.key)
    return None if raw is None else _plain(raw)


def compose(
    some: Held,
    read: Callable[[], Updates],
    edits: Edits,
    client: int,
    contiguous: Callable[[], Limits],
    room: int,
) -> Written:
    """The update to write for edits of what some updates merge to: just these, or all anew, within `room` bytes.

    read: gives the updates, where they are needed; client: as whom, if the document is not at hand. LimitExceeded
    where it would be larger than it may; NotFound for edits of another text.
    """
    document = _documents.take(some.key) or _opened(read(), client)
    update = document.edit(edits)
    raw = _spliced(_shown.get(some.key), edits) or document.raw()
    after = Held(joined(some.key, update), some.size + len(update), max(some.largest, len(update)))
    written = Written(update, None, after, raw)
    if some.size and _may_shrink(document, after, raw):
        whole = document.whole()
        if len(whole) > TEXT_BYTES_MAX and _inserts(edits):
            raise LimitExceeded(f"a text, list or map takes at most {TEXT_BYTES_MAX} bytes as an update")
        if len(whole) <= room:
            written = _anew(read(), document, contiguous(), written, whole)
    if document.left_out and isinstance(edits, Typed):  # which may be what was lacking
        return written._replace(held=None)
    assert written.held is not None
    _shown.put(written.held.key, written.held.size, raw)
    _documents.put(written.held.key, written.held.size, document)
    return written


def _spliced(raw: Any, edits: Edits) -> str | None:
    """What few edits make of a text, which takes less than to have it of pycrdt; None for much else."""
    if not isinstance(raw, str) or isinstance(edits, Typed) or len(edits) > SPLICES_FEW:
        return None
    is_ascii = raw.isascii() and all(str(inserted).isascii() for _, _, inserted in edits)
    text: Any = raw if is_ascii else raw.encode()
    for at, deleted, inserted in edits:
        assert isinstance(at, int)
        new: Any = inserted if is_ascii else str(inserted).encode()
        text = new.join((text[:at], text[at + deleted :]))
    return str(text if is_ascii else text.decode())


def _opened(updates: Updates, client: int) -> Document:
    """The document of updates, to be edited by a client that none of them, also of those left out, has heard of."""
    heard = clients_of(updates.kind, updates)
    while client in heard:
        client += 1
    return merge(updates.kind, updates, client)


def _anew(updates: Updates, document: Document, known: Limits, written: Written, whole: bytes) -> Written:
    """All of the document in place of an update and what is known without gaps; the update where that does not pay."""
    limits = _below(updates, document.left_out, known)
    within = [_is_within(stamp, limits) for stamp in updates.stamps]
    going = [one for one, goes in zip(updates, within, strict=True) if goes]
    if not _pays([*going, written.value], whole) or not is_sound(updates.kind, whole):
        return written
    stays = [one for one, goes in zip(updates, within, strict=True) if not goes]
    return Written(whole, limits, Held(*summary(updates.kind, [*stays, whole])), written.raw)


def _may_shrink(document: Document, after: Held, raw: Any) -> bool:
    """Whether it may pay to write all anew, or has to be known how large that is, by the bounds of what it takes."""
    if after.size <= TEXT_SLACK_BYTES:
        return False
    if after.size > TEXT_BYTES_MAX and document.most > TEXT_BYTES_MAX:
        return True
    return after.size >= 2 * after.largest or after.size > 2 * max(document.least, _content(raw))


def _below(updates: Updates, left_out: frozenset[bytes], limits: Limits) -> Limits:
    """What is known of each author below its first update that cannot be read: what it wrote after that stays too."""
    found = dict(limits)
    if left_out or any(type(one) is not bytes for one in updates):
        for one, (author, seq, _) in zip(updates, updates.stamps, strict=True):
            if type(one) is not bytes or one in left_out:
                found[author] = min(seq - 1, found.get(author, 0))
    return found


def _pays(going: list[bytes], whole: bytes) -> bool:
    """Whether what goes for it, the latest edit included, is twice as large, or as much beside its largest as that."""
    size, largest = sum(map(len, going)), max(map(len, going))
    if len(going) == 1 or size <= max(len(whole), TEXT_SLACK_BYTES):
        return False
    return size > 2 * len(whole) or size >= 2 * largest


def _is_within(stamp: tuple[int, int, int], limits: Limits) -> bool:
    return stamp[1] <= limits.get(stamp[0], 0)


def _inserts(edits: Edits) -> bool:
    return True if isinstance(edits, Typed) else any(splice.inserted for splice in edits)


def _summary(updates: Updates) -> tuple[Key, int, int]:
    return summary(updates.kind, updates)


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
