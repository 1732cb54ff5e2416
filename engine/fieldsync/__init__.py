"""Fieldsync: a durable CRDT replica of just the records in scope, on every field device, that never needs a rebuild.

    import fieldsync as fs

    db = fs.open("field.db")
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n1", text="arrived")
    db.sync("ws://127.0.0.1:8765")

Where everything is: syncing/ is one conversation of two replicas, network/ what runs on sockets and in the background,
trust/ who is who and may what, bundles/ scopes as files, sqlite/ the file, cli/ the command line, demo/ its story. In
these and above them: database.py is the front door (open, Database: over holding.py, which knows its collections and
scopes, and history.py, which tells what happened), reading.py and writing.py are what it gives (Table, Query,
Transaction). schema.py declares records (collection.py: their fields.py as annotations.py and converting.py tell them;
records.py: what reads give), values.py says what they hold, columns.py what tables show, query.py compiles queries,
describing.py tells what a file holds, erasing.py takes fields out; loading.py loads rows, tables.py reads them from
files. replica.py is a store, a clock and the news of what changed: transaction.py and apply.py write over sqlite/,
session.py syncs by exchange.py, giving.py and taking.py and the frames of messages.py, which memory.py carries, and
line.py over WebSocket (wire.py); greeting.py begins a session, with eager.py where changes go along and what pairs.py
remembers, shared.py is one scope of it, rounds.py declares and settles scopes, parting.py sends chunks in parts,
landing.py writes what comes, asking.py compares, and mending.py mends what only comparing finds. copies.py recognises
copied and restored files, verify.py looks for damage (examine.py) and mends it, rebuild.py computes again what follows
from the cells. bundle.py writes scopes into files to be carried by hand, sealed_bundle.py seals them to their readers
(sealing.py), parcel.py tells which it is to be, escrow.py writes one of what has to be kept before scopes are left
(leaving.py); trimming.py forgets removals, trash.py has what went by comparing (existence.py). conflicts.py is the
ledger of what was written apart; why.py and comparing.py explain one record, and tell whether two replicas agree;
references.py follows references between records, search.py finds words. websocket.py dials once, server.py serves,
agent.py does both in the background (keeper.py), by what agenda.py decides and discovery.py finds; lines.py tells
whoever is connected of news.py; hub.py is a server with its metrics.py. identity.py is a device's key, certificates.py
its certificate, enrolment.py and desk.py how it gets that; statements.py are signed, control.py holds them in a scope,
grants.py tells what they come to, membership.py applies that to a database, and rights.py is what a session asks;
refusals.py keeps what was refused, voiding.py finds what is void. texts.py reads and writes texts, lists and maps,
which documents.py makes of updates; live.py holds one for an editor. moving.py executes moves between scopes,
forwarding.py follows them, by carrying.py. recording.py writes the audit log, audit.py reads it. The kernels are
native/*.pyx, each called by one module.
"""

import importlib
import typing

from fieldsync.codec import Unknown
from fieldsync.database import Database, open, serve
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
    IdentityError,
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
from fieldsync.holding import ScopeInfo
from fieldsync.reading import Query, Table
from fieldsync.schema import Counter, List, Map, Record, Snapshot, Stamp, Text, field
from fieldsync.watch import Event, Watch
from fieldsync.writing import Transaction

if typing.TYPE_CHECKING:
    from fieldsync.audit import AuditEntry
    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.comparing import Comparison, ScopeComparison
    from fieldsync.conflicts import Claim, Conflict, LateEdit
    from fieldsync.describing import CollectionInfo, FieldInfo, TableChange
    from fieldsync.examine import Fault, VerifyReport
    from fieldsync.live import LiveText
    from fieldsync.loading import LoadReport
    from fieldsync.network.status import PeerStatus, Status
    from fieldsync.references import Followed
    from fieldsync.syncing.report import Mended, Refused, Report
    from fieldsync.trash import TrashEntry
    from fieldsync.trust.identity import Identity
    from fieldsync.trust.refusals import RefusedChanges
    from fieldsync.why import Trace, Why

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "AlreadyExists",
    "AmbiguousKey",
    "AuditEntry",
    "Budget",
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
    "Followed",
    "FormatTooNew",
    "Identity",
    "IdentityError",
    "LateEdit",
    "LimitExceeded",
    "List",
    "LiveText",
    "LoadError",
    "LoadReport",
    "Map",
    "Mended",
    "MissingDependency",
    "NotDelivered",
    "NotFound",
    "PeerStatus",
    "ProtocolError",
    "Query",
    "Record",
    "Refused",
    "RefusedChanges",
    "Report",
    "SchemaError",
    "ScopeComparison",
    "ScopeInfo",
    "Snapshot",
    "Stamp",
    "Status",
    "StoreError",
    "SyncError",
    "Table",
    "TableChange",
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
    "Agent": "fieldsync.network.agent",
    "AuditEntry": "fieldsync.audit",
    "Budget": "fieldsync.network.agenda",
    "BundleReport": "fieldsync.bundles.bundle",
    "Claim": "fieldsync.conflicts",
    "CollectionInfo": "fieldsync.describing",
    "Comparison": "fieldsync.comparing",
    "Conflict": "fieldsync.conflicts",
    "Fault": "fieldsync.examine",
    "FieldInfo": "fieldsync.describing",
    "Followed": "fieldsync.references",
    "Identity": "fieldsync.trust.identity",
    "LateEdit": "fieldsync.conflicts",
    "LiveText": "fieldsync.live",
    "LoadReport": "fieldsync.loading",
    "Mended": "fieldsync.syncing.report",
    "PeerStatus": "fieldsync.network.status",
    "Refused": "fieldsync.syncing.report",
    "RefusedChanges": "fieldsync.trust.refusals",
    "Report": "fieldsync.syncing.report",
    "ScopeComparison": "fieldsync.comparing",
    "Status": "fieldsync.network.status",
    "TableChange": "fieldsync.describing",
    "Trace": "fieldsync.why",
    "TrashEntry": "fieldsync.trash",
    "VerifyReport": "fieldsync.examine",
    "Why": "fieldsync.why",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LATE:
        raise AttributeError(f"module 'fieldsync' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
