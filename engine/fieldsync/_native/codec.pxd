# What other kernels call of codec.pyx.

from bytes cimport Reader, Writer


cdef int write_value(Writer *w, object value, int depth) except -1
cdef object read_value(Reader *r)
