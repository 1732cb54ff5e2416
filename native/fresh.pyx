"""The digest of records that are new in a scope."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

from bytes cimport Reader, Writer, reader_of, write_byte, write_varint
from digest cimport Digester, digest_bytes, digester_free, digester_start, hash_cell, hash_existence, settle
from packed cimport BAD_BYTES, DONE, NO_MEMORY, Status, parse_incarnation
from record cimport Incarnation, Record, add_incarnation, fields_of, record_free
from values cimport TAG_LIST, write_tagged_text

# A record that is new in a scope, as other objects hold it: packed, and its key.
ctypedef struct Fresh:
    const uint8_t *data
    size_t size
    const uint8_t *key
    size_t key_size


cdef Status add_one(Digester *d, Record *record, const uint8_t *data, size_t size) noexcept nogil:
    """Add a record of one live incarnation to the digest."""
    cdef Reader r = reader_of(data, size)
    cdef size_t i
    cdef Incarnation *inc
    cdef Status status
    record.count = 0
    inc = add_incarnation(record)
    if inc == NULL:
        return NO_MEMORY
    status = parse_incarnation(&r, inc, &d.fields, d.author_count)
    if status != DONE:
        return status
    if r.at != r.end or not inc.alive:
        return BAD_BYTES
    hash_existence(d, inc, False)
    for i in range(inc.count):
        hash_cell(d, inc, &inc.cells[i], False)
    return NO_MEMORY if d.sum.failed else DONE


cdef Status add_all(Digester *d, Record *record, const Fresh *collection, const Fresh *some,
                    size_t count) noexcept nogil:
    """Add records of a collection, which is given as the key alone, to the digest."""
    cdef Writer *w = &d.name
    cdef size_t i
    cdef Status status
    for i in range(count):
        w.size = 0
        write_byte(w, TAG_LIST)
        write_varint(w, 2)
        write_tagged_text(w, collection.key, collection.key_size)
        write_tagged_text(w, some[i].key, some[i].key_size)
        status = NO_MEMORY if w.failed else add_one(d, record, some[i].data, some[i].size)
        if status != DONE:
            return status
    settle(&d.sum)
    return NO_MEMORY if d.sum.failed else DONE


cdef int fill_key(Fresh *one, str key) except -1:
    cdef Py_ssize_t size = 0
    one.key = <const uint8_t *>PyUnicode_AsUTF8AndSize(key, &size)
    one.key_size = <size_t>size
    return 0


def digest(list pieces not None, str collection not None, list keys not None, bytes key not None, bytes fields not None,
           bytes authors not None):
    """What records of one collection, new in a scope, add to its digest: the 16 bytes that merge would give."""
    cdef Digester d
    cdef Record record = Record(NULL, 0, 0)
    cdef tuple held = (tuple(pieces), tuple(keys))  # so that nobody takes one away while other threads run
    cdef size_t count = <size_t>len(held[0])
    cdef Fresh *some = NULL
    cdef Fresh named
    cdef size_t i
    cdef Status status
    cdef bytes data
    if <size_t>len(held[1]) != count:
        raise ValueError("as many keys as records")
    digester_start(&d, key, fields_of(fields), authors)
    try:
        some = <Fresh *>calloc(count + 1, sizeof(Fresh))
        if some == NULL:
            raise MemoryError
        fill_key(&named, collection)
        for i in range(count):
            data = held[0][i]
            some[i].data, some[i].size = <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data)
            fill_key(&some[i], held[1][i])
        with nogil:
            status = add_all(&d, &record, &named, some, count)
        if status == NO_MEMORY:
            raise MemoryError
        if status != DONE:
            raise ValueError("not one live incarnation")
        return digest_bytes(d.sum.total)
    finally:
        free(some)
        record_free(&record)
        digester_free(&d)
