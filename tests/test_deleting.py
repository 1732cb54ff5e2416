"""Deleting records one by one and many together, which is one question to the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fieldsync as fs
from fieldsync.limits import CHANGE_RECORDS_MAX
from fieldsync.sqlite.writer import LOGGED_ROWS

KEYS = "abcdefgh"
VERBS = ("create", "edit", "tag", "delete")


class Visit(fs.Record, table="visits"):
    place: str
    tags: fs.Set[str]


@pytest.fixture
def db(tmp_path):
    with fs.open(tmp_path / "field.db", Visit, durability="fast") as db:
        with db.write() as tx:
            for key in KEYS:
                tx.create(Visit, scope="west", key=key, place=key)
        yield db


def keys_of(db):
    return {(record.scope, record.key) for record in db[Visit].where()}


def test_many_records_go_at_once_in_one_change(db):
    with db.write() as tx:
        tx.delete(Visit, *"abc", scope="west")
        tx.delete(Visit, "d", "e")
        tx.delete(Visit)
    assert keys_of(db) == {("west", key) for key in "fgh"}
    (scope,) = db.scopes()
    assert scope.changes == 2  # what is left of the first, and the removals


def test_where_one_is_not_there_none_goes(db):
    with db.write() as tx:
        tx.get(Visit, "a").place = "changed"
        for scope in ("west", None):
            with pytest.raises(fs.NotFound, match="visits has no 'zz'"):
                tx.delete(Visit, "a", "b", "zz", scope=scope)
        with pytest.raises(fs.NotFound):
            tx.delete(Visit, "a", scope="east")
        with pytest.raises(TypeError, match="a key is a text, not int"):
            tx.delete(Visit, "b", 7)
    assert keys_of(db) == {("west", key) for key in KEYS}
    assert db[Visit]["a"].place == "changed"
    assert [scope.name for scope in db.scopes()] == ["west"]


def test_a_key_of_two_scopes_is_ambiguous_among_others(db):
    with db.write() as tx:
        tx.create(Visit, scope="east", key="a", place="there")
        with pytest.raises(fs.AmbiguousKey, match="lives in the scopes east, west"):
            tx.delete(Visit, "b", "a")
    with db.write() as tx:
        with pytest.raises(fs.AmbiguousKey):
            tx.delete(Visit, "b", "a")
        tx.delete(Visit, "a", "b", scope="west")
        tx.delete(Visit, "a")  # the other one, now
    assert keys_of(db) == {("west", key) for key in "cdefgh"}


@given(st.data())
def test_together_is_as_one_by_one(tmp_path_factory, data):
    """Whatever the transaction did to the records before: the same lives, and the digests are those of removals."""
    steps = data.draw(
        st.lists(
            st.tuples(st.sampled_from(VERBS), st.lists(st.sampled_from(KEYS), max_size=5)),
            max_size=6,
        )
    )
    folder = tmp_path_factory.mktemp("deleting")
    found = []
    for name, together in (("one", False), ("many", True)):
        with fs.open(folder / f"{name}.db", Visit, durability="fast") as db:
            with db.write() as tx:
                for key in KEYS[:4]:
                    tx.create(Visit, scope="west", key=key, place=key)
            with db.write() as tx:
                told = [_step(tx, *step, together=together) for step in steps]
            with db.write() as tx:
                tx.create(Visit, scope="west", key="last", place="")
            found.append((told, {(one.key, one.place, *sorted(one.tags)) for one in db[Visit].where()}))
            assert db.verify().fault_count == 0
    assert found[0] == found[1]


def _step(tx, verb, keys, *, together):
    told = []
    for key in keys if verb != "delete" else ():
        try:
            if verb == "create":
                tx.create(Visit, scope="west", key=key, place="new")
            elif verb == "edit":
                tx.update(Visit, key, place="edited")
            else:
                tx.get(Visit, key).tags.add("seen")
        except (fs.NotFound, fs.AlreadyExists) as error:
            told.append(type(error))
    if verb == "delete":
        living = []
        for key in dict.fromkeys(keys):
            try:
                tx.get(Visit, key) if len(living) % 2 else tx.get(Visit, key, scope="west")
            except fs.NotFound:
                continue
            living.append(key)
        if together:
            tx.delete(Visit, *living, scope="west")
        else:
            for key in living:
                tx.delete(Visit, key)
    return told


@given(st.lists(st.tuples(st.sampled_from(VERBS), st.lists(st.sampled_from(KEYS), max_size=4)), max_size=8))
def test_a_transaction_no_longer_finds_what_it_deleted(tmp_path_factory, steps):
    """Without a look at the records before, as most apps delete."""
    living = set(KEYS[:5])
    with fs.open(tmp_path_factory.mktemp("deleting") / "a.db", Visit, durability="fast") as db:
        with db.write() as tx:
            for key in living:
                tx.create(Visit, scope="west", key=key, place="")
        with db.write() as tx:
            for verb, keys in steps:
                if verb == "delete":
                    _delete(tx, keys, living)
                for key in keys if verb != "delete" else ():
                    _write(tx, verb, key, living)
        assert {key for _, key in keys_of(db)} == living
        assert db.verify().fault_count == 0


def _delete(tx, keys, living):
    if set(keys) <= living:
        tx.delete(Visit, *keys, scope="west")
        living -= set(keys)
    else:
        with pytest.raises(fs.NotFound):
            tx.delete(Visit, *keys, scope="west")


def _write(tx, verb, key, living):
    write = {
        "create": lambda: tx.create(Visit, scope="west", key=key, place="new"),
        "edit": lambda: tx.update(Visit, key, place="edited"),
        "tag": lambda: tx.get(Visit, key).tags.add("seen"),
    }[verb]
    if (key in living) != (verb == "create"):
        write()
        living.add(key)
    else:
        refused = fs.AlreadyExists if verb == "create" else fs.NotFound
        with pytest.raises(refused):
            write()


def test_a_transaction_deletes_as_many_as_it_may_change(db):
    keys = [f"k{n}" for n in range(CHANGE_RECORDS_MAX)]
    with db.write() as tx:
        for key in keys:
            tx.create(Visit, scope="west", key=key, place="")
    with db.write() as tx:
        tx.delete(Visit, "a", scope="west")
        with pytest.raises(fs.LimitExceeded, match="at most 1000 records"):
            tx.delete(Visit, *keys, scope="west")
    assert len(keys_of(db)) == len(KEYS) - 1 + CHANGE_RECORDS_MAX
    with db.write() as tx:
        tx.create(Visit, scope="east", key="other", place="")
    with db.write() as tx:
        drafted = tx.get(Visit, "other")
        with pytest.raises(fs.LimitExceeded, match="at most 1000 records"):
            tx.delete(Visit, "other", KEYS[1], *keys)  # of two scopes, of which one has room
        drafted.place = "still here"
    assert db[Visit].get("other").place == "still here"
    with db.write() as tx:
        tx.delete(Visit, "other")
    with db.write() as tx:
        tx.delete(Visit, *keys[1:], scope="west")
        tx.delete(Visit, keys[0])
    assert keys_of(db) == {("west", key) for key in KEYS[1:]}


@pytest.mark.parametrize("count", [1, LOGGED_ROWS - 1, LOGGED_ROWS, 2 * LOGGED_ROWS + 3])
def test_the_log_has_each_removal(db, count):
    keys = {f"k{n}" for n in range(count)}
    with db.write() as tx:
        for key in keys:
            tx.create(Visit, scope="west", key=key, place="")
    with db.write() as tx:
        tx.delete(Visit, *keys)
    with db.replica.store.reading() as reader:
        logged = [key for (key,) in reader._db.execute("SELECT key FROM fs_removal")]
    assert (len(logged), set(logged)) == (count, keys)


def test_names_that_only_look_like_a_key_delete_nothing(db):
    with db.write() as tx:
        for key in ("\U0001f600", "é"):
            tx.create(Visit, scope="west", key=key, place="")
    with db.write() as tx, pytest.raises(fs.NotFound):
        tx.delete(Visit, "\ud83d\ude00", "é", scope="west")  # the halves of a character, which JSON puts together
    with db.write() as tx:
        tx.delete(Visit, "\U0001f600", "é", scope="west")
    assert not keys_of(db) & {("west", "\U0001f600"), ("west", "é")}


def test_a_transaction_that_is_closed_in_its_block_says_so_and_writes_nothing(db):
    def close_early():
        with db.write() as tx:
            tx.update(Visit, "a", scope="west", place="here")
            tx.close()

    with pytest.raises(fs.DataError, match="is over"):
        close_early()
    assert db[Visit].get("a", scope="west").place != "here"
