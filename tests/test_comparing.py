"""Comparing two replicas: they agree, or where they do not; damage cannot hide behind a digest that was kept."""

from __future__ import annotations

from contextlib import contextmanager

import apsw
import pytest

import fieldsync as fs

SCOPE = "job/7"


@pytest.fixture
def pair(tmp_path):
    """Two databases that agree: records, an edit, a removal, and an edit that came too late."""
    with fs.open(tmp_path / "a.db") as a, fs.open(tmp_path / "b.db") as b:
        b.enter(SCOPE)
        with a.write() as tx:
            for number in range(5):
                tx.create("orders", scope=SCOPE, key=f"o-{number}", text=f"text {number}")
        a.sync(b)
        with a.write() as tx:
            tx.delete("orders", "o-4")
        with b.write() as tx:
            tx.update("orders", "o-4", text="late")
            tx.update("orders", "o-0", text="text 0, again")
        a.sync(b)
        yield a, b


@contextmanager
def hands(db):
    """SQL at the tables, as no app has it."""
    connection = apsw.Connection(db.path)
    try:
        yield connection
    finally:
        connection.close()


def only(report):
    (scope,) = report.scopes
    return scope


def author(db):
    with db.replica.store.reading() as reader:
        return reader.dictionary.author(reader.scope(SCOPE).author).hex()


def test_replicas_that_agree(pair):
    a, _ = pair
    for one, other in (pair, pair[::-1], (a, a)):
        report = one.compare(other)
        scope = only(report)
        assert (report.agree, scope.agrees, scope.scope, scope.differing) == (True, True, SCOPE, [])
        assert [side.name for side in scope.sides] == [one.path, other.path]
        for side in scope.sides:
            assert (side.records, side.changes, side.provisional, side.lacks) == (4, 3, 0, {})
            assert (side.is_sound, side.unreadable, side.digest) == (True, 0, a.scopes()[0].digest)
        assert str(scope) == f"job/7: they agree: 4 records, 3 changes, digest {a.scopes()[0].digest}"


def test_replicas_that_lack_changes_of_each_other(pair):
    a, b = pair
    for number in range(3):
        with a.write() as tx:
            tx.create("orders", scope=SCOPE, key=f"a-{number}")
    with b.write() as tx:
        tx.create("orders", scope=SCOPE, key="b-1")
    report = a.compare(b)
    scope = only(report)
    assert not report.agree
    assert [side.lacks for side in scope.sides] == [{author(b): 1}, {author(a): 3}]
    assert scope.differing_count == 0
    assert str(scope).splitlines() == [
        f"job/7: {a.path} lacks 1 changes that {b.path} has (1 of author {author(b)})",
        f"job/7: {b.path} lacks 3 changes that {a.path} has (3 of author {author(a)})",
    ]
    a.sync(b)
    assert a.compare(b).agree


def test_a_record_that_is_not_the_same_is_named(pair):
    a, b = pair
    with hands(b) as sql:
        (cells,) = sql.execute("SELECT _cells FROM fs_record_1 WHERE _key='o-2'").fetchone()
        sql.execute("UPDATE fs_record_1 SET _cells=? WHERE _key='o-2'", (cells.replace(b"text 2", b"text 9"),))
    assert b["orders"].get("o-2").text == "text 9"
    assert a.scopes()[0].digest == b.scopes()[0].digest  # it hides behind what was kept
    report = a.compare(b)
    scope = only(report)
    assert (report.agree, scope.differing, scope.differing_count) == (False, [("orders", "o-2")], 1)
    assert [side.is_sound for side in scope.sides] == [True, False]
    assert str(scope).splitlines() == [
        f"job/7: {b.path} is damaged; `fieldsync doctor` looks further",
        "job/7: the same changes are in both, but 1 records differ: one of the two is damaged",
    ]


def test_a_record_that_cannot_be_read_is_named(pair):
    a, b = pair
    for db in pair:
        with hands(db) as sql:
            sql.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='o-2'")
    scope = only(a.compare(b))
    assert (scope.agrees, scope.differing) == (False, [("orders", "o-2")])  # alike, and no proof of anything
    assert [(side.unreadable, side.records, side.is_sound) for side in scope.sides] == [(1, 4, False)] * 2


def test_cells_without_their_record_count(pair):
    a, other = pair
    with hands(a) as sql:
        assert sql.execute("SELECT count(*) FROM fs_orphan").get == 1
        sql.execute("DELETE FROM fs_orphan")
    scope = only(a.compare(other))
    assert (scope.agrees, scope.differing) == (False, [("", "")])


def test_a_digest_that_was_kept_wrong_is_no_agreement(pair):
    a, b = pair
    with hands(a) as sql:
        sql.execute("UPDATE fs_scope SET digest=zeroblob(16)")
    scope = only(a.compare(b))
    assert scope.sides[0].digest == scope.sides[1].digest
    assert (scope.agrees, scope.differing_count) == (False, 0)
    assert str(scope) == f"job/7: {a.path} is damaged; `fieldsync doctor` looks further"


def test_what_is_provisional_is_told(pair):
    a, b = pair
    with hands(a) as sql:
        sql.execute("UPDATE fs_record_1 SET _cells=x'01' WHERE _key='o-2'")
    assert a.verify(repair=True).is_sound
    scope = only(a.compare(b))
    assert (scope.sides[0].provisional, scope.sides[1].provisional) == (1, 0)
    assert "holds 1 changes of which parts may be missing until a sync ends" in str(scope)
    assert f"{a.path} lacks 1 changes that {b.path} has" in str(scope)
    a.sync(b)
    assert a.compare(b).agree


def test_scopes_that_are_compared(pair):
    a, b = pair
    for db, name in ((a, "x"), (b, "y")):
        with db.write() as tx:
            tx.create("notes", scope=f"of/{name}", key="n")
            tx.create("notes", scope="other", key=name)
    report = a.compare(b)
    assert [(scope.scope, scope.agrees) for scope in report.scopes] == [(SCOPE, True), ("other", False)]
    assert report.only_one == {a.path: ["of/x"], b.path: ["of/y"]}
    assert not report.agree
    report = a.compare(b, SCOPE, SCOPE)
    assert (report.agree, len(report.scopes), report.only_one) == (True, 1, {})
    for one, other in (pair, pair[::-1]):
        with pytest.raises(fs.NotFound, match=r"b\.db does not hold the scope 'of/x'"):
            one.compare(other, "of/x")


def test_nothing_in_common_is_no_agreement(tmp_path, pair):
    with fs.open(tmp_path / "c.db") as c:
        report = pair[0].compare(c)
    assert (report.scopes, report.agree, report.only_one) == ([], False, {pair[0].path: [SCOPE], c.path: []})


def test_progress_is_told_in_rows(pair):
    told = []
    assert pair[0].compare(pair[1], progress=lambda done, total: told.append((done, total))).agree
    assert told[-1] == (10, 10)  # of each four records, and the cells that came too late
    assert told == sorted(told)
