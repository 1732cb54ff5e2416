"""Devices of the organisation that say what is not so: of what they have, of what is gone, of what others wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.test_membership import Network, sync

from fieldsync.context import Context
from fieldsync.syncing import messages
from fieldsync.syncing.frames import Declare
from fieldsync.trust import rights as trust


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path)
    yield network
    for node in network.nodes:
        assert node.db.verify().is_sound
        node.db.close()


@pytest.fixture
def three(network):
    """A hub, ada and eve, who both may write job/1 and have synced; ada has records that nobody else has."""
    hub, ada, eve = network.hub, network.device("ada", write=["job/*"]), network.device("eve", write=["job/1"])
    hub.write("job/1", "h", text="as it was")
    hub.write("job/2", "other")
    for node in (ada, eve):
        node.db.enter("job/1")
    ada.db.enter("job/2")
    ada.write("job/1", "first")
    ada.write("job/2", "second")
    for node in (ada, eve, ada):
        sync(node, hub)
    for number in range(3):
        ada.write("job/1", f"mine {number}")
        ada.write("job/2", f"mine {number}")
    with ada.db.write() as tx:
        tx.get("notes", "h", scope="job/1").text = "as ada has it"
    return hub, ada, eve


def author_of(node, scope):
    with node.db.replica.store.reading() as reader:
        return reader.dictionary.author(reader.scope(scope).author)


def claiming(dots):
    """Frames in which whoever begins claims these changes of every scope but the control scope."""

    def deliver(turn, frame):
        message = messages.decode(frame)
        if turn or not (isinstance(message, Declare) and message.scope):
            return frame
        said = message.declaration
        return messages.encode(replace(message, declaration=replace(said, context=said.context | dots)))

    return deliver


@pytest.fixture
def lied_to(three, monkeypatch):
    """Eve has claimed all that ada has written in either scope, and ever will."""
    hub, ada, eve = three
    monkeypatch.setattr("fieldsync.syncing.eager.offer", lambda *_: None)  # so that she declares
    eve.write("job/1", "bait")
    everything = Context.of((author_of(ada, scope), 1, 1 << 40) for scope in ("job/1", "job/2"))
    report, _, _ = sync(eve, hub, claiming(everything))
    assert report.complete
    return hub, ada, eve


def test_who_claims_what_others_wrote_hides_it_and_destroys_nothing(lied_to):
    """In the scope that she may write: what ada had not synced goes to ada's trash, and is told; restored, it syncs."""
    hub, ada, _ = lied_to
    report, _, _ = sync(ada, hub)
    assert [(one.scope, one.removed, one.replaced) for one in report.mended] == [("job/1", 3, 1)]
    trash = {entry.key: entry for entry in ada.db.trash()}
    assert trash.pop("h").values["text"] == "as ada has it"
    assert sorted(trash) == ["mine 0", "mine 1", "mine 2"]
    ada.db.restore(*trash.values())
    ada.write("job/1", "later")  # under a name that was not claimed
    sync(ada, hub)
    assert hub.keys("job/1") == ada.keys("job/1") == ["bait", "first", "h", "later", "mine 0", "mine 1", "mine 2"]
    assert {held.pending for held in ada.db.scopes()} == {0}


def test_what_she_claims_of_a_scope_that_she_may_not_write_counts_for_nothing(lied_to):
    hub, ada, _ = lied_to
    sync(ada, hub)
    assert hub.keys("job/2") == ["mine 0", "mine 1", "mine 2", "other", "second"]


def test_between_devices_a_claim_counts_as_far(three, monkeypatch):
    """Ada hears it from eve herself: own changes that eve claims stay where they are, and still go to the hub."""
    hub, ada, eve = three
    monkeypatch.setattr("fieldsync.syncing.eager.offer", lambda *_: None)
    sync(eve, ada, claiming(Context.of([(author_of(ada, "job/1"), 1, 1 << 40)])))
    assert {held.name: held.pending for held in ada.db.scopes()}["job/1"] > 0  # who is no hub promises nothing
    sync(ada, hub)
    assert [key for key in hub.keys("job/1") if key.startswith("mine")] == ["mine 0", "mine 1", "mine 2"]


def test_who_has_most_records_no_more_takes_them_from_nobody(three, monkeypatch):
    """She deletes them and forgets the removals at once; the hub waits, and who syncs with it keeps them."""
    hub, ada, eve = three
    monkeypatch.setattr(trust, "DROPS_FREE_MAX", 2)
    sync(ada, hub)
    sync(eve, hub)
    before = hub.keys("job/1")
    with eve.db.write() as tx:
        for key in before[1:]:
            tx.delete("notes", key, scope="job/1")
    eve.db.trim(older_than=timedelta(0), keep=0)
    for _ in range(2):
        _, report, _ = sync(eve, hub)
        assert report.waiting == ["job/1"]
    sync(ada, hub)
    assert hub.keys("job/1") == ada.keys("job/1") == before
