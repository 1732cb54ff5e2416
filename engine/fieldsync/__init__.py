"""Fieldsync: a durable CRDT replica of just the records in scope, on every field device, that never needs a rebuild.

    import fieldsync as fs

    db = fs.open("field.db")
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n1", text="arrived")
    db.sync("ws://127.0.0.1:8765")

Where everything is: database.py is the front door (open, Database), reading.py and writing.py are what it gives (Table,
Query, Transaction). schema.py declares records, values.py says what they hold, query.py compiles queries; loading.py
loads rows, tables.py reads them from files. replica.py is a store, a clock and the news of what changed: transaction.py
and apply.py write over sqlite/, session.py syncs by exchange.py, giving.py and taking.py and the frames of messages.py,
which websocket.py and memory.py carry; greeting.py begins a session, with eager.py where changes go along, shared.py is
one scope of it, rounds.py declares and settles scopes, parting.py sends chunks in parts, landing.py writes what comes,
asking.py compares, and mending.py mends what only comparing finds.
copies.py recognises copied and restored files, verify.py looks for damage (examine.py) and mends it, rebuild.py
computes again what follows from the cells. bundle.py writes scopes into files to be carried by hand, escrow.py one of
what has to be kept before scopes are left (leaving.py); trimming.py forgets removals, trash.py has what went by
comparing (existence.py). conflicts.py is the ledger of what was written apart; why.py and comparing.py explain one
record, and tell whether two replicas agree. moving.py executes moves between scopes, forwarding.py follows them, by
carrying.py. The kernels are native/*.pyx, each called by one module.
"""

import importlib
import typing

from fieldsync.codec import Unknown
from fieldsync.database import Database, ScopeInfo, open, serve
from fieldsync.errors import (
    AlreadyExists,
    AmbiguousKey,
    Busy,
    ClosedError,
    ConnectionFailed,
    Corrupt,
    DataError,
    DecodeError,
    DigestMismatch,
    DiskFull,
    FieldsyncError,
    FormatTooNew,
    LimitExceeded,
    LoadError,
    MissingDependency,
    NotDelivered,
    NotFound,
    ProtocolError,
    SchemaError,
    StoreError,
    SyncError,
    VersionMismatch,
)
from fieldsync.reading import Query, Table
from fieldsync.schema import Counter, List, Map, Record, Snapshot, Stamp, Text, field
from fieldsync.watch import Event, Watch
from fieldsync.writing import Transaction

if typing.TYPE_CHECKING:
    from fieldsync.bundle import BundleReport
    from fieldsync.comparing import Comparison, ScopeComparison
    from fieldsync.conflicts import Claim, Conflict, LateEdit
    from fieldsync.describing import CollectionInfo, FieldInfo
    from fieldsync.examine import Fault, VerifyReport
    from fieldsync.loading import LoadReport
    from fieldsync.report import Mended, Report
    from fieldsync.trash import TrashEntry
    from fieldsync.why import Trace, Why

__version__ = "0.1.0"
__all__ = [
    "AlreadyExists",
    "AmbiguousKey",
    "BundleReport",
    "Busy",
    "Claim",
    "ClosedError",
    "CollectionInfo",
    "Comparison",
    "Conflict",
    "ConnectionFailed",
    "Corrupt",
    "Counter",
    "DataError",
    "Database",
    "DecodeError",
    "DigestMismatch",
    "DiskFull",
    "Event",
    "Fault",
    "FieldInfo",
    "FieldsyncError",
    "FormatTooNew",
    "LateEdit",
    "LimitExceeded",
    "List",
    "LoadError",
    "LoadReport",
    "Map",
    "Mended",
    "MissingDependency",
    "NotDelivered",
    "NotFound",
    "ProtocolError",
    "Query",
    "Record",
    "Report",
    "SchemaError",
    "ScopeComparison",
    "ScopeInfo",
    "Snapshot",
    "Stamp",
    "StoreError",
    "SyncError",
    "Table",
    "Text",
    "Trace",
    "Transaction",
    "TrashEntry",
    "Unknown",
    "VerifyReport",
    "VersionMismatch",
    "Watch",
    "Why",
    "field",
    "open",
    "serve",
]


_LATE = {  # few programs need these modules at once
    "BundleReport": "fieldsync.bundle",
    "Claim": "fieldsync.conflicts",
    "CollectionInfo": "fieldsync.describing",
    "Comparison": "fieldsync.comparing",
    "Conflict": "fieldsync.conflicts",
    "Fault": "fieldsync.examine",
    "FieldInfo": "fieldsync.describing",
    "LateEdit": "fieldsync.conflicts",
    "LoadReport": "fieldsync.loading",
    "Mended": "fieldsync.report",
    "Report": "fieldsync.report",
    "ScopeComparison": "fieldsync.comparing",
    "Trace": "fieldsync.why",
    "TrashEntry": "fieldsync.trash",
    "VerifyReport": "fieldsync.examine",
    "Why": "fieldsync.why",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LATE:
        raise AttributeError(f"module 'fieldsync' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
