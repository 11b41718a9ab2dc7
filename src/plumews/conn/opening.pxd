# Types for opening.py where it is compiled.

from .core cimport ConnCore

cdef object _OPEN

cpdef connected(ConnCore conn, transport)
cpdef opened(ConnCore conn)
