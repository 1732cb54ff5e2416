"""Enrolment: a code that a hub gave out makes a device of whoever shows it first.

    hub                                        new device
      invite(...) -> code, as text or QR
                                               looks at the key of who answers at the code's address: is it the hub's?
                                          <-   request: the secret of the code, its new public key, signed with it
      answer: its certificate, the root's,
      what the hub says of it             ->   all that is kept (identity.py)

A code is good for a stated time and for one key. Whoever asks again with that key, because the answer was lost on its
way, gets another. The hub keeps a hash of the secret only. The code names the hub by its key, so nothing is said to
anybody else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldsync import codec, files
from fieldsync.errors import DecodeError, IdentityError
from fieldsync.limits import GRANT_DAYS, INVITE_ADDRESS_BYTES_MAX
from fieldsync.trust import certificates, statements
from fieldsync.trust.identity import Identity
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import Reason, tell
from fieldsync.trust.signing import ID_BYTES, PUBLIC_BYTES, id_of, is_signed, public_of
from fieldsync.trust.statements import Grant, Member

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fieldsync.trust.membership import Membership

SECRET_BYTES = 16
VERSION = 1
DOMAIN = b"fieldsync enrolment\0"
INVITES = "invites"
SECOND_MS = 1_000


@dataclass(frozen=True, slots=True)
class Invite:
    """What a code says."""

    hub: str  # device id
    secret: bytes
    address: str  # where the hub answers

    @property
    def code(self) -> str:
        """As text to be typed or read aloud, or drawn as a QR code: letters and digits, in groups."""
        raw = bytes([VERSION]) + bytes.fromhex(self.hub) + self.secret + self.address.encode()
        text = base64.b32encode(raw + _check(raw)).decode().rstrip("=")
        return "-".join(text[at : at + 5] for at in range(0, len(text), 5))

    @classmethod
    def of(cls, code: str) -> Invite:
        """What a code says, however it was spaced. IdentityError where it was mistyped."""
        text = re.sub(r"[\s-]", "", code).upper()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
            raw, check = raw[:-2], raw[-2:]
            address = raw[1 + ID_BYTES + SECRET_BYTES :].decode()
        except ValueError:
            raw = check = b""
            address = ""
        if not raw or raw[0] != VERSION or check != _check(raw) or not address:
            raise IdentityError("that is no code of an invitation, or it was mistyped")
        return cls(raw[1 : 1 + ID_BYTES].hex(), raw[1 + ID_BYTES : 1 + ID_BYTES + SECRET_BYTES], address)


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(DOMAIN + raw).digest()[:2]


# --- the hub ---


def invite(
    membership: Membership,
    name: str,
    address: str,
    *,
    seconds: int,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
    assign: Iterable[str] = (),
    days: int = GRANT_DAYS,
    renews: bool = True,
) -> Invite:
    """Ask somebody in, under a name, to be granted that; good for so many seconds. address: where this hub answers.

    IdentityError, or LimitExceeded where that is more than a grant may say.
    """
    certificates.check_name(name)  # here, and not when somebody comes and uses the code up
    now_ms = membership.replica.wall_ms()
    patterns = tuple(read), tuple(write), tuple(assign)
    grant = Grant(membership.identity.device, *patterns, now_ms + days * DAY_MS, days if renews else 0, 0)
    statements.sign(membership.issuer().key, grant)
    if not 0 < len(address.encode()) <= INVITE_ADDRESS_BYTES_MAX:
        raise IdentityError(f"an address has 1 to {INVITE_ADDRESS_BYTES_MAX} bytes")
    made = Invite(membership.identity.device, secrets.token_bytes(SECRET_BYTES), address)
    until_ms = now_ms + seconds * SECOND_MS
    scopes = {"read": [*grant.read], "write": [*grant.write], "assign": [*grant.assign]}
    rights = {**scopes, "days": days, "renews": renews}
    folder = membership.identity.folder / INVITES
    folder.mkdir(0o700, exist_ok=True)
    files.create(_place(folder, made.secret), codec.encode({"name": name, "until_ms": until_ms, **rights}))
    return made


def _place(folder: Path, secret: bytes) -> Path:
    return folder / hashlib.sha256(DOMAIN + secret).hexdigest()


def answer(membership: Membership, request: bytes) -> bytes:
    """A hub's answer to a request: what makes a device of who asks, or why it does not."""
    try:
        return codec.encode(_admit(membership, *_read_request(membership, request)))
    except IdentityError as error:
        return codec.encode({"refused": str(error), "code": str(error.code)})


def is_request(data: bytes) -> bool:
    """Whether somebody asks for enrolment, and not for something else."""
    try:
        parts = codec.decode(data)
    except DecodeError:
        return False
    return type(parts) is list and [type(part) for part in parts] == [bytes, bytes, bytes]


def _read_request(membership: Membership, request: bytes) -> tuple[bytes, bytes]:
    """The secret and the public key of a request. IdentityError."""
    if not is_request(request):
        raise IdentityError("that is no request for enrolment")
    secret, public, signature = codec.decode(request)
    if len(public) != PUBLIC_BYTES or not is_signed(public, signature, _asked(membership.identity.device, secret)):
        raise IdentityError("a request for enrolment that is not signed with its own key")
    return secret, public


def _asked(hub: str, secret: bytes) -> bytes:
    return DOMAIN + bytes.fromhex(hub) + secret


def _admit(membership: Membership, secret: bytes, public: bytes) -> dict[str, Any]:
    identity, now_ms = membership.identity, membership.replica.wall_ms()
    path = _place(identity.folder / INVITES, secret)
    if identity.issuer is None or not path.exists():
        raise _refused(Reason.CODE_UNKNOWN)
    invited = codec.decode(path.read_bytes())
    if now_ms > invited["until_ms"]:
        raise _refused(Reason.CODE_EXPIRED)
    device = id_of(public)
    if membership.roll.is_revoked(device):
        raise _refused(Reason.KEY_REVOKED)
    _claim(path.with_suffix(".used"), public)
    member = membership.roll.member(device)
    if member is None:
        chain = identity.issuer.admit(public, invited["name"], now_ms)
        member = Member(device, invited["name"], tuple(map(certificates.encode, chain)), 1)
        rights = {name: invited[name] for name in ("read", "write", "assign", "days", "renews")}
        membership.grant(device, **rights)  # first: where this is cut off, whoever asks again is granted it again
        membership.say(member)
    return {
        "chain": list(member.chain),
        "root": certificates.encode(identity.root),
        "said": membership.said_of(device),
    }


def _claim(path: Path, public: bytes) -> None:
    """Use a code up for a key: the first counts, whoever asks at the same time."""
    try:
        files.create(path, public)  # so that it survives a power cut
    except FileExistsError:
        if path.read_bytes() != public:
            raise _refused(Reason.CODE_USED) from None


def _refused(reason: Reason) -> IdentityError:
    return IdentityError(tell(reason), code=reason)


# --- the new device ---


def enrol(code: str, folder: str | os.PathLike[str], ask: Callable[[Invite, bytes], bytes]) -> Identity:
    """Make a device's identity in a new folder, by a code; ask: carries a request to the hub, and gives its answer.

    Where the answer was lost, the same call goes on. IdentityError where the hub refuses, or says what is not so.
    """
    invited = Invite.of(code)
    key = Identity.create_key(folder)
    signature = key.sign(_asked(invited.hub, invited.secret))
    given = codec.decode(ask(invited, codec.encode([invited.secret, public_of(key), signature])))
    if type(given) is not dict:
        raise IdentityError("that is no answer to a request")
    if "refused" in given:
        raise IdentityError(str(given["refused"]), code=str(given.get("code", "")))
    try:
        chain, root = [certificates.decode(der) for der in given["chain"]], certificates.decode(given["root"])
        said = [bytes(one) for one in given["said"]]
    except (KeyError, TypeError):
        raise IdentityError("that is no answer to a request") from None
    return Identity.create(folder, chain, root, said)
