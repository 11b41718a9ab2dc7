# Types for compression.py where it is compiled.

cimport cython

from .streams cimport Compressor, ContextCompressor
from ..protocol.message cimport EncodedMessage


cdef class OutboundDeflate:
    cdef object _compressor
    cdef ContextCompressor _context
    cdef Py_ssize_t _fragment_size
    cdef object _idle
    cdef object _key
    cdef Py_ssize_t _messages
    cdef Py_ssize_t _payload_bytes
    cdef Py_ssize_t _quick_size
    cdef object _timers
    cdef Py_ssize_t _wire_bytes
    cdef readonly object agreement
    cdef readonly Py_ssize_t min_size
    cdef readonly object shared_key

    @cython.locals(payload=bytes, data=bytes, size=Py_ssize_t)
    cpdef bytes frame(self, int opcode, message)
