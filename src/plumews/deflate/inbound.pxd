# Types for inbound.py where it is compiled.

cimport cython

from .streams cimport Inflater
from ..protocol.state cimport ProtocolState

cdef object Context, _OPEN, monotonic
cdef int _TEXT, _BINARY, _COMPRESSED_TEXT, _GO_ON, _LATER, _STOP, _NOTHING, _TURN, _ROOM
cdef Py_ssize_t _PIECE, _STEP, _SHORT


cdef class InflateQueue:
    cdef object _loop
    cdef bint _scheduled
    cdef double _turn_until
    cdef object _waiting
    cdef public double free_at
    cdef readonly Py_ssize_t held
    cdef readonly double slice
    cdef public double used_until

    cpdef bint is_free(self, double now, bint holds) except -1
    cdef charge(self, double began, double seconds)
    cpdef end_turn(self)
    cpdef wait(self, conn, Py_ssize_t held)
    @cython.locals(delay=double)
    cdef _schedule(self)
    @cython.locals(began=double, ended=double, held=Py_ssize_t)
    cpdef _next(self)


cdef class InboundDeflate:
    cdef bint _busy
    cdef object _collected
    cdef readonly Inflater _inflater
    cdef object _max_ratio
    cdef bint _over
    cdef InflateQueue _queue
    cdef bint _takeover
    cdef double _used_until
    cdef object _utf8
    cdef int _window_bits
    cdef readonly Py_ssize_t messages
    cdef readonly Py_ssize_t payload_bytes
    cdef readonly bint streaming
    cdef readonly int waits_for
    cdef readonly Py_ssize_t wire_bytes

    @cython.locals(now=double, rules=ProtocolState, size=Py_ssize_t, most=Py_ssize_t)
    cpdef int take(self, conn, int kind, data) except -1
    cpdef int take_after_end(self, conn, int kind, data) except -1
    @cython.locals(now=double, inflater=Inflater, most=Py_ssize_t)
    cdef int _take_in_steps(self, conn, int kind, data, bint first) except -1
    cdef int _deliver(self, conn, int kind, message, double began) except -1
    cpdef begin(self, conn, int opcode)
    cpdef int chunk(self, conn, data) except -1
    @cython.locals(outcome=int)
    cpdef int end_of_stream(self, conn) except -1
    @cython.locals(now=double, inflater=Inflater)
    cdef int _advance(self, conn, data) except -1
    cdef bint _is_unwanted(self, conn) except -1
    cdef Py_ssize_t _allowed(self, double now, bint first, bint holds) except -1
    @cython.locals(used=double)
    cdef _charge(self, double began)
    cdef int _wait(self, conn, int what) except -1
    cpdef resume(self, conn)
    cpdef changed(self, conn)
    cpdef bint _has_room(self, conn) except -1
    cdef _start(self, conn)
    cdef int _fail(self, conn, exc) except -1
    cpdef end(self)
