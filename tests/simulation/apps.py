"""What apps do: they write, wish records elsewhere, and see to conflicts, late edits and the trash."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.simulation.inner import Op
from tests.simulation.stage import Stage

from fieldsync.trash import TrashEntry

if TYPE_CHECKING:
    from tests.simulation.device import Device

SCOPES = ["job/1", "job/2", "job/3"]
EDITS = [  # of sets, texts, lists and maps
    ("tags", "add"),
    ("tags", "discard"),
    *[("notes", "insert")] * 3,
    ("notes", "drop"),
    *[("steps", "append")] * 2,
    ("steps", "drop"),
    *[("facts", "put")] * 2,
    ("facts", "drop"),
]
REMADE = {"status", "price", "phones", "text", "state", "hours", "tags"}  # of which a new record begins with all
OUTER = ["create", *["update"] * 5, "delete", "replace"]
INNER = ["tag", "tag", "untag", "write", "write", "compact", "later", "dismiss"]


class Apps(Stage):
    """Actions of people."""

    scopes: list[str]
    keys: list[str]

    def values(self, device: Device, op: Op) -> Op:
        """Chance values for an op, of types that every version of the app knows."""
        names = ["status", "price", "phones"] if op.collection == "orders" else ["text", "state"]
        declared = device.database._collections.get(op.collection)
        if declared is not None:
            names = [name for name in names if name in declared.places]
        some = names if op.kind != "update" else self.chance.sample(names, self.chance.randrange(len(names) + 1))
        values = {name: self.value(name) for name in some}
        hours = self.chance.randrange(4) if declared is not None else 0
        edits = (
            self.edits() if declared is not None and "notes" in declared.places and self.chance.random() < 0.7 else ()
        )
        if op.kind == "update" and not values and not hours and not edits:
            values = {names[0]: self.value(names[0])}
        return Op(op.kind, op.scope, op.collection, op.key, values, hours, edits=edits)

    def edits(self) -> tuple[tuple[Any, ...], ...]:
        """Some edits of sets, texts, lists and maps."""
        some = []
        for name, what in self.chance.choices(EDITS, k=self.chance.choice([1, 1, 2, 4])):
            few, many = self.chance.randrange(2), self.chance.randrange(1_000)
            with_what = {
                "tags": (f"t{few}",),
                "notes": (many, f"<{many}>") if what == "insert" else (many,),
                "steps": (many,),
                "facts": (f"f{few}", many) if what == "put" else (f"f{few}",),
            }
            some.append((name, what, *with_what[name]))
        return tuple(some)

    def value(self, name: str) -> Any:
        return self.chance.randrange(1_000) if name == "price" else f"v{self.chance.randrange(1_000)}"

    def transact(self, device: Device) -> None:
        held = device.scopes()
        ops: dict[tuple[str, str, str], Op] = {}
        for _ in range(self.chance.choice([1, 1, 2, 3, 5])):
            place = self.chance.choice(held), self.chance.choice(["orders", "notes"]), self.chance.choice(self.keys)
            live = place[2] in device.keys(*place[:2])
            kind = self.chance.choice(OUTER) if live else "create"
            if kind != "create" or not live:
                ops[place] = self.values(device, Op(kind, *place))
        self.attempt(device, f"{list(ops.values())}", lambda: device.transact(list(ops.values())))

    def wish(self, device: Device) -> None:
        """Wish a record to be moved, and perhaps edit it in the same transaction."""
        place = (
            self.chance.choice(device.scopes()),
            self.chance.choice(["orders", "notes"]),
            self.chance.choice(self.keys),
        )
        if place[2] in device.keys(*place[:2]):
            op = self.values(device, Op("update", *place)) if self.chance.random() < 0.3 else Op("update", *place)
            others = [scope for scope in self.scopes if scope != op.scope] or SCOPES[1:2]
            op = replace(op, to=self.chance.choice([*others, *others, op.scope]))
            self.attempt(device, f"moves {op}", lambda: device.transact([op]))

    def settle(self, device: Device) -> None:
        """End a conflict, with what is read or with another claim."""
        known = ["status", "price", "phones", "text", "state"]
        some = [one for one in device.database.conflicts() if one.stored_as in known]
        if some:
            conflict = self.chance.choice(some)
            claim = self.chance.choice(conflict.claims)
            values, settles = {conflict.stored_as: claim.value}, (conflict, claim)
            op = Op("update", conflict.scope, conflict.collection, conflict.key, values, settles=settles)
            self.attempt(device, f"settles {conflict} {claim}", lambda: device.transact([op]))

    def amend(self, device: Device) -> None:
        """Dismiss what came late for a deleted record, make it again from that, or from what the trash has."""
        database = device.database
        some = [*database.late_edits(), *database.trash()]
        if not some:
            return
        one = self.chance.choice(some)
        is_new = one.key != "" and one.key not in device.keys(one.scope, one.collection)
        if isinstance(one, TrashEntry):
            what, values = "restore", one.values
        else:
            what = "recreate" if is_new and self.chance.random() < 0.5 else "dismiss"
            values = {name: claim.value for name, claim in one.values.items()}
        if is_new or what == "dismiss":
            meant = {name: value for name, value in values.items() if name in REMADE and what != "dismiss"}
            self.attempt(device, f"{what}: {one}", lambda: device.amend(one, what, meant))

    def inner(self, device: Device) -> None:
        scope = self.chance.choice(device.scopes())
        ops = []
        for _ in range(self.chance.choice([1, 1, 2, 4])):
            kind = self.chance.choice(INNER)
            number = self.chance.randrange(2 if kind in ("tag", "untag") else 1_000)
            values = {"tag": f"t{number}", "text": b"%d" % number, "later": number}
            ops.append(Op(kind, scope, "orders", self.chance.choice(self.keys), values))
        self.attempt(device, f"inner {ops}", lambda: device.inner(scope, ops))

    def load(self, device: Device) -> None:
        scope, collection = self.chance.choice(device.scopes()), self.chance.choice(["orders", "notes"])
        keys = self.chance.sample(self.keys, self.chance.randrange(1, len(self.keys) + 1))
        rows = {key: self.values(device, Op("create", scope, collection, key)).values for key in keys}
        self.attempt(device, f"load {scope} {collection} {rows}", lambda: device.load(scope, collection, rows))
