"""Apps of different versions: one scope, and one file, shared by several declarations of a collection."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.versions import SCOPE, Every, One, Three, Two, opened, values

import fieldsync as fs
from fieldsync.columns import join
from fieldsync.limits import COLUMNS_MAX, DECLARATIONS_SERVED
from fieldsync.store import Column

VERSIONS = (One, Two, Three)
STORED = {Two: {"phone": "telephone", "visits": "hours", "labels": "tags", "body": "notes"}} | {
    Three: {"mobile": "telephone", "telephone": "telephone_extension", "body": "notes"}
}
SIZES = {"12": 12, " -3 ": -3, "large": None, "": None, "1e3": None, None: None, 7: 7, -2: -2}


def as_read(raw: Any, version: type[fs.Record]) -> dict[str, Any]:
    """What a version reads of a record: an oracle by hand."""
    if version is One:
        return {name: raw[name] for name in ("telephone", "size", "fax", "hours", "tags", "notes")}
    renamed = {name: raw[old] for name, old in STORED[version].items()}
    if version is Two:
        return renamed | {name: raw[name] for name in ("size", "fax", "mail")}
    return renamed | {"size": SIZES[raw["size"]], "tags": raw["tags"], "mail": raw["mail"]}


texts = st.sampled_from(["a", "bb", "12"])
sizes = st.sampled_from(list(SIZES))
written = {
    "telephone": texts,
    "telephone_extension": st.integers(0, 3),
    "size": sizes,
    "fax": st.none() | texts,
    "mail": texts,
    "hours": st.integers(-3, 3),
    "tags": st.sets(texts),
    "notes": texts,
}
writes = st.tuples(
    st.just("write"),
    st.integers(0, 2),
    st.sampled_from(["k1", "k2"]),
    st.sampled_from(list(written)).flatmap(lambda name: st.tuples(st.just(name), written[name])),
)
syncs = st.tuples(st.just("sync"), st.integers(0, 2), st.integers(0, 2))
erased = st.sampled_from(sorted(written.keys() - {"notes"}))
erasures = st.tuples(st.just("erase"), st.integers(0, 2), st.sampled_from(["k1", "k2"]), erased)
openings = st.tuples(st.just("open"), st.integers(0, 2), st.integers(0, 2))


class Fleet:
    """Three files, each open by some version of the app; authors and times follow from the steps alone."""

    def __init__(self, folder: Path, versions: list[type[fs.Record]]) -> None:
        folder.mkdir()
        self.now_ms = 1_700_000_000_000
        self.paths = [folder / f"{number}.db" for number in range(3)]
        self.versions = versions
        self.dbs = [self._open(number) for number in range(3)]
        for db in self.dbs:
            db.enter(SCOPE)

    def _open(self, number: int) -> fs.Database:
        db = opened(self.paths[number], self.versions[number])
        db.replica.wall_ms = lambda: self.now_ms
        db.replica.mint = lambda: b"device %d" % number
        return db

    def shown(self, number: int, name: str) -> str | None:
        """What the device's version calls the field whose cells have a name; None if it declares none such."""
        of = fs.schema.Collection.of(self.versions[number])
        return next((field.name for field in of.fields if field.cell[0] == name), None)

    def write(self, number: int, key: str, name: str, value: Any) -> bool:
        """Write a field by the name that its cells have; False if the device's version does not hold such a value."""
        version, shown = self.versions[number], self.shown(number, name)
        if shown is None:
            return False
        field = fs.schema.Collection.of(version).field(shown)
        if field.kind == "register" and field.type not in (object, type(value)) and value is not None:
            return False
        db = self.dbs[number]
        with db.write() as tx:
            is_new = db[version].get(key) is None
            record = tx.create(version, scope=SCOPE, key=key) if is_new else tx.get(version, key)
            if name == "hours":
                setattr(record, shown, getattr(record, shown) + value)
            elif name == "notes":
                getattr(record, shown).append(value)
            else:
                setattr(record, shown, value)
        return True

    def erase(self, number: int, key: str, name: str) -> None:
        with suppress(fs.NotFound), self.dbs[number].write() as tx:
            tx.erase(self.versions[number], key, self.shown(number, name) or name)

    def reopen(self, number: int, version: type[fs.Record]) -> None:
        self.dbs[number].close()
        self.versions[number] = version
        self.dbs[number] = self._open(number)

    def sync(self, one: int, other: int) -> None:
        if one != other:
            self.dbs[one].sync(self.dbs[other])

    def settle(self) -> None:
        for one, other in ((0, 1), (1, 2), (0, 1), (1, 2)):
            self.sync(one, other)


@settings(max_examples=15, deadline=None)
@given(st.lists(writes | writes | writes | syncs | openings | erasures, max_size=25))
def test_versions_share_records_and_lose_nothing(steps):
    """Each version reads what it says, and all cells are those that apps of one mind would have written."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        many, one = Fleet(Path(name) / "many", list(VERSIONS)), Fleet(Path(name) / "one", [Every] * 3)
        for fleet in (many, one):
            stack.callback(lambda fleet=fleet: [db.close() for db in fleet.dbs])
        for kind, *step in steps:
            many.now_ms = one.now_ms = one.now_ms + 1000
            if kind == "write":
                number, key, (field, value) = step
                if many.write(number, key, field, value):
                    assert one.write(number, key, field, value)
            elif kind == "open":
                many.reopen(step[0], VERSIONS[step[1]])
            else:
                getattr(many, kind)(*step)
                getattr(one, kind)(*step)
        many.settle()
        one.settle()
        assert len({db.scopes()[0].digest for db in many.dbs}) == 1
        if not any("notes" in str(step) for step in steps):  # a document at hand serves one of the two fleets only
            assert many.dbs[0].scopes()[0].digest == one.dbs[0].scopes()[0].digest
        raw = {record.key: values(record) for record in one.dbs[0][Every]}
        for number, version in itertools.product(range(3), VERSIONS):
            many.reopen(number, version)
            db = many.dbs[number]
            assert db[version].count() == len(raw)
            for record in db[version]:
                wanted = as_read(raw[record.key], version)
                read = values(record)
                for name in wanted.keys() & {"notes", "body"}:  # what was inserted apart is in any order
                    wanted[name], read[name] = sorted(wanted[name]), sorted(read[name])
                assert {name: (type(read[name]), read[name]) for name in wanted} == {
                    name: (type(value), value) for name, value in wanted.items()
                }
                assert record in db[version].where(size=record.size).all()
            assert db.verify().is_sound
            assert len(db.conflicts()) == len(one.dbs[0].conflicts())


# --- one file, opened by several versions ---


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "t.db"
    with opened(path, One) as db, db.write() as tx:
        for number in range(20):
            tx.create(One, scope=SCOPE, key=f"k{number}", telephone=str(number), size=str(number))
    return path


def rebuilt(path: Path, version: type[fs.Record]) -> bool:
    """Whether opening a file with a version writes rows anew."""
    told = []
    with fs.open(path, version, notes=path.parent / "notes", progress=lambda *done: told.append(done)) as db:
        assert db[version].where(size="3" if version is not Three else 3).count() == 1
    return bool(told)


def test_two_versions_that_open_a_file_in_turn_rebuild_it_once(path):
    assert not rebuilt(path, One)
    assert rebuilt(path, Two)
    assert not rebuilt(path, One)
    assert not rebuilt(path, Two)


def test_columns_of_former_versions_go_after_a_while(path):
    def columns() -> set[str]:
        with fs.open(path, notes=path.parent / "notes") as db:
            return {name for (name,) in db.sql("SELECT name FROM pragma_table_info('customers')")}

    for number in range(DECLARATIONS_SERVED):
        assert "telephone" in columns()
        later = type(fs.Record)(
            "Later", (fs.Record,), {"__annotations__": {f"new{number}": "str | None"}}, table="customers"
        )
        assert rebuilt_by(path, later)
    assert "telephone" not in columns()
    assert {"new0", f"new{number}"} <= columns()
    assert rebuilt_by(path, One)


def rebuilt_by(path: Path, version: type[fs.Record]) -> bool:
    told = []
    fs.open(path, version, notes=path.parent / "notes", progress=lambda *done: told.append(done)).close()
    return bool(told)


def test_processes_of_two_versions_write_to_one_file(path):
    """Each one's columns follow what the other, and one without any declaration, writes: conversions too."""
    with opened(path, One) as one, opened(path, Three) as three, opened(path, None) as none:
        with one.write() as tx:
            tx.update(One, "k3", size="300", telephone="1")
        assert three[Three].where(size=300, mobile="1").count() == 1
        with none.write() as tx:
            tx.update("customers", "k4", size="400")
        assert three.sql("SELECT key FROM customers WHERE size=400") == [("k4",)]
        assert one[One].where(size="400").all() == [one[One].get("k4")]
        with three.write() as tx:
            tx.update(Three, "k5", size=500, telephone=5)
        assert (one[One].get("k5").size, one[One].get("k5").telephone) == (500, "5")
        assert none.verify().is_sound
        assert three[Three].get("k5").telephone == 5
        assert three.verify().is_sound


def test_renamed_fields_are_loaded_and_queried_by_their_new_names(path):
    with opened(path, Two) as db:
        rows = [{"key": "k1", "phone": "new", "visits": 4, "labels": {"x"}, "body": "hello"}]
        rows += [{"key": "new", "phone": "1", "visits": 1, "labels": {"y"}, "body": "there", "mail": "m"}]
        report = db.load(Two, rows, key="key", scope=lambda _: SCOPE)
        assert (report.loaded, report.rejected) == (2, [])
        assert db.load(Two, rows, key="key", scope=lambda _: SCOPE).unchanged == 2
        assert db[Two].where(phone="new").all() == [db[Two].get("k1")]
        assert db[Two].where(labels__contains="y", body__contains="the").count() == 1
        assert set(db[Two].get("new").stamps()) == {"phone", "visits", "labels", "body", "mail"}
    with opened(path, One) as db:
        record = db[One].get("new")
        assert (record.telephone, record.hours, record.tags, record.notes) == ("1", 1, {"y"}, "there")


def column(name: str, **options: Any) -> Column:
    return Column(name, 8, options.pop("indexed", False), None, **options)


def test_a_table_keeps_what_was_asked_for_not_long_ago():
    known = (column("a", indexed=True), column("b", tokenizer="t"), column("c", age=DECLARATIONS_SERVED - 1))
    joined = join(known, (column("A"), column("d", tokenizer="other")))
    assert joined == (column("A"), column("d", tokenizer="other"), column("b", age=1))  # one tokenizer for a table
    joined = join(known, (column("a"), column("b")))
    assert joined == (column("a", indexed=True, age=1), column("b", tokenizer="t", age=1))
    assert join(joined, (column("a", indexed=True), column("b"))) == (
        column("a", indexed=True),
        column("b", tokenizer="t", age=2),
    )
    assert join(known, (column("a", stored_as="x"), column("b"))) == (
        column("a", stored_as="x"),
        column("b", tokenizer="t", age=1),
    )
    many = tuple(column(f"n{number}") for number in range(COLUMNS_MAX))
    assert len(join(many, (column("a"),))) == COLUMNS_MAX


def test_an_editor_holds_a_renamed_text_open(path):
    with opened(path, Two) as db, db.edit(Two, "k1", "body") as live:
        live.text += "hello"
    with opened(path, One) as db:
        assert db[One].get("k1").notes == "hello"


# --- conflicts between versions ---


@pytest.fixture
def pair(tmp_path):
    """A file of version 1 and one of version 3, which wrote apart to one record."""
    with opened(tmp_path / "one.db", One) as one, opened(tmp_path / "three.db", Three) as three:
        with one.write() as tx:
            tx.create(One, scope=SCOPE, key="k", fax="1")
        three.enter(SCOPE)
        one.sync(three)
        with one.write() as tx:
            tx.update(One, "k", size="large", telephone="1")
        with three.write() as tx:
            tx.update(Three, "k", size=3, mobile="3", telephone=4)
        one.sync(three)
        yield one, three


def test_conflicts_are_told_by_the_names_of_each_version(pair):
    one, three = pair
    assert {(conflict.field, conflict.stored_as) for conflict in one.conflicts()} == {
        ("size", "size"),
        ("telephone", "telephone"),
    }
    assert {(conflict.field, conflict.stored_as) for conflict in three.conflicts()} == {
        ("size", "size"),
        ("mobile", "telephone"),
    }


@pytest.mark.parametrize("claim", ["large", 3])
def test_a_conflict_is_settled_by_a_value_of_either_type(pair, claim):
    one, three = pair
    with three.write() as tx:
        for conflict in three.conflicts():
            tx.settle(conflict, next((some for some in conflict.claims if some.value == claim), None))
        assert tx.get(Three, "k").size == SIZES.get(claim, claim)
    one.sync(three)
    assert (one.conflicts(), three.conflicts()) == ([], [])
    assert (one[One].get("k").size, three[Three].get("k").size) == (claim, SIZES.get(claim, claim))
    assert one[One].get("k").telephone == three[Three].get("k").mobile
    assert three[Three].get("k").telephone == 4


def test_a_conflict_of_a_field_that_is_not_declared_can_be_settled(pair, tmp_path):
    one, _ = pair
    with opened(tmp_path / "other.db", One) as other, opened(tmp_path / "three.db", Three) as three:
        other.enter(SCOPE)
        one.sync(other)
        for number, db in enumerate((one, other)):
            with db.write() as tx:
                tx.update(One, "k", fax=f"fax {number}")
        one.sync(other)
        one.sync(three)
        (conflict,) = [some for some in three.conflicts() if some.field == "fax"]
        with three.write() as tx:
            tx.settle(conflict, conflict.losers[0])
        one.sync(three)
        assert one[One].get("k").fax == conflict.losers[0].value


def test_a_write_after_settling_counts(pair):
    _, three = pair
    (conflict,) = [some for some in three.conflicts() if some.field == "size"]
    with three.write() as tx:
        tx.settle(conflict)
        tx.update(Three, "k", size=99)
    assert three[Three].get("k").size == 99


# --- what is not declared ---


@pytest.mark.parametrize(("name", "kind"), [("hours", "counter"), ("tags", "set"), ("notes", "text")])
def test_an_app_that_declares_nothing_does_not_write_beside_other_kinds(tmp_path, name, kind):
    with opened(tmp_path / "one.db", One) as one, opened(tmp_path / "none.db", None) as none:
        with one.write() as tx:
            tx.create(One, scope=SCOPE, key="k", hours=1, tags={"x"}, notes="text")
        none.enter(SCOPE)
        none.sync(one)
        with pytest.raises(fs.SchemaError, match=rf"customers\.{name} is a {kind} to the app that"), none.write() as tx:
            tx.update("customers", "k", **{name: "x"})
        report = none.load("customers", [{"key": "k", name: "x"}], key="key", scope=lambda _: SCOPE)
        assert report.rejected_count == 1
    with opened(tmp_path / "one.db", None) as none:  # where the file knows the declaration, new records too
        with pytest.raises(fs.SchemaError, match=rf"customers\.{name} is a {kind}"), none.write() as tx:
            tx.create("customers", scope=SCOPE, key="new", **{name: "x"})
        report = none.load("customers", [{"key": "new", name: "x"}], key="key", scope=lambda _: SCOPE)
        assert report.rejected_count == 1


# --- docs/schema.md ---

DOCS = (Path(__file__).parents[1] / "docs" / "schema.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
PROMISE = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def test_the_examples_run_and_print_what_they_say(tmp_path):
    code = "".join(BLOCKS)
    environment = os.environ | {
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    promises = PROMISE.findall(code)
    assert len(promises) == 7
    assert [line for line in done.stdout.splitlines() if line in promises] == promises
    assert (
        "size: register of 2 records (2 str); declared as int: str is converted; 1 cannot be, and read as 0: c-2"
        in (done.stdout)
    )
