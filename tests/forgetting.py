"""Devices that hold one scope of notes, write to it, forget what was removed, and are cut short."""

from contextlib import suppress
from itertools import count, pairwise

from tests.simulation import cells
from tests.simulation.inner import InnerChange, Op
from tests.simulation.oracle import Truth
from tests.talking import NOW_MS, Talk, check_usable, open_replica, state

from fieldsync.context import Context
from fieldsync.database import Database
from fieldsync.syncing.memory import join

SCOPE = "s"


class Devices:
    """Databases of one test by name, which hold one scope. Each has written once: chance does not decide authors."""

    def __init__(self, folder):
        self.folder = folder
        self.held = {}

    def __getitem__(self, name):
        if name not in self.held:
            self.folder.mkdir(exist_ok=True)
            self.held[name] = Database(open_replica(self.folder / f"{name}.db"))
            put(self.held[name], f"of {name}")
        return self.held[name]

    def close(self):
        for database in self.held.values():
            check_usable(database.replica, SCOPE)
            database.close()


def put(database, *keys, **fields):
    with database.write() as tx:
        for key in keys:
            tx.create("notes", scope=SCOPE, key=key, **fields)


def edit(database, key, **fields):
    with database.write() as tx:
        tx.update("notes", key, scope=SCOPE, **fields)


def delete(database, *keys):
    with database.write() as tx:
        for key in keys:
            tx.delete("notes", key, scope=SCOPE)


def inner(database, kind, key, **values):
    """What only a later version writes: tag, untag, write (a text), compact, dismiss."""
    with database.replica.store.writing() as writer:
        change = InnerChange(writer, writer.enter(SCOPE), Truth(), NOW_MS, database.replica.mint)
        change.run([Op(kind, SCOPE, "notes", key, values)])


def forget(database):
    """Trim all that may be."""
    return database.replica.trim(None, before_ms=2 * NOW_MS)


def sync(*databases):
    """One after the other, each with the next."""
    return [join(one.replica, other.replica) for one, other in pairwise(databases)]


def keys(database):
    return {note.key for note in database["notes"] if not note.key.startswith("of ")}


def seen(database):
    return state(database.replica)[SCOPE]


def context_and_floor(database):
    with database.replica.store.reading() as reader:
        scope = reader.scope(SCOPE)
        return reader.context(scope.id), Context(scope.floor)


def rows(database, table, where="1"):
    with database.replica.store.reading() as reader:
        return reader._db.execute(f"SELECT count(*) FROM {table} WHERE {where}").get


def orphans(database):
    """The fields and values of what is left of records that are deleted."""
    live = seen(database)[2]
    alive = {name for name, address, _ in live if address == cells.EXISTENCE}
    return {(address.field, value) for (name, address, _), value in live.items() if name not in alive}


def cut(one, other, last, times=1):
    """Sync until so many streams of `other` have landed at `one`; then the link dies."""
    talk = Talk.between(one.replica, other.replica)
    came = count(1)

    def deliver(session, frame):
        session.receive(frame)
        if session is talk.sides[0] and frame[0] == last and next(came) == times:
            raise ConnectionError

    with suppress(ConnectionError):
        talk.run(deliver=deliver)
    assert talk.types[-1] == (1, last)
