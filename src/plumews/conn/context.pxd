# Types for context.pyx and the compiled modules that import it.

cdef class ContextRunner:
    cdef public object _context
    cdef bint _in_context

    cdef list _dispatch_in_context(self, list events)
    cdef list _dispatch(self, list events)
