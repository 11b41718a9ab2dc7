# Types for awaitable.pyx, and for compiled modules with subclasses.

cdef class StepAwaitable:
    cdef bint over

    cpdef object step(self)
