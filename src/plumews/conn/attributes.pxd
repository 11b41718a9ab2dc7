# Types for attributes.pyx, and for those that build on it where they are compiled.

cdef class Attributes:
    pass
