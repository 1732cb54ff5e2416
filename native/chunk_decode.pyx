"""The streams of a chunk -> changes, under the numbers of this file (docs/format.md, Chunk)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort

from bytes cimport (
    Reader, Writer, left, read_below, read_byte, read_bytes, read_varint, reader_of, taken, unzigzag, write_byte,
    write_bytes, write_varint, writer_free,
)
from chunk cimport (
    CELLS, CHANGES, HAS_EXISTENCE, HAS_NAME, HAS_SEEN, HAS_TIME, NAMES, OTHER, OWN, OWN_NEXT, PIECES, REMOVALS, SEENS,
    VALUES,
)
from dots cimport Dots, Stamp, add_dot, same_dot, sort_dots, write_dots
from packed cimport DONE, pack_incarnation
from record cimport (
    HAS_SUB, KIND_EXISTENCE, SIDE_BY_SIDE, Cell, Fields, Incarnation, add_cell, cell_sorter, field_kind, fields_of,
    order_addresses,
)
from removal cimport KILLS
from values cimport check_text, check_value

cdef enum:
    KIND_SET = 0x1B
    ADDRESSES_MAX = 1 << 19   # of a piece or removal: more of them would not fit a change; bounds memory

cdef uint64_t TIME_MAX = <uint64_t>0x7FFFFFFFFFFFFFFF

ctypedef struct Decoder:
    Fields fields
    Reader *streams
    uint64_t *authors    # local ids, by the chunk's number
    uint64_t author_count
    uint64_t *used
    uint64_t used_count
    uint64_t *last_seq
    uint64_t last_time
    uint64_t ref_author
    uint64_t ref_seq
    uint64_t ref_n
    uint64_t own_n
    uint64_t pieces_left
    uint64_t collections
    Dots dots            # the last that were read
    Writer scratch       # dots under this file's numbers, found by offset until all of a piece or removal are there
    Writer body
    Writer packed
    bint no_memory


cdef Stamp get_reference(Decoder *d, Reader *r, const Stamp *dot, uint64_t *n) noexcept nogil:
    """An incarnation's name, the inverse of put_reference; `dot` has the local author."""
    cdef Stamp name
    cdef uint64_t tag = read_below(r, OTHER + d.author_count)
    cdef uint64_t number, seq
    name.author = name.seq = name.time = 0
    n[0] = 0
    if r.bad:
        return name
    if tag < OTHER:
        if dot == NULL:
            r.bad = True
            return name
        n[0] = d.own_n if tag == OWN_NEXT else read_varint(r)
        if tag == OWN and n[0] == d.own_n:
            r.bad = True
        d.own_n = n[0] + 1
        name.author, name.seq = dot.author, dot.seq
    else:
        number = tag - OTHER
        seq = d.ref_seq + <uint64_t>unzigzag(read_varint(r))
        if number == d.ref_author and seq == d.ref_seq:
            n[0] = d.ref_n + <uint64_t>unzigzag(read_varint(r))
        else:
            n[0] = read_varint(r)
        d.ref_author, d.ref_seq, d.ref_n = number, seq, n[0]
        name.author, name.seq = d.authors[number], seq
        if dot != NULL and same_dot(&name, dot):
            r.bad = True
    if name.seq == 0 or name.seq >= TIME_MAX or n[0] >= (<uint64_t>1 << 32):
        r.bad = True
    return name


cdef void get_dots(Decoder *d, Reader *r, bint highest) noexcept nogil:
    """A count and dots, in the order of the chunk's numbers, into d.dots, sorted by this file's.

    Each dot is there once, each author once where `highest` is set.
    """
    cdef uint64_t i, number, seq
    cdef uint64_t last_number = 0
    cdef uint64_t last_seq = 0
    cdef uint64_t count = read_below(r, left(r) + 1)
    d.dots.count = 0
    for i in range(count):
        number = read_below(r, d.author_count)
        seq = read_varint(r)
        if i and (number < last_number or (number == last_number and (highest or seq <= last_seq))):
            r.bad = True
        if r.bad or seq == 0 or seq >= TIME_MAX:
            r.bad = True
            return
        if not add_dot(&d.dots, d.authors[number], seq):
            d.no_memory = True
            return
        last_number, last_seq = number, seq
    sort_dots(&d.dots)


cdef void get_seen(Decoder *d, Cell *cell, const Incarnation *inc) noexcept nogil:
    """A seen; what is implied must not be written down."""
    cdef Reader *r = &d.streams[SEENS]
    cdef size_t i
    get_dots(d, r, True)
    if d.dots.count == 0:
        r.bad = True
    for i in range(d.dots.count):
        if not cell.kind & SIDE_BY_SIDE and (
                d.dots.at[i].author == cell.stamp.author or same_dot(&d.dots.at[i], &inc.name)):
            r.bad = True
    cell.seen = <const uint8_t *>d.scratch.size
    write_dots(&d.scratch, &d.dots)
    cell.seen_size = d.scratch.size - <size_t>cell.seen


cdef void get_sub(Decoder *d, Reader *r, Cell *cell) noexcept nogil:
    """The second part of an address; of a set it is a value."""
    cdef Reader element
    cell.sub_size = read_varint(r)
    cell.sub = read_bytes(r, cell.sub_size)
    if not r.bad and cell.kind == KIND_SET:
        element = reader_of(cell.sub, cell.sub_size)
        check_value(&element, 0)
        if element.bad or element.at != element.end:
            r.bad = True


cdef inline Cell *get_address(Decoder *d, Incarnation *inc, uint64_t number) noexcept nogil:
    """One more cell, at the field of that number; NULL without memory."""
    cdef Cell *cell = add_cell(inc)
    if cell == NULL:
        d.no_memory = True
        return NULL
    cell.field = d.used[number]
    cell.kind = field_kind(&d.fields, cell.field)
    cell.stamp = Stamp(0, 0, 0)
    cell.sub = cell.seen = cell.value = NULL
    cell.sub_size = cell.seen_size = cell.value_size = 0
    return cell


cdef bint get_cell(Decoder *d, Incarnation *inc, const Stamp *dot) noexcept nogil:
    """One more cell of a piece; False where the bytes are bad."""
    cdef Reader *r = &d.streams[CELLS]
    cdef Reader *v
    cdef uint64_t head = read_below(r, d.used_count << 2)
    cdef uint64_t more
    cdef Cell *cell
    if r.bad:
        return False
    cell = get_address(d, inc, head >> 2)
    if cell == NULL:
        return False
    cell.stamp = dot[0]
    if head & HAS_TIME:
        more = read_varint(r)
        if more == 0 or more > TIME_MAX - dot.time:
            r.bad = True
        cell.stamp.time += more
    if cell.kind & HAS_SUB:
        get_sub(d, &d.streams[SEENS], cell)
    if head & HAS_SEEN:
        get_seen(d, cell, inc)
    v = &d.streams[VALUES + (head >> 2)]
    cell.value = v.at
    check_value(v, 0)
    cell.value_size = <size_t>(v.at - cell.value)
    return not (r.bad or v.bad or d.streams[SEENS].bad)


cdef bint sort_addresses(Incarnation *inc) noexcept nogil:
    """Sort cells as this file orders them; False where an address is there twice."""
    cdef size_t i
    if inc.count > 1:
        qsort(inc.cells, inc.count, sizeof(Cell), cell_sorter)
    for i in range(1, inc.count):
        if order_addresses(&inc.cells[i - 1], &inc.cells[i]) == 0:
            return False
    return True


cdef object get_name(Decoder *d):
    cdef Reader *r = &d.streams[NAMES]
    cdef uint64_t collection = read_below(r, d.collections)
    cdef uint64_t size = read_varint(r)
    cdef const uint8_t *key = read_bytes(r, size)
    check_text(key, size, r)
    if r.bad:
        return None
    return collection, PyUnicode_DecodeUTF8(<const char *>key, <Py_ssize_t>size, NULL)


cdef object get_piece(Decoder *d, const Stamp *dot, Incarnation *inc, uint64_t *cells):
    """(author, seq, n, name or None, packed) of one incarnation; None where the bytes are bad."""
    cdef Reader *r = &d.streams[PIECES]
    cdef uint64_t head, _
    cdef size_t i
    cdef object name = None
    inc.name = get_reference(d, r, dot, &inc.n)
    head = read_varint(r)
    inc.count = 0
    inc.alive = head & HAS_EXISTENCE
    if r.bad or head == HAS_NAME or head == 0 or (head >> 2) > ADDRESSES_MAX:
        return None
    if inc.alive:
        if not same_dot(&inc.name, dot) or not head & HAS_NAME:
            return None
        inc.name.time = dot.time
    if head & HAS_NAME:
        name = get_name(d)
        if name is None:
            return None
    d.scratch.size = 0
    for _ in range(head >> 2):
        if not get_cell(d, inc, dot):
            return None
    if d.scratch.failed:
        raise MemoryError
    for i in range(inc.count):
        inc.cells[i].seen = d.scratch.data + <size_t>inc.cells[i].seen
    if not sort_addresses(inc):
        return None
    cells[0] += inc.count + (1 if inc.alive else 0)
    d.packed.size = 0
    if pack_incarnation(&d.packed, &d.body, inc) != DONE:
        raise MemoryError
    return inc.name.author, inc.name.seq, inc.n, name, taken(&d.packed)


cdef bint get_sight(Decoder *d, Incarnation *item) noexcept nogil:
    """One address of a removal, as a cell whose value is what was seen there; False where the bytes are bad."""
    cdef Reader *r = &d.streams[REMOVALS]
    cdef uint64_t number = read_below(r, d.used_count)
    cdef Cell *cell
    if r.bad:
        return False
    cell = get_address(d, item, number)
    if cell == NULL:
        return False
    if cell.kind & HAS_SUB:
        get_sub(d, r, cell)
    cell.value = <const uint8_t *>d.scratch.size
    get_dots(d, r, True)
    write_dots(&d.scratch, &d.dots)
    get_dots(d, r, False)
    write_dots(&d.scratch, &d.dots)
    cell.value_size = d.scratch.size - <size_t>cell.value
    return not r.bad and cell.value_size > 2


cdef object get_item(Decoder *d, Incarnation *item):
    """(author, seq, n, removal) of one incarnation; None where the bytes are bad."""
    cdef Reader *r = &d.streams[REMOVALS]
    cdef uint64_t _, count
    cdef size_t i
    cdef uint8_t flags
    cdef Cell *cell
    item.name = get_reference(d, r, NULL, &item.n)
    item.count = 0
    flags = read_byte(r)
    count = read_varint(r)
    if r.bad or flags > KILLS or (flags == 0 and count == 0) or count > ADDRESSES_MAX:
        return None
    d.scratch.size = 0
    for _ in range(count):
        if not get_sight(d, item):
            return None
    if not sort_addresses(item):
        return None
    d.packed.size = 0
    write_byte(&d.packed, flags)
    write_varint(&d.packed, count)
    for i in range(item.count):
        cell = &item.cells[i]
        write_varint(&d.packed, cell.field)
        if cell.kind & HAS_SUB:
            write_varint(&d.packed, cell.sub_size)
            write_bytes(&d.packed, cell.sub, cell.sub_size)
        write_bytes(&d.packed, d.scratch.data + <size_t>cell.value, cell.value_size)
    if d.scratch.failed:
        raise MemoryError
    return item.name.author, item.name.seq, item.n, taken(&d.packed)


cdef bint are_distinct(list pieces):
    """Whether no incarnation is there twice. They mostly ascend, which is cheaper to see."""
    cdef tuple last = ()
    cdef tuple piece
    for piece in pieces:
        if piece[:3] <= last:
            return len({piece[:3] for piece in pieces}) == len(pieces)
        last = piece
    return True


cdef object get_change(Decoder *d, Incarnation *inc):
    cdef Reader *r = &d.streams[CHANGES]
    cdef uint64_t number = read_below(r, d.author_count)
    cdef uint64_t flags, parts, piece_count, item_count, _
    cdef uint64_t cells = 0
    cdef Stamp dot
    cdef tuple piece, item
    cdef list pieces = []
    cdef list items = []
    if r.bad:
        return None
    dot.author = d.authors[number]
    dot.seq = d.last_seq[number] + 1 + <uint64_t>unzigzag(read_varint(r))
    dot.time = d.last_time + <uint64_t>unzigzag(read_varint(r))
    flags = read_varint(r)
    parts = read_varint(r)
    piece_count = read_varint(r)
    item_count = read_varint(r)
    if r.bad or dot.seq == 0 or dot.seq >= TIME_MAX or dot.time > TIME_MAX or parts >= TIME_MAX:
        return None
    if piece_count > d.pieces_left or item_count > d.pieces_left - piece_count or (piece_count and item_count):
        return None
    d.pieces_left -= piece_count + item_count
    d.last_seq[number] = dot.seq
    d.last_time = dot.time
    d.own_n = 0
    for _ in range(piece_count):
        piece = get_piece(d, &dot, inc, &cells)
        if piece is None:
            return None
        pieces.append(piece)
    if not are_distinct(pieces):
        return None
    for _ in range(item_count):
        item = get_item(d, inc)
        if item is None:
            return None
        items.append(item)
    return dot.author, dot.seq, dot.time, flags, parts, pieces, items, cells + item_count


cdef bint fill(uint64_t **out, uint64_t *count, list ids) except -1:
    cdef size_t i
    count[0] = <size_t>len(ids)
    out[0] = <uint64_t *>malloc((count[0] + 1) * sizeof(uint64_t))
    if out[0] == NULL:
        raise MemoryError
    for i in range(count[0]):
        out[0][i] = ids[i]
    return True


def decode(list streams not None, uint64_t count, list author_ids not None, list field_ids not None,
           uint64_t collections, uint64_t pieces_max, bytes fields not None):
    """The changes of a chunk under this file's numbers; ValueError for bytes that are not as encode makes them.

    Each is (author, seq, time, flags, parts, pieces, removals, parts received); pieces as (author, seq, n, (collection
    number, key) or None, packed), removals as (author, seq, n, item).
    """
    cdef Decoder d
    cdef Incarnation inc
    cdef uint64_t i
    cdef bytes data
    cdef list out = []
    d.fields = fields_of(fields)
    d.authors = d.used = d.last_seq = NULL
    d.streams = NULL
    d.scratch = d.body = d.packed = Writer(NULL, 0, 0, False)
    d.dots = Dots(NULL, 0, 0)
    d.last_time = d.ref_author = d.ref_seq = d.ref_n = d.own_n = 0
    d.collections = collections
    d.pieces_left = pieces_max
    d.no_memory = False
    inc = Incarnation(Stamp(0, 0, 0), 0, False, NULL, 0, 0)
    if len(streams) != VALUES + len(field_ids):
        raise ValueError("not the streams of a chunk")
    for i in field_ids:
        if i >= d.fields.count or field_kind(&d.fields, i) == KIND_EXISTENCE:
            raise ValueError("a field that the dictionary does not hold")
    try:
        fill(&d.authors, &d.author_count, author_ids)
        fill(&d.used, &d.used_count, field_ids)
        d.last_seq = <uint64_t *>calloc(d.author_count + 1, sizeof(uint64_t))
        d.streams = <Reader *>calloc(<size_t>len(streams), sizeof(Reader))
        if d.last_seq == NULL or d.streams == NULL:
            raise MemoryError
        for i in range(<uint64_t>len(streams)):
            data = streams[i]
            d.streams[i] = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
        for i in range(count):
            change = get_change(&d, &inc)
            if d.no_memory:
                raise MemoryError
            if change is None:
                raise ValueError(f"change {i} of {count} is malformed")
            out.append(change)
        for i in range(<uint64_t>len(streams)):
            if d.streams[i].bad or d.streams[i].at != d.streams[i].end:
                raise ValueError(f"stream {i} does not end where its changes do")
        return out
    finally:
        free(inc.cells)
        free(d.authors)
        free(d.used)
        free(d.last_seq)
        free(d.streams)
        free(d.dots.at)
        writer_free(&d.scratch)
        writer_free(&d.body)
        writer_free(&d.packed)
