"""Ed25519 keys (RFC 8032): names that follow from them, signatures, and who may not have signed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fieldsync.errors import MissingDependency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
ID_BYTES = 16


def id_of(public: bytes) -> str:
    """The name of whoever holds a key: 32 hex digits that nobody else's key has."""
    return hashlib.sha256(b"fieldsync key\0" + public).digest()[:ID_BYTES].hex()


def public_of(key: Ed25519PrivateKey) -> bytes:
    """The public half of a key, raw."""
    return key.public_key().public_bytes_raw()


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the holder of a key has signed that."""
    ed25519, invalid = _cryptography()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (invalid, ValueError):
        return False
    return True


def _cryptography() -> tuple[Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingDependency("identities need the package cryptography: pip install cryptography") from None
    return ed25519, InvalidSignature
