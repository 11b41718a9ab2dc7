# Types for loopstate.py where it is compiled.

cdef class LoopState:
    cdef readonly list _dirty
    cdef object _loop
    cdef bint _scheduled
    cdef readonly object buffer
    cdef public bint in_batch
    cdef readonly object timers
    cdef readonly object view

    cpdef mark_dirty(self, writer)
    cdef _schedule(self)
