"""Short schedules by hand for rules that chance seldom tries: each breaks a promise once its rule is switched off."""

import random
from contextlib import suppress
from dataclasses import replace

import pytest
from tests import model
from tests.simulation import cells
from tests.simulation.device import Device, World
from tests.simulation.inner import Op
from tests.simulation.oracle import Violation
from tests.simulation.rules import RULES
from tests.simulation.stage import nothing_to_mend
from tests.talking import Talk

from fieldsync import giving
from fieldsync.errors import NotDelivered
from fieldsync.memory import join

DECLARE, STREAM, SKETCH = 2, 3, 8
SCOPE, YEAR_MS = "job/1", 31_557_600_000


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Each change in a frame of its own."""
    monkeypatch.setattr(giving, "CHUNK_CELLS_TARGET", 1)


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


DIRECTED = {
    "drops_before_done": cut_after_a_sketch,
    "settled_unsynced": settled,
    "equals_unsynced": found_equal,
    "left_with_relayed": relayed,
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


@pytest.mark.parametrize("rule", DIRECTED)
def test_a_rule_that_is_off_is_noticed(rule, tmp_path):
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
    DIRECTED[rule](World(tmp_path / "on", random.Random(0)))
    with RULES[rule](), nothing_to_mend(), pytest.raises(Violation):
        DIRECTED[rule](World(tmp_path / "off", random.Random(0)))
