# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""Compiled body of :mod:`plumews.transport.masking`: frames are masked piece by piece, and each piece is written.

Short output is masked on the stack, longer output in memory of the thread. A piece that was masked is still in the
cache when the kernel copies it. Only what a socket does not take becomes an object.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from .. import violations
from . import sendmsg

from .._codec cimport FrameMask, byte, cbyte, mask_next, masked_size
from ._sendmsg cimport send_memory

__all__ = ["MaskingTransport"]

cdef enum:
    ON_STACK = 4096  # bytes of masked frames that need no memory of the thread
    PIECE = 256 * 1024 + 4 * 14  # bytes of one write: four fragments of the default size

cdef extern from *:
    """
    #ifdef _MSC_VER
    #define PLUMEWS_OF_THREAD __declspec(thread)
    #else
    #define PLUMEWS_OF_THREAD __thread
    #endif
    static PLUMEWS_OF_THREAD unsigned char plumews_masked[256 * 1024 + 4 * 14];
    """
    byte *plumews_masked


cdef struct Place:  # in a list of buffers
    Py_ssize_t index
    Py_ssize_t at


cdef Py_ssize_t size_of(list buffers) except -1:
    """Return the size of ``buffers``, which are whole frames together, once each frame has a key."""
    cdef Py_buffer view
    cdef Py_ssize_t total = 0
    cdef int64_t missing = 0
    for buffer in buffers:
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            total += masked_size(<cbyte *>view.buf, view.len, &missing)
        finally:
            PyBuffer_Release(&view)
    if missing:
        raise ValueError(violations.NOT_FRAMES)
    return total


cdef Py_ssize_t mask_more(list buffers, Place *place, FrameMask *frame, byte *out, Py_ssize_t room) except -1:
    """Mask what comes behind ``place`` in ``buffers`` into ``out``, as far as there is room. Return its size."""
    cdef Py_buffer view
    cdef Py_ssize_t written = 0, used = 0
    while place.index < PyList_GET_SIZE(buffers):
        PyObject_GetBuffer(buffers[place.index], &view, PyBUF_SIMPLE)
        try:
            written += mask_next(
                frame, out + written, room - written, <cbyte *>view.buf + place.at, view.len - place.at, &used
            )
            place.at += used
            if place.at < view.len:
                break
        finally:
            PyBuffer_Release(&view)
        place.index += 1
        place.at = 0
    return written


cdef class MaskingTransport:
    """Transport that masks frames. See ``masking``."""

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
        cdef FrameMask frame
        cdef Py_ssize_t size, used, sent
        if type(data) is bytes and PyBytes_GET_SIZE(data) <= ON_STACK // 4:  # room for their keys
            frame.missing = 0
            size = masked_size(<cbyte *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &frame.missing)
            if frame.missing == 0 and self._past():
                mask_next(
                    &frame, memory, ON_STACK, <cbyte *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &used
                )
                sent = send_memory(self._fd, memory, size)
                if sent < size:
                    self._hand((<char *>memory)[sent:size])
                return
        self._write([data])

    def writelines(self, list_of_data, /):
        self._write(list(list_of_data))

    cdef _write(self, list buffers):
        """Mask whole frames, and write them. What the socket does not take goes to the transport."""
        cdef FrameMask frame
        cdef Place place
        cdef Py_ssize_t left = size_of(buffers), size = 0, sent = 0
        frame.missing = 0
        place.index = place.at = 0
        if self._past():
            while left:
                size = mask_more(buffers, &place, &frame, plumews_masked, PIECE)
                sent = send_memory(self._fd, plumews_masked, size)
                left -= sent
                if sent < size:
                    break
            if left == 0:
                return
        rest = PyBytes_FromStringAndSize(NULL, left)
        memcpy(PyBytes_AS_STRING(rest), plumews_masked + sent, size - sent)
        mask_more(buffers, &place, &frame, <byte *>PyBytes_AS_STRING(rest) + size - sent, left - (size - sent))
        self._hand(rest)

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
