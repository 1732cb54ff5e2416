"""Plain values, texts, numbers, bools and bytes, on their way into a file: picked from an app's rows, and made records.

What is not plain is left to write.pyx and fresh.pyx, which give the same for what is.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Size
from cpython.ref cimport Py_INCREF, PyObject
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from bytes cimport Writer, taken, write_byte, write_bytes, write_fixed, write_varint, writer_free
from digest cimport Sum, add_hash, digest_bytes, next_bytes, settle, sum_free
from packed cimport ALIVE
from record cimport HAS_SUB, KIND_EXISTENCE, SIDE_BY_SIDE, Fields, author_count, field_kind, field_name, fields_of
from siphash cimport SipState, big_word, load_little, sip_begin, sip_word
from values cimport (
    TAG_BYTES, TAG_FALSE, TAG_LIST, TAG_NONE, TAG_TRUE, write_tagged_float, write_tagged_int, write_tagged_text,
)

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    void PyObject_GC_UnTrack(object op)

cdef enum:
    PLAIN_STR = 1
    PLAIN_INT = 2
    PLAIN_FLOAT = 3
    PLAIN_BOOL = 4
    PLAIN_BYTES = 5
    PLAIN_NUMBER = 6
    OPTIONAL = 8

# One field of all records of a batch.
ctypedef struct Place:
    uint64_t field
    Py_ssize_t value         # where its value is among a record's
    size_t lead              # where in Batch.leads what is hashed before its value begins
    size_t lead_size

# What the records of one change have in common, and scratch memory.
ctypedef struct Batch:
    Place *places            # by field
    size_t count
    Writer leads
    Writer head              # of a packed incarnation, up to its number
    Writer existence         # what is hashed of an existence cell, up to the record's key
    Writer body              # of one packed incarnation
    Writer sized             # the same after its size
    SipState begun           # the digest's key and the creating change
    uint64_t author          # its name
    uint64_t seq
    uint64_t time
    Sum sum                  # the digest of all cells so far
    uint64_t cells           # that there are
    uint64_t size            # of the records packed, and their keys


cdef int write_text(Writer *w, object value) except -1:
    """A str's canonical bytes; 0 for a lone surrogate, which UTF-8 cannot hold."""
    cdef Py_ssize_t size = 0
    cdef const char *data
    try:
        data = PyUnicode_AsUTF8AndSize(value, &size)
    except UnicodeEncodeError:
        return 0
    write_tagged_text(w, <const uint8_t *>data, <size_t>size)
    return 1


cdef int write_integer(Writer *w, object value) except -1:
    """An int's canonical bytes; 0 for one beyond 64 bits."""
    cdef int overflow = 0
    cdef int64_t n = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return 0
    write_tagged_int(w, n)
    return 1


cdef int write_plain(Writer *w, object value) except -1:
    """A value's canonical bytes; 0 where it is not plain."""
    if type(value) is str:
        return write_text(w, value)
    if type(value) is int:
        return write_integer(w, value)
    if type(value) is float:
        write_tagged_float(w, value)
    elif value is None:
        write_byte(w, TAG_NONE)
    elif value is True:
        write_byte(w, TAG_TRUE)
    elif value is False:
        write_byte(w, TAG_FALSE)
    elif type(value) is bytes:
        write_byte(w, TAG_BYTES)
        write_varint(w, <size_t>PyBytes_GET_SIZE(value))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(value), <size_t>PyBytes_GET_SIZE(value))
    else:
        return 0
    return 1


cdef int conforms(object value, uint8_t kind) except -1:
    """Whether a value is exactly of its kind, and so stored as it is."""
    cdef Py_ssize_t size = 0
    cdef int overflow = 0
    if value is None:
        return kind & OPTIONAL
    kind &= ~OPTIONAL
    if kind == PLAIN_STR:
        if type(value) is not str:
            return False
        try:
            PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            return False
        return True
    if kind == PLAIN_INT or (kind == PLAIN_NUMBER and type(value) is int):
        if type(value) is not int:
            return False
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    if kind == PLAIN_FLOAT:
        return type(value) is float
    if kind == PLAIN_NUMBER:
        return type(value) is float and isfinite(<double>value)
    if kind == PLAIN_BOOL:
        return type(value) is bool
    return kind == PLAIN_BYTES and type(value) is bytes


def pick(object row, tuple names not None, bytes kinds not None, Py_ssize_t others):
    """The values of a dict by these names, if it has just them, all exactly of their kinds, and `others` more; or None.

    None says nothing, as without names: the row may pass another door. kinds: a byte a name: 1 str, 2 int of 64 bits,
    3 float, 4 bool, 5 bytes, 6 a finite number; and 8: or None.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t count = PyTuple_GET_SIZE(names)
    cdef const uint8_t *kind = <const uint8_t *>PyBytes_AS_STRING(kinds)
    cdef PyObject *found
    cdef tuple values
    if count != PyBytes_GET_SIZE(kinds):
        raise ValueError("as many kinds as names")
    if type(row) is not dict or count == 0 or PyDict_Size(row) != count + others:
        return None
    values = PyTuple_New(count)
    for i in range(count):
        found = PyDict_GetItemWithError(row, names[i])
        if found == NULL or not conforms(<object>found, kind[i]):
            return None
        Py_INCREF(<object>found)
        PyTuple_SET_ITEM(values, i, <object>found)
    PyObject_GC_UnTrack(values)  # nothing in it refers to anything
    return values


cdef void sort_places(Batch *batch) noexcept nogil:
    cdef size_t i, j
    cdef Place swap
    for i in range(1, batch.count):
        j = i
        while j and batch.places[j - 1].field > batch.places[j].field:
            swap = batch.places[j]
            batch.places[j] = batch.places[j - 1]
            batch.places[j - 1] = swap
            j -= 1


cdef int lay_out(Batch *batch, tuple ids, Fields *fields) except -1:
    """Note of each field where its values are and what is hashed before them; 0 where one holds more than a value."""
    cdef size_t i
    cdef size_t size = 0
    cdef Place *place
    cdef const uint8_t *name
    for i in range(batch.count):
        place = &batch.places[i]
        place.field = ids[<Py_ssize_t>i]
        place.value = <Py_ssize_t>i
        if place.field >= fields.count:
            raise ValueError("a field that the dictionary does not hold")
        if field_kind(fields, place.field) & (HAS_SUB | SIDE_BY_SIDE):
            return 0
        name = field_name(fields, place.field, &size)
        place.lead = batch.leads.size
        write_byte(&batch.leads, field_kind(fields, place.field))
        write_varint(&batch.leads, size)
        write_bytes(&batch.leads, name, size)
        write_varint(&batch.leads, 0)  # no sub
        write_varint(&batch.leads, 0)  # nothing seen
        place.lead_size = batch.leads.size - place.lead
    sort_places(batch)
    for i in range(1, batch.count):
        if batch.places[i].field == batch.places[i - 1].field:
            return 0
    return 1


cdef SipState start_record(Batch *batch, uint64_t n) noexcept nogil:
    """Begin a packed incarnation; what is hashed of all its cells first."""
    cdef SipState state = batch.begun
    batch.body.size = 0
    write_bytes(&batch.body, batch.head.data, batch.head.size)
    write_varint(&batch.body, n)
    write_fixed(&batch.body, batch.time)
    write_varint(&batch.body, 0)  # no stamp but its own
    sip_word(&state, big_word(n))
    sip_word(&state, batch.author)
    sip_word(&state, big_word(batch.seq))
    sip_word(&state, big_word(batch.time))
    return state


cdef int put_record(Batch *batch, uint64_t n, tuple values, str key) except -1:
    """Pack one record into batch.body and add it to the digest; 0 where it is not plain."""
    cdef SipState named = start_record(batch, n)
    cdef size_t i
    cdef Place *place
    cdef object value
    cdef Writer *hashed = next_bytes(&batch.sum)
    write_bytes(hashed, batch.existence.data, batch.existence.size)
    if not write_text(hashed, key):
        return 0
    batch.size += hashed.size - batch.existence.size
    batch.cells += 1
    add_hash(&batch.sum, &named, False)
    for i in range(batch.count):
        place = &batch.places[i]
        value = values[place.value]
        if value is Ellipsis:
            continue
        hashed = next_bytes(&batch.sum)
        write_bytes(hashed, batch.leads.data + place.lead, place.lead_size)
        if not write_plain(hashed, value):
            return 0
        if hashed.failed:
            raise MemoryError
        write_varint(&batch.body, place.field)
        write_byte(&batch.body, 0)
        write_bytes(&batch.body, hashed.data + place.lead_size, hashed.size - place.lead_size)
        batch.cells += 1
        add_hash(&batch.sum, &named, False)
    return 1


cdef bytes pack_body(Batch *batch):
    """The incarnation in batch.body, its size before it."""
    batch.sized.size = 0
    write_varint(&batch.sized, batch.body.size)
    write_bytes(&batch.sized, batch.body.data, batch.body.size)
    if batch.body.failed:
        raise MemoryError
    batch.size += batch.sized.size
    return taken(&batch.sized)


cdef object shown(object value, object absent):
    """A plain value as a column holds it."""
    if value is Ellipsis:
        return absent
    if value is True:
        return 1
    if value is False:
        return 0
    if type(value) is float and <double>value == 0.0:
        return 0.0  # one zero
    return value


cdef inline void put(object row, Py_ssize_t place, object value) noexcept:
    Py_INCREF(value)
    PyTuple_SET_ITEM(row, place, value)


cdef object row_of(object scope, uint64_t number, str key, tuple values, tuple columns, tuple absent, bytes packed):
    """A record as its table has it."""
    cdef Py_ssize_t i, place
    cdef Py_ssize_t count = PyTuple_GET_SIZE(columns)
    cdef object row = PyTuple_New(count + 4)
    put(row, 0, number)
    put(row, 1, scope)
    put(row, 2, key)
    for i in range(count):
        place = columns[i]
        put(row, i + 3, absent[i] if place < 0 else shown(values[place], absent[i]))
    put(row, count + 3, packed)
    PyObject_GC_UnTrack(row)
    return row


cdef int start_batch(Batch *batch, tuple change, str collection, bytes key, bytes authors) except -1:
    """What is hashed and packed of all records of a change first; 0 for a collection's name that UTF-8 cannot hold."""
    cdef uint64_t author
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a digest key has 16 bytes")
    author, batch.seq, batch.time = change
    if author >= author_count(authors):
        raise ValueError("an author that the dictionary does not hold")
    batch.author = load_little(<const uint8_t *>PyBytes_AS_STRING(authors) + 8 * author)
    batch.begun = sip_begin(<const uint8_t *>PyBytes_AS_STRING(key))
    sip_word(&batch.begun, batch.author)
    sip_word(&batch.begun, big_word(batch.seq))
    write_byte(&batch.head, ALIVE)
    write_varint(&batch.head, author)
    write_varint(&batch.head, batch.seq)
    write_byte(&batch.existence, KIND_EXISTENCE)
    write_byte(&batch.existence, TAG_LIST)
    write_varint(&batch.existence, 2)
    return write_text(&batch.existence, collection)


cdef void batch_free(Batch *batch) noexcept nogil:
    free(batch.places)
    writer_free(&batch.leads)
    writer_free(&batch.head)
    writer_free(&batch.existence)
    writer_free(&batch.body)
    writer_free(&batch.sized)
    sum_free(&batch.sum)


cdef object build_rows(Batch *batch, uint64_t n, list keys, list records, tuple table):
    """The rows of all records; None where one is not plain."""
    cdef object scope = table[0]
    cdef uint64_t number = table[1]
    cdef tuple columns = table[2]
    cdef tuple absent = table[3]
    cdef str key
    cdef tuple values
    cdef list rows = []
    if len(columns) != len(absent) or any([place >= <Py_ssize_t>batch.count for place in columns]):
        raise ValueError("of each column a place among the values, or one below 0, and what it shows without")
    for key, values in zip(keys, records, strict=True):
        if <size_t>PyTuple_GET_SIZE(values) != batch.count:
            raise ValueError("as many values as fields")
        if not put_record(batch, n, values, key):
            return None
        rows.append(row_of(scope, number, key, values, columns, absent, pack_body(batch)))
        n += 1
        number += 1
    return rows


def build(tuple change not None, uint64_t first, list keys not None, list records not None, tuple ids not None,
          tuple table not None, str collection not None, bytes key not None, bytes fields not None,
          bytes authors not None):
    """New records of one collection and change, numbered from `first` on: (rows, digest, cells, bytes of all).

    None where a name or a value is not plain. change: (author id, seq, time). records: of each, the values of the field
    ids, Ellipsis to leave one out. table: (the scope's id, the first row's number, of each column the place of its
    value among a record's or -1, what each shows without one). digest: 16 bytes to add to the scope's.
    """
    cdef Fields f = fields_of(fields)
    cdef Batch batch
    memset(&batch, 0, sizeof(Batch))
    batch.count = <size_t>PyTuple_GET_SIZE(ids)
    batch.places = <Place *>malloc((batch.count + 1) * sizeof(Place))
    try:
        if batch.places == NULL:
            raise MemoryError
        if not lay_out(&batch, ids, &f) or not start_batch(&batch, change, collection, key, authors):
            return None
        rows = build_rows(&batch, first, keys, records, table)
        if rows is None:
            return None
        settle(&batch.sum)
        if batch.sum.failed:
            raise MemoryError
        return rows, digest_bytes(batch.sum.total), batch.cells, batch.size
    finally:
        batch_free(&batch)
