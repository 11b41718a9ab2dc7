# Types for timers.py where it is compiled.

cimport cython

cdef object Context, heappop, heappush
cdef double _GRAIN
cdef Py_ssize_t _COMPACT_ABOVE


cdef class Deadline:
    cdef Timers _timers
    cdef readonly object callback
    cdef public double when

    cdef bint _is_before(self, Deadline other) except -1
    @cython.locals(timers=Timers)
    cpdef cancel(self)


cdef class Timers:
    cdef object _loop
    cdef readonly list _heap
    cdef Py_ssize_t _live
    cdef object _handle
    cdef double _armed_for
    cdef double _horizon

    cpdef double time(self) except? -1
    @cython.locals(deadline=Deadline)
    cpdef Deadline at(self, double when, callback)
    cpdef Deadline after(self, double delay, callback)
    cpdef _arm(self)
    cdef _cancelled(self)
    @cython.locals(deadline=Deadline)
    cpdef _wake(self)
    cdef _call(self, callback)
