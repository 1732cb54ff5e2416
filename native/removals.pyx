"""Removals of what lives in packed records, and what removals name."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memset

from bytes cimport Reader, read_byte, read_varint, reader_of, taken
from dots cimport Dots, add_dot, add_seen, join_dots
from packed cimport parse_record
from record cimport Cell, Fields, Incarnation, Record, fields_of, record_free
from removal cimport Sight, next_sight
from seen cimport Named, named_free, write_removal


cdef tuple removal_of(Named *named, const Incarnation *inc):
    """(author, seq, n, item): of an incarnation, or of the cells of one without existence cell."""
    if not write_removal(named, inc):
        raise MemoryError
    return inc.name.author, inc.name.seq, inc.n, taken(&named.packed)


def removals(bytes data not None, bytes fields not None):
    """The removals of all that lives in a packed record: (author, seq, n, item) an incarnation.

    An incarnation that is alive is killed; of one without existence cell all cells are dismissed.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef Named named
    cdef size_t i
    memset(&named, 0, sizeof(Named))
    try:
        parse_record(data, &record, &f, UINT64_MAX)
        return [removal_of(&named, &record.incarnations[i]) for i in range(record.count)]
    finally:
        record_free(&record)
        named_free(&named)


cdef int keep_at(Incarnation *inc, set addresses) except -1:
    """Drop the cells at other addresses, and the existence cell."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Cell *cell
    for i in range(inc.count):
        cell = &inc.cells[i]
        if (cell.field, <bytes>cell.sub[:cell.sub_size]) in addresses:
            inc.cells[kept] = cell[0]
            kept += 1
    inc.count = kept
    inc.alive = False
    return 0


def removals_at(bytes data not None, set addresses not None, bytes fields not None):
    """The removals of what lives at some addresses, as (field id, sub): (author, seq, n, item) an incarnation."""
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef Named named
    cdef size_t i
    cdef list out = []
    memset(&named, 0, sizeof(Named))
    try:
        parse_record(data, &record, &f, UINT64_MAX)
        for i in range(record.count):
            keep_at(&record.incarnations[i], addresses)
            if record.incarnations[i].count:
                out.append(removal_of(&named, &record.incarnations[i]))
        return out
    finally:
        record_free(&record)
        named_free(&named)


cdef int gather_named(Named *named, bytes item, const Fields *fields) except -1:
    """Add the dots that a removal names; ValueError for bytes that are no removal."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(item), <size_t>PyBytes_GET_SIZE(item))
    cdef uint64_t pending
    cdef Sight sight
    read_byte(&r)
    pending = read_varint(&r)
    while next_sight(&r, &pending, fields, &sight):
        if not add_seen(&named.vector, sight.vector, sight.vector_size) or not add_seen(
                &named.exact, sight.exact, sight.exact_size):
            raise MemoryError
    if r.bad:
        raise ValueError("a packed removal is damaged")
    return 0


cdef list pairs_of(const Dots *dots):
    cdef size_t i
    return [(dots.at[i].author, dots.at[i].seq) for i in range(dots.count)]


def named(list removals not None, bytes fields not None):
    """What removals (author, seq, n, item) name: (author id, highest seq) up to which all was seen, and single dots.

    The incarnations' creating changes are among the single dots.
    """
    cdef Fields f = fields_of(fields)
    cdef Named named
    cdef uint64_t author, seq
    cdef bytes item
    memset(&named, 0, sizeof(Named))
    try:
        for author, seq, _, item in removals:
            if not add_dot(&named.exact, author, seq):
                raise MemoryError
            gather_named(&named, item, &f)
        join_dots(&named.vector, True)
        join_dots(&named.exact, False)
        return pairs_of(&named.vector), pairs_of(&named.exact)
    finally:
        named_free(&named)
