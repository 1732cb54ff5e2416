"""Carrying the cells of a record over to another incarnation: where it moved to, or moved to before they came.

Of each address the topmost cell goes; cells that live side by side at one address go one a change, since a change has
one cell at an address. Counters stay: their totals belong to authors, so whoever carries adds their differences.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcmp

from bytes cimport Writer, writer_free
from record cimport (
    DONE, HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, Stamp, add_cell, add_incarnation,
    author_count, fields_of, order_addresses, pack_incarnation, parse_record, record_free,
)

cdef enum:
    TIME_MAX = 0x7FFFFFFFFFFFFFFF

# A cell with what it sorts by where stamps are equal in time: its author's own bytes.
ctypedef struct Entry:
    const Cell *cell
    const uint8_t *author

ctypedef struct Entries:
    Entry *at
    size_t count
    size_t room


cdef int entry_sorter(const void *a, const void *b) noexcept nogil:
    """By address, then by stamp, as all replicas order them: the topmost comes last."""
    cdef const Entry *x = <const Entry *>a
    cdef const Entry *y = <const Entry *>b
    cdef int order = order_addresses(x.cell, y.cell)
    if order == 0 and x.cell.stamp.time != y.cell.stamp.time:
        order = -1 if x.cell.stamp.time < y.cell.stamp.time else 1
    if order == 0:
        order = memcmp(x.author, y.author, 8)
    if order == 0 and x.cell.stamp.seq != y.cell.stamp.seq:
        order = -1 if x.cell.stamp.seq < y.cell.stamp.seq else 1
    return order


cdef int gather(Entries *entries, const Record *record, uint64_t without, const uint8_t *authors) except -1:
    """All cells but counters' and those of one field, sorted."""
    cdef size_t i, j, room
    cdef Entry *more
    cdef const Cell *cell
    entries.count = 0
    for i in range(record.count):
        for j in range(record.incarnations[i].count):
            cell = &record.incarnations[i].cells[j]
            if cell.kind & PER_AUTHOR or cell.field == without:
                continue
            if entries.count == entries.room:
                room = entries.room * 2 + 32
                more = <Entry *>realloc(entries.at, room * sizeof(Entry))
                if more == NULL:
                    raise MemoryError
                entries.at = more
                entries.room = room
            entries.at[entries.count] = Entry(cell, authors + 8 * cell.stamp.author)
            entries.count += 1
    if entries.count > 1:
        qsort(entries.at, entries.count, sizeof(Entry), entry_sorter)
    return 0


cdef int put(Record *out, size_t place, const Cell *cell, Stamp stamp, Stamp name, uint64_t n) except -1:
    """Add a cell to what the change of that place writes."""
    cdef Incarnation *inc
    cdef Cell *slot
    while out.count <= place:
        inc = add_incarnation(out)
        if inc == NULL:
            raise MemoryError
        inc.name, inc.n = name, n
    slot = add_cell(&out.incarnations[place])
    if slot == NULL:
        raise MemoryError
    slot[0] = cell[0]
    slot.seen_size = 0
    slot.stamp = stamp
    slot.stamp.seq += place
    return 0


cdef uint64_t distribute(const Entries *entries, Record *out, Stamp dot, Stamp name, uint64_t n, bint is_late) except 0:
    """Deal the cells out to changes; the lowest time among them, or TIME_MAX."""
    cdef size_t start = 0
    cdef size_t end, i
    cdef uint64_t lowest = TIME_MAX
    cdef const Cell *cell
    cdef Stamp stamp = dot
    while start < entries.count:
        end = start + 1
        while end < entries.count and order_addresses(entries.at[start].cell, entries.at[end].cell) == 0:
            end += 1
        cell = entries.at[start].cell
        if not cell.kind & SIDE_BY_SIDE or cell.kind & HAS_SUB:
            start = end - 1
        for i in range(start, end):
            cell = entries.at[i].cell
            if is_late:
                stamp.time = min(max(cell.stamp.time, name.time + 1), <uint64_t>TIME_MAX)
            lowest = min(lowest, stamp.time)
            put(out, i - start, cell, stamp, name, n)
        start = end
    return lowest


cdef list packed_of(Record *out, Writer *packed, Writer *scratch):
    """Each change's piece, and how many cells it has."""
    cdef size_t i
    cdef list found = []
    for i in range(out.count):
        packed.size = 0
        if pack_incarnation(packed, scratch, &out.incarnations[i]) != DONE:
            raise MemoryError
        piece = PyBytes_FromStringAndSize(<char *>packed.data, <Py_ssize_t>packed.size)
        found.append((piece, out.incarnations[i].count + (1 if out.incarnations[i].alive else 0)))
    return found


def carry(list items not None, uint64_t author, uint64_t seq, uint64_t without, bytes fields not None,
          bytes authors not None):
    """Records under another name -> (the pieces of change seq, seq + 1 ... as (packed, cells), their lowest time) each.

    Items are (packed record, incarnation (author id, seq, n), its time, late). Not late: the change creates it, and the
    cells of field `without` stay. Late: it lives already, and the cells keep their times, but for being above its own.
    """
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record before = Record(NULL, 0, 0)
    cdef Record after = Record(NULL, 0, 0)
    cdef Entries entries = Entries(NULL, 0, 0)
    cdef Writer scratch = Writer(NULL, 0, 0, False)
    cdef Writer packed = Writer(NULL, 0, 0, False)
    cdef Stamp name
    cdef uint64_t n, lowest
    cdef Incarnation *created
    cdef bytes old
    cdef bint is_late
    cdef list out = []
    if author >= author_count(authors):
        raise ValueError("an author that the dictionary does not hold")
    try:
        for old, (name.author, name.seq, n), name.time, is_late in items:
            before.count = after.count = 0
            parse_record(old, &before, &f, author_count(authors))
            if not is_late:
                created = add_incarnation(&after)
                if created == NULL:
                    raise MemoryError
                created.name, created.n, created.alive = name, n, True
            gather(&entries, &before, UINT64_MAX if is_late else without, names)
            lowest = distribute(&entries, &after, Stamp(author, seq, name.time), name, n, is_late)
            out.append((packed_of(&after, &packed, &scratch), lowest))
        return out
    finally:
        free(entries.at)
        record_free(&before)
        record_free(&after)
        writer_free(&scratch)
        writer_free(&packed)


def totals(list records not None, bytes fields not None, bytes authors not None):
    """The counters' cells of each packed record: (incarnation, field id, author id, value's bytes) each."""
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i, j
    cdef const Incarnation *inc
    cdef const Cell *cell
    cdef bytes data
    cdef list found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = []
            for i in range(record.count):
                inc = &record.incarnations[i]
                for j in range(inc.count):
                    cell = &inc.cells[j]
                    if cell.kind & PER_AUTHOR:
                        value = PyBytes_FromStringAndSize(<const char *>cell.value, <Py_ssize_t>cell.value_size)
                        found.append(((inc.name.author, inc.name.seq, inc.n), cell.field, cell.stamp.author, value))
            out.append(found)
        return out
    finally:
        record_free(&record)
