"""Sessions and bundles (docs/protocol.md): what a peer says, and what it makes of what it hears."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import msgpack
from tests import model
from tests.model import Dot
from tests.second.chunks import ChunkReader, ChunkWriter
from tests.second.replica import Scope, dots_of, join
from tests.second.sketch import difference, symbols

HELLO, DECLARE, STREAM, SETTLED, BYE, REFUSAL, WANT, SKETCH = range(1, 9)
PACKED, PART = 15, 16
BUNDLE = b"fieldsync bundle 1\n"


class Other(Protocol):
    """The other side of a session."""

    def receive(self, frame: bytes) -> None: ...
    def next_frame(self) -> bytes | None: ...


@dataclass
class Talk:
    """What is said of one scope in one session."""

    scope: Scope
    declared: set[Dot]
    held: set[Dot]  # with what was provisional
    key: bytes
    giver: set[Dot] = field(default_factory=set)
    floor: set[Dot] = field(default_factory=set)
    their_held: set[Dot] = field(default_factory=set)
    here: set[int] = field(default_factory=set)  # items
    sketch: list[int] = field(default_factory=list)
    alive: set[int] | None = None
    asked: set[int] = field(default_factory=set)  # items that the other one wants a sketch of
    sent: int = 0
    body: bytes = b""
    is_done: bool = False
    settled: dict[str, Any] | None = None

    @property
    def compared(self) -> set[Dot]:
        return self.giver & self.held

    @property
    def asks(self) -> bool:
        return bool(self.floor - self.declared and self.compared)


class Peer:
    """A replica that speaks the protocol."""

    def __init__(self, name: str, *scopes: str) -> None:
        self.id = name.encode().ljust(16, b".")
        self.scopes = {scope: Scope(scope) for scope in scopes}

    def sync(self, other: Other, frames_max: int | None = None) -> bool:
        """A session with another replica; whether it came to its end. frames_max: after so many the link dies."""
        self._other, self._talks = other, dict[int, Talk]()
        own = {name: scope.state() for name, scope in self.scopes.items()}
        self._say(HELLO, v=[1, 1], r=self.id, t=0, s=list(own.items()))
        hello = self._hear(HELLO)
        differing = [(number, name) for number, (name, state) in enumerate(hello["s"]) if own[name] != state]
        for number, name in differing:
            self._declare(number, self.scopes[name])
        while not all(talk.settled and talk.is_done for talk in self._talks.values()):
            if frames_max is not None and (frames_max := frames_max - 1) < 0:
                return False
            kind, body = self._next()
            answer = {DECLARE: self._on_declare, PART: self._on_part, STREAM: self._on_stream, WANT: self._on_want}
            (answer | {SKETCH: self._on_sketch, SETTLED: self._on_settled})[kind](self._talks[body["s"]], body)
        self._say(BYE)
        for talk in self._talks.values():
            told, scope = talk.settled or {}, talk.scope
            if told["h"] == scope.hash() and not (told.get("p") or told.get("x") or scope.provisional):
                assert told["g"] == scope.digest(), scope.name
        return True

    def _say(self, kind: int, **body: Any) -> None:
        told = {"!f" if key == "floor" else key: value for key, value in body.items()}
        self._other.receive(bytes([kind]) + msgpack.packb(told))

    def _next(self) -> tuple[int, dict[str, Any]]:
        frame = self._other.next_frame()
        assert frame is not None, "the other side waits"
        assert frame[0] != REFUSAL, frame
        return frame[0], msgpack.unpackb(frame[1:])

    def _hear(self, kind: int) -> dict[str, Any]:
        heard, body = self._next()
        assert heard == kind
        return body

    def _declare(self, number: int, scope: Scope) -> None:
        groups = defaultdict(set)
        for dot, giver in scope.provisional.items():
            groups[giver].add(dot)
        some = [(model.context(set(giver)), model.context(dots)) for giver, dots in groups.items()]
        told = {"p": some} if some else {}
        if scope.floor:
            told["floor"] = model.context(scope.floor)  # type: ignore[assignment]
        key = blake2b(scope.state() + self.id, digest_size=16).digest()
        self._talks[number] = Talk(scope, set(scope.context), scope.context | scope.provisional.keys(), key)
        self._say(DECLARE, s=number, c=model.context(scope.context), **told)

    def _on_declare(self, talk: Talk, body: dict[str, Any]) -> None:
        groups = [(dots_of(giver), dots_of(dots)) for giver, dots in body.get("p", ())]
        talk.giver, talk.floor = dots_of(body["c"]), dots_of(body.get("!f", b""))
        talk.their_held = talk.giver.union(*(dots for _, dots in groups))
        if talk.asks:
            talk.here = talk.scope.items(talk.key, talk.compared)
            self._say(WANT, s=body["s"], n=len(talk.here), k=talk.key)
        lacking = talk.held - talk.giver
        for giver, dots in groups:
            lacking -= giver & dots if giver <= talk.declared else set()
        self._say(STREAM, s=body["s"], d=True, **ChunkWriter().write(talk.scope.give(lacking)))

    def _on_part(self, talk: Talk, body: dict[str, Any]) -> None:
        talk.body += body["r"]

    def _on_stream(self, talk: Talk, body: dict[str, Any]) -> None:
        chunk = msgpack.unpackb(talk.body + body["r"]) if "r" in body else body
        talk.body = b""
        talk.scope.take(ChunkReader(chunk).read(), talk.giver)
        talk.is_done = body.get("d", False)
        self._finish(talk, body["s"])

    def _finish(self, talk: Talk, number: int) -> None:
        """Done, once it is known what is gone."""
        if talk.is_done and not (talk.asks and talk.alive is None):
            join(talk.scope, talk.giver, talk.floor, talk.key, talk.compared, talk.alive)
            told = {"p": True} if talk.scope.provisional else {}
            self._say(SETTLED, s=number, h=talk.scope.hash(), g=talk.scope.digest(), **told)

    def _on_want(self, talk: Talk, body: dict[str, Any]) -> None:
        count = body["n"]
        if "k" in body:
            talk.asked = talk.scope.items(body["k"], talk.declared & talk.their_held)
            apart = abs(count - len(talk.asked))
            count = 136 * apart // 100 + 5 * math.isqrt(apart) + 7
        some = symbols(talk.asked, talk.sent + count)[talk.sent :]
        talk.sent += count
        self._say(SKETCH, s=body["s"], y=b"".join(symbol.to_bytes(12) for symbol in some))

    def _on_sketch(self, talk: Talk, body: dict[str, Any]) -> None:
        talk.sketch += [int.from_bytes(body["y"][at : at + 12]) for at in range(0, len(body["y"]), 12)]
        apart = difference(talk.sketch, talk.here)
        if apart is None:
            self._say(WANT, s=body["s"], n=len(talk.sketch) // 4 + 8)
            return
        talk.alive = talk.here ^ apart
        self._finish(talk, body["s"])

    def _on_settled(self, talk: Talk, body: dict[str, Any]) -> None:
        talk.settled = body

    def read_bundle(self, data: bytes) -> None:
        """Take a bundle in."""
        assert data.startswith(BUNDLE)
        at, scope, joins = len(BUNDLE), Scope(""), False
        giver, floor, compared, key, alive = set[Dot](), set[Dot](), set[Dot](), b"", set[int]()
        while size := int.from_bytes(data[at : at + 4]):
            kind, body = data[at + 4], msgpack.unpackb(data[at + 5 : at + 4 + size])
            at += 4 + size
            if kind == PACKED:
                scope = self.scopes.setdefault(body["n"], Scope(body["n"]))
                giver, floor, base = (dots_of(body.get(part, b"")) for part in ("c", "!f", "b"))
                compared, key, items = (
                    giver & (scope.context | scope.provisional.keys()),
                    body.get("k", b""),
                    body.get("i", b""),
                )
                alive = {int.from_bytes(items[place : place + 8]) for place in range(0, len(items), 8)}
                joins = base <= scope.context and (bool(key) or floor <= scope.context or not compared)
            elif kind == STREAM:
                chunk = msgpack.unpackb(body["r"]) if "r" in body else body
                scope.take(ChunkReader(chunk).read(), giver)
                if body.get("d") and joins:
                    join(scope, giver, floor, key, compared, alive if key else None)
        assert data[at + 4 :] == blake2b(data[: at + 4], digest_size=16).digest()
