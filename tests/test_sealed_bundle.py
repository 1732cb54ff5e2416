"""Bundles in an organisation: who can read one, whose word it is, and what of it is taken."""

import io
import random

import pytest
from tests.members import Node, admit, sync, told
from tests.talking import NOW_MS

import fieldsync as fs
from fieldsync.bundles import bundle, parcel, sealed_bundle, sealing
from fieldsync.bundles.sealing import Seal
from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, IdentityError
from fieldsync.limits import DEVICE_YEARS
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Stream
from fieldsync.trust import enrolment
from fieldsync.trust.certificates import encode
from fieldsync.trust.identity import Organisation
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import CONTROL, Reason
from fieldsync.trust.signing import public_of
from fieldsync.trust.statements import Member

SCOPE = "job/1"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.bundle"


def forge(path, writer, readers, make, chain=None):
    """A bundle that a device seals without looking at what it may."""
    with path.open("wb") as file:
        keys = [public_of(one.identity.key) for one in readers]
        seal = Seal(file, keys, writer.identity.key, chain or [encode(one) for one in writer.identity.chain])
        make(seal)
        seal.end()


def pack(node, *scopes):
    return lambda file: bundle.write(node.db.replica, file, list(scopes))


# --- from hand to hand ---


def test_a_bundle_reaches_a_device_that_never_met_its_writer(members, path):
    """What was said of either goes along: Ben knows nothing of Ada, and takes from her what she may write."""
    ben = members.device("ben", read=[SCOPE])
    ada = members.device("ada", write=[SCOPE])
    sync(ada, members.hub)
    ada.write(SCOPE, "a", text="confidential")
    assert ben.membership.roll.member(ada.device) is None
    written = ada.db.export(path, SCOPE, identity=ada.identity)
    assert sorted(written.readers) == ["ada", "ben", "office"]
    assert written.bytes == path.stat().st_size
    assert path.stat().st_mode & 0o077 == 0
    assert not any(word in path.read_bytes() for word in (b"confidential", b"job/1", b"ada"))
    read = ben.db.import_bundle(path, identity=ben.identity)
    assert (read.writer, read.scopes, read.changes, told(read)) == ("ada", [SCOPE], 1, [])
    assert ben.keys(SCOPE) == ["a"]
    assert ben.digests()[SCOPE] == ada.digests()[SCOPE]
    again = ben.db.import_bundle(path)  # the database knows whose it is by now
    assert (again.changes, again.scopes) == (0, [SCOPE])


def test_a_bundle_for_a_peer_holds_what_it_lacks(members, path, tmp_path):
    ada = members.device("ada", write=[SCOPE])
    for number in range(100):
        ada.write(SCOPE, f"n-{number}", text="x" * 100)
    sync(ada, members.hub)
    ada.write(SCOPE, "new")
    with pytest.raises(IdentityError, match="no device"):
        ada.db.export(path, SCOPE, known_to="offices")
    small = ada.db.export(path, SCOPE, known_to="office")
    whole = ada.db.export(tmp_path / "whole", SCOPE)
    assert small.changes == 1
    assert small.bytes < whole.bytes - 2_000
    assert members.hub.db.import_bundle(path).scopes == [SCOPE]
    assert "new" in members.hub.keys(SCOPE)


def test_a_hub_that_never_wrote_can_be_sealed_to(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    assert ada.db.export(path, readers=["office"]).readers == ["office"]
    assert members.hub.db.import_bundle(path).changes == 1
    with pytest.raises(IdentityError, match="sealed to others"):
        ada.db.import_bundle(path)


# --- readers ---


def test_the_readers_are_those_who_may_read_all_of_it(members, path):
    ada = members.device("ada", write=["job/*"])
    ben = members.device("ben", read=["job/1"])
    members.device("cyd", read=["job/*"])
    members.device("out", read=["job/*"])
    members.hub.membership.revoke(members.nodes[-1].device)
    members.device("late", read=["job/*"], days=1)
    sync(ada, members.hub)
    sync(ada, members.hub)
    ada.now_ms += 2 * DAY_MS
    for scope in ("job/1", "job/2"):
        ada.write(scope, "a")
    assert sorted(ada.db.export(path, "job/1").readers) == ["ada", "ben", "cyd", "office"]
    assert sorted(ada.db.export(path, "job/1", "job/2").readers) == ["ada", "cyd", "office"]
    assert sorted(ada.db.export(path, "job/1", readers=["ben", ben.device]).readers) == ["ben"]


@pytest.mark.parametrize(
    ("scopes", "readers", "message"),
    [
        (["job/1", "job/2"], ["ben"], "'ben' may not read 'job/2': no grant of the device covers it"),
        (["job/1"], ["out"], "'out' may not read 'job/1': the device was revoked"),
        (["job/1"], ["nobody"], "no device of the name or id 'nobody'"),
        (["job/1"], ["twin"], "several devices of the name or id 'twin'"),
        (["job/1"], ["unseen"], "the key of '[0-9a-f]{32}' is not known here"),
    ],
)
def test_who_may_not_read_all_of_it_is_no_reader(members, path, scopes, readers, message):
    ada = members.device("ada", write=["job/*"])
    members.device("ben", read=["job/1"])
    members.device("out", read=["job/1"])
    members.hub.membership.revoke(members.nodes[-1].device)
    for folder in ("twin", "other"):
        node = members.add(admit(members.hub.identity, members.folder / folder / "me", "twin" + folder, NOW_MS))
        node.db.close()
        members.nodes.remove(node)
        members.hub.membership.say(sealed_twin(node))
        members.hub.membership.grant(node.device, read=["job/1"])
    members.hub.membership.grant("f" * 32, read=["job/1"])  # of which nobody told the key
    sync(ada, members.hub)
    for scope in ("job/1", "job/2"):
        ada.write(scope, "a")
    named = ["f" * 32 if one == "unseen" else one for one in readers]
    with pytest.raises(IdentityError, match=message):
        ada.db.export(path, *scopes, readers=named)
    assert not path.exists()
    assert list(path.parent.glob("*.part")) == []


def test_a_certificate_of_another_key_is_nobodys(members, path):
    """Whatever an issuer says: a device's id is of its key, so nothing is sealed to another key in its name."""
    ada = members.device("ada", write=[SCOPE])
    ben = members.device("ben", read=[SCOPE])
    members.hub.membership.say(Member(ben.device, "ben", tuple(map(encode, ada.identity.chain)), 9))
    sync(ada, members.hub)
    ada.write(SCOPE, "a")
    with pytest.raises(IdentityError, match="the key of 'ben' is not known here"):
        ada.db.export(path, readers=["ben"])
    assert sorted(ada.db.export(path).readers) == ["ada", "office"]


def sealed_twin(node):
    return Member(node.device, "twin", tuple(map(encode, node.identity.chain)), 1)


def test_without_anybody_else_there_is_no_bundle(members, path, tmp_path):
    """A device that knows of nobody who may read says so, rather than writing a file for itself."""
    organisation = Organisation.create(tmp_path / "other", "Other", NOW_MS)
    hub = organisation.create_hub(tmp_path / "there", "there", NOW_MS)
    lone = members.add(admit(hub, tmp_path / "lone", "lone", NOW_MS))
    lone.write(SCOPE, "a")
    with pytest.raises(IdentityError, match="nobody else is known"):
        lone.db.export(path)
    with pytest.raises(IdentityError, match="no hub is known"):
        lone.db.leave(SCOPE, escrow=path)
    assert lone.keys(SCOPE) == ["a"]


# --- whose word it is ---


def test_of_a_device_that_may_only_read_nothing_is_taken(members, path):
    eve = members.device("eve", read=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE)
    report = members.hub.db.import_bundle(path)
    assert (report.scopes, report.changes, told(report)) == ([], 0, [(SCOPE, Reason.READ_ONLY, False)])
    assert members.hub.keys(SCOPE) == []
    assert SCOPE not in members.hub.digests()


def test_what_others_wrote_is_not_taken_from_who_may_only_read(members, path):
    """But where all of it is here already, nothing is refused."""
    members.hub.write(SCOPE, "a")
    eve = members.device("eve", read=[SCOPE])
    eve.db.enter(SCOPE)
    sync(eve, members.hub)
    eve.db.export(path, SCOPE)
    report = members.hub.db.import_bundle(path)
    assert (report.scopes, told(report)) == ([SCOPE], [])


def test_changes_of_authors_without_a_grant_are_refused_one_by_one(members, path):
    """A writer brings what somebody wrote who may not: that is left out, and nothing is joined."""
    eve = members.device("eve", read=[SCOPE])
    ada = members.device("ada", write=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE, plaintext=True)
    ada.db.replica.rights_of_files = type(ada.db.replica.rights_of_files)(lambda: Everybody())
    ada.db.import_bundle(path, plaintext=True)
    ada.write(SCOPE, "hers")
    ada.db.export(path, SCOPE)
    report = members.hub.db.import_bundle(path)
    assert members.hub.keys(SCOPE) == ["hers"]
    assert (report.incomplete, told(report)) == ([SCOPE], [(SCOPE, Reason.AUTHOR_NOT_GRANTED, False)])


class Everybody:
    """A roll by which everybody may write."""

    def why_not_written(self, _author, _scope):
        return None


def test_a_revoked_device_is_not_heard(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    members.hub.membership.revoke(ada.device)
    before = members.hub.digests()
    with pytest.raises(IdentityError, match="revoked"):
        members.hub.db.import_bundle(path)
    assert members.hub.digests() == before


def test_a_revocation_that_comes_with_a_bundle_counts_for_it(members, path):
    """Ben has not heard that Ada is out; her own bundle, which somebody else's news got into, tells him first."""
    ben = members.device("ben", read=[SCOPE])
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    members.hub.membership.revoke(ada.device)
    with ada.db.replica.writing() as batch:
        statements = [one.data for one in members.hub.membership.everything()]
        ada.membership._add(batch, statements)
    forge(path, ada, [ben], pack(ada, SCOPE))
    report = ben.db.import_bundle(path)
    assert told(report) == [(SCOPE, Reason.REVOKED, False)]
    assert ben.keys(SCOPE) == []


def test_a_grant_that_has_run_out_brings_nothing(members, path):
    ada = members.device("ada", write=[SCOPE], days=10, renews=False)
    ada.write(SCOPE, "a")
    ada.db.export(path)
    members.hub.now_ms += 11 * DAY_MS
    assert told(members.hub.db.import_bundle(path)) == [(SCOPE, Reason.EXPIRED, False)]
    members.hub.membership.grant(ada.device, write=[SCOPE])
    assert told(members.hub.db.import_bundle(path)) == []
    assert members.hub.keys(SCOPE) == ["a"]


def test_an_old_bundle_renews_no_grant(members, path):
    ada = members.device("ada", write=[SCOPE], days=10)
    ada.write(SCOPE, "a")
    ada.db.export(path)
    until = members.hub.membership.roll.grant(ada.device).until_ms
    members.hub.now_ms += 9 * DAY_MS
    members.hub.db.import_bundle(path)
    assert members.hub.membership.roll.grant(ada.device).until_ms == until


def test_a_certificate_that_has_expired_proves_nothing(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    members.hub.now_ms += (DEVICE_YEARS * 365 + 1) * DAY_MS
    with pytest.raises(IdentityError, match="expired"):
        members.hub.db.import_bundle(path)


def test_somebody_of_another_organisation_is_nobody(members, path, tmp_path):
    organisation = Organisation.create(tmp_path / "other", "Other", NOW_MS)
    stranger = members.add(organisation.create_hub(tmp_path / "there", "there", NOW_MS))
    stranger.write(SCOPE, "a")
    forge(path, stranger, [members.hub], pack(stranger, SCOPE))
    with pytest.raises(IdentityError, match="root"):
        members.hub.db.import_bundle(path)
    assert members.hub.keys(SCOPE) == []


def test_nobody_writes_in_anothers_name(members, path):
    """The certificates of one and the signature of another; and a device's own under a claim to be the hub."""
    ada = members.device("ada", write=[SCOPE])
    eve = members.device("eve", read=[SCOPE])
    eve.write(SCOPE, "forged")
    for victim in (ada, members.hub):
        chain = [encode(one) for one in victim.identity.chain]
        forge(path, eve, [members.hub], pack(eve, SCOPE), chain)
        with pytest.raises(DecodeError, match="not sealed by whom it names"):
            members.hub.db.import_bundle(path)
    assert members.hub.keys(SCOPE) == []


def test_a_reader_cannot_pass_a_bundle_on_as_sealed_for_another(members, path):
    ada = members.device("ada", write=[SCOPE])
    ben = members.device("ben", read=[SCOPE])
    sync(ada, members.hub)
    sync(ada, members.hub)
    ada.write(SCOPE, "for ben")
    ada.db.export(path, readers=["ben"])
    with path.open("rb") as file:
        content = sealing.Unsealed(file, ben.identity.key).read(1 << 20)[:-64]
    forge(path, ben, [members.hub], lambda file: file.write(content), [encode(one) for one in ada.identity.chain])
    with pytest.raises(DecodeError, match="not for these readers"):
        members.hub.db.import_bundle(path)


def test_nothing_that_was_said_is_taken_away_by_a_bundle(members, path):
    """A floor in the control scope, and no word of what lives there."""
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    with ada.db.replica.store.reading() as reader:
        context = reader.context(reader.scope(CONTROL).id)
    said = len(members.hub.membership.everything())

    def twist(file):
        out = bundle._Out(file)
        out.frame(bundle.Packed(CONTROL, Context(), context, context, bytes(16), b""))
        out.frame(Stream(0, None, True))
        out.end()

    forge(path, ada, [members.hub], twist)
    members.hub.db.import_bundle(path)
    assert len(members.hub.membership.everything()) == said
    assert members.hub.db.verify().faults == []


# --- plain ones ---


def test_plain_bundles_are_written_and_read_on_demand_only(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    with pytest.raises(ValueError, match="not plaintext"):
        ada.db.export(path, plaintext=True, readers=["office"])
    assert ada.db.export(path, plaintext=True).readers == []
    assert path.read_bytes().startswith(bundle.MAGIC)
    with pytest.raises(IdentityError, match="plaintext"):
        members.hub.db.import_bundle(path, identity=members.hub.identity)
    assert members.hub.keys(SCOPE) == []
    assert members.hub.db.import_bundle(path, plaintext=True).writer is None
    assert members.hub.keys(SCOPE) == ["a"]


def test_a_plain_bundle_is_judged_by_rights_wherever_there_are_any(members, path, tmp_path):
    """Also where the program names no identity: else it would be the way round all of them."""
    eve = members.device("eve", read=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE, plaintext=True)
    members.hub.db.close()
    with fs.open(tmp_path / "office.db", notes=tmp_path / "notes") as database:
        with pytest.raises(IdentityError, match="name the identity"):
            database.import_bundle(path, plaintext=True)
        refused = database.import_bundle(path, plaintext=True, identity=members.hub.identity).refusals
    assert [one.code for one in refused] == [Reason.AUTHOR_NOT_GRANTED]
    members.nodes.remove(members.hub)


def test_who_does_not_say_who_he_is_gets_no_plain_bundle_of_an_organisation(members, path):
    """The same file, opened by a program that knows of no identity."""
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    other = Database(Replica(SQLiteStore(ada.db.replica.store.path, full=False)))
    try:
        with pytest.raises(IdentityError, match="organisation"):
            other.export(path)
        with pytest.raises(IdentityError, match="organisation"):
            other.leave(SCOPE, escrow=path)
        ada.db.export(path)
        with pytest.raises(IdentityError, match="name the identity"):
            other.import_bundle(path)
    finally:
        other.close()


def test_a_seed_for_a_device_that_is_not_enrolled_is_plain(members, path, tmp_path):
    members.hub.write(SCOPE, "a")
    members.hub.db.export(path, SCOPE, plaintext=True)
    identity = admit(members.hub.identity, tmp_path / "new", "new", NOW_MS)
    replica = Replica(SQLiteStore(tmp_path / "seeded.db", full=False), wall_ms=lambda: NOW_MS)
    Database(replica).import_bundle(path)
    replica.close()
    node = Node(identity, tmp_path / "seeded.db")
    members.nodes.append(node)
    assert node.keys(SCOPE) == ["a"]


# --- escrows ---


def test_an_escrow_is_for_the_hubs(members, path):
    ada = members.device("ada", write=[SCOPE])
    members.device("ben", read=[SCOPE])
    sync(ada, members.hub)
    ada.write(SCOPE, "a")
    assert ada.db.leave(SCOPE, escrow=path).readers == ["office"]
    assert members.hub.db.import_bundle(path).changes == 1
    assert members.hub.keys(SCOPE) == ["a"]


def test_who_has_just_enrolled_can_seal_to_the_hub(members, path, tmp_path):
    code = enrolment.invite(members.hub.membership, "new", "wss://here", seconds=60, write=[SCOPE]).code
    answer = enrolment.answer
    identity = enrolment.enrol(code, tmp_path / "new", lambda _, request: answer(members.hub.membership, request))
    new = members.add(identity)
    new.write(SCOPE, "a")
    assert new.db.leave(SCOPE, escrow=path).readers == ["office"]
    assert members.hub.db.import_bundle(path).changes == 1


def test_a_whole_escrow_brings_the_scope_back(members, path):
    """Of a scope that this device may only read, too."""
    members.hub.write(SCOPE, "a")
    ada = members.device("ada", read=[SCOPE])
    ada.db.enter(SCOPE)
    sync(ada, members.hub)
    assert sorted(ada.db.leave(SCOPE, escrow=path, whole=True).readers) == ["ada", "office"]
    assert ada.keys(SCOPE) == []
    report = ada.db.import_bundle(path)
    assert (report.scopes, told(report)) == ([SCOPE], [])
    assert ada.keys(SCOPE) == ["a"]


def test_after_access_has_gone_a_hub_can_still_be_sealed_to(members, path):
    """The hub refuses it as it would in a session; for as long as its operator grants it, it takes it."""
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    members.hub.membership.grant(ada.device, read=["job/2"])
    sync(ada, members.hub)
    ada.db.leave(SCOPE, escrow=path)
    assert told(members.hub.db.import_bundle(path)) == [(SCOPE, Reason.NOT_GRANTED, False)]
    members.hub.membership.grant(ada.device, write=[SCOPE], days=1, renews=False)
    assert told(members.hub.db.import_bundle(path)) == []
    assert members.hub.keys(SCOPE) == ["a"]


# --- harm ---


def test_a_file_in_which_anything_changed_is_refused_whole(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    data, before, chance = path.read_bytes(), members.hub.digests(), random.Random(7)
    cases = [data[: chance.randrange(len(data))] for _ in range(40)]
    for _ in range(80):
        twisted = bytearray(data)
        twisted[chance.randrange(len(sealing.MAGIC), len(data))] ^= 1 << chance.randrange(8)
        cases.append(bytes(twisted))
    for case in cases:
        path.write_bytes(case)
        with pytest.raises((DecodeError, IdentityError)):
            members.hub.db.import_bundle(path)
    assert members.hub.digests() == before


@pytest.mark.parametrize("begin", [b"", b"fieldsync", b"fieldsync sealed 2\n", b"fieldsync bundle 2\n" + bytes(100)])
def test_what_is_no_bundle_says_so(members, path, begin):
    path.write_bytes(begin)
    with pytest.raises(DecodeError, match="not a bundle"):
        members.hub.db.import_bundle(path)


def test_hostile_content_of_a_member_is_refused(members, path):
    """Well sealed, and not a bundle."""
    ada = members.device("ada", write=[SCOPE])
    before, chance = members.hub.digests(), random.Random(8)
    for content in (b"", bundle.MAGIC, bundle.MAGIC + b"\xff" * 40, chance.randbytes(3000), bundle.MAGIC + bytes(4)):
        forge(path, ada, [members.hub], lambda file, content=content: file.write(content))
        with pytest.raises(DecodeError):
            members.hub.db.import_bundle(path)
    assert members.hub.digests() == before


def test_the_writer_is_asked_before_anything_is_taken(members, path, monkeypatch):
    """A bundle of a stranger is not even looked into."""
    ada = members.device("ada", write=[SCOPE])
    chain = [encode(one) for one in ada.identity.chain]
    for some in ([chain[1]], [chain[0]], [chain[0], chain[0]], [*chain, chain[1]], [b"junk"]):
        forge(path, ada, [members.hub], pack(ada), some)
        monkeypatch.setattr(bundle, "read", lambda *_: pytest.fail("it was taken in"))
        with pytest.raises(IdentityError):
            members.hub.db.import_bundle(path)


def test_no_plaintext_is_put_down_beside_it(members, path, tmp_path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a", text="confidential")
    folder = tmp_path / "out"
    folder.mkdir()
    seen = []

    def look(_):
        seen.extend(file.read_bytes() for file in folder.iterdir())

    ada.db.export(folder / "job.bundle", progress=look)
    assert seen
    assert not any(b"confidential" in data or b"fieldsync bundle" in data for data in seen)


def test_frames_are_those_of_a_plain_bundle(members, path):
    ada = members.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path, readers=["office"])
    with path.open("rb") as file:
        opened = sealing.Unsealed(file, members.hub.identity.key)
        names = [type(messages.decode(data)).__name__ for data in bundle._data(opened)]
    assert names == ["Packed", "Stream"] * 2
    plain = io.BytesIO()
    parcel.writing(ada.db.replica, plaintext=True)(plain, [SCOPE], {}, None)
    assert plain.getvalue().count(SCOPE.encode()) >= 1
    assert sealed_bundle.readers_of(ada.membership, [SCOPE])[0] == ada.device
