# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, nonecheck=False
# cython: initializedcheck=False, binding=False, auto_pickle=False
"""Compiled short ways of a connection: whole messages in one frame, read and delivered, and awaitables used again.

A short way handles the common case and hands everything else, unchanged, to the general way in ``core``. It has no
policy of its own. Those of sending are in ``pxi/sending.pxi``, that of a close frame in ``_closing``.
"""

import asyncio
import sys
from contextvars import Context
from weakref import ref

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.list cimport PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.string cimport memcpy

from .. import limits
from ..protocol.message import encode
from ..transport import send_queue
from ..transport.tls import TLSTransport
from . import closing, receive_backlog

from .._codec cimport (
    LONGEST_HEADER, Parser, SpareMemory, byte, cbyte, frame_header, header_size, short_frame, write_frame, write_header
)
from ..protocol.message cimport EncodedMessage
from ..transport._sendmsg cimport iovec, send_buffers, send_memory, send_pieces
from ..transport.channel cimport Channel, flag
from ..transport.loop_context cimport LoopContext
from ..transport.read_waiter cimport ReadWaiter
from ..transport.send_queue cimport SendQueue
from ..transport.tls cimport TLSCore
from ._closing cimport answer_close, lost
from .awaitables cimport MessageChannel, NextMessage, SendMessage
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

    /* Call function(conn, message). Return -1 with its exception set, else 0. */
    static int plumews_call(PyObject *function, PyObject *conn, PyObject *message)
    {
        PyObject *arguments[3] = {NULL, conn, message}, *result;
        Py_INCREF(function);  /* the call may replace it */
        result = PyObject_Vectorcall(function, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(function);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }

    /* Raise the exception that is set. */
    #define plumews_raised() ((PyObject *)NULL)
    """
    double plumews_monotonic()
    int plumews_call(object function, object conn, object message)
    object plumews_raised()
    unsigned long PyThread_get_thread_ident()
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t index)
    object PyObject_CallOneArg(object function, object argument)
    Py_ssize_t Py_REFCNT(object counted)
    bint PyCFunction_Check(object function)
    PyObject *PyCFunction_GET_SELF(object function)

cdef enum:
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    STRIDE = 4  # messages between two looks at the clock, as in `core`
    WAKE_SIZE = 64 * 1024  # bytes of a read for which a reader is woken within it

#: A read of this size announces a large message: the general way receives the next bytes in its memory.
cdef Py_ssize_t LARGE_READ = 32 * 1024
cdef Py_ssize_t COPY_SIZE = limits.COPY_SIZE
cdef Py_ssize_t SLACK = limits.READ_SLACK
cdef object CancelledError = asyncio.CancelledError
cdef object current_task = asyncio.current_task
cdef type Task = asyncio.Task
#: The current task of each loop, where CPython has a dictionary of them: it is mostly empty between two tasks.
cdef object current_tasks = getattr(asyncio.tasks, "_current_tasks", None) if sys.version_info < (3, 14) else None


cdef inline bint is_wakeup(object callback) noexcept:
    """Return True if ``callback`` resumes an asyncio task that is implemented in C."""
    return PyCFunction_Check(callback) and PyCFunction_GET_SELF(callback) is not NULL and isinstance(
        <object>PyCFunction_GET_SELF(callback), Task
    )


cdef inline bint has_current_task(object loop) except -1:
    """Return True if a task of ``loop`` is running: no other can be resumed within it."""
    if type(current_tasks) is dict and not (<dict>current_tasks):
        return False
    return current_task(loop) is not None


cdef inline bint holds_messages(ReceiveQueue inbox) noexcept:
    """Return True if :meth:`ReceiveQueue.count` is not 0."""
    return inbox._items is not None and PyList_GET_SIZE(inbox._items) > inbox._head


cdef int lend_spare_memory(ShortWays conn) except -1:
    """Let long messages of ``conn`` arrive in memory of the last one of this loop.

    Only the connections refer to that memory, so it ends with the last one that received a long message.
    """
    cdef Parser parser = conn._parser
    if parser.spare is None:
        spare = None if conn._state.spare_memory is None else conn._state.spare_memory()
        if spare is None:
            spare = SpareMemory()
            conn._state.spare_memory = ref(spare)
        parser.spare = spare
    return 0


include "pxi/sending.pxi"


cdef class ShortWays(ConnCore):
    """Connection with short ways. Awaitables that are over are used again, if nothing else refers to them."""

    cdef Following _spare_following
    cdef Sent _spare_sent
    cdef flag _more  # bytes of this read follow behind the message for which the reader is woken
    cdef ReadWaiter _spare_waiter

    def connection_lost(self, exc):
        (<Parser>self._parser).spare = None
        lost(self)

    # --- reading ----------------------------------------------------------------------------------

    def buffer_updated(self, nbytes):
        """Handle the ``nbytes`` that the transport has read into the buffer."""
        cdef Py_ssize_t size = nbytes
        try:
            if (
                self._open
                and not self._in_batch
                and not self._ended
                and not self._lent
                and self._handshake is None
                and self._rest is None
                and self._backlog is None
                and self._filter is None
                and self._deflate is None
                and size <= PyByteArray_GET_SIZE(self._state.buffer)  # a transport may be wrong
            ):
                self._read_messages(size)
                if size >= LARGE_READ:
                    self._in_place = True
                    lend_spare_memory(self)
            else:
                self._read(size)
        except BaseException as exc:
            closing.fail(self, exc)

    cdef _read_messages(self, Py_ssize_t size):
        """Handle the messages at the head of a read, and leave the rest to the general way."""
        cdef LoopContext state = self._state
        cdef object view = state.view  # a read within a callback replaces it
        cdef cbyte *data = <cbyte *>PyByteArray_AS_STRING(state.buffer)
        cdef Parser parser = <Parser>self._parser
        cdef Py_ssize_t at = 0
        cdef bint late = False
        self._keepalive.last_received = plumews_monotonic() if state.plain_clock else self._loop.time()
        self._in_batch = state.in_batch = True
        state.turn += 1
        if not state.in_slice:
            state.awaits_left = state.awaits_per_check  # a read is a loop iteration
        try:
            if self._on_message is None:
                self._put(parser, data, size, &at)
            else:
                self._call_back_in_context(parser, data, size, &at, &late)
            if late:
                self._rest = memoryview(bytes(view[at:size]))
            elif at < size:
                self._parse_rest(parser, data, at, size, view)
            else:
                self._wake_reader()  # its replies leave with this read
        finally:
            try:
                if self._fd < 0 and self._queue is not None and self._drains is None:
                    write_through(self, self._queue)
                elif self._queue is not None or self._drains is not None:
                    write_out(self)
                else:
                    self._hot = False
            finally:  # also when a signal handler raised
                self._in_batch = state.in_batch = state.ends_read = False
                if state.slice_ends_with_batch:
                    state.end_batch()
        if late or self._later is not None:
            late = True
            receive_backlog.postpone(self)
        if late or self._on_message is None or self._reading_paused:
            ConnCore._update_reading(self)

    cdef _call_back_in_context(self, Parser parser, cbyte *data, Py_ssize_t size, Py_ssize_t *done, bint *late):
        """Call :meth:`_call_back` in the context of this connection."""
        cdef bint entered = False
        try:
            if self._context is not None and not self._in_context:
                PyContext_Enter(self._context)
                entered = self._in_context = True
            self._call_back(parser, data, size, done, late)
        except BaseException:
            if done[0] < size and not self._ended:  # as in the general way: the parser has seen all bytes
                parser.feed_bytes(data + done[0], size - done[0], True)
            raise
        finally:
            if entered:
                self._in_context = False
                PyContext_Exit(self._context)

    cdef _call_back(self, Parser parser, cbyte *data, Py_ssize_t size, Py_ssize_t *done, bint *late):
        """Call back for each message. Set ``done`` to the bytes read: not all if something else comes, or it is ``late``."""
        cdef LoopContext state = self._state
        cdef Py_ssize_t at = 0, used = 0
        cdef int kind = 0, count = 0
        cdef double until = 0.0
        while at < size:
            message = parser.take_message(data + at, size - at, &used, &kind)
            if used == 0:
                break
            at += used
            done[0] = at
            if at < size:
                if count == 0:
                    until = plumews_monotonic() + <double>limits.FAN_OUT_SLICE
            else:
                state.ends_read = True
            if not self._open:
                pass  # our close frame is on its way: later messages are dropped
            elif self._filter is not None or self._on_message is None:
                ConnCore._deliver(self, kind, message)
            elif plumews_call(self._on_message, self, message) < 0:
                self._callback_failed()
            if at < size and count % STRIDE == 0 and plumews_monotonic() >= until:
                late[0] = True
                break
            count += 1

    cdef _callback_failed(self):
        """Report the exception of a callback, as :meth:`ConnCore._deliver` does."""
        try:
            plumews_raised()
        except (Exception, CancelledError) as exc:  # that of a future which the callback looked into
            if self._on_failure is not None:
                self._on_failure(self, exc)

    cdef _put(self, Parser parser, cbyte *data, Py_ssize_t size, Py_ssize_t *done):
        """Put messages into the receive queue while it has room. Set ``done`` to the number of bytes read.

        Those that take much more memory than their bytes are left to the general way. A waiting reader gets long
        messages within the read, while they are in the cache.
        """
        cdef ReceiveQueue inbox = self._inbox
        cdef Py_ssize_t at = 0, used = 0, woken = 0, room = inbox.room(), most = inbox.bytes + SLACK
        cdef int kind = 0
        if inbox.shared:
            inbox = self._own_inbox()
        while at < size and room > 0 and inbox.bytes < most + at:
            try:
                message = parser.take_message(data + at, size - at, &used, &kind)
                if used:
                    inbox.put(message)
            except BaseException:
                parser.stop()  # without memory a message is lost, and the place in the stream
                raise
            if used == 0:
                break
            at += used
            room -= 1
            done[0] = at
            if used > COPY_SIZE and at - woken >= WAKE_SIZE and at < size and inbox._waiter is not None:
                message = None
                woken = at
                if not self._wake_within(parser, data, at, size):
                    break
                room = inbox.room()
                most = inbox.bytes + SLACK - at

    cdef bint _wake_within(self, Parser parser, cbyte *data, Py_ssize_t at, Py_ssize_t size) except -1:
        """Resume the reader before the bytes from ``at`` on are parsed. Return True if they may be plain messages."""
        self._more = True
        try:
            self._wake_reader()
        except BaseException:
            if not self._ended:
                parser.feed_bytes(data + at, size - at, True)
            raise
        finally:
            self._more = False
        return (
            self._in_batch
            and self._open
            and not self._ended
            and self._on_message is None
            and self._filter is None
            and self._rest is None
            and self._backlog is None
        )

    cdef _parse_rest(self, Parser parser, cbyte *data, Py_ssize_t at, Py_ssize_t size, object view):
        """Leave the bytes from ``at`` on to the general way."""
        cdef LoopContext state = self._state
        state.ends_read = False
        if self._ended:
            return
        events = parser.feed_bytes(data + at, size - at, True)
        if parser.halted:
            receive_backlog.halted(self, view[at:size])
        ConnCore._take_up(self, events)
        self._in_batch = state.in_batch = True

    cdef int _tell(self, tuple event) except -1:
        """Handle an event that is no whole message, as :meth:`ConnCore._tell` does."""
        if <int>event[0] == CLOSE and answer_close(self, <tuple>event[1]):
            return 0
        return ConnCore._tell(self, event)

    # --- awaitables -------------------------------------------------------------------------------

    cdef NextMessage _next(self, int iterating):
        cdef Following following = self._spare_following
        self._spare_following = None
        if following is None or Py_REFCNT(following) > 1:
            following = Following.__new__(Following)
        following._begin(self, iterating)
        return following

    cdef SendMessage _sent(self, message):
        cdef Sent sent = self._spare_sent
        self._spare_sent = None
        if sent is None or Py_REFCNT(sent) > 1:
            sent = Sent.__new__(Sent)
        sent._begin(self, message)
        return sent

    # --- a task that reads ------------------------------------------------------------------------

    cdef _wake_reader(self):
        """Resume the waiting reader if there is a message, as :meth:`ReceiveQueue.wake_now` does."""
        cdef ReadWaiter waiter = self._inbox._waiter
        if waiter is None or waiter._done or not self._inbox.count():
            return
        if waiter._callback is None or waiter._context is None or has_current_task(self._loop):
            waiter.wake_now()
            return
        waiter._done = True
        callback = waiter._callback
        context = waiter._context
        waiter._callback = waiter._context = None
        PyContext_Enter(context)
        try:
            PyObject_CallOneArg(callback, self._done_future() if is_wakeup(callback) else waiter)
        finally:
            PyContext_Exit(context)

    cdef object _done_future(self):
        """Return a future with the result ``None``. A task asks an exact one for its result without a Python call."""
        cdef LoopContext state = self._state
        if state.done_future is None:
            future = asyncio.Future(loop=self._loop)
            future.set_result(None)
            state.done_future = future
        return state.done_future

    cdef _take_now(self, bint at_once):
        """Return the next message, as :meth:`ConnCore._take_now` does."""
        cdef ReceiveQueue inbox = self._inbox
        cdef LoopContext state = self._state
        if not holds_messages(inbox) or self._on_message is not None or self._stream is not None:
            return None
        if inbox._waiter is not None or PyThread_get_thread_ident() != self._thread:
            return None
        message = <object>PyList_GET_ITEM(inbox._items, inbox._head)
        if type(message) is tuple:
            return None
        if at_once:
            state.awaits_left -= 1
            if state.awaits_left <= 0:
                pause = state.check_slice()
                if pause is not None:
                    return pause
        inbox.drop()
        if self._reading_paused:
            ConnCore._update_reading(self)
        if self._in_batch:
            state.ends_read = not self._more and not holds_messages(inbox) and self._rest is None and self._backlog is None
        return message

    cdef ReadWaiter _wait_now(self):
        """Return what a reader of an empty queue awaits, as :meth:`ConnCore._wait_now` does."""
        cdef ReceiveQueue inbox = self._inbox
        cdef ReadWaiter waiting
        if self._ended or inbox._waiter is not None or inbox.count() or self._on_message is not None:
            return None
        if self._stream is not None or PyThread_get_thread_ident() != self._thread:
            return None
        if (<Parser>self._parser).mode:  # a message is streamed, or the next one is
            return None
        waiting = self._spare_waiter
        if waiting is None or not waiting._done or Py_REFCNT(waiting) > 2:
            waiting = self._spare_waiter = ReadWaiter.__new__(ReadWaiter)
        waiting._prepare(self._loop)
        if inbox.shared:
            inbox = self._own_inbox()
        inbox._waiter = waiting
        if not self._in_batch:  # else it leaves with the read that is being handled
            write_out(self)
        if self._reading_paused:
            ConnCore._update_reading(self)
        return waiting

    # --- sending ----------------------------------------------------------------------------------

    cdef bint _queue_now(self, message) except -1:
        return queue_now(self, message)

    cdef bint _try_queue_shared(self, object frame, Py_ssize_t size) except -1:
        return try_queue_shared(self, frame, size)

    cdef _write_out(self):
        write_out(self)


cdef class Following(NextMessage):
    """Awaitable of the next message that its connection uses again."""

    cpdef object step(self):
        cdef MessageChannel conn = self._conn
        message = NextMessage.step(self)
        if self.over and conn is not None and self._inner is None:
            (<ShortWays>conn)._spare_following = self
        return message


cdef class Sent(SendMessage):
    """Awaitable of a sent message that its connection uses again."""

    cpdef object step(self):
        cdef MessageChannel conn = self._conn
        outcome = SendMessage.step(self)
        if self.over and conn is not None and self._inner is None:
            self._message = None
            (<ShortWays>conn)._spare_sent = self
        return outcome
