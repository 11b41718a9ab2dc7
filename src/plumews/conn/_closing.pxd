# What _closing.pyx gives to other short ways.

from .core cimport ConnCore

cdef bint answer_close(ConnCore conn, tuple close) except -1
cdef lost(ConnCore conn)
