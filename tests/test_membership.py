"""An organisation at work: grants decide what is told and taken, statements spread, authors are answered for."""

import contextlib
import itertools
import shutil

import pytest
from tests.test_identity import admit

import fieldsync as fs
from fieldsync.database import Database
from fieldsync.errors import DataError, DecodeError, IdentityError, SyncError
from fieldsync.limits import ROLL_LOOK_MS
from fieldsync.replica import Replica
from fieldsync.sqlite import SQLiteStore
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Stream
from fieldsync.syncing.session import Session
from fieldsync.trust import control, statements
from fieldsync.trust.certificates import encode
from fieldsync.trust.identity import Identity, Organisation, Peer
from fieldsync.trust.membership import DAY_MS, membership_of
from fieldsync.trust.rights import CONTROL, Reason
from fieldsync.trust.statements import Author, Grant, Member

NOW_MS = 1_700_000_000_000


class Node:
    """A device with its database, whose clock stands still until it is set."""

    def __init__(self, identity, path, *, hub=False):
        self.identity = identity
        self.now_ms = NOW_MS
        replica = Replica(SQLiteStore(path, full=False), takes_all=hub, wall_ms=lambda: self.now_ms)
        self.db = Database(replica)
        self.membership = membership_of(replica, identity)

    @property
    def peer(self):
        return Peer(self.identity.device, self.identity.name, self.identity.is_hub)

    @property
    def device(self):
        return self.identity.device

    def write(self, scope, key, **fields):
        with self.db.write() as tx:
            tx.create("notes", scope=scope, key=key, **fields)

    def keys(self, scope):
        return sorted(row.key for row in self.db["notes"].where(scope=scope))

    def digests(self):
        return {held.name: held.digest for held in self.db.scopes()}


class Network:
    def __init__(self, folder):
        self.folder = folder
        self.organisation = Organisation.create(folder / "org", "Acme", NOW_MS)
        self.nodes = []
        self.hub = self.add(self.organisation.create_hub(folder / "hub", "office", NOW_MS), hub=True)

    def add(self, identity, hub=False):
        node = Node(identity, self.folder / f"{identity.name}.db", hub=hub)
        self.nodes.append(node)
        return node

    def device(self, name, **rights):
        """A device that was admitted, and knows what the hub says of it."""
        node = self.add(admit(self.hub.identity, self.folder / name, name, NOW_MS))
        chain = tuple(map(encode, node.identity.chain))
        self.hub.membership.say(Member(node.device, name, chain, 1))
        if rights:
            self.hub.membership.grant(node.device, **rights)
        sync(node, self.hub)
        return node


def between(one, other, **options):
    """The two sides of a session of two who proved who they are."""
    trusts = one.membership.trust(other.peer), other.membership.trust(one.peer)
    return (
        Session(one.db.replica, initiator=True, peer="there", trust=trusts[0], **options),
        Session(other.db.replica, initiator=False, trust=trusts[1]),
    )


def converse(sides, deliver):
    """Let two sides talk to the end; gives all frames as they were delivered."""
    frames, turn, idle = [], 0, 0
    try:
        while idle < 2:
            frame = sides[turn].next_frame()
            if frame is None:
                turn, idle = 1 - turn, idle + 1
                continue
            idle = 0
            frames.append(deliver(turn, frame))
            sides[1 - turn].receive(frames[-1])
    finally:
        for side in sides:
            side.close()
    return frames


def sync(one, other, deliver=lambda turn, frame: frame, **options):
    """A session; the reports of both, and all frames."""
    sides = between(one, other, **options)
    frames = converse(sides, deliver)
    return sides[0].report, sides[1].report, frames


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path)
    yield network
    for node in network.nodes:
        assert node.db.verify().faults == []
        node.db.close()


def told(report):
    return sorted((one.scope, one.code, one.is_ours) for one in report.refusals)


# --- grants ---


def test_a_device_gets_what_it_was_granted_and_gives_what_it_may_write(network):
    network.hub.write("job/1", "a")
    network.hub.write("job/2", "b")
    ada = network.device("ada", read=["job/1"], write=["job/2"])
    ada.db.enter("job/1", "job/2")
    ada.write("job/2", "c")
    report, _, _ = sync(ada, network.hub)
    assert told(report) == []
    assert (ada.keys("job/1"), ada.keys("job/2")) == (["a"], ["b", "c"])
    assert network.hub.keys("job/2") == ["b", "c"]
    assert ada.digests() == {name: network.hub.digests()[name] for name in ada.digests()}


def test_a_scope_that_was_not_granted_is_not_told_of(network):
    network.hub.write("secret", "a", text="confidential")
    ada = network.device("ada", read=["job/*"])
    ada.db.enter("secret", "job/1")
    report, _, frames = sync(ada, network.hub)
    assert ada.keys("secret") == []
    assert told(report) == [("secret", Reason.NOT_GRANTED, True)]
    assert str(report.refusals[0]) == "secret: refused by the peer: no grant of the device covers it"
    assert not any(b"confidential" in frame for frame in frames)


def test_a_record_moves_only_where_who_wished_it_may_write(network):
    ada, ben = network.device("ada", write=["job/1"]), network.device("ben", write=["job/*"])
    for one in (ada, ben):
        one.db.enter("job/1")
        one.write("job/1", f"of {one.identity.name}")
        with one.db.write() as tx:
            tx.move("notes", f"of {one.identity.name}", scope="job/1", to="job/2")
        sync(one, network.hub)
    assert (network.hub.keys("job/1"), network.hub.keys("job/2")) == (["of ada"], ["of ben"])
    with network.hub.db.write() as tx:
        tx.move("notes", "of ada", scope="job/1", to="job/3")
    assert (network.hub.keys("job/1"), network.hub.keys("job/3")) == ([], ["of ada"])


def test_who_may_only_read_gives_nothing(network):
    network.hub.write("job/1", "a")
    ada = network.device("ada", read=["job/1"])
    ada.db.enter("job/1")
    sync(ada, network.hub)
    ada.write("job/1", "mine")
    for _ in range(2):
        network.hub.write("job/1", f"more {len(network.hub.keys('job/1'))}")
        report, other, _ = sync(ada, network.hub)
        assert told(report) == [("job/1", Reason.READ_ONLY, True)]
        assert told(other) == [("job/1", Reason.READ_ONLY, False)]
    assert network.hub.keys("job/1") == ["a", "more 1", "more 2"]
    assert ada.keys("job/1") == ["a", "mine", "more 1", "more 2"]
    held = {scope.name: scope for scope in ada.db.scopes()}
    assert held["job/1"].pending == 1
    (refused,) = ada.db.refused()
    assert (refused.scope, refused.code, refused.changes) == ("job/1", Reason.READ_ONLY, 1)
    assert refused.records == [("notes", "mine")]
    assert str(refused) == "job/1: 1 changes were refused: the device may read it, and not write (notes mine)"
    with ada.db.write() as tx:
        tx.delete("notes", "a", scope="job/1")
    sync(ada, network.hub)
    assert ada.db.refused()[0].records == [("notes", "mine"), ("notes", "a")]
    assert network.hub.db.refused() == []
    network.hub.membership.grant(ada.device, write=["job/1"])
    report, _, _ = sync(ada, network.hub)
    assert told(report) == []
    assert network.hub.keys("job/1") == ["mine", "more 1", "more 2"]
    assert ada.db.refused() == []


def test_a_read_only_peers_word_takes_nothing_away(network):
    for number in range(3):
        network.hub.write("job/1", f"k{number}")
    ada = network.device("ada", read=["job/1"])
    ada.db.enter("job/1")
    sync(ada, network.hub)
    with ada.db.write() as tx:
        tx.delete("notes", "k1", scope="job/1")
    ada.db.replica.trim(None, before_ms=1 << 62)
    sync(ada, network.hub)
    assert network.hub.keys("job/1") == ["k0", "k1", "k2"]


def test_a_grant_that_ran_out_is_renewed_by_the_hub_and_by_nobody_else(network):
    ada, ben = (network.device(name, write=["job/1"], days=10) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
        sync(node, network.hub)
    for node in network.nodes:
        node.now_ms += 11 * DAY_MS
    ada.write("job/1", "late")
    sync(ben, ada)
    assert ben.keys("job/1") == []
    assert sync(ada, network.hub)[0].refusals == []
    assert network.hub.keys("job/1") == ["late"]
    sync(ben, ada)  # brings the news of ada's lease, of ben's there is none yet
    assert ben.keys("job/1") == []
    sync(ben, network.hub)
    sync(ada, ben)
    sync(ada, ben)
    assert ben.keys("job/1") == ["late"]


def test_a_grant_that_does_not_renew_ends(network):
    ada = network.device("ada", write=["job/1"], days=10, renews=False)
    ada.db.enter("job/1")
    ada.write("job/1", "a")
    network.hub.now_ms += 11 * DAY_MS
    assert told(sync(ada, network.hub)[0]) == [("job/1", Reason.EXPIRED, True)]
    assert network.hub.keys("job/1") == []


def test_a_certificate_is_renewed_by_sync(network):
    ada = network.device("ada", read=["job/1"])
    network.hub.now_ms += 6 * 365 * DAY_MS
    sync(ada, network.hub)
    latest = ada.membership.roll.member(ada.device).chain
    assert latest != tuple(map(encode, ada.identity.chain))
    sync(ada, network.hub)
    assert latest == tuple(map(encode, Identity.load(ada.identity.folder).chain))
    assert Identity.load(ada.identity.folder).device == ada.device
    assert ada.membership.renewed() is ada.membership.renewed()


# --- without a hub ---


def test_two_devices_share_what_both_may_read(network):
    ada = network.device("ada", write=["job/1", "job/2"])
    ben = network.device("ben", write=["job/1", "job/3"])
    for node in (ada, ben):
        node.db.enter("job/1", "job/2", "job/3")
        node.write("job/1", node.identity.name)
    ada.write("job/2", "only ada's")
    first, _, frames = sync(ada, ben)  # they have never met, nor heard of each other
    assert first.scopes == []
    report, _, more = sync(ada, ben)
    assert report.scopes == ["job/1"]
    assert ada.keys("job/1") == ben.keys("job/1") == ["ada", "ben"]
    assert ben.keys("job/2") == []
    assert not any(b"job/2" in frame or b"only ada" in frame for frame in frames + more)


def test_a_relayed_change_is_taken_where_its_author_may_write(network):
    ada, ben = (network.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "from ada")
    sync(ada, ben)
    sync(ada, ben)
    ben.write("job/1", "from ben")
    assert told(sync(ben, network.hub)[0]) == []
    assert network.hub.keys("job/1") == ["from ada", "from ben"]


def test_a_change_of_who_was_never_granted_is_not_taken_from_anybody(network):
    ada, eve = network.device("ada", write=["job/1"]), network.device("eve", read=["job/1"])
    for node in (ada, eve):
        node.db.enter("job/1")
    eve.write("job/1", "not hers")
    ada.write("job/1", "ada's")
    ada.db.sync(eve.db)  # as one process may, which asks nobody
    assert ada.keys("job/1") == ["ada's", "not hers"]
    report, other, _ = sync(ada, network.hub)
    assert told(report) == [("job/1", Reason.AUTHOR_NOT_GRANTED, True)]
    assert told(other) == [("job/1", Reason.AUTHOR_NOT_GRANTED, False)]
    assert network.hub.keys("job/1") == ["ada's"]
    network.hub.membership.grant(eve.device, write=["job/1"])
    assert told(sync(ada, network.hub)[0]) == []
    assert network.hub.keys("job/1") == ["ada's", "not hers"]


def test_a_change_of_an_author_for_whom_nobody_answers_waits(network, tmp_path):
    ada = network.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    with fs.open(tmp_path / "stray.db", notes=tmp_path / "notes") as stray:
        with stray.write() as tx:
            tx.create("notes", scope="job/1", key="stray")
        ada.db.sync(stray)
        (author,) = {scope.author for scope in stray.replica.store.reading().__enter__().scopes()}
        name = stray.replica.store.reading().__enter__().dictionary.author(author)
    ada.write("job/1", "ada's")
    assert told(sync(ada, network.hub)[0]) == [("job/1", Reason.UNKNOWN_AUTHOR, True)]
    assert network.hub.keys("job/1") == ["ada's"]
    network.hub.membership.say(Author(ada.device, name))
    assert told(sync(ada, network.hub)[0]) == []
    assert network.hub.keys("job/1") == ["ada's", "stray"]


def test_news_that_come_along_with_a_greeting_are_judged_alike(network):
    ada = network.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    for _ in range(2):
        ada.write("job/1", f"k{len(ada.keys('job/1'))}")
        report, _, _ = sync(ada, network.hub)
    ada.write("job/1", "k2")
    report, _, frames = sync(ada, network.hub)
    assert report.round_trips == 1
    assert network.hub.keys("job/1") == ["k0", "k1", "k2"]
    network.hub.membership.grant(ada.device, read=["job/1"])
    ada.write("job/1", "k3")
    report, _, frames = sync(ada, network.hub)
    assert told(report) == [("job/1", Reason.READ_ONLY, True)]
    network.hub.membership.grant(ada.device, read=["job/2"])
    network.hub.write("job/1", "confidential")
    report, _, frames = sync(ada, network.hub)
    assert told(report) == [("job/1", Reason.NOT_GRANTED, True)]
    assert not any(b"confidential" in frame for frame in frames)


def test_what_was_written_before_there_was_an_organisation_counts(network, tmp_path):
    with fs.open(tmp_path / "old.db", notes=tmp_path / "notes") as device:
        with device.write() as tx:
            tx.create("notes", scope="job/1", key="of a device")
        hub = fs.open(tmp_path / "second.db", hub=True, notes=tmp_path / "notes")
        hub.enter("job/1")
        hub.sync(device)
    with hub.write() as tx:
        tx.create("notes", scope="job/1", key="of the hub")
    hub.close()
    second = network.add(network.organisation.create_hub(network.folder / "hub2", "second", NOW_MS), hub=True)
    ada = network.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    assert told(sync(second, network.hub)[0]) == []
    assert told(sync(ada, network.hub)[0]) == []
    assert ada.keys("job/1") == ["of a device", "of the hub"]


# --- revocation ---


def test_who_was_revoked_is_not_spoken_to(network):
    ada, ben = (network.device(name, write=["job/1"]) for name in ("ada", "ben"))
    sync(ben, network.hub)
    network.hub.membership.revoke(ada.device)
    with pytest.raises(IdentityError, match="revoked"):
        sync(ada, network.hub)
    sync(ada, ben)  # ben has not heard
    sync(ben, network.hub)
    with pytest.raises(IdentityError, match="revoked"):
        sync(ada, ben)


def test_a_revocation_travels_from_device_to_device(network):
    ada, ben, cleo = (network.device(name, write=["job/1"]) for name in ("ada", "ben", "cleo"))
    network.hub.membership.revoke(ada.device)
    sync(ben, network.hub)
    sync(cleo, ben)
    assert cleo.membership.roll.is_revoked(ada.device)
    with pytest.raises(IdentityError, match="revoked"):
        sync(cleo, ada)


def test_what_came_late_of_a_revoked_device_is_merged_everywhere_and_told(network):
    """It came to one before the news of the revocation, to the other after it: both end alike."""
    ada, ben = (network.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "good")
    sync(ada, network.hub)
    for _ in range(2):
        sync(ada, ben)
    network.hub.membership.revoke(ada.device)
    assert network.hub.membership.void() == []
    ada.write("job/1", "late")
    sync(ada, ben)  # ben has not heard
    assert ben.membership.void() == []
    assert told(sync(ben, network.hub)[0]) == []
    assert network.hub.keys("job/1") == ben.keys("job/1") == ["good", "late"]
    for node in (network.hub, ben):
        (void,) = node.membership.void()
        assert (void.scope, void.devices, void.changes) == ("job/1", (ada.device,), 1)
        assert void.records == [("notes", "late")]
    assert network.hub.digests()["job/1"] == ben.digests()["job/1"]


def test_a_hub_undoes_what_is_void_where_that_can_be(network):
    ada, ben = (network.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "apart", text="as it was", more="as it was")
    ada.write("job/1", "replaced", text="as it was")
    for node in (ada, ben, ada):
        sync(node, network.hub)
    network.hub.membership.revoke(ada.device)
    ben.now_ms -= 1_000
    with ben.db.write() as tx:
        tx.update("notes", "apart", scope="job/1", text="ben's")
    ada.write("job/1", "made", text="void")
    ada.write("job/1", "shared", text="void")
    with ada.db.write() as tx:
        tx.update("notes", "apart", scope="job/1", text="void")
        tx.update("notes", "replaced", scope="job/1", text="void")
    for _ in range(2):
        sync(ada, ben)  # ben has not heard
    with ben.db.write() as tx:
        tx.update("notes", "shared", scope="job/1", more="ben's")
    sync(ben, network.hub)
    notes = network.hub.db["notes"]
    assert notes.get("apart").text == "void"
    done = network.hub.membership.undo_void()
    assert (done.undone, sorted(done.left)) == (2, [("job/1", "notes", "replaced"), ("job/1", "notes", "shared")])
    assert network.hub.keys("job/1") == ["apart", "replaced", "shared"]
    assert (notes.get("apart").text, notes.get("apart").more) == ("ben's", "as it was")
    assert network.hub.membership.undo_void().undone == 0
    (void,) = network.hub.membership.void()
    assert sorted(void.records) == [("notes", "replaced"), ("notes", "shared")]
    sync(ben, network.hub)
    assert ben.digests()["job/1"] == network.hub.digests()["job/1"]
    with pytest.raises(IdentityError, match="only a hub"):
        ben.membership.undo_void()


def test_a_hub_is_revoked_by_the_root_alone(network):
    with pytest.raises(IdentityError, match="by the root"):
        network.hub.membership.revoke(network.hub.device)
    second = network.add(network.organisation.create_hub(network.folder / "hub2", "annex", NOW_MS), hub=True)
    sync(second, network.hub)
    network.hub.membership.say(statements.Revocation(second.device, ()))
    assert not network.hub.membership.roll.is_revoked(second.device)


# --- the control scope ---


def test_apps_do_not_write_there(network):
    ada = network.device("ada", write=["*"])
    with pytest.raises(DataError, match="organisation's own"):
        ada.write(CONTROL, "k")
    ada.write("job/1", "k")
    with ada.db.write() as tx, pytest.raises(DataError, match="organisation's own"):
        tx.move("notes", "k", to=CONTROL)


def test_what_a_device_says_of_itself_alone_counts_for_nothing(network):
    eve = network.device("eve", read=["job/1"])
    forged = statements.sign(eve.identity.key, Grant(eve.device, (), ("*",), (), 1 << 60, 0, 99))
    with eve.db.replica.writing() as batch:
        for news in control.add(batch.writer, [forged], eve.identity.key, NOW_MS, lambda: b"12345678"):
            batch.note(CONTROL, *news)
    sync(eve, network.hub)
    assert network.hub.digests()[CONTROL] == eve.digests()[CONTROL]
    assert network.hub.membership.roll.grant(eve.device).write == ()


def test_all_hold_the_same_statements(network):
    ada, ben = (network.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben, ada):
        sync(node, network.hub)
    assert len({node.digests()[CONTROL] for node in network.nodes}) == 1


def test_a_removal_in_the_control_scope_is_refused(network):
    """Who alters his own file can take out of it what he likes: nobody else does."""
    eve = network.device("eve", read=["job/1"])
    with eve.db.replica.writing() as batch:
        writer = batch.writer
        scope = writer.scope(CONTROL)
        change = control.LocalChange(writer, scope)
        collection = writer.collection(control.COLLECTION)
        for row in next(rows for number, rows in writer.records(scope.id) if number == collection.id)[:1]:
            change.at(collection.id, control.COLLECTION, row.key, row).deletes = True
        batch.note(CONTROL, change.land(NOW_MS, lambda: b"12345678"), change.dots)
    before = network.hub.digests()[CONTROL]
    with pytest.raises(DecodeError, match="control scope"):
        sync(eve, network.hub)
    assert network.hub.digests()[CONTROL] == before


def test_nobody_writes_under_another_devices_name_there(network):
    eve = network.device("eve", read=["job/1"])
    with network.hub.db.replica.store.reading() as reader:
        scope = reader.scope(CONTROL)
        author, seq, nonce = reader.dictionary.author(scope.author), scope.seq, reader.meta("control nonce")
    said = statements.sign(eve.identity.key, Author(eve.device, b"whatever"))
    with eve.db.replica.writing() as batch:
        writer = batch.writer
        (number,) = writer.author_ids([author])
        writer.save_scope(writer.scope(CONTROL)._replace(author=number, seq=seq))
        writer.set_meta("control nonce", nonce)
        list(control.add(writer, [said], eve.identity.key, NOW_MS, lambda: b"12345678"))
    with eve.db.replica.store.reading() as reader:
        assert reader.dictionary.author(reader.scope(CONTROL).author) != author
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "author_of", lambda *_: author)
        with eve.db.replica.writing() as batch:
            batch.writer.save_scope(batch.writer.scope(CONTROL)._replace(author=number, seq=seq))
            more = statements.sign(eve.identity.key, Author(eve.device, b"whatelse"))
            list(control.add(batch.writer, [more], eve.identity.key, NOW_MS, lambda: b"12345678"))
    with pytest.raises(DecodeError, match="did not write"):
        sync(eve, network.hub)


def test_a_peer_hides_nothing_by_a_context_that_it_makes_up(network):
    ada, eve = network.device("ada", read=["job/1"]), network.device("eve", read=["job/1"])
    network.hub.membership.revoke("0" * 32)
    with network.hub.db.replica.store.reading() as reader:
        context = reader.context(reader.scope(CONTROL).id)
    with eve.db.replica.writing() as batch:
        batch.writer.account(batch.writer.scope(CONTROL).id, context)
    sync(ada, eve)
    assert not ada.membership.roll.is_revoked("0" * 32)
    sync(ada, network.hub)
    assert ada.membership.roll.is_revoked("0" * 32)


# --- assignments ---


def test_a_dispatcher_assigns_work_by_a_statement(network):
    network.hub.write("job/7", "a")
    dee = network.device("dee", read=["job/*"], assign=["job/*"])
    ada = network.device("ada", write=["job/*"])
    dee.membership.assign(ada.device, ["job/7", "payroll"])
    sync(dee, network.hub)
    sync(ada, network.hub)
    assert ada.membership.follow() == {"job/7"}
    sync(ada, network.hub)
    assert ada.keys("job/7") == ["a"]
    ada.write("job/7", "not yet delivered")
    ada.db.enter("job/8")
    dee.membership.assign(ada.device, ["job/9"])
    sync(dee, network.hub)
    network.hub.now_ms += 1
    sync(ada, network.hub, scopes=["job/9"])
    ada.membership.follow()
    assert {held.name for held in ada.db.scopes()} == {CONTROL, "job/7", "job/8", "job/9"}
    sync(ada, network.hub)
    ada.membership.follow()
    assert {held.name for held in ada.db.scopes()} == {CONTROL, "job/8", "job/9"}


def test_who_may_not_assign_does_not(network):
    eve, ada = network.device("eve", write=["job/*"]), network.device("ada", write=["job/*"])
    eve.membership.assign(ada.device, ["job/7"])
    sync(eve, network.hub)
    sync(ada, network.hub)
    assert ada.membership.follow() == set()


# --- files ---


def statements_in(node):
    with node.db.replica.store.reading() as reader:
        return len(list(reader.query(reader.collection(control.COLLECTION).id, "", ())))


def test_opening_a_file_again_says_nothing_new(network):
    ada = network.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    before = ada.digests()
    ada.db.close()
    network.nodes.remove(ada)
    again = network.add(ada.identity)
    assert again.digests() == before
    again.write("job/1", "b")
    assert again.digests()[CONTROL] == before[CONTROL]
    again.write("job/2", "c")
    assert again.digests()[CONTROL] != before[CONTROL]
    again.db.enter("job/1")
    sync(again, network.hub)
    assert network.hub.keys("job/1") == ["a", "b"]


def test_a_copied_file_goes_on_under_names_of_its_own(network, tmp_path):
    ada = network.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    with fs.open(network.folder / "ada.db", notes=tmp_path / "notes"):
        pass  # so that it is known at its place
    shutil.copy(network.folder / "ada.db", network.folder / "copy.db")
    with fs.open(network.folder / "copy.db", notes=tmp_path / "notes"):
        pass  # so that it is recognised
    copy = Node(ada.identity, network.folder / "copy.db")
    network.nodes.append(copy)
    for node, key in ((ada, "b"), (copy, "c")):
        node.write("job/1", key)
        assert told(sync(node, network.hub)[0]) == []
    assert network.hub.keys("job/1") == ["a", "b", "c"]


def test_two_programs_vouch_in_one_file(network):
    ada = network.device("ada", write=["job/*"])
    other = Node(ada.identity, network.folder / "ada.db")
    for number in range(6):
        (ada, other)[number % 2].write(f"job/{number}", "k")
    other.db.close()
    assert told(sync(ada, network.hub)[0]) == []
    assert [network.hub.keys(f"job/{number}") for number in range(6)] == [["k"]] * 6
    assert statements_in(ada) == statements_in(network.hub)


def test_a_transaction_that_is_undone_vouches_for_nobody(network):
    ada = network.device("ada", write=["job/*"])
    before = statements_in(ada)
    with contextlib.suppress(ZeroDivisionError), ada.db.write() as tx:
        tx.create("notes", scope="job/1", key="k")
        raise ZeroDivisionError
    assert statements_in(ada) == before
    ada.write("job/1", "k")
    assert statements_in(ada) == before + 1
    sync(ada, network.hub)
    assert network.hub.keys("job/1") == ["k"]


def test_bulk_loads_are_vouched_for(network):
    ada = network.device("ada", write=["job/*"])
    rows = [{"id": f"{number}", "job": number % 3} for number in range(30)]
    ada.db.load("notes", rows, key="id", scope="job/{job}")
    assert told(sync(ada, network.hub)[0]) == []
    assert len(network.hub.keys("job/0")) == 10


def test_a_session_that_is_cut_anywhere_goes_on(network):
    ada = network.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    for number in range(5):
        ada.write("job/1", f"a{number}")
        network.hub.write("job/1", f"h{number}")
        for cut in range(1, 9):
            count = itertools.count(1)

            def deliver(_turn, frame, count=count, cut=cut):
                if next(count) >= cut:
                    raise ConnectionError
                return frame

            with contextlib.suppress(ConnectionError):
                sync(ada, network.hub, deliver)
    sync(ada, network.hub)
    assert ada.keys("job/1") == network.hub.keys("job/1")
    assert ada.digests() == network.hub.digests()


def test_a_revocation_ends_a_session_that_is_held(network):
    """A hub hears of it between two frames: what comes after is not taken."""
    ada = network.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    ada.write("job/1", "a")

    def deliver(turn, frame):
        if turn == 0 and frame[0] == 3 and not network.hub.membership.roll.is_revoked(ada.device):
            network.hub.membership.revoke(ada.device)
        return frame

    report, _, _ = sync(ada, network.hub, deliver)
    assert ("job/1", Reason.REVOKED, True) in told(report)
    assert network.hub.keys("job/1") == []


def reading_on(network, monkeypatch, end):
    """How many frames with records ben is sent, when something ends what he may read after the first of them."""
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_FIRST", 1)
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_TARGET", 1)
    ben = network.device("ben", read=["job/1"])
    ben.db.enter("job/1")
    for number in range(9):
        network.hub.write("job/1", f"{number}")
    sent = []

    def deliver(turn, frame):
        message = messages.decode(frame)
        if turn == 1 and isinstance(message, Stream) and message.scope and message.chunk:
            sent.append(frame)
            if len(sent) == 1:
                end(ben)
        return frame

    with pytest.raises(SyncError, match="not given any further"):
        sync(ben, network.hub, deliver)
    return len(sent)


def test_who_is_revoked_while_he_reads_is_given_nothing_more(network, monkeypatch):
    assert reading_on(network, monkeypatch, lambda ben: network.hub.membership.revoke(ben.device)) == 1


def test_who_is_revoked_by_another_process_is_given_no_more_within_a_second(network, monkeypatch):
    """As by `fieldsync revoke` beside `fieldsync serve`."""

    def revoke(ben):
        beside = Node(network.hub.identity, network.folder / "office.db", hub=True)
        beside.membership.revoke(ben.device)
        beside.db.close()
        network.hub.now_ms += ROLL_LOOK_MS

    assert reading_on(network, monkeypatch, revoke) == 1


def test_whose_grant_runs_out_while_he_reads_is_given_nothing_more(network, monkeypatch):
    def wait(_):
        network.hub.now_ms += 500 * DAY_MS

    assert reading_on(network, monkeypatch, wait) == 1


# --- bundles ---


def test_a_bundle_brings_who_answers_for_what_it_has(network, tmp_path):
    ada = network.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    ada.db.export(tmp_path / "job.bundle", "job/1")
    report = network.hub.db.import_bundle(tmp_path / "job.bundle")
    assert (report.scopes, report.incomplete, report.refusals, report.changes) == (["job/1"], [], [], 1)
    assert network.hub.keys("job/1") == ["a"]


def test_a_bundle_of_who_may_not_write_is_refused(network, tmp_path):
    eve = network.device("eve", read=["job/1"])
    eve.write("job/1", "not hers")
    eve.db.export(tmp_path / "job.bundle", "job/1", plaintext=True)
    report = network.hub.db.import_bundle(tmp_path / "job.bundle", plaintext=True)
    assert (report.scopes, report.incomplete, report.changes) == ([], ["job/1"], 0)
    assert [one.code for one in report.refusals] == [Reason.AUTHOR_NOT_GRANTED]
    assert network.hub.keys("job/1") == []


def test_an_escrow_of_a_device_reaches_the_hub(network, tmp_path):
    ada = network.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    ada.db.leave("job/1", escrow=tmp_path / "left.bundle")
    network.hub.db.import_bundle(tmp_path / "left.bundle")
    assert network.hub.keys("job/1") == ["a"]
