"""Devices of the organisation that say what is not so: of what they have, of what is gone, of what others wrote."""

from __future__ import annotations

import os
import random

import pytest
from tests.members import Members, sync
from tests.simulation import outcomes
from tests.simulation.doubt import doubting

from fieldsync.context import Context
from fieldsync.errors import IdentityError, LimitExceeded
from fieldsync.limits import CLAIMED_GAPS_MAX
from fieldsync.trimming import trim
from fieldsync.trust import rights as trust

NOTHING = Context()
DOUBTED_SEEDS = max(40, int(os.environ.get("FIELDSYNC_SEEDS", "0")) // 10)  # schedules


@pytest.fixture
def members(tmp_path):
    with Members(tmp_path) as members:
        yield members
        members.check(but="eve")  # hers says what is not so


@pytest.fixture
def three(members):
    """A hub, ada and eve, who both may write job/1 and have synced; ada has records that nobody else has."""
    hub, ada, eve = members.hub, members.device("ada", write=["job/*"]), members.device("eve", write=["job/1"])
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


def forget_removals(node, scope):
    """Trim at once, what no hub has heard of, too."""
    with node.db.replica.store.writing() as writer:
        trimmed, count = trim(writer, writer.scope(scope), before_ms=node.now_ms, keep=0)
        assert count
        writer.save_scope(trimmed)


def author_of(node, scope):
    with node.db.replica.store.reading() as reader:
        return reader.dictionary.author(reader.scope(scope).author)


def claim(node, dots, floor=NOTHING):
    """A device has these changes of job/1 from now on, as its file says, and has forgotten these removals."""
    with node.db.replica.store.writing() as writer:
        scope = writer.scope("job/1")
        writer.account(scope.id, dots)
        writer.save_scope(scope._replace(floor=(Context(scope.floor) | floor).data))


@pytest.fixture
def lied_to(three):
    """Eve has claimed all that ada has written in either scope, and ever will."""
    hub, ada, eve = three
    eve.write("job/1", "bait")
    claim(eve, Context.of((author_of(ada, scope), 1, 1 << 40) for scope in ("job/1", "job/2")))
    assert sync(eve, hub)[0].complete
    return hub, ada, eve


def test_who_claims_what_others_wrote_and_will_write_hides_nothing(lied_to):
    """In the scope that she may write, too: others get what ada wrote before and after, and ada loses nothing."""
    hub, ada, _ = lied_to
    ada.write("job/1", "later")
    report, _, _ = sync(ada, hub)
    assert (report.mended, list(ada.db.trash())) == ([], [])
    assert hub.keys("job/1") == ada.keys("job/1") == ["bait", "first", "h", "later", "mine 0", "mine 1", "mine 2"]
    assert hub.db["notes"].get("h", scope="job/1").text == "as ada has it"
    assert {held.pending for held in ada.db.scopes()} == {0}


def test_what_she_claims_of_a_scope_that_she_may_not_write_counts_for_nothing(lied_to):
    hub, ada, _ = lied_to
    sync(ada, hub)
    assert hub.keys("job/2") == ["mine 0", "mine 1", "mine 2", "other", "second"]


def test_who_is_lied_to_on_the_way_misses_nothing(three, members):
    """Eve claims to ben what ada has written and will write; ben gets it all the same, from a hub and from ada."""
    hub, ada, eve = three
    ben = members.device("ben", write=["job/*"])
    ben.db.enter("job/1")
    for node in (ben, eve):
        sync(node, hub)
    sync(eve, ben)
    eve.write("job/1", "bait")
    claim(eve, Context.of([(author_of(ada, "job/1"), 1, 1 << 40)]))
    sync(eve, ben)
    assert "bait" in ben.keys("job/1")
    sync(ada, hub)
    sync(ben, hub)
    assert ben.keys("job/1") == hub.keys("job/1")
    ada.write("job/1", "later")
    sync(ada, ben)  # the first session of two who have not met shares the control scope
    sync(ada, ben)
    assert "later" in ben.keys("job/1")


def test_who_forgot_removals_claims_no_more_than_others(three):
    """With a floor over all that she claims, too: it is not joined, and she is told so."""
    hub, ada, eve = three
    eve.write("job/1", "bait")
    everything = Context.of([(author_of(ada, "job/1"), 1, 1 << 40)])
    claim(eve, everything, floor=everything)
    _, report, _ = sync(eve, hub)
    assert report.waiting == ["job/1"]
    sync(ada, hub)
    assert hub.keys("job/1") == ["bait", "first", "h", "mine 0", "mine 1", "mine 2"]


def test_between_devices_a_claim_counts_as_far(three):
    """Ada hears it from eve herself: own changes that eve claims stay where they are, and still go to the hub."""
    hub, ada, eve = three
    claim(eve, Context.of([(author_of(ada, "job/1"), 1, 1 << 40)]))
    sync(eve, ada)
    assert {held.name: held.pending for held in ada.db.scopes()}["job/1"] > 0  # who is no hub promises nothing
    sync(ada, hub)
    assert [key for key in hub.keys("job/1") if key.startswith("mine")] == ["mine 0", "mine 1", "mine 2"]


def test_who_answers_for_a_name_of_somebody_else_may_not_claim_it(lied_to):
    """Eve says that ada's author is hers; then the word of neither is enough for what did not come."""
    hub, ada, eve = lied_to
    with eve.db.replica.writing() as batch:
        eve.membership._answer_for(batch, [author_of(ada, "job/1")])
    sync(eve, hub)
    eve.write("job/1", "bait 2")
    sync(eve, hub)
    sync(ada, hub)
    assert [key for key in hub.keys("job/1") if key.startswith("mine")] == ["mine 0", "mine 1", "mine 2"]


def test_who_claims_numbers_ahead_and_is_revoked_may_not_use_them(three):
    """What counts of her ends with what is here, not with what she said that she has written."""
    hub, _, eve = three
    eve.write("job/1", "bait")
    author = author_of(eve, "job/1")
    claim(eve, Context.of([(author, 1, 1 << 40)]))
    sync(eve, hub)
    hub.membership.revoke(eve.device)
    assert hub.membership.roll.last_counted(author) == 1


@pytest.fixture
def superseded(three):
    """Ben's note was overwritten by ada before the hub ever saw it; ada has synced, ben is still out."""
    hub, ada, eve = three
    sync(ada, hub)
    with eve.db.write() as tx:
        tx.create("notes", scope="job/1", key="e", text="by eve", more="by eve")
    for value in ("again", "and again"):
        with eve.db.write() as tx:
            tx.get("notes", "e", scope="job/1").text = value
    for _ in range(2):
        sync(ada, eve)
    with ada.db.write() as tx:
        tx.get("notes", "e", scope="job/1").text = "by ada"
    sync(ada, hub)
    return hub, ada, eve


def context_of(node, scope):
    with node.db.replica.store.reading() as reader:
        return reader.context(reader.scope(scope).id)


def test_what_was_superseded_on_its_way_is_known_once_its_author_comes(superseded):
    """Until then the hub holds all that lives, and ada may go."""
    hub, ada, eve = superseded
    assert hub.digests()["job/1"] == ada.digests()["job/1"]
    assert context_of(ada, "job/1") - context_of(hub, "job/1")
    assert {held.name: held.pending for held in ada.db.scopes()}["job/1"] == 0
    for node in (eve, ada):
        sync(node, hub)
    assert context_of(ada, "job/1") == context_of(hub, "job/1") == context_of(eve, "job/1")
    assert hub.digests()["job/1"] == ada.digests()["job/1"] == eve.digests()["job/1"]


def test_what_was_superseded_on_its_way_is_known_once_people_say_so(superseded):
    """As where eve's tablet was put back from a backup, and she cannot answer for it: for a while."""
    hub, ada, _ = superseded
    with pytest.raises(IdentityError, match="only a hub"):
        ada.membership.believe(ada.device, 60)
    hub.membership.believe(ada.device, 60)
    hub.now_ms += 61_000
    sync(ada, hub)
    assert context_of(ada, "job/1") != context_of(hub, "job/1")
    hub.membership.believe(ada.device, 60)
    sync(ada, hub)
    assert context_of(ada, "job/1") == context_of(hub, "job/1")


def test_what_was_superseded_on_its_way_is_known_once_its_author_is_out(superseded):
    hub, ada, eve = superseded
    hub.membership.revoke(eve.device)
    sync(ada, hub)
    assert context_of(ada, "job/1") == context_of(hub, "job/1")


@pytest.mark.parametrize("gaps", [False, True])
def test_nobody_makes_a_context_too_large_to_be_told(three, gaps):
    """By a crowd of changes of her own with a gap after each, or by as many of others."""
    hub, ada, eve = three
    before = len(context_of(hub, "job/1").data)
    eve.write("job/1", "bait")
    author = author_of(eve if gaps else ada, "job/1")
    claim(eve, Context.of((author, seq, seq) for seq in range(11, 20_000, 2)))
    sync(eve, hub)
    assert len(context_of(hub, "job/1").data) < before + 10 * CLAIMED_GAPS_MAX


def test_changes_that_make_a_context_too_large_are_refused(three, monkeypatch):
    hub, _, eve = three
    before = context_of(hub, "job/1")
    monkeypatch.setattr("fieldsync.syncing.claims.CLAIMED_BYTES_MAX", len(before.data))
    with eve.db.replica.store.writing() as writer:
        scope = writer.scope("job/1")
        writer.save_scope(scope._replace(author=0, seq=0))  # a new name
    eve.write("job/1", "bait")
    with pytest.raises(LimitExceeded):
        sync(eve, hub)
    assert context_of(hub, "job/1") == before


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_claimed_the_honest_hold_all_that_they_wrote(members, seed):
    """Random sessions of a hub, three who are honest, and eve, who claims now and then what they will write next."""
    chance = random.Random(seed)
    names = ("ada", "ben", "carl", "eve")
    honest = [members.device(name, write=["job/1"]) for name in names]
    eve = honest.pop()
    members.hub.write("job/1", "h")
    for node in (*honest, eve):
        node.db.enter("job/1")
    written = set()
    for number in range(40):
        one = chance.choice([*honest, eve])
        if chance.random() < 0.4:
            one.write("job/1", f"{number}")
            written |= {f"{number}"} if one is not eve else set()
        elif one is eve:
            authors = context_of(members.hub, "job/1").authors()
            dots = Context.of((authors[i : i + 8], 1, chance.randrange(1, 50)) for i in range(0, len(authors), 8))
            claim(eve, dots, chance.choice([NOTHING, dots]))
        else:
            sync(one, chance.choice([members.hub, eve, *(set(honest) - {one})]))
    assert written
    for node in 2 * honest:
        sync(node, members.hub)
    for node in (members.hub, *honest):
        assert written <= set(node.keys("job/1"))
        assert node.digests()["job/1"] == members.hub.digests()["job/1"]


@pytest.mark.timeout(0)
def test_where_claims_are_doubted_all_end_equal():
    """The simulator's schedules, with its oracle: what is left out of a context loses nothing and revives nothing."""
    with doubting() as counts:
        for outcome in outcomes(50_000, DOUBTED_SEEDS, 1):
            assert outcome.violation is None, outcome.seed
    assert counts["doubted"] > 2
    assert counts["believed"]


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
    forget_removals(eve, "job/1")
    for _ in range(2):
        _, report, _ = sync(eve, hub)
        assert report.waiting == ["job/1"]
    sync(ada, hub)
    assert hub.keys("job/1") == ada.keys("job/1") == before
