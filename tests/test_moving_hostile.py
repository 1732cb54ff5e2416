"""Moves asked for by devices that mean harm: wishes, counters and texts of any value and size."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests import canonical, model
from tests.movers import HOSTILE, TEXT, born, change, count, delete, ledger, move, only, put, seen, values
from tests.moves import KEY, NAME, Customer, edit, headless, held, inject
from tests.simulation import cells

from fieldsync import carrying, limits, transaction

VISITS = model.Address("visits", model.COUNTER)
WISH = model.Address("_scope", model.REGISTER)


def survives(fleet, *databases):
    """All land at the hub, a fresh device takes what the hub made of it, and all agree."""
    fleet.sync(*databases)
    fresh = fleet.open(f"fresh{len(fleet.databases)}", "x", "y", "z")
    fleet.sync(fresh, *databases)
    for scope in ("x", "y", "z"):
        assert fresh.compare(fleet.hub, scope).agree
    return fresh


@pytest.mark.parametrize(
    "wish",
    [None, True, 7, -1.5, Decimal(3), b"y", ["y"], {"y": "y"}, "", "y" * 257, "é" * 129, "x", "\x00", "y\x00z", "fs_x"],
)
def test_wishes_of_any_value(fleet, wish):
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann", visits=2)
    inject(one, "x", [(KEY, edit(only(one, "x"), (WISH, canonical.encode(wish))))])
    survives(fleet, one)
    ((scope, *rest),) = seen(fleet.hub)
    assert rest == ["Ann", 2]
    assert scope == (wish if wish in ("\x00", "y\x00z", "fs_x") else "x")
    one.why(Customer, KEY)


def test_wishes_that_are_no_registers(fleet):
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x")
    name = only(one, "x")
    for kind in (model.COUNTER, model.SET, model.BOUNDED, 0x49, 0x40, 0x43):
        sub = canonical.encode("y") if kind & model.HAS_SUB else b""
        inject(one, "x", [(KEY, edit(name, (model.Address("_scope", kind, sub), canonical.encode("y"))))])
    survives(fleet, one)
    assert seen(fleet.hub) == [("x", "", 0)]


NUMBERS = [
    2**62,
    2**63 - 1,
    -(2**63),
    1e308,
    -1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    Decimal("1E+100000"),
    Decimal("-1E+100000"),
    Decimal("1E-100000"),
    Decimal("9" * 1_200),
    "no number",
    None,
    True,
]


@pytest.mark.parametrize("before", NUMBERS, ids=lambda value: repr(value)[:12])
def test_counters_of_any_value_come_late(fleet, before):
    """Totals that move, or do not, and totals that come late for them, of several authors each."""
    (one,) = fleet.devices("x", "y", count=1)
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(len(NUMBERS))]
    for key in keys:
        put(one, "x", key)
    names = {key: next(iter(held(one, "x", key))) for key in keys}

    def write(seq, totals):
        for author, some in zip(HOSTILE, totals, strict=False):
            pieces = [
                (key, edit(names[key], (VISITS, canonical.encode(value))))
                for key, value in zip(keys, some, strict=True)
            ]
            inject(one, "x", pieces, dot=(author, seq))

    write(1, [[before] * len(keys), [1] * len(keys), NUMBERS[::-1]])
    one.sync(fleet.hub)
    with fleet.hub.write() as tx:
        for key in keys:
            tx.move(Customer, key, to="y")
    write(2, [NUMBERS, [before] * len(keys), [Decimal(1)] * len(keys), [before] * len(keys)])
    survives(fleet, one)
    assert {row.key for row in fleet.hub[Customer].all()} == set(keys)
    for row in fleet.hub[Customer].where(scope="y").all():
        for total in values(held(fleet.hub, "y", row.key), VISITS):
            assert type(total) in (int, float, Decimal)
            assert abs(total) >= 0  # no nan
            assert total not in (float("inf"), float("-inf"))


def test_a_late_total_that_would_pass_64_bits_stays_in_the_ledger(moved, fleet):
    """The hub's own total in the new scope is what was moved; adding to it must not fail for good."""
    hub, one, other = moved
    name = only(one, "x")
    most = 2**63 - 1 - 3
    inject(one, "x", [(KEY, edit(name, (VISITS, canonical.encode(most))))], dot=(HOSTILE[0], 1))
    fleet.sync(one)
    assert seen(hub) == [("y", "Ann", 2**63 - 1)]
    inject(other, "x", [(KEY, edit(name, (VISITS, canonical.encode(10))))], dot=(HOSTILE[1], 1))
    survives(fleet, other)
    assert seen(hub) == [("y", "Ann", 2**63 - 1)]
    assert values(headless(hub, "x"), VISITS) == [10]


@pytest.mark.parametrize("updates", [5, 6])
@pytest.mark.parametrize("late", [False, True])
def test_a_text_of_too_many_updates(fleet, updates, late, monkeypatch):
    """Each takes a change of its own: of too many the record stays where it is, or what came in the ledger."""
    monkeypatch.setattr(carrying, "MOVED_UPDATES_MAX", 5)
    (one,) = fleet.devices("x", "y", count=1)
    put(one, "x", name="Ann")
    fleet.sync(one)
    if late:
        move(fleet.hub, "y")
    write_updates(one, updates)
    if not late:
        move(one, "y")
    survives(fleet, one)
    few = updates == 5
    assert [scope for scope, *_ in seen(fleet.hub)] == ["y" if few or late else "x"]
    assert len(model.cells_at(held(fleet.hub, "y"), *TEXT[:2])) == (updates if few else 0)
    assert len(model.cells_at(headless(fleet.hub, "x"), *TEXT[:2])) == (updates if late and not few else 0)


def test_a_text_of_very_many_updates_comes_late(moved, fleet):
    """A chunk of them at a time."""
    hub, one, _ = moved
    fleet.is_small = False
    write_updates(one, 2_500)
    survives(fleet, one)
    assert len(model.cells_at(held(hub, "y"), *TEXT[:2])) == 2_500
    assert not headless(hub, "x")


def write_updates(database, count):
    """To a text, each in a change of its own."""
    name = only(database, "x")
    inject(database, "x", [(KEY, one_update(name, number)) for number in range(1, count + 1)])


def one_update(name, number):
    cell = TEXT, canonical.encode(b"%d" % number)
    return lambda stamp: edit(name, cell)(stamp._replace(author=HOSTILE[1], seq=number))


def test_removals_that_are_larger_than_what_they_remove(fleet):
    """A removal names dots, of which a record holds each but once: what fits a change may not fit its removal."""
    one = fleet.open("one", "x", "y")
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(1_000)]
    with one.write() as tx:
        for key in keys:
            tx.create(Customer, key=key, scope="x")
    with one.replica.store.reading() as reader:
        rows = cells.held(reader, reader.scope("x").id)
    flags = [(model.Address(f"f{number}", model.REGISTER), canonical.encode(1)) for number in range(120)]
    wish = (WISH, canonical.encode("y"))
    pieces = [(row.key, edit(next(iter(row.record)), wish, *flags)) for row in rows]
    inject(one, "x", pieces, dot=(HOSTILE[0], 2**62))
    survives(fleet, one)
    assert fleet.hub[Customer].where(scope="y").count() == 1_000


@pytest.mark.parametrize("size", [300_000, 700_000, 1_040_000])
@pytest.mark.parametrize("late", [False, True])
def test_records_of_up_to_a_mebibyte(moved, fleet, size, late):
    """What is beyond half of what a change may have is not carried."""
    hub, one, _ = moved
    if not late:
        fleet.sync(one)
        move(one, "x")
    change(one, name="n" * size)
    count(one, 1)
    survives(fleet, one)
    fits = size < limits.CHANGE_BYTES_MAX // 2
    assert [(scope, len(name), visits) for scope, name, visits in seen(hub)] == [
        ("x" if not late and fits else "y", size if fits or not late else 3, 4 if fits or not late else 3)
    ]


def test_a_key_in_more_incarnations_than_a_change_may_touch(moved, fleet, monkeypatch):
    """It does not move; what comes late for one of them follows, and a late removal takes just that one away."""
    monkeypatch.setattr(transaction, "CHANGE_INCARNATIONS_MAX", 50)
    hub, one, other = moved
    count(one, 5)
    delete(other)
    inject(one, "y", [(KEY, born(number)) for number in range(1, 51)])
    inject(one, "y", [(KEY, edit(model.Name(HOSTILE[0], 7, 0), (WISH, canonical.encode("z"))))])
    one.sync(hub)
    assert len(held(hub, "y")) == 51
    assert seen(hub) == [("y", "Ann", 8)]
    survives(fleet, other)
    assert len(held(hub, "y")) == 50


def test_a_hub_remembers_only_so_much_of_what_came_late(moved, fleet, monkeypatch):
    """Of a record that very many write to apart, late; nothing else is worse for that."""
    monkeypatch.setattr(carrying, "MOVED_BYTES_MAX", 150)
    hub, one, _ = moved
    name, late = only(one, "x"), [f"late {number}" for number in range(20)]
    for number, value in enumerate(late):
        inject(one, "x", [(KEY, edit(name, (NAME, canonical.encode(value))))], dot=(bytes([80 + number]) * 8, 1))
        one.sync(hub)
        with hub.replica.store.reading() as reader:
            assert all(len(edited) <= 150 for (edited,) in reader._db.execute("SELECT edited FROM fs_forward"))
    survives(fleet, one)
    assert sorted(ledger(hub)[0]) == sorted(late)


def test_late_edits_for_what_was_never_moved_or_never_was(moved, fleet):
    hub, one, _ = moved
    names = [model.Name(author, seq, n) for author in HOSTILE for seq in (1, 7, 2**62) for n in (0, 9_999)]
    for number, name in enumerate(names):
        inject(one, "x", [(f"k-{number}", edit(name, (NAME, canonical.encode("?"))))])
    survives(fleet, one)
    assert seen(hub) == [("y", "Ann", 3)]
    assert len(headless(hub, "x")) == len(names)


def test_very_many_late_edits_in_one_session(fleet):
    """A change of them at a time, not one each."""
    (one,) = fleet.devices("x", "y", count=1)
    fleet.is_small = False
    keys = [f"c-{number:05}" for number in range(5_000)]
    one.load(Customer, [{"key": key, "name": "Ann", "visits": 1} for key in keys], key="key", scope=lambda row: "x")
    fleet.sync(one)
    for start in range(0, len(keys), 1_000):
        with fleet.hub.write() as tx:
            for key in keys[start : start + 1_000]:
                tx.move(Customer, key, to="y")
        with one.write() as tx:
            for key in keys[start : start + 1_000]:
                row = tx.get(Customer, key)
                row.name, row.visits = "late", row.visits + 1
    before = changes_of(fleet.hub, "y")
    survives(fleet, one)
    assert {(row.scope, row.name, row.visits) for row in fleet.hub[Customer].all()} == {("y", "late", 2)}
    assert changes_of(fleet.hub, "y") - before <= 20


def changes_of(database, scope):
    with database.replica.store.reading() as reader:
        return reader.context(reader.scope(scope).id).count()


def test_wishes_in_a_circle_of_many_scopes(fleet):
    """Each brings the record one scope on, in one transaction; with the last they are used up."""
    (one,) = fleet.devices(*(f"s{number}" for number in range(40)), count=1)
    for number in range(40):
        put(one, f"s{number}", name=f"{number}", visits=1)
    fleet.hub.replica.owns = lambda _: False
    for number in range(40):
        move(one, f"s{(number + 1) % 40}", scope=f"s{number}")
    one.sync(fleet.hub)
    fleet.hub.replica.owns = lambda _: True
    for number in range(40):
        change(fleet.hub, scope=f"s{number}", name="x") if fleet.hub[Customer].get(KEY, scope=f"s{number}") else None
    assert sum(visits for *_, visits in seen(fleet.hub)) == 40
    survives(fleet, one)
    assert sum(visits for *_, visits in seen(one)) == 40


def test_late_wishes_back_and_forth_end(moved, fleet):
    """Two devices that each wish it back where they are, for ever, move it once a wish."""
    hub, one, other = moved
    for number in range(8):
        device, to = ((one, "x"), (other, "y"))[number % 2]
        if device[Customer].get(KEY):
            move(device, to, scope=device[Customer].get(KEY).scope)
        fleet.sync(device)
    assert len(seen(hub)) == 1
    fleet.sync(one, other)
    assert seen(one) == seen(other) == seen(hub)


TENS = [Decimal("1E+1200"), Decimal(1)]  # a few bytes each, and hundreds as a sum or a difference


@pytest.mark.parametrize("late", [False, True])
def test_sums_that_are_larger_than_what_they_sum_up(fleet, late):
    """A few bytes of totals may make a change that no taker takes."""
    one = fleet.open("one", "x", "y")
    fleet.is_small = False
    keys = [f"c-{number}" for number in range(30)]
    for key in keys:
        put(one, "x", key, visits=1)
    with one.replica.store.reading() as reader:
        names = {row.key: next(iter(row.record)) for row in cells.held(reader, reader.scope("x").id)}
    counters = [model.Address(f"n{number}", model.COUNTER) for number in range(200)]

    def write(author, seq, total):
        some = [(address, canonical.encode(total)) for address in counters]
        inject(one, "x", [(key, edit(names[key], *some)) for key in keys], dot=(author, seq))

    write(HOSTILE[0], 1, TENS[0])
    if not late:
        write(HOSTILE[1], 1, TENS[1])
    one.sync(fleet.hub)
    with fleet.hub.write() as tx:
        for key in keys:
            tx.move(Customer, key, to="y")
    if late:
        write(HOSTILE[0], 2, TENS[1])
    survives(fleet, one)
    assert fleet.hub[Customer].where(scope="y").count() == len(keys)
    total = TENS[1] if late else sum(TENS)
    assert sum(values(held(fleet.hub, "y", keys[0]), counters[0])) == total
