"""What grants do not cover stays out of reach, by whatever way round it is tried."""

import asyncio
import http.client

import pytest
import websockets.asyncio.server
import websockets.exceptions
from tests.members import sync

import fieldsync as fs
from fieldsync.context import Context
from fieldsync.limits import PAIRS_OF_DEVICE_MAX
from fieldsync.network.hub import Hub
from fieldsync.network.wire import dial
from fieldsync.replica import peer_id
from fieldsync.trust.rights import Reason
from fieldsync.trust.statements import Grant

NOBODY = b"nobody's"


def test_who_names_scopes_without_end_has_a_hub_enter_so_many(members, monkeypatch):
    """Those that hold something count for nothing, and who brings one of his own is let in as long as there is room."""
    monkeypatch.setattr("fieldsync.syncing.greeting.SCOPES_EMPTY_MAX", 5)
    ada, eve = members.device("ada", write=["job/*"]), members.device("eve", read=["job/*"])
    ada.write("job/here", "a")
    sync(ada, members.hub)
    eve.db.enter(*(f"job/{number}" for number in range(20)))
    report, _, _ = sync(eve, members.hub)
    assert len(members.hub.db.scopes()) == 5 + 2  # job/here, and control
    assert {one.code for one in report.refusals} == {Reason.NOT_HELD}
    assert len(report.refusals) == 15
    sync(members.hub, eve)  # and so it is where the hub dials
    assert len(members.hub.db.scopes()) == 5 + 2  # job/here, and control


def test_one_device_is_remembered_by_so_many_pairs(members):
    """However often it comes as somebody new, or with other scopes: others are not forgotten for that."""
    ada, eve = (members.device(name, write=["job/*"]) for name in ("ada", "eve"))
    sync(ada, members.hub)
    for number in range(3 * PAIRS_OF_DEVICE_MAX):
        eve.db.replica.id = number.to_bytes(16)
        eve.db.enter(f"job/{number}")
        with eve.db.replica.store.writing() as writer:
            writer.drop_pair(peer_id(members.hub.device))
        sync(eve, members.hub)
    with members.hub.db.replica.store.reading() as reader:
        (count,) = reader.sql("SELECT count(*) FROM fs_pair", ())[1][0]
    assert count <= 1 + PAIRS_OF_DEVICE_MAX + 1  # as ada's, and as who eve was when she enrolled
    assert sync(ada, members.hub)[0].round_trips == 1


def test_with_an_identity_nobody_is_met_who_does_not_prove_who_he_is(members):
    ada = members.device("ada", write=["job/*"])
    with pytest.raises(fs.SyncError, match="wss://"):
        ada.db.sync("ws://127.0.0.1:9", identity=ada.identity)


def moved_away(members, eve):
    """A record that eve has, and that ada moved to where eve may not read, and wrote to."""
    ada = members.device("ada", write=["job/*", "secret"])
    ada.db.enter("job/1", "secret")
    eve.db.enter("job/1", "job/2")
    ada.write("job/1", "k", text="hello")
    for one in (ada, eve):
        sync(one, members.hub)
    with ada.db.write() as tx:
        tx.move("notes", "k", scope="job/1", to="secret")
    for _ in range(2):
        sync(ada, members.hub)
    with ada.db.write() as tx:
        tx.update("notes", "k", scope="secret", text="the plan")
    sync(ada, members.hub)
    return ada


def wish_late(members, eve):
    """She has not heard of the move, and wishes another."""
    with eve.db.write() as tx:
        tx.update("notes", "k", scope="job/1", late="too")
        tx.move("notes", "k", scope="job/1", to="job/2")
    frames = [frame for _ in range(2) for frame in sync(eve, members.hub)[2]]
    assert members.hub.db.verify().fault_count == 0
    return frames


def test_a_late_wish_brings_back_nothing_from_where_one_may_not_write(members):
    eve = members.device("eve", write=["job/1", "job/2"])
    moved_away(members, eve)
    frames = wish_late(members, eve)
    assert (members.hub.keys("secret"), members.hub.keys("job/2"), eve.keys("job/2")) == (["k"], [], [])
    assert members.hub.db["notes"].get("k", scope="secret").late == "too"  # the rest of it follows
    assert not any(b"the plan" in frame for frame in frames)


def test_a_late_wish_is_heard_of_who_may_write_at_both_ends(members):
    ben = members.device("ben", write=["job/*", "secret"])
    moved_away(members, ben)
    wish_late(members, ben)
    assert (members.hub.keys("secret"), members.hub.keys("job/2"), ben.keys("job/2")) == ([], ["k"], ["k"])


def write_as(node, other, scope):
    """From now on a device writes in a scope under the name of another, who has not used these numbers yet."""
    with other.db.replica.store.reading() as reader:
        held = reader.scope(scope)
        author, last = reader.dictionary.author(held.author), held.seq
    with node.db.replica.store.writing() as writer:
        (number,) = writer.author_ids([author])
        writer.save_scope(writer.scope(scope)._replace(author=number, seq=last + 100))


def test_a_forged_late_wish_brings_back_nothing(members):
    """Of ada, who may write at both ends: eve brings it, and would read what was written since."""
    eve = members.device("eve", write=["job/1", "job/2"])
    ada = moved_away(members, eve)
    write_as(eve, ada, "job/1")
    frames = wish_late(members, eve)
    sync(ada, members.hub)  # who did not wish it, and whose word does not make it so
    frames += [frame for _ in range(2) for frame in sync(eve, members.hub)[2]]
    assert (members.hub.keys("secret"), members.hub.keys("job/2"), eve.keys("job/2")) == (["k"], [], [])
    assert not any(b"the plan" in frame for frame in frames)


def test_nobody_brings_a_context_of_authors_for_whom_nobody_answers(members):
    """Else a hub would answer for them when it starts again: they could wish records anywhere, and were never void."""
    eve = members.device("eve", write=["job/1"])
    eve.db.enter("job/1")
    eve.write("job/1", "k")
    with eve.db.replica.store.writing() as writer:
        writer.account(writer.scope("job/1").id, Context.of([(NOBODY, 1, 5)]))
    report = sync(eve, members.hub)[0]
    assert [(one.scope, one.code) for one in report.refusals] == [("job/1", Reason.UNKNOWN_AUTHOR)]
    assert members.hub.keys("job/1") == ["k"]  # what came stays
    with members.hub.db.replica.store.reading() as reader:
        assert not reader.context(reader.scope("job/1").id).covers(NOBODY, 1)
    members.hub.membership.answer_for_others()
    assert members.hub.membership.roll.devices_of(NOBODY) == set()


def test_a_renewal_by_a_hub_that_has_not_heard_of_it_undoes_no_grant(members):
    ada = members.device("ada", write=["job/*"])
    old = members.hub.membership.roll.grant(ada.device)
    narrow = members.hub.membership.grant(ada.device, read=["job/1"], days=1)
    patterns = old.read, old.write, old.assign
    members.hub.membership.say(Grant(ada.device, *patterns, old.until_ms + 1, old.renew_days, old.serial + 1))
    assert members.hub.membership.roll.grant(ada.device) == narrow


def test_who_dials_is_sent_on_to_nobody():
    """Without TLS it would be off this machine that it sends everything."""

    async def main():
        came = []

        async def elsewhere(connection):
            came.append(connection)

        async with websockets.asyncio.server.serve(elsewhere, "127.0.0.1", 0) as other:
            there = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}"

            def send_on(connection, _request):
                response = connection.respond(302, "")
                response.headers["Location"] = there
                return response

            async with websockets.asyncio.server.serve(elsewhere, "127.0.0.1", 0, process_request=send_on) as first:
                with pytest.raises(websockets.exceptions.InvalidStatus):
                    await dial(f"ws://127.0.0.1:{first.sockets[0].getsockname()[1]}")
        assert came == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:9464", 200), ("127.0.0.1", 200), ("[::1]:9464", 200), ("web.example:9464", 403)]
)
def test_the_page_is_no_web_pages_own(tmp_path, host, status):
    with fs.open(tmp_path / "hub.db", hub=True) as db, Hub(db.replica, page=("127.0.0.1", 0)) as hub:
        connection = http.client.HTTPConnection(hub.page_url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/metrics", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()
