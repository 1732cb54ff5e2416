"""Statements and what they come to: signatures, who may say what, the same on every replica whatever the order."""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldsync import codec
from fieldsync.errors import DecodeError, LimitExceeded
from fieldsync.trust import statements
from fieldsync.trust.grants import Roll, covers
from fieldsync.trust.rights import CONTROL, Reason
from fieldsync.trust.signing import id_of, public_of
from fieldsync.trust.statements import Assignment, Author, Grant, Hub, Issuer, Member, Revocation

KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"\0"))
    for name in ("root", "issuer", "hub", "ada", "ben", "eve")
}
ROOT, ISSUER, HUB, ADA, BEN, EVE = (id_of(public_of(key)) for key in KEYS.values())
A, B = b"author-a", b"author-b"
END = 1_000


def said(by, statement):
    return statements.read(statements.sign(KEYS[by], statement))


def grant(device, write=(), read=(), assign=(), until_ms=END, serial=1):
    return Grant(device, tuple(read), tuple(write), tuple(assign), until_ms, 0, serial)


BASE = [said("root", Issuer(ISSUER, "office")), said("root", Hub(HUB, "office"))]


def roll(*more):
    return Roll(ROOT, [*BASE, *more])


EVERY = [
    Issuer(ADA, "ada"),
    Hub(ADA, "ada"),
    Member(ADA, "ada", (b"certificate", b"its issuer's"), 1),
    grant(ADA, write=["job/*", "ü"]),
    Author(ADA, A),
    Revocation(ADA, ((A, 7), (B, 0))),
    Assignment(ADA, ("job/7",), 3),
]


@pytest.mark.parametrize("statement", EVERY, ids=lambda one: type(one).__name__)
def test_a_statement_comes_back_as_it_was_said(statement):
    read = said("ada", statement)
    assert (read.signer, read.statement) == (ADA, statement)


@pytest.mark.parametrize("statement", EVERY, ids=lambda one: type(one).__name__)
def test_no_byte_of_a_statement_can_be_altered(statement):
    data = statements.sign(KEYS["issuer"], statement)
    for at in range(len(data)):
        for flip in (1, 0x80):
            with pytest.raises(DecodeError):
                statements.read(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            statements.read(data[:end])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(DecodeError):
        statements.read(data)


@pytest.mark.parametrize(
    "body",
    [
        {"is": "grant"},
        {"is": "nothing known", "device": ADA},
        {"is": "author", "device": ADA, "author": b"short"},
        {"is": "author", "device": ADA.upper() + "x", "author": A},
        {"is": "author", "device": ADA, "author": A, "more": 1},
        {"is": "hub", "device": ADA, "name": ""},
        {"is": "assignment", "device": ADA, "scopes": [1], "serial": 1},
        {"is": "assignment", "device": ADA, "scopes": [], "serial": -1},
        {"is": "revocation", "device": ADA, "last": [[A, 1], [A, 2]]},
        {"is": "revocation", "device": ADA, "last": [[A]]},
        [],
        {"device": ADA},
    ],
)
def test_a_body_that_does_not_say_what_it_should(body):
    key = KEYS["issuer"]
    raw = codec.encode(body)
    with pytest.raises(DecodeError):
        statements.read(codec.encode([public_of(key), key.sign(statements.DOMAIN + raw), raw]))


def test_a_statement_that_says_too_much():
    with pytest.raises(LimitExceeded):
        statements.sign(KEYS["issuer"], Assignment(ADA, tuple(f"job/{n}" for n in range(1_001)), 1))
    with pytest.raises(LimitExceeded):
        statements.sign(KEYS["issuer"], Assignment(ADA, tuple(f"{n:0200}" for n in range(400)), 1))


@pytest.mark.parametrize(
    ("pattern", "scope", "is_covered"),
    [
        ("job/7", "job/7", True),
        ("job/7", "job/70", False),
        ("job/*", "job/7", True),
        ("job/*", "job", False),
        ("*", "anything", True),
        ("*", CONTROL, False),
        ("j*b/7", "job/7", False),
        ("", "job/7", False),
    ],
)
def test_what_a_pattern_covers(pattern, scope, is_covered):
    assert covers([pattern], scope) == is_covered


def test_only_who_may_say_something_is_heard():
    for by in ("ada", "hub", "eve"):
        known = roll(
            said(by, grant(EVE, write=["*"])),
            said(by, Hub(EVE, "eve")),
            said(by, Issuer(EVE, "eve")),
            said("eve", grant(EVE, write=["*"])),
            said(by, Revocation(BEN, ())),
        )
        assert known.grant(EVE) is None
        assert not known.is_hub(EVE)
        assert not known.is_revoked(BEN)
        assert known.why_not_read(EVE, "job/7", 0) is Reason.UNKNOWN_DEVICE
    known = roll(said("issuer", Hub(EVE, "eve")), said("issuer", Issuer(EVE, "eve")), said("eve", grant(EVE, ["*"])))
    assert (known.is_hub(EVE), known.grant(EVE)) == (False, None)


def test_nobody_answers_for_authors_but_their_device_and_an_issuer():
    known = roll(said("ada", Author(ADA, A)), said("eve", Author(ADA, B)), said("issuer", Author(BEN, B)))
    assert (known.devices_of(A), known.devices_of(B)) == ({ADA}, {BEN})


def test_what_a_device_may_do_now():
    known = roll(
        said("issuer", grant(ADA, write=["job/*"], read=["prices"])), said("issuer", Member(BEN, "b", (b"",), 1))
    )
    assert known.why_not_write(ADA, "job/7", END) is None
    assert known.why_not_read(ADA, "job/7", END) is None
    assert known.why_not_read(ADA, "prices", END) is None
    assert known.why_not_write(ADA, "prices", END) is Reason.READ_ONLY
    assert known.why_not_read(ADA, "payroll", END) is Reason.NOT_GRANTED
    assert known.why_not_read(ADA, "job/7", END + 1) is Reason.EXPIRED
    assert known.why_not_read(ADA, CONTROL, END + 1) is None
    assert known.why_not_read(BEN, "job/7", 0) is Reason.NOT_GRANTED
    assert known.why_not_read(EVE, "job/7", 0) is Reason.UNKNOWN_DEVICE
    assert known.why_not_write(HUB, "payroll", END + 1) is None


def test_the_latest_grant_counts_and_what_was_written_under_others_stays():
    known = roll(
        said("issuer", grant(ADA, write=["job/*"], serial=1)),
        said("issuer", grant(ADA, read=["job/7"], serial=2)),
        said("ada", Author(ADA, A)),
    )
    assert known.why_not_write(ADA, "job/7", 0) is Reason.READ_ONLY
    assert known.why_not_read(ADA, "job/8", 0) is Reason.NOT_GRANTED
    assert known.why_not_written(A, "job/8") is None
    assert known.why_not_written(A, "payroll") is Reason.AUTHOR_NOT_GRANTED
    assert known.why_not_written(B, "job/8") is Reason.UNKNOWN_AUTHOR
    assert known.next_serial(ADA) == 3


def test_who_is_revoked_is_told_nothing_and_what_he_wrote_before_stays():
    known = roll(
        said("issuer", grant(ADA, write=["job/*"])),
        said("ada", Author(ADA, A)),
        said("ada", Author(ADA, B)),
        said("issuer", Revocation(ADA, ((A, 7),))),
    )
    for scope in ("job/7", "payroll", CONTROL):
        assert known.why_not_read(ADA, scope, 0) is Reason.REVOKED
        assert known.why_not_write(ADA, scope, 0) is Reason.REVOKED
    assert known.why_not_written(A, "job/7") is None  # it merges everywhere, and what is void does not read
    assert (known.last_counted(A), known.last_counted(B)) == (7, 0)
    assert roll(said("ada", Author(ADA, A))).last_counted(A) is None


def test_of_two_revocations_the_stricter_counts():
    known = roll(
        said("ada", Author(ADA, A)),
        said("ada", Author(ADA, B)),
        said("issuer", Revocation(ADA, ((A, 7), (B, 2)))),
        said("root", Revocation(ADA, ((A, 5),))),
    )
    assert (known.last_counted(A), known.last_counted(B)) == (5, 0)


def test_a_claim_on_another_devices_author_neither_helps_nor_harms():
    known = roll(
        said("issuer", grant(ADA, write=["job/*"])),
        said("ada", Author(ADA, A)),
        said("eve", Author(EVE, A)),
        said("issuer", Revocation(EVE, ())),
    )
    assert known.why_not_written(A, "job/7") is None
    assert known.last_counted(A) is None


def test_what_a_liar_made_count_again_is_void_once_he_is_out_with_all_of_his():
    out = said("issuer", Revocation(EVE, ((A, 3),)))
    known = [said("eve", Author(EVE, A)), out]
    assert roll(*known).last_counted(A) == 3
    known.append(said("ben", Author(BEN, A)))
    assert roll(*known).last_counted(A) is None
    known.append(said("issuer", Revocation(BEN, ())))
    assert roll(*known).last_counted(A) == 3


def test_an_issuer_that_the_root_revoked_is_heard_no_more():
    known = roll(said("issuer", grant(ADA, write=["*"])), said("root", Revocation(ISSUER, ())))
    assert known.grant(ADA) is None


def test_hubs_and_issuers_are_revoked_by_the_root_alone():
    for device in (HUB, ISSUER, ROOT):
        assert not roll(said("issuer", Revocation(device, ()))).is_revoked(device)
    assert not roll(said("root", Revocation(HUB, ()))).is_hub(HUB)


def test_assignments_count_as_far_as_their_signer_may():
    known = roll(
        said("issuer", grant(BEN, assign=["job/*"])),
        said("ben", Assignment(ADA, ("job/7", "payroll"), 1)),
        said("eve", Assignment(ADA, ("job/8",), 9)),
        said("issuer", Assignment(ADA, ("prices",), 2)),
        said("issuer", Assignment(ADA, ("old",), 1)),
        said("ben", Assignment(BEN, ("job/9",), 1)),
    )
    assert known.assigned(ADA) == {"job/7", "prices"}


def test_who_may_assign_no_more_has_assigned_nothing():
    """A right that was taken away is not used by what says that it was said before."""
    known = [said("issuer", grant(BEN, assign=["job/*"])), said("ben", Assignment(ADA, ("job/7",), 1))]
    assert roll(*known).assigned(ADA) == {"job/7"}
    known.append(said("issuer", grant(BEN, write=["job/*"], assign=["job/8"], serial=2)))
    known.append(said("ben", Assignment(ADA, ("job/7", "job/8"), 2)))
    assert roll(*known).assigned(ADA) == {"job/8"}


SOME = [
    *BASE,
    said("root", Revocation(HUB, ())),
    said("issuer", Revocation(HUB, ())),
    said("issuer", Hub(EVE, "eve")),
    *[said("issuer", grant(ADA, write=[f"job/{n}"], serial=n % 2, until_ms=n)) for n in range(4)],
    *[said("issuer", Member(ADA, f"ada {n}", (bytes([n]),), 1)) for n in range(3)],
    said("ada", Author(ADA, A)),
    said("eve", Author(EVE, A)),
    said("eve", Author(EVE, B)),
    said("issuer", Revocation(EVE, ((A, 3), (B, 1)))),
    said("root", Revocation(EVE, ((B, 4),))),
    *[said("issuer", Assignment(ADA, (f"job/{n}",), 1)) for n in range(3)],
    said("issuer", grant(BEN, assign=["*"])),
    said("ben", Assignment(ADA, ("payroll",), 1)),
    said("root", Revocation(BEN, ())),
]


def summary(known):
    devices = (ADA, BEN, EVE, HUB, ISSUER)
    return (
        [(known.grant(one), known.name(one), known.is_hub(one), known.is_revoked(one)) for one in devices],
        [known.assigned(one) for one in devices],
        [(known.devices_of(author), known.last_counted(author)) for author in (A, B)],
        [known.why_not_written(author, f"job/{n}") for author in (A, B) for n in range(4)],
        known.devices(),
    )


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.data())
def test_a_roll_is_the_same_in_whatever_order_it_was_heard(chance: random.Random, data):
    some = data.draw(st.lists(st.sampled_from(SOME), unique_by=lambda one: one.data))
    twice = [*some, *some]
    chance.shuffle(twice)
    assert summary(Roll(ROOT, twice)) == summary(Roll(ROOT, some))
