"""What the frames of a session say, one class for each; messages.py turns them into bytes and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldsync.changes import Chunk
    from fieldsync.context import Context
    from fieldsync.syncing.exchange import Declaration

VERSION = 1
BEGUN_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, since when, and the state of each scope on offer. The answer's list numbers the shared scopes."""

    replica: bytes
    time_ms: int
    takes_all: bool
    scopes: list[tuple[str, bytes]]
    versions: tuple[int, int] = (VERSION, VERSION)
    refused: list[tuple[str, str]] = field(default_factory=list)  # scopes on offer that are not shared, and why


@dataclass(frozen=True, slots=True)
class Again:
    """A hello of a pair that has met before: what changed since the initiator told its states last."""

    pair: bytes  # a hash of who speaks and what was told
    changed: list[tuple[int, bytes]]  # scopes, by their places in the remembered list, and their states now
    eager: int  # how many changes come along


@dataclass(frozen=True, slots=True)
class Eager:
    """All that a scope has beyond a context that the pair remembers."""

    place: int  # of the scope in what Again says has changed, or Differ differs
    base: bytes  # the hash of that context
    news: Context
    chunk: Chunk | None


@dataclass(frozen=True, slots=True)
class Differ:
    """The answer to an Again: the states that still differ, the scopes not held here, and those that are new."""

    different: list[tuple[int, bytes]]
    refused: list[int]
    more: list[tuple[str, bytes]]
    eager: int = 0  # how many changes come along


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The answer to an Again of a pair that is not remembered so: say Hello."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a taker kept of a chunk that a cut link broke off."""

    cells: int  # what the giver said with it, for itself
    size: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Declare:
    """What the sender holds of a scope, as a taker, and can give, as a giver."""

    scope: int
    declaration: Declaration
    begun: Begun | None = None
    is_busy: bool = False  # another stream writes the scope here: nothing of this one is taken, so nothing need be sent


@dataclass(frozen=True, slots=True)
class Stream:
    """A chunk of a scope's changes; with `done`, the stream ends here and the declared context may be joined."""

    scope: int
    chunk: Chunk | None
    done: bool
    rest: bytes = b""  # in place of a chunk: its body, or what Parts have not brought of it
    goes_on: bool = False  # the body begins with what the receiver declared as begun


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the body of a chunk; a Stream brings the rest."""

    scope: int
    data: bytes
    cells: int = 0  # in the first one of a body that begins anew: how large a chunk the giver had in mind
    goes_on: bool = False  # in the first one of a body that begins with what the receiver declared as begun


@dataclass(frozen=True, slots=True)
class Want:
    """Asks for symbols of a sketch of what lives at the receiver: first under a key, then so many more."""

    scope: int
    number: int  # of items that the sender holds, with a key; of symbols wanted, without
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class Sketch:
    """The next symbols."""

    scope: int
    symbols: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks about ranges of items, where a sketch did not decode."""

    scope: int
    question: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender holds in those ranges."""

    scope: int
    answer: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """The sender's state of a scope after both streams."""

    scope: int
    context_hash: bytes
    digest: bytes
    is_provisional: bool
    is_superseded: bool = False  # the peer's changes did not all land: another session has the scope,
    refused: str = ""  # or something of them was refused, for this reason


@dataclass(frozen=True, slots=True)
class Bye:
    """Nothing more will come."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The sender ends the session, and says why."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Packed:
    """One scope in a bundle: what its reader is taken to have, what the giver had, and what lived there then."""

    name: str
    base: Context
    context: Context
    floor: Context
    key: bytes  # with it, `alive` are the items of all removable cells; empty where nobody needs them
    alive: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A frame of a newer version that need not be understood."""

    type: int = field(default=0)


Greetings = Hello | Again | Eager | Differ | Forgotten
Message = Greetings | Declare | Part | Stream | Settled | Bye | Refusal | Want | Sketch | Ask | Answer | Packed
TYPES: dict[type, int] = {
    kind: number
    for number, kind in enumerate(
        (
            Hello,
            Declare,
            Stream,
            Settled,
            Bye,
            Refusal,
            Want,
            Sketch,
            Ask,
            Answer,
            Again,
            Eager,
            Differ,
            Forgotten,
            Packed,
            Part,
        ),
        1,
    )
}
