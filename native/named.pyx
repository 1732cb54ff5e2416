"""Named tuples, many at a time: past their __new__, and past the garbage collector where they refer to nothing else."""

from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE

from tuples cimport PyObject_GC_UnTrack, fill, new_tuple

cdef extern from "Python.h":
    bint PyObject_IS_GC(object value)


cdef inline bint put(object one, Py_ssize_t place, object value) noexcept:
    """Whether the garbage collector may leave it alone."""
    fill(one, place, value)
    return not PyObject_IS_GC(value)


cdef inline object cell(object column, Py_ssize_t row):
    if type(column) is not list:
        return column
    if row >= PyList_GET_SIZE(column):
        raise ValueError("as many items in each column as rows")
    return <object>PyList_GET_ITEM(column, row)


def of_columns(type kind not None, Py_ssize_t count, tuple columns not None):
    """So many tuples of a class: an item from each column that is a list, any other is the same in all of them."""
    cdef Py_ssize_t row, place
    cdef Py_ssize_t width = PyTuple_GET_SIZE(columns)
    cdef bint is_leaf
    cdef object one
    cdef list every = []
    if not issubclass(kind, tuple):
        raise TypeError("what is named is a tuple")
    for row in range(count):
        one = new_tuple(kind, width)
        is_leaf = True
        for place in range(width):
            is_leaf &= put(one, place, cell(<object>PyTuple_GET_ITEM(columns, place), row))
        if is_leaf:
            PyObject_GC_UnTrack(one)
        every.append(one)
    return every


def of_rows(type kind not None, list rows not None):
    """The same tuples as ones of a class."""
    cdef Py_ssize_t place, width
    cdef bint is_leaf
    cdef object one
    cdef list every = []
    if not issubclass(kind, tuple):
        raise TypeError("what is named is a tuple")
    for row in rows:
        if not PyTuple_Check(row):
            raise TypeError("a row is a tuple")
        width = PyTuple_GET_SIZE(row)
        one = new_tuple(kind, width)
        is_leaf = True
        for place in range(width):
            is_leaf &= put(one, place, <object>PyTuple_GET_ITEM(row, place))
        if is_leaf:
            PyObject_GC_UnTrack(one)
        every.append(one)
    return every
