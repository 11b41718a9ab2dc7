# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, nonecheck=False
# cython: initializedcheck=False, auto_pickle=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Frame codec, compiled.

RFC 6455 section 5 (framing), sections 5.5.1 and 7.4 (close payloads), section 8.1 and RFC 3629 (UTF-8).
Bytes in, events and bytes out: no I/O, no clock, one buffer fetch a call.
Invariants: names, results and texts are those of ``protocol/pure``, whose docstrings say why; no read outside the given
buffer, no pointer into it kept. Functions are builtins (``binding=False``), which Python calls 20 ns
faster than Cython's own; their signatures stand in the text that ``inspect`` reads. Each call on an object holds that
object's critical section and runs no foreign code while its state is half changed, so threads may share it. One
interpreter of a process may have it: in a second one the import fails. Import :mod:`plumews.protocol.codec` instead.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import os

from . import violations
from .constants import is_valid_close_code
from .errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from .limits import COPY_SIZE as _COPY_SIZE
from .limits import FRAGMENT_SIZE as _FRAGMENT_SIZE
from .limits import READ_LIMIT as _READ_LIMIT

__all__ = [
    "Parser",
    "Utf8Validator",
    "build_batch",
    "build_frame",
    "build_header",
    "fragment",
    "mask",
    "mask_frames",
    "mask_inplace",
    "new_mask",
]

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030E0000
    #define plumews_is_alone(object) PyUnstable_Object_IsUniquelyReferenced(object)
    #elif defined(Py_GIL_DISABLED)
    #define plumews_is_alone(object) 0
    #else
    #define plumews_is_alone(object) (Py_REFCNT(object) == 1)
    #endif
    """
    bint plumews_is_alone(PyObject *object)

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **string, Py_ssize_t size) except -1
    int PyUnicode_Resize(PyObject **text, Py_ssize_t size) except -1
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    void PyObject_GC_UnTrack(object container)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 highest)
    void *PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_AsUTF8String(object text)
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)

cdef extern from "protocol/csrc/kernels.h" nogil:
    ctypedef struct plumews_kernels:
        const char *name
        int (*mask)(byte *out, cbyte *data, size_t size, uint32_t key) noexcept nogil
    const plumews_kernels *plumews_now
    void plumews_begin()
    const plumews_kernels *plumews_tier(int number)
    uint32_t plumews_rotated(uint32_t key, size_t offset)
    enum:
        BAD "PLUMEWS_BAD"  # and stays so
        DONE "PLUMEWS_DONE"  # between two characters
    size_t plumews_scan(cbyte *data, size_t size, int *state)
    size_t plumews_mask_scan(byte *out, cbyte *data, size_t size, uint32_t key, int *state, int *ascii)
    size_t plumews_survey(cbyte *data, size_t size, uint32_t key, int *state, size_t *count, byte *highest)
    void plumews_decode(void *out, int width, size_t room, cbyte *data, size_t size, uint32_t key)

# constants.Opcode, .StreamEvent and .COMPRESSED, as C knows them.
cdef enum:
    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    BEGIN = 16
    CHUNK = 17
    END = 18
    COMPRESSED = 0x40

cdef enum:
    KNOWN_OPCODES = 1 << CONT | 1 << TEXT | 1 << BINARY | 1 << CLOSE | 1 << PING | 1 << PONG
    RECEIVED_OVERHEAD = 128  # as in limits

cdef Py_ssize_t COPY_SIZE = _COPY_SIZE
cdef Py_ssize_t AT_ONCE = _READ_LIMIT  # what receive_buffer() reserves for a message before its bytes are there

plumews_begin()

include "protocol/pxi/memory.pxi"
include "protocol/pxi/masking.pxi"
include "protocol/pxi/text.pxi"
include "protocol/pxi/frames.pxi"
include "protocol/pxi/message_buffer.pxi"
include "protocol/pxi/parser.pxi"


# --- for tests: what the kernels in csrc/ are made of -----------------------------------------------


def _tiers():
    """Return the instruction tiers of this CPU, the plainest first, the best last."""
    cdef int number = 0
    names = []
    while plumews_tier(number) != NULL:
        names.append(plumews_tier(number).name.decode())
        number += 1
    return names


def _tier():
    """Return the tier in use."""
    return plumews_now.name.decode()


def _set_tier(name):
    """Use another tier in the whole process. No other thread may run the codec meanwhile."""
    global plumews_now
    cdef int number = 0
    while plumews_tier(number) != NULL:
        if plumews_tier(number).name.decode() == name:
            plumews_now = plumews_tier(number)
            return
        number += 1
    raise ValueError(f"this CPU has the tiers {', '.join(_tiers())}, not {name!r}")


# --- for tests: what compiled short ways call -------------------------------------------------------


def _take_message(Parser parser, bytes data):
    """Return ``(payload, kind, used)`` of :meth:`Parser.take_message`."""
    cdef Py_ssize_t used = 0
    cdef int kind = 0
    payload = parser.take_message(start_of(data), PyBytes_GET_SIZE(data), &used, &kind)
    return payload, kind, used


def _short_frame(int opcode, message, bint masked=False):
    """Return the frame of :func:`short_frame`."""
    return short_frame(opcode, message, masked)


def _write_frame(Py_ssize_t room, int opcode, message, bint masked=False):
    """Return what :func:`write_frame` returns, and the memory that it was given, with 16 zeros behind the room."""
    memory = bytearray(room + 16)
    size = write_frame(<byte *>PyByteArray_AS_STRING(memory), room, opcode, message, masked)
    return size, bytes(memory)
