"""What the demo is told with: real flights where they are installed, else generated work orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldsync.progress import load_table
from fieldsync.samples import field_service_records, find_flights
from fieldsync.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fieldsync.database import Database

GENERATED_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Story:
    """The data a demo is told with."""

    title: str
    collection: str
    load: Callable[[Database], Any]
    scopes: dict[str, list[str]]  # device -> its scopes; the first one of ada and ben is the same
    notes: tuple[str, str]  # two fields that devices edit
    is_generated: bool


def choose(rows: int | None, seed: int) -> Story:
    """The story for this machine. rows: at most so many, all if None; seed: of what is generated."""
    path = find_flights()
    return _flights(path, rows) if path else _field_service(rows, seed)


def _flights(path: Path, rows: int | None) -> Story:
    def load(hub: Database) -> Any:
        key = "{time_hour}/{carrier}/{flight}/{origin}"
        return load_table(hub, open_table(path), "flights", key=key, scope="{origin}/{carrier}", rows_max=rows)

    scopes = {"ada": ["JFK/DL", "LGA/DL"], "ben": ["JFK/DL"], "cho": ["EWR/UA"]}
    title = "all flights that left New York in 2013" if rows is None else f"{rows:,} flights that left New York in 2013"
    return Story(title, "flights", load, scopes, ("remark", "tailnum"), is_generated=False)


def _field_service(rows: int | None, seed: int) -> Story:
    def load(hub: Database) -> Any:
        rows_of = field_service_records(rows or GENERATED_ROWS, seed)
        return hub.load("orders", rows_of, key="id", scope="territory/{territory}", progress=True)

    some = sorted({f"territory/{row['territory']}" for row in field_service_records(2000, seed)})
    scopes = {"ada": [some[0], some[1]], "ben": [some[0]], "cho": [some[2]]}
    return Story(
        f"work orders, generated from seed {seed}", "orders", load, scopes, ("notes", "status"), is_generated=True
    )
