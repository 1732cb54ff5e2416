"""Sealed files: only readers can read one, all of it or nothing, and know who wrote it; to the byte as specified."""

import hashlib
import io
import random
import re
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fieldsync import codec
from fieldsync.bundles import sealing
from fieldsync.bundles.sealing import SEGMENT_BYTES, Seal, Unsealed
from fieldsync.errors import DecodeError, IdentityError, LimitExceeded
from fieldsync.trust.signing import public_of

ADA, BEN, EVE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
CHAIN = [b"a certificate", b"its issuer's"]
PROTOCOL = Path(__file__).parents[1] / "docs/protocol.md"


def seal(content, readers=(BEN,), writer=ADA, chain=CHAIN, **options):
    file = io.BytesIO()
    out = Seal(file, [public_of(one) for one in readers], writer, chain, **options)
    for at in range(0, len(content), 50_000):
        out.write(content[at : at + 50_000])
    out.end()
    assert out.size == len(file.getvalue())
    return file.getvalue()


def unseal(data, reader=BEN):
    opened = Unsealed(io.BytesIO(data), reader)
    content = opened.read(len(data))[:-64]
    assert opened.chain == CHAIN
    assert opened.is_signed(public_of(ADA))
    return content


@pytest.mark.parametrize("size", [0, 1, 1000, SEGMENT_BYTES - 100, SEGMENT_BYTES, 3 * SEGMENT_BYTES + 17])
def test_each_reader_reads_what_was_written(size):
    content = random.Random(size).randbytes(size)
    data = seal(content, [BEN, EVE, ADA])
    assert [unseal(data, reader) for reader in (BEN, EVE, ADA)] == [content] * 3
    assert size < 32 or content[:32] not in data


def test_segments_may_end_where_the_content_does():
    """The last segment is full, or has one byte: neither is told from its size."""
    start = len(codec.encode(CHAIN)) + 4 + 64
    for over in (-1, 0, 1):
        content = bytes(2 * SEGMENT_BYTES - start + over)
        data = seal(content)
        sealed = len(data) - len(sealing.MAGIC) - 32 - 4 - 64
        assert sealed == start + len(content) + 16 * (3 if over == 1 else 2)
        assert unseal(data) == content


def test_nobody_else_reads_it():
    with pytest.raises(IdentityError, match="sealed to others"):
        Unsealed(io.BytesIO(seal(b"content")), EVE)


def test_the_content_can_be_read_again_from_any_place():
    content = random.Random(1).randbytes(2 * SEGMENT_BYTES)
    opened = Unsealed(io.BytesIO(seal(content)), BEN)
    assert opened.tell() == 0
    assert opened.read(10) == content[:10]
    assert opened.tell() == 10
    for place in (0, 3, SEGMENT_BYTES + 5):
        opened.seek(place)
        assert opened.read(SEGMENT_BYTES) == (content + opened._signature)[place : place + SEGMENT_BYTES]


def test_the_same_content_is_never_sealed_alike():
    one, other = seal(b"content"), seal(b"content")
    assert len(one) == len(other)
    assert one[len(sealing.MAGIC) : len(sealing.MAGIC) + 32] != other[len(sealing.MAGIC) : len(sealing.MAGIC) + 32]
    assert one[-30:] != other[-30:]


# --- to the byte, as docs/protocol.md says ---


def derive(secret, salt, info):
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt, info).derive(secret))


def read_as_specified(data, seed, writer):
    """The content of a sealed file, by a reader written from the specification alone."""
    assert data[:19] == b"fieldsync sealed 1\n"
    ephemeral, count = data[19:51], int.from_bytes(data[51:55], "big")
    header, sealed = data[: 55 + 64 * count], data[55 + 64 * count :]
    slots = {header[at : at + 16]: header[at + 16 : at + 64] for at in range(55, len(header), 64)}
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    secret = X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])
    shared = secret.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    wrapping = derive(shared, ephemeral + secret.public_key().public_bytes_raw(), b"fieldsync sealed key\0")
    slot = slots[hashlib.sha256(b"fieldsync key\0" + public).digest()[:16]]
    digest = hashlib.sha256(header).digest()
    cipher = derive(wrapping.decrypt(bytes(12), slot, None), digest, b"fieldsync sealed payload\0")
    segments = [sealed[at : at + 65_552] for at in range(0, len(sealed), 65_552)]
    payload = b"".join(
        cipher.decrypt(n.to_bytes(11, "big") + bytes([n == len(segments) - 1]), segment, None)
        for n, segment in enumerate(segments)
    )
    signed = b"fieldsync sealed signature\0" + digest + hashlib.sha512(payload[:-64]).digest()
    Ed25519PublicKey.from_public_bytes(writer).verify(payload[-64:], signed)
    size = 4 + int.from_bytes(payload[:4], "big")
    return codec.decode(payload[4:size]), payload[size:-64]


def test_a_reader_made_from_the_specification_reads_it():
    content = random.Random(2).randbytes(200_000)
    data = seal(content, [EVE, BEN])
    for seed in (bytes([2]) * 32, bytes([3]) * 32):
        assert read_as_specified(data, seed, public_of(ADA)) == (CHAIN, content)


def test_the_bytes_are_those_of_the_specification():
    """One file key and one ephemeral key give one file: the example at the end of docs/protocol.md."""
    text = PROTOCOL.read_text().partition("## Example: a sealed file")[2]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", text, re.MULTILINE)
    shown = bytes.fromhex("".join(lines))
    numbers = iter([b"k" * 32, b"e" * 32])
    data = seal(b"content", [BEN], chain=[b"der"], random=lambda _: next(numbers))
    assert read_as_specified(data, bytes([2]) * 32, public_of(ADA)) == ([b"der"], b"content")
    opened = Unsealed(io.BytesIO(data), BEN)
    keys = public_of(BEN) + sealing._agreement_key(public_of(BEN)).public_bytes_raw()
    assert shown[: 217 + 64] == data + keys
    assert shown[217 + 128 :] == b"\0\0\0\7" + codec.encode([b"der"]) + b"content" + opened._signature


def test_keys_are_taken_from_one_curve_to_the_other():
    """The map of public keys fits the secrets; the key of RFC 8032, 7.1, test 1 becomes what libsodium makes of it."""
    for n in range(20):
        key = Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)
        secret = sealing._agreement_secret(key)
        assert sealing._agreement_key(public_of(key)).public_bytes_raw() == secret.public_key().public_bytes_raw()
    known = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    made = "d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e"
    assert sealing._agreement_key(known).public_bytes_raw().hex() == made


# --- files that are not what was written ---


def small():
    return seal(b"content " * 20, [BEN, EVE])


def read_all(data, reader=BEN):
    opened = Unsealed(io.BytesIO(data), reader)
    if not opened.is_signed(public_of(ADA)):
        raise DecodeError("not signed")
    return opened.read(len(data))


def test_every_bit_counts():
    data = small()
    own = data.index(bytes.fromhex(sealing.id_of(public_of(BEN))))
    for at in range(len(data)):
        twisted = bytearray(data)
        twisted[at] ^= 1 << at % 8
        with pytest.raises(IdentityError if own <= at < own + 16 else DecodeError):
            read_all(bytes(twisted))


def test_a_file_that_is_cut_short_or_goes_on_is_refused():
    data = small()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            read_all(data[:size])
    for more in (b"x", bytes(100), data):
        with pytest.raises(DecodeError):
            read_all(data + more)


def test_a_cut_between_segments_is_noticed():
    data = seal(bytes(3 * SEGMENT_BYTES))
    start = 19 + 32 + 4 + 64
    segments = [data[at : at + SEGMENT_BYTES + 16] for at in range(start, len(data), SEGMENT_BYTES + 16)]
    assert len(segments) == 4
    for some in ([0, 1, 2], [0], [0, 2, 1, 3], [0, 1, 1, 3], [1, 2, 3], [0, 1, 2, 3, 3]):
        with pytest.raises(DecodeError):
            read_all(data[:start] + b"".join(segments[n] for n in some))


def test_noise_is_refused():
    chance = random.Random(4)
    for _ in range(500):
        with pytest.raises((DecodeError, IdentityError)):
            read_all(sealing.MAGIC + chance.randbytes(chance.randrange(300)))


@pytest.mark.parametrize("count", [0, 10_001, 0xFFFFFFFF])
def test_a_header_that_claims_too_many_readers_costs_nothing(count):
    class File(io.BytesIO):
        asked = 0

        def read(self, size=-1):
            self.asked = max(self.asked, size)
            return super().read(size)

    file = File(sealing.MAGIC + bytes(32) + count.to_bytes(4, "big") + bytes(1000))
    with pytest.raises(DecodeError, match="readers"):
        Unsealed(file, BEN)
    assert file.asked < 100


def test_readers_out_of_order_or_twice_are_refused():
    data = small()
    one, other = data[55 : 55 + 64], data[55 + 64 : 55 + 128]
    for slots in (other + one, one + one, other + other):
        with pytest.raises((DecodeError, IdentityError)):
            read_all(data[:55] + slots + data[55 + 128 :])


def test_a_reader_cannot_seal_it_to_somebody_else():
    """What Ben was sent he can read and seal again for Eve, but not under Ada's name."""
    opened = Unsealed(io.BytesIO(seal(b"for ben alone")), BEN)
    payload = opened.read(1000)

    class Forger:
        """Signs nothing: the signature that came is used again."""

        def sign(self, _):
            return payload[-64:]

    data = seal(payload[:-64], [EVE], writer=Forger())
    forged = Unsealed(io.BytesIO(data), EVE)
    assert forged.read(1000)[:-64] == b"for ben alone"
    assert not forged.is_signed(public_of(ADA))
    assert not forged.is_signed(public_of(BEN))


def test_a_file_that_is_changed_while_it_is_read_is_noticed():
    """Even by another reader, who has the file key: what was looked at is what is taken."""
    keys = [b"k" * 32, b"e" * 32] * 2
    numbers = iter(keys)
    one = seal(b"a" * 100, random=lambda _: next(numbers))
    other = seal(b"b" * 100, random=lambda _: next(numbers))
    file = io.BytesIO(one)
    opened = Unsealed(file, BEN)
    file.seek(0)
    file.write(other)
    with pytest.raises(DecodeError, match="changed while it was read"):
        opened.seek(0)


def test_a_key_without_a_place_on_the_other_curve_is_no_reader():
    for weak in ((1).to_bytes(32, "little"), ((1 << 255) - 20).to_bytes(32, "little")):
        with pytest.raises(IdentityError, match="nothing can be sealed"):
            Seal(io.BytesIO(), [weak], ADA, CHAIN)


def test_there_are_readers_but_not_too_many(monkeypatch):
    monkeypatch.setattr(sealing, "SEALED_READERS_MAX", 2)
    keys = [Ed25519PrivateKey.generate() for _ in range(3)]
    for readers in ([], keys):
        with pytest.raises(LimitExceeded):
            seal(b"", readers)
    assert unseal(seal(b"x", [BEN, BEN, EVE])) == b"x"


@pytest.mark.parametrize("chain", [[], [1], {"a": 1}, b"x", ["text"]])
def test_who_wrote_it_must_be_said(chain):
    with pytest.raises(DecodeError, match="who wrote it"):
        read_all(seal(b"", chain=chain))


def test_certificates_of_any_size_are_not_read():
    with pytest.raises(DecodeError, match="certificates of"):
        read_all(seal(b"", chain=[bytes(20_000)]))


def test_memory_does_not_grow_with_the_file(tmp_path):
    def write(size):
        with (tmp_path / "big").open("wb") as file:
            out = Seal(file, [public_of(BEN)], ADA, CHAIN)
            for _ in range(size // SEGMENT_BYTES):
                out.write(bytes(SEGMENT_BYTES))
            out.end()

    def read():
        with (tmp_path / "big").open("rb") as file:
            opened = Unsealed(file, BEN)
            while opened.read(SEGMENT_BYTES):
                pass

    peaks = []
    for size in (4 << 20, 32 << 20):
        tracemalloc.start()
        write(size)
        read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (256 << 10)
