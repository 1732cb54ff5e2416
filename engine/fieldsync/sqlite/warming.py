"""The records at hand (warm.py) of a write transaction, and of the next one: what is read and written of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fieldsync.limits import TAIL_PIECES_MAX, TAILS_MAX
from fieldsync.query import column_value
from fieldsync.sqlite import tails
from fieldsync.sqlite.declaring import Declarer
from fieldsync.sqlite.layout import record_table
from fieldsync.warm import WarmRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fieldsync.store import Row
    from fieldsync.warm import Warm


class Warming(Declarer):
    """Reads and writes them; see store.Writer."""

    _warm: dict[tuple[int, str], Warm]  # (collection, key) -> the record of that key that was edited last

    def at_hand(self, collection: int, key: str, scope: str | None) -> tuple[str, Row] | None:
        """The one record of a key, in a scope or in all, and that scope's name, if it is at hand."""
        warm = self._warm.get((collection, key))
        if warm is None or not self._may_append(warm):
            return None
        if scope is None:
            sql = f"SELECT name FROM fs_scope s CROSS JOIN {record_table(collection)} ON _scope=s.id AND _key=?"
            names: Any = self._point.execute(sql, (key,)).fetchall()
            scope = str(names[0][0]) if len(names) == 1 else ""
        held = self.scope(scope)
        if held is None or held.id != warm.scope:
            return None
        return scope, WarmRow.of(warm, partial(self._cells_of, warm))

    def _cells_of(self, warm: Warm) -> bytes:
        (row,) = self.by_id(warm.collection, [warm.id])
        return row.packed

    def _may_append(self, warm: Warm) -> bool:
        """Whether a record's columns show its texts as they are, and nobody keeps a log of what becomes of them."""
        form = self._form(warm.collection)
        converts = any(column.conversion for column in form.columns if column.cell in warm.held)
        return not (form.search or converts or self.is_audited())

    def keep_at_hand(self, warm: Warm) -> None:
        """Have a record at hand for its next edit."""
        place = warm.collection, warm.key
        known = self._warm.pop(place, warm)
        if known is not warm:
            _let_go(known)
        warm.is_true = True
        self._warm[place] = warm
        while len(self._warm) > TAILS_MAX:
            _let_go(self._warm.pop(next(iter(self._warm))))

    def append(self, warm: Warm, piece: bytes, shown: dict[tuple[str, int], Any]) -> None:
        """Lay new cells beside a record at hand, and let its columns show what these cells make of them."""
        if not self._tables().has_tails:
            self._db.execute(tails.TABLE)
            self._schema = self._tables()._replace(has_tails=True)
        if warm.pieces == TAIL_PIECES_MAX:
            self.fold(warm.collection, [warm.id])
            warm.pieces = 0
        if warm.pieces == 0:
            self._make_room()
            tails.drop(self._db, [(warm.collection, warm.id)])  # what a file that was damaged may have left there
        tails.put(self._db, warm.collection, warm.id, warm.pieces, piece)
        warm.pieces += 1
        values = {cell: column_value(value) for cell, value in shown.items()}
        tails.show(self._db, warm.collection, warm.id, self._form(warm.collection).columns, values)

    def _make_room(self) -> None:
        """Have pieces beside few rows, so that each reader asks for few. Damaged ones stay, for a repair."""
        found = sorted((collection, row) for collection, rows in tails.tailed(self._db).items() for row in rows)
        for collection, number in found[: max(0, len(found) + 1 - TAILS_MAX)]:
            if all(row.packed != tails.DAMAGED for row in self.by_id(collection, [number])):
                self.fold(collection, [number])

    def _take_over(self, collection: int, rows: Sequence[tuple[Any, ...]]) -> None:
        super()._take_over(collection, rows)
        some = {row[0] for row in rows} if self._warm else ()
        self._cool(lambda warm: warm.collection == collection and warm.id in some)

    def _forget_tails(self, scope: int) -> None:
        """Take away what lies beside the rows of a scope, which go."""
        self._cool(lambda warm: warm.scope == scope)
        for known in self.collections() if self._tables().has_tails else ():
            tails.forget_scope(self._db, known.id, scope)

    def _cool(self, is_gone: Callable[[Warm], bool]) -> None:
        """Have records at hand no more, that are written whole or go."""
        for place, warm in list(self._warm.items()):
            if is_gone(warm):
                _let_go(self._warm.pop(place))


def _let_go(warm: Warm) -> None:
    """Nobody follows any more what becomes of the record: a draft that has it reads it anew."""
    warm.is_true, warm.pieces = False, 0
