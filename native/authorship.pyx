"""Who wrote what lives in packed records: stamps, registers written apart, and the names of incarnations."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from bytes cimport Reader, reader_of
from dots cimport same_dot
from packed cimport parse_head, parse_record
from record cimport (
    HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, Walk, author_count, fields_of, name_of,
    next_cell, order_everywhere, record_free, walk_of,
)
from fieldsync._native.codec cimport read_value

cdef enum:
    RIVALS_MAX = 64


def stamps(list records not None, bytes fields not None, bytes authors not None):
    """Who wrote what lives in each packed record, existence left out.

    A list of (field name, kind, author id, seq, time) for each.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef Walk walk
    cdef const Cell *cell
    cdef bytes data
    cdef list found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = []
            walk = walk_of(&record)
            while next_cell(&walk):
                cell = walk.cell
                name = name_of(&f, cell.field)
                found.append((name, cell.kind, cell.stamp.author, cell.stamp.seq, cell.stamp.time))
            out.append(found)
        return out
    finally:
        record_free(&record)


cdef bint is_known(const Cell **cells, size_t count, const Cell *cell) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if same_dot(&cells[i].stamp, &cell.stamp):
            return True
    return False


cdef size_t gather_rivals(const Record *record, uint64_t field, const Cell **cells) noexcept nogil:
    """The cells of a field, one a change; of very many the first. Returns how many."""
    cdef size_t count = 0
    cdef Walk walk = walk_of(record)
    while next_cell(&walk) and count < RIVALS_MAX:
        if walk.cell.field == field and not is_known(cells, count, walk.cell):
            cells[count] = walk.cell
            count += 1
    return count


cdef void sort_rivals(const Cell **cells, size_t count, const uint8_t *authors) noexcept nogil:
    """The one with the highest stamp first."""
    cdef size_t i, j
    cdef const Cell *cell
    for i in range(1, count):
        cell = cells[i]
        j = i
        while j and order_everywhere(&cells[j - 1].stamp, &cell.stamp, authors) < 0:
            cells[j] = cells[j - 1]
            j -= 1
        cells[j] = cell


cdef tuple claim_of(const Cell *cell):
    cdef Reader r = reader_of(cell.value, cell.value_size)
    return cell.stamp.author, cell.stamp.seq, cell.stamp.time, read_value(&r)


cdef list rivals_of(const Record *record, const uint8_t *authors):
    """The registers of one record that several changes wrote apart, as `rivals` has them."""
    cdef const Cell *cells[RIVALS_MAX]
    cdef size_t i, count
    cdef const Cell *cell
    cdef Walk walk = walk_of(record)
    cdef list found = []
    cdef set done = set()
    while next_cell(&walk):
        cell = walk.cell
        if cell.kind & (SIDE_BY_SIDE | HAS_SUB | PER_AUTHOR) or cell.field in done:
            continue
        if record.count == 1 and (walk.next == walk.inc.count or (cell + 1).field != cell.field):
            continue
        done.add(cell.field)
        count = gather_rivals(record, cell.field, cells)
        if count > 1:
            sort_rivals(cells, count, authors)
            found.append((cell.field, [claim_of(cells[i]) for i in range(count)]))
    return found


def rivals(list records not None, bytes fields not None, bytes authors not None):
    """Registers that several changes wrote apart, of each packed record: (field id, claims), the topmost claim first.

    A claim is (author id, seq, time, value). Of more than 64 the rest is left out.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef bytes data
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            out.append(rivals_of(&record, <const uint8_t *>PyBytes_AS_STRING(authors)))
        return out
    finally:
        record_free(&record)


def incarnations(list records not None, bytes authors not None):
    """The names of the incarnations in each packed record: a list of (author id, seq, n) for each."""
    cdef uint64_t count = author_count(authors)
    cdef Incarnation inc
    cdef Reader r, body
    cdef bytes data
    cdef list names
    cdef list out = []
    for data in records:
        r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
        names = []
        while r.at < r.end:
            if not parse_head(&r, &body, &inc, count):
                raise ValueError("a packed record is damaged")
            names.append((inc.name.author, inc.name.seq, inc.n))
        out.append(names)
    return out
