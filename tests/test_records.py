"""Records as apps hold them: what a new one is made of, snapshots and drafts."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.declared import NOTES, ORDERS, VALUES, Color, Order, declare, exactly, nested

from fieldsync import schema as fs
from fieldsync.draft import Draft
from fieldsync.errors import SchemaError

# --- create ---


def test_create_fills_in_defaults_that_say_something():
    assert ORDERS.check_new({"customer": "Acme"}) == {"customer": "Acme", "status": "open", "weight": 0.5, "tags": []}
    given_none = ORDERS.check_new({"customer": "Acme", "price": None, "hours": 0})
    assert given_none["price"] is None
    assert given_none["hours"] == 0
    first, second = (ORDERS.check_new({"customer": "Acme"})["tags"] for _ in range(2))
    assert first is not second


def test_create_wants_what_is_required_and_knows_no_other_names():
    with pytest.raises(TypeError, match=r"^orders\.customer is required$"):
        ORDERS.check_new({"status": "open"})
    with pytest.raises(SchemaError, match="orders has no field 'staus'; did you mean 'status'"):
        ORDERS.check_new({"customer": "Acme", "staus": "done"})
    with pytest.raises(TypeError, match=r"^orders\.status wants str, got int"):
        ORDERS.check_new({"customer": "Acme", "status": 1})


def test_what_a_factory_makes_is_checked():
    bad = declare({"size": (int, fs.field(default_factory=str))})
    with pytest.raises(TypeError, match=r"^things\.size wants int, got str"):
        bad.check_new({})


def test_an_undeclared_collection_takes_any_plain_name():
    values = {"text": "x", "a b": 1, "price__gt": [1], "Größe": None}
    assert NOTES.check_new(values) == values
    for name in ("key", "scope", "_x", "as_dict", "a\nb", ""):
        with pytest.raises(SchemaError, match=r"field .* of notes"):
            NOTES.check_new({name: 1})
    with pytest.raises(TypeError, match=r"^notes\.text wants one of"):
        NOTES.check_new({"text": {1}})


def test_values_that_a_record_lacks_read_as_their_default():
    assert ORDERS.fill({"customer": "Acme", "status": None, "later": 5}) == (
        *("Acme", None, None, 0.5, None, None, None),
        *(0, 0),
    )
    assert NOTES.fill({"later": 5}) == {"later": 5}


# --- snapshots ---


def test_a_snapshot_is_an_instance_of_its_class():
    order = ORDERS.snapshot("o-1", "job/7", VALUES)
    assert isinstance(order, Order)
    assert (order.key, order.scope, order.collection) == ("o-1", "job/7", "orders")
    assert (order.customer, order.price, order.tags, order.hours, order.visits) == (
        "Acme",
        Decimal("5.00"),
        ["a"],
        2,
        3,
    )
    assert (order["status"], order["key"], order["scope"]) == ("open", "o-1", "job/7")
    assert order.label() == "Acme, open"
    assert "status" in order
    assert "staus" not in order
    assert order.as_dict() == {"key": "o-1", "scope": "job/7", **dict(zip(ORDERS.places, VALUES, strict=True))}
    assert repr(order).startswith(
        "Order(key='o-1', scope='job/7', customer='Acme', status='open', price=Decimal('5.00')"
    )
    with pytest.raises(KeyError, match="orders 'o-1' has no field 'staus'"):
        order["staus"]


def test_an_undeclared_snapshot_reads_by_attribute_and_by_name():
    note = NOTES.snapshot("n1", "job/7", {"text": "x", "a b": 1})
    assert (note.text, note["a b"], note["key"], note.collection) == ("x", 1, "n1", "notes")
    assert note.as_dict() == {"key": "n1", "scope": "job/7", "text": "x", "a b": 1}
    assert repr(note) == "Snapshot(key='n1', scope='job/7', text='x', a b=1)"
    assert not hasattr(note, "missing")
    with pytest.raises(AttributeError, match="no field txet; did you mean 'text'"):
        _ = note.txet
    with pytest.raises(KeyError, match="no field 'txet'"):
        note["txet"]


def test_fields_of_foreign_names_hide_nothing():
    note = NOTES.snapshot("n1", "job/7", {"key": "fake", "scope": "fake", "as_dict": 1})
    assert (note.key, note["key"], note.scope) == ("n1", "n1", "job/7")
    assert note.as_dict() == {"key": "n1", "scope": "job/7", "as_dict": 1}
    sly = NOTES.snapshot("n1", "job/7", {"_draft": "mine", "_secret": 1})
    assert sly["_secret"] == 1
    for name in ("_draft", "_secret"):
        with pytest.raises(AttributeError):
            getattr(sly, name)
    with pytest.raises(AttributeError, match="frozen"):
        sly.text = "x"


@pytest.mark.parametrize("name", ["status", "key", "scope", "staus", "_values"])
@pytest.mark.parametrize("values", [VALUES, {"status": "open"}])
def test_a_snapshot_is_frozen(name, values):
    collection = NOTES if isinstance(values, dict) else ORDERS
    record = collection.snapshot("o-1", "job/7", values)
    before = record.as_dict()
    with pytest.raises(AttributeError, match=r"frozen snapshot of (orders|notes) 'o-1'.*db\.write\(\)"):
        setattr(record, name, "done")
    with pytest.raises(AttributeError):
        delattr(record, name)
    assert record.as_dict() == before


def test_snapshots_are_equal_by_what_they_say():
    order = ORDERS.snapshot("o-1", "job/7", VALUES)
    same = ORDERS.snapshot("o-1", "job/7", VALUES)
    assert order == same
    assert hash(order) == hash(same)
    note = NOTES.snapshot("o-1", "job/7", {"a": 1})
    assert note == fs.Collection("notes").snapshot("o-1", "job/7", {"a": 1})
    others = [
        ORDERS.snapshot("o-2", "job/7", VALUES),
        ORDERS.snapshot("o-1", "job/8", VALUES),
        ORDERS.snapshot("o-1", "job/7", ("Bolt", *VALUES[1:])),
        fs.Collection("memos").snapshot("o-1", "job/7", {"a": 1}),
        NOTES.snapshot("o-1", "job/7", {"a": 2}),
        note,
        "o-1",
    ]
    assert order not in others
    assert others.count(note) == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))])
def test_records_can_be_copied_and_pickled_as_snapshots(duplicate):
    for collection, values in ((ORDERS, VALUES), (NOTES, {"text": ["x"]})):
        for record in (collection.snapshot("k", "s", values), Draft(collection, "k", "s", values).record):
            twin = duplicate(record)
            assert twin == record
            assert type(twin) is type(record)
            with pytest.raises(AttributeError, match="frozen"):
                twin.status = "done"


def test_apps_do_not_make_records_themselves():
    with pytest.raises(TypeError, match=r"tx\.create"):
        Order(customer="Acme")
    with pytest.raises(TypeError, match=r"tx\.create"):
        fs.Snapshot()


# --- drafts ---


def test_a_draft_reads_its_own_writes_and_tells_them():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    order = draft.record
    assert isinstance(order, Order)
    order.status, order.hours = "done", order.hours + 1.5
    order.visits += 1
    order.visits += 1
    order.weight = 2
    assert (order.status, order["status"], order.as_dict()["status"]) == ("done", "done", "done")
    assert (order.hours, order.visits) == (3.5, 5)
    assert exactly(draft.changes()) == exactly({"status": "done", "weight": 2.0})
    assert draft.increments() == {"hours": 1.5, "visits": 2}


def test_an_equal_value_is_a_write_and_an_equal_total_is_none():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    draft.record.status = "open"
    draft.record.hours += 5
    draft.record.hours -= 5
    assert draft.changes() == {"status": "open"}
    assert draft.increments() == {}


def test_a_draft_refuses_names_and_values_that_cannot_be():
    order = Draft(ORDERS, "o-1", "job/7", VALUES).record
    with pytest.raises(AttributeError, match="orders has no field 'staus'; did you mean 'status'"):
        order.staus = "done"
    with pytest.raises(TypeError, match=r"orders\.status wants str, got int"):
        order.status = 5
    for name in ("key", "scope", "_values"):
        with pytest.raises(AttributeError, match="has no field"):
            setattr(order, name, "x")
    with pytest.raises(SchemaError, match="did you mean 'status'"):
        Draft(ORDERS, "o-1", "job/7", VALUES).assign("staus", "done")
    assert order == ORDERS.snapshot("o-1", "job/7", VALUES)


def test_an_undeclared_draft_takes_any_name():
    draft = Draft(NOTES, "n1", "job/7", {"text": "x", "size": 1})
    note = draft.record
    note.text = "y"
    note.color = Color.RED
    assert note.color == "red"
    assert draft.changes() == {"text": "y", "color": "red"}
    assert draft.increments() == {}
    with pytest.raises(AttributeError, match="every record has this attribute"):
        note.key = "n2"
    with pytest.raises(TypeError, match=r"notes\.text wants one of"):
        note.text = object()


@pytest.mark.parametrize(("collection", "values"), [(ORDERS, VALUES), (NOTES, {"tags": ["a"], "n": 1})])
def test_a_list_changed_in_place_is_a_write_and_is_checked(collection, values):
    def draft() -> Draft:
        return Draft(collection, "k", "s", copy.deepcopy(values))

    untouched, appended, retyped, bad = draft(), draft(), draft(), draft()
    appended.record.tags.append("b")
    retyped.record.tags[:] = [Color.RED]
    bad.record.tags.append({1})
    assert untouched.changes() == {}
    assert appended.changes() == {"tags": ["a", "b"]}
    assert exactly(retyped.changes()) == exactly({"tags": ["red"]})
    with pytest.raises(TypeError, match=r"\.tags\[\.\.\.\] wants"):
        bad.changes()
    replaced = draft()
    replaced.record.tags = mine = ["x"]
    mine.append("not stored")
    replaced.record.tags.append("y")
    assert replaced.changes() == {"tags": ["x", "y"]}


def test_a_list_that_changes_its_types_alone_is_a_write():
    draft = Draft(NOTES, "k", "s", {"tags": [1]})
    draft.record.tags[0] = True
    assert exactly(draft.changes()) == "{'tags': [True]}"


def test_a_new_record_writes_what_it_was_given_and_its_defaults():
    draft = Draft.create(ORDERS, "o-1", "job/7", {"customer": "Acme", "hours": 2.5})
    assert draft.record == ORDERS.snapshot("o-1", "job/7", ("Acme", "open", None, 0.5, None, [], None, 2.5, 0))
    draft.record.visits += 2
    draft.record.tags.append("new")
    assert draft.changes() == {"customer": "Acme", "status": "open", "weight": 0.5, "tags": ["new"]}
    assert draft.increments() == {"hours": 2.5, "visits": 2}
    assert Draft.create(NOTES, "n1", "s", {"text": "x"}).changes() == {"text": "x"}


def test_a_draft_is_closed_with_its_transaction():
    draft = Draft(ORDERS, "o-1", "job/7", VALUES)
    order = draft.record
    order.status = "done"
    draft.close()
    with pytest.raises(AttributeError, match="transaction of this draft is over"):
        order.status = "late"
    assert order.status == "done"


def test_drafts_do_not_wait_for_the_garbage_collector():
    drafts = [Draft(ORDERS, "o-1", "job/7", VALUES) for _ in range(10)]
    gc.collect()
    for draft in drafts:
        draft.close()
    del draft, drafts
    assert gc.collect() == 0


counts = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.decimals(-(10**9), 10**9, places=4)


@given(counts, st.lists(counts, max_size=5))
def test_increments_carry_the_total_from_what_was_read_to_what_was_set(total, totals):
    draft = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], total))
    order = draft.record
    for value in totals:
        if {type(total), type(value)} == {float, Decimal}:
            with pytest.raises(TypeError, match=r"orders\.visits counts in"):
                order.visits = value
        else:
            order.visits = value
    increment = draft.increments().get("visits", 0)
    if isinstance(order.visits, float) or isinstance(increment, float):
        rounding = 1e-6 + 1e-15 * abs(float(total))  # of the increment, which is as large as the total was
        assert math.isclose(total + increment, order.visits, rel_tol=1e-12, abs_tol=rounding)
    else:
        assert total + increment == order.visits  # int and Decimal count exactly
    assert type(increment) is not bool
    assert draft.changes() == {}


@pytest.mark.parametrize("value", [True, None, "1", math.nan, math.inf, Decimal("NaN"), 2**63, [1]])
def test_a_counter_counts_in_finite_numbers(value):
    order = Draft(ORDERS, "o-1", "job/7", VALUES).record
    with pytest.raises(TypeError, match=r"^orders\.hours wants"):
        order.hours = value
    assert order.hours == 2


def test_decimals_count_exactly():
    digits = Decimal("12345678901234567890123456789012345678901234567890.01")
    draft = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], 1))
    draft.record.visits = digits
    assert draft.increments() == {"visits": Decimal("12345678901234567890123456789012345678901234567889.01")}


def test_a_difference_beyond_64_bits_is_refused():
    order = Draft(ORDERS, "o-1", "job/7", (*VALUES[:-1], -5)).record
    with pytest.raises(TypeError, match=r"^orders\.visits wants an int of 64 bits"):
        order.visits = 2**63 - 1


operations = st.lists(st.tuples(st.sampled_from(["text", "size", "tags"]), nested), max_size=8)


@given(st.dictionaries(st.sampled_from(["text", "size"]), nested), operations)
def test_a_draft_is_what_was_read_with_the_last_writes_on_top(values, writes):
    draft = Draft(NOTES, "n1", "s", copy.deepcopy(values))
    for name, value in writes:
        setattr(draft.record, name, value)
    assert exactly(draft.changes()) == exactly(dict(writes))
    assert exactly({"key": "n1", "scope": "s"} | values | dict(writes)) == exactly(draft.record.as_dict())
