# Types for outbound.py where it is compiled.

cimport cython

from .streams cimport Compressor, ContextCompressor
from ..protocol.message cimport EncodedMessage


cdef class DeflateParams:
    cdef readonly Py_ssize_t fragment_size
    cdef readonly object key
    cdef readonly Py_ssize_t min_size

    cpdef bint should_compress(self, Py_ssize_t size, requested, Py_ssize_t most=*)


cdef class OutboundDeflate:
    cdef object _compressor
    cdef ContextCompressor _context
    cdef object _idle
    cdef Py_ssize_t _messages
    cdef Py_ssize_t _payload_bytes
    cdef Py_ssize_t _quick_size
    cdef object _timers
    cdef Py_ssize_t _wire_bytes
    cdef readonly object agreement
    cdef readonly DeflateParams params
    cdef readonly DeflateParams shared_params

    @cython.locals(payload=bytes, data=bytes, size=Py_ssize_t)
    cpdef bytes frame(self, int opcode, message)
