# The packed form of removals, and stepping through the addresses that one names. Header-only.
#
# A removal says of one incarnation what its author had seen there, address by address, under the same integers:
#
#   removal     := flags, varint addresses, (varint field, [varint size, sub], vector, exact)*   sorted by (field, sub)
#   vector      := as seen: of each author, all cells up to a seq
#   exact       := varint count, (varint author, varint seq)*                                     sorted
#
# flags: bit 0, it kills the incarnation: the existence cell and all cells of the creating change go too.

from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memset

from bytes cimport Reader, read_bytes, read_varint
from dots cimport Stamp, names_exactly, reaches, skip_dots
from record cimport HAS_SUB, Cell, Fields, field_kind

cdef enum:
    KILLS = 1

# What a removal's author had seen at one address.
ctypedef struct Sight:
    Cell at                   # field and sub
    const uint8_t *vector
    size_t vector_size
    const uint8_t *exact
    size_t exact_size


cdef inline bint next_sight(Reader *r, uint64_t *pending, const Fields *fields, Sight *sight) noexcept nogil:
    """The next address of a removal; False where there is none."""
    memset(sight, 0, sizeof(Sight))
    if pending[0] == 0:
        return False
    pending[0] -= 1
    sight.at.field = read_varint(r)
    if sight.at.field >= fields.count:
        r.bad = True
    elif field_kind(fields, sight.at.field) & HAS_SUB:
        sight.at.sub_size = read_varint(r)
        sight.at.sub = read_bytes(r, sight.at.sub_size)
    sight.vector = r.at
    skip_dots(r, UINT64_MAX)
    sight.exact = r.at
    skip_dots(r, UINT64_MAX)
    sight.vector_size = <size_t>(sight.exact - sight.vector)
    sight.exact_size = <size_t>(r.at - sight.exact)
    return not r.bad


cdef inline bint was_seen(const Sight *sight, const Stamp *stamp) noexcept nogil:
    return reaches(sight.vector, sight.vector_size, stamp) or names_exactly(sight.exact, sight.exact_size, stamp)
