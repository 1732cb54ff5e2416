# Bounds-checked reading and growing writing of bytes, varints, and values: what every kernel stands on. Header-only.
#
# A Reader never moves past its end: the first bad or missing byte sets `bad` and every later read gives 0.
# A Writer that cannot get memory sets `failed` and drops what follows; its owner checks once, at the end.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

cdef enum:
    VALUE_DEPTH_MAX = 32
    DECIMAL_BYTES_MAX = 512
    DECIMAL_EXPONENT_MAX = 100000
    DATE_MIN_DAYS = -719162      # 0001-01-01
    DATE_MAX_DAYS = 2932896      # 9999-12-31

cdef extern from *:
    """
    #define FIELDSYNC_DATETIME_MIN_US (-62135596800000000LL)
    #define FIELDSYNC_DATETIME_MAX_US 253402300799999999LL
    """
    const int64_t DATETIME_MIN_US "FIELDSYNC_DATETIME_MIN_US"
    const int64_t DATETIME_MAX_US "FIELDSYNC_DATETIME_MAX_US"

cdef enum Tag:
    TAG_NONE = 0
    TAG_FALSE = 1
    TAG_TRUE = 2
    TAG_INT = 3
    TAG_FLOAT = 4
    TAG_DECIMAL = 5
    TAG_STR = 6
    TAG_BYTES = 7
    TAG_DATE = 8
    TAG_DATETIME = 9
    TAG_LIST = 10
    TAG_MAP = 11
    TAG_SMALL_INT = 32     # 32..95 hold -16..47
    TAG_SHORT_STR = 96     # 96..159 hold strings of 0..63 bytes
    TAG_UNKNOWN = 160      # 12..31 and 160..255: a length and bytes, kept as they came

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


cdef inline void write_tagged_text(Writer *w, const uint8_t *data, size_t size) noexcept nogil:
    """A text, UTF-8 already, as the value that it is."""
    if size < 64:
        write_byte(w, <uint8_t>(TAG_SHORT_STR + size))
    else:
        write_byte(w, TAG_STR)
        write_varint(w, size)
    write_bytes(w, data, size)


cdef inline void write_tagged_int(Writer *w, int64_t n) noexcept nogil:
    """An int as the value that it is."""
    if -16 <= n <= 47:
        write_byte(w, <uint8_t>(TAG_SMALL_INT + 16 + n))
    else:
        write_byte(w, TAG_INT)
        write_varint(w, zigzag(n))


cdef inline void write_tagged_float(Writer *w, double value) noexcept nogil:
    """A float as the value that it is; there is one zero, and one that is no number."""
    cdef uint64_t bits = <uint64_t>0x7FF8000000000000
    if value == value:
        value += 0.0
        memcpy(&bits, &value, 8)
    write_byte(w, TAG_FLOAT)
    write_fixed(w, bits)


cdef inline size_t varint_size(uint64_t n) noexcept nogil:
    cdef size_t size = 1
    while n >= 128:
        n >>= 7
        size += 1
    return size


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


cdef inline void skip_value(Reader *r, int depth) noexcept nogil:
    """Step over one value whose form was checked when it came in (codec.pyx, check_value)."""
    cdef uint64_t _, count
    cdef uint8_t tag = read_byte(r)
    if tag >= TAG_SMALL_INT and tag < TAG_UNKNOWN:
        if tag >= TAG_SHORT_STR:
            read_bytes(r, tag - TAG_SHORT_STR)
    elif tag <= TAG_TRUE:
        return
    elif tag == TAG_INT or tag == TAG_DATE or tag == TAG_DATETIME:
        read_varint(r)
    elif tag == TAG_FLOAT:
        read_bytes(r, 8)
    elif tag == TAG_DECIMAL:
        read_varint(r)
        read_byte(r)
        read_bytes(r, read_varint(r))
    elif tag == TAG_LIST or tag == TAG_MAP:
        count = read_below(r, left(r) + 1)
        if depth >= VALUE_DEPTH_MAX:
            r.bad = True
        for _ in range(count):
            if r.bad:
                return
            if tag == TAG_MAP:
                read_bytes(r, read_varint(r))
            skip_value(r, depth + 1)
    else:
        read_bytes(r, read_varint(r))


cdef inline void check_int(uint64_t bits, Reader *r) noexcept nogil:
    # the small ones have a tag of their own
    cdef int64_t n = unzigzag(bits)
    if -16 <= n <= 47:
        r.bad = True


cdef inline void check_float(uint64_t bits, Reader *r) noexcept nogil:
    # one NaN, one zero
    cdef bint nan = (bits & <uint64_t>0x7FFFFFFFFFFFFFFF) > <uint64_t>0x7FF0000000000000
    if (nan and bits != <uint64_t>0x7FF8000000000000) or bits == <uint64_t>0x8000000000000000:
        r.bad = True


cdef inline void check_range(uint64_t bits, int64_t least, int64_t most, Reader *r) noexcept nogil:
    cdef int64_t n = unzigzag(bits)
    if n < least or n > most:
        r.bad = True


cdef inline void check_decimal(Reader *r) noexcept nogil:
    cdef uint64_t size
    cdef const uint8_t *digits
    check_range(read_varint(r), -DECIMAL_EXPONENT_MAX, DECIMAL_EXPONENT_MAX, r)
    if read_byte(r) > 1:
        r.bad = True
    size = read_below(r, DECIMAL_BYTES_MAX + 1)
    digits = read_bytes(r, size)
    if not r.bad and size and digits[0] == 0:
        r.bad = True


cdef inline void check_text(const uint8_t *data, uint64_t size, Reader *r) noexcept nogil:
    if not r.bad and not is_utf8(data, size):
        r.bad = True


cdef inline void check_nested(Reader *r, uint8_t tag, int depth) noexcept nogil:
    cdef uint64_t count = read_below(r, left(r) + 1)
    cdef uint64_t i, size
    cdef uint64_t last_size = 0
    cdef const uint8_t *last = NULL
    cdef const uint8_t *key
    if depth >= VALUE_DEPTH_MAX:
        r.bad = True
    for i in range(count):
        if r.bad:
            return
        if tag == TAG_MAP:
            size = read_varint(r)
            key = read_bytes(r, size)
            check_text(key, size, r)
            if r.bad or (i and compare(last, last_size, key, size) >= 0):
                r.bad = True
                return
            last, last_size = key, size
        check_value(r, depth + 1)


cdef inline void check_value(Reader *r, int depth) noexcept nogil:
    """Step over one value from outside; anything but its one canonical form is bad."""
    cdef uint8_t tag = read_byte(r)
    cdef uint64_t size
    cdef const uint8_t *data
    if tag >= TAG_SMALL_INT and tag < TAG_UNKNOWN:
        if tag >= TAG_SHORT_STR:
            data = read_bytes(r, tag - TAG_SHORT_STR)
            check_text(data, tag - TAG_SHORT_STR, r)
    elif tag <= TAG_TRUE:
        return
    elif tag == TAG_INT:
        check_int(read_varint(r), r)
    elif tag == TAG_FLOAT:
        check_float(read_fixed(r), r)
    elif tag == TAG_DECIMAL:
        check_decimal(r)
    elif tag == TAG_STR:
        size = read_varint(r)
        data = read_bytes(r, size)
        check_text(data, size, r)
        if size < 64:
            r.bad = True
    elif tag == TAG_DATE:
        check_range(read_varint(r), DATE_MIN_DAYS, DATE_MAX_DAYS, r)
    elif tag == TAG_DATETIME:
        check_range(read_varint(r), DATETIME_MIN_US, DATETIME_MAX_US, r)
    elif tag == TAG_LIST or tag == TAG_MAP:
        check_nested(r, tag, depth)
    else:
        read_bytes(r, read_varint(r))
