"""Greetings of pairs that have met before: what is remembered, what goes along, and that a lapse costs a round trip."""

import pytest
from tests.simulation.audit import audit
from tests.talking import Talk, check_usable, open_replica, state

from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.errors import DecodeError, NotDelivered, ProtocolError, SyncError
from fieldsync.limits import EAGER_CELLS_MAX
from fieldsync.syncing import messages
from fieldsync.syncing.exchange import Declaration
from fieldsync.syncing.frames import Again, Bye, Declare, Differ, Eager, Forgotten, Hello
from fieldsync.syncing.session import Session

HELLO, DECLARE, BYE, AGAIN, EAGER, DIFFER, FORGOTTEN = 1, 2, 5, 11, 12, 13, 14
SCOPES = [f"territory/{number:02}" for number in range(50)]


class Fleet:
    """Devices and a hub that know each other by name."""

    def __init__(self, folder, names):
        self.replicas = {name: open_replica(folder / f"{name}.db", hub=name == "hub") for name in names}
        self.databases = {name: Database(replica) for name, replica in self.replicas.items()}

    def talk(self, one, other="hub", cut_after=None):
        return Talk.between(self.replicas[one], self.replicas[other], peer=other).run(cut_after)

    def write(self, name, scope, key, **fields):
        with self.databases[name].write() as tx:
            if self.databases[name]["notes"].get(key, scope=scope) is None:
                tx.create("notes", scope=scope, key=key, **fields)
            else:
                tx.update("notes", key, scope=scope, **fields)

    def forget(self, name, table):
        with self.replicas[name].store.writing() as writer:
            writer._db.execute(f"DELETE FROM {table}")

    def check_equal(self, *names):
        """Violation unless these, the hub and the van if none is named, hold the same of the scopes they share."""
        some = [self.replicas[name] for name in names or ("hub", "van")]
        states = [state(replica) for replica in some]
        for replica in some:
            assert audit(replica.store) == []
        for name in {name for one in states for name in one}:
            held = [one[name] for one in states if name in one]
            assert all(one == held[0] for one in held)


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path, ["hub", "van", "rep"])
    for scope in SCOPES:
        fleet.write("van", scope, "n-1", text="first")
    fleet.databases["rep"].enter(SCOPES[0])
    fleet.talk("van")
    fleet.talk("rep")
    yield fleet
    for replica in fleet.replicas.values():
        replica.close()


def test_nothing_new_in_fifty_scopes_is_a_few_bytes(fleet):
    talk = fleet.talk("van")
    assert talk.types == [(0, AGAIN), (1, DIFFER), (0, BYE)]
    assert sum(len(frame) for _, frame in talk.frames) < 40
    assert talk.sides[0].report.round_trips == 1
    assert talk.sides[0].report.scopes == SCOPES


def test_a_lone_edit_goes_along_with_the_greeting(fleet):
    for text in ("second", "third"):
        fleet.write("van", SCOPES[0], "n-1", text=text)
        talk = fleet.talk("van")
        assert talk.types == [(0, AGAIN), (0, EAGER), (1, DIFFER), (0, BYE)]
        assert sum(len(frame) for _, frame in talk.frames) <= 130
        one, other = (side.report for side in talk.sides)
        assert (one.round_trips, one.changes_sent, other.changes_received, other.records_changed) == (1, 1, 1, 1)
        assert fleet.databases["hub"]["notes"].get("n-1", scope=SCOPES[0]).text == text
        assert fleet.databases["van"].scopes()[0].pending == 0
    fleet.talk("rep")
    fleet.check_equal("hub", "van", "rep")


def test_deletes_and_creates_go_along_too(fleet):
    fleet.write("van", SCOPES[3], "n-2", text="new")
    with fleet.databases["van"].write() as tx:
        tx.delete("notes", "n-1", scope=SCOPES[3])
    assert fleet.talk("van").sides[0].report.round_trips == 1
    fleet.check_equal()


def test_devices_that_take_turns_need_one_round_trip_to_push(fleet):
    """The hub remembers of each device what both had, whoever else wrote since."""
    for turn in range(4):
        name = ("van", "rep")[turn % 2]
        fleet.write(name, SCOPES[0], f"{name}-{turn}", text="x")
        talk = fleet.talk(name)
        assert (1, DIFFER) in talk.types
        assert talk.sides[1].report.changes_received == 1
        assert fleet.databases["hub"]["notes"].get(f"{name}-{turn}", scope=SCOPES[0]).text == "x"
    fleet.talk("van")
    fleet.check_equal()


def test_news_of_the_other_side_come_along_with_its_answer(fleet):
    for text in ("by the hub", "by the hub again"):
        fleet.write("hub", SCOPES[1], "n-1", text=text)
        talk = fleet.talk("van")
        assert talk.types == [(0, AGAIN), (1, DIFFER), (1, EAGER), (0, BYE)]
        one, other = (side.report for side in talk.sides)
        assert (one.round_trips, one.changes_received, one.records_changed, other.changes_sent) == (1, 1, 1, 1)
        fleet.check_equal()
    assert fleet.talk("van").types == [(0, AGAIN), (1, DIFFER), (0, BYE)]


@pytest.mark.parametrize("both", [SCOPES[2:4], SCOPES[2:3] * 2])
def test_both_may_have_news_even_of_one_scope(fleet, both):
    for text in ("1", "2"):
        fleet.write("hub", both[0], "n-1", text="by the hub " + text)
        fleet.write("van", both[1], "n-2", text="by the van " + text)
        talk = fleet.talk("van")
        assert talk.types == [(0, AGAIN), (0, EAGER), (1, DIFFER), (1, EAGER), (0, BYE)]
        one, other = (side.report for side in talk.sides)
        assert (one.round_trips, one.changes_sent, one.changes_received) == (1, 1, 1)
        assert (other.changes_sent, other.changes_received) == (1, 1)
        fleet.check_equal()
        assert all(scope.pending == 0 for scope in fleet.databases["van"].scopes())
    assert fleet.talk("van").types == [(0, AGAIN), (1, DIFFER), (0, BYE)]


def test_an_answer_does_not_come_along_past_another_stream(fleet):
    """It does not land, the declaration says so, and the changes come in a stream: two round trips more."""
    fleet.write("hub", SCOPES[0], "n-1", text="second")
    with fleet.replicas["van"].store.writing() as writer:
        writer.save_scope(writer.scope(SCOPES[0])._replace(taker=b"somebody"))
    talk = fleet.talk("van")
    assert talk.types[:5] == [(0, AGAIN), (1, DIFFER), (1, EAGER), (0, DECLARE), (1, DECLARE)]
    one, other = (side.report for side in talk.sides)
    assert (one.round_trips, one.changes_received, other.changes_sent) == (3, 1, 1)
    fleet.check_equal()
    fleet.write("hub", SCOPES[0], "n-1", text="third")
    assert fleet.talk("van").sides[0].report.round_trips == 1
    fleet.check_equal()


@pytest.mark.parametrize("scope", [SCOPES[0], SCOPES[1]])
def test_what_is_written_while_an_answer_is_under_way_goes_next_time(fleet, scope):
    fleet.write("hub", SCOPES[0], "n-1", text="by the hub")
    sides = Talk.between(fleet.replicas["van"], fleet.replicas["hub"], peer="hub").sides
    sides[1].receive(sides[0].next_frame())
    fleet.write("van", scope, "n-3", text="meanwhile")
    while frame := sides[1].next_frame():
        sides[0].receive(frame)
    assert [frame[0] for frame in iter(sides[0].next_frame, None)] == [BYE]
    sides[1].receive(messages.encode(Bye()))
    assert fleet.databases["van"]["notes"].get("n-1", scope=SCOPES[0]).text == "by the hub"
    assert sum(one.pending for one in fleet.databases["van"].scopes()) == 1
    talk = fleet.talk("van")
    assert talk.types == [(0, AGAIN), (0, EAGER), (1, DIFFER), (0, BYE)]
    fleet.check_equal()


def test_a_lost_bye_costs_a_round_trip(fleet):
    fleet.write("hub", SCOPES[0], "n-1", text="second")
    assert fleet.talk("van", cut_after=3).types == [(0, AGAIN), (1, DIFFER), (1, EAGER)]
    fleet.check_equal()
    assert fleet.talk("van").types[:3] == [(0, AGAIN), (1, FORGOTTEN), (0, HELLO)]
    fleet.write("hub", SCOPES[0], "n-1", text="third")
    assert fleet.talk("van").sides[0].report.round_trips == 1
    fleet.check_equal()


def test_a_device_that_answers_a_hub_may_leave_on_its_bye(fleet):
    fleet.talk("hub", "van")
    fleet.write("van", SCOPES[0], "n-1", text="to be delivered")
    assert fleet.databases["van"].scopes()[0].pending == 1
    assert fleet.talk("hub", "van").types == [(0, AGAIN), (1, DIFFER), (1, EAGER), (0, BYE)]
    assert fleet.databases["van"].scopes()[0].pending == 0
    fleet.check_equal()


def test_a_hub_makes_durable_what_an_answer_brought_before_its_bye(fleet, monkeypatch):
    fleet.talk("hub", "van")
    fleet.write("van", SCOPES[0], "n-1", text="to be delivered")
    said = []
    monkeypatch.setattr(fleet.replicas["hub"], "before_leaving", lambda: said.append("synced"))
    talk = Talk.between(fleet.replicas["hub"], fleet.replicas["van"], peer="van")

    def deliver(side, frame):
        said.append(frame[0])
        side.receive(frame)

    talk.run(deliver=deliver)
    assert said == [AGAIN, DIFFER, EAGER, "synced", BYE]


def test_a_scope_left_while_an_answer_is_under_way_stays_left(fleet):
    fleet.talk("hub", "van")
    fleet.write("van", SCOPES[0], "n-1", text="not delivered")
    sides = Talk.between(fleet.replicas["hub"], fleet.replicas["van"], peer="van").sides
    sides[1].receive(sides[0].next_frame())
    fleet.databases["hub"].leave(SCOPES[0], lose_pending=True)
    sides[0].receive(sides[1].next_frame())
    with pytest.raises(SyncError, match="left meanwhile"):
        sides[0].receive(sides[1].next_frame())
    for side in sides:
        side.close()
    assert fleet.databases["van"].scopes()[0].pending == 1


def test_too_much_does_not_come_along_with_an_answer(fleet):
    with fleet.databases["hub"].write() as tx:
        for number in range(EAGER_CELLS_MAX // 2 + 1):
            tx.create("notes", scope=SCOPES[0], key=f"many-{number}", text="x")
    talk = fleet.talk("van")
    assert talk.types[:3] == [(0, AGAIN), (1, DIFFER), (1, DECLARE)]
    assert talk.sides[0].report.round_trips == 2
    fleet.check_equal()


@pytest.mark.parametrize("table", ["fs_pair", "fs_agreed"])
@pytest.mark.parametrize("side", ["hub", "van"])
def test_who_forgot_loses_a_round_trip_and_nothing_else(fleet, side, table):
    fleet.write("van", SCOPES[0], "n-1", text="after")
    fleet.forget(side, table)
    talk = fleet.talk("van")
    trips = {("hub", "fs_pair"): 3, ("van", "fs_pair"): 2, ("hub", "fs_agreed"): 2, ("van", "fs_agreed"): 2}
    assert talk.sides[0].report.round_trips == trips[side, table]
    assert ((1, FORGOTTEN) in talk.types) == ((side, table) == ("hub", "fs_pair"))
    fleet.check_equal()
    fleet.write("van", SCOPES[0], "n-1", text="again")
    assert fleet.talk("van").sides[0].report.round_trips == 1


def test_a_change_does_not_come_along_past_another_stream(fleet):
    """While a session streams into a scope, or was cut while it did, the change comes in a stream of its own."""
    with fleet.replicas["hub"].store.writing() as writer:
        writer.save_scope(writer.scope(SCOPES[0])._replace(taker=b"somebody"))
    fleet.write("van", SCOPES[0], "n-1", text="second")
    assert fleet.talk("van").sides[0].report.round_trips == 2
    fleet.check_equal()
    fleet.write("van", SCOPES[0], "n-1", text="third")
    assert fleet.talk("van").sides[0].report.round_trips == 1


def test_too_much_does_not_go_along(fleet):
    with fleet.databases["van"].write() as tx:
        for number in range(EAGER_CELLS_MAX // 2 + 1):
            tx.create("notes", scope=SCOPES[0], key=f"many-{number}", text="x")
    talk = fleet.talk("van")
    assert (0, EAGER) not in talk.types
    assert talk.sides[0].report.round_trips == 2
    fleet.check_equal()


def test_new_scopes_are_found_on_either_side(fleet):
    fleet.write("van", "job/new", "n-1", text="x")
    assert fleet.talk("van").types[0] == (0, HELLO)
    assert fleet.talk("van").types == [(0, AGAIN), (1, DIFFER), (0, BYE)]
    fleet.databases["rep"].enter("job/new")
    fleet.talk("rep")
    fleet.check_equal("hub", "van", "rep")
    assert len(fleet.databases["hub"].scopes()) == 51


def test_a_hub_that_calls_learns_of_scopes_that_only_the_device_has(fleet):
    fleet.talk("hub", "rep")
    fleet.write("rep", "job/of-rep", "n-1", text="x")
    talk = fleet.talk("hub", "rep")
    assert talk.types[0] == (0, AGAIN)
    fleet.check_equal("hub", "rep")
    assert "job/of-rep" in state(fleet.replicas["hub"])


@pytest.mark.parametrize("met", [True, False])
def test_a_scope_that_a_hub_enters_while_it_calls_is_shared_at_once(fleet, met):
    """By another session, or a move: it was not on offer, so both take it for different."""
    if met:
        fleet.talk("hub", "rep")
    fleet.write("rep", "job/of-rep", "n-1", text="x")
    talk = Talk.between(fleet.replicas["hub"], fleet.replicas["rep"], peer="rep")
    talk.sides[1].receive(talk.sides[0].next_frame())
    fleet.write("hub", "job/of-rep", "n-2", text="y")
    talk.run()
    fleet.check_equal("hub", "rep")
    assert len(fleet.databases["hub"]["notes"].where(scope="job/of-rep").all()) == 2


def test_scopes_left_by_the_device_or_unknown_to_the_peer(fleet):
    fleet.write("van", SCOPES[0], "n-1", text="not delivered")
    with pytest.raises(NotDelivered, match="1 changes"):
        fleet.databases["van"].leave(SCOPES[0])
    fleet.talk("van")
    fleet.databases["van"].leave(SCOPES[0])
    assert SCOPES[0] not in fleet.talk("van").sides[0].report.scopes
    fleet.databases["van"].enter(SCOPES[0])
    fleet.talk("van")
    fleet.check_equal()
    fleet.talk("rep", "van")
    fleet.databases["van"].leave(SCOPES[0])
    report = fleet.talk("rep", "van").sides[0].report
    assert (report.scopes, report.refused) == ([], [SCOPES[0]])


@pytest.mark.parametrize("cut_after", range(8))
def test_a_cut_greeting_costs_nothing_but_time(fleet, cut_after):
    fleet.write("van", SCOPES[0], "n-1", text="mine")
    fleet.write("hub", SCOPES[1], "n-1", text="theirs")
    fleet.talk("van", cut_after=cut_after)
    fleet.write("van", SCOPES[0], "n-1", text="mine again")
    fleet.talk("van")
    fleet.talk("rep")
    fleet.check_equal()
    assert fleet.databases["hub"]["notes"].get("n-1", scope=SCOPES[0]).text == "mine again"
    assert fleet.talk("van").types == [(0, AGAIN), (1, DIFFER), (0, BYE)]


# --- what a peer may not say ---


def opened(fleet):
    """The hub's side of a conversation that the van has begun with a change that goes along, and the van's frames."""
    fleet.write("van", SCOPES[0], "n-1", text="second")
    talk = Talk.between(fleet.replicas["van"], fleet.replicas["hub"], peer="hub")
    frames = [talk.sides[0].next_frame() for _ in range(2)]
    return talk.sides, [messages.decode(frame) for frame in frames]


@pytest.mark.parametrize(
    "twist",
    [
        lambda again, eager: [eager],
        lambda again, eager: [again, again],
        lambda again, eager: [again, eager, eager],
        lambda again, eager: [again, Eager(1, eager.base, eager.news, eager.chunk)],
        lambda again, eager: [Differ([], [], [])],
        lambda again, eager: [Forgotten()],
        lambda again, eager: [again, eager, Hello(bytes(16), 0, False, [])],
    ],
)
def test_greetings_out_of_place_are_refused(fleet, twist):
    sides, said = opened(fleet)
    *allowed, last = map(messages.encode, twist(*said))
    for frame in allowed:
        sides[1].receive(frame)
    with pytest.raises(ProtocolError):
        sides[1].receive(last)
    for side in sides:
        side.close()
    check_usable(fleet.replicas["hub"], SCOPES[1])


def test_an_answer_may_not_forget_twice_or_name_what_was_not_on_offer(fleet):
    for answers in (
        [Forgotten(), Forgotten()],
        [Differ([(50, bytes(8))], [], [])],
        [Differ([], [77], [])],
        [Differ([], [], [("job/uninvited", bytes(8))])],
    ):
        sides, _ = opened(fleet)
        *allowed, last = map(messages.encode, answers)
        for frame in allowed:
            sides[0].receive(frame)
        with pytest.raises(ProtocolError):
            sides[0].receive(last)
        for side in sides:
            side.close()


def test_a_change_on_another_base_lands_nowhere(fleet):
    """It is skipped, and comes again in a stream: the base is what makes its contexts true."""
    sides, (again, eager) = opened(fleet)
    before = state(fleet.replicas["hub"])[SCOPES[0]]
    sides[1].receive(messages.encode(again))
    sides[1].receive(messages.encode(Eager(eager.place, bytes(8), eager.news, eager.chunk)))
    assert state(fleet.replicas["hub"])[SCOPES[0]] == before
    assert messages.decode(sides[1].next_frame()).different != []
    for side in sides:
        side.close()


def answered(fleet):
    """The van's side of a conversation that the hub answers with a change, and the hub's frames."""
    fleet.write("hub", SCOPES[0], "n-1", text="second")
    sides = Talk.between(fleet.replicas["van"], fleet.replicas["hub"], peer="hub").sides
    sides[1].receive(sides[0].next_frame())
    return sides, [messages.decode(frame) for frame in iter(sides[1].next_frame, None)]


@pytest.mark.parametrize(
    "twist",
    [
        lambda differ, eager: [eager],
        lambda differ, eager: [differ, eager, eager],
        lambda differ, eager: [differ, differ],
        lambda differ, eager: [differ, Forgotten()],
        lambda differ, eager: [differ, Hello(bytes(16), 0, True, [])],
        lambda differ, eager: [differ, Declare(0, Declaration(Context(), Context(), []))],
        lambda differ, eager: [differ, Bye()],
        lambda differ, eager: [differ, Eager(1, eager.base, eager.news, eager.chunk)],
        lambda differ, eager: [differ, Eager(15, eager.base, eager.news, eager.chunk)],
        lambda differ, eager: [Differ(differ.different, [], [], 2), eager, eager],
    ],
)
def test_answers_out_of_place_are_refused(fleet, twist):
    sides, said = answered(fleet)
    before = state(fleet.replicas["van"])
    *allowed, last = map(messages.encode, twist(*said))
    for frame in allowed:
        sides[0].receive(frame)
    before = state(fleet.replicas["van"])
    with pytest.raises(ProtocolError):
        sides[0].receive(last)
    assert state(fleet.replicas["van"]) == before
    for side in sides:
        side.close()
    check_usable(fleet.replicas["van"], SCOPES[1])


@pytest.mark.parametrize("base", [bytes(8), Context().hash()])
def test_an_answer_on_another_base_lands_nowhere(fleet, base):
    sides, (differ, eager) = answered(fleet)
    before = state(fleet.replicas["van"])
    sides[0].receive(messages.encode(differ))
    sides[0].receive(messages.encode(Eager(eager.place, base, eager.news, eager.chunk)))
    assert state(fleet.replicas["van"]) == before
    declared = messages.decode(sides[0].next_frame())
    assert (type(declared), declared.scope) == (Declare, 0)
    for side in sides:
        side.close()


def test_a_pair_that_nobody_remembers_is_asked_for_a_hello(fleet):
    sides, (_, eager) = opened(fleet)
    sides[1].receive(messages.encode(Again(b"stranger", [], 1)))
    assert messages.decode(sides[1].next_frame()) == Forgotten()
    sides[1].receive(messages.encode(eager))  # of no use now, and skipped
    assert sides[1].next_frame() is None
    for side in sides:
        side.close()


@pytest.mark.parametrize(
    "body",
    [
        {"h": bytes(7)},
        {"h": bytes(8), "c": [[1, bytes(8)], [0, bytes(8)]]},
        {"h": bytes(8), "c": [[0, bytes(7)]]},
        {"h": bytes(8), "c": [[-1, bytes(8)]]},
        {"h": bytes(8), "e": 10_000},
        {"h": bytes(8), "!new": 1},
    ],
)
def test_malformed_greetings_are_refused(fleet, body):
    sides, _ = opened(fleet)
    with pytest.raises(DecodeError):
        sides[1].receive(bytes([AGAIN]) + messages._msgpack().packb(body))
    for side in sides:
        side.close()


def test_a_context_that_claims_more_than_came_is_no_way_in(fleet):
    """News that name changes which the chunk lacks are joined as a stream's Done would: nothing else can be told."""
    sides, (again, eager) = opened(fleet)
    sides[1].receive(messages.encode(again))
    more = eager.news | Context.of([(b"stranger", 1, 3)])
    sides[1].receive(messages.encode(Eager(eager.place, eager.base, more, None)))
    for side in sides:
        side.close()
    assert audit(fleet.replicas["hub"].store) == []


def test_an_answer_lands_only_where_all_of_its_base_is(fleet):
    """Such as after a repair, which may have taken changes out of the context: to join would claim them again."""
    fleet.write("van", SCOPES[0], "n-1", text="once more")
    fleet.talk("van")
    sides, said = answered(fleet)
    with fleet.replicas["van"].store.writing() as writer:
        scope = writer.scope(SCOPES[0])
        author, _, high = writer.context(scope.id).intervals()[-1]
        writer.set_context(scope.id, writer.context(scope.id) - Context.of([(author, high, high)]))
    for message in said:
        sides[0].receive(messages.encode(message))
    with fleet.replicas["van"].store.reading() as reader:
        assert not reader.context(reader.scope(SCOPES[0]).id).covers(author, high)
    assert messages.decode(sides[0].next_frame()).scope == 0
    for side in sides:
        side.close()


@pytest.mark.parametrize("name", ["hub", "van"])
def test_who_holds_anything_in_part_sends_nothing_along(fleet, name):
    """What it has replaced with that is in no context yet: an Eager would have the other claim what nobody sent."""
    fleet.write(name, SCOPES[0], "n-1", text="second")
    with fleet.replicas[name].store.writing() as writer:
        writer.put_provisional(writer.scope(SCOPES[0]).id, [(b"stranger", 1)], Context())
    assert EAGER not in [kind for _, kind in fleet.talk("van").types]


def test_a_floor_that_the_other_may_not_have_keeps_an_answer_back(fleet):
    """What was removed and forgotten has to be found by comparing what lives."""
    with fleet.databases["hub"].write() as tx:
        tx.delete("notes", "n-1", scope=SCOPES[0])
        tx.create("notes", scope=SCOPES[0], key="n-2", text="x")
    fleet.replicas["hub"].trim(None, before_ms=1 << 62)
    talk = fleet.talk("van")
    assert EAGER not in [kind for _, kind in talk.types]
    fleet.check_equal()
    assert fleet.databases["van"]["notes"].get("n-1", scope=SCOPES[0]) is None


def test_who_holds_no_scope_can_sync_again_and_again(tmp_path):
    hub, device = (Database(open_replica(tmp_path / name)) for name in ("h.db", "a.db"))
    hub.enter("s")
    assert [device.sync(hub).complete for _ in range(3)] == [True] * 3
    for database in (hub, device):
        database.close()


def test_a_differ_is_no_answer_to_a_hello(tmp_path):
    hub, device = (Database(open_replica(tmp_path / name)) for name in ("h.db", "a.db"))
    for database in (hub, device):
        database.enter("s", "t")
    device.sync(hub)
    device.leave("t")  # so the list of scopes is another one, and it says Hello
    session = Session(device.replica, initiator=True, peer=hub.replica.id.hex())
    assert isinstance(messages.decode(session.next_frame()), Hello)
    with pytest.raises(ProtocolError, match="not due"):
        session.receive(messages.encode(Differ([], [], [])))
    for database in (hub, device):
        database.close()
