"""Chunks: batches of whole changes as compressed columns of bytes, under numbers of their own."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from fieldsync._native import chunk_decode, chunk_encode
from fieldsync.errors import DecodeError
from fieldsync.limits import (
    CHUNK_CHANGES_MAX,
    CHUNK_PIECES_MAX,
    CHUNK_RAW_BYTES_MAX,
    COLLECTION_NAME_BYTES_MAX,
    FIELD_NAME_BYTES_MAX,
    STREAM_COMPRESS_BYTES_MIN,
)

if TYPE_CHECKING:
    from fieldsync.record import Dictionary, Removal

STREAMS = ("changes", "pieces", "names", "cells", "seens", "removals")  # then one of values for each field
NAMES = STREAMS.index("names")
GROUPED = 1  # flag of a change: one transaction with the change before it
REMOVING = 2  # flag of a change: it holds removals

Name = tuple[int, str]  # (collection number, key)
GivenChange = tuple[int, int, int, int, int, list[tuple[bytes, Name | None]], list["Removal"]]
# author id, seq, time, flags, parts, records as (packed, name), removals
Piece = tuple[int, int, int, Name | None, bytes]  # incarnation (author id, seq, n), name, packed


class TakenChange(NamedTuple):
    """A change as it came in, under the numbers of the taker's file."""

    author: int
    seq: int
    time: int
    flags: int
    parts: int
    pieces: list[Piece]
    removals: list[Removal]
    received: int

    @property
    def is_whole(self) -> bool:
        """Whether all of what the change was made of is here."""
        return self.received == self.parts


class Chunk(NamedTuple):
    """A batch of changes as it travels: full names, and columns of bytes."""

    count: int  # type: ignore[assignment]  # of changes; nobody counts in a chunk
    authors: bytes  # 8 bytes each
    fields: list[tuple[str, int]]
    collections: list[str]
    streams: list[bytes]


def encode(dictionary: Dictionary, changes: list[GivenChange], collections: list[str]) -> Chunk:
    """The chunk of some changes; their names number the given collections."""
    streams, author_ids, field_ids = chunk_encode.encode(changes, dictionary.fields, dictionary.author_count)
    authors = b"".join([dictionary.author(number) for number in author_ids])
    fields = [dictionary.field_names[number] for number in field_ids]
    return Chunk(len(changes), authors, fields, collections, streams)


def check(received: Chunk) -> None:
    """DecodeError unless the names of a received chunk are well-formed and its counts within bounds."""
    if received.count > CHUNK_CHANGES_MAX:
        raise DecodeError(f"a chunk of {received.count} changes; at most {CHUNK_CHANGES_MAX} are allowed")
    names = [received.authors[i : i + 8] for i in range(0, len(received.authors), 8)]
    if len(received.authors) % 8 or len(set(names)) != len(names) or bytes(8) in names:
        raise DecodeError("the authors of a chunk are not distinct names of 8 bytes")
    if len(set(received.fields)) != len(received.fields):
        raise DecodeError("a chunk numbers a field twice")
    if any(not 0 < len(name.encode()) <= FIELD_NAME_BYTES_MAX or not 0 < kind < 256 for name, kind in received.fields):
        raise DecodeError("a chunk has a field whose name or kind is out of bounds")
    if any(not _may_name_a_collection(name) for name in received.collections):
        raise DecodeError("a chunk has a collection whose name none may have")
    if len(set(received.collections)) != len(received.collections):
        raise DecodeError("a chunk numbers a collection twice")
    _check_use(received)


def _may_name_a_collection(name: str) -> bool:
    is_taken = name.lower().startswith(("fs_", "sqlite_", "fieldsync_"))
    return 0 < len(name.encode()) <= COLLECTION_NAME_BYTES_MAX and name.isprintable() and not is_taken


def _check_use(received: Chunk) -> None:
    """Names are there to be used: each use of one takes a byte of a stream, so more names than bytes are a flood."""
    sizes = [len(stream) for stream in received.streams]
    if len(sizes) < len(STREAMS) + len(received.fields):
        raise DecodeError("a chunk without the streams that its fields need")
    changes, pieces, names, _, seens, removals = sizes[: len(STREAMS)]
    unused = sum(not size for size in sizes[len(STREAMS) :])
    if unused > removals or len(received.collections) > names + pieces:
        raise DecodeError("a chunk numbers fields or collections that it does not use")
    if len(received.authors) // 8 > changes + pieces + seens + removals:
        raise DecodeError("a chunk numbers authors that it does not use")


def decode(dictionary: Dictionary, received: Chunk) -> list[TakenChange]:
    """The changes of a chunk whose authors and fields the dictionary holds; DecodeError where it is malformed."""
    author_ids = [dictionary.author_ids[received.authors[i : i + 8]] for i in range(0, len(received.authors), 8)]
    field_ids = [dictionary.field_ids[pair] for pair in received.fields]
    try:
        changes = chunk_decode.decode(
            received.streams,
            received.count,
            author_ids,
            field_ids,
            len(received.collections),
            CHUNK_PIECES_MAX,
            dictionary.fields,
        )
    except ValueError as error:
        raise DecodeError(str(error)) from None
    return [TakenChange(*change) for change in changes]


def compress(streams: list[bytes]) -> list[tuple[int, bytes]]:
    """Each stream as (its size, zlib) where that is shorter, else as (0, itself)."""
    packed = []
    for place, stream in enumerate(streams):
        has_words = place == NAMES or (place >= len(STREAMS) and _is_prose(stream))
        small = _deflate(stream, has_words) if len(stream) >= STREAM_COMPRESS_BYTES_MIN else stream
        packed.append((len(stream), small) if len(small) < len(stream) else (0, stream))
    return packed


def _is_prose(stream: bytes) -> bool:
    """Whether values are texts of several words, as far as their beginning tells."""
    first = stream[:512]
    return 12 * first.count(b" ") > len(first)


def _deflate(stream: bytes, has_words: bool) -> bytes:
    # filtered: matches of under six bytes, which in numbers and codes are chance, would cost more than they save
    deflater = zlib.compressobj(6, strategy=zlib.Z_DEFAULT_STRATEGY if has_words else zlib.Z_FILTERED)
    return deflater.compress(stream) + deflater.flush()


def decompress(packed: list[tuple[int, bytes]]) -> list[bytes]:
    """The inverse of compress; DecodeError where a size is untrue or all together pass CHUNK_RAW_BYTES_MAX."""
    if any(size < 0 for size, _ in packed) or sum(size or len(data) for size, data in packed) > CHUNK_RAW_BYTES_MAX:
        raise DecodeError(f"a chunk of more than {CHUNK_RAW_BYTES_MAX} bytes, or less than none")
    return [_inflate(size, data) if size else data for size, data in packed]


def _inflate(size: int, data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise DecodeError(f"a stream does not decompress: {error}") from None
    if len(raw) != size or not inflater.eof or inflater.unused_data:
        raise DecodeError("a stream is not of the size it declares")
    return raw
