"""An organisation at work: grants decide what is told and taken, and authors are answered for."""

import contextlib
import itertools
import shutil

from tests.members import Node, sync, told

import fieldsync as fs
from fieldsync.trust import control
from fieldsync.trust.certificates import encode
from fieldsync.trust.identity import Identity
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import CONTROL, Reason
from fieldsync.trust.statements import Author

# --- grants ---


def test_a_device_gets_what_it_was_granted_and_gives_what_it_may_write(members):
    members.hub.write("job/1", "a")
    members.hub.write("job/2", "b")
    ada = members.device("ada", read=["job/1"], write=["job/2"])
    ada.db.enter("job/1", "job/2")
    ada.write("job/2", "c")
    report, _, _ = sync(ada, members.hub)
    assert told(report) == []
    assert (ada.keys("job/1"), ada.keys("job/2")) == (["a"], ["b", "c"])
    assert members.hub.keys("job/2") == ["b", "c"]
    assert ada.digests() == {name: members.hub.digests()[name] for name in ada.digests()}


def test_a_scope_that_was_not_granted_is_not_told_of(members):
    members.hub.write("secret", "a", text="confidential")
    ada = members.device("ada", read=["job/*"])
    ada.db.enter("secret", "job/1")
    report, _, frames = sync(ada, members.hub)
    assert ada.keys("secret") == []
    assert told(report) == [("secret", Reason.NOT_GRANTED, True)]
    assert str(report.refusals[0]) == "secret: refused by the peer: no grant of the device covers it"
    assert not any(b"confidential" in frame for frame in frames)


def test_a_record_moves_only_where_who_wished_it_may_write(members):
    ada, ben = members.device("ada", write=["job/1"]), members.device("ben", write=["job/*"])
    for one in (ada, ben):
        one.db.enter("job/1")
        one.write("job/1", f"of {one.identity.name}")
        with one.db.write() as tx:
            tx.move("notes", f"of {one.identity.name}", scope="job/1", to="job/2")
        sync(one, members.hub)
    assert (members.hub.keys("job/1"), members.hub.keys("job/2")) == (["of ada"], ["of ben"])
    with members.hub.db.write() as tx:
        tx.move("notes", "of ada", scope="job/1", to="job/3")
    assert (members.hub.keys("job/1"), members.hub.keys("job/3")) == ([], ["of ada"])


def test_who_may_only_read_gives_nothing(members):
    members.hub.write("job/1", "a")
    ada = members.device("ada", read=["job/1"])
    ada.db.enter("job/1")
    sync(ada, members.hub)
    ada.write("job/1", "mine")
    for _ in range(2):
        members.hub.write("job/1", f"more {len(members.hub.keys('job/1'))}")
        report, other, _ = sync(ada, members.hub)
        assert told(report) == [("job/1", Reason.READ_ONLY, True)]
        assert told(other) == [("job/1", Reason.READ_ONLY, False)]
    assert members.hub.keys("job/1") == ["a", "more 1", "more 2"]
    assert ada.keys("job/1") == ["a", "mine", "more 1", "more 2"]
    held = {scope.name: scope for scope in ada.db.scopes()}
    assert held["job/1"].pending == 1
    (refused,) = ada.db.refused()
    assert (refused.scope, refused.code, refused.changes) == ("job/1", Reason.READ_ONLY, 1)
    assert refused.records == [("notes", "mine")]
    assert str(refused) == "job/1: 1 changes were refused: the device may read it, and not write (notes mine)"
    with ada.db.write() as tx:
        tx.delete("notes", "a", scope="job/1")
    sync(ada, members.hub)
    assert ada.db.refused()[0].records == [("notes", "mine"), ("notes", "a")]
    assert members.hub.db.refused() == []
    members.hub.membership.grant(ada.device, write=["job/1"])
    report, _, _ = sync(ada, members.hub)
    assert told(report) == []
    assert members.hub.keys("job/1") == ["mine", "more 1", "more 2"]
    assert ada.db.refused() == []


def test_a_read_only_peers_word_takes_nothing_away(members):
    for number in range(3):
        members.hub.write("job/1", f"k{number}")
    ada = members.device("ada", read=["job/1"])
    ada.db.enter("job/1")
    sync(ada, members.hub)
    with ada.db.write() as tx:
        tx.delete("notes", "k1", scope="job/1")
    ada.db.replica.trim(None, before_ms=1 << 62)
    sync(ada, members.hub)
    assert members.hub.keys("job/1") == ["k0", "k1", "k2"]


def test_a_grant_that_ran_out_is_renewed_by_the_hub_and_by_nobody_else(members):
    ada, ben = (members.device(name, write=["job/1"], days=10) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
        sync(node, members.hub)
    for node in members.nodes:
        node.now_ms += 11 * DAY_MS
    ada.write("job/1", "late")
    sync(ben, ada)
    assert ben.keys("job/1") == []
    assert sync(ada, members.hub)[0].refusals == []
    assert members.hub.keys("job/1") == ["late"]
    sync(ben, ada)  # brings the news of ada's lease, of ben's there is none yet
    assert ben.keys("job/1") == []
    sync(ben, members.hub)
    sync(ada, ben)
    sync(ada, ben)
    assert ben.keys("job/1") == ["late"]


def test_a_grant_that_does_not_renew_ends(members):
    ada = members.device("ada", write=["job/1"], days=10, renews=False)
    ada.db.enter("job/1")
    ada.write("job/1", "a")
    members.hub.now_ms += 11 * DAY_MS
    assert told(sync(ada, members.hub)[0]) == [("job/1", Reason.EXPIRED, True)]
    assert members.hub.keys("job/1") == []


def test_a_certificate_is_renewed_by_sync(members):
    ada = members.device("ada", read=["job/1"])
    members.hub.now_ms += 6 * 365 * DAY_MS
    sync(ada, members.hub)
    latest = ada.membership.roll.member(ada.device).chain
    assert latest != tuple(map(encode, ada.identity.chain))
    sync(ada, members.hub)
    assert latest == tuple(map(encode, Identity.load(ada.identity.folder).chain))
    assert Identity.load(ada.identity.folder).device == ada.device
    assert ada.membership.renewed() is ada.membership.renewed()


# --- without a hub ---


def test_two_devices_share_what_both_may_read(members):
    ada = members.device("ada", write=["job/1", "job/2"])
    ben = members.device("ben", write=["job/1", "job/3"])
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


def test_a_relayed_change_is_taken_where_its_author_may_write(members):
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "from ada")
    sync(ada, ben)
    sync(ada, ben)
    ben.write("job/1", "from ben")
    assert told(sync(ben, members.hub)[0]) == []
    assert members.hub.keys("job/1") == ["from ada", "from ben"]


def test_a_change_of_who_was_never_granted_is_not_taken_from_anybody(members):
    ada, eve = members.device("ada", write=["job/1"]), members.device("eve", read=["job/1"])
    for node in (ada, eve):
        node.db.enter("job/1")
    eve.write("job/1", "not hers")
    ada.write("job/1", "ada's")
    ada.db.sync(eve.db)  # as one process may, which asks nobody
    assert ada.keys("job/1") == ["ada's", "not hers"]
    report, other, _ = sync(ada, members.hub)
    assert told(report) == [("job/1", Reason.AUTHOR_NOT_GRANTED, True)]
    assert told(other) == [("job/1", Reason.AUTHOR_NOT_GRANTED, False)]
    assert members.hub.keys("job/1") == ["ada's"]
    members.hub.membership.grant(eve.device, write=["job/1"])
    assert told(sync(ada, members.hub)[0]) == []
    assert members.hub.keys("job/1") == ["ada's", "not hers"]


def test_a_change_of_an_author_for_whom_nobody_answers_waits(members, tmp_path):
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    with fs.open(tmp_path / "stray.db", notes=tmp_path / "notes") as stray:
        with stray.write() as tx:
            tx.create("notes", scope="job/1", key="stray")
        ada.db.sync(stray)
        (author,) = {scope.author for scope in stray.replica.store.reading().__enter__().scopes()}
        name = stray.replica.store.reading().__enter__().dictionary.author(author)
    ada.write("job/1", "ada's")
    assert told(sync(ada, members.hub)[0]) == [("job/1", Reason.UNKNOWN_AUTHOR, True)]
    assert members.hub.keys("job/1") == ["ada's"]
    members.hub.membership.say(Author(ada.device, name))
    assert told(sync(ada, members.hub)[0]) == []
    assert members.hub.keys("job/1") == ["ada's", "stray"]


def test_news_that_come_along_with_a_greeting_are_judged_alike(members):
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    for _ in range(2):
        ada.write("job/1", f"k{len(ada.keys('job/1'))}")
        report, _, _ = sync(ada, members.hub)
    ada.write("job/1", "k2")
    report, _, frames = sync(ada, members.hub)
    assert report.round_trips == 1
    assert members.hub.keys("job/1") == ["k0", "k1", "k2"]
    members.hub.membership.grant(ada.device, read=["job/1"])
    ada.write("job/1", "k3")
    report, _, frames = sync(ada, members.hub)
    assert told(report) == [("job/1", Reason.READ_ONLY, True)]
    members.hub.membership.grant(ada.device, read=["job/2"])
    members.hub.write("job/1", "confidential")
    report, _, frames = sync(ada, members.hub)
    assert told(report) == [("job/1", Reason.NOT_GRANTED, True)]
    assert not any(b"confidential" in frame for frame in frames)


def test_what_was_written_before_there_was_an_organisation_counts(members, tmp_path):
    with fs.open(tmp_path / "old.db", notes=tmp_path / "notes") as device:
        with device.write() as tx:
            tx.create("notes", scope="job/1", key="of a device")
        hub = fs.open(tmp_path / "second.db", hub=True, notes=tmp_path / "notes")
        hub.enter("job/1")
        hub.sync(device)
    with hub.write() as tx:
        tx.create("notes", scope="job/1", key="of the hub")
    hub.close()
    second = members.second_hub("second")
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    assert told(sync(second, members.hub)[0]) == []
    assert told(sync(ada, members.hub)[0]) == []
    assert ada.keys("job/1") == ["of a device", "of the hub"]


# --- assignments ---


def test_a_dispatcher_assigns_work_by_a_statement(members):
    members.hub.write("job/7", "a")
    dee = members.device("dee", read=["job/*"], assign=["job/*"])
    ada = members.device("ada", write=["job/*"])
    dee.membership.assign(ada.device, ["job/7", "payroll"])
    sync(dee, members.hub)
    sync(ada, members.hub)
    assert ada.membership.follow() == {"job/7"}
    sync(ada, members.hub)
    assert ada.keys("job/7") == ["a"]
    ada.write("job/7", "not yet delivered")
    ada.db.enter("job/8")
    dee.membership.assign(ada.device, ["job/9"])
    sync(dee, members.hub)
    members.hub.now_ms += 1
    sync(ada, members.hub, scopes=["job/9"])
    ada.membership.follow()
    assert {held.name for held in ada.db.scopes()} == {CONTROL, "job/7", "job/8", "job/9"}
    sync(ada, members.hub)
    ada.membership.follow()
    assert {held.name for held in ada.db.scopes()} == {CONTROL, "job/8", "job/9"}


def test_who_may_not_assign_does_not(members):
    eve, ada = members.device("eve", write=["job/*"]), members.device("ada", write=["job/*"])
    eve.membership.assign(ada.device, ["job/7"])
    sync(eve, members.hub)
    sync(ada, members.hub)
    assert ada.membership.follow() == set()


# --- files ---


def statements_in(node):
    with node.db.replica.store.reading() as reader:
        return len(list(reader.query(reader.collection(control.COLLECTION).id, "", ())))


def test_opening_a_file_again_says_nothing_new(members):
    ada = members.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    before = ada.digests()
    ada.db.close()
    members.nodes.remove(ada)
    again = members.add(ada.identity)
    assert again.digests() == before
    again.write("job/1", "b")
    assert again.digests()[CONTROL] == before[CONTROL]
    again.write("job/2", "c")
    assert again.digests()[CONTROL] != before[CONTROL]
    again.db.enter("job/1")
    sync(again, members.hub)
    assert members.hub.keys("job/1") == ["a", "b"]


def test_a_copied_file_goes_on_under_names_of_its_own(members, tmp_path):
    ada = members.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    with fs.open(members.folder / "ada.db", notes=tmp_path / "notes"):
        pass  # so that it is known at its place
    shutil.copy(members.folder / "ada.db", members.folder / "copy.db")
    with fs.open(members.folder / "copy.db", notes=tmp_path / "notes"):
        pass  # so that it is recognised
    copy = Node(ada.identity, members.folder / "copy.db")
    members.nodes.append(copy)
    for node, key in ((ada, "b"), (copy, "c")):
        node.write("job/1", key)
        assert told(sync(node, members.hub)[0]) == []
    assert members.hub.keys("job/1") == ["a", "b", "c"]


def test_two_programs_vouch_in_one_file(members):
    ada = members.device("ada", write=["job/*"])
    other = Node(ada.identity, members.folder / "ada.db")
    for number in range(6):
        (ada, other)[number % 2].write(f"job/{number}", "k")
    other.db.close()
    assert told(sync(ada, members.hub)[0]) == []
    assert [members.hub.keys(f"job/{number}") for number in range(6)] == [["k"]] * 6
    assert statements_in(ada) == statements_in(members.hub)


def test_a_transaction_that_is_undone_vouches_for_nobody(members):
    ada = members.device("ada", write=["job/*"])
    before = statements_in(ada)
    with contextlib.suppress(ZeroDivisionError), ada.db.write() as tx:
        tx.create("notes", scope="job/1", key="k")
        raise ZeroDivisionError
    assert statements_in(ada) == before
    ada.write("job/1", "k")
    assert statements_in(ada) == before + 1
    sync(ada, members.hub)
    assert members.hub.keys("job/1") == ["k"]


def test_bulk_loads_are_vouched_for(members):
    ada = members.device("ada", write=["job/*"])
    rows = [{"id": f"{number}", "job": number % 3} for number in range(30)]
    ada.db.load("notes", rows, key="id", scope="job/{job}")
    assert told(sync(ada, members.hub)[0]) == []
    assert len(members.hub.keys("job/0")) == 10


def test_a_session_that_is_cut_anywhere_goes_on(members):
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    for number in range(5):
        ada.write("job/1", f"a{number}")
        members.hub.write("job/1", f"h{number}")
        for cut in range(1, 9):
            count = itertools.count(1)

            def deliver(_turn, frame, count=count, cut=cut):
                if next(count) >= cut:
                    raise ConnectionError
                return frame

            with contextlib.suppress(ConnectionError):
                sync(ada, members.hub, deliver)
    sync(ada, members.hub)
    assert ada.keys("job/1") == members.hub.keys("job/1")
    assert ada.digests() == members.hub.digests()


# --- bundles ---


def test_a_bundle_brings_who_answers_for_what_it_has(members, tmp_path):
    ada = members.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    ada.db.export(tmp_path / "job.bundle", "job/1")
    report = members.hub.db.import_bundle(tmp_path / "job.bundle")
    assert (report.scopes, report.incomplete, report.refusals, report.changes) == (["job/1"], [], [], 1)
    assert members.hub.keys("job/1") == ["a"]


def test_a_bundle_of_who_may_not_write_is_refused(members, tmp_path):
    eve = members.device("eve", read=["job/1"])
    eve.write("job/1", "not hers")
    eve.db.export(tmp_path / "job.bundle", "job/1", plaintext=True)
    report = members.hub.db.import_bundle(tmp_path / "job.bundle", plaintext=True)
    assert (report.scopes, report.incomplete, report.changes) == ([], ["job/1"], 0)
    assert [one.code for one in report.refusals] == [Reason.AUTHOR_NOT_GRANTED]
    assert members.hub.keys("job/1") == []


def test_an_escrow_of_a_device_reaches_the_hub(members, tmp_path):
    ada = members.device("ada", write=["job/1"])
    ada.write("job/1", "a")
    ada.db.leave("job/1", escrow=tmp_path / "left.bundle")
    members.hub.db.import_bundle(tmp_path / "left.bundle")
    assert members.hub.keys("job/1") == ["a"]
