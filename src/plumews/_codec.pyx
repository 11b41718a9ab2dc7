# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, nonecheck=False
# cython: initializedcheck=False, auto_pickle=False, freethreading_compatible=True
"""The frame codec, compiled (layer 1).

RFC 6455 section 5 (framing), sections 5.5.1 and 7.4 (close payloads), section 8.1 and RFC 3629 (UTF-8).
Bytes in, events and bytes out: no I/O, no clock, one buffer fetch a call, no object that nobody asked for.
Invariants: same names, same results, same texts as ``_codec_py.py``, which has the docstrings that say why;
no read outside the given buffer, no pointer into it kept. Each call on an object holds that object's
critical section and runs no foreign code while its state is half changed, so threads may share it.
Import :mod:`plumews.codec` instead.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from . import faults
from .constants import is_valid_close_code
from .errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from .limits import COPY_SIZE as _COPY_SIZE
from .limits import FRAGMENT_SIZE as _FRAGMENT_SIZE

__all__ = ["Parser", "Utf8Validator", "build_frame", "build_header", "fragment", "mask", "mask_inplace"]

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **string, Py_ssize_t size) except -1
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    void PyObject_GC_UnTrack(object container)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 highest)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_AsUTF8String(object text)
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)

ctypedef unsigned char byte
ctypedef const unsigned char cbyte

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
    CONTROL_PAYLOAD = 125
    LONGEST_HEADER = 14

# What a parser does with the message that arrives, or is next to arrive.
cdef enum:
    WHOLE
    ARMED
    STREAMING

cdef Py_ssize_t COPY_SIZE = _COPY_SIZE


# --- masks (section 5.3) --------------------------------------------------------------------------
# A key is held as the four bytes that apply to the next byte of payload on, in memory order; 0 is no mask.


cdef inline uint32_t rotated(uint32_t key, Py_ssize_t offset) noexcept nogil:
    """The key for what begins ``offset`` bytes further on."""
    cdef byte old[4]
    cdef byte new[4]
    cdef int i
    if offset & 3:
        memcpy(old, &key, 4)
        for i in range(4):
            new[i] = old[(i + offset) & 3]
        memcpy(&key, new, 4)
    return key


cdef inline void xor(byte *out, cbyte *data, Py_ssize_t size, uint32_t key) noexcept nogil:
    """``size`` bytes of ``data`` under ``key`` into ``out``, which may be ``data`` itself."""
    cdef uint64_t wide, a, b
    cdef byte tail[8]
    cdef Py_ssize_t i = 0
    if key == 0:
        if out != data:
            memcpy(out, data, size)
        return
    wide = <uint64_t>key << 32 | key
    while size - i >= 16:
        memcpy(&a, data + i, 8)
        memcpy(&b, data + i + 8, 8)
        a ^= wide
        b ^= wide
        memcpy(out + i, &a, 8)
        memcpy(out + i + 8, &b, 8)
        i += 16
    if size - i >= 8:
        memcpy(&a, data + i, 8)
        a ^= wide
        memcpy(out + i, &a, 8)
        i += 8
    memcpy(tail, &wide, 8)
    while i < size:
        out[i] = data[i] ^ tail[i & 7]
        i += 1


cdef inline uint32_t key_of(object key) except? 0:
    """A mask key as a caller gave it, checked."""
    cdef uint32_t value
    if type(key) is not bytes:
        raise TypeError(faults.KEY_TYPE.format(type=type(key).__name__))
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(faults.KEY_LENGTH.format(length=len(key)))
    memcpy(&value, PyBytes_AS_STRING(key), 4)
    return value


# --- buffers --------------------------------------------------------------------------------------


cdef inline byte *start_of(object data) noexcept:
    """Where the bytes object ``data`` has its bytes."""
    return <byte *>PyBytes_AS_STRING(data)


cdef inline object new_bytes(Py_ssize_t size):
    """A bytes object that is still to be filled."""
    return PyBytes_FromStringAndSize(NULL, size)


cdef int fetch(object data, Py_buffer *view, int flags=PyBUF_SIMPLE) except -1:
    """The memory of ``data``, any contiguous buffer; release it after use."""
    if not PyObject_CheckBuffer(data):
        raise TypeError(faults.NOT_A_BUFFER.format(type=type(data).__name__))
    try:
        PyObject_GetBuffer(data, view, flags)
    except (BufferError, ValueError):  # in the exporter's words, if in any
        with memoryview(data) as shape:
            if not shape.c_contiguous:
                raise BufferError(faults.NOT_CONTIGUOUS) from None
            if flags == PyBUF_WRITABLE and shape.readonly:
                raise BufferError(faults.READ_ONLY) from None
        raise
    return 0


cdef object as_bytes(object data):
    """``data``, a buffer or text, as bytes; copied unless it is exactly that."""
    cdef Py_buffer view
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        return PyUnicode_AsUTF8String(data)
    fetch(data, &view)
    try:
        return PyBytes_FromStringAndSize(<char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def mask(data, key, offset=0):
    """``data`` masked or unmasked with the 4 bytes of ``key``, a copy; see :mod:`plumews.codec`."""
    cdef Py_buffer view
    cdef uint32_t word = rotated(key_of(key), PyNumber_Index(offset) & 3)
    if type(data) is bytes:
        result = new_bytes(PyBytes_GET_SIZE(data))
        xor(start_of(result), start_of(data), PyBytes_GET_SIZE(data), word)
        return result
    fetch(data, &view)
    try:
        result = new_bytes(view.len)
        xor(start_of(result), <cbyte *>view.buf, view.len, word)
        return result
    finally:
        PyBuffer_Release(&view)


def mask_inplace(data, key, offset=0):
    """The same as :func:`mask`, written back into ``data``, a writable contiguous buffer."""
    cdef Py_buffer view
    cdef uint32_t word = rotated(key_of(key), PyNumber_Index(offset) & 3)
    fetch(data, &view, PyBUF_WRITABLE)
    xor(<byte *>view.buf, <cbyte *>view.buf, view.len, word)
    PyBuffer_Release(&view)


# --- UTF-8 (section 8.1) --------------------------------------------------------------------------
# An automaton whose states are shifts: STEPS[byte] holds, six bits each, the state that follows each state.

cdef enum:
    BAD = 0  # and stays so
    DONE = 6  # between two characters
    NEED1 = 12  # inside one: this many more bytes
    NEED2 = 18
    NEED3 = 24
    AFTER_E0 = 30  # inside one: the next byte has a narrower range (RFC 3629 section 4)
    AFTER_ED = 36
    AFTER_F0 = 42
    AFTER_F4 = 48

cdef uint64_t STEPS[256]


cdef void let(int state, int low, int high, uint64_t then) noexcept:
    """In ``state`` a byte from ``low`` to ``high`` leads to ``then``."""
    cdef int value
    for value in range(low, high + 1):
        STEPS[value] |= then << state


let(DONE, 0x00, 0x7F, DONE)
let(DONE, 0xC2, 0xDF, NEED1)  # C0 and C1 would be overlong
let(DONE, 0xE0, 0xE0, AFTER_E0)
let(DONE, 0xE1, 0xEC, NEED2)
let(DONE, 0xED, 0xED, AFTER_ED)
let(DONE, 0xEE, 0xEF, NEED2)
let(DONE, 0xF0, 0xF0, AFTER_F0)
let(DONE, 0xF1, 0xF3, NEED3)
let(DONE, 0xF4, 0xF4, AFTER_F4)
let(NEED1, 0x80, 0xBF, DONE)
let(NEED2, 0x80, 0xBF, NEED1)
let(NEED3, 0x80, 0xBF, NEED2)
let(AFTER_E0, 0xA0, 0xBF, NEED1)  # below: overlong
let(AFTER_ED, 0x80, 0x9F, NEED1)  # above: surrogates
let(AFTER_F0, 0x90, 0xBF, NEED2)  # below: overlong
let(AFTER_F4, 0x80, 0x8F, NEED2)  # above: beyond U+10FFFF

cdef uint64_t HIGH_BITS = 0x8080808080808080


cdef Py_ssize_t scan(cbyte *data, Py_ssize_t size, int *state) noexcept nogil:
    """How many bytes of ``data`` come before the first impossible one; ``state`` goes along."""
    cdef uint64_t a, b
    cdef uint64_t now = state[0]
    cdef Py_ssize_t i = 0, stop
    while i < size:
        if now == DONE:
            while size - i >= 16:
                memcpy(&a, data + i, 8)
                memcpy(&b, data + i + 8, 8)
                if (a | b) & HIGH_BITS:
                    break
                i += 16
        stop = min(i + 16, size)
        while i < stop:
            now = STEPS[data[i]] >> now & 63
            if now == BAD:
                state[0] = BAD
                return i
            i += 1
    state[0] = <int>now
    return size


cdef inline bint is_ascii(cbyte *data, Py_ssize_t size, uint32_t key) noexcept nogil:
    """Whether ``data`` under ``key`` is ASCII."""
    cdef uint64_t a, b, found = 0
    cdef uint64_t wide = <uint64_t>key << 32 | key
    cdef byte tail[8]
    cdef Py_ssize_t i = 0
    while size - i >= 16:
        memcpy(&a, data + i, 8)
        memcpy(&b, data + i + 8, 8)
        found |= (a ^ wide) | (b ^ wide)
        i += 16
    memcpy(tail, &wide, 8)
    while i < size:
        found |= data[i] ^ tail[i & 7]
        i += 1
    return not found & HIGH_BITS


@cython.final
cdef class Utf8Validator:
    """Says of bytes that arrive in pieces whether they can still become valid UTF-8 (RFC 3629)."""

    cdef int state

    def __init__(self):
        self.state = DONE

    def feed(self, data):
        """False from the first byte on that no continuation could make valid, until :meth:`reset`."""
        cdef Py_buffer view
        fetch(data, &view)
        with cython.critical_section(self):
            if self.state != BAD:
                scan(<cbyte *>view.buf, view.len, &self.state)
            good = self.state != BAD
        PyBuffer_Release(&view)
        return good

    @property
    def complete(self):
        """Whether what was fed is valid as it stands: not inside a character, and never false."""
        return self.state == DONE

    def reset(self):
        """Begin again."""
        self.state = DONE


# --- building (section 5.2) -----------------------------------------------------------------------


cdef inline long long saturated(object number) except? -1:
    """An int; at the ends of its range if it is beyond them."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        value = INT64_MAX if overflow > 0 else -INT64_MAX
    return value


cdef inline int opcode_of(object opcode) except -1:
    """An opcode as a caller gave it, checked."""
    cdef long long value = saturated(opcode)
    if not 0 <= value <= 15:
        raise ValueError(faults.OPCODE.format(opcode=opcode))
    return <int>value


cdef inline Py_ssize_t write_header(byte *out, int first, int64_t length, bint masked, uint32_t key) noexcept nogil:
    """A header into ``out``, which has room for the longest; its size."""
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


cdef object frame(int first, cbyte *data, Py_ssize_t size, bint masked, uint32_t key):
    """A frame as one bytes object."""
    cdef byte header[LONGEST_HEADER]
    cdef Py_ssize_t used = write_header(header, first, size, masked, key)
    result = new_bytes(used + size)
    memcpy(start_of(result), header, used)
    xor(start_of(result) + used, data, size, key)
    return result


def build_header(opcode, length, *, bint fin=True, bint rsv1=False, mask_key=None):
    """The header of a frame with ``length`` bytes of payload; with the key, if one is given."""
    cdef byte header[LONGEST_HEADER]
    cdef int first = opcode_of(opcode) | fin << 7 | rsv1 << 6
    cdef int overflow = 0
    cdef long long size = PyLong_AsLongLongAndOverflow(length, &overflow)
    if overflow or size < 0:
        raise ValueError(faults.LENGTH.format(length=length))
    cdef uint32_t key = 0 if mask_key is None else key_of(mask_key)
    return PyBytes_FromStringAndSize(<char *>header, write_header(header, first, size, mask_key is not None, key))


def build_frame(opcode, payload, *, bint fin=True, bint rsv1=False, mask_key=None):
    """A frame with ``payload``: any contiguous buffer, or a str, which is encoded as UTF-8."""
    cdef Py_buffer view
    cdef int first
    cdef uint32_t key
    cdef bint masked = mask_key is not None
    if isinstance(payload, str) and not PyUnicode_IS_COMPACT_ASCII(payload):
        payload = PyUnicode_AsUTF8String(payload)
    if type(payload) is bytes or isinstance(payload, str):
        first = opcode_of(opcode) | fin << 7 | rsv1 << 6
        key = key_of(mask_key) if masked else 0
        if type(payload) is bytes:
            return frame(first, start_of(payload), PyBytes_GET_SIZE(payload), masked, key)
        return frame(first, <cbyte *>PyUnicode_DATA(payload), PyUnicode_GET_LENGTH(payload), masked, key)
    fetch(payload, &view)
    try:
        first = opcode_of(opcode) | fin << 7 | rsv1 << 6
        key = key_of(mask_key) if masked else 0
        return frame(first, <cbyte *>view.buf, view.len, masked, key)
    finally:
        PyBuffer_Release(&view)


def fragment(opcode, payload, *, size=_FRAGMENT_SIZE, mask=None, bint rsv1=False):
    """The frames of one message, as buffers to write in this order (section 5.4)."""
    cdef byte header[LONGEST_HEADER]
    cdef Py_ssize_t start = 0, total, step, take
    cdef int kind = <int>min(max(saturated(opcode), -1), 16)
    cdef long long most = saturated(size)
    cdef int first
    cdef uint32_t key = 0
    cdef bint copied
    cdef list buffers = []
    if kind != TEXT and kind != BINARY:
        raise ValueError(faults.DATA_OPCODE.format(opcode=opcode))
    if most < 1:
        raise ValueError(faults.SIZE.format(size=size))
    data = as_bytes(payload)
    total = PyBytes_GET_SIZE(data)
    step = <Py_ssize_t>min(most, <long long>max(total, 1))
    copied = total <= COPY_SIZE
    view = None
    while True:
        take = min(step, total - start)
        first = kind | rsv1 << 6 | (0x80 if start + take == total else 0)
        if mask is not None:
            key = key_of(mask())
        if copied or mask is not None:
            buffers.append(frame(first, start_of(data) + start, take, mask is not None, key))
        else:
            buffers.append(PyBytes_FromStringAndSize(<char *>header, write_header(header, first, take, False, 0)))
            if take == total:
                buffers.append(data)
            else:
                if view is None:
                    view = memoryview(data)
                buffers.append(view[start:start + take])
        start += take
        if start == total:
            break
        kind, rsv1 = CONT, False
    return [b"".join(buffers)] if copied and len(buffers) > 1 else buffers


# --- parsing (sections 5.2 to 5.5) ----------------------------------------------------------------


cdef inline int report(list events, int kind, object payload) except -1:
    """One event. A tuple that can be in no cycle is nothing to the garbage collector: it saves a third here."""
    event = (kind, payload)
    PyObject_GC_UnTrack(event)
    events.append(event)
    return 0


cdef int64_t bound_of(str name, object value, int least) except? -1:
    """A limit as a caller gave it, checked; the largest number for ``None``."""
    cdef int overflow = 0
    cdef long long number
    if value is None:
        return INT64_MAX
    if not isinstance(value, int):
        raise TypeError(faults.BOUND_TYPE.format(name=name, type=type(value).__name__))
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < least:
        raise ValueError(faults.BOUND.format(name=name, least=least, value=value))
    return number


@cython.final
cdef class Parser:
    """Turns the bytes that a peer sent into messages and control frames; see :mod:`plumews.codec`."""

    # what a caller set
    cdef bint client
    cdef bint decode_text
    cdef bint allow_rsv1
    cdef bint size_bounded
    cdef bint frames_bounded
    cdef int64_t size_limit
    cdef int64_t frame_limit
    # how it ended
    cdef bint ended  # by a fault or a close frame: nothing is read any more
    cdef object fault
    # the frame that is arriving
    cdef bint in_frame  # the header was read, payload is missing
    cdef bint fin
    cdef int opcode
    cdef uint32_t key  # for the next byte of payload
    cdef int64_t remaining
    cdef int head_size  # of a header that is not all there
    cdef int control_size  # of the payload of a control frame
    cdef byte head[LONGEST_HEADER]
    cdef byte control[CONTROL_PAYLOAD]
    # the message that is arriving
    cdef int message  # its opcode, 0 between messages
    cdef bint compressed
    cdef int mode
    cdef int utf8
    cdef int64_t frames
    cdef int64_t size  # bytes of payload received
    cdef PyObject *buffer  # a bytes object of ours alone, with those that were not delivered
    cdef Py_ssize_t capacity
    cdef Py_ssize_t held

    def __cinit__(self):
        self.buffer = NULL
        self.utf8 = DONE

    def __init__(self, *, bint client, max_size, max_frames=None, bint decode_text=True, bint allow_rsv1=False):
        self.client = client
        self.decode_text = decode_text
        self.allow_rsv1 = allow_rsv1
        self.max_size = max_size
        self.max_frames = max_frames

    def __dealloc__(self):
        Py_XDECREF(self.buffer)

    # --- what a caller sees -----------------------------------------------------------------------

    def feed(self, data):
        """The events that ``data``, the next bytes of the connection, completes, in order."""
        cdef Py_buffer view
        cdef list events = []
        if self.ended:
            return events
        if type(data) is bytes:
            with cython.critical_section(self):
                self.parse(start_of(data), PyBytes_GET_SIZE(data), events)
            return events
        fetch(data, &view)
        try:
            with cython.critical_section(self):
                self.parse(<cbyte *>view.buf, view.len, events)
        finally:
            PyBuffer_Release(&view)
        return events

    def start_streaming(self):
        """Deliver the message that is arriving, or the next one, while it arrives."""
        cdef list events = []
        with cython.critical_section(self):
            if self.mode == WHOLE:
                if self.message == 0 or self.ended:
                    self.mode = ARMED
                else:
                    self.begin_streaming(events)
                    if self.held:
                        report(events, CHUNK, self.take_buffer())
                return events
        raise ValueError(faults.STREAMING_ALREADY)

    def stop_streaming(self):
        """Take :meth:`start_streaming` back. False if it is too late: BEGIN was delivered, END was not."""
        with cython.critical_section(self):
            if self.mode == STREAMING:
                return False
            self.mode = WHOLE
        return True

    @property
    def error(self):
        """What the peer did wrong; its ``close_code`` is the one to close with."""
        with cython.critical_section(self):
            return self.fault

    @property
    def max_size(self):
        """The most bytes of payload in one message; ``None`` is no bound. A change holds from the next header on."""
        return self.size_limit if self.size_bounded else None

    @max_size.setter
    def max_size(self, value):
        self.size_limit = bound_of("max_size", value, 0)
        self.size_bounded = value is not None

    @property
    def max_frames(self):
        """The most frames in one message; ``None`` is no bound. A change holds from the next header on."""
        return self.frame_limit if self.frames_bounded else None

    @max_frames.setter
    def max_frames(self, value):
        self.frame_limit = bound_of("max_frames", value, 1)
        self.frames_bounded = value is not None

    @property
    def buffered(self):
        """Bytes held: of an unfinished header, control frame and message."""
        return self.head_size + self.control_size + self.held

    @property
    def mid_message(self):
        """Whether a frame or a message is unfinished: at the end of the connection, that it was cut."""
        return self.head_size != 0 or self.in_frame or self.message != 0

    @property
    def streaming(self):
        """Whether the message that is arriving, or the next one, is streamed."""
        return self.mode != WHOLE

    # --- frames -----------------------------------------------------------------------------------

    cdef int parse(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Take ``data`` apart until its end, a fault or a close frame."""
        cdef cbyte *end = data + size
        cdef Py_ssize_t take, used
        while data < end and not self.ended:
            if not self.in_frame:
                if self.head_size:
                    take = min(<Py_ssize_t>(LONGEST_HEADER - self.head_size), end - data)
                    memcpy(self.head + self.head_size, data, take)
                    used = self.header(self.head, self.head_size + take)
                    if self.ended:
                        return 0
                    if used == 0:
                        self.head_size += <int>take
                        return 0
                    data += used - self.head_size
                    self.head_size = 0
                else:
                    used = self.header(data, end - data)
                    if self.ended:
                        return 0
                    if used == 0:
                        self.head_size = <int>(end - data)
                        memcpy(self.head, data, self.head_size)
                        return 0
                    data += used
                if not self.opcode & 8:
                    if self.fin and self.opcode and not self.mode and self.remaining <= end - data:
                        take = <Py_ssize_t>self.remaining
                        self.single_frame(data, take, events)
                        data += take
                        continue
                    if self.opcode:
                        self.message = self.opcode
                        if self.mode:
                            self.begin_streaming(events)
                    self.frames += 1
                self.in_frame = True
            take = <Py_ssize_t>min(self.remaining, <int64_t>(end - data))
            self.payload(data, take, events)
            data += take
        return 0

    cdef int header(self, cbyte *data, Py_ssize_t size) except -1:
        """Read and judge a header: its size, 0 if it is not all there; 1 after a fault (section 5.2)."""
        cdef int first = data[0]
        cdef int opcode = first & 0x0F
        cdef int second, used = 2, i
        cdef uint64_t length
        if first & 0x70:
            if first & 0x30 or not self.allow_rsv1:
                return self.refuse(ProtocolError, faults.RESERVED_BITS)
            if opcode != TEXT and opcode != BINARY:
                return self.refuse(ProtocolError, faults.RSV1_MISPLACED)
        if not KNOWN_OPCODES >> opcode & 1:
            return self.refuse(ProtocolError, faults.RESERVED_OPCODE.format(opcode=opcode))
        if opcode & 8:
            if not first & 0x80:
                return self.refuse(ProtocolError, faults.FRAGMENTED_CONTROL)
        elif opcode == CONT and self.message == 0:
            return self.refuse(ProtocolError, faults.STRAY_CONTINUATION)
        elif opcode != CONT and self.message != 0:
            return self.refuse(ProtocolError, faults.INTERLEAVED_MESSAGE)
        elif self.frames >= self.frame_limit:
            return self.refuse(TooManyFragments, faults.TOO_MANY_FRAMES.format(limit=self.frame_limit))
        if size < 2:
            return 0

        second = data[1]
        if (second & 0x80 != 0) == self.client:
            return self.refuse(ProtocolError, faults.MASKED if self.client else faults.UNMASKED)
        length = second & 0x7F
        if length > 125:
            if opcode & 8:
                return self.refuse(ProtocolError, faults.CONTROL_TOO_LARGE)
            used = 4 if length == 126 else 10
            if size < used:
                return 0
            length = 0
            for i in range(2, used):
                length = length << 8 | data[i]
            if length < (126 if used == 4 else 0x10000):
                return self.refuse(ProtocolError, faults.LENGTH_NOT_MINIMAL)
            if length > INT64_MAX:
                return self.refuse(ProtocolError, faults.LENGTH_TOP_BIT)
        if not opcode & 8 and <int64_t>length > self.size_limit - self.size:
            return self.refuse(
                PayloadTooBig, faults.TOO_BIG.format(length=length, have=self.size, limit=self.size_limit)
            )

        self.key = 0
        if not self.client:
            if size < used + 4:
                return 0
            memcpy(&self.key, data + used, 4)
            used += 4
        if TEXT <= opcode <= BINARY:
            self.compressed = first & 0x40 != 0
        self.opcode = opcode
        self.fin = first & 0x80 != 0
        self.remaining = <int64_t>length
        return used

    cdef int payload(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """``data`` is payload of the frame that is arriving, maybe its last."""
        if self.opcode & 8:
            xor(self.control + self.control_size, data, size, self.key)
            self.control_size += <int>size
        else:
            self.collect(data, size, events)
        self.key = rotated(self.key, size)
        self.remaining -= size
        if self.remaining == 0 and not self.ended:
            self.in_frame = False
            if self.opcode & 8:
                self.end_control(events)
            elif self.fin:
                self.end_message(events)
        return 0

    cdef int end_control(self, list events) except -1:
        """A control frame is complete (section 5.5)."""
        cdef char *payload = <char *>self.control
        cdef int size = self.control_size, code
        self.control_size = 0
        if self.opcode != CLOSE:
            report(events, self.opcode, PyBytes_FromStringAndSize(payload, size))
            return 0
        if size == 0:
            events.append((CLOSE, (1005, "")))
            self.end()
            return 0
        if size == 1:
            return self.refuse(ProtocolError, faults.CLOSE_ONE_BYTE)
        code = self.control[0] << 8 | self.control[1]
        if not is_valid_close_code(code):
            return self.refuse(ProtocolError, faults.CLOSE_CODE.format(code=code))
        try:
            reason = PyUnicode_DecodeUTF8(payload + 2, size - 2, NULL)
        except UnicodeDecodeError:
            reason = None
        if reason is None:
            return self.refuse(InvalidData, faults.CLOSE_REASON_NOT_UTF8)
        events.append((CLOSE, (code, reason)))
        self.end()
        return 0

    # --- messages ---------------------------------------------------------------------------------

    cdef int single_frame(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """A message in one frame that is all there goes straight into the object that is delivered."""
        cdef int state = DONE
        cdef cbyte *clear = data
        payload = None
        if self.opcode == TEXT and not self.compressed:
            if self.decode_text:
                if is_ascii(data, size, self.key):
                    payload = PyUnicode_New(size, 127)
                    xor(<byte *>PyUnicode_DATA(payload), data, size, self.key)
                    report(events, TEXT, payload)
                    return 0
                if self.key:
                    payload = new_bytes(size)
                    clear = start_of(payload)
                    xor(<byte *>clear, data, size, self.key)
                try:
                    report(events, TEXT, PyUnicode_DecodeUTF8(<const char *>clear, size, NULL))
                    return 0
                except UnicodeDecodeError:
                    pass  # scan says more exactly what is wrong
            else:
                payload = new_bytes(size)
                clear = start_of(payload)
                xor(<byte *>clear, data, size, self.key)
            if scan(clear, size, &state) < size:
                return self.refuse(InvalidData, faults.TEXT_NOT_UTF8)
            if state != DONE:
                return self.refuse(InvalidData, faults.TEXT_CUT)
            report(events, TEXT, payload)
        else:
            payload = new_bytes(size)
            xor(start_of(payload), data, size, self.key)
            if self.compressed:
                report(events, self.opcode | COMPRESSED, payload)
            else:
                report(events, BINARY, payload)
        return 0

    cdef int collect(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """``data`` belongs to the message that is arriving."""
        cdef Py_ssize_t good = size
        cdef byte *out
        if size == 0:
            return 0
        if self.mode:
            piece = new_bytes(size)
            out = start_of(piece)
        else:
            self.reserve(size)
            out = start_of(<object>self.buffer) + self.held
        xor(out, data, size, self.key)
        if self.message == TEXT and not self.compressed:
            good = scan(out, size, &self.utf8)
        self.size += size
        if not self.mode:
            self.held += size
        elif good == size:
            report(events, CHUNK, piece)
        elif good:
            report(events, CHUNK, piece[:good])
        if good < size:
            return self.refuse(InvalidData, faults.TEXT_NOT_UTF8)
        return 0

    cdef int end_message(self, list events) except -1:
        """The last frame of a message is complete."""
        cdef int kind = self.message | (COMPRESSED if self.compressed else 0)
        if self.utf8 != DONE:
            return self.refuse(InvalidData, faults.TEXT_CUT)
        if self.mode:
            report(events, END, None)
            self.mode = WHOLE
        else:
            payload = self.take_buffer()
            if kind == TEXT and self.decode_text:
                payload = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), NULL)
            report(events, kind, payload)
        self.message = 0
        self.frames = self.size = 0
        return 0

    cdef int begin_streaming(self, list events) except -1:
        self.mode = STREAMING
        report(events, BEGIN, self.message | (COMPRESSED if self.compressed else 0))
        return 0

    cdef int reserve(self, Py_ssize_t size) except -1:
        """Room for ``size`` more bytes: twice what has arrived then, but no more than can still come."""
        cdef Py_ssize_t needed = self.held + size
        cdef int64_t spare
        if needed <= self.capacity:
            return 0
        if self.fin:
            spare = self.remaining - size
        else:
            spare = max(self.size_limit - needed, 0)
        needed += <Py_ssize_t>min(spare, <int64_t>needed)
        if self.buffer == NULL:
            fresh = new_bytes(needed)
            Py_INCREF(fresh)
            self.buffer = <PyObject *>fresh
            self.capacity = needed
        else:
            self.resize(needed)
        return 0

    cdef int resize(self, Py_ssize_t capacity) except -1:
        """Another capacity for the buffer, which is lost if there is no memory for it."""
        cdef Py_ssize_t held = self.held
        self.held = self.capacity = 0
        _PyBytes_Resize(&self.buffer, capacity)
        self.held = held
        self.capacity = capacity
        return 0

    cdef object take_buffer(self):
        """What was collected of the message, without a copy. It is the parser's no longer."""
        if self.held == 0:
            return b""
        if self.capacity != self.held:
            self.resize(self.held)
        result = <object>self.buffer
        Py_DECREF(result)
        self.buffer = NULL
        self.held = self.capacity = 0
        return result

    # --- the end ----------------------------------------------------------------------------------

    cdef void end(self) noexcept:
        """Nothing is read after this; nothing is held for it."""
        self.ended = True
        self.in_frame = False
        self.head_size = self.control_size = 0
        self.held = self.capacity = 0
        Py_XDECREF(self.buffer)
        self.buffer = NULL

    cdef int refuse(self, kind, str detail) except -1:
        """A fault: of class ``kind``, said by ``detail``. Returns 1."""
        self.end()
        self.message = 0
        self.fault = kind(detail)
        return 1
