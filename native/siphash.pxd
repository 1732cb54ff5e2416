# SipHash-2-4 with a 128-bit result (Aumasson and Bernstein, 2012; as in the reference code). Header-only.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

ctypedef struct Digest:
    uint64_t low
    uint64_t high

ctypedef struct SipState:
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d


cdef inline uint64_t rotate(uint64_t x, int by) noexcept nogil:
    return (x << by) | (x >> (64 - by))


cdef inline void sip_round(SipState *s) noexcept nogil:
    s.a += s.b
    s.b = rotate(s.b, 13) ^ s.a
    s.a = rotate(s.a, 32)
    s.c += s.d
    s.d = rotate(s.d, 16) ^ s.c
    s.a += s.d
    s.d = rotate(s.d, 21) ^ s.a
    s.c += s.b
    s.b = rotate(s.b, 17) ^ s.c
    s.c = rotate(s.c, 32)


cdef inline uint64_t load_little(const uint8_t *p) noexcept nogil:
    # a fixed order of bytes, whatever the machine's
    return (
        <uint64_t>p[0] | <uint64_t>p[1] << 8 | <uint64_t>p[2] << 16 | <uint64_t>p[3] << 24
        | <uint64_t>p[4] << 32 | <uint64_t>p[5] << 40 | <uint64_t>p[6] << 48 | <uint64_t>p[7] << 56
    )


cdef inline uint64_t big_word(uint64_t n) noexcept nogil:
    """The word that eight bytes are, big-endian, of a number."""
    n = (n & <uint64_t>0x00FF00FF00FF00FF) << 8 | (n >> 8 & <uint64_t>0x00FF00FF00FF00FF)
    n = (n & <uint64_t>0x0000FFFF0000FFFF) << 16 | (n >> 16 & <uint64_t>0x0000FFFF0000FFFF)
    return n << 32 | n >> 32


cdef inline SipState sip_begin(const uint8_t *key) noexcept nogil:
    """Under a key of 16 bytes."""
    cdef SipState s
    cdef uint64_t k0 = load_little(key)
    cdef uint64_t k1 = load_little(key + 8)
    s.a = k0 ^ <uint64_t>0x736F6D6570736575
    s.b = k1 ^ <uint64_t>0x646F72616E646F6D ^ <uint64_t>0xEE
    s.c = k0 ^ <uint64_t>0x6C7967656E657261
    s.d = k1 ^ <uint64_t>0x7465646279746573
    return s


cdef inline void sip_word(SipState *s, uint64_t word) noexcept nogil:
    s.d ^= word
    sip_round(s)
    sip_round(s)
    s.a ^= word


cdef inline Digest sip_end(SipState s, const uint8_t *data, size_t size, size_t before) noexcept nogil:
    """The hash, after the last bytes; before: how many came as words."""
    cdef Digest out
    cdef size_t i
    cdef size_t whole = size & ~<size_t>7
    cdef uint8_t tail[8]
    for i in range(0, whole, 8):
        sip_word(&s, load_little(data + i))
    for i in range(8):
        tail[i] = 0
    if size > whole:
        memcpy(tail, data + whole, size - whole)
    tail[7] = <uint8_t>((before + size) & 255)
    sip_word(&s, load_little(tail))
    s.c ^= 0xEE
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    out.low = s.a ^ s.b ^ s.c ^ s.d
    s.b ^= 0xDD
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    out.high = s.a ^ s.b ^ s.c ^ s.d
    return out


cdef inline Digest siphash(const uint8_t *key, const uint8_t *data, size_t size) noexcept nogil:
    """The 128-bit hash of `data` under a key of 16 bytes."""
    return sip_end(sip_begin(key), data, size, 0)


cdef inline void digest_add(Digest *total, Digest one) noexcept nogil:
    cdef uint64_t low = total.low + one.low
    total.high += one.high + (1 if low < one.low else 0)
    total.low = low


cdef inline void digest_subtract(Digest *total, Digest one) noexcept nogil:
    cdef uint64_t low = total.low - one.low
    total.high -= one.high + (1 if total.low < one.low else 0)
    total.low = low
