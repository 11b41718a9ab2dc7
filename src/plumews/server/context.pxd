# Types for context.py where it is compiled.

cdef class ServerContext:
    cdef object _empty
    cdef object _end_task
    cdef public object admission
    cdef public object allowed_hosts
    cdef public bint closing
    cdef public set connections
    cdef public object context
    cdef readonly list doubts
    cdef readonly dict endpoints
    cdef readonly bytes extra_lines
    cdef readonly set logged_hints
    cdef readonly object options
    cdef readonly object requests
    cdef readonly dict routes
    cdef readonly set tasks

    cpdef endpoint(self, str path)
    cpdef start(self, work)
