# Types for tls_records.py where it is compiled.

cimport cython

cdef int _FIRST_TYPE, _LAST_TYPE
cdef Py_ssize_t _HEADER, _LONGEST


@cython.final
cdef class RecordCounter:
    cdef Py_ssize_t _left
    cdef Py_ssize_t _header
    cdef Py_ssize_t _length

    @cython.locals(at=Py_ssize_t, count=Py_ssize_t, take=Py_ssize_t)
    cpdef Py_ssize_t count(self, bytearray data, Py_ssize_t size) except -1
