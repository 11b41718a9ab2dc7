# Types for inflow.py where it is compiled.

cimport cython

from .inflating cimport Inflater
from .pacing cimport Pacing
from ..protocol.state cimport ProtocolState

cdef object _OPEN, monotonic
cdef int _TEXT, _BINARY, _COMPRESSED_TEXT, _GO_ON, _STOP, _TURN, _ROOM
cdef Py_ssize_t _PIECE, _STEP, _SHORT


cdef class InboundDeflate(Pacing):
    cdef bint _at_once
    cdef bint _busy
    cdef object _collected
    cdef readonly Inflater _inflater
    cdef object _max_ratio
    cdef bint _takeover
    cdef object _utf8
    cdef int _window_bits
    cdef readonly Py_ssize_t messages
    cdef readonly Py_ssize_t payload_bytes
    cdef readonly bint streaming
    cdef readonly Py_ssize_t wire_bytes

    @cython.locals(now=double, rules=ProtocolState, size=Py_ssize_t, most=Py_ssize_t, short=bint)
    cpdef int take(self, conn, int kind, data) except -1
    @cython.locals(now=double, inflater=Inflater, most=Py_ssize_t)
    cdef int _take_in_steps(self, conn, int kind, data, bint short) except -1
    cdef int _hand_on(self, conn, int kind, message, Py_ssize_t size, double began) except -1
    cdef _collect(self, part)
    cpdef begin(self, conn, int opcode)
    cdef _start(self, conn)
    cpdef int chunk(self, conn, data) except -1
    @cython.locals(outcome=int)
    cpdef int end_of_stream(self, conn) except -1
    @cython.locals(now=double, inflater=Inflater)
    cdef int _pass_on(self, conn) except -1
    cdef bint _unwanted(self, conn) except -1
    cpdef bint _has_room(self, conn) except -1
    cdef int _fail(self, conn, exc) except -1
    cpdef end(self)
