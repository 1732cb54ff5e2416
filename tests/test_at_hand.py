"""What is at hand when changes land, held against what the file says: edits that turn out to be more, and events."""

from itertools import count
from random import Random

import pytest
from tests.test_fast_paths import Mixed, Thing, edit, given_by, lacking, pair_of, taken_by

import fieldsync as fs
from fieldsync import apply, record, watch
from fieldsync.sqlite import SQLiteReader
from fieldsync.syncing import taking


def turn_out(monkeypatch, nth):
    """Have a record of the nth few edits not be there; returns what counts them."""
    calls, real = count(), record.edit_all
    monkeypatch.setattr(record, "edit_all", lambda *args: None if next(calls) == nth else real(*args))
    return calls


@pytest.mark.parametrize("nth", range(6))
def test_edits_land_alike_where_some_turn_out_to_be_more_after_others_have_landed(tmp_path, monkeypatch, nth):
    giver, taker = pair_of(tmp_path, 2 * nth)
    with giver, taker:
        context, dots = lacking(taker, giver)
        chunks = given_by(giver, dots)
        monkeypatch.setattr(apply, "MERGE_RECORDS_MAX", 3)
        turn_out(monkeypatch, nth)
        fast = taken_by(taker, context, chunks)
        monkeypatch.setattr(taking, "locate_edits", lambda *_: None)
        assert taken_by(taker, context, chunks) == fast


@pytest.mark.parametrize("nth", range(6))
def test_what_landed_before_it_turned_out_so_is_remembered_as_it_would_be_read(tmp_path, monkeypatch, nth):
    giver, taker = pair_of(tmp_path, 2 * nth)
    with giver, taker:
        monkeypatch.setattr(apply, "MERGE_RECORDS_MAX", 3)
        _, dots = lacking(taker, giver)
        calls = turn_out(monkeypatch, nth)
        taker.sync(giver)
        assert next(calls) > nth
        remembered = given_by(taker, dots)
        assert taker.replica.store.lately._edits
        taker.replica.store.lately.clear()
        assert given_by(taker, dots) == remembered


def commits_of(db, monkeypatch):
    """What each commit of a database says to its watches, from now on."""
    heard = []
    monkeypatch.setattr(db.replica.watches, "announce", heard.append)
    return heard


def told(query, news):
    """What news mean for a query: of each record all that an app can see."""
    event = query._event(news)
    return [[(one.as_dict(), one.stamps()) for one in some] for some in event[:2]], event.removed


@pytest.mark.parametrize("seed", range(6))
def test_what_is_at_hand_is_told_as_it_would_be_read(tmp_path, monkeypatch, seed):
    giver, taker = pair_of(tmp_path, seed)
    with giver, taker:
        queries = [taker[Thing], taker[Mixed], taker[Thing].where(count__gt=50), taker["things"]]
        compared = []

        def compare(news):
            for query in queries:
                compared.append(told(query, news))
                assert compared[-1] == told(query, news._replace(digests={}))

        monkeypatch.setattr(taker.replica.watches, "announce", compare)
        taker.sync(giver)
        edit(giver, Random(seed), 4, removes=0.5)
        edit(taker, Random(-seed), 4, removes=0.5)
        taker.sync(giver)
        assert any(updated for (_, updated), _ in compared)
        assert any(removed for _, removed in compared)


@pytest.fixture
def both(tmp_path):
    """One file, open twice."""
    with fs.open(tmp_path / "a.db", Thing) as db, fs.open(tmp_path / "a.db", Thing) as other:
        with db.write() as tx:
            for key in ("a", "b"):
                tx.create(Thing, scope="s", key=key, name=key, count=0)
        yield db, other


def put(db, key, number):
    with db.write() as tx:
        tx.update(Thing, key, count=number)


def counts(db, news):
    return {one.key: one.count for one in db[Thing]._event(news).updated}


def test_what_is_at_hand_is_not_looked_up(both, monkeypatch):
    db, _ = both
    commits = commits_of(db, monkeypatch)
    put(db, "a", 1)
    put(db, "b", 2)
    put(db, "b", 3)
    monkeypatch.setattr(SQLiteReader, "by_key", None)
    assert counts(db, watch._as_one(commits)) == {"a": 1, "b": 3}


def test_what_others_have_written_since_is_read(both, monkeypatch):
    db, other = both
    commits = commits_of(db, monkeypatch)
    put(db, "a", 1)
    put(other, "a", 2)
    assert counts(db, commits[0]) == {"a": 2}


def test_what_others_have_written_between_two_commits_is_read(both, monkeypatch):
    db, other = both
    commits = commits_of(db, monkeypatch)
    put(db, "a", 1)
    put(other, "a", 2)
    put(db, "b", 3)
    assert counts(db, watch._as_one(commits)) == {"a": 2, "b": 3}
    assert counts(db, watch._as_one(commits[::-1])) == {"a": 2, "b": 3}
    assert counts(db, commits[1]) == {"b": 3}


def test_a_commit_that_is_told_after_a_later_one_is_read(both, monkeypatch):
    db, _ = both
    commits = commits_of(db, monkeypatch)
    put(db, "a", 1)
    put(db, "a", 2)
    assert counts(db, watch._as_one(commits[::-1])) == {"a": 2}
