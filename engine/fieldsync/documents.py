"""Yjs documents (pycrdt): made of the updates of one text, list or map, edited, and encoded as one update again.

pycrdt trusts what it is given, and may lose what comes before what it builds on; so each update is looked at first
(the kernel), and applied once all that it needs is there.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync._native import update as _kernel
from fieldsync.errors import Corrupt, DataError, LimitExceeded, NotFound
from fieldsync.limits import TEXT_EDITS_TARGET, TEXT_FAULTS_MAX
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Clocks = dict[int, int]  # client -> clock
Sound = tuple[bytes, Clocks, Clocks]  # an update, what it needs, how far it reaches
ROOT = "value"
EMPTY = b"\0\0"  # an update of nothing
STRUCT_BYTES_MAX = 48  # that one deleted character may save, beside itself: its item is joined to the next

# two different sets of updates have one key with a chance that nobody can better who does not know this process
_SECRET = abs(hash("fieldsync.documents")).to_bytes(16)


class Splice(NamedTuple):
    """Replace `deleted` from `at` on: bytes of UTF-8 in a text, items of a list. Of a map, the value of a name."""

    at: int | str
    deleted: int
    inserted: str | tuple[bytes, ...]


class Typed(NamedTuple):
    """Updates that somebody else's document made, and what was in it before that."""

    updates: tuple[bytes, ...]
    base: Clocks


class Document:
    """A Yjs document of one root. It is never given an update that builds on what it does not have."""

    def __init__(self, kind: int, client: int) -> None:
        import pycrdt

        self.kind = kind
        self.state: Clocks = {}  # how much of each client is here
        self.left_out: frozenset[bytes] = frozenset()  # of the updates that it was made of: what could not be read
        self.least = self.most = 0  # bytes of it as one update: between these
        self._heard: list[bytes] = []
        self.doc: Any = pycrdt.Doc(client_id=client, allow_multithreading=True)
        types = {Kind.TEXT: pycrdt.Text, Kind.LIST: pycrdt.Array, Kind.MAP: pycrdt.Map}
        self.root: Any = self.doc.get(ROOT, type=types[Kind(kind)])

    @property
    def client(self) -> int:
        """As whom it writes."""
        return int(self.doc.client_id)

    def apply(self, update: bytes, ends: Clocks) -> None:
        """Take an update in; ValueError where pycrdt cannot, after which the document is of no use."""
        try:
            self.doc.apply_update(update)
        except BaseException as error:
            raise _wrapped(error, ValueError) from None
        self._reach(ends)
        self.least, self.most = 0, self.most + 2 * len(update)

    def lacks(self, needs: Clocks) -> tuple[int, int] | None:
        """A client of whom more is needed than is here, and up to which clock."""
        return next((need for need in needs.items() if self.state.get(need[0], 0) < need[1]), None)

    def edit(self, edits: Sequence[Splice] | Typed) -> bytes:
        """Make edits, one after the other; returns them as one update. LimitExceeded; NotFound for another's."""
        made = self._hearing(lambda: self._take(edits) if isinstance(edits, Typed) else self._splice_all(edits))
        self._reach(self._clocks_of(made)[1])
        self.most += 2 * len(made)
        if isinstance(edits, Typed) or self.kind != Kind.TEXT:
            self.least = 0
        else:
            self.least -= STRUCT_BYTES_MAX * sum(splice.deleted for splice in edits)
        return made

    def raw(self) -> Any:
        """What it holds: a str, a tuple of items or a dict of them."""
        if self.kind == Kind.TEXT:
            return str(self.root)
        held = self.root.to_py() or ()
        return dict(held) if self.kind == Kind.MAP else tuple(held)

    def whole(self) -> bytes:
        """All of it as one update."""
        made = bytes(self.doc.get_update())
        self.least = self.most = len(made)
        return made

    def _hearing(self, do: Callable[[], None]) -> bytes:
        """What something does, as one update."""
        import pycrdt

        subscription = self.doc.observe(lambda event: self._heard.append(event.update))
        try:
            do()
        except BaseException as error:
            raise _wrapped(error, Corrupt) from None
        finally:
            self.doc.unobserve(subscription)
        heard, self._heard = self._heard, []
        return heard[0] if len(heard) == 1 else pycrdt.merge_updates(*heard) if heard else EMPTY

    def _take(self, typed: Typed) -> None:
        lacking = self.lacks(typed.base)
        for update in typed.updates:
            needs, ends = self._clocks_of(update)
            lacking = lacking or self.lacks(needs)
            self._reach(ends)
        if lacking is not None:
            raise NotFound("the text that was edited is not there any more: another one is, or what was built on went")
        for first in range(0, len(typed.updates), TEXT_EDITS_TARGET):
            with self.doc.transaction():
                for update in typed.updates[first : first + TEXT_EDITS_TARGET]:
                    self.doc.apply_update(update)

    def _splice_all(self, splices: Sequence[Splice]) -> None:
        for first in range(0, len(splices), TEXT_EDITS_TARGET):  # a transaction's effort grows with its square
            with self.doc.transaction():
                for splice in splices[first : first + TEXT_EDITS_TARGET]:
                    self._splice(splice)

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

    def _clocks_of(self, update: bytes) -> tuple[Clocks, Clocks]:
        try:
            return _kernel.clocks(update, self.kind)
        except ValueError:
            raise LimitExceeded(
                "an edit of a text, list or map that is too large, or of what it cannot hold; make it in several"
            ) from None

    def _reach(self, ends: Clocks) -> None:
        for client, end in ends.items():
            self.state[client] = max(end, self.state.get(client, 0))


def _wrapped(error: BaseException, kind: type[Exception]) -> BaseException:
    """What pycrdt raises as an error of another kind: its panics are no Exceptions."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError | DataError):
        return error
    return kind(f"a text, list or map that pycrdt stumbles over: {error}")


def merge(kind: int, updates: Sequence[Any], client: int) -> Document:
    """The document of updates, each once what it builds on is there."""
    sound = _sound(kind, updates)
    document = Document(kind, client)
    queue = deque(sound)
    waiting: dict[int, list[tuple[int, int, Sound]]] = {}  # by client, a heap by the clock that is needed
    applied: list[tuple[bytes, Clocks]] = []
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
    if len(applied) < len(updates):
        document.left_out = frozenset(_bytes_of(updates)).difference([update for update, _ in applied])
    return document


def is_sound(kind: int, update: bytes) -> bool:
    """Whether an update is well-formed, and within the bounds of one."""
    return bool(_sound(kind, [update]))


def can_be_read(kind: int, update: Any) -> bool:
    """Whether pycrdt takes an update by itself, too."""
    try:
        Document(kind, 1).apply(update, _kernel.clocks(update, kind)[1])
    except (ValueError, TypeError):
        return False
    return True


def reach(kind: int, updates: Sequence[bytes]) -> Clocks:
    """How far sound updates reach, by client."""
    found: Clocks = {}
    for update in updates:
        for client, end in _kernel.clocks(update, kind)[1].items():
            found[client] = max(end, found.get(client, 0))
    return found


def salvage(kind: int, updates: Sequence[Any]) -> Document:
    """As merge; what updates build on and is nowhere any more counts as deleted, so what they insert can be read.

    Of a map, a name is told by what its value replaces: of those that are gone, none can be told.
    """
    some = list(updates)
    for _ in range(TEXT_FAULTS_MAX):
        document = merge(kind, some, 1)
        waiting = [(needs, ends) for update, needs, ends in _sound(kind, some) if update in document.left_out]
        gaps: Clocks = {}
        for needs, _ in waiting:
            lacking = document.lacks(needs)
            if lacking is not None and not _will_come(document, lacking, waiting):
                gaps[lacking[0]] = min(lacking[1], gaps.get(lacking[0], lacking[1]))
        if not gaps:
            break
        some += [_gone(client, document.state.get(client, 0), end) for client, end in gaps.items()]
    return document


def _will_come(document: Document, lacking: tuple[int, int], waiting: list[tuple[Clocks, Clocks]]) -> bool:
    """Whether some of what is lacking is in an update that waits itself."""
    client, end = lacking
    here = document.state.get(client, 0)
    return any(here < ends.get(client, 0) and needs.get(client, 0) < end for needs, ends in waiting)


def _gone(client: int, start: int, end: int) -> bytes:
    """An update by which a client's clocks stand for what was deleted."""
    head = b"".join(map(as_varint, (1, 1, client, start)))
    return head + b"\x01\x01" + as_varint(len(ROOT)) + ROOT.encode() + as_varint(end - start) + b"\0"


def as_varint(number: int) -> bytes:
    """A number as Yjs and the packed cells write it: 7 bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def summary(kind: int, updates: Iterable[Any]) -> tuple[tuple[int, int], int, int]:
    """What tells updates from others, in this process; their bytes in all, and of the largest."""
    key, size, largest = _kernel.summary(updates, _SECRET)
    return (kind, key), size, largest


def joined(key: tuple[int, int], update: bytes) -> tuple[int, int]:
    """What tells updates from others that have one more."""
    return key[0], (key[1] + _kernel.summary([update], _SECRET)[0]) % 2**128


def _bytes_of(updates: Iterable[Any]) -> list[bytes]:
    return [one for one in updates if type(one) is bytes]


def clients_of(kind: int, updates: Sequence[Any]) -> set[int]:
    """Who wrote in the well-formed updates, or is waited for by them."""
    return {client for _, needs, ends in _sound(kind, updates) for client in (*needs, *ends)}


def _sound(kind: int, updates: Sequence[Any]) -> list[Sound]:
    """The well-formed updates with what they need and how far they reach."""
    found = []
    for update in updates:
        try:
            found.append((update, *_kernel.clocks(update, kind)))
        except (ValueError, TypeError):
            continue
    return found
