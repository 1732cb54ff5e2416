"""Updates of shared texts, lists and maps (docs/format.md, Updates): are they well-formed, and what do they stand on?

pycrdt trusts counts and texts that an update declares; so nothing reaches it that has not passed here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from bytes cimport Reader, left, read_byte, read_bytes, read_varint, reader_of
from siphash cimport Digest, digest_add, siphash

cdef enum:
    KIND_TEXT = 41
    DEPTH_MAX = 32
    STRUCTS_MAX = 1 << 16        # and as many ranges deleted: pycrdt's effort may grow with the square
    CLIENTS_MAX = 4096           # who all write in one place are compared with each other
    HAS_ORIGIN = 128
    HAS_RIGHT_ORIGIN = 64
    HAS_PARENT_SUB = 32
    GC = 0
    SKIP = 10
    DELETED = 1
    STRING = 4
    FORMAT = 6
    ANY = 8

cdef uint64_t CLOCK_END = <uint64_t>1 << 31
cdef uint64_t CLIENT_END = <uint64_t>1 << 53


cdef bint is_utf8(const uint8_t *p, uint64_t size, uint64_t *units) noexcept nogil:
    """Whether it is well-formed (RFC 3629); adds how many UTF-16 units it takes."""
    cdef uint64_t i = 0
    cdef int more, _
    cdef uint8_t b, low, high
    while i < size:
        b = p[i]
        i += 1
        if b < 0x80:
            units[0] += 1
            continue
        if b < 0xC2 or b > 0xF4:
            return False
        more = 1 if b < 0xE0 else 2 if b < 0xF0 else 3
        low, high = 0x80, 0xBF
        if b == 0xE0:
            low = 0xA0
        elif b == 0xED:
            high = 0x9F
        elif b == 0xF0:
            low = 0x90
        elif b == 0xF4:
            high = 0x8F
        if size - i < <uint64_t>more:
            return False
        for _ in range(more):
            if p[i] < low or p[i] > high:
                return False
            low, high = 0x80, 0xBF
            i += 1
        units[0] += 2 if more == 3 else 1
    return True


cdef uint64_t skip_text(Reader *r) noexcept nogil:
    """A length and UTF-8; returns its UTF-16 units."""
    cdef uint64_t units = 0
    cdef uint64_t size = read_varint(r)
    cdef const uint8_t *p = read_bytes(r, size)
    if not r.bad and not is_utf8(p, size, &units):
        r.bad = True
    return units


cdef void skip_any(Reader *r, int depth) noexcept nogil:
    """One value of lib0's Any."""
    cdef uint8_t tag = read_byte(r)
    cdef uint64_t count
    cdef int _
    if r.bad or depth > DEPTH_MAX or tag < 116 or tag > 127:
        r.bad = True
    elif tag == 125:  # an integer, its sign in the first byte
        for _ in range(10):
            if read_byte(r) < 128:
                return
        r.bad = True
    elif tag == 124:
        read_bytes(r, 4)
    elif tag == 123 or tag == 122:
        read_bytes(r, 8)
    elif tag == 119:
        skip_text(r)
    elif tag == 116:
        read_bytes(r, read_varint(r))
    elif tag == 117 or tag == 118:
        count = read_varint(r)
        if count > left(r):
            r.bad = True
        while count and not r.bad:
            if tag == 118:
                skip_text(r)
            skip_any(r, depth + 1)
            count -= 1


cdef bint is_root(Reader *r) noexcept nogil:
    """Whether the parent of an item is the one root, by its name."""
    cdef const uint8_t *p
    if read_varint(r) != 1 or read_varint(r) != 5:
        return False
    p = read_bytes(r, 5)
    return not r.bad and memcmp(p, <const char *>"value", 5) == 0


cdef uint64_t skip_content(Reader *r, int what, bint is_text) noexcept nogil:
    """The content of an item; returns how many clocks it takes."""
    cdef uint64_t count, units
    if what == DELETED:
        return read_varint(r)
    if is_text and what == STRING:
        return skip_text(r)
    if is_text and what == FORMAT:
        skip_text(r)
        skip_text(r)
        return 1
    if not is_text and what == ANY:
        count = units = read_varint(r)
        if count > left(r):
            r.bad = True
        while units and not r.bad:
            skip_any(r, 0)
            units -= 1
        return count
    r.bad = True
    return 0


cdef int need(Reader *r, dict needs, uint64_t client, uint64_t clock) except -1:
    """What comes before `clock` has to be there."""
    if client >= CLIENT_END or clock >= CLOCK_END:
        r.bad = True
    elif needs.get(client, 0) < clock:
        needs[client] = clock
    return 0


cdef int need_origin(Reader *r, dict needs) except -1:
    cdef uint64_t client = read_varint(r)
    return need(r, needs, client, (read_varint(r) & 0xFFFFFFFF) + 1)


cdef uint64_t read_struct(Reader *r, dict needs, bint is_text) except? 0:
    """One struct that is no gap; returns how many clocks it takes."""
    cdef uint8_t info = read_byte(r)
    if info == GC:
        return read_varint(r)
    if info & HAS_ORIGIN:
        need_origin(r, needs)
    if info & HAS_RIGHT_ORIGIN:
        need_origin(r, needs)
    if not info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN):
        if not is_root(r):
            r.bad = True
        if info & HAS_PARENT_SUB:
            skip_text(r)
    return skip_content(r, info & 31, is_text)


cdef int read_client(Reader *r, dict needs, dict starts, dict ends, bint is_text, uint64_t *budget) except -1:
    """The structs of one client."""
    cdef uint64_t structs = read_varint(r)
    cdef uint64_t client = read_varint(r)
    cdef uint64_t clock = read_varint(r)
    cdef uint64_t size
    need(r, starts, client, clock)
    if structs > budget[0] or structs > left(r) or client in ends:
        r.bad = True
    if not r.bad:
        budget[0] -= structs
    while structs and not r.bad:
        if left(r) and r.at[0] == SKIP:
            read_byte(r)
            size = read_varint(r)
            need(r, starts, client, clock + size if size < CLOCK_END else CLOCK_END)
        else:
            size = read_struct(r, needs, is_text)
        if size == 0 or size >= CLOCK_END or clock + size >= CLOCK_END:
            r.bad = True
        clock += size
        structs -= 1
    ends[client] = clock
    return 0


cdef int read_deletions(Reader *r, dict needs, uint64_t budget) except -1:
    """The ranges that an update deletes."""
    cdef uint64_t clients = read_varint(r)
    cdef uint64_t client, ranges, clock, size
    cdef set known = set()
    if clients > CLIENTS_MAX or clients > left(r):
        r.bad = True
    while clients and not r.bad:
        client, ranges = read_varint(r), read_varint(r)
        if ranges > budget or ranges > left(r) or client in known:
            r.bad = True
        if not r.bad:
            budget -= ranges
        known.add(client)
        while ranges and not r.bad:
            clock, size = read_varint(r), read_varint(r)
            if size == 0 or size >= CLOCK_END or clock >= CLOCK_END:
                r.bad = True
            else:
                need(r, needs, client, clock + size)
            ranges -= 1
        clients -= 1
    return 0


def clocks(bytes update not None, int kind):
    """(needs, ends) of a well-formed update: {client: clock} up to where it builds on what came before, and reaches.

    ValueError for what is malformed, or holds what no text, list or map of this version has.
    """
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(update), <size_t>PyBytes_GET_SIZE(update))
    cdef dict needs = {}
    cdef dict starts = {}
    cdef dict ends = {}
    cdef uint64_t budget = STRUCTS_MAX
    cdef uint64_t clients = read_varint(&r)
    if clients > CLIENTS_MAX or clients > left(&r):
        r.bad = True
    while clients and not r.bad:
        read_client(&r, needs, starts, ends, kind == KIND_TEXT, &budget)
        clients -= 1
    read_deletions(&r, needs, STRUCTS_MAX)
    if r.bad or r.at != r.end:
        raise ValueError("not a well-formed update")
    for client, clock in needs.items():
        if clock > ends.get(client, 0) and clock > starts.get(client, 0):
            starts[client] = clock
    return starts, ends


def summary(updates, bytes secret not None):
    """(key, bytes in all, bytes of the largest) of updates, in any order; what is no bytes does not count.

    key: the sum of their SipHash-2-4-128 under `secret`, 16 bytes, modulo 2**128.
    """
    cdef Digest total = Digest(0, 0)
    cdef size_t size = 0
    cdef size_t largest = 0
    cdef size_t one
    if len(secret) != 16:
        raise ValueError("a secret has 16 bytes")
    for update in updates:
        if type(update) is bytes:
            one = <size_t>PyBytes_GET_SIZE(update)
            digest_add(&total, siphash(<const uint8_t *>PyBytes_AS_STRING(secret),
                                       <const uint8_t *>PyBytes_AS_STRING(update), one))
            size += one
            largest = max(largest, one)
    return (<object>total.high << 64) | <object>total.low, size, largest
