# Types for opening.py where it is compiled.

cimport cython

from .config_values cimport values_of
from .core cimport ConnCore

cdef object _OPEN, _local_address, _newest_address

cpdef made(ConnCore conn, transport)
cpdef connected(ConnCore conn, transport)
cdef _bound_output(ConnCore conn, transport, Py_ssize_t unsent)
cdef _shared_address(address)
@cython.locals(failed=bint)
cpdef opened(ConnCore conn)
