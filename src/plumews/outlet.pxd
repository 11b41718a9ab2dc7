# Types for outlet.py where it is compiled.

from .displacing cimport DisplacingQueue


cdef class Outlet(DisplacingQueue):
    cdef int _fd
    cdef bint _handed
    cdef object _transport

    cdef _detach(self)
    cdef _write_some(self)
    cpdef bint was_sent(self, Py_ssize_t sent)
    cdef bint _past(self) except -1
    cdef _write_all(self)
    cdef _write_past(self, list batch)
    cdef _write(self, list batch)
    cdef _cut(self, list batch, Py_ssize_t sent)


cdef bint _is_header(object buffer)
