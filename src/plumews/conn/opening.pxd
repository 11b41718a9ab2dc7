# Types for opening.py where it is compiled.

from .core cimport ConnCore

cdef object _OPEN

cpdef made(ConnCore conn, transport)
cpdef connected(ConnCore conn, transport)
cpdef opened(ConnCore conn)
