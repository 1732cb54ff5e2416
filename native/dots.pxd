# Dots, which name changes: (author, seq), in growing lists and in bytes. Header-only.
#
#   dots := varint count, (varint author, varint seq)*
#
# Sorted by author they are a vector, which covers all changes of each author up to a seq; else each names one change.

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport qsort, realloc

from bytes cimport Reader, Writer, left, read_below, read_varint, reader_of, write_varint

# A dot, and when its author wrote it, which counts only where stamps are compared.
ctypedef struct Stamp:
    uint64_t author
    uint64_t seq
    uint64_t time

# A growing list of dots; a stamp's time does not count here.
ctypedef struct Dots:
    Stamp *at
    size_t count
    size_t room


cdef inline int order_stamps(const Stamp *a, const Stamp *b) noexcept nogil:
    if a.author != b.author:
        return -1 if a.author < b.author else 1
    if a.seq != b.seq:
        return -1 if a.seq < b.seq else 1
    if a.time != b.time:
        return -1 if a.time < b.time else 1
    return 0


cdef inline int stamp_sorter(const void *a, const void *b) noexcept nogil:
    return order_stamps(<const Stamp *>a, <const Stamp *>b)


cdef inline bint same_dot(const Stamp *a, const Stamp *b) noexcept nogil:
    return a.author == b.author and a.seq == b.seq


cdef inline void skip_dots(Reader *r, uint64_t authors) noexcept nogil:
    """Step over a count and dots, whose authors are below `authors`."""
    cdef uint64_t _
    cdef uint64_t count = read_below(r, left(r) + 1)
    for _ in range(count):
        read_below(r, authors)
        read_varint(r)
        if r.bad:
            return


cdef inline bint add_dot(Dots *dots, uint64_t author, uint64_t seq) noexcept nogil:
    """False without memory."""
    cdef size_t room
    cdef Stamp *more
    if dots.count == dots.room:
        room = dots.room * 2 + 16
        more = <Stamp *>realloc(dots.at, room * sizeof(Stamp))
        if more == NULL:
            return False
        dots.at = more
        dots.room = room
    dots.at[dots.count] = Stamp(author, seq, 0)
    dots.count += 1
    return True


cdef inline bint add_seen(Dots *dots, const uint8_t *seen, size_t size) noexcept nogil:
    """Add all that bytes name: a count and dots, or nothing; False without memory."""
    cdef Reader r = reader_of(seen, size)
    cdef uint64_t author, _
    if size == 0:
        return True
    for _ in range(read_varint(&r)):
        author = read_varint(&r)
        if not add_dot(dots, author, read_varint(&r)):
            return False
    return True


cdef inline void sort_dots(Dots *dots) noexcept nogil:
    if dots.count > 1:
        qsort(dots.at, dots.count, sizeof(Stamp), stamp_sorter)


cdef inline void join_dots(Dots *dots, bint highest) noexcept nogil:
    """Sort and drop repeats; with `highest`, keep one an author."""
    cdef size_t i
    cdef size_t kept = 0
    sort_dots(dots)
    for i in range(dots.count):
        if kept and (same_dot(&dots.at[i], &dots.at[kept - 1])
                     or (highest and dots.at[i].author == dots.at[kept - 1].author)):
            kept -= 1
        dots.at[kept] = dots.at[i]
        kept += 1
    dots.count = kept


cdef inline void write_dots(Writer *w, const Dots *dots) noexcept nogil:
    cdef size_t i
    write_varint(w, dots.count)
    for i in range(dots.count):
        write_varint(w, dots.at[i].author)
        write_varint(w, dots.at[i].seq)


cdef inline bint reaches(const uint8_t *seen, size_t size, const Stamp *stamp) noexcept nogil:
    """Whether a seen vector covers a dot."""
    cdef Reader r = reader_of(seen, size)
    cdef uint64_t _, count, author, seq
    if size == 0:
        return False
    count = read_varint(&r)
    for _ in range(count):
        author = read_varint(&r)
        seq = read_varint(&r)
        if author == stamp.author:
            return seq >= stamp.seq
        if author > stamp.author:
            return False
    return False


cdef inline bint names_exactly(const uint8_t *dots, size_t size, const Stamp *stamp) noexcept nogil:
    cdef Reader r = reader_of(dots, size)
    cdef uint64_t _, author, seq
    cdef uint64_t count = read_varint(&r)
    for _ in range(count):
        author = read_varint(&r)
        seq = read_varint(&r)
        if author == stamp.author and seq == stamp.seq:
            return True
    return False
