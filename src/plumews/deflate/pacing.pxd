# Types for pacing.py where it is compiled.

cimport cython

cdef object Context, monotonic
cdef int _NOTHING, _TURN, _ROOM, _LATER


cdef class Pacing:
    cdef bint _asked
    cdef Py_ssize_t _held
    cdef double _share
    cdef double _turn_until
    cdef object _turns
    cdef public double _used_until
    cdef readonly int _waits_for

    cpdef bint _has_room(self, conn) except -1
    cpdef bint _may_work(self, double now)
    cpdef bint _has_time(self, double now)
    @cython.locals(used=double)
    cpdef _count(self, double began)
    cdef _hold(self, Py_ssize_t size)
    cdef _let_go(self)
    cpdef int _wait_for(self, int what)
    cpdef bint waits(self, conn) except -1
    cpdef changed(self, conn)
