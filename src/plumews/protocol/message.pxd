# Types for message.py where it is compiled.

cdef class EncodedMessage:
    cdef readonly list buffers
    cdef readonly object compress
    cdef public dict encodings
    cdef readonly Py_ssize_t size
