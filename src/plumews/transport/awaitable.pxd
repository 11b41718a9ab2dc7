# Types for steps.pyx, and for those that build on it where they are compiled.

cdef class Steps:
    cdef bint over

    cpdef object step(self)
