"""Elements that are taken out of sets, and fields that are erased, of records that were moved meanwhile."""

import pytest
from tests.talking import meet, met, open_three

import fieldsync as fs
from fieldsync import thinning
from fieldsync.errors import Corrupt

WEST, EAST, NORTH = "west", "east", "north"


class Customer(fs.Record, table="customers"):
    name: str = ""
    phone: str = ""
    visits: fs.Counter = 0
    tags: set[str]
    notes: fs.Text
    steps: fs.List


@pytest.fixture
def fleet(tmp_path):
    """A hub and two devices that hold three scopes, and one record, some of which was edited since it was created."""
    hub, *devices = open_three(tmp_path, Customer)
    with hub.write() as tx:
        tx.create(
            Customer, scope=WEST, key="c", name="Acme", phone="1", visits=1, tags={"x", "y"}, notes="The", steps=[1]
        )
    with hub.write() as tx:
        customer = tx.get(Customer, "c")
        customer.phone = "2"
        customer.visits += 1
        customer.tags.add("z")
        customer.notes += " pump"
    for device in devices:
        device.enter(EAST, NORTH)
    yield from met(hub, devices, WEST)


def move(hub, device, *scopes):
    for scope in scopes:
        with device.write() as tx:
            tx.move(Customer, "c", to=scope)
        device.sync(hub)


def edit(device, **values):
    with device.write() as tx:
        tx.update(Customer, "c", **values)


def discard(device, *elements):
    with device.write() as tx:
        tx.get(Customer, "c").tags -= set(elements)


def erase(device, *names):
    with device.write() as tx:
        for name in names:
            tx.erase(Customer, "c", name)


def read(*fleet):
    """What all of them read."""
    meet(*fleet)
    customers = [database[Customer]["c"] for database in fleet]
    assert customers[1:] == customers[:-1]
    assert [database.late_edits() for database in fleet] == [[]] * len(fleet)
    return customers[0]


@pytest.mark.parametrize("scopes", [[EAST], [EAST, NORTH], [EAST, NORTH, EAST]])
def test_elements_that_are_taken_out_too_late_are_taken_out_where_the_record_lives(fleet, scopes):
    hub, a, b = fleet
    discard(b, "x", "z")  # one was there from the first, one came later
    move(hub, a, *scopes)
    customer = read(*fleet)
    assert (customer.scope, customer.tags) == (scopes[-1], {"y"})


@pytest.mark.parametrize("scopes", [[EAST], [EAST, NORTH]])
@pytest.mark.parametrize(
    ("name", "nothing"), [("name", ""), ("phone", ""), ("visits", 0), ("tags", set()), ("notes", ""), ("steps", [])]
)
def test_fields_that_are_erased_too_late_are_erased_where_the_record_lives(fleet, name, nothing, scopes):
    hub, a, b = fleet
    before = a[Customer]["c"].as_dict()
    erase(b, name)
    move(hub, a, *scopes)
    assert read(*fleet).as_dict() == before | {"scope": scopes[-1], name: nothing}


def test_what_was_written_since_stays(fleet):
    hub, a, b = fleet
    discard(b, "x", "y")
    erase(b, "phone", "name")
    move(hub, a, EAST)
    discard(a, "x")
    edit(a, phone="3", tags={"x", "y", "z"})
    a.sync(hub)
    customer = read(*fleet)
    assert (customer.phone, customer.name, customer.tags) == ("3", "", {"x", "z"})


def test_what_was_written_between_two_moves_stays(fleet):
    hub, a, b = fleet
    erase(b, "phone", "name")
    move(hub, a, EAST)
    edit(a, phone="3")
    move(hub, a, NORTH)
    assert (read(*fleet).phone, read(*fleet).name) == ("3", "")


def test_what_was_written_apart_before_the_move_stays(fleet):
    hub, a, b = fleet
    discard(b, "x")
    erase(b, "phone")
    discard(a, "x")
    edit(a, phone="3", tags={"x", "y", "z"})  # b takes out what it has seen, which is not this
    move(hub, a, EAST)
    assert (read(*fleet).phone, read(*fleet).tags) == ("3", {"x", "y", "z"})


def test_a_text_that_was_edited_where_it_came_to_stays(fleet):
    """What was written there builds on what moved, and could not be read without it."""
    hub, a, b = fleet
    erase(b, "notes")
    move(hub, a, EAST)
    with a.write() as tx:
        tx.get(Customer, "c").notes += " leaks"
    a.sync(hub)
    assert read(*fleet).notes == "The pump leaks"


def test_what_was_seen_of_one_of_two_records_that_became_one_stays(fleet, tmp_path):
    """Both had the element; who takes it out has seen one of them."""
    hub, a, b = fleet
    for device in (a, b):
        with device.write() as tx:
            tx.create(Customer, scope=WEST, key="twice", tags={"x", "y"})
    b.export(tmp_path / "from-b", WEST)  # who hears nothing meanwhile
    hub.import_bundle(tmp_path / "from-b")
    with b.write() as tx:
        tx.get(Customer, "twice").tags.discard("x")
    a.sync(hub)
    with a.write() as tx:
        tx.move(Customer, "twice", to=EAST)
    a.sync(hub)
    meet(*fleet)
    assert [database[Customer]["twice"].tags for database in fleet] == [{"x", "y"}] * 3
    assert hub[Customer]["twice"].scope == EAST


def test_what_comes_and_goes_elsewhere_never_was(fleet):
    hub, a, b = fleet
    edit(b, tags={"x", "y", "z", "new"})
    discard(b, "new", "y")
    move(hub, a, EAST)
    assert read(*fleet).tags == {"x", "z"}


def test_who_dismisses_a_late_edit_takes_nothing_out_of_the_record(fleet):
    """He has seen more than what moved: that what he dismisses had replaced it where it came."""
    hub, a, b = fleet
    edit(b, phone="late")
    move(hub, a, EAST)
    a.sync(b)
    (late,) = a.late_edits()
    assert late.values["phone"].value == "late"
    with a.write() as tx:
        tx.dismiss(late)
    a.sync(hub)
    assert read(*fleet).phone == "2"


def test_what_the_hub_has_forgotten_is_not_followed(fleet):
    hub, a, b = fleet
    discard(b, "x")
    move(hub, a, EAST)
    hub.replica.trim([WEST], before_ms=1 << 62)
    assert read(*fleet).tags == {"x", "y", "z"}


def test_who_removes_the_record_too_counts(fleet):
    hub, a, b = fleet
    discard(b, "x")
    with b.write() as tx:
        tx.delete(Customer, "c")
    move(hub, a, EAST)
    meet(*fleet)
    assert [database[Customer].get("c") for database in fleet] == [None] * 3


def test_a_damaged_removal_is_corrupt(fleet):
    with fleet[0].replica.store.reading() as reader:
        for item in (b"\0", b"\0\x01", b"\0\x01\x7f\0\0", b"\0\x01\x80"):
            with pytest.raises(Corrupt):
                thinning.named(reader.dictionary, item)
