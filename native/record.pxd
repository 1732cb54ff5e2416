# A record's cells, incarnation by incarnation, under the numbers of one file for authors and fields. Header-only.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc

from bytes cimport compare
from dots cimport Stamp, order_stamps

cdef enum:
    # A field's kind: three flags that say how its cells merge, then the number of its type.
    SIDE_BY_SIDE = 1     # cells see nothing but what they name; else own earlier cells and the creation are seen
    HAS_SUB = 2          # the address has a second part, of bytes
    PER_AUTHOR = 4       # the author of a cell is part of its address
    KIND_EXISTENCE = 0

ctypedef struct Cell:
    uint64_t field
    Stamp stamp
    const uint8_t *sub
    size_t sub_size
    const uint8_t *seen
    size_t seen_size
    const uint8_t *value
    size_t value_size
    uint8_t kind

ctypedef struct Incarnation:
    Stamp name           # of the creation; its time counts only where alive
    uint64_t n
    bint alive
    Cell *cells
    size_t count
    size_t room

ctypedef struct Record:
    Incarnation *incarnations
    size_t count
    size_t room

# A walk over the cells of a record, one incarnation after the other.
ctypedef struct Walk:
    const Record *record
    size_t place         # of the next incarnation
    size_t next          # cell in this one
    const Incarnation *inc
    Cell *cell

# The dictionary of fields: 8 bytes a field (offset: 4 bytes, size: 2, kind: 1, zero: 1; little-endian), then the names.
ctypedef struct Fields:
    const uint8_t *data
    size_t count


cdef inline Fields fields_of(bytes dictionary) noexcept:
    cdef Fields f
    cdef size_t names = 0
    f.data = <const uint8_t *>PyBytes_AS_STRING(dictionary)
    f.count = 0
    if PyBytes_GET_SIZE(dictionary) >= 8:
        # the first name begins where the table ends
        names = <size_t>f.data[0] | <size_t>f.data[1] << 8 | <size_t>f.data[2] << 16 | <size_t>f.data[3] << 24
        f.count = names >> 3
    return f


cdef inline uint8_t field_kind(const Fields *f, uint64_t field) noexcept nogil:
    return f.data[8 * field + 6]


cdef inline uint64_t author_count(bytes authors) noexcept:
    return <uint64_t>PyBytes_GET_SIZE(authors) >> 3


cdef inline const uint8_t *field_name(const Fields *f, uint64_t field, size_t *size) noexcept nogil:
    cdef const uint8_t *p = f.data + 8 * field
    size[0] = <size_t>p[4] | <size_t>p[5] << 8
    return f.data + (<size_t>p[0] | <size_t>p[1] << 8 | <size_t>p[2] << 16 | <size_t>p[3] << 24)


cdef inline object name_of(const Fields *fields, uint64_t field):
    cdef size_t size = 0
    cdef const uint8_t *name = field_name(fields, field, &size)
    return name[:size].decode()


cdef inline int order_addresses(const Cell *a, const Cell *b) noexcept nogil:
    if a.field != b.field:
        return -1 if a.field < b.field else 1
    if a.sub_size or b.sub_size:
        return compare(a.sub, a.sub_size, b.sub, b.sub_size)
    return 0


cdef inline int order_cells(const Cell *a, const Cell *b) noexcept nogil:
    cdef int order = order_addresses(a, b)
    return order if order else order_stamps(&a.stamp, &b.stamp)


cdef inline int cell_sorter(const void *a, const void *b) noexcept nogil:
    return order_cells(<const Cell *>a, <const Cell *>b)


cdef inline int order_incarnations(const Incarnation *a, const Incarnation *b) noexcept nogil:
    if a.name.author != b.name.author:
        return -1 if a.name.author < b.name.author else 1
    if a.name.seq != b.name.seq:
        return -1 if a.name.seq < b.name.seq else 1
    if a.n != b.n:
        return -1 if a.n < b.n else 1
    return 0


cdef inline Walk walk_of(const Record *record) noexcept nogil:
    return Walk(record, 0, 0, NULL, NULL)


cdef inline bint next_cell(Walk *walk) noexcept nogil:
    """Step on to the next cell; False after the last."""
    while walk.inc == NULL or walk.next == walk.inc.count:
        if walk.place == walk.record.count:
            return False
        walk.inc = &walk.record.incarnations[walk.place]
        walk.place += 1
        walk.next = 0
    walk.cell = &walk.inc.cells[walk.next]
    walk.next += 1
    return True


cdef inline size_t run_of(const Incarnation *inc, size_t start) noexcept nogil:
    """The end of the run of cells that share an address with the one at `start`."""
    cdef size_t end = start + 1
    while end < inc.count and order_addresses(&inc.cells[start], &inc.cells[end]) == 0:
        end += 1
    return end


cdef inline int order_everywhere(const Stamp *a, const Stamp *b, const uint8_t *authors) noexcept nogil:
    """The total order of stamps, equal on all replicas: by time, then the author's own bytes, then seq."""
    cdef int i
    if a.time != b.time:
        return -1 if a.time < b.time else 1
    if a.author != b.author:
        for i in range(8):
            if authors[8 * a.author + i] != authors[8 * b.author + i]:
                return -1 if authors[8 * a.author + i] < authors[8 * b.author + i] else 1
    if a.seq != b.seq:
        return -1 if a.seq < b.seq else 1
    return 0


cdef inline size_t topmost(const Record *record, const uint8_t *authors) noexcept nogil:
    """The index of the incarnation that was created last."""
    cdef size_t i
    cdef size_t top = 0
    for i in range(1, record.count):
        if order_everywhere(&record.incarnations[top].name, &record.incarnations[i].name, authors) < 0:
            top = i
    return top


cdef inline Cell *add_cell(Incarnation *inc) noexcept nogil:
    """Room for one more cell; NULL without memory."""
    cdef size_t room
    cdef Cell *cells
    if inc.count == inc.room:
        room = inc.room * 2 + 16
        cells = <Cell *>realloc(inc.cells, room * sizeof(Cell))
        if cells == NULL:
            return NULL
        inc.cells = cells
        inc.room = room
    inc.count += 1
    return &inc.cells[inc.count - 1]


cdef inline Incarnation *add_incarnation(Record *record) noexcept nogil:
    """Room for one more incarnation, empty; NULL without memory."""
    cdef size_t room, i
    cdef Incarnation *incarnations
    cdef Incarnation *inc
    if record.count == record.room:
        room = record.room * 2 + 2
        incarnations = <Incarnation *>realloc(record.incarnations, room * sizeof(Incarnation))
        if incarnations == NULL:
            return NULL
        for i in range(record.room, room):
            incarnations[i].cells = NULL
            incarnations[i].room = 0
        record.incarnations = incarnations
        record.room = room
    inc = &record.incarnations[record.count]
    record.count += 1
    inc.count = 0
    inc.alive = False
    inc.name.time = 0
    return inc


cdef inline void record_free(Record *record) noexcept nogil:
    cdef size_t i
    for i in range(record.room):
        free(record.incarnations[i].cells)
    free(record.incarnations)
    record.incarnations = NULL
    record.count = 0
    record.room = 0
