"""Changes -> the streams of a chunk, a column each so that they compress well (docs/format.md, Chunk)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from bytes cimport (
    Reader, Writer, left, read_below, read_byte, read_bytes, read_varint, reader_of, taken, write_byte, write_bytes,
    write_varint, writer_free, zigzag,
)
from chunk cimport (
    CELLS, CHANGES, HAS_EXISTENCE, HAS_NAME, HAS_SEEN, HAS_TIME, NAMES, OTHER, OWN, OWN_NEXT, PIECES, REMOVALS, SEENS,
    VALUES,
)
from dots cimport Dots, Stamp, add_dot, same_dot, sort_dots, write_dots
from packed cimport parse_record
from record cimport HAS_SUB, Cell, Fields, Incarnation, Record, field_kind, fields_of, record_free

# The numbers a chunk gives to the authors or fields of this file, in the order of their first use.
ctypedef struct Numbers:
    uint32_t *number     # by local id, plus one; 0 when it has none yet
    uint64_t room
    uint64_t *locals
    uint64_t count

ctypedef struct Encoder:
    Fields fields
    Numbers authors
    Numbers used
    Writer *streams
    size_t stream_count
    uint64_t *last_seq   # of each author, by its number in this chunk
    uint64_t last_time
    uint64_t ref_author
    uint64_t ref_seq
    uint64_t ref_n
    uint64_t own_n
    const char *parsed   # the record that was looked at last: many changes in a row may be of one
    Dots dots            # scratch
    bint failed
    bint no_memory


cdef bint numbers_start(Numbers *n, uint64_t room) noexcept nogil:
    n.room = room
    n.count = 0
    n.number = <uint32_t *>calloc(room + 1, sizeof(uint32_t))
    n.locals = <uint64_t *>malloc((room + 1) * sizeof(uint64_t))
    return n.number != NULL and n.locals != NULL


cdef uint64_t number_of(Numbers *n, uint64_t local, bint *failed) noexcept nogil:
    if local >= n.room:
        failed[0] = True
        return 0
    if n.number[local] == 0:
        n.locals[n.count] = local
        n.count += 1
        n.number[local] = <uint32_t>n.count
    return n.number[local] - 1


cdef void encoder_free(Encoder *e) noexcept nogil:
    cdef size_t i
    if e.streams != NULL:
        for i in range(e.stream_count):
            writer_free(&e.streams[i])
    free(e.streams)
    free(e.last_seq)
    free(e.dots.at)
    free(e.authors.number)
    free(e.authors.locals)
    free(e.used.number)
    free(e.used.locals)


cdef void put_reference(Encoder *e, Writer *w, const Stamp *dot, const Stamp *name, uint64_t n) noexcept nogil:
    """Name an incarnation, shortly where it belongs to this change or is near the one named last."""
    cdef uint64_t author
    if dot != NULL and same_dot(dot, name):
        if n == e.own_n:
            write_varint(w, OWN_NEXT)
        else:
            write_varint(w, OWN)
            write_varint(w, n)
        e.own_n = n + 1
        return
    author = number_of(&e.authors, name.author, &e.failed)
    write_varint(w, OTHER + author)
    write_varint(w, zigzag(<int64_t>(name.seq - e.ref_seq)))
    if author == e.ref_author and name.seq == e.ref_seq:
        write_varint(w, zigzag(<int64_t>(n - e.ref_n)))
    else:
        write_varint(w, n)
    e.ref_author, e.ref_seq, e.ref_n = author, name.seq, n


cdef void put_dots(Encoder *e, Writer *w, Reader *r) noexcept nogil:
    """A count and dots, from this file's numbers to the chunk's, in the order of those."""
    cdef uint64_t _, author
    cdef uint64_t count = read_below(r, left(r) + 1)
    e.dots.count = 0
    for _ in range(count):
        author = number_of(&e.authors, read_varint(r), &e.failed)
        if r.bad:
            return
        if not add_dot(&e.dots, author, read_varint(r)):
            e.no_memory = True
            return
    sort_dots(&e.dots)
    write_dots(w, &e.dots)


cdef void put_cell(Encoder *e, const Cell *cell, uint64_t base) noexcept nogil:
    cdef uint64_t field = number_of(&e.used, cell.field, &e.failed)
    cdef Writer *w = &e.streams[CELLS]
    cdef Reader seen = reader_of(cell.seen, cell.seen_size)
    cdef uint8_t flags = 0
    if cell.stamp.time != base:
        flags |= HAS_TIME
    if cell.seen_size:
        flags |= HAS_SEEN
    write_varint(w, field << 2 | flags)
    if flags & HAS_TIME:
        write_varint(w, cell.stamp.time - base)
    if cell.kind & HAS_SUB:
        write_varint(&e.streams[SEENS], cell.sub_size)
        write_bytes(&e.streams[SEENS], cell.sub, cell.sub_size)
    if flags & HAS_SEEN:
        put_dots(e, &e.streams[SEENS], &seen)
    write_bytes(&e.streams[VALUES + field], cell.value, cell.value_size)


cdef uint64_t count_cells(const Incarnation *inc, const Stamp *dot) noexcept nogil:
    cdef size_t i
    cdef uint64_t count = 0
    for i in range(inc.count):
        count += same_dot(&inc.cells[i].stamp, dot)
    return count


cdef int put_piece(Encoder *e, const Incarnation *inc, const Stamp *dot, object name) except -1:
    """What of one incarnation this change wrote; nothing where it wrote nothing that lives."""
    cdef uint64_t count = count_cells(inc, dot)
    cdef size_t i
    cdef uint8_t flags = 0
    cdef bytes key
    cdef Writer *w = &e.streams[NAMES]
    if inc.alive and same_dot(&inc.name, dot):
        flags = HAS_EXISTENCE | HAS_NAME
    elif not inc.alive and name is not None:
        flags = HAS_NAME
    if count == 0 and not flags & HAS_EXISTENCE:
        return 0
    put_reference(e, &e.streams[PIECES], dot, &inc.name, inc.n)
    write_varint(&e.streams[PIECES], count << 2 | flags)
    if flags & HAS_NAME:
        collection, text = name
        key = text.encode()
        write_varint(w, collection)
        write_varint(w, <size_t>PyBytes_GET_SIZE(key))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(key), <size_t>PyBytes_GET_SIZE(key))
    for i in range(inc.count):
        if same_dot(&inc.cells[i].stamp, dot):
            put_cell(e, &inc.cells[i], dot.time)
    return 1


cdef int put_item(Encoder *e, uint64_t author, uint64_t seq, uint64_t n, bytes item) except -1:
    """A removal, from this file's numbers to the chunk's."""
    cdef Writer *w = &e.streams[REMOVALS]
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(item), <size_t>PyBytes_GET_SIZE(item))
    cdef Stamp name = Stamp(author, seq, 0)
    cdef uint64_t _, count, field, size
    cdef const uint8_t *sub
    put_reference(e, w, NULL, &name, n)
    write_byte(w, read_byte(&r))
    count = read_varint(&r)
    write_varint(w, count)
    for _ in range(count):
        field = read_varint(&r)
        if r.bad or field >= e.fields.count:
            raise ValueError("a packed removal is damaged")
        write_varint(w, number_of(&e.used, field, &e.failed))
        if field_kind(&e.fields, field) & HAS_SUB:
            size = read_varint(&r)
            sub = read_bytes(&r, size)
            write_varint(w, size)
            write_bytes(w, sub, size if sub != NULL else 0)
        put_dots(e, w, &r)
        put_dots(e, w, &r)
    if r.bad or r.at != r.end:
        raise ValueError("a packed removal is damaged")
    return 0


cdef int put_change(Encoder *e, tuple change, Record *record) except -1:
    cdef Stamp dot
    cdef uint64_t author
    cdef uint64_t pieces = 0
    cdef uint64_t flags, parts
    cdef size_t i
    cdef Writer *w = &e.streams[CHANGES]
    cdef bytes data
    cdef list blobs, items
    dot.author, dot.seq, dot.time, flags, parts, blobs, items = change
    author = number_of(&e.authors, dot.author, &e.failed)
    if e.failed:
        raise ValueError("an author that the dictionary does not hold")
    write_varint(w, author)
    write_varint(w, zigzag(<int64_t>(dot.seq - e.last_seq[author] - 1)))
    write_varint(w, zigzag(<int64_t>(dot.time - e.last_time)))
    write_varint(w, flags)
    write_varint(w, parts)
    e.last_seq[author] = dot.seq
    e.last_time = dot.time
    e.own_n = 0
    for data, name in blobs:
        if PyBytes_AS_STRING(data) != e.parsed:
            e.parsed = NULL
            record.count = 0
            parse_record(data, record, &e.fields, e.authors.room)
            e.parsed = PyBytes_AS_STRING(data)
        for i in range(record.count):
            pieces += put_piece(e, &record.incarnations[i], &dot, name)
    write_varint(w, pieces)
    write_varint(w, <size_t>len(items))
    for ref_author, ref_seq, n, data in items:
        put_item(e, ref_author, ref_seq, n, data)
    return 0


def encode(list changes not None, bytes fields not None, uint64_t authors):
    """Changes -> (streams, the local ids of the authors they number, the same of the fields).

    A change is (author, seq, time, flags, parts, records, removals): records as (packed, (collection number, key)),
    of which only what this change wrote is taken; removals as (author, seq, n, item). authors: how many ids there are.
    """
    cdef Encoder e
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i
    cdef list streams
    e.fields = fields_of(fields)
    e.stream_count = VALUES + e.fields.count
    e.last_time = e.ref_author = e.ref_seq = e.ref_n = e.own_n = 0
    e.dots = Dots(NULL, 0, 0)
    e.parsed = NULL
    e.failed = e.no_memory = False
    e.authors = e.used = Numbers(NULL, 0, NULL, 0)
    e.last_seq = <uint64_t *>calloc(authors + 1, sizeof(uint64_t))
    e.streams = <Writer *>calloc(e.stream_count + 1, sizeof(Writer))
    try:
        if e.last_seq == NULL or e.streams == NULL or not numbers_start(&e.authors, authors) \
                or not numbers_start(&e.used, e.fields.count):
            raise MemoryError
        for change in changes:
            put_change(&e, change, &record)
        if e.no_memory:
            raise MemoryError
        if e.failed:
            raise ValueError("an author that the dictionary does not hold")
        streams = []
        for i in range(VALUES + e.used.count):
            streams.append(taken(&e.streams[i]))
        return (streams, [e.authors.locals[i] for i in range(e.authors.count)],
                [e.used.locals[i] for i in range(e.used.count)])
    finally:
        record_free(&record)
        encoder_free(&e)
