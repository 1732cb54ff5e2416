# Tuples of a class, to be filled item by item: past its __new__, which takes twice as long. Header-only.

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


cdef inline object new_tuple(type kind, Py_ssize_t width):
    """One without items; the class is known to be one of tuples."""
    cdef object one = PyType_GenericAlloc(kind, width)
    forget_hash(one)
    return one
