# Types for context.pyx, and for those that build on it where they are compiled.

from .attributes cimport Attributes


cdef class InContext(Attributes):
    cdef public object _context
    cdef bint _inside

    cdef list _dispatch_within(self, list events)
    cdef list _dispatch(self, list events)
