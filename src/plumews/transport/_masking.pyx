# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""Compiled body of :mod:`plumews.transport.masking`: short frames are masked on the stack."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from . import sendmsg

from .._codec cimport byte, cbyte, mask_frames_to, masked_size
from ._sendmsg cimport send_memory

__all__ = ["MaskingTransport"]

cdef enum:
    ON_STACK = 4096  # bytes of masked frames that are written without an object


cdef class MaskingTransport:
    """As that of ``masking``."""

    cdef object _out
    cdef int _fd
    cdef bint _handed
    cdef bint _limited

    def __init__(self, transport):
        self._out = transport
        self._fd = sendmsg.descriptor(transport)
        self._handed = True

    def write(self, data, /):
        cdef byte memory[ON_STACK]
        cdef Py_ssize_t size, sent = 0
        if type(data) is not bytes:
            data = bytes(data)
        size = masked_size(<cbyte *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if size <= ON_STACK and self._past():
            mask_frames_to(memory, <cbyte *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            sent = send_memory(self._fd, memory, size)
            if sent < size:
                self._hand((<char *>memory)[sent:size])
            return
        masked = PyBytes_FromStringAndSize(NULL, size)
        mask_frames_to(<byte *>PyBytes_AS_STRING(masked), <cbyte *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if self._past():
            sent = send_memory(self._fd, PyBytes_AS_STRING(masked), size)
        if sent < size:
            self._hand(memoryview(masked)[sent:] if sent else masked)

    def writelines(self, list_of_data, /):
        self.write(b"".join(list_of_data))

    cdef bint _past(self) except -1:
        if self._handed and self._fd >= 0:
            self._handed = self._out.get_write_buffer_size() != 0
        return self._fd >= 0 and not self._handed

    cdef _hand(self, masked):
        if self._fd >= 0 and not self._limited:
            self._limited = True
            self._out.set_write_buffer_limits(high=0)
        self._handed = True
        self._out.write(masked)

    def is_closing(self):
        return self._out.is_closing()

    def get_write_buffer_size(self):
        return self._out.get_write_buffer_size()

    def set_write_buffer_limits(self, high=None, low=None):
        self._out.set_write_buffer_limits(high, low)

    def get_extra_info(self, name, default=None):
        return self._out.get_extra_info(name, default)
