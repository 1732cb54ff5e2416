"""Who this device is: keys and certificates in a folder of its own, and the TLS contexts that follow from them.

    organisation/   root.key, root.crt       keep it offline: whoever has it can make hubs
    hub/            device.key, device.crt   as any device; and
                    issuer.key, issuer.crt   with which it admits devices
    device/         device.key, device.crt   the certificate, then its issuer's
                    root.crt                 the only authority in which a device believes; of a hub, too
                    said                     statements that came with them, for the databases of the device

Folders are made 0700 and keys 0600 from the first byte on; a key that others could read is refused. TLS is 1.3, both
sides show a certificate of the organisation, and sessions are not resumed: each handshake looks at them anew.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
except ImportError:
    from fieldsync.errors import MissingDependency

    raise MissingDependency("identities need the package cryptography: pip install cryptography") from None

from fieldsync import codec, files
from fieldsync.errors import IdentityError
from fieldsync.trust import certificates, statements
from fieldsync.trust.certificates import Role
from fieldsync.trust.signing import id_of, public_of
from fieldsync.trust.statements import Hub, Issuer, Member

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fieldsync.trust.statements import Statement

ROOT, ISSUER, DEVICE, SAID = "root", "issuer", "device", "said"
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER
OTHERS, WRITABLE = 0o077, 0o022  # permissions that a key, or a certificate, may not have


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of an authenticated connection."""

    device: str  # id
    name: str
    is_hub: bool
    certificate: Certificate | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Organisation:
    """The root of a network of replicas."""

    key: Ed25519PrivateKey
    certificate: Certificate

    @classmethod
    def create(cls, folder: str | os.PathLike[str], name: str, now_ms: int) -> Organisation:
        """Make a root in a new folder. FileExistsError where there is one."""
        key = Ed25519PrivateKey.generate()
        certificate = certificates.make_root(key, name, now_ms)
        place = _make_folder(folder)
        _write_key(place / f"{ROOT}.key", key)
        _write_certificates(place / f"{ROOT}.crt", certificate)
        return cls(key, certificate)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Organisation:
        """The root of a folder. IdentityError."""
        _check_folder(Path(folder))
        return cls(_read_key(Path(folder) / f"{ROOT}.key"), _read_certificates(Path(folder) / f"{ROOT}.crt")[0])

    @property
    def id(self) -> str:
        """Its name in the network: of its key."""
        return id_of(public_of(self.key))

    def create_hub(self, folder: str | os.PathLike[str], name: str, now_ms: int) -> Identity:
        """Make a hub in a new folder: its own key, and one with which it admits devices. FileExistsError."""
        place = _make_folder(folder)
        for file, role in ((DEVICE, Role.HUB), (ISSUER, Role.ISSUER)):
            key = Ed25519PrivateKey.generate()
            certificate = certificates.issue(public_of(key), name, role, self.certificate, self.key, now_ms)
            _write_key(place / f"{file}.key", key)
            _write_certificates(place / f"{file}.crt", certificate)
        _write_certificates(place / f"{ROOT}.crt", self.certificate)
        hub = Identity.load(place)
        assert hub.issuer is not None
        chain = tuple(map(certificates.encode, hub.chain))  # for those who seal something to it
        said: list[Statement] = [Hub(hub.device, name), Issuer(hub.issuer.id, name), Member(hub.device, name, chain, 1)]
        _write(place / SAID, codec.encode([statements.sign(self.key, one) for one in said]))
        return hub


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """What a hub admits devices with."""

    key: Ed25519PrivateKey
    certificate: Certificate

    @property
    def id(self) -> str:
        """Its name in the network: of its key."""
        return id_of(public_of(self.key))

    def admit(self, public: bytes, name: str, now_ms: int) -> list[Certificate]:
        """The certificate of a device, and this issuer's own, which it is to show along with it."""
        device = certificates.issue(public, name, Role.DEVICE, self.certificate, self.key, now_ms)
        return [device, self.certificate]


@dataclass(frozen=True, slots=True)
class Identity:
    """A device of an organisation, and what it proves that with."""

    folder: Path
    key: Ed25519PrivateKey
    chain: list[Certificate]  # its certificate, then its issuer's
    root: Certificate
    issuer: IssuerKey | None  # of a hub

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Identity:
        """The identity of a folder. IdentityError where it is not whole, does not fit together or lies open."""
        place = Path(folder)
        _check_folder(place)
        chain = _read_certificates(place / f"{DEVICE}.crt")
        key = _read_key(place / f"{DEVICE}.key")
        root = _read_certificates(place / f"{ROOT}.crt")[0]
        issuer = None
        if (place / f"{ISSUER}.key").exists():
            issuer = IssuerKey(_read_key(place / f"{ISSUER}.key"), _read_certificates(place / f"{ISSUER}.crt")[0])
        check_chain(chain, root, public_of(key))
        return cls(place, key, chain, root, issuer)

    @staticmethod
    def create_key(folder: str | os.PathLike[str]) -> Ed25519PrivateKey:
        """The key of a device that is about to enrol, in a folder of its own; or the one that an earlier try left.

        FileExistsError where the folder is a device's already: before a code is used up for nothing.
        """
        path = Path(folder) / f"{DEVICE}.key"
        if (path.parent / f"{DEVICE}.crt").exists():
            raise FileExistsError(f"{folder} holds the keys of a device already: name a new folder")
        if path.exists():
            return _read_key(path)
        key = Ed25519PrivateKey.generate()
        _write_key(_make_folder(folder) / path.name, key)
        return key

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], chain: list[Certificate], root: Certificate, said: list[bytes]
    ) -> Identity:
        """Keep what a device was given when it enrolled, beside its key. IdentityError."""
        place = Path(folder)
        check_chain(chain, root, public_of(_read_key(place / f"{DEVICE}.key")))
        _write(place / SAID, codec.encode(said))
        _write_certificates(place / f"{ROOT}.crt", root)
        _write_certificates(place / f"{DEVICE}.crt", *chain)  # last: from here on it is a device
        return cls.load(place)

    def said(self) -> list[bytes]:
        """The statements that came with the identity."""
        path = self.folder / SAID
        return list(codec.decode(_read(path))) if path.exists() else []

    def renew(self, chain: list[Certificate]) -> Identity:
        """Keep a newer certificate of the same device in place of the one in the folder. IdentityError."""
        check_chain(chain, self.root, public_of(self.key))
        _write_certificates(self.folder / f"{DEVICE}.crt", *chain)
        return Identity.load(self.folder)

    @property
    def device(self) -> str:
        """The id of the device: of its public key, the same through all renewals."""
        return id_of(public_of(self.key))

    @property
    def name(self) -> str:
        """The name that people gave to the device."""
        return certificates.name_of(self.chain[0])

    @property
    def organisation(self) -> str:
        """The id of the organisation: of its root's public key."""
        return id_of(certificates.public_key(self.root))

    @property
    def is_hub(self) -> bool:
        """Whether the root says that this is a hub."""
        return certificates.is_hub(self.chain[0], self.root)

    def server_context(self) -> ssl.SSLContext:
        """TLS for who is dialled: 1.3 only, and nobody gets in without a certificate of the organisation."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """TLS for who dials: 1.3 only. Who answers is told by `peer_of`, whatever address it was found under."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def enrolment_context(self) -> ssl.SSLContext:
        """TLS for who is dialled by those that have no certificate yet: for nothing but enrolment."""
        context = _bare_context(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{DEVICE}.crt", self.folder / f"{DEVICE}.key")
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = _bare_context(protocol)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self.root.public_bytes(DER))
        context.load_cert_chain(self.folder / f"{DEVICE}.crt", self.folder / f"{DEVICE}.key")
        return context

    def peer_of(self, der: bytes | None) -> Peer:
        """Who showed a certificate in a handshake of these contexts, which saw to its validity. IdentityError."""
        if not der:
            raise IdentityError("the peer showed no certificate")
        certificate = certificates.decode(der)
        if certificates.role_of(certificate) not in (Role.DEVICE, Role.HUB):
            raise IdentityError("the peer showed a certificate that is no device's")
        device, is_hub = id_of(certificates.public_key(certificate)), certificates.is_hub(certificate, self.root)
        return Peer(device, certificates.name_of(certificate), is_hub, certificate)


def _bare_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a device is known by its key: its address may be any
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def pinning_context() -> ssl.SSLContext:
    """TLS for a device that enrols: it believes no authority yet, and has to look at the key of who answers."""
    context = _bare_context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE
    return context


def check_chain(chain: list[Certificate], root: Certificate, public: bytes) -> None:
    """IdentityError unless certificates lead from a root to the holder of a public key."""
    if not chain or certificates.public_key(chain[0]) != public:
        raise IdentityError("a certificate that is not of this device's key")
    if certificates.role_of(chain[0]) not in (Role.DEVICE, Role.HUB):
        raise IdentityError("a certificate that is no device's")
    for issued, issuer in zip(chain, [*chain[1:], root], strict=True):
        if not certificates.is_issued_by(issued, issuer):
            raise IdentityError("certificates that do not lead to the organisation's root")
    if len(chain) > 2 or (len(chain) > 1 and certificates.role_of(chain[1]) is not Role.ISSUER):
        raise IdentityError("a certificate whose issuer may issue none")


# --- the folder ---


def _make_folder(folder: str | os.PathLike[str]) -> Path:
    """A new folder, or one with nothing in it but what a power cut left of a file."""
    place = Path(folder)
    place.mkdir(0o700, parents=True, exist_ok=True)
    if any(path.suffix != ".part" for path in place.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    place.chmod(0o700)
    _check_folder(place)
    return place


def _check_folder(place: Path) -> None:
    """IdentityError where others may replace what is in it."""
    _check_owner(place, WRITABLE, "`chmod 700` it, and look whether what is in it is still what it was")


def _write(path: Path, data: bytes) -> None:
    with files.whole(path) as file:
        file.write(data)


def _write_key(path: Path, key: Ed25519PrivateKey) -> None:
    _write(path, key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def _write_certificates(path: Path, *some: Certificate) -> None:
    _write(path, b"".join(one.public_bytes(PEM) for one in some))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror or error}") from None


def _check_owner(path: Path, others: int, advice: str) -> None:
    """IdentityError where a file is somebody else's, or gives others these permissions."""
    with suppress(FileNotFoundError):
        status = path.stat()
        if os.name == "posix" and (status.st_mode & others or status.st_uid not in (0, os.geteuid())):
            raise IdentityError(f"{path} is open to others: {advice}")


def _read_key(path: Path) -> Ed25519PrivateKey:
    """A key that nobody else may read or replace."""
    _check_owner(path, OTHERS, "`chmod 600` it, and revoke it if they may have read it")
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: not a key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path}: a key that is not Ed25519")
    return key


def _read_certificates(path: Path) -> list[Certificate]:
    """Certificates that nobody else may replace: whose root this is decides whom to believe."""
    _check_owner(path, WRITABLE, "`chmod 644` it, and look whether it is still what it was")
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise IdentityError(f"{path}: not a certificate: {error}") from None
    return [certificates.decode(one.public_bytes(DER)) for one in found]
