"""The control scope: statements as records that all devices of an organisation hold, and that nobody can take away.

It is a scope like any other, with three rules of its own, which each taker checks by itself:

- a change is one new record with one statement, under the statement's hash: nothing is altered, nothing removed;
- its author's name follows from a key, and a signature of that key covers the change: nobody can use up the names under
  which others will write, or bring a change of theirs in another form;
- nothing of a giver's context is joined (taking.finish): nobody can hide what it has not brought.

Whose statements count is not asked here (grants.py): all replicas keep all of them, and read the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from fieldsync import codec, record
from fieldsync.errors import DecodeError, FieldsyncError
from fieldsync.limits import STATEMENT_BYTES_MAX
from fieldsync.pending import Creation
from fieldsync.transaction import KINDS, LocalChange
from fieldsync.trust import statements
from fieldsync.trust.rights import CONTROL
from fieldsync.trust.signing import is_signed, public_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fieldsync.apply import Touched
    from fieldsync.changes import TakenChange
    from fieldsync.context import Context
    from fieldsync.sqlite import SQLiteWriter
    from fieldsync.store import Reader, Scope, Writer
    from fieldsync.trust.statements import Signed

COLLECTION = "fieldsync statements"
DOMAIN = b"fieldsync control\0"
FIELDS = (("proof", KINDS["register"]), ("statement", KINDS["register"]))
CELLS = 1 + len(FIELDS)  # the record's existence, and its fields
NONCE_BYTES = 8
AUTHOR_BYTES = 8


class News(NamedTuple):
    """What was added, for a write batch to note."""

    touched: list[Touched]
    dots: Context


def author_of(public: bytes, nonce: bytes) -> bytes:
    """The name under which the holder of a key writes here from one file."""
    return hashlib.blake2b(DOMAIN + public + nonce, digest_size=AUTHOR_BYTES).digest()


def key_of(statement: bytes) -> str:
    """The key of a statement's record."""
    return hashlib.blake2b(statement, digest_size=16).hexdigest()


def _said(author: bytes, seq: int, time: int, statement: bytes) -> bytes:
    return DOMAIN + author + seq.to_bytes(8, "big") + time.to_bytes(8, "big") + statement


# --- writing ---


def add(
    writer: SQLiteWriter, some: Iterable[bytes], key: Ed25519PrivateKey, wall_ms: int, mint: Callable[[], bytes]
) -> Iterator[News]:
    """Add statements, inside a write transaction: those that are not here yet, each in a change of its own."""
    (collection,) = writer.collection_ids([COLLECTION])
    for statement in some:
        scope = writer.enter(CONTROL)
        if not writer.by_key(collection, scope.id, [key_of(statement)]):
            yield _add(writer, scope, collection, statement, key, wall_ms, mint)


def _add(
    writer: SQLiteWriter,
    scope: Scope,
    collection: int,
    statement: bytes,
    key: Ed25519PrivateKey,
    wall_ms: int,
    mint: Callable[[], bytes],
) -> News:
    public, nonce = public_of(key), writer.meta("control nonce") or b""
    author = author_of(public, nonce)
    if writer.dictionary.author(scope.author) != author:  # the first here; or the file is a copy, or the key another
        nonce = mint()
        author = author_of(public, nonce)
        writer.set_meta("control nonce", nonce)
        scope = scope._replace(author=0, seq=0)
    change = LocalChange(writer, scope)
    begun = change.begin(wall_ms, lambda: author)
    signature = key.sign(_said(author, begun.seq + 1, begun.time, statement))
    proof = codec.encode([public, nonce, signature])
    creation = Creation(collection, COLLECTION, key_of(statement), FIELDS, (proof, statement))
    touched = change.create([creation], wall_ms, lambda: author)
    return News(touched, change.dots)


def has(reader: Reader, statement: bytes) -> bool:
    """Whether a statement is here."""
    scope, collection = reader.scope(CONTROL), reader.collection(COLLECTION)
    return bool(scope and collection and reader.by_key(collection.id, scope.id, [key_of(statement)]))


# --- taking ---


def check(writer: Writer, change: TakenChange, collections: list[str]) -> None:
    """DecodeError unless a change that came is one that may be here; its names number the collections."""
    author = writer.dictionary.author(change.author)
    if len(change.pieces) != 1 or change.removals or change.flags or (change.parts, change.received) != (CELLS, CELLS):
        raise DecodeError("a change of the control scope that does not just add one statement")
    of, seq, n, name, packed = change.pieces[0]
    if (of, seq, n) != (change.author, change.seq, 0) or name is None or collections[name[0]] != COLLECTION:
        raise DecodeError("a change of the control scope that does not just add one statement")
    proof, statement = _values(writer, packed)
    numbers = tuple(writer.field_ids(FIELDS))
    row = (0, numbers, (proof, statement))
    if record.create(writer.dictionary, change.author, change.seq, change.time, [row]) != [packed]:
        raise DecodeError("a record of the control scope in another form than it was written in")
    if name[1] != key_of(statement) or not _proves(proof, author, change.seq, change.time, statement):
        raise DecodeError("a record of the control scope that its author did not write")


def _values(writer: Writer, packed: bytes) -> tuple[bytes, bytes]:
    try:
        values = record.read_all(writer.dictionary, packed)
    except FieldsyncError as error:
        raise DecodeError(f"a record of the control scope: {error}") from None
    proof, statement = values.get("proof"), values.get("statement")
    if len(values) != len(FIELDS) or not isinstance(proof, bytes) or not isinstance(statement, bytes):
        raise DecodeError("a record of the control scope that is no statement")
    if len(statement) > STATEMENT_BYTES_MAX or len(proof) > STATEMENT_BYTES_MAX:
        raise DecodeError(f"a statement of {len(statement)} bytes")
    return proof, statement


def _proves(proof: bytes, author: bytes, seq: int, time: int, statement: bytes) -> bool:
    parts = codec.decode(proof)
    if type(parts) is not list or [type(part) for part in parts] != [bytes, bytes, bytes]:
        return False
    public, nonce, signature = parts
    return (
        len(nonce) == NONCE_BYTES
        and author_of(public, nonce) == author
        and is_signed(public, signature, _said(author, seq, time, statement))
    )


# --- reading ---


class Reading:
    """The statements of a file's control scope; what was read once is not looked at again."""

    def __init__(self) -> None:
        self._known: dict[str, Signed | None] = {}
        self._digest = b""

    def changed(self, reader: Reader) -> bool:
        """Whether anything came since the last look; then `every` has it."""
        scope, collection = reader.scope(CONTROL), reader.collection(COLLECTION)
        if scope is None or collection is None or scope.digest == self._digest:
            return False
        self._digest, before = scope.digest, len(self._known)
        for key, of, packed in reader.query(collection.id, "WHERE _scope=?", [scope.id]):
            if of == scope.id and key not in self._known:
                self._known[key] = _read(record.read_all(reader.dictionary, packed)["statement"])
        return len(self._known) != before

    @property
    def every(self) -> list[Signed]:
        """All that are well-formed and truly signed."""
        return [one for one in self._known.values() if one is not None]


def _read(data: bytes) -> Signed | None:
    try:
        return statements.read(data)
    except DecodeError:
        return None  # of a newer version, or junk
