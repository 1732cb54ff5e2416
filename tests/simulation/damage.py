"""Damage to a file's rows, of every kind that a repair mends, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.model import Dot
    from tests.simulation.cells import Held

Place = tuple[int, ...]

ALL_RECORDS = "SELECT id FROM fs_collection ORDER BY id"
DECLARED = "SELECT id FROM fs_collection WHERE columns LIKE '%\"status\"%'"
REMOVALS = "SELECT scope, inc_author, inc_seq, inc_n, author, seq FROM fs_removal"
ONE_REMOVAL = "scope={} AND inc_author={} AND inc_seq={} AND inc_n={} AND author={} AND seq={}"
CHANGES = "SELECT scope, author, seq, seq FROM fs_change"
ONE_CHANGE = "scope={} AND author={} AND seq={}"
INTERVALS = "SELECT scope, author, low, high FROM fs_context"
OTHER_FIRST_BYTE = "CAST(iif(substr({0}, 1, 1)=x'ff', x'00', x'ff')||substr({0}, 2) AS BLOB)"
KINDS = {  # kind -> (how often, where there may be any, what is done to one)
    "record": (6, ALL_RECORDS, "UPDATE fs_record_{} SET _cells=" + OTHER_FIRST_BYTE.format("_cells") + " WHERE _id={}"),
    "record row": (3, ALL_RECORDS, "DELETE FROM fs_record_{} WHERE _id={}"),
    "column": (1, DECLARED, "UPDATE fs_record_{} SET status='damaged' WHERE _id={}"),
    "orphan": (1, "SELECT id FROM fs_orphan", "UPDATE fs_orphan SET cells=x'ff' WHERE id={}"),
    "removal": (2, REMOVALS, "UPDATE fs_removal SET item=" + OTHER_FIRST_BYTE.format("item") + " WHERE " + ONE_REMOVAL),
    "removal row": (1, REMOVALS, "DELETE FROM fs_removal WHERE " + ONE_REMOVAL),
    "change": (1, CHANGES, "UPDATE fs_change SET entries=x'ff' WHERE " + ONE_CHANGE),
    "change row": (1, CHANGES, "DELETE FROM fs_change WHERE " + ONE_CHANGE),
    "context": (2, INTERVALS, "DELETE FROM fs_context WHERE scope={} AND author={} AND low={}"),
    "digest": (1, "SELECT id FROM fs_scope", "UPDATE fs_scope SET digest=CAST('not sum of cells' AS BLOB) WHERE id={}"),
}
ALONE = ["column", "change", "change row"]  # with other damage nobody could tell which cells are wrong, or were there


@dataclass
class Damage:
    """What was done to a file."""

    said: list[str] = field(default_factory=list)
    places: set[tuple[int, int]] = field(default_factory=set)  # (collection, row) whose cells go; 0 of orphans
    is_of_digest: bool = False
    is_flip: bool = False
    reads_as: set[Dot] = field(default_factory=set)  # changes that what was flipped names now
    dots: list[tuple[str, bytes, int, int]] = field(default_factory=list)  # (scope, author, from, to) that may go

    def hits(self, row: Held) -> bool:
        """Whether a row's cells go."""
        return row.place in self.places

    def covers(self, scope: str, dot: Dot) -> bool:
        """Whether a change may go, whatever is here of it."""
        return any((scope, dot[0]) == (name, author) and low <= dot[1] <= high for name, author, low, high in self.dots)


def harm(path: Path, chance: random.Random) -> Damage:
    """Do some damage to a file."""
    done = Damage()
    weights = [often for often, *_ in KINDS.values()]
    harmed: set[Place] = set()  # what is damaged twice may read well again, and say something else
    with apsw.Connection(str(path)) as file:
        kinds = chance.choices(list(KINDS), weights, k=chance.choice([1, 1, 1, 2, 3]))
        for kind in ALONE:
            kinds = [kind] if kind in kinds else kinds
        for kind in kinds:
            _, where, statement = KINDS[kind]
            if places := [place for place in _places(file, where) if place not in harmed]:
                place = chance.choice(places)
                harmed.add(place)
                file.execute(statement.format(*place)).fetchall()
                done.said.append(f"{kind} {place}")
                _note(file, kind, place, done)
    file.close()
    return done


def flip(path: Path, chance: random.Random) -> tuple[Damage, Callable[[], None]]:
    """Flip one bit of one record; also gives what flips it back."""
    done = Damage(is_flip=True)
    with apsw.Connection(str(path)) as file:
        places = _places(file, ALL_RECORDS)
        collection, number = chance.choice(places) if places else (0, 0)
        sql = f"SELECT _cells FROM fs_record_{collection} WHERE _id={number}"
        cells = file.execute(sql).get if places else b"\0"
        flipped = bytearray(cells)
        bit = chance.randrange(8 * len(cells))
        flipped[bit // 8] ^= 1 << bit % 8
        if places:
            _set(file, collection, number, bytes(flipped))
            _note(file, "record", (collection, number), done)
            done.said.append(f"bit {bit} of {collection, number}")
    file.close()

    def back() -> None:
        with apsw.Connection(str(path)) as file:
            _set(file, collection, number, cells)
        file.close()

    return done, back


def _set(file: apsw.Connection, collection: int, number: int, cells: bytes) -> None:
    file.execute(f"UPDATE fs_record_{collection} SET _cells=? WHERE _id=?", (cells, number)).fetchall()


def _places(file: apsw.Connection, where: str) -> list[Place]:
    found: list[Any] = file.execute(where).fetchall()
    if "FROM fs_collection" not in where:
        return found
    return [
        (collection, number)
        for (collection,) in found
        for (number,) in file.execute(f"SELECT _id FROM fs_record_{collection} ORDER BY _id")
    ]


def _note(file: apsw.Connection, kind: str, place: Place, done: Damage) -> None:
    done.is_of_digest |= kind == "digest"
    if kind in ("record", "record row"):
        done.places.add((place[0], place[1]))
    elif kind == "orphan":
        done.places.add((0, place[0]))
    elif len(place) > 1 and kind != "column":
        scope, *_, author, low, high = place if len(place) == 4 else (*place, place[-1])
        names: Any = file.execute("SELECT name FROM fs_scope WHERE id=?", (scope,)).get
        done.dots.append((names, file.execute("SELECT name FROM fs_author WHERE id=?", (author,)).get, low, high))
