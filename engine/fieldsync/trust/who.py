"""Which device wrote something: authors by the names of devices, as the organisation's statements in a file tell them.

A file is read with an identity and without. So it keeps which organisation it belongs to: whose root may say the rest.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fieldsync.trust.control import Reading
from fieldsync.trust.grants import Roll

if TYPE_CHECKING:
    from fieldsync.sqlite import SQLiteReader

ORGANISATION = "organisation"  # the id of its root's key, a fact of the file


class Devices:
    """The devices that answer for authors. What was read once is not read again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading = Reading()
        self._roll = Roll("", ())

    def name_of(self, reader: SQLiteReader, author: bytes) -> str | None:
        """The name of the device that answers for an author, of all of them if several do; None where nobody does."""
        roll = self._look(reader)
        return " or ".join(sorted(map(roll.name, roll.devices_of(author)))) or None

    def _look(self, reader: SQLiteReader) -> Roll:
        organisation = reader.meta(ORGANISATION) or ""
        with self._lock:
            if self._reading.changed(reader) or self._roll.organisation != organisation:
                self._roll = Roll(organisation, self._reading.every)
            return self._roll
