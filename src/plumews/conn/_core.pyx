# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, nonecheck=False
# cython: initializedcheck=False, binding=False, auto_pickle=False
"""Compiled short ways of a connection: whole messages in one frame, read, delivered, and answered on a plain socket.

A short way handles the common case and hands everything else, unchanged, to the general way in ``core`` and
``transport.channel``. It has no policy of its own. It writes to the descriptor only while the event loop runs a read or
a flush of ours: then no transport of the loop has closed its socket without a call of ``connection_lost``.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.list cimport PyList_GET_SIZE

import asyncio

from .. import limits
from . import closing

from .._codec cimport Parser, cbyte, short_frame, write_frame
from ..transport._sendmsg cimport send_buffers, send_memory
from ..transport.channel cimport Channel
from ..transport.loop_context cimport LoopContext
from ..transport.read_waiter cimport ReadWaiter
from ..transport.send_queue cimport SendQueue
from .core cimport ConnCore
from .receive_queue cimport ReceiveQueue

__all__ = ["ShortWays"]

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030D0000
    static double plumews_monotonic(void)
    {
        PyTime_t now;
        return PyTime_MonotonicRaw(&now) < 0 ? 0.0 : (double)now * 1e-9;
    }
    #else
    #define plumews_monotonic() ((double)_PyTime_GetMonotonicClock() * 1e-9)
    #endif
    """
    double plumews_monotonic()
    unsigned long PyThread_get_thread_ident()
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyObject_CallFunctionObjArgs(object function, ...)

cdef enum:
    TEXT = 1
    BINARY = 2
    STRIDE = 4  # messages between two looks at the clock, as in `core`
    ON_STACK = 4096  # bytes of a frame that is built without an object

#: A read of this size announces a large message.
cdef Py_ssize_t LARGE_READ = 32 * 1024
cdef double SLICE = limits.FAN_OUT_SLICE
cdef object CancelledError = asyncio.CancelledError


cdef class ShortWays(ConnCore):
    """Connection with short ways."""

    # --- reading ----------------------------------------------------------------------------------

    def buffer_updated(self, nbytes):
        """See :meth:`ConnCore.buffer_updated`."""
        cdef Py_ssize_t size = nbytes
        try:
            if (
                self._open
                and not self._lent
                and not self._ended
                and self._handshake is None
                and self._rest is None
                and self._backlog is None
                and self._filter is None
                and self._deflate is None
                and size < LARGE_READ
            ):
                self._read_messages(size)
            else:
                self._read(size)
        except BaseException as exc:
            closing.fail(self, exc)

    cdef _read_messages(self, Py_ssize_t size):
        """Handle the messages at the head of a read, and leave the rest to the general way."""
        cdef LoopContext state = self._state
        cdef cbyte *data = <cbyte *>PyByteArray_AS_STRING(state.buffer)
        cdef Parser parser = <Parser>self._rules.parser
        cdef Py_ssize_t at = 0
        self._keepalive.last_received = plumews_monotonic() if state.plain_clock else self._loop.time()
        self._in_batch = state.in_batch = True
        if not state.in_slice:
            state.awaits_left = state.awaits_per_check
        try:
            if self._on_message is not None:
                if self._context is None or self._in_context:
                    at = self._call_back(parser, data, size)
                else:
                    PyContext_Enter(self._context)
                    self._in_context = True
                    try:
                        at = self._call_back(parser, data, size)
                    finally:
                        self._in_context = False
                        PyContext_Exit(self._context)
            else:
                at = self._put(parser, data, size)
            if at < size:
                self._parse_rest(parser, at, size)
            else:
                self._inbox.wake_now()  # the reader's replies leave with this read
        finally:
            if self._queue is not None or self._drains is not None:
                self._flush()
            self._in_batch = state.in_batch = state.ends_read = False
            if state.slice_ends_with_batch:
                state.end_batch()
        if self._on_message is None or self._reading_paused:
            self._update_reading()

    cdef Py_ssize_t _call_back(self, Parser parser, cbyte *data, Py_ssize_t size) except -1:
        """Call back for each message. Return the number of bytes read, fewer if something else comes, or time is up."""
        cdef Py_ssize_t at = 0, used = 0
        cdef int kind = 0, count = 0
        cdef double until = 0.0
        cdef LoopContext state = self._state
        while at < size:
            message = parser.take_message(data + at, size - at, &used, &kind)
            if used == 0:
                return at
            at += used
            if self._filter is not None or self._on_message is None:
                self._deliver(kind, message)
            elif self._open:
                state.ends_read = at == size
                try:
                    self._on_message(self, message)
                except (Exception, CancelledError) as exc:
                    if self._on_failure is not None:
                        self._on_failure(self, exc)
            if at < size:
                if count == 0:
                    until = plumews_monotonic() + SLICE if count == 0 and until == 0.0 else until
                elif count % STRIDE == 0 and plumews_monotonic() >= until:
                    return at
                count += 1
        return at

    cdef Py_ssize_t _put(self, Parser parser, cbyte *data, Py_ssize_t size) except -1:
        """Put messages into the receive queue while it has room. Return the number of bytes read."""
        cdef Py_ssize_t at = 0, used = 0, room = self._inbox.room()
        cdef int kind = 0
        while at < size and room > 0:
            message = parser.take_message(data + at, size - at, &used, &kind)
            if used == 0:
                break
            at += used
            room -= 1
            self._inbox.put((kind, message))
        return at

    cdef _parse_rest(self, Parser parser, Py_ssize_t at, Py_ssize_t size):
        """Leave the bytes from ``at`` on to the general way."""
        cdef LoopContext state = self._state
        state.ends_read = False
        if self._ended:
            return
        events = parser.feed_bytes(<cbyte *>PyByteArray_AS_STRING(state.buffer) + at, size - at, True)
        if parser.halted:
            self._halted(state.view[at:size])
        self._take_up(events)
        self._in_batch = state.in_batch = True

    # --- sending ----------------------------------------------------------------------------------

    cdef bint _queue_now(self, message) except -1:
        """See :meth:`ConnCore._queue_now`."""
        cdef unsigned char frame[ON_STACK]
        cdef Py_ssize_t size, sent
        cdef int opcode
        cdef SendQueue queue
        if not self._open or PyThread_get_thread_ident() != self._thread:
            return ConnCore._queue_now(self, message)
        if type(message) is str:
            opcode, size = TEXT, PyUnicode_GET_LENGTH(message) << 2  # a character has up to four bytes
        elif type(message) is bytes:
            opcode, size = BINARY, PyBytes_GET_SIZE(message)
        else:
            return ConnCore._queue_now(self, message)
        if size > self._quick_size or self._catch_up_hooks is not None or self._waiters is not None or self._in_pieces:
            return ConnCore._queue_now(self, message)
        queue = self._queue
        if queue is None and self._state.ends_read and self._in_batch and self._is_clear():
            size = write_frame(frame, ON_STACK, opcode, message, False)
            if size > 0:
                self._state.ends_read = False  # a second message leaves with those behind it, at the end of the read
                sent = send_memory(self._fd, frame, size)
                if sent == size:
                    self._written += size
                    return True
                return self._try_queue(frame[:size]) if sent == 0 else self._queue_part(frame[:size], sent)
        data = short_frame(opcode, message, False)
        size = PyBytes_GET_SIZE(data)
        if queue is None:
            queue = self._queue = self._state.lend_queue(self._most_messages, self._most_bytes)
        elif not queue.has_space(size):
            return self._try_queue(data) and self._kicked()
        queue.messages.append(data)
        queue.bytes += size
        if self._paused:
            queue.date()
        if not self._in_batch:
            ConnCore._kick(self)
        return True

    cdef bint _kicked(self) except -1:
        if not self._in_batch:
            ConnCore._kick(self)
        return True

    cdef bint _queue_part(self, bytes frame, Py_ssize_t sent) except -1:
        """Give the rest of ``frame``, of which the socket took ``sent`` bytes, to the transport."""
        self._fill().append(frame, len(frame))
        self._cut(self._queue, self._queue.plan_all(), sent)
        return True
