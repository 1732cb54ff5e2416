# The canonical form of values (docs/format.md, Values): what a tag says, writing the common ones, stepping over any,
# and holding one from outside against its only form. Header-only.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from bytes cimport (
    Reader, Writer, compare, is_utf8, left, read_below, read_byte, read_bytes, read_fixed, read_varint, unzigzag,
    write_byte, write_bytes, write_fixed, write_varint, zigzag,
)

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


cdef inline void skip_value(Reader *r, int depth) noexcept nogil:
    """Step over one value whose form was checked when it came in (check_value)."""
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
