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

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from bytes cimport (
    Reader, Writer, left, read_below, read_byte, read_bytes, read_fixed, read_varint, reader_of, unzigzag, write_byte,
    write_bytes, write_fixed, write_varint, zigzag,
)
from dots cimport Stamp, order_stamps, skip_dots, stamp_sorter
from record cimport HAS_SUB, Cell, Fields, Incarnation, Record, add_cell, add_incarnation, field_kind
from values cimport skip_value

cdef enum:
    ALIVE = 1
    HEAD_STAMP = 31
    HEAD_SEEN = 32

cdef enum Status:
    DONE = 0
    BAD_BYTES = 1
    NO_MEMORY = 2


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
