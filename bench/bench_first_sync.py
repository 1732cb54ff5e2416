"""An empty device takes all records from a hub over loopback WebSocket, each a process of its own."""

import sys
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from bench import data, peers
from bench.bench_open import build
from bench.runner import Result, Target, checked, peak_mb

CONTENDERS = ("fieldsync", "pycrdt", "loro")
NOTES = {
    "s": "durable at the end, both files at full; documents: export, send over loopback TCP, import in memory",
    "taker_mb, giver_mb": "peaks above what the processes had with packages imported; the hub's was built by another",
}
TARGETS = tuple(Target(f"fieldsync_{side}_mb", 1 / 3, f"pycrdt_{side}_mb") for side in ("taker", "giver"))
AUTHKEY = b"bench"


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build in one process, serve in another, take in this one."""
    spawn, places = get_context("spawn"), [folder / "giver", folder / "taker"]
    for place in places:
        place.mkdir()
    builder = spawn.Process(target=build, args=(contender, count, places[0]))
    builder.start()
    builder.join()
    assert builder.exitcode == 0
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(contender, places[0], theirs))
    server.start()
    address = ours.recv()
    make = _Fieldsync if contender == "fieldsync" else peers.contender(contender)
    _import_all(contender)
    before = peak_mb()
    taker: Any = make(places[1])
    began = time.perf_counter()
    size = taker.fetch(address) if isinstance(taker, _Fieldsync) else _receive(taker, address)
    figures = {"s": time.perf_counter() - began, "bytes": size, "taker_mb": peak_mb() - before}
    ours.send("done")
    figures["giver_mb"] = ours.recv()
    server.join()
    digest = checked(taker, dict(data.records(count)))
    taker.close()
    return Result(figures, digest)


class _Fieldsync(peers.Fieldsync):
    """Durable when a sync is over."""

    def __init__(self, folder: Path, *, hub: bool = False) -> None:
        super().__init__(folder, full=True, hub=hub)

    def fetch(self, url: str) -> int:
        """Sync with a hub; the bytes that it took, both ways."""
        self.db.enter(peers.SCOPE)
        report = self.db.sync(url)
        return int(report.bytes_received + report.bytes_sent)


def _serve(contender: str, folder: Path, ours: Connection) -> None:
    """Open what was built, say where, and serve until that is done; then tell the peak."""
    make: Any = peers.contender(contender)
    _import_all(contender)
    before = peak_mb()
    if contender == "fieldsync":
        import fieldsync

        peer: Any = _Fieldsync(folder, hub=True)
        with fieldsync.serve(peer.db) as server:
            ours.send(server.url)
            ours.recv()
    else:
        peer = make(folder)
        with Listener(("127.0.0.1", 0), authkey=AUTHKEY) as listener:
            ours.send(listener.address)
            with listener.accept() as connection:
                connection.send_bytes(peer.encode())
            ours.recv()
    ours.send(peak_mb() - before)


def _import_all(contender: str) -> None:
    """What is imported at the first sync, beside the package."""
    if contender == "fieldsync":
        import_module("fieldsync.network.websocket")
        import_module("websockets.asyncio.client")


def _receive(peer: Any, address: Any) -> int:
    """Take a whole document; its bytes."""
    with Client(address, authkey=AUTHKEY) as connection:
        encoded = connection.recv_bytes()
    peer.take(encoded)
    return len(encoded)


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "first_sync", *sys.argv[1:]]))
