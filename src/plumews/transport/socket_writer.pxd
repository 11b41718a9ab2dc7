# Types for socket_writer.py where it is compiled.

cimport cython

from .displacing_queue cimport DisplacingQueue
from .loop_context cimport LoopContext


cdef object Context


cdef class SocketWriter(DisplacingQueue):
    cdef int _fd
    cdef bint _handed
    cdef object _on_failure
    cdef LoopContext _state
    cdef object _transport

    cdef _detach(self)
    cdef _write_some(self)
    cdef bint _past(self) except -1
    @cython.locals(queue=list, sent=Py_ssize_t)
    cdef _write_all(self)
    cdef _write_past(self, list batch)
    cdef _write(self, list batch)
    cdef _cut(self, list batch, Py_ssize_t sent)


cdef bint _is_header(object buffer)
