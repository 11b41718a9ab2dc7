# Types for responder.py where it is compiled.

cimport cython

from ..conn.core cimport ConnCore
from ..http11.request cimport Request, address_of
from ..transport.timers cimport Deadline
from .context cimport ServerContext

cdef str _UNTRUSTED
cdef tuple _FORWARDING, _FORWARDING_KEYS


cdef class HandshakeResponder:
    cdef bint _asked
    cdef ConnCore _conn
    cdef ServerContext _context
    cdef readonly Deadline _deadline
    cdef object _task
    cdef public bint answered
    cdef readonly bytearray rest

    @cython.locals(conn=ConnCore)
    cdef bint over(self) except -1
    cpdef limit_time(self, double due)
    cpdef accept(self)
    cpdef end(self)
    cpdef fail(self, exc)
    cdef _failed(self)
    cdef _forget_deadline(self)


@cython.locals(key=bytes)
cpdef log_untrusted_proxy(conn, Request request, ServerContext context)
