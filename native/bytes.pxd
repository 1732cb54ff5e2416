# Bounds-checked reading and growing writing of bytes and varints: what every kernel stands on. Header-only.
#
# A Reader never moves past its end: the first bad or missing byte sets `bad` and every later read gives 0.
# A Writer that cannot get memory sets `failed` and drops what follows; its owner checks once, at the end.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

ctypedef struct Reader:
    const uint8_t *at
    const uint8_t *end
    bint bad

ctypedef struct Writer:
    uint8_t *data
    size_t size
    size_t room
    bint failed


cdef inline Reader reader_of(const uint8_t *data, size_t size) noexcept nogil:
    cdef Reader r
    r.at = data
    r.end = data + size
    r.bad = False
    return r


cdef inline size_t left(const Reader *r) noexcept nogil:
    return <size_t>(r.end - r.at)


cdef inline uint8_t read_byte(Reader *r) noexcept nogil:
    cdef uint8_t b
    if r.bad or r.at >= r.end:
        r.bad = True
        return 0
    b = r.at[0]
    r.at += 1
    return b


cdef inline const uint8_t *read_bytes(Reader *r, uint64_t size) noexcept nogil:
    """The next `size` bytes, in place; NULL when they are not there."""
    cdef const uint8_t *start = r.at
    if r.bad or size > left(r):
        r.bad = True
        return NULL
    r.at += size
    return start


cdef inline uint64_t read_varint(Reader *r) noexcept nogil:
    """LEB128, shortest form only."""
    cdef uint8_t b
    if r.at < r.end and r.at[0] < 128 and not r.bad:  # nearly always
        b = r.at[0]
        r.at += 1
        return b
    return read_long_varint(r)


cdef inline uint64_t read_long_varint(Reader *r) noexcept nogil:
    cdef uint64_t out = 0
    cdef int shift = 0
    cdef uint8_t b
    while True:
        b = read_byte(r)
        if r.bad:
            return 0
        if shift == 63 and b > 1:
            break
        out |= <uint64_t>(b & 127) << shift
        if b < 128:
            if b == 0 and shift:
                break
            return out
        shift += 7
    r.bad = True
    return 0


cdef inline uint64_t read_below(Reader *r, uint64_t limit) noexcept nogil:
    """A varint below `limit`."""
    cdef uint64_t out = read_varint(r)
    if out >= limit:
        r.bad = True
        return 0
    return out


cdef inline int64_t unzigzag(uint64_t n) noexcept nogil:
    return <int64_t>(n >> 1) ^ -<int64_t>(n & 1)


cdef inline uint64_t zigzag(int64_t n) noexcept nogil:
    return (<uint64_t>n << 1) ^ <uint64_t>(n >> 63)


cdef inline uint64_t read_fixed(Reader *r) noexcept nogil:
    """Eight bytes, big-endian."""
    cdef const uint8_t *p = read_bytes(r, 8)
    if p == NULL:
        return 0
    return load_fixed(p)


cdef inline uint64_t load_fixed(const uint8_t *p) noexcept nogil:
    return (
        <uint64_t>p[0] << 56 | <uint64_t>p[1] << 48 | <uint64_t>p[2] << 40 | <uint64_t>p[3] << 32
        | <uint64_t>p[4] << 24 | <uint64_t>p[5] << 16 | <uint64_t>p[6] << 8 | <uint64_t>p[7]
    )


cdef inline void writer_free(Writer *w) noexcept nogil:
    free(w.data)
    w.data = NULL
    w.size = 0
    w.room = 0


cdef inline bint reserve(Writer *w, size_t more) noexcept nogil:
    cdef size_t room = w.room
    cdef uint8_t *data
    if w.failed:
        return False
    if room - w.size >= more:
        return True
    if more > (<size_t>1 << 40):
        w.failed = True
        return False
    room = room + (room >> 1) + more + 64
    data = <uint8_t *>realloc(w.data, room)
    if data == NULL:
        w.failed = True
        return False
    w.data = data
    w.room = room
    return True


cdef inline void write_byte(Writer *w, uint8_t b) noexcept nogil:
    if reserve(w, 1):
        w.data[w.size] = b
        w.size += 1


cdef inline void write_bytes(Writer *w, const uint8_t *data, size_t size) noexcept nogil:
    if size and reserve(w, size):
        memcpy(w.data + w.size, data, size)
        w.size += size


cdef inline void write_varint(Writer *w, uint64_t n) noexcept nogil:
    if not reserve(w, 10):
        return
    while n >= 128:
        w.data[w.size] = <uint8_t>(n & 127) | 128
        w.size += 1
        n >>= 7
    w.data[w.size] = <uint8_t>n
    w.size += 1


cdef inline void write_fixed(Writer *w, uint64_t n) noexcept nogil:
    cdef int i
    if not reserve(w, 8):
        return
    for i in range(8):
        w.data[w.size + i] = <uint8_t>(n >> (56 - 8 * i))
    w.size += 8


cdef inline size_t varint_size(uint64_t n) noexcept nogil:
    cdef size_t size = 1
    while n >= 128:
        n >>= 7
        size += 1
    return size


cdef inline bytes taken(const Writer *w):
    """What was written, as bytes; memory is checked here."""
    if w.failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>w.data, <Py_ssize_t>w.size)


cdef inline int compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) noexcept nogil:
    """Lexicographic order of byte strings."""
    cdef size_t least = a_size if a_size < b_size else b_size
    cdef int order = memcmp(a, b, least) if least else 0
    if order:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef inline bint is_utf8(const uint8_t *p, size_t size) noexcept nogil:
    """Strict UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF (RFC 3629, section 4)."""
    cdef const uint8_t *end = p + size
    cdef uint8_t b, low, high
    cdef int more
    while p < end:
        b = p[0]
        p += 1
        if b < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= b <= 0xDF:
            more = 1
        elif 0xE0 <= b <= 0xEF:
            more = 2
            if b == 0xE0:
                low = 0xA0
            elif b == 0xED:
                high = 0x9F
        elif 0xF0 <= b <= 0xF4:
            more = 3
            if b == 0xF0:
                low = 0x90
            elif b == 0xF4:
                high = 0x8F
        else:
            return False
        if <size_t>(end - p) < <size_t>more:
            return False
        if p[0] < low or p[0] > high:
            return False
        while more > 1:
            more -= 1
            p += 1
            if p[0] < 0x80 or p[0] > 0xBF:
                return False
        p += 1
    return True
