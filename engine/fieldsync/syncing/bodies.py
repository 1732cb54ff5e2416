"""The bodies of frames: maps whose values are taken out one by one, each of its type and within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fieldsync.changes import Chunk, compress, decompress
from fieldsync.errors import DecodeError
from fieldsync.limits import CHUNK_CHANGES_MAX, FIELDS_MAX, FRAME_BYTES_MAX, HELLO_SCOPES_MAX, SCOPE_NAME_BYTES_MAX

if TYPE_CHECKING:
    from fieldsync.context import Context

SMALL_BYTES_MAX = 64  # a stream of less has its size in one byte


class Fields:
    """Takes the keys of a body one by one, each of its type and within its bounds."""

    def __init__(self, body: dict[Any, Any]) -> None:
        self._body = body

    def __contains__(self, key: str) -> bool:
        return key in self._body

    def _pop(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._body.pop(key, default)
        if type(value) is not kind:
            raise DecodeError(f"a frame whose {key!r} is missing or not of type {kind.__name__}")
        return value

    def number(self, key: str, most: int, default: int | None = None) -> int:
        """An int from 0 to most."""
        value: int = self._pop(key, int, default)
        if not 0 <= value <= most:
            raise DecodeError(f"a frame whose {key!r} is out of bounds: {value}")
        return value

    def flag(self, key: str) -> bool:
        """A bool, False where it is left out."""
        value: bool = self._pop(key, bool, False)
        return value

    def data(self, key: str, most: int, exact: bool = False, default: bytes | None = None) -> bytes:
        """At most, or exactly, so many bytes."""
        value: bytes = self._pop(key, bytes, default)
        if len(value) > most or (exact and len(value) != most):
            raise DecodeError(f"a frame whose {key!r} has {len(value)} bytes")
        return value

    def text(self, key: str, most: int) -> str:
        """A text of 1 to so many bytes."""
        return text_of(self._pop(key, str), most)

    def items(self, key: str, most: int, default: list[Any] | None = None) -> list[Any]:
        """A list of at most so many items."""
        value: list[Any] = self._pop(key, list, default)
        if len(value) > most:
            raise DecodeError(f"a frame whose {key!r} has {len(value)} items")
        return value

    def pairs(self, key: str, most: int, first: type, second: type, default: list[Any] | None = None) -> list[Any]:
        """A list of pairs of those types."""
        value = self.items(key, most, default)
        for pair in value:
            if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not first or type(pair[1]) is not second:
                raise DecodeError(f"a frame whose {key!r} is not a list of pairs")
        return [(one, other) for one, other in value]

    def finish(self) -> None:
        """Skip what an older reader may; refuse what it must not."""
        for key in self._body:
            if not isinstance(key, str) or key.startswith("!"):
                raise DecodeError(f"a frame with a key {key!r}, which this version does not know and may not skip")


def text_of(value: Any, most: int) -> str:
    """A text of 1 to so many bytes."""
    if type(value) is not str or not 0 < len(value.encode("utf-8", "surrogatepass")) <= most:
        raise DecodeError(f"a frame with a text that is empty, or longer than {most} bytes")
    return value


def states_of(fields: Fields, key: str) -> list[tuple[int, bytes]]:
    """Scopes, each once and ascending, and their states."""
    found = fields.pairs(key, HELLO_SCOPES_MAX, int, bytes, [])
    if any(len(state) != 8 for _, state in found) or not ascend([number for number, _ in found]):
        raise DecodeError("states that are not of 8 bytes, or of scopes that do not ascend")
    return found


def named_states(fields: Fields, key: str) -> list[tuple[str, bytes]]:
    """Scopes by name, each once, and their states."""
    scopes = fields.pairs(key, HELLO_SCOPES_MAX, str, bytes, [])
    for name, state in scopes:
        text_of(name, SCOPE_NAME_BYTES_MAX)
        if len(state) != 8:
            raise DecodeError("a hello whose states are not of 8 bytes")
    if len({name for name, _ in scopes}) != len(scopes):
        raise DecodeError("a hello that offers a scope twice")
    return scopes


def ascend(numbers: list[Any]) -> bool:
    """Whether these are numbers from 0 on, each above the one before it."""
    return all(type(one) is int and one >= 0 for one in numbers) and numbers == sorted(set(numbers))


def given(**items: Any) -> dict[str, Any]:
    """A body without what is empty or zero."""
    return {key: value for key, value in items.items() if value}


def chunk_body(chunk: Chunk) -> dict[str, Any]:
    """What a body says of a chunk: columns compressed where that is shorter."""
    body = given(n=chunk.count if chunk.count != 1 else 0, a=chunk.authors, f=chunk.fields, k=chunk.collections)
    packed = compress(chunk.streams)
    if any(size or len(data) >= SMALL_BYTES_MAX for size, data in packed):
        return {**body, "z": packed}
    return {**body, "y": b"".join([bytes([len(data)]) + data for _, data in packed])}


def eager_body(chunk: Chunk, news: Context) -> dict[str, Any]:
    """Its authors begin with those of the news, as a rule, which are not said twice."""
    body, known = chunk_body(chunk), news.authors()
    if not chunk.authors.startswith(known):
        return {**body, "w": True}
    rest = chunk.authors[len(known) :]
    return {key: value for key, value in body.items() if key != "a"} | given(a=rest)


def _small(data: bytes) -> list[bytes]:
    """Streams of less than SMALL_BYTES_MAX each: a byte for the size, then the bytes."""
    streams, at = [], 0
    while at < len(data):
        end = at + 1 + data[at]
        if data[at] >= SMALL_BYTES_MAX or end > len(data):
            raise DecodeError("a chunk whose small streams are cut short, or are not small")
        streams.append(data[at + 1 : end])
        at = end
    return streams


def chunk_of(fields: Fields, authors: bytes = b"") -> Chunk | None:
    """The chunk of a body, if it has one; its first authors are those given."""
    if "z" in fields:
        streams = decompress(fields.pairs("z", FIELDS_MAX + 8, int, bytes))
    elif "y" in fields:
        streams = _small(fields.data("y", FRAME_BYTES_MAX))
    else:
        return None
    return Chunk(
        fields.number("n", CHUNK_CHANGES_MAX, 1),
        authors + fields.data("a", FRAME_BYTES_MAX, default=b""),
        fields.pairs("f", FIELDS_MAX, str, int, []),
        [text_of(name, FRAME_BYTES_MAX) for name in fields.items("k", FIELDS_MAX, [])],
        streams,
    )
