"""The organisation's X.509 certificates (RFC 5280): a root, issuers under it, hubs and devices.

    root (kept offline)
     +-- hub       a device whose certificate the root itself signed
     +-- issuer    a hub's second key, with which it admits devices; it can make no hubs
          +-- device

They say who somebody is, not what he may do: grants say that, and for how long. So they live long, and begin in 1970: a
device whose clock has lost its battery must still know its friends.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fieldsync.errors import IdentityError
from fieldsync.limits import CERTIFICATE_BYTES_MAX, DEVICE_YEARS, HUB_YEARS, IDENTITY_NAME_CHARS_MAX, ROOT_YEARS
from fieldsync.trust.signing import public_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import Certificate

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


class Role(Enum):
    """What a certificate makes of its holder."""

    ROOT = "root"
    ISSUER = "issuer"
    HUB = "hub"
    DEVICE = "device"


YEARS = {Role.ROOT: ROOT_YEARS, Role.ISSUER: ROOT_YEARS, Role.HUB: HUB_YEARS, Role.DEVICE: DEVICE_YEARS}
LIFE_MS = {role: years * YEAR // timedelta(milliseconds=1) for role, years in YEARS.items()}
PATHS = {Role.ROOT: 1, Role.ISSUER: 0}  # how many certificates of issuers may follow


def make_root(key: Ed25519PrivateKey, name: str, now_ms: int) -> Certificate:
    """The root certificate of an organisation of that name, signed by itself."""
    public = key.public_key()
    return _build(public, _name(name, Role.ROOT), _name(name, Role.ROOT), Role.ROOT, key, public, now_ms)


def issue(
    public: bytes, name: str, role: Role, issuer: Certificate, issuer_key: Ed25519PrivateKey, now_ms: int
) -> Certificate:
    """A certificate for the holder of a public key, from a root or, if it is for a device, from an issuer."""
    by_root = role_of(issuer) is Role.ROOT
    if role is Role.ROOT or (not by_root and role is not Role.DEVICE):
        raise IdentityError(f"{role_of(issuer).value} can make no certificate of a {role.value}")
    if public_of(issuer_key) != public_key(issuer):
        raise IdentityError("an issuer's key and certificate that do not belong together")
    key = Ed25519PublicKey.from_public_bytes(public)
    return _build(key, _name(name, role), issuer.subject, role, issuer_key, issuer_key.public_key(), now_ms)


def check_name(name: str) -> None:
    """IdentityError unless somebody can be called that."""
    if not 0 < len(name) <= IDENTITY_NAME_CHARS_MAX or not name.isprintable():
        raise IdentityError(f"a name is 1 to {IDENTITY_NAME_CHARS_MAX} printable characters, not {name[:80]!r}")


def _name(name: str, role: Role) -> x509.Name:
    check_name(name)
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _build(
    public: Ed25519PublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    role: Role,
    signer: Ed25519PrivateKey,
    signer_public: Ed25519PublicKey,
    now_ms: int,
) -> Certificate:
    path = PATHS.get(role)
    is_authority = path is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(datetime.fromtimestamp(now_ms / 1000, UTC) + YEARS[role] * YEAR)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=path), critical=True)
        .add_extension(_usage(is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_public), critical=False)
    )
    if not is_authority:
        both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(both_ends, critical=False)
    return builder.sign(signer, None)


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def decode(der: bytes) -> Certificate:
    """The certificate of its bytes. IdentityError where they are none of ours."""
    try:
        if len(der) > CERTIFICATE_BYTES_MAX:
            raise ValueError(f"{len(der)} bytes")
        certificate = x509.load_der_x509_certificate(der)
        public_key(certificate)
        role_of(certificate)
    except ValueError as error:
        raise IdentityError(f"not a certificate: {error}") from None
    return certificate


def encode(certificate: Certificate) -> bytes:
    """The bytes of a certificate: DER."""
    return certificate.public_bytes(Encoding.DER)


def left_ms(certificate: Certificate, now_ms: int) -> int:
    """How long a certificate is still valid; negative if it is not."""
    end = certificate.not_valid_after_utc
    return (end - BEGINNING) // timedelta(milliseconds=1) - now_ms


def public_key(certificate: Certificate) -> bytes:
    """The raw public key of a certificate's holder. IdentityError unless it is of the one kind in use."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("a certificate whose key is not Ed25519")
    return key.public_bytes_raw()


def role_of(certificate: Certificate) -> Role:
    """What a certificate says that its holder is; `is_hub` tells whether to believe that."""
    try:
        return Role(_only(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME))
    except ValueError:
        raise IdentityError("a certificate without a role") from None


def name_of(certificate: Certificate) -> str:
    """The name that its issuer gave to a certificate's holder."""
    return _only(certificate, NameOID.COMMON_NAME)


def _only(certificate: Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise IdentityError("a certificate whose subject is not of this form")
    return found[0].value


def names_issuer(certificate: Certificate, public: bytes) -> bool:
    """Whether a certificate says that the holder of a public key has issued it."""
    try:
        named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        return False
    return named == x509.SubjectKeyIdentifier.from_public_key(Ed25519PublicKey.from_public_bytes(public)).digest


def is_issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether an issuer has signed a certificate itself."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def is_hub(certificate: Certificate, root: Certificate) -> bool:
    """Whether the root itself says that this is a hub's: an issuer's word is not enough."""
    return role_of(certificate) is Role.HUB and is_issued_by(certificate, root)
