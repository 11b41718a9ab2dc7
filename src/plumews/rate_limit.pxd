# Types for rate_limit.py where it is compiled.

cdef double _TOLERANCE


cdef class TokenBucket:
    cdef double _burst
    cdef double _filled
    cdef double _rate
    cdef readonly double _tokens

    cpdef double wait(self, double now) except? -1
    cpdef double take(self, double now) except? -1
    cdef double _refill(self, double now) except? -1
