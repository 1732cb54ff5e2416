"""Erased fields: gone from all records, on all devices and for good, whatever is written apart."""

from __future__ import annotations

import pytest
from tests.versions import SCOPE, One, Two, opened, values

import fieldsync as fs

ERASED = {"telephone": None, "size": None, "fax": None, "hours": 0, "tags": frozenset(), "notes": ""}


@pytest.mark.parametrize("name", ERASED)
@pytest.mark.parametrize("declared", [True, False])
def test_an_erased_field_reads_as_never_written_everywhere(tmp_path, name, declared):
    with opened(tmp_path / "one.db", One) as one, opened(tmp_path / "two.db", One if declared else None) as two:
        with one.write() as tx:
            fields = {"telephone": "1", "size": "2", "fax": "3", "hours": 4, "tags": {"5", "6"}, "notes": "7"}
            tx.create(One, scope=SCOPE, key="k", **fields)
        two.enter(SCOPE)
        one.sync(two)
        with one.write() as tx:
            tx.update(One, "k", **(fields | {"hours": 5, "tags": {"5", "8"}}))
        with two.write() as tx:
            tx.erase(One if declared else "customers", "k", name)
        one.sync(two)
        record = one[One].get("k")
        survives = fields | {"hours": 5, "tags": {"8"}, "notes": ""}  # what was written apart
        assert getattr(record, name) == survives[name]
        with one.write() as tx:
            tx.erase(One, "k", name)
        one.sync(two)
        for db in (one, two):
            assert name not in db["customers" if db is two and not declared else One].get("k").stamps()
            assert name not in {info.name for info in db.describe()[0].fields if info.records}
            assert db.verify().is_sound
        assert getattr(one[One].get("k"), name) == ERASED[name]
        assert one.scopes()[0].digest == two.scopes()[0].digest
        with one.write() as tx:
            record = tx.get(One, "k")
            setattr(record, name, fields[name])
        one.sync(two)
        assert getattr(one[One].get("k"), name) == fields[name]
        assert one.compare(two).agree


@pytest.mark.parametrize("name", ERASED)
def test_what_is_erased_stays_so_where_that_is_forgotten(tmp_path, name):
    """A device that was away while the removal was made and trimmed does not bring the values back."""
    with (
        fs.open(tmp_path / "hub.db", One, hub=True, durability="fast", notes=tmp_path / "notes") as hub,
        opened(tmp_path / "one.db", One) as one,
        opened(tmp_path / "away.db", One) as away,
    ):
        away.enter(SCOPE)
        with one.write() as tx:
            tx.create(One, scope=SCOPE, key="k")
        one.sync(hub)
        with one.write() as tx:
            fields = {"telephone": "1", "size": "2", "fax": "3", "hours": 4, "tags": {"5", "6"}, "notes": "7"}
            tx.update(One, "k", **fields)
        one.sync(hub)
        away.sync(hub)
        with hub.write() as tx:
            tx.erase(One, "k", name)
        assert hub.replica.trim(None, before_ms=2**47) == 1
        with away.write() as tx:
            tx.create(One, scope=SCOPE, key="new")
        away.sync(hub)
        one.sync(hub)
        for db in (hub, one, away):
            assert values(db[One].get("k")) == fields | {name: ERASED[name]}
            assert db.compare(hub).agree
            assert db.verify().is_sound


def test_a_field_is_erased_in_all_records_in_batches(tmp_path):
    with opened(tmp_path / "one.db", One) as one, opened(tmp_path / "two.db", Two) as two:
        rows = [{"key": f"k{number}", "fax": "1" if number % 3 else None, "telephone": "2"} for number in range(2000)]
        one.load(One, rows, key="key", scope=lambda row: f"s{int(row['key'][1:]) % 2}")
        two.enter("s0", "s1")
        two.sync(one)
        told = []
        assert two.erase(Two, "fax", scope="s0") == 666
        assert two.erase("customers", "fax", progress=told.append) == told[-1] == 667
        assert two.erase(Two, "fax") == 0
        assert two.erase("customers", "missing") == 0
        assert two.erase("nothing", "missing") == 0
        assert two.erase(Two, "phone") == 2000
        two.sync(one)
        assert one[One].where(fax=None, telephone=None).count() == 2000
        assert one.compare(two).agree
        with pytest.raises(fs.NotFound):
            two.erase(Two, "fax", scope="s2")


def test_what_is_too_much_for_one_change_is_erased_in_several(tmp_path):
    with opened(tmp_path / "one.db", One) as one:
        rows = ({"key": f"k{number}", "tags": {f"tag {tag:08}" for tag in range(80)}} for number in range(999))
        one.load(One, rows, key="key", scope=lambda _: SCOPE)
        before = one.scopes()[0].changes
        assert one.erase(One, "tags") == 999
        assert one.scopes()[0].changes >= before + 2  # removals, in halves
        assert {record.tags for record in one[One]} == {frozenset()}
        assert one.erase(One, "tags") == 0


def test_what_was_erased_of_a_record_does_not_bind_the_next_one(tmp_path):
    with fs.open(tmp_path / "a.db") as db:
        with db.write() as tx:
            tx.create("things", scope="s", key="t", fax="1")
        with db.write() as tx:
            tx.erase("things", "t", "fax")
            tx.delete("things", "t")
            tx.create("things", scope="s", key="t", fax="2")
        assert db["things"].get("t").fax == "2"


def test_late_edits_of_one_name_and_two_kinds_are_told_apart(tmp_path):
    class Counted(fs.Record, table="counted"):
        visits: fs.Counter = 0
        visits_before: int = fs.field(default=0, stored_as="visits")

    with fs.open(tmp_path / "a.db", Counted) as one, fs.open(tmp_path / "b.db", Counted) as other:
        with one.write() as tx:
            tx.create(Counted, scope="s", key="c", visits=3, visits_before=10)
        other.enter("s")
        other.sync(one)
        with one.write() as tx:
            tx.delete(Counted, "c")
        with other.write() as tx:
            tx.update(Counted, "c", visits=7, visits_before=12)
        other.sync(one)
        (late,) = one.late_edits()
        assert {name: claim.value for name, claim in late.values.items()} == {"visits": 4, "visits_before": 12}


def test_what_cannot_be_erased_is_refused(tmp_path):
    with opened(tmp_path / "one.db", One) as db:
        with db.write() as tx:
            tx.create(One, scope=SCOPE, key="k", fax="1")
        with pytest.raises(fs.NotFound, match="holds no field 'missing'"), db.write() as tx:
            tx.erase(One, "k", "missing")
        with pytest.raises(fs.NotFound), db.write() as tx:
            tx.erase(One, "other", "fax")
        with db.write() as tx:
            tx.create(One, scope=SCOPE, key="new")
            with pytest.raises(fs.DataError, match="created in this transaction"):
                tx.erase(One, "new", "fax")
        both = db.write()
        tx = both.__enter__()
        tx.erase(One, "k", "fax")
        tx.update(One, "k", fax="2")
        with pytest.raises(fs.DataError, match="'fax' is erased, and written as well"):
            both.__exit__(None, None, None)
        assert db[One].get("k").fax == "1"


def test_what_is_erased_and_written_is_named_as_the_app_does(tmp_path):
    class Renamed(fs.Record, table="things"):
        telefax: str = fs.field(default="", stored_as="fax")

    with fs.open(tmp_path / "a.db", Renamed) as db:
        with db.write() as tx:
            tx.create(Renamed, scope="s", key="t", telefax="1")
        both = db.write()
        tx = both.__enter__()
        tx.erase(Renamed, "t", "telefax")
        tx.update(Renamed, "t", telefax="2")
        with pytest.raises(fs.DataError, match="'telefax' is erased, and written as well"):
            both.__exit__(None, None, None)
