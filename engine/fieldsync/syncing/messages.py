"""The frames of a session: one byte that says which, then a msgpack map (docs/protocol.md).

A frame type of 128 or more, and a key of a map that does not begin with "!", may be skipped by a reader that does not
know it. Any other type or key that is not known ends the session: what it says matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fieldsync.context import Context
from fieldsync.errors import DecodeError, MissingDependency
from fieldsync.limits import (
    CONTEXT_BYTES_MAX,
    EAGER_SCOPES_MAX,
    FIELDS_MAX,
    FRAME_BYTES_MAX,
    HELLO_SCOPES_MAX,
    PROVISIONAL_GROUPS_MAX,
    RANGE_ANSWER_BYTES_MAX,
    RANGE_QUESTION_BYTES_MAX,
    REASON_CHARS_MAX,
    SCOPE_NAME_BYTES_MAX,
    SEQ_MAX,
    SKETCH_SYMBOLS_MAX,
)
from fieldsync.syncing.bodies import Fields, ascend, chunk_body, chunk_of, eager_body, given, named_states, states_of
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.existence import KEY_BYTES, is_set
from fieldsync.syncing.frames import (
    BEGUN_HASH_BYTES,
    TYPES,
    Again,
    Answer,
    Ask,
    Begun,
    Bye,
    Declare,
    Differ,
    Eager,
    Forgotten,
    Hello,
    Packed,
    Part,
    Refusal,
    Settled,
    Sketch,
    Skipped,
    Stream,
    Want,
)
from fieldsync.syncing.reconcile import SYMBOL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.changes import Chunk
    from fieldsync.syncing.frames import Message

ARRAY_ITEMS_MAX = max(HELLO_SCOPES_MAX, FIELDS_MAX + 8)
SKIPPABLE = 128


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError:
        raise MissingDependency("syncing needs the package msgpack: pip install msgpack") from None
    return msgpack


def encode(message: Message) -> bytes:
    """The frame of a message."""
    body: bytes = _msgpack().packb(_body(message))
    return bytes([TYPES[type(message)]]) + body


def _body(message: Message) -> dict[str, Any]:
    match message:
        case Hello(replica, time_ms, takes_all, scopes, versions, refused):
            return {"v": versions, "r": replica, "t": time_ms, "a": takes_all, "s": scopes, **given(x=refused)}
        case Declare(scope, declaration, begun, is_busy):
            body: dict[str, Any] = {"s": scope, "c": declaration.context.data, **given(x=is_busy)}
            if declaration.floor:
                body["!f"] = declaration.floor.data
            if declaration.provisional:
                body["p"] = [(giver.data, dots.data) for giver, dots in declaration.provisional]
            if begun is not None:
                body["b"] = (begun.cells, begun.size, begun.hash)
            return body
        case Stream(scope, chunk, done, rest, goes_on):
            return {"s": scope, **given(d=done, r=rest, g=goes_on), **(chunk_body(chunk) if chunk else {})}
        case Part(scope, data, cells, goes_on):
            return {"s": scope, **given(n=cells, g=goes_on), "r": data}
        case Settled(scope, context_hash, digest, is_provisional, is_superseded, refused):
            told = given(p=is_provisional, x=is_superseded, r=refused)
            return {"s": scope, "h": context_hash, "g": digest, **told}
        case Bye() | Forgotten():
            return {}
        case Again(pair, changed, eager):
            return {"h": pair, **given(c=changed, e=eager)}
        case Eager(place, base, news, chunk):
            body = eager_body(chunk, news) if chunk else {}
            return {**given(s=place), "b": base, "c": news.data, **body}
        case Packed(name, base, context, floor, key, alive):
            return {"n": name, "c": context.data, "!f": floor.data, **given(b=base.data, k=key, i=alive)}
        case Differ(different, refused, more, eager):
            return given(d=different, x=refused, n=more, e=eager)
        case Want(scope, number, key):
            return {"s": scope, "n": number, **({"k": key} if key else {})}
        case Sketch(scope, symbols):
            return {"s": scope, "y": symbols}
        case Ask(scope, question):
            return {"s": scope, "q": question}
        case Answer(scope, answer):
            return {"s": scope, "a": answer}
        case Refusal(code, text):
            return {"c": code, "t": text}


def decode(frame: bytes) -> Message | Skipped:
    """The message of a frame. DecodeError where it is malformed, oversized or must be understood and is not."""
    if not frame or len(frame) > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame has 1 to {FRAME_BYTES_MAX} bytes; this one has {len(frame)}")
    if frame[0] >= SKIPPABLE:
        return Skipped(frame[0])
    if frame[0] not in READERS:
        raise DecodeError(f"a frame of type {frame[0]}, which this version does not know and may not skip")
    fields = _fields(frame[1:])
    message = READERS[frame[0]](fields)
    fields.finish()
    return message


def _fields(data: bytes) -> Fields:
    try:
        body = _msgpack().unpackb(
            data, use_list=True, strict_map_key=True, max_array_len=ARRAY_ITEMS_MAX, max_map_len=64
        )
    except (ValueError, _msgpack().UnpackException) as error:
        raise DecodeError(f"a frame that is not msgpack: {error}") from None
    if not isinstance(body, dict):
        raise DecodeError("a frame whose body is not a map")
    return Fields(body)


def encode_chunk(chunk: Chunk) -> bytes:
    """The body of a chunk, to travel in parts."""
    body: bytes = _msgpack().packb(chunk_body(chunk))
    return body


def decode_chunk(body: bytes) -> Chunk:
    """The chunk of a body that came in parts. DecodeError where it is malformed."""
    fields = _fields(body)
    chunk = chunk_of(fields)
    if chunk is None:
        raise DecodeError("the body of a chunk without columns")
    fields.finish()
    return chunk


def _hello(fields: Fields) -> Hello:
    versions = fields.items("v", 2)
    if len(versions) != 2 or any(type(version) is not int for version in versions):
        raise DecodeError("a hello without a range of versions")
    if "s" not in fields:
        raise DecodeError("a hello without scopes")
    scopes = named_states(fields, "s")
    replica = fields.data("r", 16, exact=True)
    time_ms, takes_all = fields.number("t", 1 << 62), fields.flag("a")
    refused = [(name, code[:REASON_CHARS_MAX]) for name, code in fields.pairs("x", HELLO_SCOPES_MAX, str, str, [])]
    return Hello(replica, time_ms, takes_all, scopes, (versions[0], versions[1]), refused)


def _declare(fields: Fields) -> Declare:
    scope = fields.number("s", HELLO_SCOPES_MAX)
    context = Context(fields.data("c", CONTEXT_BYTES_MAX)).check()
    floor = Context(fields.data("!f", CONTEXT_BYTES_MAX, default=b"")).check()
    groups = fields.pairs("p", PROVISIONAL_GROUPS_MAX, bytes, bytes, [])
    provisional = [(Context(giver).check(), Context(dots).check()) for giver, dots in groups]
    begun = _begun(fields) if "b" in fields else None
    return Declare(scope, Declaration(context, floor, provisional), begun, fields.flag("x"))


def _begun(fields: Fields) -> Begun:
    items = fields.items("b", 3)
    if [type(item) for item in items] != [int, int, bytes]:
        raise DecodeError("a declaration whose begun chunk is not told by a number, a size and a hash")
    begun = Begun(*items)
    if not (0 < begun.cells <= SEQ_MAX and 0 < begun.size < FRAME_BYTES_MAX and len(begun.hash) == BEGUN_HASH_BYTES):
        raise DecodeError("a declaration whose begun chunk is out of bounds")
    return begun


def _stream(fields: Fields) -> Stream:
    scope, chunk, done = fields.number("s", HELLO_SCOPES_MAX), chunk_of(fields), fields.flag("d")
    rest, goes_on = fields.data("r", FRAME_BYTES_MAX, default=b""), fields.flag("g")
    if (rest and chunk is not None) or (goes_on and not rest):
        raise DecodeError("a stream with a chunk and the rest of another, or one that goes on without a rest")
    return Stream(scope, chunk, done, rest, goes_on)


def _part(fields: Fields) -> Part:
    scope, data = fields.number("s", HELLO_SCOPES_MAX), fields.data("r", FRAME_BYTES_MAX)
    cells, goes_on = fields.number("n", SEQ_MAX, 0), fields.flag("g")
    if not data or (cells and goes_on):
        raise DecodeError("a part of nothing, or one that begins and goes on")
    return Part(scope, data, cells, goes_on)


def _again(fields: Fields) -> Again:
    pair = fields.data("h", 8, exact=True)
    return Again(pair, states_of(fields, "c"), fields.number("e", EAGER_SCOPES_MAX, 0))


def _eager(fields: Fields) -> Eager:
    place, base = fields.number("s", EAGER_SCOPES_MAX - 1, 0), fields.data("b", 8, exact=True)
    news = Context(fields.data("c", CONTEXT_BYTES_MAX)).check()
    return Eager(place, base, news, chunk_of(fields, b"" if fields.flag("w") else news.authors()))


def _differ(fields: Fields) -> Differ:
    refused = fields.items("x", HELLO_SCOPES_MAX, [])
    if not ascend(refused):
        raise DecodeError("scopes that do not ascend")
    eager = fields.number("e", EAGER_SCOPES_MAX, 0)
    return Differ(states_of(fields, "d"), refused, named_states(fields, "n"), eager)


def _packed(fields: Fields) -> Packed:
    base, context, floor = (
        Context(fields.data(key, CONTEXT_BYTES_MAX, default=b"")).check() for key in ("b", "c", "!f")
    )
    key = fields.data("k", KEY_BYTES, exact=True) if "k" in fields else b""
    alive = fields.data("i", FRAME_BYTES_MAX, default=b"")
    if not is_set(alive):
        raise DecodeError("items that are not of 8 bytes, or do not ascend")
    return Packed(fields.text("n", SCOPE_NAME_BYTES_MAX), base, context, floor, key, alive)


def _settled(fields: Fields) -> Settled:
    scope = fields.number("s", HELLO_SCOPES_MAX)
    context_hash, digest = fields.data("h", 8, exact=True), fields.data("g", 16, exact=True)
    refused = fields.text("r", REASON_CHARS_MAX) if "r" in fields else ""
    return Settled(scope, context_hash, digest, fields.flag("p"), fields.flag("x"), refused)


def _refusal(fields: Fields) -> Refusal:
    return Refusal(fields.text("c", 100), fields.text("t", 2000))


def _want(fields: Fields) -> Want:
    scope, number = fields.number("s", HELLO_SCOPES_MAX), fields.number("n", SEQ_MAX)
    return Want(scope, number, fields.data("k", KEY_BYTES, exact=True) if "k" in fields else b"")


def _sketch(fields: Fields) -> Sketch:
    return Sketch(fields.number("s", HELLO_SCOPES_MAX), fields.data("y", SKETCH_SYMBOLS_MAX * SYMBOL_BYTES))


def _ask(fields: Fields) -> Ask:
    return Ask(fields.number("s", HELLO_SCOPES_MAX), fields.data("q", RANGE_QUESTION_BYTES_MAX))


def _answer(fields: Fields) -> Answer:
    return Answer(fields.number("s", HELLO_SCOPES_MAX), fields.data("a", RANGE_ANSWER_BYTES_MAX))


READERS: dict[int, Callable[[Fields], Message]] = {
    1: _hello,
    2: _declare,
    3: _stream,
    4: _settled,
    5: lambda _: Bye(),
    6: _refusal,
    7: _want,
    8: _sketch,
    9: _ask,
    10: _answer,
    11: _again,
    12: _eager,
    13: _differ,
    14: lambda _: Forgotten(),
    15: _packed,
    16: _part,
}
