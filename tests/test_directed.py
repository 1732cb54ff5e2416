"""Short schedules by hand for rules that chance seldom tries: each breaks a promise once its rule is switched off."""

import io
import random
from contextlib import suppress
from dataclasses import replace

import apsw
import pytest
from tests import model
from tests.simulation import cells
from tests.simulation.device import Device
from tests.simulation.inner import Op
from tests.simulation.ledger import Ledger
from tests.simulation.oracle import Violation
from tests.simulation.rules import RULES
from tests.simulation.stage import nothing_to_mend
from tests.simulation.world import OWNER, Order, World
from tests.talking import Talk

from fieldsync import texts
from fieldsync.bundles import bundle
from fieldsync.errors import NotDelivered
from fieldsync.syncing import giving
from fieldsync.syncing.memory import join

pytestmark = pytest.mark.usefixtures("single_changes")
DECLARE, STREAM, SKETCH = 2, 3, 8
SCOPE, YEAR_MS = "job/1", 31_557_600_000


def devices_of(world, *names):
    """Devices that hold one scope."""
    devices = [Device(world, name, is_hub=False, declared=()) for name in names]
    for device in devices:
        device.database.enter(SCOPE)
    return devices


def do(device, kind, key, text=None):
    """One transaction of one write, or delete, a second after the last of anybody."""
    device.world.now_ms += 1_000
    values = {"text": text} if text else {}
    device.transact([Op(kind, SCOPE, "notes", key, values)])


def forget(device):
    device.replica.trim(None, before_ms=2 * device.world.now_ms)


def say_until(talk, sender, kind):
    """Let both sides talk until one of them has sent a frame of that type, and it has arrived."""
    turn = 0
    while True:
        for frame in iter(talk.sides[turn].next_frame, None):
            talk.sides[1 - turn].receive(frame)
            if (turn, frame[0]) == (sender, kind):
                return
        turn = 1 - turn


def cut_after_a_stream(taker, giver):
    """Sync until the first change has come; then the link dies."""
    talk = Talk.between(taker.replica, giver.replica)
    say_until(talk, 1, STREAM)
    for side in talk.sides:
        side.close()


def check(*devices):
    for device in devices:
        device.check()
        device.database.close()


def late_edit(world):
    """A removal comes without the edit that its author had seen; the edit comes late, from another."""
    author, remover, late = devices_of(world, "author", "remover", "late")
    do(author, "create", "x", "old")
    join(author.replica, remover.replica)
    join(author.replica, late.replica)
    do(author, "update", "x", "new")
    join(author.replica, remover.replica)
    do(remover, "delete", "x")
    do(remover, "create", "y")
    cut_after_a_stream(late, remover)
    assert not late.keys(SCOPE, "notes")
    forget(late)
    join(late.replica, author.replica)
    check(author, remover, late)


def two_givers(world):
    """One gives a record; the other covers it, and removed it, and has forgotten that."""
    first, second, taker = devices_of(world, "first", "second", "taker")
    do(first, "create", "x", "old")
    join(first.replica, second.replica)
    do(second, "delete", "x")
    forget(second)
    talks = [Talk.between(taker.replica, giver.replica) for giver in (first, second)]
    for talk in talks:
        say_until(talk, 0, DECLARE)
    for talk in talks:
        talk.run()
    check(first, second, taker)


def two_incarnations(world):
    """Two devices make the same keys, each one of them with a fast clock. A third overwrites both, and reads them.

    Since a write goes to all incarnations, its time matters only where it does not reach the topmost.
    """
    one, other, writer = devices_of(world, "one", "other", "writer")
    do(one, "create", "x", "slow")
    do(other, "create", "y", "slow")
    one.offset_ms = other.offset_ms = 76 * YEAR_MS
    do(one, "create", "y", "fast")
    do(other, "create", "x", "fast")
    for device in (one, other):
        join(device.replica, writer.replica)
    with RULES["one_incarnation_written"]():
        for key in "xy":
            do(writer, "update", key, "overwritten")
    read = {key: writer.database["notes"].get(key).text for key in "xy"}
    for device in (one, other, writer):
        device.database.close()
    if set(read.values()) != {"overwritten"}:
        raise Violation(f"reads {read}")


def relayed(world):
    """A van takes a rep's change along, and leaves before the hub has it. Then the rep is lost."""
    hub, rep, van = devices_of(world, "hub", "rep", "van")
    hub.replica.takes_all = True
    join(van.replica, hub.replica)
    do(rep, "create", "x", "said to the van alone")
    join(rep.replica, van.replica)
    with suppress(NotDelivered):
        van.replica.leave([SCOPE])
        van.database.enter(SCOPE)
    join(van.replica, hub.replica)
    found = hub.database["notes"].get("x")
    for device in (hub, rep, van):
        device.database.close()
    if found is None:
        raise Violation("what the van had taken along is nowhere")


class Worst(random.Random):
    """Of a log that was not synced nothing is left, and the note of the file is as it is."""

    def randint(self, low, high):
        return low

    def random(self):
        return 0.9


def lose_power(device):
    device.reopen((), device.store.image_after_power_cut(Worst()))


def promised(world, ends_at):
    """A device leaves on what a hub says that it has; then the hub loses its power."""
    hub, van = devices_of(world, "hub", "van")
    hub.is_hub = hub.replica.takes_all = True
    hub.store.sync_log()
    do(van, "create", "x", "only in the van")
    ends_at(van, hub)
    van.database.leave(SCOPE)
    lose_power(hub)
    found = hub.keys(SCOPE, "notes")
    for device in (hub, van):
        device.database.close()
    if found != ["x"]:
        raise Violation("what the hub had promised to have is gone")


def settled(world):
    """The hub settles."""
    promised(world, lambda van, hub: join(van.replica, hub.replica))


def found_equal(world):
    """The link dies before the hub settles; the next greeting finds nothing that differs."""

    def ends_at(van, hub):
        talk = Talk.between(van.replica, hub.replica)
        say_until(talk, 0, STREAM)
        for side in talk.sides:
            side.close()
        join(van.replica, hub.replica)

    promised(world, ends_at)


def cut_after_a_sketch(world):
    """The link dies when it is known what the giver has no more, and before the stream is done."""
    giver, taker = devices_of(world, "giver", "taker")
    do(giver, "create", "x", "old")
    join(giver.replica, taker.replica)
    do(giver, "delete", "x")
    forget(giver)
    do(giver, "create", "y")
    talk = Talk.between(taker.replica, giver.replica)
    say_until(talk, 1, SKETCH)
    for side in talk.sides:
        side.close()
    check(giver, taker)


def cut_again_and_again(world):
    """The first changes of a stream are held in part by their giver, and the link dies after each frame of it."""
    giver, taker = devices_of(world, "giver", "taker")
    for key in "xy":
        giver.transact([Op("create", SCOPE, "notes", key, {"text": "1", "state": "1"})])
    for key in "xy":
        do(giver, "update", key, "2")
    for _ in range(4):
        cut_after_a_stream(taker, giver)
    found = {row.key: row.as_dict().get("text") for row in taker.database["notes"]}
    check(giver, taker)
    if found != {"x": "2", "y": "2"}:
        raise Violation(f"after as many cuts as changes {found} is there")


def gap(world):
    """Of two edits of a text the second comes alone, in a bundle. Who took it edits on, until all is written anew."""
    author, other = devices = [Device(world, name, is_hub=False, declared=(Order,)) for name in ("author", "other")]
    for device in devices:
        device.database.enter(SCOPE)

    def type_in(device, text, at=0):
        texts._documents.clear()  # as a process that opens the text does not go on as the last one who wrote
        device.world.now_ms += 1_000
        device.transact([Op("update", SCOPE, "orders", "x", edits=(("notes", "insert", at, text),))])

    author.transact([Op("create", SCOPE, "orders", "x", {"status": "new"})])
    type_in(author, "first")
    join(author.replica, other.replica)
    type_in(author, "second")
    with author.store.reading() as reader:
        base = {SCOPE: reader.context(reader.scope(SCOPE).id)}
    type_in(author, "third", at=len("secondfirst"))
    file = io.BytesIO()
    bundle.write(author.replica, file, None, base)
    bundle.read(other.replica, io.BytesIO(file.getvalue()))
    for number in range(12):
        type_in(other, f"<{number}>")
    join(author.replica, other.replica)
    check(*devices)


DIRECTED = {
    "compacted_over_gaps": gap,
    "drops_before_done": cut_after_a_sketch,
    "settled_unsynced": settled,
    "equals_unsynced": found_equal,
    "left_with_relayed": relayed,
    "parts_come_again": cut_again_and_again,
    "trimmed_by_targets": late_edit,
    "many_streams": two_givers,
    "times_of_one_incarnation": two_incarnations,
}


def test_a_change_that_comes_again_and_goes_with_what_came_leaves_the_index(tmp_path, monkeypatch):
    """It is held in part; what comes again of it is dead here, and what was here dies of what comes along."""
    author, one, other, taker = devices = devices_of(World(tmp_path, random.Random(0)), *"abcd")
    do(author, "create", "x", "old")
    for device in devices[1:]:
        join(author.replica, device.replica)
    author.transact([Op("update", SCOPE, "notes", "x", {"text": "1", "state": "1"})])
    for device in (one, other):
        join(author.replica, device.replica)
    one.transact([Op("update", SCOPE, "notes", "x", {"state": "2"})])
    do(one, "create", "y")
    other.transact([Op("update", SCOPE, "notes", "x", {"text": "2"})])
    talk = Talk.between(taker.replica, one.replica)
    for _ in range(2):
        say_until(talk, 1, STREAM)
    for side in talk.sides:
        side.close()
    assert taker.provisional(SCOPE)
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 1_000)
    join(taker.replica, other.replica)
    check(*devices)


def test_a_cell_under_the_name_of_another_change_of_its_record_is_damage(tmp_path):
    """All of it still reads well, and is where the index says that both changes have cells."""
    (device,) = devices_of(World(tmp_path, random.Random(0)), "device")
    do(device, "create", "x", "old")
    do(device, "update", "x", "new")
    device.transact([Op("update", SCOPE, "notes", "x", {"state": "mine"})])
    (row,) = device.rows(SCOPE)
    ((name, inc),) = row.record.items()
    twisted = {replace(cell, stamp=model.Stamp(inc.time, *name.dot)) for cell in inc.cells if cell.value == b"dmine"}
    others = {cell for cell in inc.cells if cell.value != b"dmine"}
    with device.store.writing() as writer:
        packed = cells.numbers(writer.dictionary).pack({name: model.Incarnation(inc.time, frozenset(twisted | others))})
        writer.update_rows(row.collection, [(row.id, packed)])
    assert device.database.verify(repair=True).fetching == {SCOPE: 1}
    assert not device.rows(SCOPE)
    check(device)


def test_what_nobody_can_know_any_more_may_live_again_and_nothing_else(tmp_path):
    """Its removal was forgotten where it was made, and then damage took the change itself out of the context there."""
    world = World(tmp_path, random.Random(0))
    author, other, remover = devices = devices_of(world, "author", "other", "remover")
    do(author, "create", "x")
    do(other, "create", "y")
    for device in (author, other):
        join(device.replica, remover.replica)
    for key in "xy":
        do(remover, "delete", key)
    forget(remover)
    (made,) = author.context(SCOPE)
    with Ledger(world, list(devices)).repair(remover), apsw.Connection(str(remover.path)) as file:
        sql = "DELETE FROM fs_context WHERE author=(SELECT id FROM fs_author WHERE name=?)"
        file.execute(sql, (made[0],)).fetchall()
        assert not remover.database.verify(repair=True).fault_count
    for _ in range(2):
        join(author.replica, remover.replica)
        join(other.replica, remover.replica)
    assert [device.keys(SCOPE, "notes") for device in devices] == [["x"]] * 3
    truth = world.truth(SCOPE)
    assert {cid[2] for cid in truth.doubtful} == {made}
    truth.doubtful, doubtful = set(), truth.doubtful
    with pytest.raises(Violation, match="risen"):
        remover.check()
    truth.doubtful = doubtful
    check(*devices)


@pytest.mark.parametrize("first", [0, 1])
def test_two_late_edits_that_come_at_once_are_beside_each_other(tmp_path, first):
    """One of them is later, by its author's clock. Who wrote the other one writes again: that replaces his own."""
    world = World(tmp_path, random.Random(0))
    with world.movers.watched():
        names = [OWNER, "ann", "bob", "both"]
        hub, ann, bob, both = devices = [Device(world, name, is_hub=name == OWNER, declared=()) for name in names]
        for device in devices:
            device.database.enter("job/1", "job/2")
        do(hub, "create", "x", "old")
        for device in devices[1:]:
            join(device.replica, hub.replica)
        hub.transact([Op("update", SCOPE, "notes", "x", to="job/2")])
        for device in (ann, bob) if first == 0 else (bob, ann):
            do(device, "update", "x", device.name)
        for device in (ann, bob):
            file = io.BytesIO()
            bundle.write(device.replica, file)
            bundle.read(both.replica, io.BytesIO(file.getvalue()))
        join(both.replica, hub.replica)
        do(bob, "update", "x", "bob again")
        for device in (bob, ann, both):
            join(device.replica, hub.replica)
            world.movers.flush()
        (conflict,) = hub.database.conflicts()
        assert [claim.value for claim in conflict.claims] == ["bob again", "ann"]
    check(*devices)


def test_a_copy_of_a_hub_that_owns_nothing_follows_no_record_that_was_moved(tmp_path):
    """It has in its file where records went, and would write again what the owner writes again."""
    world = World(tmp_path, random.Random(0))
    with world.movers.watched():
        hub, device = (Device(world, name, is_hub=name == OWNER, declared=()) for name in (OWNER, "device"))
        hub.database.enter("job/1", "job/2")
        device.database.enter("job/1", "job/2")
        do(hub, "create", "x", "old")
        join(device.replica, hub.replica)
        hub.transact([Op("update", SCOPE, "notes", "x", to="job/2")])
        copy = Device(world, "copy", is_hub=True, declared=(), image=hub.store.image())
        do(device, "update", "x", "late")
        for one in (copy, hub, copy):
            join(device.replica, one.replica)
            world.movers.flush()
        assert hub.keys("job/2", "notes") == copy.keys("job/2", "notes") == ["x"]
    check(hub, copy, device)


@pytest.mark.parametrize("rule", DIRECTED)
def test_a_rule_that_is_off_is_noticed(rule, tmp_path):
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
    DIRECTED[rule](World(tmp_path / "on", random.Random(0)))
    with RULES[rule](), nothing_to_mend(), pytest.raises(Violation):
        DIRECTED[rule](World(tmp_path / "off", random.Random(0)))
