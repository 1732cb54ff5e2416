"""Statements: what an organisation says of its devices, each signed by who may say it and good wherever it is read.

A statement is canonical bytes (codec.py) of its signer's public key, the signature, and a body that says what it is.
That a signature is good is checked here; whether its signer may say such a thing is for grants.py to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldsync import codec
from fieldsync.errors import DecodeError, LimitExceeded
from fieldsync.limits import (
    CERTIFICATE_BYTES_MAX,
    IDENTITY_NAME_CHARS_MAX,
    PATTERNS_MAX,
    SCOPE_NAME_BYTES_MAX,
    SEQ_MAX,
    STATEMENT_BYTES_MAX,
)
from fieldsync.trust.signing import ID_BYTES, id_of, is_signed, public_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DOMAIN = b"fieldsync statement\0"  # so that no signature is good for anything else
AUTHOR_BYTES = 8


@dataclass(frozen=True, slots=True)
class Issuer:
    """A key may admit devices and say what they may do. The root says so."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class Hub:
    """A device is a hub. The root says so."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """A device belongs to the organisation, under a name, and has this certificate. An issuer says so."""

    device: str
    name: str
    chain: tuple[bytes, ...]  # DER: its certificate, then its issuer's
    serial: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a device may do, by patterns of scopes, and until when. Of several the one of the highest serial counts.

    A pattern is a scope's name, or what names begin with and a star. Who may write may read. assign: of which scopes it
    may say that another device is to hold them. An issuer says so.
    """

    device: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    assign: tuple[str, ...]
    until_ms: int
    renew_days: int  # for how long a hub that the device meets renews it; 0: not at all
    serial: int


@dataclass(frozen=True, slots=True)
class Author:
    """A device answers for what is written under an author's name. The device itself says so, or an issuer."""

    device: str
    author: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """A device, or an issuer, is out: of each of its authors the last change that counts, of all others none.

    An issuer says so of a device, the root of a hub or an issuer.
    """

    device: str
    last: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which scopes a device is to hold. Of several the one of the highest serial counts, by each who may say so."""

    device: str
    scopes: tuple[str, ...]
    serial: int


Statement = Issuer | Hub | Member | Grant | Author | Revocation | Assignment


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement whose signature is good."""

    signer: str  # id of the key
    statement: Statement
    data: bytes

    @property
    def public(self) -> bytes:
        """The signer's public key."""
        return bytes(codec.decode(self.data)[0])


def _is_id(value: Any) -> bool:
    return type(value) is str and len(value) == 2 * ID_BYTES and set(value) <= set("0123456789abcdef")


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= IDENTITY_NAME_CHARS_MAX and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= SEQ_MAX


def _is_author(value: Any) -> bool:
    return type(value) is bytes and len(value) == AUTHOR_BYTES


def _are_scopes(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) <= PATTERNS_MAX
        and all(type(one) is str and 0 < len(one.encode()) <= SCOPE_NAME_BYTES_MAX for one in value)
    )


def _are_certificates(value: Any) -> bool:
    return (
        type(value) is list
        and 0 < len(value) <= 2
        and all(type(one) is bytes and len(one) <= CERTIFICATE_BYTES_MAX for one in value)
    )


def _are_last(value: Any) -> bool:
    if type(value) is not list or any(type(one) is not list or len(one) != 2 for one in value):
        return False
    authors = [author for author, _ in value]
    return all(_is_author(author) and _is_count(seq) for author, seq in value) and len(set(authors)) == len(authors)


_OF_SCOPES: dict[str, Callable[[Any], bool]] = {"read": _are_scopes, "write": _are_scopes, "assign": _are_scopes}
FORMS: dict[str, tuple[type[Any], dict[str, Callable[[Any], bool]]]] = {
    "issuer": (Issuer, {"device": _is_id, "name": _is_name}),
    "hub": (Hub, {"device": _is_id, "name": _is_name}),
    "member": (Member, {"device": _is_id, "name": _is_name, "chain": _are_certificates, "serial": _is_count}),
    "grant": (
        Grant,
        {"device": _is_id, **_OF_SCOPES, "until_ms": _is_count, "renew_days": _is_count, "serial": _is_count},
    ),
    "author": (Author, {"device": _is_id, "author": _is_author}),
    "revocation": (Revocation, {"device": _is_id, "last": _are_last}),
    "assignment": (Assignment, {"device": _is_id, "scopes": _are_scopes, "serial": _is_count}),
}
KINDS = {form: kind for kind, (form, _) in FORMS.items()}


def sign(key: Ed25519PrivateKey, statement: Statement) -> bytes:
    """A statement, signed. LimitExceeded where it says more than one may."""
    kind = KINDS[type(statement)]
    values = {name: _plain(getattr(statement, name)) for name in FORMS[kind][1]}
    if not all(fits(values[name]) for name, fits in FORMS[kind][1].items()):
        raise LimitExceeded(f"a statement that says more than one may, or something else: {statement}")
    body = codec.encode({"is": kind, **values})
    data = codec.encode([public_of(key), key.sign(DOMAIN + body), body])
    if len(data) > STATEMENT_BYTES_MAX:
        raise LimitExceeded(f"a statement has at most {STATEMENT_BYTES_MAX} bytes; this one has {len(data)}")
    return data


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def read(data: bytes) -> Signed:
    """A statement of its bytes. DecodeError where it is malformed, of an unknown kind or not signed by its signer."""
    if len(data) > STATEMENT_BYTES_MAX:
        raise DecodeError(f"a statement of {len(data)} bytes")
    parts = codec.decode(data)
    if type(parts) is not list or [type(part) for part in parts] != [bytes, bytes, bytes]:
        raise DecodeError("a statement that is not a key, a signature and a body")
    public, signature, body = parts
    values = codec.decode(body)
    if type(values) is not dict or type(values.get("is")) is not str or values["is"] not in FORMS:
        raise DecodeError("a statement of a kind that this version does not know")
    made, form = FORMS[values.pop("is")]
    if values.keys() != form.keys() or not all(fits(values[name]) for name, fits in form.items()):
        raise DecodeError(f"a statement of a {made.__name__} that does not say what one says")
    if not is_signed(public, signature, DOMAIN + body):
        raise DecodeError("a statement that its signer did not sign")
    return Signed(id_of(public), made(**{name: _frozen(value) for name, value in values.items()}), data)
