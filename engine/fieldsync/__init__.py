"""Fieldsync: a durable CRDT replica of just the records in scope, on every field device, that never needs a rebuild.

    import fieldsync as fs

    db = fs.open("field.db")
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n1", text="arrived")
    db.sync("ws://127.0.0.1:8765")

Where everything is:

    database.py     what open gives, over holding.py (scopes, collections) and history.py (what happened)
    reading.py      tables and queries, compiled by query.py; search.py finds words, references.py follows references
    writing.py      a transaction as an app sees it; loading.py takes many rows, tables.py reads them from files
    schema.py       declares records: annotations.py, fields.py, converting.py, collection.py; values.py says what they
                    hold, columns.py what tables show, describing.py what a file holds, erasing.py takes fields out
    texts.py        texts, lists and maps, which documents.py makes of updates; warm.py has at hand what is edited,
                    live.py holds one for an editor
    conflicts.py    what was written apart; why.py explains a record, trash.py has what went, audit.py and recording.py
                    keep a log, comparing.py tells whether two replicas agree
    replica.py      a store, a clock, and news of changes (watch.py); transaction.py (of what pending.py
                    says), apply.py, plain.py and deleting.py write over sqlite/; indexing.py enters where cells live
    moving.py       moves records between scopes, and forwarding.py follows them to where heirs.py finds them, by
                    carrying.py and thinning.py
    trimming.py     forgets removals; leaving.py tells when a scope may go
    verify.py       looks for damage (examine.py) and mends it (rebuild.py); copies.py recognises copied files, files.py
                    writes those that are no databases
    syncing/        one conversation: session.py, begun by greeting.py, in rounds.py over scopes (shared.py), whose
                    changes giving.py reads and landing.py writes (taking.py), as far as claims.py believes it;
                    existence.py and reconcile.py find what is gone, mending.py what differs; frames.py and messages.py
                    are what travels
    bundles/        scopes as files: bundle.py, sealed by sealed_bundle.py; escrow.py keeps what has to be kept
    trust/          identity.py and certificates.py, how one gets them (enrolment.py), what is said (statements.py,
                    control.py), what that comes to (grants.py, who.py), and rights.py, which a session asks;
                    hubs.py is for hubs that are out
    network/        server.py and websocket.py over line.py; agent.py in the background, by agenda.py and discovery.py;
                    hub.py, its metrics.py and news.py
    cli/, demo/     the command line, and the story that it tells

The kernels are native/*.pyx, each called by one module.
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
from fieldsync.schema import Counter, List, Map, Record, Set, Snapshot, Stamp, Text, field
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
    "Set",
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
