# Types for pacing.py where it is compiled.

cdef object monotonic
cdef int _NOTHING, _TURN, _ROOM, _LATER


cdef class Pacing:
    cdef bint _asked
    cdef double _share
    cdef double _turn_until
    cdef public double _used_until
    cdef int _waits_for

    cpdef bint _has_room(self, conn) except -1
    cpdef bint _may_work(self, double now)
    cpdef bint _has_time(self, double now)
    cpdef _count(self, double began)
    cpdef int _wait_for(self, int what)
    cpdef bint waits(self, conn) except -1
    cpdef changed(self, conn)
