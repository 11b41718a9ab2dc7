# Types for deflating.py where it is compiled.

cimport cython

cdef object _FULL_FLUSH, _SYNC_FLUSH


cdef class Compressor:
    cdef object _key
    cdef public object _made

    @cython.locals(data=bytes)
    cpdef bytes compress(self, payload)


cdef class ContextCompressor:
    cdef object _compressor
    cdef object _key
    cdef public bint used

    cpdef bytes compress(self, payload)
    cpdef bytes piece(self, payload)
    cpdef reset(self)
