"""Sets, and registers that keep all that was written apart: through the public face, over syncs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.talking import meet, met, open_three

import fieldsync as fs
from fieldsync.errors import SchemaError
from fieldsync.sqlite import reader

SCOPE = "job/7"


class Customer(fs.Record, table="customers"):
    name: str = ""
    tags: set[str]
    phones: tuple[str, ...] = fs.field(keep="all")


@pytest.fixture
def fleet(tmp_path):
    """A hub and two devices that hold one record."""
    hub, *devices = open_three(tmp_path, Customer)
    with hub.write() as tx:
        tx.create(Customer, scope=SCOPE, key="c", tags={"old", "vip"}, phones="1")
    yield from met(hub, devices, SCOPE)


def get(database):
    return database[Customer].get("c")


def edit(database, **values):
    with database.write() as tx:
        tx.update(Customer, "c", **values)


def test_a_set_is_read_frozen_and_written_as_a_set(fleet):
    hub, *_ = fleet
    assert get(hub).tags == frozenset({"old", "vip"})
    with pytest.raises(AttributeError):
        get(hub).tags.add("x")
    with hub.write() as tx:
        customer = tx.get(Customer, "c")
        customer.tags.add("new")
        customer.tags |= {"more"}
        customer.tags.discard("old")
        assert "new" in customer.tags
        assert customer.tags == {"new", "more", "vip"}
    assert get(hub).tags == {"new", "more", "vip"}
    edit(hub, tags=["only"])
    assert get(hub).tags == {"only"}
    edit(hub, tags=set())
    assert get(hub).tags == frozenset()


def test_elements_added_and_removed_apart_all_count(fleet):
    hub, a, b = fleet
    with a.write() as tx:
        tx.get(Customer, "c").tags.add("from a")
    with b.write() as tx:
        customer = tx.get(Customer, "c")
        customer.tags -= {"old"}
        customer.tags.add("from b")
    meet(hub, a, b)
    assert get(hub).tags == get(a).tags == get(b).tags == {"vip", "from a", "from b"}
    assert hub.conflicts() == []


@pytest.mark.parametrize("points", [0, 3, 100])
def test_what_goes_from_many_sets_at_once_goes_everywhere(fleet, monkeypatch, points):
    monkeypatch.setattr(reader, "POINTS_MAX", points)  # runs of records longer than that are read as ranges
    hub, a, b = fleet
    keys = [f"c-{number:02}" for number in range(20)]
    with hub.write() as tx:
        for key in keys:
            tx.create(Customer, scope=SCOPE, key=key, tags={"old", "vip", "west"})
    meet(hub, a, b)
    some = [*keys[0:1], *keys[2:4], *keys[5:9], *keys[12:]]  # runs of one, two, four and eight
    gone = {"old": some, "vip": keys, "west": some[3:]}
    for tag, held in gone.items():
        with a.write() as tx:
            for key in held:
                tx.get(Customer, key).tags.discard(tag)
    meet(hub, a, b)
    for database in (hub, a, b):
        for key in keys:
            assert database[Customer][key].tags == {tag for tag, held in gone.items() if key not in held}


def test_add_wins_over_a_concurrent_remove(fleet):
    hub, a, b = fleet
    edit(a, tags={"vip"})
    with b.write() as tx:
        tags = tx.get(Customer, "c").tags
        tags.remove("old")
    with b.write() as tx:
        tx.get(Customer, "c").tags.add("old")
    meet(hub, a, b)
    assert get(hub).tags == get(a).tags == get(b).tags == {"vip", "old"}


def test_sets_are_queried_by_their_elements(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        tx.create(Customer, scope=SCOPE, key="d", tags={"vip"})
        tx.create(Customer, scope=SCOPE, key="e")
    assert {one.key for one in hub[Customer].where(tags__contains="vip")} == {"c", "d"}
    assert hub[Customer].where(tags__contains="vi").count() == 0
    assert hub[Customer].where(tags__contains="old").count() == 1
    sql = "SELECT c.key FROM customers c, json_each(c.tags) t WHERE t.value='vip' ORDER BY 1"
    assert hub.sql(sql) == [("c",), ("d",)]
    assert hub.sql("SELECT tags FROM customers WHERE key='e'") == [("[]",)]


@pytest.mark.parametrize("columns", ["own", "another's"])
def test_sets_are_compared_as_wholes(fleet, columns):
    """By their columns, and by records where the columns are another version's."""
    hub, *_ = fleet

    class Other(fs.Record, table="customers"):
        tags: set[str]
        name: int = fs.field(default=0, converts=str)

    def found(**conditions):
        return [one.key for one in hub[Customer].where(**conditions)]

    with hub.write() as tx:
        tx.create(Customer, scope=SCOPE, key="d", tags={"vip"})
        tx.create(Customer, scope=SCOPE, key="e")
    if columns == "another's":
        fs.open(hub.path, Other, durability="fast").close()
    assert found(tags={"vip", "old"}) == found(tags=["old", "vip"]) == ["c"]
    assert found(tags=set()) == ["e"]
    assert found(tags__ne={"vip"}) == ["c", "e"]
    assert found(tags__in=[{"vip"}, frozenset()]) == ["d", "e"]
    for wrong in ({"tags": "vip"}, {"tags__in": ["vip"]}, {"tags__ne": 5}, {"tags": {5}}):
        with pytest.raises(TypeError, match=r"customers.tags.*tags__contains asks for an element"):
            found(**wrong)


def test_an_app_that_declares_nothing_reads_a_set_and_asks_for_its_elements(fleet, tmp_path):
    hub, *_ = fleet
    with fs.open(tmp_path / "plain.db", durability="fast") as plain:
        plain.enter(SCOPE)
        plain.sync(hub)
        (customer,) = plain["customers"].where(tags__contains="vip").all()
        assert customer.tags == ("old", "vip")
        assert not plain["customers"].where(tags__contains="new").all()


@pytest.mark.parametrize(
    ("value", "message"), [("old", "wants a set, got str"), ([1], r"\[...\] wants str"), (5, "wants a set, got int")]
)
def test_what_is_no_set_of_the_type_is_refused(fleet, value, message):
    hub, *_ = fleet
    with pytest.raises(TypeError, match=f"customers.tags {message}" if "wants a" in message else message):
        edit(hub, tags=value)
    with hub.write() as tx:
        tx.get(Customer, "c").tags.add("fine")
    with pytest.raises(TypeError, match=r"customers\.tags"), hub.write() as tx:
        tx.get(Customer, "c").tags.add(7)
    assert get(hub).tags == {"old", "vip", "fine"}


def test_any_elements_but_containers_may_be_in_a_set_of_any(tmp_path):
    class Thing(fs.Record):
        marks: set

    with fs.open(tmp_path / "t.db", Thing, durability="fast") as db:
        with db.write() as tx:
            tx.create(Thing, scope=SCOPE, key="t", marks={1, "1", b"1", None, 2.5})
        assert db[Thing].get("t").marks == {1, "1", b"1", None, 2.5}
        with pytest.raises(TypeError, match="can be in a set"), db.write() as tx:
            tx.update(Thing, "t", marks=[[1]])


def test_a_bulk_load_sets_sets_to_what_it_is_given(fleet):
    hub, a, _ = fleet
    rows = [{"key": "c", "tags": ["vip", "new"]}, {"key": "d", "tags": {"x"}}, {"key": "e"}]
    assert hub.load(Customer, rows, key="key", scope=lambda _: SCOPE).rejected == []
    meet(hub, a)
    assert {one.key: one.tags for one in a[Customer]} == {"c": {"vip", "new"}, "d": {"x"}, "e": frozenset()}
    assert hub.load(Customer, rows, key="key", scope=lambda _: SCOPE).unchanged == 3


def test_a_set_survives_the_trash_a_move_and_a_delete(fleet):
    hub, a, b = fleet
    with hub.write() as tx:
        tx.move(Customer, "c", to="job/8")
    a.enter("job/8")
    meet(hub, a, b)
    assert get(a).tags == {"old", "vip"}
    assert get(b) is None


def test_a_register_that_keeps_all_shows_all_until_one_is_set(fleet):
    hub, a, b = fleet
    assert get(hub).phones == ("1",)
    edit(a, phones="2")
    edit(b, phones=("3",))
    meet(hub, a, b)
    assert get(hub).phones == get(a).phones == get(b).phones
    assert set(get(hub).phones) == {"2", "3"}
    assert hub.sql("SELECT phones FROM customers") == [(get(hub).phones[0],)]
    with pytest.raises(TypeError, match="wants one value, got 2"):
        edit(a, phones=get(a).phones)
    edit(a, name="another field settles nothing")
    assert len(get(a).phones) == 2
    with a.write() as tx:
        customer = tx.get(Customer, "c")
        customer.phones = "3"
        assert customer.phones == ("3",)
    meet(hub, a, b)
    assert get(hub).phones == get(b).phones == ("3",)


def test_a_register_that_keeps_all_is_found_by_its_first_value_in_columns_and_without(fleet):
    hub, a, b = fleet
    edit(a, phones="2")
    edit(b, phones="3")
    meet(hub, a, b)
    first, second = get(hub).phones
    for value, count in ((first, 1), (second, 0)):
        query = hub[Customer].where(phones=value)
        assert query.count() == count
        assert len(query._plan.select([get(hub)])) == count


def test_a_register_that_keeps_all_may_be_empty(fleet):
    hub, *_ = fleet
    with hub.write() as tx:
        tx.create(Customer, scope=SCOPE, key="d")
    assert hub[Customer].get("d").phones == ()


def test_a_set_needs_no_default_and_takes_one(tmp_path):
    class Thing(fs.Record):
        marks: set[int] = fs.field(default=frozenset({1}))

    with fs.open(tmp_path / "t.db", Thing, durability="fast") as db:
        with db.write() as tx:
            tx.create(Thing, scope=SCOPE, key="t")
        assert db[Thing].get("t").marks == {1}
    with pytest.raises(SchemaError, match="is no type"):

        class Wrong(fs.Record):
            marks: set[complex]


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.booleans()), max_size=25)


@settings(deadline=None, max_examples=40)
@given(steps, st.integers(0, 10**6))
def test_a_fleets_sets_end_as_true_causality_says(tmp_path_factory, history, seed):
    """An element is there if an add of it was not seen by any remove; syncs happen at random between."""
    folder = tmp_path_factory.mktemp("sets")
    hub = fs.open(folder / "hub.db", Customer, hub=True, durability="fast")
    fleet = [hub, *(fs.open(folder / f"{i}.db", Customer, durability="fast") for i in (1, 2))]
    with hub.write() as tx:
        tx.create(Customer, scope=SCOPE, key="c")
    for device in fleet[1:]:
        device.enter(SCOPE)
        device.sync(hub)
    known = [set(), set(), set()]  # of each device: the adds it has heard of and nobody it heard removed: (element, id)
    gone = [set(), set(), set()]
    for number, (who, element, adds) in enumerate(history):
        with fleet[who].write() as tx:
            tags = tx.get(Customer, "c").tags
            here = {add for add in known[who] - gone[who] if add[0] == element}
            assert (element in tags) == bool(here)
            if adds and not here:
                tags.add(element)
                known[who].add((element, number))
            elif not adds:
                tags.discard(element)
                gone[who] |= here
        if (seed >> number % 20) & 1 and who:
            fleet[who].sync(hub)
            known[0] = known[who] = known[0] | known[who]
            gone[0] = gone[who] = gone[0] | gone[who]
            known[0], gone[0] = set(known[0]), set(gone[0])
    for device in fleet[1:] * 2:
        device.sync(hub)
    expected = {element for element, _ in set.union(*known) - set.union(*gone)}
    assert [get(database).tags for database in fleet] == [expected] * 3
    for database in fleet:
        database.close()
