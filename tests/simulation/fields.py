"""Sets, texts, lists and maps: edited in drafts, and what must come of it.

A text, list or map reads what pycrdt makes of just the updates that live.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pycrdt
from tests import canonical, model
from tests.simulation.inner import TAGS

if TYPE_CHECKING:
    from tests.simulation.cells import Cid
    from tests.simulation.inner import Op

LIST, MAP = 0x31, 0x39
KINDS = {"notes": model.TEXT, "steps": LIST, "facts": MAP}
ROOTS: dict[int, Any] = {model.TEXT: pycrdt.Text, LIST: pycrdt.Array, MAP: pycrdt.Map}


@lru_cache(maxsize=2_000)
def merged(kind: int, updates: tuple[bytes, ...]) -> Any:
    """The str, list or dict, given updates in the order in which they were made.

    What is held back for an update to come is given again until nothing comes of it.
    """
    doc: Any = pycrdt.Doc()
    root, before = doc.get("value", type=ROOTS[kind]), None
    while before != (before := doc.get_update()):
        for update in updates:
            doc.apply_update(update)
    if kind == model.TEXT:
        return str(root)
    held = root.to_py() or ()
    if kind == MAP:
        return {name: canonical.decode(bytes(item)) for name, item in dict(held).items()}
    return [canonical.decode(bytes(item)) for item in held]


def read(record: model.Record, field: str, kind: int, rank: dict[Any, int]) -> Any:
    """What a record reads in a text, list or map; rank: of each cell, when it was truly written."""
    top = model.topmost(record)
    here = [(top, cell.address, cell.stamp.dot) for cell in record[top].cells if cell.address[:2] == (field, kind)]
    values = {(top, cell.address, cell.stamp.dot): cell.value for cell in record[top].cells}
    return merged(kind, tuple(canonical.decode(values[cid]) for cid in sorted(here, key=lambda cid: rank[cid])))


def read_all(record: model.Record, rank: dict[Any, int]) -> dict[str, Any]:
    """All that a record reads, without what reads as nothing."""
    values = model.read_all(record)
    for field, kind in {cell.address[:2] for inc in record.values() for cell in inc.cells}:
        if kind in ROOTS:
            values[field] = read(record, field, kind, rank)
    return {name: value for name, value in values.items() if value}


def edit(draft: Any, edits: tuple[tuple[Any, ...], ...]) -> None:
    """Edit a draft's sets, texts, lists and maps, wherever a place that is asked for lies."""
    for name, what, *given in edits:
        held: Any = getattr(draft, name)
        if what in ("add", "discard", "append"):
            getattr(held, what)(*given)
        elif what == "insert":
            at, text = given
            held.insert(at % (len(held) + 1), text)
        elif what == "put":
            held[given[0]] = given[1]
        elif what == "drop" and name == "facts":
            held.pop(given[0], None)
        elif what == "drop" and len(held):
            at = given[0] % len(held)
            del held[at : at + 2]


def meant(draft: Any) -> dict[str, Any]:
    """What a draft shows of its texts, lists and maps."""
    return {"notes": str(draft.notes), "steps": list(draft.steps), "facts": dict(draft.facts)}


def _elements(op: Op, record: model.Record) -> tuple[set[bytes], set[bytes]]:
    """The elements of a set before and after an op, encoded."""
    before = {cell.address.sub for _, cell in model.cells_at(record, *TAGS[:2])} if op.kind == "update" else set()
    after = set(before)
    for name, what, *given in op.edits:
        if name == TAGS.field:
            (after.add if what == "add" else after.discard)(canonical.encode(given[0]))
    return before, after


def coming(op: Op, record: model.Record) -> list[model.Address]:
    """Where elements are added that nobody else has in the set."""
    before, after = _elements(op, record)
    return [TAGS._replace(sub=sub) for sub in sorted(after - before)]


def going(op: Op, record: model.Record) -> list[Cid]:
    """The cells of elements that are taken out."""
    before, after = _elements(op, record)
    some = model.cells_at(record, *TAGS[:2])
    return [(name, cell.address, cell.stamp.dot) for name, cell in some if cell.address.sub in before - after]
