"""Sealed files: what one device writes, and only those it names can read, and know to be his, word for word.

    sealed  := "fieldsync sealed 1\n", header, segment*
    header  := ephemeral key: 32 bytes, count: 4, (reader's id: 16, wrapped file key: 48)*, by ids ascending
    segment := ChaCha20-Poly1305 of 64 KiB of the payload, of the rest in the last; numbered, the last one marked
    payload := size: 4, the writer's certificates: a canonical array, content, signature: 64

A file key is wrapped for each reader as age does (C2SP, age, X25519 recipients): HKDF over an exchange of the ephemeral
key with the reader's. Segments are its STREAM (Hoang, Reyhanitabar, Rogaway and Vizar, 2015). A reader's key is that of
his certificate, taken from Ed25519 to X25519 by the map of RFC 7748, section 4.1; that one key may so serve both is
shown by Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM" (2021). The signature binds
header, writer and content: no reader can make another one believe that something was sealed for him.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fieldsync import codec
from fieldsync.bundles.bundle import SEALED as MAGIC
from fieldsync.errors import DecodeError, IdentityError, LimitExceeded
from fieldsync.limits import CERTIFICATE_BYTES_MAX, SEALED_READERS_MAX
from fieldsync.trust.signing import ID_BYTES, PUBLIC_BYTES, SIGNATURE_BYTES, id_of, is_signed, public_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fieldsync.bundles.bundle import Readable, Writable

WRAP_DOMAIN = b"fieldsync sealed key\0"
PAYLOAD_DOMAIN = b"fieldsync sealed payload\0"
SIGNATURE_DOMAIN = b"fieldsync sealed signature\0"
KEY_BYTES = 32
TAG_BYTES = 16
SIZE_BYTES = 4
SLOT_BYTES = ID_BYTES + KEY_BYTES + TAG_BYTES
SEGMENT_BYTES = 64 << 10
COUNTER_BYTES = 11  # of a nonce, before the byte that marks the last segment
MARK_BYTES = 16
PRIME = 2**255 - 19
CHAIN_BYTES_MAX = 2 * CERTIFICATE_BYTES_MAX + 16


# --- keys ---


def _agreement_key(public: bytes) -> X25519PublicKey:
    """The X25519 key of who holds an Ed25519 key: u = (1 + y) / (1 - y). IdentityError for the one that has none."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if (1 - y) % PRIME == 0:
        raise IdentityError("a key to which nothing can be sealed")
    u = (1 + y) * pow(1 - y, -1, PRIME) % PRIME
    return X25519PublicKey.from_public_bytes(u.to_bytes(PUBLIC_BYTES, "little"))


def _agreement_secret(key: Ed25519PrivateKey) -> X25519PrivateKey:
    """The secret of the same: the scalar that RFC 8032, 5.1.5, signs with."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha512(key.private_bytes_raw()).digest()[:KEY_BYTES])


def _derive(secret: bytes, salt: bytes, domain: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt, domain).derive(secret)


def _wrapping(mine: X25519PrivateKey, theirs: X25519PublicKey, salt: bytes) -> ChaCha20Poly1305:
    """What wraps a file key: good for this one key only, so that its nonce may be 0. ValueError for a weak key."""
    return ChaCha20Poly1305(_derive(mine.exchange(theirs), salt, WRAP_DOMAIN))


def _payload(file_key: bytes, header: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derive(file_key, header, PAYLOAD_DOMAIN))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(COUNTER_BYTES, "big") + bytes([is_last])


def _signed(header: bytes, content: bytes) -> bytes:
    return SIGNATURE_DOMAIN + header + content


# --- writing ---


class Seal:
    """A file into which content is written sealed; `end` makes it whole."""

    def __init__(
        self,
        file: Writable,
        readers: Collection[bytes],
        key: Ed25519PrivateKey,
        chain: list[bytes],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """readers: public keys, Ed25519. key, chain: the writer's. IdentityError, LimitExceeded: too many readers."""
        if not 0 < len(set(readers)) <= SEALED_READERS_MAX:
            raise LimitExceeded(f"a file can be sealed to 1 to {SEALED_READERS_MAX:,} readers; name fewer")
        self._file = file
        self._key = key
        file_key, secret = random(KEY_BYTES), random(KEY_BYTES)
        start = MAGIC + _header(file_key, X25519PrivateKey.from_private_bytes(secret), readers)
        file.write(start)
        self.size = len(start)
        self._header = hashlib.sha256(start).digest()
        self._cipher = _payload(file_key, self._header)
        self._hash = hashlib.sha512()
        self._buffer = bytearray()
        self._count = 0
        said = codec.encode(chain)
        self.write(len(said).to_bytes(SIZE_BYTES, "big") + said)

    def write(self, data: bytes, /) -> None:
        """Add content."""
        self._hash.update(data)
        self._add(data)

    def _add(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) > SEGMENT_BYTES:  # a full one may be the last, which is not known yet
            self._put(bytes(self._buffer[:SEGMENT_BYTES]), is_last=False)
            del self._buffer[:SEGMENT_BYTES]

    def _put(self, data: bytes, *, is_last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._count, is_last=is_last), data, None)
        self._file.write(sealed)
        self._count += 1
        self.size += len(sealed)

    def end(self) -> None:
        """Sign all that was written."""
        self._add(self._key.sign(_signed(self._header, self._hash.digest())))
        self._put(bytes(self._buffer), is_last=True)


def _header(file_key: bytes, ephemeral: X25519PrivateKey, readers: Collection[bytes]) -> bytes:
    begin = ephemeral.public_key().public_bytes_raw()
    slots = []
    for public in set(readers):
        theirs = _agreement_key(public)
        try:
            cipher = _wrapping(ephemeral, theirs, begin + theirs.public_bytes_raw())
        except ValueError:
            raise IdentityError("a key to which nothing can be sealed") from None
        slots.append(bytes.fromhex(id_of(public)) + cipher.encrypt(_nonce(0, is_last=False), file_key, None))
    return begin + len(slots).to_bytes(SIZE_BYTES, "big") + b"".join(sorted(slots))


# --- reading ---


class Unsealed:
    """The content of a sealed file, to be read from its beginning, as often as need be.

    All of it was looked at, and its signature, before the first byte is given out; what was changed since is not.
    """

    def __init__(self, file: Readable, key: Ed25519PrivateKey) -> None:
        """key: a reader's. DecodeError where it is damaged or cut short, IdentityError where it is not for him."""
        self._file = file
        header = _read_header(file)
        self._start = file.tell()
        self._header = hashlib.sha256(header).digest()
        self._cipher = _payload(_unwrap(header, key), self._header)
        self._marks = bytearray()
        self._is_marked = False
        self._open()
        size = int.from_bytes(self.read(SIZE_BYTES), "big")
        if size > CHAIN_BYTES_MAX:
            raise DecodeError(f"certificates of {size} bytes")
        self._begin = SIZE_BYTES + size  # of the content
        said = self.read(size)
        self.chain = _certificates(said)
        self._content, self._signature = self._look_through(size.to_bytes(SIZE_BYTES, "big") + said)
        self._is_marked = True
        self.seek(0)

    def _look_through(self, begin: bytes) -> tuple[bytes, bytes]:
        hasher, held = hashlib.sha512(begin), b""
        while data := self.read(SEGMENT_BYTES):
            held += data
            hasher.update(held[:-SIGNATURE_BYTES])
            held = held[-SIGNATURE_BYTES:]
        return hasher.digest(), held

    def is_signed(self, public: bytes) -> bool:
        """Whether the holder of a key has sealed this, for these readers."""
        return is_signed(public, self._signature, _signed(self._header, self._content))

    def _open(self) -> None:
        self._file.seek(self._start)
        self._segments = self._decrypted()
        self._buffer = bytearray()
        self._place = 0

    def _decrypted(self) -> Iterator[bytes]:
        sealed, number = self._file.read(SEGMENT_BYTES + TAG_BYTES), 0
        while sealed:
            after = self._file.read(SEGMENT_BYTES + TAG_BYTES)
            self._mark(number, sealed)
            try:
                yield self._cipher.decrypt(_nonce(number, is_last=not after), sealed, None)
            except InvalidTag:
                _damaged()
            sealed, number = after, number + 1
        if not number:
            _damaged()

    def _mark(self, number: int, sealed: bytes) -> None:
        """Remember a segment at the first look; later ones must be the same: another reader could make others."""
        mark = hashlib.blake2b(sealed, digest_size=MARK_BYTES).digest()
        if not self._is_marked:
            self._marks += mark
        elif self._marks[number * MARK_BYTES : (number + 1) * MARK_BYTES] != mark:
            raise DecodeError("a sealed file that was changed while it was read")

    def read(self, size: int, /) -> bytes:
        """So many bytes of the content, or fewer at the end, where the signature follows it."""
        while len(self._buffer) < size and (more := next(self._segments, None)) is not None:
            self._buffer += more
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._place += len(data)
        return data

    def tell(self) -> int:
        """Where in the content it is at."""
        return self._place - self._begin

    def seek(self, offset: int, /) -> None:
        """Go to a place in the content: from its beginning on."""
        self._open()
        left = self._begin + offset
        while left and (data := self.read(min(left, SEGMENT_BYTES))):
            left -= len(data)


def _read_header(file: Readable) -> bytes:
    """Where a sealed file begins, its magic included; nothing of it is proved yet."""
    begin = file.read(len(MAGIC) + PUBLIC_BYTES + SIZE_BYTES)
    if not begin.startswith(MAGIC):
        raise DecodeError("not a sealed file, or one of a newer version")
    count = int.from_bytes(begin[-SIZE_BYTES:], "big")
    if not 0 < count <= SEALED_READERS_MAX:
        raise DecodeError(f"a file that is sealed to {count} readers; at most {SEALED_READERS_MAX} are allowed")
    slots = file.read(count * SLOT_BYTES)
    if len(begin) != len(MAGIC) + PUBLIC_BYTES + SIZE_BYTES or len(slots) != count * SLOT_BYTES:
        _damaged()
    return begin + slots


def _unwrap(header: bytes, key: Ed25519PrivateKey) -> bytes:
    """The file key. IdentityError where the holder of a key is no reader."""
    at = len(MAGIC) + PUBLIC_BYTES
    ephemeral, slots = header[len(MAGIC) : at], header[at + SIZE_BYTES :]
    ids = [slots[i : i + ID_BYTES] for i in range(0, len(slots), SLOT_BYTES)]
    if ids != sorted(set(ids)):
        raise DecodeError("a sealed file whose readers are not in order")
    own = bytes.fromhex(id_of(public_of(key)))
    if own not in ids:
        raise IdentityError("this file is sealed to others: ask who wrote it for one that this device can read")
    i = ids.index(own) * SLOT_BYTES
    secret = _agreement_secret(key)
    salt = ephemeral + secret.public_key().public_bytes_raw()
    try:
        cipher = _wrapping(secret, X25519PublicKey.from_public_bytes(ephemeral), salt)
        return cipher.decrypt(_nonce(0, is_last=False), slots[i + ID_BYTES : i + SLOT_BYTES], None)
    except (InvalidTag, ValueError):
        _damaged()


def _certificates(said: bytes) -> list[bytes]:
    chain = codec.decode(said)
    if type(chain) is not list or not chain or any(type(one) is not bytes for one in chain):
        raise DecodeError("a sealed file that does not say who wrote it")
    return chain


def _damaged() -> NoReturn:
    raise DecodeError("a sealed file that was damaged or cut short on its way: copy it again") from None
