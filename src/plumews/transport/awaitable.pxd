# Types for steps.pyx, and for those that build on it where they are compiled.

cdef class StepAwaitable:
    cdef bint over

    cpdef object step(self)
