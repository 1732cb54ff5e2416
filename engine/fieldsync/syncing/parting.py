"""Parts: a large chunk's body travels piece by piece, so that what came of it when a link died is not sent again.

    giver                                                taker
      Part (the first bytes, how large the chunk is)  ->
      Part ...                                        ->
      Stream (the rest)                               ->   lands the chunk

A taker that was cut off keeps what came, and declares it to whomever it asks next. A giver whose first chunk begins
with the same bytes goes on after them; any other begins anew, with a small chunk. So nothing rests on what is kept: it
saves bytes, or it is of no use.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fieldsync.errors import DecodeError, FieldsyncError, ProtocolError
from fieldsync.limits import FRAME_BYTES_MAX, PART_BYTES_MAX, PART_BYTES_MIN, PART_SHARE
from fieldsync.syncing import giving, messages
from fieldsync.syncing.frames import BEGUN_HASH_BYTES, Begun, Part, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fieldsync.changes import Chunk
    from fieldsync.context import Context
    from fieldsync.store import Reader, Scope, Store


class _Body(NamedTuple):
    """A chunk to be sent, and its body where that is not small."""

    chunk: Chunk
    changes: int
    cells: int  # how many it was meant to have
    data: bytes
    kept: int  # bytes of it that the taker has


def begun(reader: Reader, scope: Scope) -> Begun | None:
    """What a taker has to declare of a chunk that was cut, if it has kept any of one."""
    kept = reader.begun(scope.id)
    return Begun(kept[0], len(kept[1]), _hash(kept[1])) if kept is not None else None


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=BEGUN_HASH_BYTES).digest()


# --- the giver ---


def frames(
    number: int, reader: Reader, scope: Scope, dots: Context, start: Begun | None, sent: Callable[[], int]
) -> Iterator[tuple[Part | Stream, int]]:
    """The frames of a stream of those dots, the last one done, and how many changes each completes.

    start: what the taker has of its first chunk. sent: how many bytes this session has sent, by which parts grow.
    """
    last: _Body | None = None
    for body in _bodies(reader, scope, dots, start):
        if last is not None:
            yield from _cut(number, last, sent, done=False)
        last = body
    if last is not None:
        yield from _cut(number, last, sent, done=True)
    else:
        yield Stream(number, None, True), 0


def _bodies(reader: Reader, scope: Scope, dots: Context, start: Begun | None) -> Iterator[_Body]:
    cells = giving.size_of(start.cells if start is not None else 0)
    for chunk, changes in giving.give(reader, scope, dots, cells):
        is_small = start is None and sum(map(len, chunk.streams)) <= PART_BYTES_MIN
        data = b"" if is_small else messages.encode_chunk(chunk)
        if start is not None and not (start.size < len(data) and _hash(data[: start.size]) == start.hash):
            yield from _bodies(reader, scope, dots, None)
            return
        yield _Body(chunk, changes, cells, data, start.size if start is not None else 0)
        start, cells = None, giving.next_size(cells)


def _cut(number: int, body: _Body, sent: Callable[[], int], *, done: bool) -> Iterator[tuple[Part | Stream, int]]:
    if not body.data:
        yield Stream(number, body.chunk, done), body.changes
        return
    at, goes_on = body.kept, body.kept > 0
    cells = 0 if goes_on else body.cells
    while len(body.data) - at > (size := min(max(PART_BYTES_MIN, sent() // PART_SHARE), PART_BYTES_MAX)):
        yield Part(number, body.data[at : at + size], cells, goes_on), 0
        at, cells, goes_on = at + size, 0, False
    yield Stream(number, None, done, body.data[at:], goes_on), body.changes


# --- the taker ---


class Incoming:
    """What came of the body of a chunk that is under way; there is one at a time in a session, whatever the scope."""

    def __init__(self) -> None:
        self.scope: int | None = None
        self._cells = 0
        self._body = bytearray()

    def add(self, message: Part | Stream, reader: Reader, scope: Scope) -> None:
        """Take in the next bytes. reader: of the moment that was declared. ProtocolError where they are not due."""
        if self.scope is None:
            self._begin(message, reader, scope)
        elif message.scope != self.scope or message.goes_on or (isinstance(message, Part) and message.cells):
            raise ProtocolError(f"a part of another chunk of {scope.name!r} than the one that is under way")
        data = message.data if isinstance(message, Part) else message.rest
        if len(self._body) + len(data) > FRAME_BYTES_MAX:
            self._end()
            raise DecodeError(f"a chunk whose body has more than {FRAME_BYTES_MAX} bytes")
        self._body += data

    def _begin(self, message: Part | Stream, reader: Reader, scope: Scope) -> None:
        if message.goes_on:
            kept = reader.begun(scope.id)
            if kept is None:
                raise ProtocolError(f"a part of {scope.name!r} that goes on where nothing was begun")
            self._cells, self._body = kept[0], bytearray(kept[1])
        elif isinstance(message, Part):
            if not message.cells:
                raise ProtocolError(f"a part of {scope.name!r} without a first one")
            self._cells = message.cells
        self.scope = message.scope

    def chunk(self, message: Stream, reader: Reader, scope: Scope) -> Chunk | None:
        """The chunk that a Stream completes, or has, if any."""
        if message.rest:
            self.add(message, reader, scope)
            return messages.decode_chunk(self._end())
        if self.scope is not None:
            raise ProtocolError(f"a chunk of {scope.name!r} before another has come whole")
        return message.chunk

    def _end(self) -> bytes:
        body = bytes(self._body)
        self.scope, self._body = None, bytearray()
        return body

    def keep(self, store: Store, name: str, token: bytes) -> None:
        """The link was cut: keep what came, unless another stream writes the scope by now."""
        cells, body = self._cells, self._end()
        with suppress(FieldsyncError), store.writing() as writer:  # that the link was cut is what matters to the app
            scope = writer.scope(name)
            if scope is not None and scope.taker == token:
                writer.put_begun(scope.id, cells, body)
