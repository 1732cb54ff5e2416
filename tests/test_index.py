"""The change index takes room by what lives: rows in which nothing of a change lives any more go from its entries."""

import random

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.audit import audit
from tests.talking import open_replica, state

from fieldsync.database import Database
from fieldsync.limits import ENTRIES_BYTES_A_CELL, ENTRIES_BYTES_SPARE
from fieldsync.sqlite import writer
from fieldsync.syncing.memory import join

SCOPE = "job/1"
HOT, COLD = 300, 30


@pytest.fixture
def database(tmp_path):
    with Database(open_replica(tmp_path / "a.db")) as database:
        with database.write() as tx:
            for number in random.Random(0).sample(range(HOT), HOT):  # in rows that are no runs of keys
                tx.create("notes", scope=SCOPE, key=f"hot-{number}", text="")
        yield database


def one_stays(database):
    """Transactions that write many records, of which the next ones leave one cell each."""
    for number in range(COLD):
        with database.write() as tx:
            for hot in range(0, HOT, 2):
                tx.update("notes", f"hot-{hot}", scope=SCOPE, text=f"{number}")
            tx.create("notes", scope=SCOPE, key=f"cold-{number}")


def index_of(database):
    """Of each change the live cells, and the bytes of its entries."""
    with apsw.Connection(database.path) as file:
        return file.execute("SELECT live, length(entries) FROM fs_change").fetchall()


def is_in_proportion(database):
    return all(size <= ENTRIES_BYTES_SPARE + ENTRIES_BYTES_A_CELL * live for live, size in index_of(database))


@pytest.mark.parametrize("spare", [ENTRIES_BYTES_SPARE, 1 << 20])
def test_the_index_takes_room_by_the_cells_that_live(database, monkeypatch, spare):
    monkeypatch.setattr(writer, "ENTRIES_BYTES_SPARE", spare)
    one_stays(database)
    assert is_in_proportion(database) == (spare == ENTRIES_BYTES_SPARE)
    assert audit(database.replica.store) == []
    assert database.verify().faults == []


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(5, 40))
def test_nothing_that_lives_leaves_the_index(tmp_path_factory, seed, steps):
    """Every loss is followed by a look; a device that has nothing is given all that lives."""
    folder, chance = tmp_path_factory.mktemp("index"), random.Random(seed)
    replicas = [open_replica(folder / f"d{number}.db", hub=number == 0, seed=seed) for number in range(3)]
    databases = list(map(Database, replicas))
    for database in databases:
        database.enter(SCOPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ENTRIES_BYTES_SPARE", -(1 << 20))
        for _ in range(steps):
            one, other = chance.sample(range(2), 2)
            if chance.random() < 0.3:
                join(replicas[one], replicas[other])
                continue
            with databases[one].write() as tx:
                for key in chance.sample("abcdef", chance.randrange(1, 6)):
                    lives = databases[one]["notes"].get(key, scope=SCOPE) is not None
                    if not lives:
                        tx.create("notes", scope=SCOPE, key=key, text="new", state=0)
                    elif chance.random() < 0.3:
                        tx.delete("notes", key, scope=SCOPE)
                    else:
                        tx.update("notes", key, scope=SCOPE, **{chance.choice(["text", "state"]): chance.random()})
        for one, other in ((0, 1), (0, 2)):
            join(replicas[one], replicas[other])
    first, *others = [(audit(replica.store), state(replica)[SCOPE]) for replica in replicas]
    assert first[0] == []
    assert others == [first, first]
    for replica in replicas:
        replica.close()


def test_damage_elsewhere_does_not_stop_a_write(database):
    """A record that cannot be read is for a repair: whoever writes another one leaves the index as it is."""
    with database.write() as tx:
        for number in range(HOT // 2, HOT):
            tx.update("notes", f"hot-{number}", scope=SCOPE, text="once")
    with apsw.Connection(database.path) as file:
        file.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key=?", (f"hot-{HOT - 1}",)).fetchall()
    with database.write() as tx:
        for number in range(HOT // 2, HOT - 1):
            tx.update("notes", f"hot-{number}", scope=SCOPE, text="twice")
    assert not is_in_proportion(database)
    assert database["notes"].get("hot-200").text == "twice"
    assert database.verify(repair=True).fetching == {SCOPE: 1}
    assert is_in_proportion(database)
