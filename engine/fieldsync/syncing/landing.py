"""Landing what comes of a scope in a session: a chunk in one transaction, with the last one all that Done brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.syncing import claims, existence, mending, taking
from fieldsync.syncing.exchange import Superseded
from fieldsync.syncing.report import Refused
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from fieldsync.changes import Chunk
    from fieldsync.replica import Replica, WriteBatch
    from fieldsync.store import Scope, Writer
    from fieldsync.syncing.report import Report
    from fieldsync.syncing.shared import Shared
    from fieldsync.trust.rights import Reason, Trust


class Landing:
    """What one session writes of its peer's."""

    def __init__(self, replica: Replica, report: Report) -> None:
        self._replica = replica
        self._report = report

    def take(self, shared: Shared, chunk: Chunk | None, trust: Trust) -> None:
        """Land a chunk of a stream that goes on, unless another session has the scope, or the peer may not."""
        if shared.dropped or trust.rights.why_not_write(shared.name):
            return
        try:
            with self._replica.writing() as batch:
                batch.writer.save_scope(self._land(batch, shared, chunk, trust))
        except Superseded:
            self._supersede(shared)
        else:
            self._count(batch, shared)

    def end(self, shared: Shared, chunk: Chunk | None, trust: Trust, *, yields: bool) -> None:
        """Land the last chunk, if there is one, and Done. yields: where records differ without a reason, ours go.

        Where more would go than the peer may take away, what came lands, and nothing is joined: a hub will say the
        same, or not. So it is where a change was refused. Of what did not come, only as much is joined as is believed.
        """
        if shared.dropped:
            return
        if reason := trust.rights.why_not_write(shared.name):
            self._leave_out(shared, reason)
            return
        try:
            with self._replica.writing() as batch:
                scope = self._land(batch, shared, chunk, trust)
                self._check_authors(batch.writer, scope, shared, trust)
                if shared.refused:
                    batch.writer.save_scope(scope)
                else:
                    self._join(batch, shared, scope, trust, yields=yields)
        except Superseded:
            self._supersede(shared)
        except existence.TooMuch:
            self.take(shared, chunk, trust)
            shared.dropped = True
            self._report.waiting.append(shared.name)
        else:
            self._count(batch, shared)
            shared.dropped = bool(shared.refused)

    def _check_authors(self, writer: Writer, scope: Scope, shared: Shared, trust: Trust) -> None:
        """Refuse what a device says that it has of authors from whom it may bring nothing."""
        assert shared.peer is not None
        if trust.is_hub or shared.refused:
            return
        if reason := taking.why_not_join(writer, scope, shared.peer.context, trust.rights):
            self._refuse(shared, reason)

    def _leave_out(self, shared: Shared, reason: Reason) -> None:
        """Take nothing of a stream, and let others write the scope. Where it held nothing new, that is all right."""
        assert shared.own is not None
        assert shared.peer is not None
        if shared.peer.context - shared.own.context:
            self._refuse(shared, reason)
            shared.dropped = True
        with self._replica.store.writing() as writer:
            scope = writer.scope(shared.name)
            if scope is not None and scope.taker == shared.token:
                writer.save_scope(scope._replace(taker=b""))

    def _refuse(self, shared: Shared, reason: Reason) -> None:
        if not shared.refused:
            self._report.refusals.append(Refused(shared.name, reason, is_ours=False))
        shared.refused = reason

    def _supersede(self, shared: Shared) -> None:
        shared.dropped = True
        self._report.superseded.append(shared.name)

    def _count(self, batch: WriteBatch, shared: Shared) -> None:
        if shared.name == CONTROL:
            return  # a report is of the app's records
        self._report.changes_received += batch.received
        self._report.changes_ahead += batch.ahead
        self._report.records_changed += batch.changed()

    def _land(self, batch: WriteBatch, shared: Shared, chunk: Chunk | None, trust: Trust) -> Scope:
        """Write a chunk; returns the scope, not yet saved."""
        assert shared.own is not None
        assert shared.peer is not None
        scope = batch.writer.scope(shared.name)
        if scope is None or scope.taker != shared.token:
            raise Superseded
        if chunk is None:
            return scope
        scope, taken = taking.take(
            batch.writer, scope, shared.own.context, shared.peer.context, chunk, self._replica.wall_ms(), trust.rights
        )
        if taken.refused:
            self._refuse(shared, taken.refused)
        if not trust.rights.knows_all:
            claims.check_size(scope, shared.own.context, batch.writer.context(scope.id))
        batch.rights = trust.rights
        batch.receive(shared.name, taken)
        batch.writer.drop_begun(scope.id)
        return scope

    def _join(self, batch: WriteBatch, shared: Shared, scope: Scope, trust: Trust, *, yields: bool) -> None:
        """Done: take away what is gone, join the giver's context and its floor, and give way to its records."""
        assert shared.peer is not None
        writer, now_ms = batch.writer, self._replica.wall_ms()
        believed = claims.believed(writer, scope, shared.peer, trust.rights)
        if believed is None:
            raise existence.TooMuch
        scope = scope._replace(taker=b"")  # so that a change may come along with the next greeting
        is_kept = shared.name == CONTROL  # nothing is ever taken out of it
        known = shared.gone.known() if shared.gone is not None and not is_kept else None
        gives_way = shared.compares_all and yields
        removed = 0
        if known is not None:
            if gives_way:
                mending.check(writer, scope, known, trust)
            scope, touched = existence.drop(writer, scope, known, trust, now_ms)
            batch.note(shared.name, touched, Context())
            removed = sum(not one.after for one in touched)
        scope = taking.finish(writer, scope, believed)
        batch.join(shared.name, believed.context)
        writer.save_scope(scope)
        replaced = mending.give_way(batch, shared.name, known, now_ms) if known is not None and gives_way else 0
        if shared.mended is not None:
            shared.mended.removed += removed
            shared.mended.replaced += replaced
