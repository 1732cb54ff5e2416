"""Tables of integers <-> bytes: each column as varints of the differences from one row to the next."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint64_t

from bytes cimport Reader, Writer, read_varint, reader_of, unzigzag, write_varint, writer_free, zigzag

cdef extern from "Python.h":
    object PyType_GenericAlloc(type kind, Py_ssize_t items)

cdef enum:
    COLUMNS_MAX = 8


def pack(list tables not None, int columns):
    """Tables of rows, tuples of `columns` integers below 2**62 in size, as bytes each."""
    cdef Writer w = Writer(NULL, 0, 0, False)
    cdef int64_t last[COLUMNS_MAX]
    cdef int64_t value
    cdef int i
    cdef object row
    cdef list out = []
    if not 0 < columns <= COLUMNS_MAX:
        raise ValueError(f"a table has 1 to {COLUMNS_MAX} columns")
    try:
        for rows in tables:
            w.size = 0
            for i in range(columns):
                last[i] = 0
            for row in rows:
                if len(row) != columns:
                    raise ValueError(f"a row of {len(row)} where {columns} columns are declared")
                for i in range(columns):
                    value = row[i]
                    write_varint(&w, zigzag(value - last[i]))
                    last[i] = value
            if w.failed:
                raise MemoryError
            out.append(PyBytes_FromStringAndSize(<const char *>w.data, <Py_ssize_t>w.size))
        return out
    finally:
        writer_free(&w)


def unpack(bytes data not None, int columns, type kind not None):
    """The rows of a packed table, of a class of tuples; ValueError where the bytes are not one."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    cdef uint64_t last[COLUMNS_MAX]
    cdef int i
    cdef object row, number
    cdef list out = []
    if not 0 < columns <= COLUMNS_MAX:
        raise ValueError(f"a table has 1 to {COLUMNS_MAX} columns")
    if not issubclass(kind, tuple):
        raise TypeError("rows are tuples")
    for i in range(columns):
        last[i] = 0
    while r.at < r.end and not r.bad:
        for i in range(columns):
            last[i] += <uint64_t>unzigzag(read_varint(&r))
        row = PyType_GenericAlloc(kind, columns)  # as kind.__new__ does, which takes twice as long
        for i in range(columns):
            number = <int64_t>last[i]
            Py_INCREF(number)
            PyTuple_SET_ITEM(row, i, number)
        out.append(row)
    if r.bad:
        raise ValueError("a packed table of integers is damaged")
    return out
