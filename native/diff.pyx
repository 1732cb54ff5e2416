"""Contexts: sets of dots as sorted intervals of sequence numbers an author; what one has that another lacks.

    context := (author: 8 bytes, varint intervals, (varint gap, varint length - 1)*)*

Authors are strictly ascending. A gap counts the numbers left out before an interval, from 1 on; only the first may be
0, since intervals that touch are one. Equal sets give equal bytes. The interval that begins at 1 is what sync.md calls
the version vector, the rest is the cloud.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from bytes cimport (
    Reader, Writer, left, load_fixed, read_below, read_bytes, read_varint, reader_of, write_bytes, write_fixed,
    write_varint, writer_free,
)

cdef uint64_t SEQ_MAX = <uint64_t>0x7FFFFFFFFFFFFFFE

cdef enum Operation:
    UNION = 0
    DIFFERENCE = 1
    INTERSECTION = 2

# Walks the intervals of one author.
ctypedef struct Walk:
    Reader r
    bint any             # an author is current
    uint64_t author
    uint64_t pending     # intervals of it not yet read
    uint64_t low         # the current interval; low is 0 when there is none
    uint64_t high


cdef void next_interval(Walk *w) noexcept nogil:
    cdef uint64_t gap, more
    cdef uint64_t room = SEQ_MAX - w.high
    cdef bint first = w.high == 0
    if w.pending == 0:
        w.low = 0
        return
    w.pending -= 1
    gap = read_varint(&w.r)
    more = read_varint(&w.r)
    if w.r.bad or (gap == 0 and not first) or gap >= room or more >= room - gap:
        w.r.bad = True
        w.low = 0
        w.pending = 0
        return
    w.low = w.high + gap + 1
    w.high = w.low + more


cdef void next_author(Walk *w) noexcept nogil:
    cdef const uint8_t *name
    cdef bint first = not w.any
    cdef uint64_t last = w.author
    while w.low and not w.r.bad:
        next_interval(w)
    w.any = False
    w.low = w.high = 0
    if w.r.bad or w.r.at == w.r.end:
        return
    name = read_bytes(&w.r, 8)
    w.pending = read_below(&w.r, left(&w.r) + 1)
    if w.r.bad or w.pending == 0:
        w.r.bad = True
        return
    w.author = load_fixed(name)
    if not first and w.author <= last:
        w.r.bad = True
        return
    w.any = True
    next_interval(w)


cdef Walk walk(bytes data) noexcept:
    cdef Walk w
    w.r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    w.any = False
    w.author = w.pending = w.low = w.high = 0
    next_author(&w)
    return w


# Collects the intervals of the author being written, and writes them when it ends.
ctypedef struct Sink:
    Writer out
    Writer intervals
    uint64_t count
    uint64_t low
    uint64_t high
    uint64_t last


cdef void flush_interval(Sink *s) noexcept nogil:
    if s.low:
        write_varint(&s.intervals, s.low - s.last - 1)
        write_varint(&s.intervals, s.high - s.low)
        s.last = s.high
        s.count += 1
        s.low = 0


cdef void put_interval(Sink *s, uint64_t low, uint64_t high) noexcept nogil:
    """Add an interval that begins no lower than the one before it."""
    if s.low and low <= s.high + 1:
        if high > s.high:
            s.high = high
    else:
        flush_interval(s)
        s.low, s.high = low, high


cdef void end_author(Sink *s, uint64_t author) noexcept nogil:
    flush_interval(s)
    if s.count:
        write_fixed(&s.out, author)
        write_varint(&s.out, s.count)
        write_bytes(&s.out, s.intervals.data, s.intervals.size)
    s.intervals.size = 0
    s.count = s.last = s.high = 0


cdef void copy_author(Walk *w, Sink *s) noexcept nogil:
    while w.low:
        put_interval(s, w.low, w.high)
        next_interval(w)


cdef void unite(Walk *a, Walk *b, Sink *s) noexcept nogil:
    while a.low or b.low:
        if b.low == 0 or (a.low and a.low <= b.low):
            put_interval(s, a.low, a.high)
            next_interval(a)
        else:
            put_interval(s, b.low, b.high)
            next_interval(b)


cdef void subtract(Walk *a, Walk *b, Sink *s) noexcept nogil:
    cdef uint64_t low = a.low
    while a.low:
        while b.low and b.high < low:
            next_interval(b)
        if b.low == 0 or b.low > a.high:
            put_interval(s, low, a.high)
            next_interval(a)
            low = a.low
        else:
            if b.low > low:
                put_interval(s, low, b.low - 1)
            low = b.high + 1
            if low > a.high:
                next_interval(a)
                low = a.low


cdef void intersect(Walk *a, Walk *b, Sink *s) noexcept nogil:
    cdef uint64_t low, high
    while a.low and b.low:
        low = a.low if a.low > b.low else b.low
        high = a.high if a.high < b.high else b.high
        if low <= high:
            put_interval(s, low, high)
        if a.high < b.high:
            next_interval(a)
        else:
            next_interval(b)


cdef void combine(Walk *a, Walk *b, Operation operation, Sink *s) noexcept nogil:
    cdef uint64_t author
    while (a.any or b.any) and not a.r.bad and not b.r.bad:
        if not b.any or (a.any and a.author < b.author):
            author = a.author
            if operation != INTERSECTION:
                copy_author(a, s)
            next_author(a)
        elif not a.any or b.author < a.author:
            author = b.author
            if operation == UNION:
                copy_author(b, s)
            next_author(b)
        else:
            author = a.author
            if operation == UNION:
                unite(a, b, s)
            elif operation == DIFFERENCE:
                subtract(a, b, s)
            else:
                intersect(a, b, s)
            next_author(a)
            next_author(b)
        end_author(s, author)


cdef object run(bytes a, bytes b, Operation operation):
    cdef Walk first = walk(a)
    cdef Walk second = walk(b)
    cdef Sink s
    s.out = Writer(NULL, 0, 0, False)
    s.intervals = Writer(NULL, 0, 0, False)
    s.count = s.low = s.high = s.last = 0
    try:
        combine(&first, &second, operation, &s)
        if first.r.bad or second.r.bad:
            raise ValueError("not the canonical form of a context")
        if s.out.failed or s.intervals.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char *>s.out.data, <Py_ssize_t>s.out.size)
    finally:
        writer_free(&s.out)
        writer_free(&s.intervals)


def join(bytes a not None, bytes b not None):
    """The union of two contexts; ValueError for bytes that are not canonical."""
    return run(a, b, UNION)


def lacks(bytes a not None, bytes b not None):
    """The dots of `a` that are not in `b`, as a context; ValueError for bytes that are not canonical."""
    return run(a, b, DIFFERENCE)


def common(bytes a not None, bytes b not None):
    """The dots in both contexts; ValueError for bytes that are not canonical."""
    return run(a, b, INTERSECTION)


def covers(bytes context not None, bytes author not None, uint64_t seq):
    """Whether a dot is in a context; ValueError where the bytes up to it are not canonical."""
    cdef Walk w = walk(context)
    cdef uint64_t wanted
    if PyBytes_GET_SIZE(author) != 8:
        raise ValueError("an author has 8 bytes")
    wanted = load_fixed(<const uint8_t *>PyBytes_AS_STRING(author))
    while w.any and w.author < wanted and not w.r.bad:
        next_author(&w)
    if w.any and w.author == wanted:
        while w.low and w.high < seq:
            next_interval(&w)
    if w.r.bad:
        raise ValueError("not the canonical form of a context")
    return w.any and w.author == wanted and 0 < w.low <= seq


def intervals(bytes context not None):
    """A context as a list of (author, low, high), ascending; ValueError for bytes that are not canonical."""
    cdef Walk w = walk(context)
    cdef list out = []
    while w.any and not w.r.bad:
        name = (<object>w.author).to_bytes(8, "big")
        while w.low:
            out.append((name, w.low, w.high))
            next_interval(&w)
        next_author(&w)
    if w.r.bad:
        raise ValueError("not the canonical form of a context")
    return out


def build(list items not None):
    """The context of (author, low, high) intervals in any order, overlapping or not."""
    cdef Sink s
    cdef bytes author
    cdef bytes last = None
    cdef uint64_t low, high
    s.out = Writer(NULL, 0, 0, False)
    s.intervals = Writer(NULL, 0, 0, False)
    s.count = s.low = s.high = s.last = 0
    try:
        for author, low, high in sorted(items):
            if PyBytes_GET_SIZE(author) != 8 or low == 0 or high < low or high > SEQ_MAX:
                raise ValueError("an interval is an author of 8 bytes and 0 < low <= high < 2**63 - 1")
            if last is not None and author != last:
                end_author(&s, load_fixed(<const uint8_t *>PyBytes_AS_STRING(last)))
            put_interval(&s, low, high)
            last = author
        if last is not None:
            end_author(&s, load_fixed(<const uint8_t *>PyBytes_AS_STRING(last)))
        if s.out.failed or s.intervals.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char *>s.out.data, <Py_ssize_t>s.out.size)
    finally:
        writer_free(&s.out)
        writer_free(&s.intervals)
