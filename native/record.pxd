# The packed form of a record's cells in one file, with file-local integers for authors and fields. Header-only.
#
#   record      := incarnation*                                  sorted by (author, seq, n)
#   incarnation := varint size, flags, varint author, varint seq, varint n, [time: 8 bytes if alive],
#                  varint stamps, (varint author, varint seq, varint zigzag(time - previous time))*, cell*
#   cell        := varint field, head, [varint stamp - 31 if head's low bits are 31], [varint size, sub],
#                  [seen], value
#   seen        := varint count, (varint author, varint seq)*    sorted by author
#
# flags: bit 0, the existence cell is here. head: bits 0-4 the index of the stamp, bit 5 a seen follows; a sub is
# there when the field's kind says so. Where the incarnation is alive, stamp 0 is its creation and not written down.
# Stamps are distinct and sorted, cells are sorted by (field, sub, author, seq): equal cells give equal bytes.
#
# A removal says of one incarnation what its author had seen there, address by address, under the same integers:
#
#   removal     := flags, varint addresses, (varint field, [varint size, sub], vector, exact)*   sorted by (field, sub)
#   vector      := as seen: of each author, all cells up to a seq
#   exact       := varint count, (varint author, varint seq)*                                     sorted
#
# flags: bit 0, it kills the incarnation: the existence cell and all cells of the creating change go too.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc

from bytes cimport (
    Reader, Writer, compare, left, read_below, read_byte, read_bytes, read_fixed, read_varint, reader_of, skip_value,
    unzigzag, varint_size, write_byte, write_bytes, write_fixed, write_varint, zigzag,
)

cdef enum:
    ALIVE = 1
    HEAD_STAMP = 31
    HEAD_SEEN = 32
    KILLS = 1
    # A field's kind: three flags that say how its cells merge, then the number of its type.
    SIDE_BY_SIDE = 1     # cells see nothing but what they name; else own earlier cells and the creation are seen
    HAS_SUB = 2          # the address has a second part, of bytes
    PER_AUTHOR = 4       # the author of a cell is part of its address
    KIND_EXISTENCE = 0

cdef enum Status:
    DONE = 0
    BAD_BYTES = 1
    NO_MEMORY = 2

ctypedef struct Stamp:
    uint64_t author
    uint64_t seq
    uint64_t time

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

# A growing list of dots; a stamp's time does not count here.
ctypedef struct Dots:
    Stamp *at
    size_t count
    size_t room

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


cdef inline int order_stamps(const Stamp *a, const Stamp *b) noexcept nogil:
    if a.author != b.author:
        return -1 if a.author < b.author else 1
    if a.seq != b.seq:
        return -1 if a.seq < b.seq else 1
    if a.time != b.time:
        return -1 if a.time < b.time else 1
    return 0


cdef inline int stamp_sorter(const void *a, const void *b) noexcept nogil:
    return order_stamps(<const Stamp *>a, <const Stamp *>b)


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


cdef inline bint same_dot(const Stamp *a, const Stamp *b) noexcept nogil:
    return a.author == b.author and a.seq == b.seq


cdef inline int order_incarnations(const Incarnation *a, const Incarnation *b) noexcept nogil:
    if a.name.author != b.name.author:
        return -1 if a.name.author < b.name.author else 1
    if a.name.seq != b.name.seq:
        return -1 if a.name.seq < b.name.seq else 1
    if a.n != b.n:
        return -1 if a.n < b.n else 1
    return 0


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


cdef inline void skip_dots(Reader *r, uint64_t authors) noexcept nogil:
    """Step over a count and dots, whose authors are below `authors`."""
    cdef uint64_t _
    cdef uint64_t count = read_below(r, left(r) + 1)
    for _ in range(count):
        read_below(r, authors)
        read_varint(r)
        if r.bad:
            return


cdef inline bint add_dot(Dots *dots, uint64_t author, uint64_t seq) noexcept nogil:
    """False without memory."""
    cdef size_t room
    cdef Stamp *more
    if dots.count == dots.room:
        room = dots.room * 2 + 16
        more = <Stamp *>realloc(dots.at, room * sizeof(Stamp))
        if more == NULL:
            return False
        dots.at = more
        dots.room = room
    dots.at[dots.count] = Stamp(author, seq, 0)
    dots.count += 1
    return True


cdef inline bint add_seen(Dots *dots, const Cell *cell) noexcept nogil:
    """Add what a cell names as seen; False without memory."""
    cdef Reader r
    cdef uint64_t _, count, author
    if cell.seen_size == 0:
        return True
    r = reader_of(cell.seen, cell.seen_size)
    count = read_varint(&r)
    for _ in range(count):
        author = read_varint(&r)
        if not add_dot(dots, author, read_varint(&r)):
            return False
    return True


cdef inline void sort_dots(Dots *dots) noexcept nogil:
    if dots.count > 1:
        qsort(dots.at, dots.count, sizeof(Stamp), stamp_sorter)


cdef inline void join_dots(Dots *dots, bint highest) noexcept nogil:
    """Sort and drop repeats; with `highest`, keep one an author."""
    cdef size_t i
    cdef size_t kept = 0
    sort_dots(dots)
    for i in range(dots.count):
        if kept and (same_dot(&dots.at[i], &dots.at[kept - 1])
                     or (highest and dots.at[i].author == dots.at[kept - 1].author)):
            kept -= 1
        dots.at[kept] = dots.at[i]
        kept += 1
    dots.count = kept


cdef inline void write_dots(Writer *w, const Dots *dots) noexcept nogil:
    cdef size_t i
    write_varint(w, dots.count)
    for i in range(dots.count):
        write_varint(w, dots.at[i].author)
        write_varint(w, dots.at[i].seq)


cdef inline bint reaches(const uint8_t *seen, size_t size, const Stamp *stamp) noexcept nogil:
    """Whether a seen vector covers a dot."""
    cdef Reader r = reader_of(seen, size)
    cdef uint64_t _, count, author, seq
    if size == 0:
        return False
    count = read_varint(&r)
    for _ in range(count):
        author = read_varint(&r)
        seq = read_varint(&r)
        if author == stamp.author:
            return seq >= stamp.seq
        if author > stamp.author:
            return False
    return False


cdef inline bint parse_head(Reader *r, Reader *body, Incarnation *inc, uint64_t authors) noexcept nogil:
    """The name of the next incarnation of a record, of which `body` has the rest; False for bytes that are none."""
    cdef uint64_t size = read_varint(r)
    cdef const uint8_t *data = read_bytes(r, size)
    cdef uint8_t flags
    if r.bad:
        return False
    body[0] = reader_of(data, size)
    flags = read_byte(body)
    inc.alive = flags & ALIVE
    inc.name.author = read_below(body, authors)
    inc.name.seq = read_varint(body)
    inc.n = read_varint(body)
    inc.name.time = read_fixed(body) if inc.alive else 0
    return not body.bad and flags <= ALIVE


cdef inline Status parse_incarnation(Reader *r, Incarnation *inc, const Fields *fields,
                                     uint64_t authors) noexcept nogil:
    """One incarnation of a record from bytes of this file; the cells point into them."""
    cdef Stamp few[32]
    cdef Stamp *stamps = few
    cdef Stamp *more = NULL
    cdef Reader body
    cdef uint8_t head
    cdef uint64_t count, i, index, time
    cdef Cell *cell
    cdef Status status = BAD_BYTES
    if not parse_head(r, &body, inc, authors):
        return BAD_BYTES
    count = read_below(&body, left(&body) + 1)
    if body.bad:
        return BAD_BYTES
    if count + 1 > 32:
        more = <Stamp *>malloc((count + 1) * sizeof(Stamp))
        if more == NULL:
            return NO_MEMORY
        stamps = more
    if inc.alive:
        stamps[0] = inc.name
        count += 1
    time = inc.name.time
    for i in range(1 if inc.alive else 0, count):
        stamps[i].author = read_below(&body, authors)
        stamps[i].seq = read_varint(&body)
        time += <uint64_t>unzigzag(read_varint(&body))
        stamps[i].time = time
    while body.at < body.end and not body.bad:
        cell = add_cell(inc)
        if cell == NULL:
            status = NO_MEMORY
            break
        cell.field = read_varint(&body)
        head = read_byte(&body)
        index = head & HEAD_STAMP
        if index == HEAD_STAMP:
            index += read_varint(&body)
        if index >= count or cell.field >= fields.count:
            body.bad = True
            break
        cell.stamp = stamps[index]
        cell.kind = field_kind(fields, cell.field)
        cell.sub = body.at
        cell.sub_size = 0
        if cell.kind & HAS_SUB:
            cell.sub_size = read_varint(&body)
            cell.sub = read_bytes(&body, cell.sub_size)
        cell.seen = body.at
        cell.seen_size = 0
        if head & HEAD_SEEN:
            skip_dots(&body, authors)
            cell.seen_size = <size_t>(body.at - cell.seen)
        cell.value = body.at
        skip_value(&body, 0)
        cell.value_size = <size_t>(body.at - cell.value)
    else:
        if not body.bad:
            status = DONE
    free(more)
    return status


cdef inline int parse_record(bytes data, Record *record, const Fields *fields, uint64_t authors) except -1:
    """Append all incarnations of a record; ValueError where one is damaged or names an author not below `authors`."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    cdef Incarnation *inc
    cdef Status status
    while r.at < r.end:
        inc = add_incarnation(record)
        if inc == NULL:
            raise MemoryError
        status = parse_incarnation(&r, inc, fields, authors)
        if status == NO_MEMORY:
            raise MemoryError
        if status != DONE:
            raise ValueError("a packed record is damaged")
    return 0


cdef inline size_t find_stamp(const Stamp *stamps, size_t low, size_t high, const Stamp *stamp) noexcept nogil:
    cdef size_t middle
    while low < high:
        middle = (low + high) >> 1
        if order_stamps(&stamps[middle], stamp) < 0:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline size_t gather_stamps(const Incarnation *inc, Stamp *stamps) noexcept nogil:
    """The distinct stamps of the cells, sorted, after the creation's own where it is alive; returns their number."""
    cdef size_t i, kept
    cdef size_t start = 0
    cdef size_t count = 0
    if inc.alive:
        stamps[0] = inc.name
        start = count = 1
    for i in range(inc.count):
        if inc.alive and order_stamps(&inc.cells[i].stamp, &inc.name) == 0:
            continue
        if count > start and order_stamps(&inc.cells[i].stamp, &stamps[count - 1]) == 0:
            continue
        stamps[count] = inc.cells[i].stamp
        count += 1
    if count - start > 1:
        qsort(stamps + start, count - start, sizeof(Stamp), stamp_sorter)
        kept = start + 1
        for i in range(start + 1, count):
            if order_stamps(&stamps[i], &stamps[kept - 1]) != 0:
                stamps[kept] = stamps[i]
                kept += 1
        count = kept
    return count


cdef inline void pack_cells(Writer *w, const Incarnation *inc, const Stamp *stamps, size_t count) noexcept nogil:
    cdef size_t i, index
    cdef size_t start = 1 if inc.alive else 0
    cdef const Cell *cell
    cdef uint8_t seen
    for i in range(inc.count):
        cell = &inc.cells[i]
        write_varint(w, cell.field)
        if inc.alive and order_stamps(&cell.stamp, &inc.name) == 0:
            index = 0
        else:
            index = find_stamp(stamps, start, count, &cell.stamp)
        seen = HEAD_SEEN if cell.seen_size else 0
        if index < HEAD_STAMP:
            write_byte(w, <uint8_t>index | seen)
        else:
            write_byte(w, HEAD_STAMP | seen)
            write_varint(w, index - HEAD_STAMP)
        if cell.kind & HAS_SUB:
            write_varint(w, cell.sub_size)
            write_bytes(w, cell.sub, cell.sub_size)
        write_bytes(w, cell.seen, cell.seen_size)
        write_bytes(w, cell.value, cell.value_size)


cdef inline Status pack_incarnation(Writer *out, Writer *scratch, const Incarnation *inc) noexcept nogil:
    """Append one incarnation, its cells sorted already; `scratch` is overwritten."""
    cdef Stamp few[32]
    cdef Stamp *stamps = few
    cdef Stamp *more = NULL
    cdef size_t i, count
    cdef uint64_t time
    if inc.count + 1 > 32:
        more = <Stamp *>malloc((inc.count + 1) * sizeof(Stamp))
        if more == NULL:
            return NO_MEMORY
        stamps = more
    count = gather_stamps(inc, stamps)
    scratch.size = 0
    write_byte(scratch, ALIVE if inc.alive else 0)
    write_varint(scratch, inc.name.author)
    write_varint(scratch, inc.name.seq)
    write_varint(scratch, inc.n)
    time = 0
    if inc.alive:
        write_fixed(scratch, inc.name.time)
        time = inc.name.time
    write_varint(scratch, count - (1 if inc.alive else 0))
    for i in range(1 if inc.alive else 0, count):
        write_varint(scratch, stamps[i].author)
        write_varint(scratch, stamps[i].seq)
        write_varint(scratch, zigzag(<int64_t>(stamps[i].time - time)))
        time = stamps[i].time
    pack_cells(scratch, inc, stamps, count)
    free(more)
    write_varint(out, scratch.size)
    write_bytes(out, scratch.data, scratch.size)
    return NO_MEMORY if scratch.failed or out.failed else DONE
