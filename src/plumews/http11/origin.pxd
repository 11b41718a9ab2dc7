# Types for origin.py where it is compiled.

cimport cython

from .request cimport Request

cdef object InvalidHeader, InvalidOrigin, parse_host
cdef str _ANY


@cython.locals(values=list)
cpdef check_origin(Request request, allowed, bint secure, bint required=*)
cdef _own_origin(Request request, bint secure)
@cython.locals(hosts=list)
cpdef check_host(Request request, allowed_hosts)
