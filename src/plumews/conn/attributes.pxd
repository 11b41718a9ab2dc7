# Types for attributes.pyx and the compiled modules that import it.

cdef class Attributes:
    pass
