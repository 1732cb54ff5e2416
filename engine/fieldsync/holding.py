"""What an open file holds: the collections that the app declares, scopes, which come and go, and open editors."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from fieldsync.errors import NotFound, SchemaError
from fieldsync.leaving import pending
from fieldsync.limits import REMOVALS_KEPT_MS
from fieldsync.schema import Collection, undeclared
from fieldsync.transaction import check_names

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from fieldsync.bundles.bundle import BundleReport
    from fieldsync.live import LiveText
    from fieldsync.replica import Replica
    from fieldsync.schema import Record
    from fieldsync.store import Reader, Scope
    from fieldsync.trust.identity import Identity


class ScopeInfo(NamedTuple):
    """What a database holds of one scope."""

    name: str
    records: int
    state: str  # "ready", or "filling" before a first sync is complete
    digest: str  # equal digests at equal contexts: equal records
    changes: int  # in the index, which syncs read
    pending: int  # changes, own and relayed, that no hub is known to have


class Holder:
    """A replica with the collections that are declared of it; see database.Database."""

    def __init__(
        self,
        replica: Replica,
        declared: Iterable[type[Record]] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.replica = replica
        self.path = replica.store.path
        self._collections: dict[str, Collection] = {}
        self._editors: WeakSet[LiveText] = WeakSet()
        for record_class in declared:
            collection = Collection.of(record_class)
            if self._collections.setdefault(collection.name, collection) is not collection:
                raise SchemaError(f"two classes declare the collection {collection.name!r}")
        replica.store.declare([collection.row for collection in self._collections.values()], progress)

    def close(self) -> None:
        """Write what editors hold (see edit), raising as live.close() does; stop watches, close the file."""
        with ExitStack() as stack:  # which calls all of them, whatever one raises
            stack.callback(self.replica.close)
            for live in self._editors:
                if not live.is_closed:
                    stack.callback(live.close)

    def collection(self, of: type[Record] | str) -> Collection:
        """The collection that a class or a name stands for."""
        if isinstance(of, str):
            return self._collections.get(of) or undeclared(of)
        collection = Collection.of(of)
        if self._collections.get(collection.name) is not collection:
            raise SchemaError(f"{of.__name__} was not given to fieldsync.open(...)")
        return collection

    def scopes(self) -> list[ScopeInfo]:
        """The scopes held here, by name."""
        with self.replica.store.reading() as reader:
            return [
                ScopeInfo(
                    scope.name,
                    reader.count_records(scope.id),
                    "ready" if scope.ready else "filling",
                    scope.digest.hex(),
                    reader.count_changes(scope.id),
                    0 if self.replica.takes_all else pending(reader, scope).count(),
                )
                for scope in reader.scopes()
            ]

    def enter(self, *scopes: str, priority: int | None = None) -> None:
        """Hold these scopes from now on: the next syncs fill them.

        priority: scopes of higher numbers sync first; 0 at first, and as it was if None.
        """
        for name in scopes:
            check_names(name, "-")
        with self.replica.store.writing() as writer:
            for name in scopes:
                scope = writer.enter(name)
                if priority is not None:
                    writer.save_scope(scope._replace(priority=priority))
        self.replica.announce(scopes)

    def leave(
        self,
        *scopes: str,
        lose_pending: bool = False,
        escrow: str | os.PathLike[str] | None = None,
        whole: bool = False,
        identity: Identity | None = None,
        plaintext: bool = False,
        progress: Callable[[BundleReport], object] | None = None,
    ) -> BundleReport | None:
        """Hold these scopes no longer: their records go from this file, and stay wherever else they are.

        NotDelivered while a hub is not known to have all that is here, other devices' changes included: sync with it
        first. lose_pending: leave all the same, and lose what nobody else has. escrow: the path of a new bundle into
        which what no hub is known to have is written before the scopes go; a hub takes it by import_bundle.
        whole: write all of the scopes into it, so that import_bundle brings them back as they were, and the next sync
        just what has changed since. identity: as whom it is sealed, to the hubs, and if whole to this device;
        plaintext: it is not sealed, though the database is an organisation's.
        """
        if escrow is None and whole:
            raise ValueError("whole=True is about an escrow: name its file")
        if escrow is None:
            self.replica.leave(list(scopes), lose_pending=lose_pending)
            return None
        from fieldsync.bundles.escrow import leave_with_escrow

        return leave_with_escrow(
            self.replica,
            list(scopes),
            escrow,
            lose_pending=lose_pending,
            whole=whole,
            identity=identity,
            plaintext=plaintext,
            progress=progress,
        )

    def trim(
        self, *scopes: str, older_than: timedelta = timedelta(milliseconds=REMOVALS_KEPT_MS), keep: int | None = None
    ) -> int:
        """Forget removals older than that, and all but the `keep` latest of each scope; returns how many changes went.

        A deleted record then takes no room here, and a device that comes back after any absence still learns of it: by
        comparing what lives. Removals that name changes which have not come here yet stay. All scopes if none is named.
        """
        self._check_held(list(scopes))
        before_ms = self.replica.wall_ms() - older_than // timedelta(milliseconds=1)
        return self.replica.trim(list(scopes) or None, before_ms=before_ms, keep=keep)

    def _asked(self, reader: Reader, scope: str | None) -> list[Scope]:
        """The scope of that name, or all; NotFound."""
        if scope is not None:
            self._check_held([scope])
        return [held for held in reader.scopes() if scope in (None, held.name)]

    def _check_held(self, scopes: list[str]) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of names, not one name")
        with self.replica.store.reading() as reader:
            for name in scopes:
                if reader.scope(name) is None:
                    raise NotFound(f"the scope {name!r} is not held here; db.enter(...) it first")
