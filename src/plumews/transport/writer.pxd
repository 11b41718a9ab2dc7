# Types for writer.py where it is compiled.

cimport cython

from .loop_context cimport LoopContext
from ..protocol.message cimport EncodedMessage
from .socket_writer cimport SocketWriter


cdef Py_ssize_t _FREE


cdef class Waiter:
    cdef public object done
    cdef public EncodedMessage message


cdef class Writer(SocketWriter):
    cdef bint _dirty
    cdef list _drains
    cdef bint _gathered
    cdef bint _hot
    cdef object _on_finished
    cdef object _waiters
    cdef public object context
    cdef public Py_ssize_t dropped
    cdef public bint in_pieces

    cpdef bint offer(self, EncodedMessage message)
    cdef _enter(self, EncodedMessage message)
    cpdef bint offer_frame(self, bytes frame)
    cpdef bint has_space(self, Py_ssize_t size) except -1
    @cython.locals(queue=list)
    cpdef bint share(self, object frame, Py_ssize_t size) except -1
    cpdef bint stuck(self, Py_ssize_t size) except -1
    cdef _empty(self, bint good)
    cdef _tell(self, object done, bint good)
    cdef _admit(self)
    cpdef refuse_waiters(self)
    cpdef bint drained(self) except -1
    cpdef bint answered(self, Py_ssize_t place) except -1
    cpdef kick(self, bint at_once)
    cpdef gather(self)
    cpdef flush(self)
