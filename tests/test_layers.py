"""The order of the modules: who may import whom, who may ask for time, chance and the network, who calls a kernel."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

import fieldsync

PACKAGE = Path(fieldsync.__file__).parent
LAYERS = [  # bottom to top: a module imports only from those before it
    *("network", "trust", "syncing", "bundles"),
    *("errors", "limits", "clock", "files", "codec", "context", "syncing.reconcile", "trust.signing", "trust.rights"),
    *("named", "types", "documents", "texts", "record", "store", "changes", "entries", "indexing"),
    *("apply", "plain", "deleting", "warm", "pending", "transaction", "trimming", "leaving"),
    *("trust.statements", "trust.grants", "trust.control"),
    *("carrying", "thinning", "heirs", "forwarding", "moving"),
    *("values", "converting", "edits", "search", "fields", "annotations", "records", "collection", "schema"),
    *("draft", "query", "columns"),
    *(
        "sqlite.layout",
        "sqlite.audit",
        "sqlite.forwards",
        "sqlite.gone",
        "sqlite.searching",
        "sqlite.inspection",
        "sqlite.memory",
        "sqlite.lately",
        "sqlite.checkpoints",
        "sqlite.tails",
        "sqlite.reader",
        "sqlite.rows",
        "sqlite.declaring",
        "sqlite.warming",
        "sqlite.writer",
        "sqlite.store",
        "sqlite",
    ),
    "sqlite.sorting",
    *("rebuild", "sound", "examine", "verify"),
    *(
        "recording",
        "watch",
        "replica",
        "audit",
        "reading",
        "trash",
        "conflicts",
        "erasing",
        "writing",
        "why",
        "references",
        "comparing",
        "describing",
    ),
    *(
        "syncing.exchange",
        "syncing.giving",
        "syncing.existence",
        "syncing.locating",
        "syncing.taking",
        "syncing.claims",
        "syncing.bodies",
        "syncing.frames",
        "syncing.messages",
        "syncing.parting",
    ),
    *(
        "syncing.report",
        "syncing.shared",
        "syncing.eager",
        "syncing.pairs",
        "syncing.greeting",
        "syncing.mending",
        "syncing.asking",
        "syncing.landing",
        "syncing.rounds",
        "trust.refusals",
        "trust.voiding",
        "syncing.session",
        "bundles.bundle",
    ),
    *(
        "trust.certificates",
        "trust.identity",
        "trust.who",
        "trust.membership",
        "trust.hubs",
        "trust.enrolment",
        "bundles.sealing",
        "bundles.sealed_bundle",
        "bundles.parcel",
        "bundles.escrow",
    ),
    *("network.agenda", "network.status", "network.background", "network.standby", "network.logs", "network.wire"),
    "network.door",
    *(
        "network.news",
        "network.line",
        "network.websocket",
        "network.lines",
        "network.server",
        "trust.desk",
        "syncing.memory",
    ),
    *("network.discovery", "network.spending", "network.keeper", "network.metrics", "network.hub"),
    *("template", "guessing", "tables", "loading"),
    *("live", "copies", "holding", "history", "database", "network.agent", "fieldsync"),
    *("samples", "progress", "device", "child", "demo.teller", "demo.story", "demo.scene"),
    *("demo.founding", "demo.meeting", "demo.returning", "demo"),
    *("cli.terminal", "cli.options", "cli.records", "cli.scopes", "cli.network", "cli.care"),
    *("cli.hubs", "cli.members", "cli"),
    "__main__",
]
CORE = LAYERS[: LAYERS.index("trust.certificates")]
THREADS = {"watch", "replica", "sqlite.checkpoints", "sqlite.store"}  # where the locks live
OUTSIDE = {
    *("socket", "ssl", "select", "selectors", "asyncio", "concurrent", "multiprocessing", "subprocess", "threading"),
    *("time", "random", "secrets", "uuid", "os.urandom", "datetime.datetime.now", "datetime.date.today"),
}
EXCEPTIONS = {
    ("clock", "time"),  # the one reading of the wall clock, which Replica takes as wall_ms
    ("transaction", "os.urandom"),  # names of authors, which Replica takes as mint
    ("sqlite.store", "os.urandom"),  # the name of a new file's replica: not passed in yet
}
CALLERS = {  # of kernels: one each
    "authorship": {"record"},
    "carry": {"carrying"},
    "chunk_decode": {"changes"},
    "chunk_encode": {"changes"},
    "codec": {"codec"},
    "delete": {"deleting"},
    "diff": {"context"},
    "entries": {"entries"},
    "existence": {"syncing.existence"},
    "fresh": {"record"},
    "merge": {"record"},
    "named": {"named"},
    "numbers": {"sqlite.layout"},
    "plain": {"plain"},
    "read": {"record"},
    "removals": {"record"},
    "sketch": {"syncing.reconcile"},
    "update": {"documents"},
    "write": {"record"},
}
LATE = (
    *("msgpack", "websockets", "zeroconf", "pycrdt", "cryptography", "typer", "rich", "asyncio"),
    *("dataclasses", "inspect", "logging"),
    *("fieldsync.conflicts", "fieldsync.loading", "fieldsync.moving", "fieldsync.recording", "fieldsync.syncing"),
)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "fieldsync"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "_native"}


@lru_cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def statements(tree: ast.AST, runtime: bool) -> Iterator[ast.AST]:
    """Every node, those under `if TYPE_CHECKING` apart."""
    for node in ast.iter_child_nodes(tree):
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if types_only and runtime:
            yield from (inner for part in node.orelse for inner in (part, *statements(part, runtime)))
        else:
            yield node
            yield from statements(node, runtime)


def imports(module: str, runtime: bool = True) -> set[str]:
    """The dotted names that a module imports, wherever in it: "os", "fieldsync.errors.NotFound"."""
    found = set()
    for node in statements(parsed(MODULES[module]), runtime):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(module: str) -> set[str]:
    """The dotted names that a module imports or reaches through what it imports, with all that they begin with."""
    known = {name.rpartition(".")[2]: name for name in imports(module)}
    found = set(known.values())
    for node in statements(parsed(MODULES[module]), runtime=True):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in known:
                found.add(f"{known[root]}.{rest}")
    return {".".join(name.split(".")[: end + 1]) for name in found for end in range(len(name.split(".")))}


def targets(module: str, runtime: bool = True) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(module, runtime):
        if name.split(".")[0] == "fieldsync" and not name.startswith("fieldsync._native"):
            inner = name.removeprefix("fieldsync").removeprefix(".")
            candidates = (inner, inner.rpartition(".")[0], "fieldsync")
            found.add(next(candidate for candidate in candidates if candidate in MODULES))
    return found


def test_every_module_has_its_place():
    assert sorted(LAYERS) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    place = LAYERS.index(module)
    upward = {name for name in targets(module) if LAYERS.index(name) >= place}
    assert not upward, f"{module} imports {upward}, which stand above it"


def test_the_core_is_handed_time_chance_and_the_network():
    found = {(module, name) for module in CORE for name in uses(module) & OUTSIDE}
    found -= {(module, "threading") for module in THREADS}
    assert found == EXCEPTIONS


def test_a_kernel_has_one_caller():
    callers = defaultdict(set)
    for module in MODULES:
        for name in imports(module):
            if name.startswith("fieldsync._native."):
                callers[name.split(".")[2]].add(module)
    assert callers == CALLERS
    assert sorted(callers) == sorted(path.name.split(".")[0] for path in PACKAGE.glob("_native/*.so"))


def test_importing_the_package_loads_no_more_than_it_needs():
    code = f"import sys, fieldsync; print(*sorted(set({LATE}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_checks_see_what_they_are_about(tmp_path, monkeypatch):
    module = tmp_path / "sample.py"
    module.write_text(
        "from __future__ import annotations\n"
        "import os\nfrom datetime import datetime\nfrom typing import TYPE_CHECKING\nfrom fieldsync import record\n"
        "if TYPE_CHECKING:\n    import socket\n    from fieldsync.database import Database\nelse:\n    import ssl\n"
        "def late(path: os.PathLike[str]) -> None:\n    from fieldsync.sqlite.store import SQLiteStore\n"
        "    os.urandom(datetime.now().second)\n    import asyncio.events\n"
    )
    monkeypatch.setitem(MODULES, "sample", module)
    assert targets("sample") == {"record", "sqlite.store"}
    assert targets("sample", runtime=False) == {"record", "sqlite.store", "database"}
    assert uses("sample") & OUTSIDE == {"os.urandom", "datetime.datetime.now", "ssl", "asyncio"}
