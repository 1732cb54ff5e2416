# The digest of a scope: the sum of its cells' hashes (docs/format.md, Digest). Header-only.
#
# What is hashed of a cell begins with the names of its incarnation and of its change. Many cells share these, so what
# they make of the hash's state is kept. Each step of a hash waits for the one before, so two hashes are computed at a
# time: one is put off until the next comes, and the sum is right when `settle` was called.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memset

from bytes cimport (
    Reader, Writer, read_varint, reader_of, reserve, write_byte, write_bytes, write_fixed, write_varint, writer_free,
)
from dots cimport Stamp, order_stamps, same_dot
from record cimport KIND_EXISTENCE, Cell, Fields, Incarnation, author_count, field_name
from siphash cimport (
    Digest, SipState, big_word, digest_add, digest_subtract, load_little, sip_begin, sip_end, sip_end_two, sip_word,
)
from values cimport TAG_LIST, write_tagged_text

cdef enum:
    PREFIX_BYTES = 48    # of what is hashed of a cell: the names of its incarnation and of its change

# Hashes that are added up, or taken out again.
ctypedef struct Sum:
    Digest total
    Writer hashed[2]     # what waits to be
    SipState begun[2]    # after what comes before it
    bint lost[2]
    size_t waiting
    bint failed

# The hash of what the cells of one incarnation with one stamp begin with.
ctypedef struct Prefix:
    Stamp incarnation
    uint64_t n
    Stamp stamp
    SipState state

ctypedef struct Digester:
    Fields fields
    const uint8_t *authors
    uint64_t author_count
    SipState start            # under the scope's key
    Prefix prefixes[2]        # the last ones: of what is gained, and of what is lost
    size_t oldest
    Writer name               # the value of an existence cell: the list of the record's collection and key
    Sum sum


cdef inline Writer *next_bytes(Sum *sum) noexcept nogil:
    """Where to write what is hashed next."""
    sum.hashed[sum.waiting].size = 0
    return &sum.hashed[sum.waiting]


cdef inline void count_in(Sum *sum, Digest one, bint lost) noexcept nogil:
    if lost:
        digest_subtract(&sum.total, one)
    else:
        digest_add(&sum.total, one)


cdef inline void add_hash(Sum *sum, const SipState *begun, bint lost) noexcept nogil:
    """Add the hash of what was written, after a prefix of so many bytes; or take it out."""
    cdef Digest first, second
    cdef Writer *a = &sum.hashed[0]
    cdef Writer *b = &sum.hashed[1]
    sum.begun[sum.waiting] = begun[0]
    sum.lost[sum.waiting] = lost
    sum.waiting += 1
    if sum.waiting < 2:
        return
    sum.waiting = 0
    if pad(a) and pad(b):
        sip_end_two(sum.begun, a.data, a.size >> 3, b.data, b.size >> 3, &first, &second)
        count_in(sum, first, sum.lost[0])
        count_in(sum, second, lost)
    else:
        sum.failed = True


cdef inline bint pad(Writer *w) noexcept nogil:
    """Fill up to whole words as SipHash ends its input; False without memory."""
    cdef uint8_t size = <uint8_t>((PREFIX_BYTES + w.size) & 255)
    cdef size_t gap = 7 - (w.size & 7)
    if not reserve(w, 8):
        return False
    memset(w.data + w.size, 0, 8)
    w.size += gap + 1
    w.data[w.size - 1] = size
    return True


cdef inline void settle(Sum *sum) noexcept nogil:
    """Add the hash that waits for another, if one does."""
    if sum.waiting:
        sum.waiting = 0
        sum.failed = sum.failed or sum.hashed[0].failed
        count_in(sum, sip_end(sum.begun[0], sum.hashed[0].data, sum.hashed[0].size, PREFIX_BYTES), sum.lost[0])


cdef inline void sum_free(Sum *sum) noexcept nogil:
    writer_free(&sum.hashed[0])
    writer_free(&sum.hashed[1])


cdef inline int digester_start(Digester *d, bytes key, Fields fields, bytes authors) except -1:
    """Under the key of a scope; ValueError for one that is none."""
    memset(d, 0, sizeof(Digester))
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a digest key has 16 bytes")
    d.fields = fields
    d.authors = <const uint8_t *>PyBytes_AS_STRING(authors)
    d.author_count = author_count(authors)
    d.start = sip_begin(<const uint8_t *>PyBytes_AS_STRING(key))
    d.prefixes[0].n = d.prefixes[1].n = UINT64_MAX  # nobody's
    return 0


cdef inline void digester_free(Digester *d) noexcept nogil:
    writer_free(&d.name)
    sum_free(&d.sum)


cdef inline object digest_bytes(Digest digest):
    return (digest.low | <object>digest.high << 64).to_bytes(16, "little")


cdef inline int name_record(Digester *d, str collection, str key) except -1:
    """Whose cells are hashed from here on."""
    d.name.size = 0
    write_byte(&d.name, TAG_LIST)
    write_varint(&d.name, 2)
    write_text(&d.name, collection)
    write_text(&d.name, key)
    d.sum.failed = d.sum.failed or d.name.failed
    return 0


cdef inline int write_text(Writer *w, str text) except -1:
    cdef Py_ssize_t size = 0
    cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
    write_tagged_text(w, <const uint8_t *>data, <size_t>size)
    return 0


cdef inline const SipState *prefix_of(Digester *d, const Incarnation *inc, const Stamp *stamp) noexcept nogil:
    """The state after the names of the incarnation and of the change."""
    cdef size_t i
    cdef Prefix *p
    for i in range(2):
        p = &d.prefixes[i]
        if order_stamps(&p.stamp, stamp) == 0 and same_dot(&p.incarnation, &inc.name) and p.n == inc.n:
            return &p.state
    p = &d.prefixes[d.oldest]
    d.oldest = 1 - d.oldest
    p.incarnation, p.n, p.stamp, p.state = inc.name, inc.n, stamp[0], d.start
    sip_word(&p.state, load_little(d.authors + 8 * inc.name.author))
    sip_word(&p.state, big_word(inc.name.seq))
    sip_word(&p.state, big_word(inc.n))
    sip_word(&p.state, load_little(d.authors + 8 * stamp.author))
    sip_word(&p.state, big_word(stamp.seq))
    sip_word(&p.state, big_word(stamp.time))
    return &p.state


cdef inline int entry_sorter(const void *a, const void *b) noexcept nogil:
    return memcmp(a, b, 16)


cdef inline void write_seen(Writer *w, const uint8_t *authors, const Cell *cell) noexcept nogil:
    """The seen of a cell in its canonical form: full names, sorted by them."""
    cdef Reader r = reader_of(cell.seen, cell.seen_size)
    cdef uint64_t count = read_varint(&r) if cell.seen_size else 0
    cdef uint64_t _
    cdef size_t start
    write_varint(w, count)
    start = w.size
    for _ in range(count):
        write_bytes(w, authors + 8 * read_varint(&r), 8)
        write_fixed(w, read_varint(&r))
    if count > 1 and not w.failed:
        qsort(w.data + start, count, 16, entry_sorter)


cdef inline void hash_cell(Digester *d, const Incarnation *inc, const Cell *cell, bint lost) noexcept nogil:
    cdef Writer *w = next_bytes(&d.sum)
    cdef size_t size = 0
    cdef const uint8_t *name = field_name(&d.fields, cell.field, &size)
    write_byte(w, cell.kind)
    write_varint(w, size)
    write_bytes(w, name, size)
    write_varint(w, cell.sub_size)
    write_bytes(w, cell.sub, cell.sub_size)
    write_seen(w, d.authors, cell)
    write_bytes(w, cell.value, cell.value_size)
    add_hash(&d.sum, prefix_of(d, inc, &cell.stamp), lost)


cdef inline void hash_existence(Digester *d, const Incarnation *inc, bint lost) noexcept nogil:
    cdef Writer *w = next_bytes(&d.sum)
    write_byte(w, KIND_EXISTENCE)
    write_bytes(w, d.name.data, d.name.size)
    add_hash(&d.sum, prefix_of(d, inc, &inc.name), lost)
