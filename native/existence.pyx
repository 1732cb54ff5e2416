"""Which removable cells live in packed records, as items to be compared, and the removals of those that live no more.

    item := 64 bits, big-endian, of SipHash under a key of the session, over
            incarnation (author, seq, n), dot (author, seq), kind, field name, sub       (docs/protocol.md, Existence)

Removable are existence cells, cells that live side by side (set elements, texts), and every cell of an incarnation
without existence cell, or whose existence cell is not compared: the other side may have removed it. Of the others, seen
says what replaced them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort

from bytes cimport Writer, load_fixed, taken, write_byte, write_bytes, write_fixed, write_varint, writer_free
from dots cimport Stamp
from packed cimport parse_record
from record cimport (
    HAS_SUB, KIND_EXISTENCE, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, author_count, field_name, fields_of,
    record_free, run_of,
)
from removal cimport KILLS
from siphash cimport siphash

cdef enum:
    ITEM_BYTES = 8

# The dots to compare: of each author, by id, intervals from starts[id] to starts[id + 1].
ctypedef struct Compared:
    size_t *starts
    uint64_t *lows
    uint64_t *highs
    uint64_t authors

ctypedef struct Hasher:
    Fields fields
    const uint8_t *authors
    const uint8_t *key
    Compared compared
    Writer scratch
    Writer out
    bint failed


cdef void compared_free(Compared *c) noexcept nogil:
    free(c.starts)
    free(c.lows)
    free(c.highs)


cdef int fill_compared(Compared *c, list intervals, uint64_t authors) except -1:
    """Intervals as (author id, low, high), ascending."""
    cdef size_t count = <size_t>len(intervals)
    cdef size_t i = 0
    cdef uint64_t author, low, high
    cdef uint64_t filled = 0
    c.authors = authors
    c.starts = <size_t *>calloc(authors + 2, sizeof(size_t))
    c.lows = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
    c.highs = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
    if c.starts == NULL or c.lows == NULL or c.highs == NULL:
        raise MemoryError
    for author, low, high in intervals:
        if author >= authors or author + 1 < filled:
            raise ValueError("intervals of authors that the dictionary does not hold, or that do not ascend")
        while filled <= author:
            c.starts[filled] = i
            filled += 1
        c.lows[i] = low
        c.highs[i] = high
        i += 1
    while filled <= authors:
        c.starts[filled] = i
        filled += 1
    return 0


cdef bint is_compared(const Compared *c, const Stamp *dot) noexcept nogil:
    cdef size_t low = c.starts[dot.author]
    cdef size_t high = c.starts[dot.author + 1]
    cdef size_t middle
    while low < high:
        middle = (low + high) >> 1
        if c.highs[middle] < dot.seq:
            low = middle + 1
        else:
            high = middle
    return low < c.starts[dot.author + 1] and c.lows[low] <= dot.seq


cdef uint64_t hash_item(Hasher *h, const Incarnation *inc, const Stamp *dot, uint8_t kind,
                        const Cell *cell) noexcept nogil:
    cdef Writer *w = &h.scratch
    cdef size_t size = 0
    cdef const uint8_t *name
    w.size = 0
    write_bytes(w, h.authors + 8 * inc.name.author, 8)
    write_fixed(w, inc.name.seq)
    write_fixed(w, inc.n)
    write_bytes(w, h.authors + 8 * dot.author, 8)
    write_fixed(w, dot.seq)
    write_byte(w, kind)
    if cell != NULL:
        name = field_name(&h.fields, cell.field, &size)
        write_varint(w, size)
        write_bytes(w, name, size)
        write_bytes(w, cell.sub, cell.sub_size)
    h.failed = h.failed or w.failed
    return siphash(h.key, w.data, w.size).low


cdef inline uint64_t hash_existence(Hasher *h, const Incarnation *inc) noexcept nogil:
    return hash_item(h, inc, &inc.name, KIND_EXISTENCE, NULL)


cdef inline uint64_t hash_cell(Hasher *h, const Incarnation *inc, const Cell *cell) noexcept nogil:
    return hash_item(h, inc, &cell.stamp, cell.kind, cell)


cdef void put_items(Hasher *h, const Incarnation *inc) noexcept nogil:
    cdef size_t i
    cdef const Cell *cell
    cdef bint is_known = inc.alive and is_compared(&h.compared, &inc.name)
    if is_known:
        write_fixed(&h.out, hash_existence(h, inc))
    for i in range(inc.count):
        cell = &inc.cells[i]
        if (cell.kind & SIDE_BY_SIDE or not is_known) and is_compared(&h.compared, &cell.stamp):
            write_fixed(&h.out, hash_cell(h, inc, cell))


cdef int start(Hasher *h, bytes key, list compared, bytes fields, bytes authors) except -1:
    h.fields = fields_of(fields)
    h.authors = <const uint8_t *>PyBytes_AS_STRING(authors)
    h.key = <const uint8_t *>PyBytes_AS_STRING(key)
    h.compared = Compared(NULL, NULL, NULL, 0)
    h.scratch = h.out = Writer(NULL, 0, 0, False)
    h.failed = False
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a key has 16 bytes")
    fill_compared(&h.compared, compared, author_count(authors))
    return 0


cdef void stop(Hasher *h) noexcept:
    compared_free(&h.compared)
    writer_free(&h.scratch)
    writer_free(&h.out)


def items(list records not None, bytes key not None, list compared not None, bytes fields not None,
          bytes authors not None):
    """The items of packed records whose dots are compared, in no order; compared: (author id, low, high), ascending."""
    cdef Hasher h
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i
    cdef bytes data
    try:
        start(&h, key, compared, fields, authors)
        for data in records:
            record.count = 0
            parse_record(data, &record, &h.fields, h.compared.authors)
            for i in range(record.count):
                put_items(&h, &record.incarnations[i])
        if h.failed:
            raise MemoryError
        return taken(&h.out)
    finally:
        record_free(&record)
        stop(&h)


cdef int number_sorter(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0]
    cdef uint64_t y = (<const uint64_t *>b)[0]
    return (x > y) - (x < y)


cdef size_t distinct(uint64_t *numbers, size_t count) noexcept nogil:
    """Sort numbers and drop repeats; returns how many are left."""
    cdef size_t i
    cdef size_t kept = 0
    qsort(numbers, count, sizeof(uint64_t), number_sorter)
    for i in range(count):
        if i == 0 or numbers[i] != numbers[i - 1]:
            numbers[kept] = numbers[i]
            kept += 1
    return kept


def ordered(bytes unordered not None):
    """Items in any order -> the set of them: ascending, each once."""
    cdef size_t count = <size_t>PyBytes_GET_SIZE(unordered) // ITEM_BYTES
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(unordered)
    cdef uint64_t *numbers = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
    cdef Writer w = Writer(NULL, 0, 0, False)
    cdef size_t i
    if numbers == NULL:
        raise MemoryError
    try:
        with nogil:
            for i in range(count):
                numbers[i] = load_fixed(data + ITEM_BYTES * i)
            count = distinct(numbers, count)
            for i in range(count):
                write_fixed(&w, numbers[i])
        return taken(&w)
    finally:
        free(numbers)
        writer_free(&w)


cdef bint holds(const uint8_t *items, size_t count, uint64_t wanted) noexcept nogil:
    """Whether a set of items holds one."""
    cdef size_t low = 0
    cdef size_t high = count
    cdef size_t middle
    while low < high:
        middle = (low + high) >> 1
        if load_fixed(items + ITEM_BYTES * middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low < count and load_fixed(items + ITEM_BYTES * low) == wanted


# What is gone of one incarnation.
ctypedef struct Gone:
    bint existence
    bint existence_lives     # at the giver
    size_t cells


cdef bint is_gone(Hasher *h, const Incarnation *inc, const Cell *cell, const Gone *gone, const uint8_t *alive,
                  size_t count) noexcept nogil:
    """Whether a giver that covers a cell has it no more."""
    if not (cell.kind & SIDE_BY_SIDE) and ((inc.alive and not gone.existence) or gone.existence_lives):
        return False
    return is_compared(&h.compared, &cell.stamp) and not holds(alive, count, hash_cell(h, inc, cell))


cdef void put_gone(Hasher *h, const Incarnation *inc, const Cell *cell) noexcept nogil:
    """An address of a removal that names one dot; the cells of one address follow each other."""
    write_varint(&h.out, cell.field)
    if cell.kind & HAS_SUB:
        write_varint(&h.out, cell.sub_size)
        write_bytes(&h.out, cell.sub, cell.sub_size)


cdef void put_dot(Hasher *h, const Stamp *dot) noexcept nogil:
    write_varint(&h.out, dot.author)
    write_varint(&h.out, dot.seq)


cdef size_t put_addresses(Hasher *h, const Incarnation *inc, const Gone *gone, const uint8_t *alive,
                          size_t count) noexcept nogil:
    """The addresses of a removal of all that is gone; returns how many. Cells are sorted by address, then by dot."""
    cdef size_t i = 0
    cdef size_t j, end, named
    cdef size_t addresses = 0
    while i < inc.count:
        end = run_of(inc, i)
        named = 0
        for j in range(i, end):
            named += is_gone(h, inc, &inc.cells[j], gone, alive, count)
        if named:
            addresses += 1
            put_gone(h, inc, &inc.cells[i])
            write_varint(&h.out, 0)
            write_varint(&h.out, named)
            for j in range(i, end):
                if is_gone(h, inc, &inc.cells[j], gone, alive, count):
                    put_dot(h, &inc.cells[j].stamp)
        i = end
    return addresses


cdef object removal_of(Hasher *h, const Incarnation *inc, const uint8_t *alive, size_t count):
    """The removal of what is gone of an incarnation, None where nothing is."""
    cdef Gone gone
    cdef size_t addresses
    cdef uint64_t existence = hash_existence(h, inc)
    gone.existence_lives = holds(alive, count, existence)
    gone.existence = inc.alive and is_compared(&h.compared, &inc.name) and not gone.existence_lives
    h.out.size = 0
    addresses = put_addresses(h, inc, &gone, alive, count)
    if h.failed:
        raise MemoryError
    if not addresses and not gone.existence:
        return None
    body = taken(&h.out)
    h.out.size = 0
    write_byte(&h.out, KILLS if gone.existence else 0)
    write_varint(&h.out, addresses)
    return inc.name.author, inc.name.seq, inc.n, taken(&h.out) + body


def gone(list records not None, bytes key not None, list compared not None, bytes alive not None, bytes fields not None,
         bytes authors not None):
    """What a giver no longer has of packed records: for each, a tuple of removals (author id, seq, n, item).

    alive: the giver's items of the dots that are compared, ascending. A cell that is no item is gone with its
    existence cell, unless the giver still has it without one.
    """
    cdef Hasher h
    cdef Record record = Record(NULL, 0, 0)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(alive)
    cdef size_t count = <size_t>PyBytes_GET_SIZE(alive) // ITEM_BYTES
    cdef size_t i
    cdef bytes packed
    cdef list found
    cdef list out = []
    try:
        start(&h, key, compared, fields, authors)
        for packed in records:
            record.count = 0
            parse_record(packed, &record, &h.fields, h.compared.authors)
            found = []
            for i in range(record.count):
                removal = removal_of(&h, &record.incarnations[i], data, count)
                if removal is not None:
                    found.append(removal)
            out.append(tuple(found))
        return out
    finally:
        record_free(&record)
        stop(&h)
