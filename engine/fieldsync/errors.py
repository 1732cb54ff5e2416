"""Every error that Fieldsync raises on purpose.

    FieldsyncError
     +-- DataError                 what the app asked for cannot be done with this data
     |    +-- NotFound             no live record has that key
     |    +-- AmbiguousKey         the key lives in several scopes; name one
     |    +-- AlreadyExists        a live record has that key already
     |    +-- NotDelivered         a scope cannot be left yet: a hub lacks changes that are here
     |    +-- LimitExceeded        a bound of limits.py would be passed
     |    +-- SchemaError          a declaration contradicts itself or the file
     |    +-- LoadError            a file of rows cannot be read at all
     +-- StoreError                the file on disk
     |    +-- FormatTooNew         written by a newer format than this version reads
     |    +-- Corrupt              bytes in the file are not what was written
     |    +-- DiskFull             no room; the transaction was undone whole
     |    +-- Busy                 another process holds the writer lock for too long
     +-- ClosedError               used after close, or after a fork
     +-- ProtocolError             the peer sent something that is not allowed
     |    +-- DecodeError          bytes that are not canonical, truncated or oversized
     |    +-- VersionMismatch      no protocol version in common
     +-- SyncError                 a session could not be held or completed
     |    +-- ConnectionFailed     no link to the peer, or it was cut
     |    +-- DigestMismatch       equal contexts with unequal content: damage or a bug
     +-- IdentityError             keys, certificates or codes that do not prove who somebody is
     +-- MissingDependency         an optional package is not installed

A value of a type that Fieldsync cannot hold is a plain TypeError that names the field.
"""


class FieldsyncError(Exception):
    """Base of all errors that Fieldsync raises on purpose.

    code: where somebody was refused, why, for programs: see docs/security.md. Empty elsewhere.
    """

    def __init__(self, *arguments: object, code: str = "") -> None:
        super().__init__(*arguments)
        self.code = code


class DataError(FieldsyncError):
    """What the app asked for cannot be done with this data."""


class NotFound(DataError, LookupError):
    """No live record has that key."""


class AmbiguousKey(DataError, LookupError):
    """The key lives in several scopes; pass scope= to name one."""


class AlreadyExists(DataError):
    """A live record has that key already."""


class NotDelivered(DataError):
    """A scope cannot be left yet: a hub lacks changes that are here."""


class LimitExceeded(DataError):
    """A bound of limits.py would be passed."""


class SchemaError(DataError):
    """A declaration contradicts itself or the file."""


class LoadError(DataError):
    """A file of rows cannot be read at all."""


class StoreError(FieldsyncError):
    """Something is wrong with the file on disk."""


class FormatTooNew(StoreError):
    """The file was written by a newer format than this version reads."""


class Corrupt(StoreError):
    """Bytes in the file are not what was written."""


class DiskFull(StoreError):
    """There is no room; the transaction was undone whole and the replica stays usable."""


class Busy(StoreError):
    """Another process holds the writer lock for too long."""


class ClosedError(FieldsyncError):
    """The database was used after close, or in a forked child."""


class ProtocolError(FieldsyncError):
    """The peer sent something that is not allowed."""


class DecodeError(ProtocolError, ValueError):
    """Bytes that are not canonical, truncated or oversized."""


class VersionMismatch(ProtocolError):
    """The two sides speak no protocol version in common."""


class SyncError(FieldsyncError):
    """A session could not be held or completed."""


class ConnectionFailed(SyncError, ConnectionError):
    """No link to the peer, or it was cut; what had landed is kept."""


class DigestMismatch(SyncError):
    """Equal contexts with unequal content, which the session could not mend: damage or a bug."""


class IdentityError(FieldsyncError):
    """Keys, certificates, statements or codes that do not prove who somebody is, or lie open to others."""


class MissingDependency(FieldsyncError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""
