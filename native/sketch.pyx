"""Rateless IBLT symbols and range fingerprints over sets of items: what reconcile.py finds differences with.

    items  := item*, strictly ascending        item := 8 bytes, big-endian: a keyed hash
    symbol := sum: 8 bytes, check: 4 bytes     each the XOR over the items that have the symbol's index

The scheme is that of Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024). Every item has
index 0, and index i with probability about 1 / (1 + i / 2) (section 4: alpha = 0.5); the gaps between its indexes are
drawn from the item alone. Two sides' symbols of one index XOR to the symbol of the difference of their sets. There are
no counts: a symbol of one item is known by its check, and whose item it is by looking it up.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from bytes cimport load_fixed
from siphash cimport siphash

cdef enum:
    ITEM_BYTES = 8
    SYMBOL_BYTES = 12
    CHILDREN = 16            # of a range that is split
    BLOCK = 512              # items whose indexes are drawn side by side
    SYMBOLS_MAX = 1 << 24    # bounds memory, and keeps the arithmetic of indexes exact

cdef uint64_t GOLDEN = <uint64_t>0x9E3779B97F4A7C15
cdef uint64_t CHECK_SALT = <uint64_t>0xD6E8FEB86659FD93
cdef uint64_t FINGERPRINT_SALT = <uint64_t>0xA0761D6478BD642F

ctypedef struct Symbol:
    uint64_t sum
    uint32_t check


cdef inline uint64_t mix(uint64_t z) noexcept nogil:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection without visible pattern."""
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline uint32_t check_of(uint64_t item) noexcept nogil:
    return <uint32_t>(mix(item ^ CHECK_SALT) >> 32)


cdef inline int64_t next_index(int64_t index, uint64_t item, uint64_t turn) noexcept nogil:
    """The item's index after `index`, its `turn`-th after 0 (section 4.2: the inverse of the gaps' distribution)."""
    # Alike on all machines: conversions of up to 52 bits, square root, quotient and product are rounded exactly, and no
    # sum of products is there to be fused.
    cdef int64_t chance = <int64_t>(mix(item + turn * GOLDEN) >> 12) + 1
    cdef double stretch = 67108864.0 / sqrt(<double>chance) - 1.0
    return index + 1 + <int64_t>((<double>index + 1.5) * stretch)


cdef inline uint64_t item_at(const uint8_t *items, size_t at) noexcept nogil:
    return load_fixed(items + at * ITEM_BYTES)


cdef inline void put(uint8_t *out, uint64_t number, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        out[i] = <uint8_t>(number >> (8 * (size - 1 - i)))


cdef void encode_block(const uint64_t *block, size_t count, Symbol *symbols, int64_t end) noexcept nogil:
    # Side by side, because each index waits for the one before it; who is through is dropped without a branch.
    cdef uint64_t items[BLOCK]
    cdef uint32_t checks[BLOCK]
    cdef uint32_t indexes[BLOCK]
    cdef size_t i, kept
    cdef uint64_t turn = 0
    cdef int64_t following
    for i in range(count):
        items[i] = block[i]
        checks[i] = check_of(block[i])
        indexes[i] = 0
    while count:
        turn += 1
        kept = 0
        for i in range(count):
            symbols[indexes[i]].sum ^= items[i]
            symbols[indexes[i]].check ^= checks[i]
            following = next_index(indexes[i], items[i], turn)
            items[kept] = items[i]
            checks[kept] = checks[i]
            indexes[kept] = <uint32_t>following
            kept += following < end
        count = kept


cdef bint encode_all(const uint8_t *items, size_t count, Symbol *symbols, size_t end) noexcept nogil:
    """XOR the items into symbols 0..end-1; False unless they strictly ascend."""
    cdef uint64_t block[BLOCK]
    cdef uint64_t last = 0
    cdef size_t at = 0
    cdef size_t size
    while at < count:
        size = 0
        while size < BLOCK and at < count:
            block[size] = item_at(items, at)
            if at and block[size] <= last:
                return False
            last = block[size]
            size += 1
            at += 1
        encode_block(block, size, symbols, <int64_t>end)
    return True


cdef inline bint is_pure(const Symbol *symbol) noexcept nogil:
    """Whether it looks like the symbol of one item. That of none does not: the check of item 0 is not 0."""
    return symbol.check == check_of(symbol.sum)


cdef bint has_index(uint64_t item, int64_t wanted) noexcept nogil:
    cdef int64_t index = 0
    cdef uint64_t turn = 0
    while index < wanted:
        turn += 1
        index = next_index(index, item, turn)
    return index == wanted


# The symbols that may be pure, each at most once.
ctypedef struct Waiting:
    uint32_t *stack
    size_t count
    uint8_t *is_in


cdef inline void wait(Waiting *w, size_t index) noexcept nogil:
    if not w.is_in[index]:
        w.is_in[index] = 1
        w.stack[w.count] = <uint32_t>index
        w.count += 1


cdef void take_out(uint64_t item, Symbol *symbols, size_t end, Waiting *w) noexcept nogil:
    cdef uint32_t check = check_of(item)
    cdef int64_t index = 0
    cdef uint64_t turn = 0
    while index < <int64_t>end:
        symbols[index].sum ^= item
        symbols[index].check ^= check
        if is_pure(&symbols[index]):
            wait(w, <size_t>index)
        turn += 1
        index = next_index(index, item, turn)


cdef size_t peel(Symbol *symbols, size_t end, uint64_t *found, Waiting *w) noexcept nogil:
    """Take out one item after another, at most as many as symbols; how many. Decoded if all symbols are zero then."""
    cdef size_t count = 0
    cdef size_t i
    cdef uint64_t item
    w.count = 0
    for i in range(end):
        if is_pure(&symbols[i]):
            wait(w, i)
    while w.count and count < end:
        w.count -= 1
        i = w.stack[w.count]
        w.is_in[i] = 0
        if is_pure(&symbols[i]) and has_index(symbols[i].sum, <int64_t>i):
            item = symbols[i].sum
            found[count] = item
            count += 1
            take_out(item, symbols, end, w)
    return count


cdef size_t place_of(const uint8_t *items, size_t count, uint64_t bound) noexcept nogil:
    """How many items are below a bound."""
    cdef size_t low = 0
    cdef size_t high = count
    cdef size_t middle
    while low < high:
        middle = low + ((high - low) >> 1)
        if item_at(items, middle) < bound:
            low = middle + 1
        else:
            high = middle
    return low


cdef int by_size(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0]
    cdef uint64_t y = (<const uint64_t *>b)[0]
    return (x > y) - (x < y)


cdef bint subtract(const uint8_t *wire, Symbol *symbols, size_t end) noexcept nogil:
    """XOR the symbols of the other side in; whether any is left."""
    cdef size_t i
    cdef bint some = False
    for i in range(end):
        symbols[i].sum ^= load_fixed(wire + i * SYMBOL_BYTES)
        symbols[i].check ^= <uint32_t>(load_fixed(wire + i * SYMBOL_BYTES + 4) & <uint64_t>0xFFFFFFFF)
        some = some or symbols[i].sum != 0 or symbols[i].check != 0
    return some


cdef bint is_decoded(const Symbol *symbols, size_t end, uint64_t *found, size_t count) noexcept nogil:
    """Whether all symbols are zero and no item was found twice; sorts what was found."""
    cdef size_t i
    for i in range(end):
        if symbols[i].sum or symbols[i].check:
            return False
    qsort(found, count, sizeof(uint64_t), by_size)
    for i in range(1, count):
        if found[i] == found[i - 1]:
            return False
    return True


cdef size_t check_items(bytes items) except? 0:
    if PyBytes_GET_SIZE(items) % ITEM_BYTES:
        raise ValueError("items have 8 bytes each")
    return <size_t>PyBytes_GET_SIZE(items) // ITEM_BYTES


cdef bytes packed(const uint64_t *numbers, size_t count):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * ITEM_BYTES))
    cdef uint8_t *data = <uint8_t *>PyBytes_AS_STRING(out)
    cdef size_t i
    for i in range(count):
        put(data + i * ITEM_BYTES, numbers[i], ITEM_BYTES)
    return out


def hash_items(list names not None, bytes key not None):
    """The items of names in any order: SipHash-2-4 under a key of 16 bytes, the low 64 of its 128 bits, each once."""
    cdef size_t count = <size_t>len(names)
    cdef size_t kept = 0
    cdef size_t i
    cdef bytes name
    cdef uint64_t *hashes
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a key has 16 bytes")
    hashes = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
    if hashes == NULL:
        raise MemoryError
    try:
        for i in range(count):
            name = names[i]
            if name is None:
                raise TypeError("a name is bytes")
            hashes[i] = siphash(
                <const uint8_t *>PyBytes_AS_STRING(key), <const uint8_t *>PyBytes_AS_STRING(name),
                <size_t>PyBytes_GET_SIZE(name),
            ).low
        with nogil:
            qsort(hashes, count, sizeof(uint64_t), by_size)
            for i in range(count):
                if i == 0 or hashes[i] != hashes[i - 1]:
                    hashes[kept] = hashes[i]
                    kept += 1
        return packed(hashes, kept)
    finally:
        free(hashes)


def encode(bytes items not None, uint64_t first, uint64_t count):
    """Symbols first..first + count - 1 of a set; ValueError unless its items strictly ascend."""
    cdef size_t size = check_items(items)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(items)
    cdef Symbol *symbols
    cdef bytes out
    cdef uint8_t *wire
    cdef size_t end, i
    cdef bint ascends
    if first > SYMBOLS_MAX or count > SYMBOLS_MAX - first:
        raise ValueError("too many symbols")
    end = <size_t>(first + count)
    out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * SYMBOL_BYTES))
    wire = <uint8_t *>PyBytes_AS_STRING(out)
    symbols = <Symbol *>calloc(end + 1, sizeof(Symbol))
    if symbols == NULL:
        raise MemoryError
    try:
        with nogil:
            ascends = encode_all(data, size, symbols, end)
            for i in range(<size_t>count):
                put(wire + i * SYMBOL_BYTES, symbols[first + i].sum, 8)
                put(wire + i * SYMBOL_BYTES + 8, symbols[first + i].check, 4)
        if not ascends:
            raise ValueError("items strictly ascend")
        return out
    finally:
        free(symbols)


cdef size_t part(const uint8_t *items, size_t size, uint64_t *found, size_t count, uint64_t *ours) noexcept nogil:
    """Move those of the found items that are among `items` to `ours`; how many stay in `found`."""
    cdef size_t i, at
    cdef size_t kept = 0
    for i in range(count):
        at = place_of(items, size, found[i])
        if at < size and item_at(items, at) == found[i]:
            ours[i - kept] = found[i]
        else:
            found[kept] = found[i]
            kept += 1
    return kept


def decode(bytes items not None, bytes symbols not None):
    """Of symbols 0, 1, ... of another set: (the items only there, the items only here); None where they do not decode.

    ValueError unless the items strictly ascend and the symbols are whole. Effort is bounded whatever the symbols say.
    """
    cdef size_t size = check_items(items)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(items)
    cdef const uint8_t *wire = <const uint8_t *>PyBytes_AS_STRING(symbols)
    cdef size_t end = <size_t>PyBytes_GET_SIZE(symbols) // SYMBOL_BYTES
    cdef Symbol *rest
    cdef uint64_t *found
    cdef uint64_t *ours
    cdef Waiting w
    cdef size_t count = 0
    cdef size_t kept = 0
    cdef bint ascends
    cdef bint decoded = False
    if PyBytes_GET_SIZE(symbols) % SYMBOL_BYTES or end == 0 or end > SYMBOLS_MAX:
        raise ValueError("not a row of symbols")
    rest = <Symbol *>calloc(end, sizeof(Symbol))
    found = <uint64_t *>malloc(2 * end * sizeof(uint64_t))
    w.stack = <uint32_t *>malloc(end * sizeof(uint32_t))
    w.is_in = <uint8_t *>calloc(end, 1)
    try:
        if rest == NULL or found == NULL or w.stack == NULL or w.is_in == NULL:
            raise MemoryError
        ours = found + end
        with nogil:
            ascends = encode_all(data, size, rest, end)
            if subtract(wire, rest, end):
                count = peel(rest, end, found, &w)
            decoded = is_decoded(rest, end, found, count)
            if decoded:
                kept = part(data, size, found, count, ours)
        if not ascends:
            raise ValueError("items strictly ascend")
        return (packed(found, kept), packed(ours, count - kept)) if decoded else None
    finally:
        free(rest)
        free(found)
        free(w.stack)
        free(w.is_in)


def split(bytes items not None, uint64_t low, unsigned int bits):
    """The 16 equal parts of the range of items that share their first `bits` bits with `low`: the 17 places in `items`
    where they begin and end, and their fingerprints, 8 bytes each: the sum of the mixed items, modulo 2**64.

    Items strictly ascend (not checked: a call costs what its range holds). ValueError unless `low` begins such a range.
    """
    cdef size_t size = check_items(items)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(items)
    cdef size_t places[CHILDREN + 1]
    cdef uint64_t sums[CHILDREN]
    cdef uint64_t part_size
    cdef size_t at
    cdef int i
    if bits > 60 or low & (~<uint64_t>0 >> bits):
        raise ValueError("not the beginning of a range that can be split")
    part_size = <uint64_t>1 << (60 - bits)
    with nogil:
        memset(sums, 0, sizeof(sums))
        for i in range(CHILDREN):
            places[i] = place_of(data, size, low + <uint64_t>i * part_size)
        low += CHILDREN * part_size
        places[CHILDREN] = place_of(data, size, low) if low else size  # the last range ends at 2**64
        for i in range(CHILDREN):
            for at in range(places[i], places[i + 1]):
                sums[i] += mix(item_at(data, at) ^ FINGERPRINT_SALT)
    return [places[i] for i in range(CHILDREN + 1)], packed(sums, CHILDREN)
