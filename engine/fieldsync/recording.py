"""Recording in the audit log what a transaction landed, at its end: from what was merged, and what came of it.

A row tells what one change did to one record: made it, removed it, or wrote one field of it. What it replaced is what
the record read until then, so that changes which land together read as if they had come one by one.
"""

from __future__ import annotations

import json
from decimal import Decimal
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldsync import carrying, codec, record, texts
from fieldsync.moving import wish_of
from fieldsync.query import column_value
from fieldsync.store import AuditRow
from fieldsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.apply import Arrival, Landed, NewRecords, Target
    from fieldsync.record import Birth, Dictionary, Outcome, Removal
    from fieldsync.store import Incarnation, Writer

Field = tuple[str, int]  # name, kind
Shown = tuple[Any, Any]  # what a field read, and reads


class _By(NamedTuple):
    """Who did something: the columns that say so."""

    author: bytes | None = None
    seq: int | None = None
    stamp: int | None = None


class _Cells(NamedTuple):
    """What one change wrote to one field."""

    field: Field
    author: int
    seq: int
    time: int


def record_landed(writer: Writer, wall_ms: int) -> None:
    """Append what a transaction landed to the log, if the file keeps one."""
    landed = writer.take_landed()
    if landed:
        writer.put_audit(_Recorder(writer, wall_ms).rows(landed))


class _Recorder:
    """The rows of one transaction."""

    def __init__(self, writer: Writer, wall_ms: int) -> None:
        self._dictionary = writer.dictionary
        self._fields = _Fields(writer.dictionary)
        self._wall_ms = wall_ms
        self._moving: set[tuple[str, str, str | None]] = set()  # (scope, collection, key) that records go to

    def rows(self, every: list[Landed]) -> Iterator[AuditRow]:
        """In the order in which it landed."""
        for landed in every:
            for new in landed.news:
                yield from self._created(landed.scope, new)
            removers = {removal: arrival for arrival in landed.arrivals for removal in arrival.removals}
            for target, outcome in zip(landed.targets, landed.outcomes, strict=True):
                if outcome is not None:
                    yield from self._merged(landed, target, outcome, removers)

    def _created(self, scope: str, new: NewRecords) -> Iterator[AuditRow]:
        by = self._by(*new.arrival.dot, new.arrival.time)
        for _, key, packed in new.records:
            values = as_json(named(self._fields.read(packed)))
            yield AuditRow(self._wall_ms, scope, new.collection_name, key, "create", None, None, values, True, *by)

    def _merged(
        self, landed: Landed, target: Target, outcome: Outcome, removers: dict[Removal, Arrival]
    ) -> Iterator[AuditRow]:
        place = landed.scope, target.collection_name, target.key
        change = _Change(self._dictionary, self._fields, target, outcome)
        going = change.wish if change.wish not in (None, landed.scope) else None
        if going is not None and change.is_removed:
            self._moving.add((going, *place[1:]))
        for kind, field, shown, won, by in [
            *change.removals(removers, landed.arrivals, "move" if going is not None else "delete"),
            *change.writes("move" if place in self._moving else "create"),
        ]:
            old, new = (None if value is None else as_json(value) for value in shown)
            collection = target.collection_name or None
            yield AuditRow(
                self._wall_ms, landed.scope, collection, target.key, kind, field, old, new, won, *self._by(*by)
            )

    def _by(self, author: int = 0, seq: int = 0, time: int = 0) -> _By:
        return _By(self._dictionary.author(author), seq, time) if author else _By()


class _Fields:
    """Reads records by the names and kinds of cells: a register and a text, say, may have one name."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._fields = {field[0]: field for field in dictionary.field_names}
        self._is_plain = len(self._fields) == len(dictionary.field_names)  # each name is of one kind

    def read(self, packed: bytes) -> dict[Field, Any]:
        """What a packed record reads, as far as the kinds are known."""
        if self._is_plain:
            return {self._fields[name]: value for name, value in record.read_all(self._dictionary, packed).items()}
        return record.read_cells(self._dictionary, packed)


class _Change:
    """What became of one record, change by change: each as (kind, field, what it read and reads, won, by whom)."""

    def __init__(self, dictionary: Dictionary, fields: _Fields, target: Target, outcome: Outcome) -> None:
        self._dictionary = dictionary
        self._read = fields.read
        self._target = target
        self._live, self._headless = outcome[:2]
        self._before = target.row.packed if target.row else b""
        self._values = self._read(self._before)  # as it reads so far
        self._after = self._read(self._live)
        self._updates: dict[Field, tuple[Any, ...]] = {}  # of texts, lists and maps, so far
        self.wish = wish_of(dictionary, self._before)
        self._living: set[Incarnation] = set()
        self._gone: set[Incarnation] = set()
        if target.removals or target.created:
            self._living = {birth[:3] for birth in record.births(self._live)}
            self._gone = {birth[:3] for birth in record.births(self._before)} - self._living

    @property
    def is_removed(self) -> bool:
        """Whether an incarnation of it went."""
        return bool(self._gone)

    def _births(self, pieces: tuple[bytes, ...]) -> list[Birth]:
        """What pieces create."""
        if not self._target.created:
            return []
        return [birth for piece in pieces for birth in record.births(piece) if birth.time]

    def removals(self, removers: dict[Removal, Arrival], arrivals: list[Arrival], kind: str) -> Iterator[_Told]:
        """What was taken away; kind: of what takes the record away."""
        for removal in dict.fromkeys(self._target.removals):
            arrival = removers.get(removal)
            if arrival is None and arrivals:
                continue  # one that was here before: it hits what comes late, which `writes` tells
            by = (*arrival.dot, arrival.time) if arrival else ()
            if removal[:3] in self._gone:
                yield _Told(kind if arrival else "drop", None, (named(self._values), None), True, by)
                self._values = dict(self._after) if self._living else {}
            elif removal[:3] in self._living:
                yield from self._elements("edit" if arrival else "drop", by)
            else:
                for orphan in self._target.orphans:
                    if orphan.incarnation == removal[:3]:
                        values = named(self._read(orphan.packed))
                        yield _Told("dismiss" if arrival else "drop", None, (values, None), True, by)

    def _elements(self, kind: str, by: tuple[int, ...]) -> Iterator[_Told]:
        """The elements that sets have no more, and the fields that were erased."""
        for field, elements in self._values.items():
            if isinstance(elements, tuple):
                kept = set(map(codec.encode, self._after.get(field, ())))
                gone = [element for element in elements if codec.encode(element) not in kept]
                if gone:
                    yield _Told(kind, field[0], (gone, None), True, by)
                    self._values[field] = tuple([element for element in elements if codec.encode(element) in kept])
            elif field not in self._after:
                yield _Told(kind, field[0], (elements, None), True, by)
            elif self._is_uncovered(field):
                yield _Told(kind, field[0], (elements, self._after[field]), True, by)
                self._values[field] = self._after[field]
        self._values = {field: value for field, value in self._values.items() if field in self._after}

    def _is_uncovered(self, field: Field) -> bool:
        """Whether a register reads what was written apart from what was erased, though nobody wrote to it now."""
        if field[1] != Kind.REGISTER or codec.encode(self._values[field]) == codec.encode(self._after[field]):
            return False
        every = record.stamps(self._dictionary, list(self._target.pieces))
        return all((name, kind) != field for stamps in every for name, kind, *_ in stamps)

    def writes(self, kind: str) -> Iterator[_Told]:
        """What was written; kind: of what makes the record."""
        births = self._births(self._target.pieces)
        if births and kind == "move":  # by several changes of the hub's, which say the same as one
            yield _Told(kind, None, (None, named(self._after)), bool(self._live), births[0][:2] + births[0][3:])
            return
        for cells, piece in sorted(self._pieces(), key=lambda some: max([one.time for one in some[0]], default=0)):
            births = self._births((piece,))
            for author, seq, n, time in births:
                values, won = self._read(piece), (author, seq, n) in self._living
                yield _Told(kind, None, (None, named(values)), won, (author, seq, time))
                if won:
                    self._values |= values
            if not births:
                yield from self._written(cells, piece)

    def _pieces(self) -> Iterator[tuple[list[_Cells], bytes]]:
        pieces = self._target.pieces
        for piece, stamps in zip(pieces, record.stamps(self._dictionary, list(pieces)), strict=True):
            latest: dict[Field, _Cells] = {}
            for name, kind, author, seq, time in sorted(stamps, key=lambda stamp: stamp[4]):
                latest[name, kind] = _Cells((name, kind), author, seq, time)
            yield list(latest.values()), piece

    def _written(self, cells: list[_Cells], piece: bytes) -> Iterator[_Told]:
        """What a change wrote to a record that is here, or was."""
        every = record.stamps(self._dictionary, [self._live, *[orphan[3] for orphan in self._headless]])
        here, late = ({stamp[:4] for stamps in some for stamp in stamps} for some in (every[:1], every[1:]))
        values = self._read(piece)
        for one in cells:
            stamp = (*one.field, one.author, one.seq)
            if stamp not in here and stamp not in late:
                continue  # it had been overwritten before it came
            won = stamp in here and self._is_topmost(one)
            shown, reads = self._shown(one, piece, values.get(one.field), is_late=stamp not in here)
            if won:
                self._values[one.field] = reads
            yield _Told("edit", one.field[0], shown, won, (one.author, one.seq, one.time))

    def _is_topmost(self, cells: _Cells) -> bool:
        """Whether a register reads what was written, and nothing that was written apart from it."""
        number = self._dictionary.field_ids[cells.field]
        ((*rivals,),) = record.rivals(self._dictionary, [self._live])
        return all(claims[0][:2] == (cells.author, cells.seq) for field, claims in rivals if field == number)

    def _shown(self, cells: _Cells, piece: bytes, value: Any, *, is_late: bool) -> tuple[Shown, Any]:
        """What to show of a field before and after it was written to, and what it reads then."""
        kind, now = cells.field[1], self._values.get(cells.field)
        if cells.field == carrying.WISH:
            value = wish_of(self._dictionary, piece)
            return (self.wish, value), value
        if kind == Kind.COUNTER and not is_late:
            total = self._counted(cells, piece, now)
            return (now, total), total
        if kind == Kind.SET:
            return (None, value), tuple({codec.encode(one): one for one in (*(now or ()), *(value or ()))}.values())
        if kind in texts.KINDS:
            number = self._dictionary.field_ids[cells.field]
            held = () if is_late else self._updates.get(cells.field) or self._held(number)
            updates = codec.Updates((*held, *record.updates(self._dictionary, piece).get(number, ())))
            updates.kind = kind
            self._updates[cells.field] = tuple(updates)
            reads = texts.shown(updates)
            return difference(None if is_late else now, reads), reads
        return (now, value), value

    def _held(self, number: int) -> tuple[Any, ...]:
        return tuple(record.updates(self._dictionary, self._before).get(number, ()))

    def _counted(self, cells: _Cells, piece: bytes, now: Any) -> Any:
        """What a counter reads after an author has counted."""
        counter = cells.field[0], self._dictionary.author(cells.author)
        came, known = carrying.totals(self._dictionary, [piece, self._before])
        try:
            for incarnation, totals in came.items():
                before: Any = known.get(incarnation, {}).get(counter, 0)
                now = codec.add(now or 0, codec.subtract(totals.get(counter, before), before))
        except ArithmeticError:  # infinities that cancel each other
            return self._after.get(cells.field)
        return now


class _Told(NamedTuple):
    """One change of a record, as a row tells it."""

    kind: str
    field: str | None  # None: all of it
    shown: Shown
    won: bool
    by: tuple[int, ...]  # author, seq and time; empty where a peer had something no more


# Values as JSON -------------------------------------------------------------------------------------------------------


def named(values: dict[Field, Any]) -> dict[str, Any]:
    """Values by the names of fields; of several kinds under one name, all but the first with the kind."""
    names = {name: value for (name, _), value in values.items()}
    if len(names) == len(values):
        return names
    names.clear()
    for name, kind in sorted(values, key=itemgetter(1)):  # registers first
        names[f"{name} ({Kind(kind).name.lower()})" if name in names else name] = values[name, kind]
    return names


def difference(old: Any, new: Any) -> Shown:
    """What differs between two texts, lists or dicts: the parts that went and came, and from where on."""
    if isinstance(new, dict):
        was = {name: as_json(value) for name, value in (old or {}).items()}
        now = {name: as_json(value) for name, value in new.items()}
        gone = {name: old[name] for name in was if was[name] != now.get(name)}
        return gone, {name: new[name] for name in now if now[name] != was.get(name)}
    before = new[:0] if old is None else old
    first = _alike(before, new)
    last = _alike(before[first:][::-1], new[first:][::-1])
    gone, came = ({"at": first, "is": some[first : len(some) - last]} for some in (before, new))
    return gone, came


def _alike(one: Any, other: Any) -> int:
    """How many characters or items two texts or lists have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def as_json(value: Any) -> str:
    """A value as JSON: what that has not as a text, bytes in hexadecimal; numbers that are not finite as null."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _plain(value: object) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return column_value(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=False).encode
