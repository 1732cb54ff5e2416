"""A hub and its devices, between whose scopes one record moves, and what the tests of moves do to it."""

from __future__ import annotations

from tests import canonical, model
from tests.moves import KEY, Customer, held
from tests.simulation.audit import audit
from tests.talking import NOW_MS, open_replica

from fieldsync.database import Database

TEXT = model.Address("notes", 0x49)  # of a later type that merges as texts do: any value
HOSTILE = [bytes([65 + i]) * 8 for i in range(6)]  # authors of devices that mean harm


class Fleet:
    """A hub, and devices that hold what they are told to. `later` lets time pass; at the end all is looked at."""

    def __init__(self, folder):
        self.folder = folder
        self.now_ms = NOW_MS
        self.databases = {}
        self.is_small = True  # so that the model looks at all of it, too
        self.hub = self.open("hub", "x", "y", "z", hub=True)

    def open(self, name, *scopes, hub=False, seed=0):
        one = open_replica(self.folder / f"{name}.db", hub=hub, seed=seed)
        one.wall_ms = lambda: self.now_ms
        self.databases[name] = database = Database(one, (Customer,))
        database.enter(*scopes)
        return database

    def devices(self, *scopes, count=2):
        return [self.open(f"device{len(self.databases)}", *scopes) for _ in range(count)]

    def later(self, ms=1_000):
        self.now_ms += ms

    def sync(self, *databases, hub=None):
        """With the hub, one after the other, each twice: to tell, and to hear what became of it."""
        for database in databases * 2:
            self.later()
            database.sync(hub or self.hub)

    def check(self):
        for name, database in self.databases.items():
            assert not self.is_small or audit(database.replica.store) == [], name
            assert database.verify().faults == [], name

    def close(self):
        for database in self.databases.values():
            database.close()


def put(database, scope, key=KEY, **values):
    with database.write() as tx:
        tx.create(Customer, key=key, scope=scope, **values)


def change(database, scope=None, **values):
    with database.write() as tx:
        tx.update(Customer, KEY, scope=scope, **values)


def count(database, amount, scope=None):
    with database.write() as tx:
        tx.get(Customer, KEY, scope=scope).visits += amount


def move(database, to, scope=None, key=KEY):
    with database.write() as tx:
        tx.move(Customer, key, to=to, scope=scope)


def delete(database, scope=None):
    with database.write() as tx:
        tx.delete(Customer, KEY, scope=scope)


def seen(database):
    """(scope, name, visits) of each record."""
    return [(one.scope, one.name, one.visits) for one in database[Customer].all()]


def only(database, scope):
    """The name of the one live incarnation."""
    (name,) = held(database, scope)
    return name


def values(record, address):
    return sorted(canonical.decode(cell.value) for _, cell in model.cells_at(record, *address[:2]))


def ledger(database):
    """What of the record was written apart, the value that is read first."""
    return [[claim.value for claim in conflict.claims] for conflict in database.conflicts(Customer)]


def born(number):
    return lambda stamp: {model.Name(HOSTILE[0], number, 0): model.Incarnation(stamp.time, frozenset())}
