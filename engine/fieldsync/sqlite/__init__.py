"""The Store on SQLite, through apsw: one file, a writer connection behind one lock, and a pool of readers."""

from fieldsync.sqlite.reader import SQLiteReader
from fieldsync.sqlite.store import SQLiteStore
from fieldsync.sqlite.writer import SQLiteWriter

__all__ = ["SQLiteReader", "SQLiteStore", "SQLiteWriter"]
