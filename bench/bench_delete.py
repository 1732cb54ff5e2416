"""Deleting all records, and what is left of them: bytes a record, with their removals forgotten where that can be."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw

from bench import clock, data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "sqlite3", "pycrdt", "loro")
NOTES = {
    "s": "1,000 a transaction; documents: all in one",
    "kept_bytes": "a record, of pages in use beyond an empty file's, while the removals are kept; documents: encoded",
    "bytes": "the same after db.trim(...), which documents do not have",
}
TARGETS = (Target("fieldsync_s", 1.0), Target("fieldsync_bytes", 0.0))


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build, delete all, forget."""
    records = data.records(count)
    keys = [key for key, _ in records]
    make = peers.contender(contender)
    data.set_aside()
    peer = make(folder)
    peer.build(records[:1])
    peer.delete(keys[:1])
    _trim(peer)
    empty = _bytes_in_use(peer)
    peer.build(records[1:])
    began = clock.now()
    peer.delete(keys[1:])
    seconds = clock.now() - began
    kept = _bytes_in_use(peer) - empty
    _trim(peer)
    figures = {"s": seconds, "kept_bytes": kept / count, "bytes": (_bytes_in_use(peer) - empty) / count}
    digest = checked(peer, {})
    peer.close()
    return Result(figures, digest)


def _trim(peer: Any) -> None:
    if isinstance(peer, peers.Fieldsync):
        peer.db.trim(older_than=timedelta(0))


def _bytes_in_use(peer: Any) -> int:
    """Of a database, without the pages that the next records will fill."""
    size = peer.size()
    if isinstance(peer, peers.Document):
        return int(size)
    with apsw.Connection(str(peer.path)) as file:
        free, page = (file.execute(f"PRAGMA {name}").get for name in ("freelist_count", "page_size"))
    return int(size - free * page)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "delete", *sys.argv[1:]]))
