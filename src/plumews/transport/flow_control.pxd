# Types for flow_control.py where it is compiled.

cimport cython


@cython.final
cdef class FlowControl:
    cdef Py_ssize_t _answered
    cdef object _keepalive
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _part
    cdef Py_ssize_t _pinged
    cdef readonly Py_ssize_t written

    cpdef Py_ssize_t unanswered(self) except? -1
    @cython.locals(room=Py_ssize_t)
    cpdef Py_ssize_t room(self) except? -1
    cpdef wrote(self, Py_ssize_t size)
    cpdef bint answered(self, Py_ssize_t place) except -1
