"""The protocol is what its document says: a second implementation, from that alone, ends equal with the engine."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import model
from tests.canonical import encode
from tests.model import Address, Incarnation, Name, Stamp
from tests.second.chunks import REMOVING
from tests.second.peer import Peer
from tests.simulation.audit import audit
from tests.talking import NOW_MS, open_replica, state

import fieldsync as fs
from fieldsync.bundles import bundle
from fieldsync.database import Database
from fieldsync.syncing import giving, parting
from fieldsync.syncing.memory import join
from fieldsync.syncing.session import Session

SCOPE, AUTHOR = "job/1", b"2nd-auth"
TEXT = Address("text", model.REGISTER)


class Job(fs.Record, table="jobs"):
    text: str = ""
    hours: fs.Counter = 0
    tags: set[str]


class Fleet:
    """A hub, a device, and a peer that is not of this engine."""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.replicas = [open_replica(folder / f"d{number}.db", hub=number == 0, seed=seed) for number in range(2)]
        self.databases = [Database(replica, (Job,)) for replica in self.replicas]
        self.databases[1].enter(SCOPE)
        self.peer, self.seq, self.time = Peer("second", SCOPE), 0, NOW_MS << 16

    def write(self, database):
        """A transaction of the engine's."""
        with database.write() as tx:
            for key in self.chance.sample("abc", self.chance.choice([1, 2])):
                if database[Job].get(key, scope=SCOPE) is None:
                    tx.create(Job, scope=SCOPE, key=key, text=f"{self.chance.random()}", tags={"new"})
                    continue
                what, job = self.chance.randrange(5), tx.get(Job, key, scope=SCOPE)
                if what == 0:
                    tx.delete(Job, key, scope=SCOPE)
                elif what == 1:
                    job.hours += self.chance.randrange(1, 9)
                elif what == 2:
                    job.tags ^= {self.chance.choice("xy")}
                else:
                    job.text = f"{self.chance.random()}"

    def write_second(self):
        """A change of the other implementation's: a record, an overwrite or a removal."""
        scope = self.peer.scopes[SCOPE]
        self.seq, self.time = self.seq + 1, self.time + self.chance.randrange(1, 99)
        dot, record, what = (AUTHOR, self.seq), scope.record, self.chance.randrange(10) if scope.record else 0
        name = self.chance.choice(sorted(record)) if what > 3 else Name(*dot, 0)
        if what > 7:
            scope.write(dot, self.time, REMOVING, removals=[model.removal_of(name, record[name])])
        elif what > 3:
            cell = model.overwrite(record, name, TEXT, Stamp(self.time, *dot), encode(f"second {self.seq}"))
            scope.write(dot, self.time, 0, pieces={name: Incarnation(None, frozenset([cell]))})
        else:
            cell = model.Cell(TEXT, Stamp(self.time, *dot), encode("made by the second"))
            names = {name: ("jobs", self.chance.choice("abc"))}
            scope.write(dot, self.time, 0, pieces={name: Incarnation(self.time, frozenset([cell]))}, names=names)

    def sync(self, replica, frames_max=None):
        session = Session(replica, initiator=False)
        try:
            return self.peer.sync(session, frames_max)
        finally:
            session.close()

    def trim(self):
        self.chance.choice(self.replicas).trim(None, before_ms=1 << 62)

    def act(self):
        what, number = self.chance.randrange(10), self.chance.randrange(2)
        if what < 4:
            self.write(self.databases[number])
        elif what < 6:
            self.write_second()
        elif what < 7:
            join(*self.replicas)
        elif what < 8:
            self.chance.choice([self.peer.scopes[SCOPE].trim, self.trim])()
        else:
            self.sync(self.replicas[number], self.chance.choice([None, None, 1, 2, 3]))

    def converge(self):
        for _ in range(2):
            assert self.sync(self.replicas[0])
            join(*self.replicas)

    def carry(self):
        """A bundle of the hub's for the peer, for anybody or for who has what it has now."""
        bases = None
        if self.chance.random() < 0.5:
            with self.replicas[0].store.reading() as reader:
                bases = {SCOPE: reader.context(reader.scope(SCOPE).id)}
        self.write(self.databases[0])
        self.trim()
        file = io.BytesIO()
        bundle.write(self.replicas[0], file, None, bases)
        self.peer.read_bundle(file.getvalue())

    def check(self):
        """All hold the same."""
        mine = self.peer.scopes[SCOPE]
        for replica in self.replicas:
            digest, context, _ = state(replica)[SCOPE]
            assert (digest, context) == (mine.digest(), model.context(mine.context))
            assert audit(replica.store) == []


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(5, 40), st.sampled_from([1, 50_000]))
def test_another_implementation_ends_equal(tmp_path_factory, seed, steps, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(giving, "CHUNK_CELLS_TARGET", cells)
        patch.setattr(parting, "PART_BYTES_MIN", 200)
        fleet = Fleet(tmp_path_factory.mktemp("second"), seed)
        fleet.write(fleet.databases[0])
        for _ in range(steps):
            fleet.act()
        fleet.converge()
        fleet.check()
        fleet.carry()
        join(*fleet.replicas)
        fleet.check()
        for database in fleet.databases:
            database.close()
