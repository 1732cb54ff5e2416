"""Values: Python objects <-> canonical bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from bytes cimport (
    Reader, Writer, read_byte, read_bytes, read_fixed, read_varint, reader_of, taken, unzigzag, write_byte, write_bytes,
    write_varint, writer_free, zigzag,
)
from values cimport (
    DATETIME_MAX_US, DATETIME_MIN_US, DECIMAL_BYTES_MAX, DECIMAL_EXPONENT_MAX, TAG_BYTES, TAG_DATE, TAG_DATETIME,
    TAG_DECIMAL, TAG_FALSE, TAG_FLOAT, TAG_INT, TAG_LIST, TAG_MAP, TAG_NONE, TAG_SHORT_STR, TAG_SMALL_INT, TAG_STR,
    TAG_TRUE, TAG_UNKNOWN, VALUE_DEPTH_MAX, check_value, write_tagged_float, write_tagged_int, write_tagged_text,
)

import datetime
from decimal import Decimal
cdef enum:
    DECIMAL_DIGITS_MAX = 1234    # of the largest number of DECIMAL_BYTES_MAX bytes

cdef object EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
cdef object EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
cdef object MICROSECOND = datetime.timedelta(microseconds=1)
cdef object date_type = datetime.date
cdef object datetime_type = datetime.datetime
cdef object timedelta_type = datetime.timedelta
cdef object from_ordinal = datetime.date.fromordinal


class Unknown:
    """A value whose type this version does not know: kept, merged and passed on untouched."""

    __slots__ = ("data", "tag")

    def __init__(self, tag, data):
        self.tag = tag
        self.data = data

    def __eq__(self, other):
        return isinstance(other, Unknown) and (self.tag, self.data) == (other.tag, other.data)

    def __hash__(self):
        return hash((self.tag, self.data))

    def __repr__(self):
        return f"Unknown(tag={self.tag}, {len(self.data)} bytes)"


class Updates(tuple):
    """What lives side by side at one address that has no elements: the updates of a text, list or map.

    By stamp, the oldest first. kind: of the field; stamps: (author id, seq, time) of each.
    """

    kind = 0
    stamps = ()


cdef int write_text(Writer *w, str value, bint tagged) except -1:
    cdef bytes data
    cdef size_t size
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise TypeError("text with a lone surrogate, which UTF-8 cannot hold") from None
    size = <size_t>PyBytes_GET_SIZE(data)
    if tagged:
        write_tagged_text(w, <const uint8_t *>PyBytes_AS_STRING(data), size)
    else:
        write_varint(w, size)
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), size)
    return 0


cdef int write_integer(Writer *w, object value) except -1:
    cdef int64_t n
    try:
        n = value
    except OverflowError:
        raise TypeError("an integer beyond 64 bits") from None
    write_tagged_int(w, n)
    return 0


cdef int write_decimal(Writer *w, object value) except -1:
    cdef bytes digits
    if not value.is_finite():
        raise TypeError("a Decimal that is not finite")
    sign, places, exponent = value.as_tuple()
    if not -DECIMAL_EXPONENT_MAX <= exponent <= DECIMAL_EXPONENT_MAX or len(places) > DECIMAL_DIGITS_MAX:
        raise TypeError("a Decimal of more than 1233 digits or with an exponent beyond 100000")
    coefficient = int("".join(map(str, places)))
    digits = coefficient.to_bytes((coefficient.bit_length() + 7) // 8, "big")
    if PyBytes_GET_SIZE(digits) > DECIMAL_BYTES_MAX:
        raise TypeError("a Decimal of more than 1233 digits")
    write_byte(w, TAG_DECIMAL)
    write_varint(w, zigzag(exponent))
    write_byte(w, sign)
    write_varint(w, <size_t>PyBytes_GET_SIZE(digits))
    write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(digits), <size_t>PyBytes_GET_SIZE(digits))
    return 0


cdef int write_datetime(Writer *w, object value) except -1:
    cdef int64_t microseconds
    if value.tzinfo is None or value.utcoffset() is None:
        raise TypeError("a datetime without a time zone; attach one, such as tzinfo=datetime.UTC")
    microseconds = (value - EPOCH) // MICROSECOND
    if not DATETIME_MIN_US <= microseconds <= DATETIME_MAX_US:
        raise TypeError("a datetime that is not within the years 1 to 9999 in UTC")
    write_byte(w, TAG_DATETIME)
    write_varint(w, zigzag(microseconds))
    return 0


cdef int write_map(Writer *w, dict value, int depth) except -1:
    for key in value:
        if type(key) is not str:
            raise TypeError(f"a map with a key of type {type(key).__name__}; keys are str")
    write_byte(w, TAG_MAP)
    write_varint(w, <size_t>len(value))
    for key in sorted(value):  # by code point, which is the order of the keys' bytes too
        write_text(w, key, False)
        write_value(w, value[key], depth + 1)
    return 0


cdef int write_other(Writer *w, object value, int depth) except -1:
    """The rarer types, subclasses among them; containers are copied, as encoding an item may run Python code."""
    cdef bytes data
    cdef list items
    if depth >= VALUE_DEPTH_MAX and isinstance(value, (list, tuple, dict)):
        raise TypeError(f"a value nested deeper than {VALUE_DEPTH_MAX}")
    if isinstance(value, datetime_type):
        write_datetime(w, value)
    elif isinstance(value, date_type):
        write_byte(w, TAG_DATE)
        write_varint(w, zigzag(value.toordinal() - EPOCH_DAY))
    elif isinstance(value, Decimal):
        write_decimal(w, value)
    elif isinstance(value, (bytes, bytearray)):
        data = bytes(value)
        write_byte(w, TAG_BYTES)
        write_varint(w, <size_t>PyBytes_GET_SIZE(data))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    elif isinstance(value, (list, tuple)):
        items = list(value)
        write_byte(w, TAG_LIST)
        write_varint(w, <size_t>len(items))
        for item in items:
            write_value(w, item, depth + 1)
    elif isinstance(value, dict):
        write_map(w, dict(value), depth)
    elif isinstance(value, Unknown):
        data = value.data
        if not (TAG_MAP < value.tag < TAG_SMALL_INT or TAG_UNKNOWN <= value.tag <= 255):
            raise TypeError(f"an Unknown with the tag {value.tag}")
        write_byte(w, value.tag)
        write_varint(w, <size_t>PyBytes_GET_SIZE(data))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    elif isinstance(value, str):
        write_text(w, str.__str__(value), True)  # an Enum's own __str__ gives its name
    elif isinstance(value, int):
        write_integer(w, int(value))
    elif isinstance(value, float):
        write_tagged_float(w, value)
    else:
        raise TypeError(f"a value of type {type(value).__name__}")
    return 0


cdef int write_value(Writer *w, object value, int depth) except -1:
    cdef type kind = type(value)
    if kind is str:
        write_text(w, value, True)
    elif kind is int:
        write_integer(w, value)
    elif kind is float:
        write_tagged_float(w, value)
    elif value is None:
        write_byte(w, TAG_NONE)
    elif value is True:
        write_byte(w, TAG_TRUE)
    elif value is False:
        write_byte(w, TAG_FALSE)
    else:
        write_other(w, value, depth)
    return 0


cdef object read_text(Reader *r, uint64_t size):
    cdef const uint8_t *data = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    return PyUnicode_DecodeUTF8(<const char *>data, <Py_ssize_t>size, NULL)


cdef object read_decimal(Reader *r):
    cdef int64_t exponent = unzigzag(read_varint(r))
    cdef uint8_t sign = read_byte(r)
    cdef uint64_t size = read_varint(r)
    cdef const uint8_t *digits = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    coefficient = int.from_bytes(digits[:size], "big")
    return Decimal((sign, tuple(map(int, str(coefficient))), exponent))


cdef object read_rarer(Reader *r, uint8_t tag):
    cdef uint64_t _, size
    cdef const uint8_t *data
    if tag == TAG_DECIMAL:
        return read_decimal(r)
    if tag == TAG_DATE:
        return from_ordinal(unzigzag(read_varint(r)) + EPOCH_DAY)
    if tag == TAG_DATETIME:
        return EPOCH + timedelta_type(microseconds=unzigzag(read_varint(r)))
    size = read_varint(r)
    if tag == TAG_LIST:
        return [read_value(r) for _ in range(size)]
    if tag == TAG_MAP:
        out = {}
        for _ in range(size):
            key = read_text(r, read_varint(r))
            out[key] = read_value(r)
        return out
    data = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    raw = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
    return raw if tag == TAG_BYTES else Unknown(tag, raw)


cdef object read_value(Reader *r):
    """One value whose form was checked already."""
    cdef uint8_t tag = read_byte(r)
    cdef uint64_t bits
    cdef double real
    if r.bad:
        raise ValueError("truncated value")
    if tag >= TAG_SHORT_STR and tag < TAG_UNKNOWN:
        return read_text(r, tag - TAG_SHORT_STR)
    if tag >= TAG_SMALL_INT and tag < TAG_UNKNOWN:
        return <int>tag - TAG_SMALL_INT - 16
    if tag == TAG_INT:
        return unzigzag(read_varint(r))
    if tag == TAG_FLOAT:
        bits = read_fixed(r)
        memcpy(&real, &bits, 8)
        return real
    if tag == TAG_STR:
        return read_text(r, read_varint(r))
    if tag == TAG_NONE:
        return None
    if tag == TAG_TRUE:
        return True
    if tag == TAG_FALSE:
        return False
    return read_rarer(r, tag)


def encode(value):
    """The canonical bytes of one value; TypeError for a type that Fieldsync cannot hold."""
    cdef Writer w = Writer(NULL, 0, 0, False)
    try:
        write_value(&w, value, 0)
        return taken(&w)
    finally:
        writer_free(&w)


def decode(bytes data not None):
    """The value of canonical bytes; ValueError for anything else."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    check_value(&r, 0)
    if r.bad or r.at != r.end:
        raise ValueError("not the canonical form of a value")
    r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    return read_value(&r)
