# Types for loopstate.py where it is compiled.

cimport cython


cdef class Flushable:
    cpdef flush(self)


cdef class LoopState:
    cdef readonly list _dirty
    cdef object _loop
    cdef bint _scheduled
    cdef readonly object buffer
    cdef public bint in_batch
    cdef readonly object timers
    cdef readonly object view

    cpdef mark_dirty(self, Flushable writer)
    cdef _schedule(self)
    @cython.locals(writer=Flushable, position=Py_ssize_t, until=double)
    cpdef _flush(self)
