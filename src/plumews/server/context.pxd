# Types for context.py where it is compiled.

cimport cython

from ..http11.origin cimport check_host
from ..http11.request cimport Request


cdef class ServerContext:
    cdef object _empty
    cdef object _end_task
    cdef bytes _newest_host
    cdef public object admission
    cdef public object allowed_hosts
    cdef public bint closing
    cdef public set connections
    cdef public object context
    cdef readonly list doubts
    cdef readonly dict endpoints
    cdef readonly bytes extra_lines
    cdef readonly set logged_hints
    cdef readonly Py_ssize_t max_head
    cdef readonly Py_ssize_t max_headers
    cdef readonly double open_timeout
    cdef readonly object options
    cdef readonly object origins
    cdef readonly object process_request
    cdef readonly object process_response
    cdef readonly object requests
    cdef readonly dict routes
    cdef readonly bint secure
    cdef readonly object select_subprotocol
    cdef readonly object subprotocols
    cdef readonly set tasks
    cdef readonly object trusted_proxies

    cpdef endpoint(self, str path)
    @cython.locals(host=bytes)
    cpdef check_host(self, Request request)
    cpdef start(self, work)
