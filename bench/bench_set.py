"""Adding elements to sets and taking them out: a register of tags, in documents a map whose keys are the elements."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bench import clock, data, peers
from bench.runner import Result

CONTENDERS = ("fieldsync", "pycrdt", "loro")
NOTES = {
    "per_s": "adds and removes a second, as many as records, 1,000 a transaction; a hundredth as many sets",
    "bytes": "of the file after that, checkpointed; of the documents encoded whole",
    "delta": "bringing another replica up to date, which had the empty sets: bytes, ms to make, ms to merge",
}
TARGETS = ()
OPERATIONS_A_SET = 100
TAGS = 50


class Operation(NamedTuple):
    """An element that comes into a set, or goes."""

    key: str
    element: str
    comes: bool


class Fieldsync(peers.Fieldsync):
    """Records with one set field."""

    def declared(self, **_: bool) -> Any:
        """The class of the records."""
        import fieldsync

        class Thing(fieldsync.Record, table="things"):
            tags: set[str]

        return Thing

    def change(self, operations: Iterable[Operation]) -> None:
        """Carry out operations in one transaction."""
        with self.db.write() as tx:
            for key, element, comes in operations:
                tags = tx.get(self.thing, key, scope=peers.SCOPE).tags
                (tags.add if comes else tags.discard)(element)

    def sets(self) -> dict[str, list[str]]:
        """The elements by key."""
        return {thing.key: sorted(thing.tags) for thing in self.read_all()}


class Pycrdt(peers.Pycrdt):
    """Maps whose keys are the elements."""

    def change(self, operations: Iterable[Operation]) -> None:
        """Carry out operations in one transaction."""
        with self.doc.transaction():
            for key, element, comes in operations:
                if comes:
                    self.things[key][element] = True
                else:
                    del self.things[key][element]

    def sets(self) -> dict[str, list[str]]:
        """The elements by key."""
        return {key: sorted(elements) for key, elements in self.read_all().items()}


class Loro(peers.Loro):
    """Maps whose keys are the elements."""

    def change(self, operations: Iterable[Operation]) -> None:
        """Carry out operations in one transaction."""
        for key, element, comes in operations:
            tags = self.things.get(key).container
            if comes:
                tags.insert(element, True)
            else:
                tags.delete(element)
        self.doc.commit()

    def sets(self) -> dict[str, list[str]]:
        """The elements by key."""
        return {key: sorted(elements) for key, elements in self.read_all().items()}


def measure(contender: str, count: int, folder: Path) -> Result:
    """Change the sets at one side, bring the other up to date."""
    keys = [key for key, _ in data.records(-(-count // OPERATIONS_A_SET))]
    operations, wanted = drawn(keys, count)
    peers.contender(contender)
    make = {"fieldsync": Fieldsync, "pycrdt": Pycrdt, "loro": Loro}[contender]
    places = [folder / "giver", folder / "taker"]
    for place in places:
        place.mkdir()
    data.set_aside()
    giver, taker = map(make, places)
    giver.build([(key, {}) for key in keys])
    giver.give(taker)
    began = clock.now()
    for first in range(0, count, peers.BATCH):
        giver.change(operations[first : first + peers.BATCH])
    figures: dict[str, float] = {"per_s": count / (clock.now() - began)}
    delta = giver.give(taker)
    figures |= {"delta_bytes": delta.size, "delta_ms": delta.make_s * 1e3, "apply_ms": delta.apply_s * 1e3}
    figures["bytes"] = giver.size()
    for peer in (giver, taker):
        assert peer.sets() == wanted, f"{contender} holds other elements than those it was given"
        peer.close()
    return Result(figures, hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest())


def drawn(keys: list[str], count: int) -> tuple[list[Operation], dict[str, list[str]]]:
    """So many operations on random sets, each of which changes one, and the elements at the end."""
    chance = Random(3)
    tags = [f"tag {number:02}" for number in range(TAGS)]
    held: dict[str, set[str]] = {key: set() for key in keys}
    operations = []
    for _ in range(count):
        key, element = chance.choice(keys), chance.choice(tags)
        operations.append(Operation(key, element, element not in held[key]))
        held[key] ^= {element}
    return operations, {key: sorted(elements) for key, elements in held.items()}


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "set", *sys.argv[1:]]))
