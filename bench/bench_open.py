"""Opening what was built before: one record, all records, and the import of the package."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from bench import clock, data, peers
from bench.runner import Result, Target, checked

CONTENDERS = ("fieldsync", "sqlite3", "pycrdt", "loro")
NOTES = {
    "ms": "opening the file (reading and merging the encoded document) and reading one record",
    "read_all_s": "all values of all records, after that",
    "import_ms": "a process that imports the package, less one that imports nothing",
}
TARGETS = (
    Target("fieldsync_ms", 20),
    Target("fieldsync_read_all_s", 0.5),
    Target("fieldsync_import_ms", 60),
)
IMPORTS = 5


def measure(contender: str, count: int, folder: Path) -> Result:
    """Build in another process, open in this one."""
    builder = get_context("spawn").Process(target=build, args=(contender, count, folder))
    builder.start()
    builder.join()
    assert builder.exitcode == 0
    records = data.records(count)
    key, row = records[count // 2]
    make = peers.contender(contender)
    data.set_aside()
    began = clock.now()
    peer = make(folder)
    found = peer.get(key)
    opened = clock.now()
    held = peer.read_all()
    done = clock.now()
    assert data.digest({key: found}) == data.digest({key: row})
    del held
    digest = checked(peer, dict(records))
    peer.close()
    figures = {"ms": (opened - began) * 1e3, "read_all_s": done - opened, "import_ms": _import_ms(contender, folder)}
    return Result(figures, digest)


def build(contender: str, count: int, folder: Path) -> None:
    """What another process opens."""
    peer = peers.contender(contender)(folder)
    peer.build(data.records(count))
    peer.close()


def _import_ms(contender: str, folder: Path) -> float:
    bare, full = [], []
    for _ in range(IMPORTS):
        bare.append(_python_ms("pass", folder))
        full.append(_python_ms(f"import {peers.package_of(contender)}", folder))
    return median(full) - median(bare)


def _python_ms(statement: str, folder: Path) -> float:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}  # as installed
    began = clock.now()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return (clock.now() - began) * 1e3


if __name__ == "__main__":
    from bench.__main__ import main

    sys.exit(main(["--only", "open", *sys.argv[1:]]))
