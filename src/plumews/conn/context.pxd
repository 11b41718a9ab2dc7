# Types for context.pyx and the compiled modules that import it.

from .attributes cimport Attributes


cdef class ContextRunner(Attributes):
    cdef public object _context
    cdef bint _in_context

    cdef list _dispatch_in_context(self, list events)
    cdef list _dispatch(self, list events)
