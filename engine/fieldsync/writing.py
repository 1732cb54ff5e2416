"""Writing records: what `db.write()` gives."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fieldsync import record
from fieldsync.draft import Draft
from fieldsync.errors import AlreadyExists, DataError, NotFound, SchemaError
from fieldsync.reading import find, find_each, only, values_of
from fieldsync.schema import BaseRecord
from fieldsync.transaction import KIND_NAMES, KINDS, check_names
from fieldsync.warm import WarmRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fieldsync.conflicts import Claim, Conflict, LateEdit
    from fieldsync.pending import Pending
    from fieldsync.replica import WriteBatch
    from fieldsync.schema import Collection, Record, Snapshot
    from fieldsync.store import Reader, Row, Writer

R = TypeVar("R", bound=BaseRecord)
KEY_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"  # in the order of their codes
KEY_RANDOM_BITS = 84
_NONE: Mapping[str, str] = MappingProxyType({})  # what was deleted of most collections


def new_key(wall_ms: int, chance: int) -> str:
    """A key of 22 characters that sorts by time: 48 bits of milliseconds, 84 random ones."""
    number = (wall_ms & ((1 << 48) - 1)) << KEY_RANDOM_BITS | chance
    return "".join(KEY_ALPHABET[number >> shift & 63] for shift in range(126, -1, -6))


class Transaction:
    """What `db.write()` gives: reads see its own writes; all of it lands together, or nothing."""

    def __init__(
        self, batch: WriteBatch, collection: Callable[[Any], Collection], generate_key: Callable[[], str]
    ) -> None:
        self._batch: WriteBatch | None = batch
        self._collection_of = collection
        self._collections: dict[Any, Collection] = {}  # those that were asked for
        self._generate_key = generate_key
        self._created: dict[Draft, Pending] = {}
        self._found: dict[Draft, Row] = {}
        self._erased: list[tuple[Collection, Pending]] = []  # that have fields which are erased
        self._wishes: dict[Draft, str] = {}  # scopes to move to
        self._numbers: dict[str, int] = {}  # of collections
        self._drafts: dict[tuple[str, str], dict[str, Draft | None]] = {}  # (collection, key) -> scope -> None: deleted
        self._deleted: dict[str, dict[str, str]] = {}  # collection -> key -> scope, of records without a draft

    @overload
    def create(self, of: type[R], /, *, scope: str, key: str | None = None, **fields: Any) -> R: ...
    @overload
    def create(self, of: str, /, *, scope: str, key: str | None = None, **fields: Any) -> Snapshot: ...
    def create(self, of: Any, /, *, scope: str, key: str | None = None, **fields: Any) -> Any:
        """A new record, as a draft. Without a key it gets one that sorts by time. AlreadyExists where the key lives."""
        collection = self._collection(of)
        key = self._generate_key() if key is None else key
        check_names(scope, key)
        draft = Draft.create(collection, key, scope, fields)
        pending = self._pending(collection, scope, key)
        if pending.is_live:
            raise AlreadyExists(f"{collection.name} {key!r} exists in scope {scope!r}; use tx.update(...)")
        pending.creates = True
        self._created[draft] = pending
        self._drafts_of(collection, key)[scope] = draft
        return draft.record

    @overload
    def get(self, of: type[R], /, key: str, *, scope: str | None = None) -> R: ...
    @overload
    def get(self, of: str, /, key: str, *, scope: str | None = None) -> Snapshot: ...
    def get(self, of: Any, /, key: str, *, scope: str | None = None) -> Any:
        """A record as a draft: set its attributes. NotFound without one, AmbiguousKey with several in other scopes."""
        return self._draft(self._collection(of), key, scope).record

    def update(self, of: type[Record] | str, /, key: str, *, scope: str | None = None, **fields: Any) -> None:
        """Set some fields of a record. NotFound, AmbiguousKey as get."""
        draft = self._draft(self._collection(of), key, scope)
        for name, value in fields.items():
            draft.assign(name, value)

    def delete(self, of: type[Record] | str, /, *keys: str, scope: str | None = None) -> None:
        """Delete records; many together are looked up at once.

        NotFound and AmbiguousKey as get, LimitExceeded for more than a transaction may change: then none is deleted.
        """
        collection = self._collection(of)
        known, fresh = self._met(collection, keys)
        drafts = [self._draft(collection, key, scope) for key in known]
        going = find_to_delete(self._open_batch().writer, collection, fresh, scope)
        begun = [self._pending_of(draft) for draft in drafts]
        for name, rows in going.items():
            self._open_batch().scope(name).check_room(len(rows))
        for pending in begun:
            pending.delete()
        for draft in drafts:
            self._drafts[collection.name, draft.record.key][draft.record.scope] = None
            draft.close()
        for name, rows in going.items():
            self._open_batch().scope(name).delete(self._number(collection), collection.name, rows)
            self._deleted.setdefault(collection.name, {}).update(dict.fromkeys([row.key for row in rows], name))

    def _met(self, collection: Collection, keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Of some keys those that the transaction did something to, and the others, once each."""
        deleted = self._deleted.get(collection.name, _NONE)
        if not self._drafts and not deleted:
            return [], list(dict.fromkeys(keys))
        known = {key: key in deleted or (collection.name, key) in self._drafts for key in keys}
        return [key for key in known if known[key]], [key for key in known if not known[key]]

    def move(self, of: type[Record] | str, /, key: str, *, to: str, scope: str | None = None) -> None:
        """Ask for a record to be moved to another scope. NotFound, AmbiguousKey as get.

        The hub does it, as soon as it has heard of it: at a hub when the transaction ends, elsewhere with a sync. Until
        then the record stays where it is, can be edited, and db.why(...) tells of the wish; to="where it is" takes it
        back. What others write meanwhile follows the record.
        """
        check_names(to, key)
        self._wishes[self._draft(self._collection(of), key, scope)] = to

    def settle(self, conflict: Conflict, claim: Claim | None = None) -> None:
        """End a conflict: keep what the record reads, or take another of its claims.

        NotFound where it does not stand as it was any more: somebody has settled it, or written there. An ordinary
        write of the field, on tx.get(...) or by tx.update(...), ends it as well, with whatever value.
        """
        from fieldsync.conflicts import stands  # rare things load on first use, so that an import is quick

        taken = conflict.winner if claim is None else claim
        if taken not in conflict.claims:
            raise DataError(f"{taken!r} is no claim of this conflict; to end it otherwise, write {conflict.field!r}")
        draft = self._draft(self._collection(conflict.collection), conflict.key, conflict.scope)
        row = self._found.get(draft)
        if row is None or not stands(self._open_batch().writer.dictionary, row.packed, conflict):
            name = f"{conflict.collection} {conflict.key!r}"
            raise NotFound(f"{name}: the conflict of {conflict.field!r} is not in the ledger as it was; look again")
        draft.keep((conflict.stored_as, KINDS["register"]), taken.value)

    def erase(self, of: type[Record] | str, /, key: str, field: str, *, scope: str | None = None) -> None:
        """Take all that a record holds in a field away, on all replicas: it reads as if it had never been written.

        field: a declared one, or the name under which another version of the app stores it. What is written to it
        apart, by who had not heard of this, stays. The transaction itself goes on reading it. NotFound, AmbiguousKey as
        get; DataError where the record is new, or the field is written in the same transaction.
        """
        from fieldsync.erasing import cells_named

        collection = self._collection(of)
        draft = self._draft(collection, key, scope)
        row = self._found.get(draft)
        if row is None:
            raise DataError(f"{collection.name} {key!r} is created in this transaction: leave {field!r} out of it")
        cells = cells_named(self._open_batch().writer.dictionary, row.packed, collection, field)
        if not cells and field not in collection.places:
            raise NotFound(f"{collection.name} holds no field {field!r} in this record")
        pending = self._pending(collection, draft.record.scope, key, row)
        pending.erased |= cells
        self._erased.append((collection, pending))

    def dismiss(self, late: LateEdit) -> None:
        """Take what was written to a deleted record out of the ledger, on all replicas. NotFound if it is gone."""
        from fieldsync.conflicts import dismiss

        dismiss(self._open_batch(), late)

    def recreate(self, late: LateEdit) -> None:
        """Make a deleted record again, from what was written to it after it was deleted elsewhere.

        NotFound if that is in the ledger no more, AlreadyExists where a record of the key lives.
        """
        from fieldsync.conflicts import recreate

        recreate(self._open_batch(), late)

    def collect(self) -> None:
        """Hand what the drafts were given to the write transaction."""
        for draft in self._open_drafts():
            created = self._created.get(draft)
            if draft in self._wishes:
                self._collect(draft)
            elif created is not None and (given := draft.just_given()) is not None:
                created.plain = draft.collection.cells, given
            elif created is not None or (fields := draft.just_assigned()) is None:
                self._collect(draft)
            elif fields:
                self._pending_of(draft).fields = fields
        for collection, pending in self._erased:
            if twice := sorted(pending.erased & pending.written.keys()):
                name = collection.name_of(twice[0]) or twice[0][0]
                raise DataError(f"{collection.name} {pending.key!r}: {name!r} is erased, and written as well")

    def _collect(self, draft: Draft) -> None:
        """Of a draft of any kind."""
        changes = draft.changes()
        of = draft.collection
        fields = dict(zip(_as_registers(tuple(changes), of.renamed), changes.values(), strict=True))
        fields |= draft.kept()
        if of.record is None and fields:
            row = self._found.get(draft)
            check_kinds(self._open_batch().writer, of.name, row.packed if row else b"", fields)
        fields |= {of.field(name).cell: amount for name, amount in draft.increments().items()}
        elements = {of.field(name).cell: change for name, change in draft.elements().items()}
        splices = {} if draft in self._created else draft.splices()
        if draft in self._created:
            fields |= draft.began_with()
        if draft in self._wishes:
            from fieldsync.carrying import WISH

            fields[WISH] = self._wishes[draft]
        if fields or elements or splices:
            pending = self._pending_of(draft)
            pending.fields, pending.elements, pending.splices = fields, elements, splices

    def close(self) -> None:
        """Refuse further use."""
        self._batch = None
        for draft in self._open_drafts():
            draft.close()

    def _collection(self, of: Any) -> Collection:
        found = self._collections.get(of)
        if found is None:
            found = self._collections[of] = self._collection_of(of)
        return found

    def _open_drafts(self) -> list[Draft]:
        return [draft for drafts in self._drafts.values() for draft in drafts.values() if draft is not None]

    def _open_batch(self) -> WriteBatch:
        if self._batch is None:
            raise DataError("this transaction is over; begin another with db.write()")
        return self._batch

    def _pending(self, collection: Collection, scope: str, key: str, row: Row | None = None) -> Pending:
        return self._open_batch().scope(scope).at(self._number(collection), collection.name, key, row)

    def _number(self, collection: Collection) -> int:
        number = self._numbers.get(collection.name)
        if number is None:
            (number,) = self._open_batch().writer.collection_ids([collection.name])
            self._numbers[collection.name] = number
        return number

    def _drafts_of(self, collection: Collection, key: str) -> dict[str, Draft | None]:
        """What the transaction did to the records of a key so far, by scope."""
        drafts = self._drafts.get((collection.name, key))
        if drafts is None:
            deleted = self._deleted.get(collection.name, _NONE).get(key)
            drafts = self._drafts[collection.name, key] = {} if deleted is None else {deleted: None}
        return drafts

    def _pending_of(self, draft: Draft) -> Pending:
        """What is pending for the record of a draft."""
        pending = self._created.get(draft)
        if pending is None:
            self._open_batch()  # DataError, which says more than that the draft is closed
            face = draft.record
            pending = self._pending(draft.collection, face.scope, face.key, self._found[draft])
        return pending

    def _draft(self, collection: Collection, key: str, scope: str | None) -> Draft:
        """The draft of a record that lives, its own transaction's writes taken in."""
        writer = self._open_batch().writer
        drafts = self._drafts_of(collection, key)
        if scope is not None and (known := drafts.get(scope)) is not None:
            return known
        if scope is None or scope not in drafts:
            for name, row in find_to_edit(writer, collection, key, scope).items():
                if name not in drafts:
                    draft = drafts[name] = Draft(collection, key, name, _shown(collection, writer, row))
                    self._found[draft] = row
        live = {name: draft for name, draft in drafts.items() if draft is not None and scope in (None, name)}
        return live[only(collection, key, live)]


def find_to_edit(writer: Writer, collection: Collection, key: str, scope: str | None) -> dict[str, Row]:
    """As find; of a record at hand the cells are read when they are asked for."""
    known = writer.collection(collection.name) if isinstance(key, str) else None
    warm = writer.at_hand(known.id, key, scope) if known is not None else None
    return dict([warm]) if warm is not None else find(writer, collection, key, scope)


def find_to_delete(writer: Writer, collection: Collection, keys: list[str], scope: str | None) -> dict[str, list[Row]]:
    """The rows of the records of some keys, by scope. NotFound, AmbiguousKey."""
    known, held = writer.collection(collection.name), writer.scope(scope) if scope is not None else None
    if known is not None and held is not None and set(map(type, keys)) == {str}:
        rows = writer.by_key(known.id, held.id, keys)
        if len(rows) == len(keys) and ("".join(keys).isascii() or {row.key for row in rows} == set(keys)):
            return {held.name: rows}  # nearly always
    every = find_each(writer, collection, keys, scope)
    found: dict[str, list[Row]] = {}
    for key in keys:
        name = only(collection, key, every.get(key, {}))
        found.setdefault(name, []).append(every[key][name])
    return found


def _shown(collection: Collection, writer: Writer, row: Row) -> Any:
    """What a row's record shows; of one at hand without a look at its cells, but for the first time."""
    values = row.warm.read(collection) if isinstance(row, WarmRow) else None
    if values is None:
        values = values_of(collection, writer, row.packed)
        if isinstance(row, WarmRow):
            row.warm.note(collection, values)
    return values


def check_kinds(reader: Reader, collection: str, packed: bytes, written: Iterable[tuple[str, int]]) -> None:
    """SchemaError where registers are written, undeclared, that are no registers to the app that declares them.

    As far as a record and the columns of its collection tell.
    """
    known = reader.collection(collection)
    (stamps,) = record.stamps(reader.dictionary, [packed])
    cells = {cell[:2] for cell in stamps} | {column.cell for column in (known.columns if known else ())}
    others = {name: kind for name, kind in cells if (name, KINDS["register"]) not in cells}
    for name, _ in written:
        if name in others:
            kind = KIND_NAMES.get(others[name], "field of a later version")
            raise SchemaError(
                f"{collection}.{name} is a {kind} to the app that declares it: "
                "give its class to fieldsync.open(...) to write it"
            )


@lru_cache(maxsize=1024)
def _as_registers(names: tuple[str, ...], renamed: tuple[tuple[str, str], ...]) -> tuple[tuple[str, int], ...]:
    stored = dict(renamed)
    return tuple([(stored.get(name, name), KINDS["register"]) for name in names])
