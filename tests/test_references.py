"""References between records: where they lead, each reason why to no record, and that many cost no more than one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.members import sync

import fieldsync as fs

HERE, THERE = "job/7", "job/8"


class Order(fs.Record, table="orders"):
    status: str = "open"


class Visit(fs.Record, table="visits"):
    order: str = fs.field(references=Order)
    after: str | None = fs.field(default=None, references="visits")


@pytest.fixture
def opened(tmp_path):
    """Databases by name."""
    held = []

    def open_(name, *scopes, declared=(Order, Visit), **options):
        held.append(fs.open(tmp_path / f"{name}.db", *declared, durability="fast", **options))
        held[-1].enter(*scopes)
        return held[-1]

    yield open_
    for db in held:
        assert db.verify().faults == []
        db.close()


@pytest.fixture
def db(opened):
    return opened("a", HERE)


@pytest.fixture
def hub(opened):
    return opened("hub", HERE, hub=True)


def order(db, key, scope=HERE, **fields):
    with db.write() as tx:
        tx.create(Order, scope=scope, key=key, **fields)


def visit(db, to, scope=HERE, key=None):
    with db.write() as tx:
        key = tx.create(Visit, scope=scope, key=key, order=to).key
    return db[Visit].get(key)


def change(db, what, *args, **options):
    with db.write() as tx:
        getattr(tx, what)(*args, **options)


def told(followed):
    return followed.state, followed.scopes, str(followed)


# --- what is there ---


def test_a_reference_leads_to_the_record(db):
    order(db, "o-1", status="done")
    way = db.follow(visit(db, "o-1"), "order")
    assert (bool(way), way.state, way.key, way.scopes, way.reason) == (True, "here", "o-1", (HERE,), "")
    assert way.record == db[Order].get("o-1")
    assert str(way) == "orders 'o-1' is in scope 'job/7'."


def test_the_own_scope_comes_first_then_all_others(opened):
    db = opened("a")
    order(db, "o-1", HERE, status="here")
    order(db, "o-1", THERE, status="there")
    order(db, "o-2", THERE)
    assert db.follow(visit(db, "o-1"), "order").record.status == "here"
    assert db.follow(visit(db, "o-1", THERE), "order").record.status == "there"
    assert db.follow(visit(db, "o-1"), "order", scope=THERE).record.status == "there"
    assert db.follow(visit(db, "o-2"), "order").record.scope == THERE
    assert told(db.follow(visit(db, "o-2"), "order", scope=HERE))[0] == "unknown"
    way = db.follow(visit(db, "o-1", "job/9"), "order")
    assert (bool(way), *told(way)) == (
        False,
        "ambiguous",
        (HERE, THERE),
        "orders 'o-1' lives in several scopes, 'job/7', 'job/8'; pass scope=.",
    )


def test_nothing_and_what_is_no_key(db):
    one = visit(db, "o-1")
    assert told(db.follow(one, "after")) == ("empty", (), "It refers to nothing.")
    with fs.open(db.path) as other:
        change(other, "update", "visits", one.key, order=7)
    assert told(db.follow(db[Visit].get(one.key), "order")) == ("unknown", (), "7 is no key.")


def test_a_reference_to_its_own_collection_and_undeclared_ones(db):
    first, second = visit(db, "o-1"), visit(db, "o-1")
    change(db, "update", Visit, second.key, after=first.key)
    assert db.follow(db[Visit].get(second.key), "after").record == first
    order(db, "o-1")
    with db.write() as tx:
        tx.create("notes", scope=HERE, key="n", about="o-1")
        tx.create("notes", scope=HERE, key="m", text="x")
    note = db["notes"].get("n")
    assert db.follow(note, "about", Order).record.status == "open"
    assert db.follow(note, "about", "orders").record == db[Order].get("o-1")
    assert db.follow(db["notes"].get("m"), "about", Order).state == "empty"
    assert db.follow(note, "about", "never").state == "filling"
    with fs.open(db.path) as other:
        assert other.follow(other["visits"].get(first.key), "order", "orders").record.status == "open"


def test_a_collection_that_is_not_declared_here_is_read_as_it_is(opened):
    db = opened("a", HERE, declared=(Visit,))
    with db.write() as tx:
        tx.create("orders", scope=HERE, key="o-1", colour="red")
    assert db.follow(visit(db, "o-1"), "order").record.colour == "red"


def test_the_other_way_goes_by_an_index(db):
    for _ in range(3):
        visit(db, "o-1")
    visit(db, "o-2")
    assert db[Visit].where(order="o-1").count() == 3
    (indexed,) = db.sql("SELECT sql FROM sqlite_schema WHERE type='index' AND sql LIKE '%\"order\"%'")
    assert "fs_record_" in indexed[0]


def test_sql_joins_by_the_key(db):
    order(db, "o-1", status="done")
    visit(db, "o-1", key="v-1")
    visit(db, "o-2", key="v-2")
    sql = 'SELECT v.key, o.status FROM visits v LEFT JOIN orders o ON o.key=v."order" ORDER BY v.key'
    assert db.sql(sql) == [("v-1", "done"), ("v-2", None)]


# --- why it is not there ---


def test_what_never_was_here_may_be_in_a_scope_that_is_not_held(db, hub):
    order(hub, "o-1", THERE)
    one = visit(db, "o-1")
    assert told(db.follow(one, "order")) == (
        "filling",
        (HERE,),
        "orders 'o-1' is not here; the first sync is not complete of 'job/7': it may come yet.",
    )
    db.sync(hub)
    assert told(db.follow(one, "order")) == (
        "unknown",
        (),
        "orders 'o-1' is not here, and nothing is known of it; it may be in a scope that is not held.",
    )
    assert told(db.follow(one, "order", scope=THERE)) == (
        "not held",
        (THERE,),
        "orders 'o-1' may be in scope 'job/8', which is not held here.",
    )
    db.enter(THERE)
    assert db.follow(one, "order").scopes == (THERE,)
    db.sync(hub)
    assert db.follow(one, "order").record.scope == THERE


def test_a_hub_knows_that_it_has_heard_of_nothing(opened):
    hub = opened("hub", hub=True)
    one = visit(hub, "o-9")
    assert told(hub.follow(one, "order")) == ("unknown", (), "orders 'o-9' is not here, and nothing is known of it.")


def test_what_was_deleted_and_by_whom(db, hub):
    order(db, "o-1")
    order(db, "o-2")
    ones = [visit(db, "o-1"), visit(db, "o-2")]
    db.sync(hub)
    change(db, "delete", Order, "o-1")
    change(hub, "delete", Order, "o-2")
    own, other = db.follow_all(ones, "order")
    assert (own.state, own.deed.is_own, own.deed.is_pending, other.state) == ("deleted", True, True, "here")
    assert str(own).startswith("orders 'o-1' was deleted by this file on ")
    assert str(own).endswith(" (no hub is known to have that), in scope 'job/7'.")
    db.sync(hub)
    own, other = db.follow_all(ones, "order")
    (removed,) = db.why(Order, "o-2").traces[0].removed
    assert (own.deed.is_pending, other.deed, other.scopes) == (False, removed, (HERE,))
    assert str(other).endswith("; or it was moved from there to a scope that is not held here.")
    heard = hub.follow(hub[Visit].get(ones[0].key), "order")
    assert "moved" not in str(heard)
    assert (heard.deed,) == hub.why(Order, "o-1").traces[0].removed
    assert not heard.deed.is_pending  # it is at a hub


def test_who_deleted_it_is_a_device_in_an_organisation(members):
    ada = members.device("ada", write=[HERE])
    ada.write(HERE, "o-1")
    ada.write(HERE, "v-1", order="o-1")
    sync(ada, members.hub)
    change(ada.db, "delete", "notes", "o-1")
    sync(ada, members.hub)
    way = members.hub.db.follow(members.hub.db["notes"].get("v-1"), "order", "notes")
    assert (way.state, way.deed.device) == ("deleted", "ada")
    assert str(way).startswith("notes 'o-1' was deleted by ada on ")


def test_what_was_made_again_is_there(db):
    order(db, "o-1")
    one = visit(db, "o-1")
    change(db, "delete", Order, "o-1")
    order(db, "o-1", THERE)
    assert db.follow(one, "order").record.scope == THERE


def test_what_went_because_a_peer_had_it_no_more(db, hub):
    order(db, "o-1")
    one = visit(db, "o-1")
    db.sync(hub)
    change(hub, "delete", Order, "o-1")
    hub.trim(older_than=timedelta(0), keep=0)
    db.sync(hub)
    way = db.follow(one, "order")
    assert (way.state, way.scopes, way.deed) == ("deleted", (HERE,), None)
    assert str(way).endswith("because a peer had it no more.")
    db.restore(*db.trash())
    assert db.follow(one, "order").state == "here"


def test_a_record_that_moves_keeps_its_references(db, hub):
    order(db, "o-1")
    one = visit(db, "o-1")
    db.enter(THERE)
    db.sync(hub)
    change(hub, "move", Order, "o-1", to=THERE)
    db.sync(hub)
    for at in (db, hub):
        assert at.follow(at[Visit].get(one.key), "order").record.scope == THERE
    assert db.follow(one, "order", scope=HERE).state == "deleted"  # as far as a device knows
    assert told(hub.follow(one, "order", scope=HERE)) == ("moved", (THERE,), "orders 'o-1' was moved to scope 'job/8'.")


def test_what_moved_and_was_deleted_there(hub):
    order(hub, "o-1")
    one = visit(hub, "o-1")
    change(hub, "move", Order, "o-1", to=THERE)
    change(hub, "delete", Order, "o-1")
    assert hub.follow(one, "order").state == "deleted"
    assert hub.follow(one, "order").scopes == (THERE,)
    hub.trim(older_than=timedelta(0), keep=0)
    assert told(hub.follow(one, "order")) == (
        "moved",
        (THERE,),
        "orders 'o-1' was moved to scope 'job/8', and is there no more.",
    )


def test_elements_that_went_are_no_deletion(opened):
    class Tagged(fs.Record, table="orders"):
        tags: set[str]

    db = opened("a", declared=(Tagged, Visit))
    with db.write() as tx:
        tx.create(Tagged, scope=HERE, key="o-1", tags={"x"})
    with db.write() as tx:
        tx.get(Tagged, "o-1").tags.clear()
    assert db.why(Tagged, "o-1").traces[0].removed == ()
    assert db.follow(visit(db, "o-1"), "order").state == "here"


# --- many at once ---


@pytest.mark.parametrize("lookups", [0, 1_000])
def test_many_cost_as_many_queries_as_few(opened, monkeypatch, lookups):
    monkeypatch.setattr("fieldsync.sqlite.reader.LOOKUPS_MAX", lookups)
    db = opened("a")
    for number in range(50):
        order(db, f"o-{number}", HERE if number % 2 else THERE)
    for number in range(0, 50, 5):
        change(db, "delete", Order, f"o-{number}")
    visits = [visit(db, f"o-{number}") for number in range(60)]

    def queries(some):
        counted = []
        with db.replica.store.reading() as reader:
            reader._db.exec_trace = lambda *_: counted.append(1) or True
        ways = db.follow_all(some, "order")
        with db.replica.store.reading() as reader:
            reader._db.exec_trace = None
        return ways, len(counted)

    (*_, few), (ways, many) = queries(visits[:12]), queries(visits)
    assert [way.key for way in ways] == [f"o-{number}" for number in range(60)]
    assert [way.state for way in ways] == [
        "unknown" if number >= 50 else "here" if number % 5 else "deleted" for number in range(60)
    ]
    assert many == few > 1
    assert db.follow_all([], "order") == []
    assert db.follow_all(iter(visits[:2] * 2), "order") == [*ways[:2]] * 2


def test_too_many_are_refused(db, monkeypatch):
    monkeypatch.setattr("fieldsync.references.FOLLOWED_MAX", 2)
    with pytest.raises(fs.LimitExceeded, match="up to 2 references"):
        db.follow_all([visit(db, "o")] * 3, "order")


# --- what is declared ---


def test_declarations_that_make_no_sense_are_refused():
    def declare(annotation, references):
        one = {"__annotations__": {"a": annotation}, "a": fs.field(references=references)}
        return type("Thing", (fs.Record,), one)

    for annotation in (int, set[str], fs.Text, list[str]):
        with pytest.raises(TypeError, match=r"things\.a: references= is for str: it holds the key of a record"):
            declare(annotation, Order)
    for references in (7, int, "", "_x", fs.Record):
        with pytest.raises(
            fs.SchemaError, match=r"things\.a: references= is a record class or the name of a collection"
        ):
            declare(str, references)


def test_what_refers_to_nothing_is_refused(db):
    one = visit(db, "o-1")
    order(db, "o-1")
    with pytest.raises(fs.SchemaError, match=r"orders\.status refers to no collection: .* pass of="):
        db.follow(db[Order].get("o-1"), "status")
    with pytest.raises(fs.SchemaError, match=r"visits\.order refers to orders, not to visits"):
        db.follow(one, "order", Visit)
    with pytest.raises(fs.SchemaError, match="no field 'ordr'; did you mean 'order'"):
        db.follow(one, "ordr")


# --- random histories ---

order_keys = st.sampled_from(["o-0", "o-1", "o-2"])
steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["create", "create", "delete", "move", "sync", "sync", "leave", "trim"]),
        order_keys,
        st.sampled_from([HERE, THERE]),
    ),
    max_size=25,
)


def play(db, hub, what, key, scope):
    """One step of a device, where it makes sense."""
    lives = [record.scope for record in db[Order].where(key=key)]
    if what == "sync":
        db.enter(HERE)
        db.sync(hub)
    elif what == "leave":
        if any(held.name == scope for held in db.scopes()):
            db.leave(scope, lose_pending=True)
    elif what == "trim":
        db.trim(older_than=timedelta(0), keep=0)
    elif what == "create" and scope not in lives:
        order(db, key, scope)
    elif what == "delete" and lives:
        change(db, "delete", Order, key, scope=lives[0])
    elif what == "move" and lives:
        change(db, "move", Order, key, scope=lives[0], to=scope)


def check(db):
    """Where references lead is what why says of their keys."""
    with db.write() as tx:
        made = [tx.create(Visit, scope=scope, order=f"o-{n}").key for scope in (HERE, "job/9") for n in range(4)]
    visits = [db[Visit].get(key) for key in made]
    ways = db.follow_all(visits, "order")
    assert ways == [db.follow(one, "order") for one in visits]
    for one, way in zip(visits, ways, strict=True):
        why = db.why(Order, way.key)
        lives = [trace.scope for trace in why.traces if trace.is_here]
        gone = [trace for trace in why.traces if trace.removed or trace.dropped or trace.moved]
        assert bool(way) == (len(lives) == 1 or one.scope in lives)
        assert (way.state == "ambiguous") == (len(lives) > 1 and one.scope not in lives)
        assert (way.state in ("deleted", "moved")) == (not lives and bool(gone))
        assert (way.state == "filling") == (not lives and not gone and bool(why.filling))
        if way.state == "moved":
            assert way.scopes[0] in {trace.moved for trace in gone}
        if way.deed:
            assert way.deed in [deed for trace in gone if trace.scope in way.scopes for deed in trace.removed]


@settings(max_examples=30)
@given(steps)
def test_where_references_lead_is_what_why_says(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("references")
    hub = fs.open(folder / "hub.db", Order, Visit, hub=True, durability="fast")
    devices = [hub, *(fs.open(folder / f"{name}.db", Order, Visit, durability="fast") for name in "ab")]
    try:
        for device, *step in steps:
            play(devices[device], hub, *step)
        for device in devices:
            check(device)
    finally:
        for device in devices:
            device.close()
