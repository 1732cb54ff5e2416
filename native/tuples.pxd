# Tuples of a class, to be filled item by item: past its __new__, which takes twice as long. Header-only.

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM

cdef extern from *:
    """
    /* a tuple remembers its hash from Python 3.14 on; -1 is none */
    #if PY_VERSION_HEX >= 0x030E0000
    #define forget_hash(op) (((PyTupleObject *)(op))->ob_hash = -1)
    #else
    #define forget_hash(op) ((void)0)
    #endif
    """
    void forget_hash(object op)

cdef extern from "Python.h":
    object PyType_GenericAlloc(type kind, Py_ssize_t items)
    void PyObject_GC_UnTrack(object value)


cdef inline object new_tuple(type kind, Py_ssize_t width):
    """One without items; the class is known to be one of tuples."""
    cdef object one = PyType_GenericAlloc(kind, width)
    forget_hash(one)
    return one


cdef inline void fill(object one, Py_ssize_t place, object value) noexcept:
    """Put an item into a place of a new one that has none yet."""
    Py_INCREF(value)
    PyTuple_SET_ITEM(one, place, value)
