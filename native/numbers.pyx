"""Tables of integers <-> bytes, column by column: one that mostly goes on in equal steps takes few."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc

from bytes cimport (
    Reader, Writer, read_byte, read_varint, reader_of, unzigzag, write_byte, write_varint, writer_free, zigzag,
)
from tuples cimport fill, new_tuple

cdef enum:
    COLUMNS_MAX = 8
    ROWS_MAX = 1 << 18       # of a table: a few bytes could ask for any number
    STEADY = 0               # one step for most rows, and which have others
    RISING = 1               # each step as it is
    ANY = 2                  # each step as its zigzag
    OTHER_BYTES = 3          # of a step that is not the one for most


cdef inline int64_t step_to(const int64_t *values, size_t i) noexcept nogil:
    return values[i] - values[i - 1]


cdef int64_t usual_step(const int64_t *values, size_t count) noexcept nogil:
    """The step that most have, if most have one (Boyer and Moore's majority vote)."""
    cdef size_t i
    cdef size_t votes = 0
    cdef int64_t step = 0
    for i in range(1, count):
        if votes == 0:
            step = step_to(values, i)
        votes = votes + 1 if step_to(values, i) == step else votes - 1
    return step


cdef void write_column(Writer *w, const int64_t *values, size_t count) noexcept nogil:
    """The first number, how the others follow, and the steps to them."""
    cdef size_t i
    cdef size_t last = 0
    cdef size_t others = 0
    cdef bint is_rising = True
    cdef int64_t usual = usual_step(values, count)
    write_varint(w, zigzag(values[0]))
    if count == 1:
        return
    for i in range(1, count):
        others += step_to(values, i) != usual
        is_rising = is_rising and step_to(values, i) >= 0
    if others * OTHER_BYTES < count:
        write_byte(w, STEADY)
        write_varint(w, zigzag(usual))
        write_varint(w, others)
    else:
        write_byte(w, RISING if is_rising else ANY)
    for i in range(1, count):
        if others * OTHER_BYTES >= count:
            write_varint(w, <uint64_t>step_to(values, i) if is_rising else zigzag(step_to(values, i)))
        elif step_to(values, i) != usual:
            write_varint(w, i - last)
            write_varint(w, zigzag(step_to(values, i)))
            last = i


cdef void read_steady(Reader *r, int64_t *values, size_t count) noexcept nogil:
    cdef size_t i
    cdef uint64_t usual = <uint64_t>unzigzag(read_varint(r))
    cdef uint64_t others = read_varint(r)
    cdef uint64_t step
    cdef uint64_t next = 0
    for i in range(1, count):
        if others and next == 0:
            next = read_varint(r)
            others -= 1
            r.bad = r.bad or next == 0
        step = usual
        if next:
            next -= 1
            if next == 0:
                step = <uint64_t>unzigzag(read_varint(r))
        if r.bad:
            return
        values[i] = <int64_t>(<uint64_t>values[i - 1] + step)
    r.bad = r.bad or others != 0 or next != 0


cdef void read_column(Reader *r, int64_t *values, size_t count) noexcept nogil:
    cdef size_t i
    cdef uint64_t step
    cdef uint8_t way
    values[0] = unzigzag(read_varint(r))
    if count == 1:
        return
    way = read_byte(r)
    if way == STEADY:
        read_steady(r, values, count)
        return
    r.bad = r.bad or way > ANY
    for i in range(1, count):
        step = read_varint(r)
        if r.bad:
            return
        values[i] = <int64_t>(<uint64_t>values[i - 1] + (step if way == RISING else <uint64_t>unzigzag(step)))


cdef int64_t *room_for(int64_t *values, size_t count, int columns) except NULL:
    """Memory for a table of at most ROWS_MAX rows."""
    cdef int64_t *more = <int64_t *>realloc(values, (count * <size_t>columns + 1) * sizeof(int64_t))
    if more == NULL:
        raise MemoryError
    return more


def pack(list tables not None, int columns):
    """Tables of rows, tuples of `columns` integers below 2**62 in size, as bytes each."""
    cdef Writer w = Writer(NULL, 0, 0, False)
    cdef int64_t *values = NULL
    cdef size_t count, i
    cdef int column
    cdef list rows
    cdef list out = []
    if not 0 < columns <= COLUMNS_MAX:
        raise ValueError(f"a table has 1 to {COLUMNS_MAX} columns")
    try:
        for some in tables:
            rows = list(some)
            count = <size_t>len(rows)
            if count > ROWS_MAX:
                raise ValueError(f"a table has at most {ROWS_MAX} rows")
            values = room_for(values, count, columns)
            for i, row in enumerate(rows):
                if not PyTuple_Check(row):
                    raise TypeError("rows are tuples")
                if PyTuple_GET_SIZE(row) != columns:
                    raise ValueError(f"a row of {len(row)} where {columns} columns are declared")
                for column in range(columns):  # of named tuples too, past their own []
                    values[<size_t>column * count + i] = <object>PyTuple_GET_ITEM(row, column)
            w.size = 0
            if count:
                write_varint(&w, count)
                for column in range(columns):
                    write_column(&w, values + <size_t>column * count, count)
            if w.failed:
                raise MemoryError
            out.append(PyBytes_FromStringAndSize(<const char *>w.data, <Py_ssize_t>w.size))
        return out
    finally:
        free(values)
        writer_free(&w)


cdef object row_of(type kind, const int64_t *values, size_t count, int columns):
    """One row of a table in columns."""
    cdef int column
    cdef object row = new_tuple(kind, columns)
    for column in range(columns):
        fill(row, column, values[<size_t>column * count])
    return row


def unpack(bytes data not None, int columns, type kind not None):
    """The rows of a packed table, of a class of tuples; ValueError where the bytes are not one."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    cdef int64_t *values = NULL
    cdef uint64_t count
    cdef size_t i
    cdef int column
    if not 0 < columns <= COLUMNS_MAX:
        raise ValueError(f"a table has 1 to {COLUMNS_MAX} columns")
    if not issubclass(kind, tuple):
        raise TypeError("rows are tuples")
    if not data:
        return []
    count = read_varint(&r)
    if r.bad or not 0 < count <= ROWS_MAX:
        raise ValueError("a packed table of integers is damaged")
    try:
        values = room_for(values, <size_t>count, columns)
        for column in range(columns):
            read_column(&r, values + <size_t>column * <size_t>count, <size_t>count)
        if r.bad or r.at != r.end:
            raise ValueError("a packed table of integers is damaged")
        return [row_of(kind, values + i, <size_t>count, columns) for i in range(<size_t>count)]
    finally:
        free(values)
