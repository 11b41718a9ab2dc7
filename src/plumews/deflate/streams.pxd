# Types for streams.py where it is compiled.

cimport cython

cdef object _FULL_FLUSH, _SYNC_FLUSH, _decompressobj


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


cdef class Inflater:
    cdef object _after
    cdef Py_ssize_t _at
    cdef bint _closing
    cdef object _data
    cdef bint _earlier
    cdef bint _full
    cdef Py_ssize_t _have
    cdef public object _inflater
    cdef object _limit
    cdef object _max_ratio
    cdef object _rest
    cdef object _tail
    cdef readonly bint _takeover
    cdef int _window_bits
    cdef Py_ssize_t _wire
    cdef readonly bint pending

    cpdef start(self, limit)
    cpdef feed(self, data)
    cpdef finish(self)
    @cython.locals(piece=Py_ssize_t)
    cpdef step(self, Py_ssize_t most=*)
    cdef _check_size(self)
    cdef _met_final_block(self, unused)
    cdef _ended(self, after)
    cdef _complete(self, bint closed)


@cython.locals(bits=int)
cpdef inflate_whole(data, int window_bits, limit, Py_ssize_t most=*)
