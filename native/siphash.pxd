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

cdef extern from *:
    """
    /* A macro, so that it is always inlined: called, it would keep its state in memory, and take twice the time. */
    #define FIELDSYNC_ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
    #define FIELDSYNC_SIP_ROUND(s) do { \\
        (s).a += (s).b; (s).b = FIELDSYNC_ROTATE((s).b, 13) ^ (s).a; (s).a = FIELDSYNC_ROTATE((s).a, 32); \\
        (s).c += (s).d; (s).d = FIELDSYNC_ROTATE((s).d, 16) ^ (s).c; \\
        (s).a += (s).d; (s).d = FIELDSYNC_ROTATE((s).d, 21) ^ (s).a; \\
        (s).c += (s).b; (s).b = FIELDSYNC_ROTATE((s).b, 17) ^ (s).c; (s).c = FIELDSYNC_ROTATE((s).c, 32); \\
    } while (0)
    """
    void sip_round "FIELDSYNC_SIP_ROUND" (SipState s) noexcept nogil


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
    sip_round(s[0])
    sip_round(s[0])
    s.a ^= word


cdef inline Digest sip_finish(SipState *s) noexcept nogil:
    cdef Digest out
    cdef int _
    s.c ^= 0xEE
    for _ in range(4):
        sip_round(s[0])
    out.low = s.a ^ s.b ^ s.c ^ s.d
    s.b ^= 0xDD
    for _ in range(4):
        sip_round(s[0])
    out.high = s.a ^ s.b ^ s.c ^ s.d
    return out


cdef inline Digest sip_end(SipState s, const uint8_t *data, size_t size, size_t before) noexcept nogil:
    """The hash, after the last bytes; before: how many came as words."""
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
    return sip_finish(&s)


cdef inline void sip_end_two(const SipState *begun, const uint8_t *x, size_t x_words, const uint8_t *y, size_t y_words,
                             Digest *first, Digest *second) noexcept nogil:
    """Two hashes after their last words, whose size ends them: step by step, as each step waits for the one before."""
    cdef SipState a = begun[0]
    cdef SipState b = begun[1]
    cdef size_t i
    cdef int _
    for i in range(min(x_words, y_words)):
        a.d ^= load_little(x + 8 * i)
        b.d ^= load_little(y + 8 * i)
        for _ in range(2):
            sip_round(a)
            sip_round(b)
        a.a ^= load_little(x + 8 * i)
        b.a ^= load_little(y + 8 * i)
    for i in range(min(x_words, y_words), x_words):
        sip_word(&a, load_little(x + 8 * i))
    for i in range(min(x_words, y_words), y_words):
        sip_word(&b, load_little(y + 8 * i))
    a.c ^= 0xEE
    b.c ^= 0xEE
    for _ in range(4):
        sip_round(a)
        sip_round(b)
    first.low = a.a ^ a.b ^ a.c ^ a.d
    second.low = b.a ^ b.b ^ b.c ^ b.d
    a.b ^= 0xDD
    b.b ^= 0xDD
    for _ in range(4):
        sip_round(a)
        sip_round(b)
    first.high = a.a ^ a.b ^ a.c ^ a.d
    second.high = b.a ^ b.b ^ b.c ^ b.d


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
