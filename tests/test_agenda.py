"""The agenda of an agent, under a clock and a network of the test's own."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync.limits import (
    CROWDED_SECONDS_MAX,
    DIALLING_MAX,
    PEERS_MAX,
    REFRESH_SECONDS,
    RETRY_FIRST_SECONDS,
    RETRY_SECONDS_MAX,
    SESSIONS_APART_SECONDS,
)
from fieldsync.network.agenda import Agenda, Begin, Budget, Dial, Phase


@pytest.fixture
def agenda():
    agenda = Agenda(chance=lambda: 0.5)
    agenda.see("hub", 0, is_urgent=True)
    return agenda


def test_a_peer_is_dialled_synced_with_and_left_alone(agenda):
    assert agenda.decide(0) == [Dial("hub")]
    assert (agenda.decide(0), agenda.next_at()) == ([], math.inf)
    agenda.link_up("hub", is_ours=True)
    assert agenda.decide(1) == [Begin("hub")]
    agenda.news("hub")  # while it syncs
    assert agenda.decide(1) == []
    agenda.session_over("hub", 2)
    assert (agenda.decide(2), agenda.next_at()) == ([], 2 + SESSIONS_APART_SECONDS)
    assert agenda.decide(3) == [Begin("hub")]
    agenda.session_over("hub", 4)
    assert (agenda.decide(100), agenda.next_at()) == ([], 4 + REFRESH_SECONDS)
    assert agenda.decide(4 + REFRESH_SECONDS) == [Begin("hub")]


def test_pauses_double_up_to_a_bound_and_success_forgets_them(agenda):
    now, pauses = 0.0, []
    for _ in range(12):
        assert agenda.decide(now) == [Dial("hub")]
        agenda.link_down("hub", now, "refused")
        pauses.append(agenda.next_at() - now)
        now = agenda.next_at()
    assert pauses == [0.75 * min(RETRY_FIRST_SECONDS * 2**n, RETRY_SECONDS_MAX) for n in range(12)]
    assert agenda.peers["hub"].why_not == "refused"
    agenda.decide(now)
    agenda.link_up("hub", is_ours=True)
    agenda.decide(now)
    agenda.session_over("hub", now)
    assert agenda.peers["hub"].why_not == ""
    agenda.link_down("hub", now)
    assert agenda.next_at() - now == 0.75 * RETRY_FIRST_SECONDS


def test_waking_up_forgets_pauses(agenda):
    for now in range(100):
        if agenda.decide(now):
            agenda.link_down("hub", now)
    assert agenda.decide(100) == []
    agenda.wake()
    assert agenda.decide(100) == [Dial("hub")]
    agenda.link_down("hub", 100)
    assert agenda.next_at() == 100 + 0.75 * RETRY_FIRST_SECONDS


def test_a_session_after_which_the_two_differ_is_held_again_before_long(agenda):
    agenda.decide(0)
    agenda.link_up("hub", is_ours=True)
    now, pauses = 0.0, []
    for _ in range(12):
        assert agenda.decide(now) == [Begin("hub")]
        agenda.session_over("hub", now, is_partial=True)
        assert agenda.is_settled(now)
        pauses.append(agenda.next_at() - now)
        now = agenda.next_at()
    assert pauses == pytest.approx([0.75 * min(RETRY_FIRST_SECONDS * 2**n, REFRESH_SECONDS) for n in range(12)])
    agenda.news("hub")  # which waits for nothing
    assert agenda.next_at() <= now
    agenda.decide(now)
    agenda.session_over("hub", now)
    assert agenda.next_at() == now + REFRESH_SECONDS


@pytest.mark.parametrize("is_news", [True, False])
def test_who_is_in_the_way_of_others_draws_back(agenda, is_news):
    agenda.decide(0)
    agenda.link_up("hub", is_ours=True)
    now, pauses = 0.0, []
    for _ in range(12):
        assert agenda.decide(now) == [Begin("hub")]
        agenda.session_over("hub", now, is_partial=True, is_crowded=True)
        if is_news:
            agenda.news("hub")
        pauses.append(agenda.next_at() - now)
        now = agenda.next_at()
    assert pauses == pytest.approx([0.75 * min(RETRY_FIRST_SECONDS * 2**n, CROWDED_SECONDS_MAX) for n in range(12)])


def test_another_name_of_a_peer_waits_as_long_as_the_first_one_stands(agenda):
    agenda.see("announced", 0)
    assert agenda.decide(0) == [Dial("hub"), Dial("announced")]
    agenda.link_up("hub", is_ours=True)
    agenda.cover("announced")
    agenda.decide(0)
    agenda.session_over("hub", 1)
    assert (agenda.decide(100), agenda.is_settled(0)) == ([], True)
    agenda.wake()
    assert agenda.decide(100) == [Begin("hub")]
    agenda.uncover("announced", 100)
    assert agenda.next_at() == 100 + 0.75 * RETRY_FIRST_SECONDS
    agenda.uncover("announced", 200)  # it is not covered any more
    assert agenda.decide(101) == [Dial("announced")]
    agenda.cover("announced")
    agenda.lose("announced")
    assert list(agenda.peers) == ["hub"]
    agenda.uncover("announced", 300)
    assert agenda.phase("announced") is Phase.RESTING


def test_who_was_dialled_by_the_peer_begins_nothing(agenda):
    agenda.link_up("hub", is_ours=False)
    agenda.news("hub")
    assert (agenda.decide(0), agenda.next_at()) == ([], math.inf)
    agenda.link_down("hub", 1)
    assert agenda.decide(100) == [Dial("hub")]


def test_announcements_are_bounded_and_forgotten():
    agenda = Agenda(chance=random.Random(1).random)
    for number in range(PEERS_MAX + 100):
        agenda.see(f"p{number}", 0)
    assert len(agenda.peers) == PEERS_MAX
    assert len(agenda.decide(0)) == DIALLING_MAX
    assert agenda.next_at() == math.inf
    for number in range(PEERS_MAX):
        agenda.lose(f"p{number}")
    assert len(agenda.peers) == DIALLING_MAX
    for name in list(agenda.peers):
        agenda.link_down(name, 1)
    assert agenda.peers == {}


def test_a_flood_of_announcements_does_not_make_it_dial_faster(agenda):
    for _ in range(8):
        agenda.decide(0)
        agenda.link_down("hub", 0, "refused")
        agenda.peers["hub"].not_before = -math.inf
    agenda.decide(0)
    agenda.link_down("hub", 0, "refused")
    for _ in range(1000):
        agenda.see("hub", 0)
    assert agenda.next_at() > 10


def test_settled_is_when_each_has_been_tried(agenda):
    agenda.see("peer", 0)
    assert not agenda.is_settled(5)
    agenda.decide(5)
    agenda.link_down("peer", 6, "refused")
    assert not agenda.is_settled(5)
    agenda.link_up("hub", is_ours=True)
    agenda.decide(6)
    assert not agenda.is_settled(5)
    agenda.session_over("hub", 7)
    assert agenda.is_settled(5)
    assert not agenda.is_settled(8)


def test_nothing_begins_in_a_quiet_time(agenda):
    agenda.quiet_until = 50
    assert (agenda.decide(10), agenda.next_at()) == ([], 50)
    assert agenda.decide(50) == [Dial("hub")]


def test_a_budget_is_of_a_period():
    budget = Budget(100, period_seconds=10)
    assert budget.left(0) == 100
    budget.use(70)
    assert (budget.left(5), budget.renewed_at) == (30, 10)
    budget.use(70)
    assert budget.left(9.9) == 0
    assert budget.left(10) == 100


# --- against a network of the test's own ---

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "pass",
                "see",
                "lose",
                "up",
                "down",
                "fail",
                "incoming",
                "over",
                "news",
                "wake",
                "quiet",
                "cover",
                "uncover",
            ]
        ),
        st.integers(0, 5),
        st.floats(0, 100),
    ),
    max_size=120,
)


class World:
    """What truly is, beside what the agenda makes of the events."""

    def __init__(self, chance):
        self.now = 0.0
        self.agenda = Agenda(chance)
        self.dialling: set[str] = set()
        self.linked: dict[str, bool] = {}  # whether it is ours
        self.busy: set[str] = set()
        self.covered: set[str] = set()
        self.expected: set[str] = set()
        self.failed_at: dict[str, float] = {}

    def happen(self, event, peer, seconds):
        if event == "pass":
            self.now += seconds
        elif event == "see":
            self.expected.add(peer)
            self.agenda.see(peer, self.now)
        elif event == "lose":
            self.expected.discard(peer)
            self.covered.discard(peer)  # it is forgotten
            self.agenda.lose(peer)
        elif event == "up" and peer in self.dialling:
            self.dialling.discard(peer)
            self.linked[peer] = True
            self.agenda.link_up(peer, is_ours=True)
        elif event == "fail" and peer in self.dialling:
            self.dialling.discard(peer)
            self.end(peer, "refused")
        elif event == "cover" and peer in self.dialling:
            self.dialling.discard(peer)
            self.covered.add(peer)
            self.agenda.cover(peer)
        elif event == "uncover" and peer in self.covered:
            self.covered.discard(peer)
            self.failed_at[peer] = self.now
            self.agenda.uncover(peer, self.now)
        elif event == "incoming" and not {peer} & (self.linked.keys() | self.dialling | self.covered):
            self.linked[peer] = False
            self.agenda.link_up(peer, is_ours=False)
        elif event == "down" and peer in self.linked:
            del self.linked[peer]
            self.busy.discard(peer)
            self.end(peer, "cut")
        elif event == "over" and (peer in self.busy or self.linked.get(peer) is False):
            self.busy.discard(peer)
            self.agenda.session_over(peer, self.now)
        elif event == "news":
            self.agenda.news(peer)
        elif event == "wake":
            self.failed_at.clear()
            self.agenda.wake()
        elif event == "quiet":
            self.agenda.quiet_until = self.now + seconds

    def end(self, peer, why_not):
        self.failed_at[peer] = self.now
        self.agenda.link_down(peer, self.now, why_not)

    def decide(self):
        for decision in self.agenda.decide(self.now):
            peer = decision.peer
            assert self.now >= self.agenda.quiet_until
            if isinstance(decision, Dial):
                assert peer in self.expected
                assert peer not in self.linked, "never two connections of one pair"
                assert peer not in self.dialling | self.covered
                assert peer not in self.failed_at or self.now >= self.failed_at[peer] + RETRY_FIRST_SECONDS / 2
                self.dialling.add(peer)
            else:
                assert self.linked[peer], "who was dialled begins no session"
                assert peer not in self.busy, "never two sessions of one pair"
                self.busy.add(peer)
        assert len(self.dialling) <= DIALLING_MAX
        assert self.agenda.decide(self.now) == [], "what is to be done is said once"
        assert self.agenda.next_at() > self.now, "nor is it asked for in vain"


@given(EVENTS, st.randoms(use_true_random=False))
def test_no_pair_has_two_sessions_and_every_peer_is_tried_within_its_pause(events, chance):
    world = World(chance.random)
    for event, peer, seconds in events:
        world.happen(event, f"p{peer}", seconds)
        world.decide()
    while world.dialling:  # the network answers, some well and some not
        peer = min(world.dialling)
        world.happen(chance.choice(["up", "fail"]), peer, 0)
        world.decide()
    for peer in list(world.covered):
        world.happen("uncover", peer, 0)
    start = world.now
    waiting = {peer for peer in world.expected if peer not in world.linked}
    while waiting:
        assert world.agenda.next_at() <= max(start, world.agenda.quiet_until) + RETRY_SECONDS_MAX
        world.now = world.agenda.next_at()
        world.decide()
        for peer in list(world.dialling):
            waiting.discard(peer)
            world.happen("fail", peer, 0)


@given(EVENTS, st.randoms(use_true_random=False), st.integers(0, 5))
def test_news_lead_to_a_session_at_once_where_a_link_is_up(events, chance, number):
    world, peer = World(chance.random), f"p{number}"
    for event in events:
        world.happen(event[0], f"p{event[1]}", event[2])
        world.decide()
    world.agenda.quiet_until = -math.inf
    world.happen("uncover", peer, 0)
    world.happen("see", peer, 0)
    world.happen("wake", peer, 0)
    while peer not in world.linked:
        world.decide()
        for other in list(world.dialling):
            world.happen("up", other, 0)
    if world.linked[peer]:
        world.decide()
        world.happen("over", peer, 0)
        world.happen("news", peer, 0)
        world.now += SESSIONS_APART_SECONDS
        assert peer not in world.busy
        world.decide()
        assert peer in world.busy


def test_phases_read_well():
    said = ["not connected", "connecting", "connected", "syncing", "connected by another name"]
    assert [phase.value for phase in Phase] == said


@pytest.mark.parametrize(
    ("seconds_ago", "left", "renewed_at"), [(40, 30, 160), (99.9, 30, 100.1), (100, 100, 200), (-50, 100, 200)]
)
def test_a_budget_goes_on_where_it_was_left_while_its_period_lasts(seconds_ago, left, renewed_at):
    budget = Budget(100, period_seconds=100)
    budget.resume(70, seconds_ago, now=100)
    assert budget.left(100) == left
    assert budget.renewed_at == pytest.approx(renewed_at)
    budget.use(5)
    assert budget.kept(101) == (105 - left, pytest.approx(101 - (renewed_at - 100)))


@pytest.mark.parametrize("wrong", [(-1, 10), (5, 0), (5, -1), (5, math.inf), (5, math.nan)])
def test_a_budget_that_says_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="a budget is"):
        Budget(*wrong)
