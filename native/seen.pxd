# Writing removals: what of an incarnation is seen by who removes it (removal.pxd has the form). Header-only.

from libc.stdint cimport uint64_t
from libc.stdlib cimport free

from bytes cimport Writer, write_byte, write_bytes, write_varint, writer_free
from dots cimport Dots, add_dot, add_seen, join_dots, same_dot, write_dots
from record cimport HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Incarnation, run_of
from removal cimport KILLS

# What a removal names, and room to write it in.
ctypedef struct Named:
    Dots vector
    Dots exact
    Writer body
    Writer packed


cdef inline void named_free(Named *named) noexcept nogil:
    free(named.vector.at)
    free(named.exact.at)
    writer_free(&named.body)
    writer_free(&named.packed)


cdef inline bint gather_seen(Named *named, const Incarnation *inc, size_t start, size_t end) noexcept nogil:
    """What a removal's author has seen at one address; False without memory.

    The creation is seen by every register. A kill takes it away wherever it is; else it is named like all the rest.
    """
    cdef size_t i
    cdef const Cell *cell
    cdef bint done = True
    named.vector.count = named.exact.count = 0
    for i in range(start, end):
        cell = &inc.cells[i]
        done = done and add_seen(&named.vector, cell.seen, cell.seen_size)
        if not inc.alive and not (cell.kind & (SIDE_BY_SIDE | PER_AUTHOR)):
            done = done and add_dot(&named.vector, inc.name.author, inc.name.seq)
        if not (inc.alive and same_dot(&cell.stamp, &inc.name)):
            done = done and add_dot(
                &named.exact if cell.kind & SIDE_BY_SIDE else &named.vector, cell.stamp.author, cell.stamp.seq)
    join_dots(&named.vector, True)
    join_dots(&named.exact, False)
    return done


cdef inline bint write_addresses(Named *named, const Incarnation *inc, uint64_t *addresses) noexcept nogil:
    """What is seen at each address, into named.body; False without memory."""
    cdef size_t i = 0
    cdef size_t end
    cdef Writer *w = &named.body
    cdef const Cell *cell
    w.size = 0
    while i < inc.count:
        end = run_of(inc, i)
        if not gather_seen(named, inc, i, end):
            return False
        if named.vector.count or named.exact.count:
            addresses[0] += 1
            cell = &inc.cells[i]
            write_varint(w, cell.field)
            if cell.kind & HAS_SUB:
                write_varint(w, cell.sub_size)
                write_bytes(w, cell.sub, cell.sub_size)
            write_dots(w, &named.vector)
            write_dots(w, &named.exact)
        i = end
    return not w.failed


cdef inline bint write_removal(Named *named, const Incarnation *inc) noexcept nogil:
    """The removal of all that an incarnation has, into named.packed; False without memory."""
    cdef uint64_t addresses = 0
    if not write_addresses(named, inc, &addresses):
        return False
    named.packed.size = 0
    write_byte(&named.packed, KILLS if inc.alive else 0)
    write_varint(&named.packed, addresses)
    write_bytes(&named.packed, named.body.data, named.body.size)
    return not named.packed.failed
