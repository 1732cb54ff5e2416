"""What a file tells of what happened: conflicts, late edits, the trash, the audit log, refusals, a record's traces."""

from __future__ import annotations

from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING

from fieldsync.errors import NotFound
from fieldsync.holding import Holder
from fieldsync.limits import AUDIT_KEPT_MS, AUDIT_ROWS_MAX
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fieldsync.audit import AuditEntry
    from fieldsync.conflicts import Conflict, LateEdit, Names
    from fieldsync.schema import Record
    from fieldsync.sqlite import SQLiteReader
    from fieldsync.trash import TrashEntry
    from fieldsync.trust.refusals import RefusedChanges
    from fieldsync.trust.who import Devices
    from fieldsync.why import Deeds, Why


class History(Holder):
    """Tells it, and makes records of the trash again; see database.Database."""

    _devices: Devices | None = None

    def conflicts(self, of: type[Record] | str | None = None, /, *, scope: str | None = None) -> list[Conflict]:
        """The fields that were written apart and not since by anybody who had seen that; tx.settle(...) ends one.

        The same on all replicas that hold the scope. Of one collection, or all; of one scope, or all that are held.
        """
        from fieldsync.conflicts import conflicts

        with self.replica.store.reading() as reader:
            name = self.collection(of).name if of else None
            return list(conflicts(reader, self._asked(reader, scope), name, self._names(reader)))

    def late_edits(self, of: type[Record] | str | None = None, /, *, scope: str | None = None) -> list[LateEdit]:
        """What was written to deleted records by who had not heard of that; tx.dismiss(...) or tx.recreate(...) it."""
        from fieldsync.conflicts import late_edits

        with self.replica.store.reading() as reader:
            name = self.collection(of).name if of else None
            return list(late_edits(reader, self._asked(reader, scope), name, self._names(reader)))

    def who(self, author: str) -> str | None:
        """The name of the device that writes as an author, whose 16 hex digits stamps and the audit log give.

        None where no device is known here to answer for it, as where there is no organisation.
        """
        with self.replica.store.reading() as reader:
            return self._device_of(reader)(bytes.fromhex(author))

    def _names(self, reader: SQLiteReader) -> Names:
        from fieldsync.conflicts import Names

        return Names(self._named, self._device_of(reader))

    def _deeds(self, reader: SQLiteReader) -> Deeds:
        from fieldsync.why import Deeds

        is_hub, wall_ms = self.replica.takes_all, self.replica.wall_ms()
        return Deeds(reader, is_hub=is_hub, wall_ms=wall_ms, device_of=self._device_of(reader))

    def _device_of(self, reader: SQLiteReader) -> Callable[[bytes], str | None]:
        """The names of devices, by author."""
        if reader.scope(CONTROL) is None:
            return lambda _: None
        if self._devices is None:
            from fieldsync.trust.who import Devices  # with cryptography, for what is signed

            self._devices = Devices()
        return cache(partial(self._devices.name_of, reader))

    def _named(self, collection: str, cell: tuple[str, int]) -> str:
        """What a field is called here, by the name and kind of its cells."""
        known = self._collections.get(collection)
        return (known.name_of(cell) if known else "") or cell[0]

    def trash(self, *, scope: str | None = None) -> list[TrashEntry]:
        """The records that went because a peer had them no more, the latest first; of all scopes if none is named.

        They stay for TRASH_KEPT_MS, and not more than TRASH_ROWS_MAX of them (limits.py).
        """
        from fieldsync.trash import entries

        with self.replica.store.reading() as reader:
            return entries(reader, self._asked(reader, scope))

    def restore(self, *some: TrashEntry) -> None:
        """Make records of the trash again, in one transaction: new records with the values that they had.

        AlreadyExists where a record of the key lives; NotFound where the trash has it no more.
        """
        from fieldsync.trash import restore

        with self.replica.writing() as batch:
            restore(batch, some)

    def audit(
        self,
        of: type[Record] | str | None = None,
        key: str | None = None,
        *,
        scope: str | None = None,
        since: datetime | None = None,
        most: int = 1_000,
    ) -> list[AuditEntry]:
        """The last so many entries of the audit log, of one collection, key or scope if one is named; the oldest first.

        since: what landed from then on. NotFound where the file keeps no log; fs.open(..., audit=True) begins one.
        """
        from fieldsync.audit import entries

        wanted = {"collection": self.collection(of).name if of else None, "key": key, "scope": scope}
        with self.replica.store.reading() as reader:
            if not reader.is_audited():
                raise NotFound(f"{self.path} keeps no audit log; fieldsync.open(..., audit=True) begins one")
            return entries(reader, wanted, since, most, self._device_of(reader))

    def trim_audit(
        self, *, older_than: timedelta = timedelta(milliseconds=AUDIT_KEPT_MS), keep: int = AUDIT_ROWS_MAX
    ) -> int:
        """Forget what of the audit log landed longer ago than that, and all but the last `keep` rows; how many went."""
        before_ms = self.replica.wall_ms() - older_than // timedelta(milliseconds=1)
        return self.replica.trim_audit(before_ms, keep)

    def refused(self) -> list[RefusedChanges]:
        """What peers refused of the changes here, and why, scope by scope; they stay until somebody takes them."""
        from fieldsync.trust.refusals import entries

        with self.replica.store.reading() as reader:
            return entries(reader)

    def why(self, of: type[Record] | str, key: str, *, scope: str | None = None) -> Why:
        """Why a record is here or is not: print(db.why("orders", "o-17")). All scopes are asked if none is named."""
        from fieldsync.why import why

        with self.replica.store.reading() as reader:
            return why(self._deeds(reader), self.collection(of).name, key, self._asked(reader, scope))
