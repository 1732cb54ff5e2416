"""The packed pieces that a transaction writes: new records, and what it edits in those that live."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, qsort

from bytes cimport Reader, Writer, reader_of, taken, writer_free
from dots cimport Dots, Stamp, add_dot, add_seen, join_dots, write_dots
from packed cimport DONE, pack_incarnation, parse_record
from record cimport (
    HAS_SUB, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, Walk, add_cell, add_incarnation, author_count,
    cell_sorter, field_kind, fields_of, name_of, next_cell, order_addresses, record_free, topmost, walk_of,
)
from fieldsync._native.codec cimport read_value, write_value

import decimal
from decimal import Decimal

cdef object EXACT = decimal.Context(prec=decimal.MAX_PREC, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


cdef int put_value(Writer *w, Cell *cell, Fields *fields, uint64_t field, object value) except -1:
    """Write a new cell's value; the cell remembers where, as an offset while `w` still grows."""
    cdef size_t start = w.size
    if field >= fields.count:
        raise ValueError("a field that the dictionary does not hold")
    try:
        write_value(w, value, 0)
    except TypeError as error:
        raise TypeError(f"{name_of(fields, field)}: {error}") from None
    cell.field = field
    cell.kind = field_kind(fields, field)
    cell.sub = cell.seen = NULL
    cell.sub_size = cell.seen_size = 0
    cell.value = <const uint8_t *>start
    cell.value_size = w.size - start
    return 0


cdef void place(Record *record, const uint8_t *data) noexcept nogil:
    """Turn the offsets of new cells into addresses, once the bytes they point into no longer move."""
    cdef Walk walk = walk_of(record)
    while next_cell(&walk):
        walk.cell.value = data + <size_t>walk.cell.value
        if walk.cell.seen_size:
            walk.cell.seen = data + <size_t>walk.cell.seen


cdef int put_elements(Writer *w, Incarnation *inc, Fields *f, uint64_t field, object subs) except -1:
    """Write the cells of a new set, one an element."""
    cdef bytes element
    cdef Cell *cell
    for element in subs:
        cell = add_cell(inc)
        if cell == NULL:
            raise MemoryError
        put_value(w, cell, f, field, None)
        cell.stamp = inc.name
        cell.sub = <const uint8_t *>PyBytes_AS_STRING(element)
        cell.sub_size = <size_t>PyBytes_GET_SIZE(element)
    return 0


def create(uint64_t author, uint64_t seq, uint64_t time, list rows not None, bytes fields not None):
    """New incarnations: rows of (n, field ids, values) -> a piece each; a value of Ellipsis is left out.

    Of a field whose addresses have subs, the value is a tuple of distinct subs.
    """
    cdef Fields f = fields_of(fields)
    cdef Writer values = Writer(NULL, 0, 0, False)
    cdef Writer scratch = Writer(NULL, 0, 0, False)
    cdef Writer packed = Writer(NULL, 0, 0, False)
    cdef Record record = Record(NULL, 0, 0)
    cdef Incarnation *inc = add_incarnation(&record)
    cdef Cell *cell
    cdef tuple ids, items
    cdef uint64_t field
    cdef Py_ssize_t i
    cdef list out = []
    if inc == NULL:
        raise MemoryError
    inc.name = Stamp(author, seq, time)
    inc.alive = True
    try:
        for n, ids, items in rows:
            inc.n = n
            inc.count = 0
            values.size = 0
            packed.size = 0
            for i in range(len(ids)):
                if items[i] is Ellipsis:
                    continue
                field = ids[i]
                if field < f.count and field_kind(&f, field) & HAS_SUB:
                    put_elements(&values, inc, &f, field, items[i])
                    continue
                cell = add_cell(inc)
                if cell == NULL:
                    raise MemoryError
                cell.stamp = inc.name
                put_value(&values, cell, &f, field, items[i])
            if values.failed:
                raise MemoryError
            place(&record, values.data)
            if inc.count > 1:
                qsort(inc.cells, inc.count, sizeof(Cell), cell_sorter)
            if pack_incarnation(&packed, &scratch, inc) != DONE:
                raise MemoryError
            out.append(taken(&packed))
        return out
    finally:
        record_free(&record)
        writer_free(&values)
        writer_free(&scratch)
        writer_free(&packed)


cdef int add_living(Dots *seen, const Cell *cell) except -1:
    """See a cell, and what that had seen."""
    if not add_dot(seen, cell.stamp.author, cell.stamp.seq) or not add_seen(seen, cell.seen, cell.seen_size):
        raise MemoryError
    return 0


cdef int put_seen(Writer *w, Dots *seen, const Incarnation *inc, uint64_t field, uint64_t author) except -1:
    """Write the seen of a new cell at a register: all that lives there and what that had seen (transitive)."""
    cdef size_t i
    cdef size_t kept = 0
    cdef const Cell *cell
    seen.count = 0
    for i in range(inc.count):
        cell = &inc.cells[i]
        if cell.field == field:
            add_living(seen, cell)
    join_dots(seen, True)
    for i in range(seen.count):
        if not implied(&seen.at[i], inc, author):
            seen.at[kept] = seen.at[i]
            kept += 1
    seen.count = kept
    if kept:
        write_dots(w, seen)
    return 0


cdef inline bint implied(const Stamp *entry, const Incarnation *inc, uint64_t author) noexcept nogil:
    """Own earlier cells and the creation are always seen, and not written down."""
    return entry.author == author or (entry.author == inc.name.author and entry.seq == inc.name.seq)


cdef uint64_t time_above(const Record *record, uint64_t field, uint64_t base) noexcept nogil:
    """The change's own time, or one tick above that field's cells in all incarnations of the key."""
    cdef uint64_t time = base
    cdef Walk walk = walk_of(record)
    while next_cell(&walk):
        if walk.cell.field == field and walk.cell.stamp.time >= time:
            time = walk.cell.stamp.time
            if time < <uint64_t>0x7FFFFFFFFFFFFFFF:
                time += 1
    return time


cdef object own_total(const Incarnation *inc, uint64_t field, uint64_t author):
    cdef size_t i
    cdef Reader r
    for i in range(inc.count):
        if inc.cells[i].field == field and inc.cells[i].stamp.author == author:
            r = reader_of(inc.cells[i].value, inc.cells[i].value_size)
            return read_value(&r)
    return 0


cdef object add(object total, object amount):
    """The sum of two numbers; of Decimals exactly, whatever the thread's context rounds to."""
    if isinstance(total, Decimal) or isinstance(amount, Decimal):
        return EXACT.add(Decimal(total), Decimal(amount))
    return total + amount


cdef bint is_within(const Stamp *dot, object limits) except -1:
    """Whether a dot lies within {author id: highest seq}; within None, all do."""
    return limits is None or dot.seq <= <uint64_t>(<dict>limits).get(dot.author, 0)


cdef int put_replaced(Writer *w, Dots *seen, const Incarnation *inc, const Cell *new, object limits) except -1:
    """Write the seen of a cell that replaces those beside it, as far as they lie within limits, and what they saw."""
    cdef size_t i
    cdef const Cell *cell
    seen.count = 0
    for i in range(inc.count):
        cell = &inc.cells[i]
        if order_addresses(cell, new) == 0 and is_within(&cell.stamp, limits):
            add_living(seen, cell)
    join_dots(seen, True)
    if seen.count:
        write_dots(w, seen)
    return 0


cdef int put_side(Writer *values, Dots *seen, const Incarnation *old, Incarnation *new, Stamp stamp, tuple side,
                  Fields *f) except -1:
    """One more cell beside others: (field id, sub, value, whether it replaces those there, within which limits)."""
    cdef bytes element = side[1]
    cdef Cell *cell = add_cell(new)
    cdef size_t start
    if cell == NULL:
        raise MemoryError
    put_value(values, cell, f, side[0], side[2])
    cell.stamp = stamp
    cell.sub = <const uint8_t *>PyBytes_AS_STRING(element)
    cell.sub_size = <size_t>PyBytes_GET_SIZE(element)
    if not cell.kind & SIDE_BY_SIDE or (cell.sub_size and not cell.kind & HAS_SUB):
        raise ValueError("not an address where cells live side by side")
    if side[3]:
        start = values.size
        put_replaced(values, seen, old, cell, side[4])
        cell.seen = <const uint8_t *>start
        cell.seen_size = values.size - start
    return 0


cdef int compose(Record *old, Record *new, Writer *values, Dots *seen, Stamp stamp, tuple registers, tuple increments,
                 tuple sides, Fields *f, const uint8_t *authors) except -1:
    """Fill `new`, which has the incarnations of `old` without cells, with the cells of a local write."""
    cdef size_t i, start
    cdef uint64_t field
    cdef Cell *cell
    cdef Incarnation *inc
    for field, value in registers:
        for i in range(old.count):
            cell = add_cell(&new.incarnations[i])
            if cell == NULL:
                raise MemoryError
            put_value(values, cell, f, field, value)
            cell.stamp = stamp
            cell.stamp.time = time_above(old, field, stamp.time)
            start = values.size
            put_seen(values, seen, &old.incarnations[i], field, stamp.author)
            cell.seen = <const uint8_t *>start
            cell.seen_size = values.size - start
    i = topmost(old, authors)
    inc = &old.incarnations[i]
    for field, value in increments:
        cell = add_cell(&new.incarnations[i])
        if cell == NULL:
            raise MemoryError
        put_value(values, cell, f, field, add(own_total(inc, field, stamp.author), value))
        cell.stamp = stamp
        cell.stamp.time = time_above(old, field, stamp.time)
    for side in sides:
        put_side(values, seen, inc, &new.incarnations[i], stamp, side, f)
    return 0


cdef object write_one(Record *before, Record *after, Writer *values, Writer *scratch, Writer *packed, Dots *seen,
                      Stamp stamp, tuple registers, tuple increments, tuple sides, Fields *f, const uint8_t *authors):
    """(piece, its incarnations, its cells) of a write over a parsed record."""
    cdef Incarnation *inc
    cdef size_t i
    cdef size_t incarnations = 0
    cdef size_t cells = 0
    if before.count == 0:
        raise ValueError("a write over no incarnation")
    for i in range(before.count):
        inc = add_incarnation(after)
        if inc == NULL:
            raise MemoryError
        inc.name = before.incarnations[i].name
        inc.n = before.incarnations[i].n
    compose(before, after, values, seen, stamp, registers, increments, sides, f, authors)
    if values.failed:
        raise MemoryError
    place(after, values.data)
    for i in range(after.count):
        inc = &after.incarnations[i]
        if inc.count == 0:
            continue
        if inc.count > 1:
            qsort(inc.cells, inc.count, sizeof(Cell), cell_sorter)
        if pack_incarnation(packed, scratch, inc) != DONE:
            raise MemoryError
        incarnations += 1
        cells += inc.count
    return taken(packed), incarnations, cells


def write(list items not None, uint64_t author, uint64_t seq, uint64_t time, bytes fields not None,
          bytes authors not None):
    """Local writes over live records -> (the piece that merges into it, its incarnations, its cells) for each.

    Items are (packed record, registers, increments, sides): (field id, value) each, to every incarnation; (field id,
    amount) each, to the topmost; cells that live beside others, to the topmost: (field id, sub, value, whether it
    replaces those there, within {author id: highest seq}, or None for all).
    """
    cdef Fields f = fields_of(fields)
    cdef Record before = Record(NULL, 0, 0)
    cdef Record after = Record(NULL, 0, 0)
    cdef Writer values = Writer(NULL, 0, 0, False)
    cdef Writer scratch = Writer(NULL, 0, 0, False)
    cdef Writer packed = Writer(NULL, 0, 0, False)
    cdef Dots seen = Dots(NULL, 0, 0)
    cdef bytes old
    cdef tuple registers, increments, sides
    cdef list out = []
    try:
        for old, registers, increments, sides in items:
            before.count = after.count = values.size = packed.size = 0
            parse_record(old, &before, &f, author_count(authors))
            out.append(write_one(&before, &after, &values, &scratch, &packed, &seen, Stamp(author, seq, time),
                                 registers, increments, sides, &f, <const uint8_t *>PyBytes_AS_STRING(authors)))
        return out
    finally:
        free(seen.at)
        record_free(&before)
        record_free(&after)
        writer_free(&values)
        writer_free(&scratch)
        writer_free(&packed)
