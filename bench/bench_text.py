"""The history of writing one paper, 259,778 edits of single characters: a transaction each, or 100 in one."""

import gzip
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fieldsync as fs
from bench.runner import Result, Target

CONTENDERS = ("fieldsync", "pycrdt", "loro")
NOTES = {
    "one_s": "seconds for the trace, an edit a transaction; records x 50 edits: all of it from 5,196 records on",
    "one_per_s": "such edits a second",
    "sessions_s": "seconds for the same edits, 100 a transaction",
    "bytes": "of the text's updates at rest after the sessions; documents: their encoding as one",
    "over_pycrdt": "those bytes, over what pycrdt makes of the same document",
    "synced_bytes": "sent when a device brings the text to a hub after the sessions; documents: their encoding",
    "live_bytes": "sent when it brings every session at once, all together, over the first 200; documents: the updates",
}
TARGETS = (Target("fieldsync_over_pycrdt", 2.0),)
RUNS = 1
TRACE = Path(__file__).parents[2] / "shared" / "data" / "automerge-paper.json.gz"
SESSION = 100
SYNCED_SESSIONS = 200
Edit = tuple[int, int, str]  # position, how many characters go, what comes
Step = Callable[[Sequence[Edit]], None]


class Paper(fs.Record, table="papers"):
    """What is written."""

    body: fs.Text


def is_skipped() -> str:
    """Why this topic cannot be measured here, if so."""
    return "" if TRACE.exists() else f"the trace is not at {TRACE}"


def trace(count: int) -> list[Edit]:
    """The first edits."""
    with gzip.open(TRACE) as file:
        history = json.load(file)
    return [tuple(patch) for txn in history["txns"][:count] for patch in txn["patches"]]


def measure(contender: str, count: int, folder: Path) -> Result:
    """Write it edit by edit, then anew in sessions."""
    every = trace(count * 50)
    make = {"fieldsync": _fieldsync, "pycrdt": _pycrdt, "loro": _loro}[contender]
    seconds, *_ = make(folder / "one", every, 1)
    figures = {"one_s": seconds, "one_per_s": len(every) / seconds}
    seconds, text, size, synced, live = make(folder / "sessions", every, SESSION)
    figures |= {"sessions_s": seconds, "bytes": size, "synced_bytes": synced, "live_bytes": live}
    figures["over_pycrdt"] = size / len(_whole(every))
    return Result(figures, hashlib.sha256(text.encode()).hexdigest())


def _sessions(edits: list[Edit], size: int) -> Iterator[list[Edit]]:
    for first in range(0, len(edits), size):
        yield edits[first : first + size]


def _whole(edits: list[Edit]) -> bytes:
    """The document as pycrdt encodes it."""
    import pycrdt

    doc = pycrdt.Doc()
    text = doc.get("value", type=pycrdt.Text)
    for some in _sessions(edits, SESSION):
        with doc.transaction():
            _edit(text, some)
    return bytes(doc.get_update())


def _edit(text: Any, edits: Sequence[Edit]) -> None:
    """The trace is ASCII: bytes are characters."""
    for at, gone, inserted in edits:
        if gone:
            del text[at : at + gone]
        if inserted:
            text.insert(at, inserted)


def _fieldsync(folder: Path, edits: list[Edit], size: int) -> tuple[float, str, int, int, int]:
    from fieldsync import record

    folder.mkdir()
    with (
        fs.open(folder / "field.db", Paper, durability="fast") as db,
        fs.open(folder / "hub.db", Paper, hub=True) as hub,
        fs.open(folder / "late.db", Paper, hub=True) as late,
    ):
        with db.write() as tx:
            tx.create(Paper, scope="s", key="p")
        live, seconds = 0, 0.0
        for number, some in enumerate(_sessions(edits, size)):
            began = time.perf_counter()
            with db.write() as tx:
                _edit(tx.get(Paper, "p").body, some)
            seconds += time.perf_counter() - began
            if size == SESSION and number < SYNCED_SESSIONS:
                live += db.sync(hub).bytes_sent
        synced = db.sync(late).bytes_sent
        with db.replica.store.reading() as reader:
            known = reader.collection("papers")
            assert known is not None
            (row,) = reader.by_key_anywhere(known.id, "p")
            updates = [one for some in record.updates(reader.dictionary, row.packed).values() for one in some]
        paper = db[Paper].get("p")
        assert paper is not None
        assert paper == late[Paper].get("p")
        return seconds, paper.body, sum(map(len, updates)), synced, live


def _pycrdt(_folder: Path, edits: list[Edit], size: int) -> tuple[float, str, int, int, int]:
    import pycrdt

    doc = pycrdt.Doc()
    text = doc.get("value", type=pycrdt.Text)
    sizes: list[int] = []
    subscription = doc.observe(lambda event: sizes.append(len(event.update)))
    began = time.perf_counter()
    for some in _sessions(edits, size):
        with doc.transaction():
            _edit(text, some)
    seconds = time.perf_counter() - began
    doc.unobserve(subscription)
    whole = len(doc.get_update())
    return seconds, str(text), whole, whole, sum(sizes[:SYNCED_SESSIONS])


def _loro(_folder: Path, edits: list[Edit], size: int) -> tuple[float, str, int, int, int]:
    import loro

    doc = loro.LoroDoc()
    text = doc.get_text("value")
    live, seconds = 0, 0.0
    for number, some in enumerate(_sessions(edits, size)):
        version = doc.oplog_vv
        began = time.perf_counter()
        for at, gone, inserted in some:
            if gone:
                text.delete(at, gone)
            if inserted:
                text.insert(at, inserted)
        doc.commit()
        seconds += time.perf_counter() - began
        if size == SESSION and number < SYNCED_SESSIONS:
            live += len(doc.export(loro.ExportMode.Updates(version)))
    whole = len(doc.export(loro.ExportMode.Snapshot()))
    return seconds, text.to_string(), whole, whole, live


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "text", *sys.argv[1:]]))
