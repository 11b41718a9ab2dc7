# Types for responder.py where it is compiled.

cimport cython

from ..http11.request cimport Request, address_of

cdef str _UNTRUSTED
cdef tuple _FORWARDING, _FORWARDING_KEYS


cdef class HandshakeResponder:
    cdef bint _asked
    cdef object _conn
    cdef object _context
    cdef readonly object _deadline
    cdef object _task
    cdef public bint answered
    cdef readonly bytearray rest

    cpdef limit_time(self, double due)
    cpdef accept(self)
    cpdef end(self)
    cpdef fail(self, exc)
    cdef _failed(self)
    cdef _forget_deadline(self)


@cython.locals(key=bytes)
cpdef log_untrusted_proxy(conn, Request request, context)
