"""Bundles: a session's content as a file, for a known context of a peer or for anybody.

    bundle := "fieldsync bundle 1\n", (size: 4 bytes, frame)*, 0: 4 bytes, BLAKE2b-128 of all before: 16 bytes

For each scope a frame Packed (the giver's context and floor, and the base: the context that the reader is taken to
have), then its Stream, the last frame of which is done. A reader that covers the base ends as after a session with the
giver; one that does not takes what comes and joins nothing. In any order, any number of times, the end is the same.
Who may read it, and who wrote it, is for sealed_bundle.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from fieldsync import files
from fieldsync.context import Context
from fieldsync.errors import DecodeError, LimitExceeded, NotFound
from fieldsync.limits import FRAME_BYTES_MAX
from fieldsync.syncing import claims, exchange, existence, giving, messages, taking
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Message, Packed, Skipped, Stream
from fieldsync.syncing.report import Refused
from fieldsync.trust.rights import CONTROL, Trust

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from fieldsync.changes import Chunk
    from fieldsync.replica import Replica
    from fieldsync.store import Reader, Scope, Writer
    from fieldsync.trust.rights import Reason

MAGIC = b"fieldsync bundle 1\n"
SEALED = b"fieldsync sealed 1\n"  # with which a file begins that holds one sealed (sealing.py)
HASH_BYTES = 16
SIZE_BYTES = 4


class Writable(Protocol):
    """Where a bundle goes."""

    def write(self, data: bytes, /) -> object:
        """Put all of that there."""
        ...


class Readable(Protocol):
    """Where a bundle comes from, more than once."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or fewer at the end."""
        ...

    def tell(self) -> int:
        """Where it is at."""
        ...

    def seek(self, offset: int, /) -> object:
        """Go there."""
        ...


@dataclass(slots=True)
class BundleReport:
    """What writing or reading a bundle did."""

    bytes: int = 0
    changes: int = 0  # written, or new to the reader
    changes_ahead: int = 0  # of the new ones, those stamped over 5 minutes ahead of this clock
    records_changed: int = 0
    scopes: list[str] = field(default_factory=list)  # held now as the giver held them
    incomplete: list[str] = field(
        default_factory=list
    )  # it builds on changes that are not here, or would take away too much, or something of it was refused
    refusals: list[Refused] = field(default_factory=list)  # why
    writer: str | None = None  # the name of the device that sealed it; None: it is not sealed
    readers: list[str] = field(default_factory=list)  # the names of those that it was sealed to


class _Out:
    """Writes frames, and their hash at the end."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)
        self.size = 0
        self._put(MAGIC)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def frame(self, message: Message) -> None:
        data = messages.encode(message)
        if len(data) > FRAME_BYTES_MAX:
            raise LimitExceeded("a scope of too many records for a bundle that others may have to compare: sync it")
        self._put(len(data).to_bytes(SIZE_BYTES, "big") + data)

    def end(self) -> None:
        self._put(bytes(SIZE_BYTES))
        self._put(self._hash.digest())


def write(
    replica: Replica,
    file: Writable,
    scopes: list[str] | None = None,
    bases: Mapping[str, Context] | None = None,
    progress: Callable[[BundleReport], object] | None = None,
) -> BundleReport:
    """Write scopes, all that are held if None; bases: by scope, what the reader is known to have. NotFound."""
    report, out = BundleReport(), _Out(file)
    replica.before_leaving()
    with replica.store.reading() as reader:
        names = scopes if scopes is not None else [scope.name for scope in reader.scopes()]
        if reader.scope(CONTROL) is not None:  # first, so that who answers for what is known
            names = [CONTROL, *(name for name in names if name != CONTROL)]
        for name in names:
            scope = reader.scope(name)
            if scope is None:
                raise NotFound(f"the scope {name!r} is not held here")
            base = (bases or {}).get(name, Context()) & reader.context(scope.id)
            for message, changes in _frames(replica, reader, scope, base):
                out.frame(message)
                report.changes += changes if name != CONTROL else 0
                report.bytes = out.size
                if progress is not None:
                    progress(report)
            report.scopes += [name] if name != CONTROL else []
    out.end()
    report.bytes = out.size
    return report


def _frames(replica: Replica, reader: Reader, scope: Scope, base: Context) -> Iterator[tuple[Message, int]]:
    own = exchange.declare(reader, scope)
    key, alive = b"", b""
    if own.floor - base:  # who holds more than the base may have to find out what is gone
        key = replica.mint() + replica.mint()
        alive = existence.items(reader, scope, own.context, key)
    yield Packed(scope.name, base, own.context, own.floor, key, alive), 0
    dots = exchange.lacking(reader, scope, own.context, Declaration(base, Context(), []))
    last: Chunk | None = None
    count = 0
    for chunk, changes in giving.give(reader, scope, dots):
        if last is not None:
            yield Stream(0, last, False), count
        last, count = chunk, changes
    yield Stream(0, last, True), count


def read(
    replica: Replica,
    file: Readable,
    progress: Callable[[BundleReport], object] | None = None,
    trust: Trust | None = None,
) -> BundleReport:
    """Take a bundle in. DecodeError where it is damaged or cut short, before anything of it is taken.

    trust: what who wrote it may do here; None: nobody knows who that was.
    """
    trust = trust or Trust(rights=replica.rights_of_files)
    start = file.tell()
    for _ in _data(file):
        pass  # all of it is there and whole, before any of it counts
    file.seek(start)
    report = BundleReport()
    taker: _Taker | None = None
    for data in _data(file):
        message = messages.decode(data)
        report.bytes += SIZE_BYTES + len(data)
        if isinstance(message, Packed):
            if taker is not None and not taker.is_over:
                raise DecodeError("a bundle whose scope has no end")
            taker = _Taker(replica, message, report, trust)
        elif isinstance(message, Skipped):
            continue
        elif isinstance(message, Stream) and taker is not None and not taker.is_over:
            taker.take(message)
        else:
            raise DecodeError(f"a {type(message).__name__} where a bundle has none")
        if progress is not None:
            progress(report)
    if taker is not None and not taker.is_over:
        raise DecodeError("a bundle whose last scope has no end")
    return report


def _data(file: Readable) -> Iterator[bytes]:
    """The frames of a bundle; DecodeError, at the end of it, where its hash is another."""
    hasher = hashlib.blake2b(digest_size=HASH_BYTES)

    def get(size: int) -> bytes:
        data = file.read(size)
        if len(data) != size:
            raise DecodeError("a bundle that is cut short: copy it again")
        hasher.update(data)
        return data

    if get(len(MAGIC)) != MAGIC:
        raise DecodeError("not a bundle, or one of a newer version")
    while size := int.from_bytes(get(SIZE_BYTES), "big"):
        if size > FRAME_BYTES_MAX:
            raise DecodeError(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} are allowed")
        yield get(size)
    expected = hasher.digest()
    if get(HASH_BYTES) != expected:
        raise DecodeError("a bundle that was damaged on its way: copy it again")


class _Taker:
    """Takes one scope of a bundle."""

    def __init__(self, replica: Replica, packed: Packed, report: BundleReport, trust: Trust) -> None:
        if packed.floor - packed.context or packed.base - packed.context:
            raise DecodeError("a bundle whose floor or base is beyond its context")
        self.is_over = False
        self._replica = replica
        self._packed = packed
        self._report = report
        self._trust = trust
        self._giver = Declaration(packed.context, packed.floor, [])
        self._joins = False
        self._reason = trust.rights.why_not_write(packed.name)
        if self._reason is None:
            self._begin(packed)

    def _begin(self, packed: Packed) -> None:
        """Make this the only stream that may write the scope, which is entered if it is not held."""
        self._token = self._replica.mint()
        with self._replica.store.writing() as writer:
            scope = writer.enter(packed.name)
            self._own = exchange.declare(writer, scope)
            exchange.begin(writer, scope, self._token)
        self._gone = existence.Known(packed.key, existence.compared(packed.context, self._own), packed.alive)
        is_needed = existence.is_needed(self._giver, self._own)
        self._joins = not packed.base - self._own.context and (bool(packed.key) or not is_needed)
        self._drops = is_needed

    def take(self, message: Stream) -> None:
        """Land a chunk; with the last one, all that goes with Done."""
        if self._reason is not None:
            self._leave_out(message, self._reason)
            return
        try:
            self._land(message)
        except existence.TooMuch:  # a hub will say the same, or not; what came stays
            self._joins = False
            self._land(message)

    def _leave_out(self, message: Stream, reason: Reason) -> None:
        """Take nothing. Where it has nothing new, that is all right."""
        self.is_over = message.done
        if not message.done:
            return
        with self._replica.store.reading() as reader:
            scope = reader.scope(self._packed.name)
            self._joins = scope is not None and not self._giver.context - reader.context(scope.id)
        if not self._joins:
            self._refuse(reason)
        self._tell(message)

    def _refuse(self, reason: Reason) -> None:
        refused = Refused(self._packed.name, reason, is_ours=False)
        if refused not in self._report.refusals:
            self._report.refusals.append(refused)

    def _land(self, message: Stream) -> None:
        wall_ms = self._replica.wall_ms()
        with self._replica.writing() as batch:
            writer, name = batch.writer, self._packed.name
            scope = writer.scope(name)
            if scope is None or scope.taker != self._token:
                self._joins = False  # a sync took the scope over, or it was left
                self.is_over = message.done
                self._tell(message)
                return
            if message.chunk is not None:
                scope, taken = taking.take(
                    writer,
                    scope,
                    self._own.context,
                    self._giver.context,
                    message.chunk,
                    wall_ms,
                    self._trust.rights,
                )
                batch.rights = self._trust.rights
                batch.note(name, taken.touched, taken.dots)
                if taken.refused:
                    self._joins = False
                    self._refuse(taken.refused)
                if name != CONTROL:
                    self._report.changes += taken.changes
                    self._report.changes_ahead += taken.ahead
            if message.done:
                scope = scope._replace(taker=b"")
                self._check_authors(writer, scope, self._giver.context)
            believed = None
            if message.done and self._joins:
                believed = claims.believed(writer, scope, self._giver, self._trust.rights)
                self._joins = believed is not None
            if believed is not None:
                if self._drops:
                    scope, touched = existence.drop(writer, scope, self._gone, self._trust, wall_ms)
                    batch.note(name, touched, Context())
                scope = taking.finish(writer, scope, believed)
                batch.join(name, believed.context)
            writer.save_scope(scope)
        self.is_over = message.done
        self._report.records_changed += batch.changed()
        self._tell(message)

    def _check_authors(self, writer: Writer, scope: Scope, giver: Context) -> None:
        """Refuse what a writer says that it has of authors from whom it may bring nothing."""
        if not self._joins or self._trust.is_hub:
            return
        if reason := taking.why_not_join(writer, scope, giver, self._trust.rights):
            self._joins = False
            self._refuse(reason)

    def _tell(self, message: Stream) -> None:
        if message.done and self._packed.name != CONTROL:
            (self._report.scopes if self._joins else self._report.incomplete).append(self._packed.name)


def replace_file(path: str | os.PathLike[str], make: Callable[[BinaryIO], BundleReport]) -> BundleReport:
    """Make a file that is there whole or not at all, and readable by its owner only: it holds records."""
    with files.whole(Path(path)) as file:
        return make(file)
