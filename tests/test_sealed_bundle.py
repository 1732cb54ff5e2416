"""Bundles in an organisation: who can read one, whose word it is, and what of it is taken."""

import io
import random

import pytest
from tests.test_identity import admit
from tests.test_membership import NOW_MS, Network, Node, sync

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
def network(tmp_path):
    network = Network(tmp_path)
    yield network
    for node in network.nodes:
        assert node.db.verify().faults == []
        node.db.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.bundle"


def told(report):
    return [(one.scope, one.code, one.is_ours) for one in report.refusals]


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


def test_a_bundle_reaches_a_device_that_never_met_its_writer(network, path):
    """What was said of either goes along: Ben knows nothing of Ada, and takes from her what she may write."""
    ben = network.device("ben", read=[SCOPE])
    ada = network.device("ada", write=[SCOPE])
    sync(ada, network.hub)
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


def test_a_bundle_for_a_peer_holds_what_it_lacks(network, path, tmp_path):
    ada = network.device("ada", write=[SCOPE])
    for number in range(100):
        ada.write(SCOPE, f"n-{number}", text="x" * 100)
    sync(ada, network.hub)
    ada.write(SCOPE, "new")
    with pytest.raises(IdentityError, match="no device"):
        ada.db.export(path, SCOPE, known_to="offices")
    small = ada.db.export(path, SCOPE, known_to="office")
    whole = ada.db.export(tmp_path / "whole", SCOPE)
    assert small.changes == 1
    assert small.bytes < whole.bytes - 2_000
    assert network.hub.db.import_bundle(path).scopes == [SCOPE]
    assert "new" in network.hub.keys(SCOPE)


def test_a_hub_that_never_wrote_can_be_sealed_to(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    assert ada.db.export(path, readers=["office"]).readers == ["office"]
    assert network.hub.db.import_bundle(path).changes == 1
    with pytest.raises(IdentityError, match="sealed to others"):
        ada.db.import_bundle(path)


# --- readers ---


def test_the_readers_are_those_who_may_read_all_of_it(network, path):
    ada = network.device("ada", write=["job/*"])
    ben = network.device("ben", read=["job/1"])
    network.device("cyd", read=["job/*"])
    network.device("out", read=["job/*"])
    network.hub.membership.revoke(network.nodes[-1].device)
    network.device("late", read=["job/*"], days=1)
    sync(ada, network.hub)
    sync(ada, network.hub)
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
def test_who_may_not_read_all_of_it_is_no_reader(network, path, scopes, readers, message):
    ada = network.device("ada", write=["job/*"])
    network.device("ben", read=["job/1"])
    network.device("out", read=["job/1"])
    network.hub.membership.revoke(network.nodes[-1].device)
    for folder in ("twin", "other"):
        node = network.add(admit(network.hub.identity, network.folder / folder / "me", "twin" + folder, NOW_MS))
        node.db.close()
        network.nodes.remove(node)
        network.hub.membership.say(sealed_twin(node))
        network.hub.membership.grant(node.device, read=["job/1"])
    network.hub.membership.grant("f" * 32, read=["job/1"])  # of which nobody told the key
    sync(ada, network.hub)
    for scope in ("job/1", "job/2"):
        ada.write(scope, "a")
    named = ["f" * 32 if one == "unseen" else one for one in readers]
    with pytest.raises(IdentityError, match=message):
        ada.db.export(path, *scopes, readers=named)
    assert not path.exists()
    assert list(path.parent.glob("*.part")) == []


def test_a_certificate_of_another_key_is_nobodys(network, path):
    """Whatever an issuer says: a device's id is of its key, so nothing is sealed to another key in its name."""
    ada = network.device("ada", write=[SCOPE])
    ben = network.device("ben", read=[SCOPE])
    network.hub.membership.say(Member(ben.device, "ben", tuple(map(encode, ada.identity.chain)), 9))
    sync(ada, network.hub)
    ada.write(SCOPE, "a")
    with pytest.raises(IdentityError, match="the key of 'ben' is not known here"):
        ada.db.export(path, readers=["ben"])
    assert sorted(ada.db.export(path).readers) == ["ada", "office"]


def sealed_twin(node):
    return Member(node.device, "twin", tuple(map(encode, node.identity.chain)), 1)


def test_without_anybody_else_there_is_no_bundle(network, path, tmp_path):
    """A device that knows of nobody who may read says so, rather than writing a file for itself."""
    organisation = Organisation.create(tmp_path / "other", "Other", NOW_MS)
    hub = organisation.create_hub(tmp_path / "there", "there", NOW_MS)
    lone = network.add(admit(hub, tmp_path / "lone", "lone", NOW_MS))
    lone.write(SCOPE, "a")
    with pytest.raises(IdentityError, match="nobody else is known"):
        lone.db.export(path)
    with pytest.raises(IdentityError, match="no hub is known"):
        lone.db.leave(SCOPE, escrow=path)
    assert lone.keys(SCOPE) == ["a"]


# --- whose word it is ---


def test_of_a_device_that_may_only_read_nothing_is_taken(network, path):
    eve = network.device("eve", read=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE)
    report = network.hub.db.import_bundle(path)
    assert (report.scopes, report.changes, told(report)) == ([], 0, [(SCOPE, Reason.READ_ONLY, False)])
    assert network.hub.keys(SCOPE) == []
    assert SCOPE not in network.hub.digests()


def test_what_others_wrote_is_not_taken_from_who_may_only_read(network, path):
    """But where all of it is here already, nothing is refused."""
    network.hub.write(SCOPE, "a")
    eve = network.device("eve", read=[SCOPE])
    eve.db.enter(SCOPE)
    sync(eve, network.hub)
    eve.db.export(path, SCOPE)
    report = network.hub.db.import_bundle(path)
    assert (report.scopes, told(report)) == ([SCOPE], [])


def test_changes_of_authors_without_a_grant_are_refused_one_by_one(network, path):
    """A writer brings what somebody wrote who may not: that is left out, and nothing is joined."""
    eve = network.device("eve", read=[SCOPE])
    ada = network.device("ada", write=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE, plaintext=True)
    ada.db.replica.rights_of_files = type(ada.db.replica.rights_of_files)(lambda: Everybody())
    ada.db.import_bundle(path, plaintext=True)
    ada.write(SCOPE, "hers")
    ada.db.export(path, SCOPE)
    report = network.hub.db.import_bundle(path)
    assert network.hub.keys(SCOPE) == ["hers"]
    assert (report.incomplete, told(report)) == ([SCOPE], [(SCOPE, Reason.AUTHOR_NOT_GRANTED, False)])


class Everybody:
    """A roll by which everybody may write."""

    def why_not_written(self, _author, _scope):
        return None


def test_a_revoked_device_is_not_heard(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    network.hub.membership.revoke(ada.device)
    before = network.hub.digests()
    with pytest.raises(IdentityError, match="revoked"):
        network.hub.db.import_bundle(path)
    assert network.hub.digests() == before


def test_a_revocation_that_comes_with_a_bundle_counts_for_it(network, path):
    """Ben has not heard that Ada is out; her own bundle, which somebody else's news got into, tells him first."""
    ben = network.device("ben", read=[SCOPE])
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    network.hub.membership.revoke(ada.device)
    with ada.db.replica.writing() as batch:
        statements = [one.data for one in network.hub.membership.everything()]
        ada.membership._add(batch, statements)
    forge(path, ada, [ben], pack(ada, SCOPE))
    report = ben.db.import_bundle(path)
    assert told(report) == [(SCOPE, Reason.REVOKED, False)]
    assert ben.keys(SCOPE) == []


def test_a_grant_that_has_run_out_brings_nothing(network, path):
    ada = network.device("ada", write=[SCOPE], days=10, renews=False)
    ada.write(SCOPE, "a")
    ada.db.export(path)
    network.hub.now_ms += 11 * DAY_MS
    assert told(network.hub.db.import_bundle(path)) == [(SCOPE, Reason.EXPIRED, False)]
    network.hub.membership.grant(ada.device, write=[SCOPE])
    assert told(network.hub.db.import_bundle(path)) == []
    assert network.hub.keys(SCOPE) == ["a"]


def test_an_old_bundle_renews_no_grant(network, path):
    ada = network.device("ada", write=[SCOPE], days=10)
    ada.write(SCOPE, "a")
    ada.db.export(path)
    until = network.hub.membership.roll.grant(ada.device).until_ms
    network.hub.now_ms += 9 * DAY_MS
    network.hub.db.import_bundle(path)
    assert network.hub.membership.roll.grant(ada.device).until_ms == until


def test_a_certificate_that_has_expired_proves_nothing(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    network.hub.now_ms += (DEVICE_YEARS * 365 + 1) * DAY_MS
    with pytest.raises(IdentityError, match="expired"):
        network.hub.db.import_bundle(path)


def test_somebody_of_another_organisation_is_nobody(network, path, tmp_path):
    organisation = Organisation.create(tmp_path / "other", "Other", NOW_MS)
    stranger = network.add(organisation.create_hub(tmp_path / "there", "there", NOW_MS))
    stranger.write(SCOPE, "a")
    forge(path, stranger, [network.hub], pack(stranger, SCOPE))
    with pytest.raises(IdentityError, match="root"):
        network.hub.db.import_bundle(path)
    assert network.hub.keys(SCOPE) == []


def test_nobody_writes_in_anothers_name(network, path):
    """The certificates of one and the signature of another; and a device's own under a claim to be the hub."""
    ada = network.device("ada", write=[SCOPE])
    eve = network.device("eve", read=[SCOPE])
    eve.write(SCOPE, "forged")
    for victim in (ada, network.hub):
        chain = [encode(one) for one in victim.identity.chain]
        forge(path, eve, [network.hub], pack(eve, SCOPE), chain)
        with pytest.raises(DecodeError, match="not sealed by whom it names"):
            network.hub.db.import_bundle(path)
    assert network.hub.keys(SCOPE) == []


def test_a_reader_cannot_pass_a_bundle_on_as_sealed_for_another(network, path):
    ada = network.device("ada", write=[SCOPE])
    ben = network.device("ben", read=[SCOPE])
    sync(ada, network.hub)
    sync(ada, network.hub)
    ada.write(SCOPE, "for ben")
    ada.db.export(path, readers=["ben"])
    with path.open("rb") as file:
        content = sealing.Unsealed(file, ben.identity.key).read(1 << 20)[:-64]
    forge(path, ben, [network.hub], lambda file: file.write(content), [encode(one) for one in ada.identity.chain])
    with pytest.raises(DecodeError, match="not for these readers"):
        network.hub.db.import_bundle(path)


def test_nothing_that_was_said_is_taken_away_by_a_bundle(network, path):
    """A floor in the control scope, and no word of what lives there."""
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    with ada.db.replica.store.reading() as reader:
        context = reader.context(reader.scope(CONTROL).id)
    said = len(network.hub.membership.everything())

    def twist(file):
        out = bundle._Out(file)
        out.frame(bundle.Packed(CONTROL, Context(), context, context, bytes(16), b""))
        out.frame(Stream(0, None, True))
        out.end()

    forge(path, ada, [network.hub], twist)
    network.hub.db.import_bundle(path)
    assert len(network.hub.membership.everything()) == said
    assert network.hub.db.verify().faults == []


# --- plain ones ---


def test_plain_bundles_are_written_and_read_on_demand_only(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    with pytest.raises(ValueError, match="not plaintext"):
        ada.db.export(path, plaintext=True, readers=["office"])
    assert ada.db.export(path, plaintext=True).readers == []
    assert path.read_bytes().startswith(bundle.MAGIC)
    with pytest.raises(IdentityError, match="plaintext"):
        network.hub.db.import_bundle(path, identity=network.hub.identity)
    assert network.hub.keys(SCOPE) == []
    assert network.hub.db.import_bundle(path, plaintext=True).writer is None
    assert network.hub.keys(SCOPE) == ["a"]


def test_a_plain_bundle_is_judged_by_rights_wherever_there_are_any(network, path, tmp_path):
    """Also where the program names no identity: else it would be the way round all of them."""
    eve = network.device("eve", read=[SCOPE])
    eve.write(SCOPE, "not hers")
    eve.db.export(path, SCOPE, plaintext=True)
    network.hub.db.close()
    with fs.open(tmp_path / "office.db", notes=tmp_path / "notes") as database:
        with pytest.raises(IdentityError, match="name the identity"):
            database.import_bundle(path, plaintext=True)
        refused = database.import_bundle(path, plaintext=True, identity=network.hub.identity).refusals
    assert [one.code for one in refused] == [Reason.AUTHOR_NOT_GRANTED]
    network.nodes.remove(network.hub)


def test_who_does_not_say_who_he_is_gets_no_plain_bundle_of_an_organisation(network, path):
    """The same file, opened by a program that knows of no identity."""
    ada = network.device("ada", write=[SCOPE])
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


def test_a_seed_for_a_device_that_is_not_enrolled_is_plain(network, path, tmp_path):
    network.hub.write(SCOPE, "a")
    network.hub.db.export(path, SCOPE, plaintext=True)
    identity = admit(network.hub.identity, tmp_path / "new", "new", NOW_MS)
    replica = Replica(SQLiteStore(tmp_path / "seeded.db", full=False), wall_ms=lambda: NOW_MS)
    Database(replica).import_bundle(path)
    replica.close()
    node = Node(identity, tmp_path / "seeded.db")
    network.nodes.append(node)
    assert node.keys(SCOPE) == ["a"]


# --- escrows ---


def test_an_escrow_is_for_the_hubs(network, path):
    ada = network.device("ada", write=[SCOPE])
    network.device("ben", read=[SCOPE])
    sync(ada, network.hub)
    ada.write(SCOPE, "a")
    assert ada.db.leave(SCOPE, escrow=path).readers == ["office"]
    assert network.hub.db.import_bundle(path).changes == 1
    assert network.hub.keys(SCOPE) == ["a"]


def test_who_has_just_enrolled_can_seal_to_the_hub(network, path, tmp_path):
    code = enrolment.invite(network.hub.membership, "new", "wss://here", seconds=60, write=[SCOPE]).code
    answer = enrolment.answer
    identity = enrolment.enrol(code, tmp_path / "new", lambda _, request: answer(network.hub.membership, request))
    new = network.add(identity)
    new.write(SCOPE, "a")
    assert new.db.leave(SCOPE, escrow=path).readers == ["office"]
    assert network.hub.db.import_bundle(path).changes == 1


def test_a_whole_escrow_brings_the_scope_back(network, path):
    """Of a scope that this device may only read, too."""
    network.hub.write(SCOPE, "a")
    ada = network.device("ada", read=[SCOPE])
    ada.db.enter(SCOPE)
    sync(ada, network.hub)
    assert sorted(ada.db.leave(SCOPE, escrow=path, whole=True).readers) == ["ada", "office"]
    assert ada.keys(SCOPE) == []
    report = ada.db.import_bundle(path)
    assert (report.scopes, told(report)) == ([SCOPE], [])
    assert ada.keys(SCOPE) == ["a"]


def test_after_access_has_gone_a_hub_can_still_be_sealed_to(network, path):
    """The hub refuses it as it would in a session; for as long as its operator grants it, it takes it."""
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    network.hub.membership.grant(ada.device, read=["job/2"])
    sync(ada, network.hub)
    ada.db.leave(SCOPE, escrow=path)
    assert told(network.hub.db.import_bundle(path)) == [(SCOPE, Reason.NOT_GRANTED, False)]
    network.hub.membership.grant(ada.device, write=[SCOPE], days=1, renews=False)
    assert told(network.hub.db.import_bundle(path)) == []
    assert network.hub.keys(SCOPE) == ["a"]


# --- harm ---


def test_a_file_in_which_anything_changed_is_refused_whole(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path)
    data, before, chance = path.read_bytes(), network.hub.digests(), random.Random(7)
    cases = [data[: chance.randrange(len(data))] for _ in range(40)]
    for _ in range(80):
        twisted = bytearray(data)
        twisted[chance.randrange(len(sealing.MAGIC), len(data))] ^= 1 << chance.randrange(8)
        cases.append(bytes(twisted))
    for case in cases:
        path.write_bytes(case)
        with pytest.raises((DecodeError, IdentityError)):
            network.hub.db.import_bundle(path)
    assert network.hub.digests() == before


@pytest.mark.parametrize("begin", [b"", b"fieldsync", b"fieldsync sealed 2\n", b"fieldsync bundle 2\n" + bytes(100)])
def test_what_is_no_bundle_says_so(network, path, begin):
    path.write_bytes(begin)
    with pytest.raises(DecodeError, match="not a bundle"):
        network.hub.db.import_bundle(path)


def test_hostile_content_of_a_member_is_refused(network, path):
    """Well sealed, and not a bundle."""
    ada = network.device("ada", write=[SCOPE])
    before, chance = network.hub.digests(), random.Random(8)
    for content in (b"", bundle.MAGIC, bundle.MAGIC + b"\xff" * 40, chance.randbytes(3000), bundle.MAGIC + bytes(4)):
        forge(path, ada, [network.hub], lambda file, content=content: file.write(content))
        with pytest.raises(DecodeError):
            network.hub.db.import_bundle(path)
    assert network.hub.digests() == before


def test_the_writer_is_asked_before_anything_is_taken(network, path, monkeypatch):
    """A bundle of a stranger is not even looked into."""
    ada = network.device("ada", write=[SCOPE])
    chain = [encode(one) for one in ada.identity.chain]
    for some in ([chain[1]], [chain[0]], [chain[0], chain[0]], [*chain, chain[1]], [b"junk"]):
        forge(path, ada, [network.hub], pack(ada), some)
        monkeypatch.setattr(bundle, "read", lambda *_: pytest.fail("it was taken in"))
        with pytest.raises(IdentityError):
            network.hub.db.import_bundle(path)


def test_no_plaintext_is_put_down_beside_it(network, path, tmp_path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a", text="confidential")
    folder = tmp_path / "out"
    folder.mkdir()
    seen = []

    def look(_):
        seen.extend(file.read_bytes() for file in folder.iterdir())

    ada.db.export(folder / "job.bundle", progress=look)
    assert seen
    assert not any(b"confidential" in data or b"fieldsync bundle" in data for data in seen)


def test_frames_are_those_of_a_plain_bundle(network, path):
    ada = network.device("ada", write=[SCOPE])
    ada.write(SCOPE, "a")
    ada.db.export(path, readers=["office"])
    with path.open("rb") as file:
        opened = sealing.Unsealed(file, network.hub.identity.key)
        names = [type(messages.decode(data)).__name__ for data in bundle._data(opened)]
    assert names == ["Packed", "Stream"] * 2
    plain = io.BytesIO()
    parcel.writing(ada.db.replica, plaintext=True)(plain, [SCOPE], {}, None)
    assert plain.getvalue().count(SCOPE.encode()) >= 1
    assert sealed_bundle.readers_of(ada.membership, [SCOPE])[0] == ada.device
