"""Who was revoked, or may no longer: what he is told and given from then on, and what he wrote meanwhile."""

import os
from base64 import b64encode

import pytest
from tests.members import Node, sync, told

from fieldsync.errors import IdentityError, SyncError
from fieldsync.limits import ROLL_LOOK_MS
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Part, Stream
from fieldsync.trust import statements
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import Reason


def test_who_was_revoked_is_not_spoken_to(members):
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    sync(ben, members.hub)
    members.hub.membership.revoke(ada.device)
    with pytest.raises(IdentityError, match="revoked"):
        sync(ada, members.hub)
    sync(ada, ben)  # ben has not heard
    sync(ben, members.hub)
    with pytest.raises(IdentityError, match="revoked"):
        sync(ada, ben)


def test_a_revocation_travels_from_device_to_device(members):
    ada, ben, cleo = (members.device(name, write=["job/1"]) for name in ("ada", "ben", "cleo"))
    members.hub.membership.revoke(ada.device)
    sync(ben, members.hub)
    sync(cleo, ben)
    assert cleo.membership.roll.is_revoked(ada.device)
    with pytest.raises(IdentityError, match="revoked"):
        sync(cleo, ada)


def test_what_came_late_of_a_revoked_device_is_merged_everywhere_and_told(members):
    """It came to one before the news of the revocation, to the other after it: both end alike."""
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "good")
    sync(ada, members.hub)
    for _ in range(2):
        sync(ada, ben)
    members.hub.membership.revoke(ada.device)
    assert members.hub.membership.void() == []
    ada.write("job/1", "late")
    sync(ada, ben)  # ben has not heard
    assert ben.membership.void() == []
    assert told(sync(ben, members.hub)[0]) == []
    assert members.hub.keys("job/1") == ben.keys("job/1") == ["good", "late"]
    for node in (members.hub, ben):
        (void,) = node.membership.void()
        assert (void.scope, void.devices, void.changes) == ("job/1", (ada.device,), 1)
        assert void.records == [("notes", "late")]
    assert members.hub.digests()["job/1"] == ben.digests()["job/1"]


def test_a_hub_undoes_what_is_void_where_that_can_be(members):
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
    ada.write("job/1", "apart", text="as it was", more="as it was")
    ada.write("job/1", "replaced", text="as it was")
    for node in (ada, ben, ada):
        sync(node, members.hub)
    members.hub.membership.revoke(ada.device)
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
    sync(ben, members.hub)
    notes = members.hub.db["notes"]
    assert notes.get("apart").text == "void"
    done = members.hub.membership.undo_void()
    assert (done.undone, sorted(done.left)) == (2, [("job/1", "notes", "replaced"), ("job/1", "notes", "shared")])
    assert members.hub.keys("job/1") == ["apart", "replaced", "shared"]
    assert (notes.get("apart").text, notes.get("apart").more) == ("ben's", "as it was")
    assert members.hub.membership.undo_void().undone == 0
    (void,) = members.hub.membership.void()
    assert sorted(void.records) == [("notes", "replaced"), ("notes", "shared")]
    sync(ben, members.hub)
    assert ben.digests()["job/1"] == members.hub.digests()["job/1"]
    with pytest.raises(IdentityError, match="only a hub"):
        ben.membership.undo_void()


def test_a_hub_is_revoked_by_the_root_alone(members):
    with pytest.raises(IdentityError, match="by the root"):
        members.hub.membership.revoke(members.hub.device)
    second = members.second_hub("annex")
    sync(second, members.hub)
    members.hub.membership.say(statements.Revocation(second.device, ()))
    assert not members.hub.membership.roll.is_revoked(second.device)


# --- in the middle of a session ---


def test_a_revocation_ends_a_session_that_is_held(members):
    """A hub hears of it between two frames: what comes after is not taken."""
    ada = members.device("ada", write=["job/1"])
    ada.db.enter("job/1")
    ada.write("job/1", "a")

    def deliver(turn, frame):
        if turn == 0 and frame[0] == 3 and not members.hub.membership.roll.is_revoked(ada.device):
            members.hub.membership.revoke(ada.device)
        return frame

    report, _, _ = sync(ada, members.hub, deliver)
    assert ("job/1", Reason.REVOKED, True) in told(report)
    assert members.hub.keys("job/1") == []


def reading_on(members, monkeypatch, end):
    """How many frames with records ben is sent, when something ends what he may read after the first of them."""
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_FIRST", 1)
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_TARGET", 1)
    ben = members.device("ben", read=["job/1"])
    ben.db.enter("job/1")
    for number in range(9):
        members.hub.write("job/1", f"{number}")
    sent = []

    def deliver(turn, frame):
        message = messages.decode(frame)
        if turn == 1 and isinstance(message, Stream) and message.scope and message.chunk:
            sent.append(frame)
            if len(sent) == 1:
                end(ben)
        return frame

    with pytest.raises(SyncError, match="not given any further"):
        sync(ben, members.hub, deliver)
    return len(sent)


def test_who_is_revoked_while_he_reads_is_given_nothing_more(members, monkeypatch):
    assert reading_on(members, monkeypatch, lambda ben: members.hub.membership.revoke(ben.device)) == 1


def test_who_is_revoked_within_a_chunk_is_not_given_the_rest_of_it(members):
    """A chunk that is cut in two: the second part comes with the stream's end."""
    ben = members.device("ben", read=["job/1"])
    ben.db.enter("job/1")
    members.hub.write("job/1", "long", text=b64encode(os.urandom(1100)).decode())
    parts = []

    def deliver(turn, frame):
        message = messages.decode(frame)
        if turn == 1 and isinstance(message, Part) and message.scope:
            parts.append(message)
            members.hub.membership.revoke(ben.device)
        return frame

    with pytest.raises(SyncError, match="not given any further"):
        sync(ben, members.hub, deliver)
    assert len(parts) == 1


def test_who_is_revoked_by_another_process_is_given_no_more_within_a_second(members, monkeypatch):
    """As by `fieldsync revoke` beside `fieldsync serve`."""

    def revoke(ben):
        beside = Node(members.hub.identity, members.folder / "office.db", hub=True)
        beside.membership.revoke(ben.device)
        beside.db.close()
        members.hub.now_ms += ROLL_LOOK_MS

    assert reading_on(members, monkeypatch, revoke) == 1


def test_whose_grant_runs_out_while_he_reads_is_given_nothing_more(members, monkeypatch):
    def wait(_):
        members.hub.now_ms += 500 * DAY_MS

    assert reading_on(members, monkeypatch, wait) == 1
