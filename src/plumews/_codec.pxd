# Types and functions of _codec.pyx for the compiled short ways, modules named _*.pyx, which cimport them.

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

ctypedef uint8_t byte
ctypedef const uint8_t cbyte

cdef enum:
    CONTROL_PAYLOAD = 125
    LONGEST_HEADER = 14


@cython.final
@cython.no_gc
cdef class Loan:
    cdef object owner
    cdef byte *start
    cdef Py_ssize_t size
    cdef bint readonly
    cdef Py_ssize_t views


@cython.final
@cython.no_gc
cdef class SpareMemory:
    cdef object __weakref__
    cdef bytes message

    cdef void keep(self, object message) noexcept
    cdef object take(self, Py_ssize_t size, bint all_of_it)


@cython.final
cdef class Parser:
    # Flags and small numbers are bytes: an idle connection has one parser.
    # what a caller set
    cdef byte client
    cdef byte decode_text
    cdef byte allow_rsv1
    cdef byte size_bounded
    cdef byte frames_bounded
    cdef byte bare  # how the caller of the moment wants whole messages
    # how it ended
    cdef byte ended  # by a fault or a close frame: nothing is read any more
    # the frame that is arriving
    cdef byte in_frame  # the header was read, payload is missing
    cdef byte fin
    cdef byte opcode
    cdef byte head_size  # of a header that is not all there
    cdef byte control_size  # of the payload of a control frame
    # the message that is arriving
    cdef byte message  # its opcode, 0 between messages
    cdef byte compressed
    cdef byte mode
    cdef byte as_text
    cdef byte shy  # a view was still held when a message ended: its last byte will not come that way
    cdef byte head[LONGEST_HEADER]
    cdef readonly bint halted  # there are bytes that the last call did not read, or a fault
    cdef int ascii
    cdef readonly Py_ssize_t left  # their number
    cdef object fault
    cdef int64_t size_limit
    cdef int64_t frame_limit
    cdef int64_t slack  # what the events of one call of feed_messages() may take beyond their bytes
    cdef int64_t room  # of the call of the moment: what is left of it
    cdef int64_t remaining
    cdef uint32_t key  # for the next byte of payload
    cdef int utf8
    cdef int64_t frames
    cdef int64_t size  # bytes of payload received
    cdef byte *control  # payload of a control frame that comes in parts
    # those that were not delivered
    cdef PyObject *buffer  # the object that will be, ours alone: bytes, or a str that may turn out not to be ASCII
    cdef byte *memory  # where it has its bytes
    cdef Py_ssize_t capacity
    cdef Py_ssize_t held
    cdef SpareMemory spare  # of the event loop, None until a short way gives it
    # what receive_buffer() gave away of its memory
    cdef Loan loan
    cdef object view  # None when it was taken back

    # for short ways
    cdef object take_message(self, cbyte *data, Py_ssize_t size, Py_ssize_t *used, int *kind)
    cdef list feed_bytes(self, cbyte *data, Py_ssize_t size, bint bare)
    # for _codec.pyx alone
    cdef list fed(self, object data, bint bare, int64_t most)
    cdef int parse(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef Py_ssize_t plain_frames(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef int header(self, cbyte *data, Py_ssize_t size) except -1
    cdef int payload(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef int control_payload(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef int end_control(self, const char *payload, list events) except -1
    cdef void drop_control(self) noexcept
    cdef int single_frame(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef int text(self, cbyte *data, Py_ssize_t size, uint32_t key, list events) except -1
    cdef int deliver(self, list events, int kind, object payload) except -1
    cdef int collect(self, cbyte *data, Py_ssize_t size, list events) except -1
    cdef int end_message(self, list events) except -1
    cdef int begin_streaming(self, list events) except -1
    cdef void end(self) noexcept
    cdef int refuse(self, kind, str detail) except -1


cdef Py_ssize_t frame_header(byte *out, int first, Py_ssize_t length) noexcept nogil
cdef struct FrameMask:  # of the frame that is being masked
    int64_t missing  # bytes of its payload
    uint32_t key  # for the next of them


cdef Py_ssize_t masked_size(cbyte *data, Py_ssize_t size, int64_t *missing) except -1
cdef Py_ssize_t mask_next(
    FrameMask *frame, byte *out, Py_ssize_t room, cbyte *data, Py_ssize_t size, Py_ssize_t *used
) except -1
cdef object short_frame(int opcode, object message, bint masked)
cdef Py_ssize_t write_frame(byte *out, Py_ssize_t room, int opcode, object message, bint masked) except -2


cdef inline Py_ssize_t write_header(byte *out, int first, int64_t length, bint masked, uint32_t key) noexcept nogil:
    """Write a header to ``out``, which has room for the longest. Return its size."""
    cdef int high = 0x80 if masked else 0
    cdef Py_ssize_t size
    cdef int i
    out[0] = <byte>first
    if length <= 125:
        out[1] = <byte>(high | length)
        size = 2
    elif length <= 0xFFFF:
        out[1] = <byte>(high | 126)
        out[2] = <byte>(length >> 8)
        out[3] = <byte>(length & 0xFF)
        size = 4
    else:
        out[1] = <byte>(high | 127)
        for i in range(8):
            out[2 + i] = <byte>(length >> (56 - 8 * i) & 0xFF)
        size = 10
    if masked:
        memcpy(out + size, &key, 4)
        size += 4
    return size


cdef inline Py_ssize_t header_size(int64_t length, bint masked) noexcept nogil:
    """Return the size that :func:`write_header` returns."""
    return (2 if length <= 125 else 4 if length <= 0xFFFF else 10) + (4 if masked else 0)
