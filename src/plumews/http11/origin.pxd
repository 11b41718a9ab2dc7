# Types for origin.py where it is compiled.

cimport cython

from .request cimport Request

cdef object InvalidHeader, InvalidOrigin, parse_host
cdef str _ANY


cdef _own_origin(Request request, bint secure)
@cython.locals(hosts=list)
cpdef check_host(Request request, allowed_hosts)
