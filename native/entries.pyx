"""Entries of the change index: rows as runs of rows, and pieces of edits filed under the rows that runs have."""

from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from tuples cimport PyObject_GC_UnTrack, fill, new_tuple

# Rows of a collection, one after the other; n: the numbers of the incarnations in them likewise, or -1.
ctypedef struct Run:
    int64_t collection
    int64_t n
    int64_t row
    int64_t count


cdef int order_runs(const void *a, const void *b) noexcept nogil:
    cdef const Run *x = <const Run *>a
    cdef const Run *y = <const Run *>b
    if x.collection != y.collection:
        return -1 if x.collection < y.collection else 1
    if x.n != y.n:
        return -1 if x.n < y.n else 1
    if x.row != y.row:
        return -1 if x.row < y.row else 1
    return (x.count > y.count) - (x.count < y.count)


cdef object tuple_of(type kind, const Run *run):
    cdef object one = new_tuple(kind, 4)
    fill(one, 0, run.collection)
    fill(one, 1, run.n)
    fill(one, 2, run.row)
    fill(one, 3, run.count)
    PyObject_GC_UnTrack(one)  # it refers to numbers alone
    return one


cdef Run row_of(object place) except *:
    """A single row, of which only that it is a tuple is known."""
    if not PyTuple_Check(place) or PyTuple_GET_SIZE(place) != 4:
        raise TypeError("an entry is a tuple of four")
    if <int64_t><object>PyTuple_GET_ITEM(place, 3) != 1:
        raise ValueError("a run where a single row is due")
    return Run(<object>PyTuple_GET_ITEM(place, 0), <object>PyTuple_GET_ITEM(place, 1),
               <object>PyTuple_GET_ITEM(place, 2), 1)


cdef bint goes_on(const Run *last, const Run *one) noexcept nogil:
    """Whether a single row comes after a run."""
    cdef uint64_t count = <uint64_t>last.count
    if one.collection != last.collection or <uint64_t>one.row != <uint64_t>last.row + count:
        return False
    return one.n == -1 if last.n < 0 else <uint64_t>one.n == <uint64_t>last.n + count


def compress(list places not None, type kind not None):
    """Single rows (collection, n, row, 1), which may be there twice, as runs of a class of tuples, sorted."""
    cdef Py_ssize_t i
    cdef Py_ssize_t count = len(places)
    cdef Py_ssize_t last = 0
    cdef bint is_sorted = True
    cdef list found = []
    cdef Run *runs
    if not issubclass(kind, tuple):
        raise TypeError("an entry is a tuple")
    if count == 0:
        return found
    runs = <Run *>malloc(<size_t>count * sizeof(Run))
    if runs == NULL:
        raise MemoryError
    try:
        for i in range(count):
            runs[i] = row_of(places[i])
            is_sorted = is_sorted and (i == 0 or order_runs(&runs[i - 1], &runs[i]) <= 0)
        if not is_sorted:
            qsort(runs, <size_t>count, sizeof(Run), order_runs)
        for i in range(1, count):
            if goes_on(&runs[last], &runs[i]):
                runs[last].count += 1
            elif order_runs(&runs[i - 1], &runs[i]) != 0:
                last += 1
                runs[last] = runs[i]
        for i in range(last + 1):
            found.append(tuple_of(kind, &runs[i]))
        return found
    finally:
        free(runs)


def file_edits(list pieces not None, Py_ssize_t at, dict creations not None, dict mine not None, dict rows not None,
               list several not None):
    """File pieces of edits, from one on; returns where the first is whose creation is not given, -1 for what is none.

    pieces: (author id, seq, n, name or None, packed), by the incarnation that each belongs to. creations: runs by the
    (author id, seq) of incarnations. Each piece comes into `mine`, {collection: {row: packed}}, the last one of a row
    if there are several, of which `several` then has (rows, row); and into `rows`, {collection: {row: (packed, ...)}}.
    """
    cdef uint64_t author, seq, n
    cdef uint64_t creator = 0
    cdef uint64_t creation = 0
    cdef uint64_t first = 0
    cdef uint64_t count = 0       # of the run in which the last one was
    cdef int64_t row = 0
    cdef int64_t begin, start, size
    cdef dict here = {}
    cdef dict there = {}
    if at < 0:
        raise ValueError("no place in a list")
    while at < len(pieces):
        author, seq, n, name, packed = pieces[at]
        if name is not None:
            return -1
        if n - first >= count or seq != creation or author != creator:
            runs = creations.get((author, seq))
            if runs is None:
                return at
            creator, creation, count = author, seq, 0
            for collection, begin, start, size in runs:
                if begin >= 0 and size > 0 and n - <uint64_t>begin < <uint64_t>size:
                    first, count, row = <uint64_t>begin, <uint64_t>size, start
                    here, there = rows.setdefault(collection, {}), mine.setdefault(collection, {})
                    break
            if count == 0:
                return -1
        number = <int64_t>(<uint64_t>row + (n - first))
        if number in there:
            several.append((there, number))
        there[number] = packed
        here[number] = (*here[number], packed) if number in here else (packed,)
        at += 1
    return at
