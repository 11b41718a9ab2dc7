# Types for flow_control.py where it is compiled.

cimport cython

from .writer cimport Writer

cdef int _TRANSPORT, _ANSWER, _EVENT, _ANY


cdef class FlowControl(Writer):
    cdef Py_ssize_t _answered
    cdef int _blocked
    cdef int _event_fd
    cdef object _keepalive
    cdef Py_ssize_t _limit
    cdef object _may_write
    cdef Py_ssize_t _part
    cdef Py_ssize_t _pinged
    cdef bint _waits_for_event

    cpdef bint drained(self) except -1
    cpdef bint answered(self, Py_ssize_t place) except -1
    cdef bint _released(self, int cause) except -1
    cdef _block(self, int cause)
    cpdef kick(self, bint at_once)
    cpdef flush(self)
    cdef _write_some(self)
    @cython.locals(room=Py_ssize_t)
    cdef _write_within(self)
    cdef _write_control(self)
    cdef _await_event(self)
    cdef _forget_event(self)
