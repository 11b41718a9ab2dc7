# cython: language_level=3, boundscheck=False, wraparound=False, nonecheck=False
# cython: initializedcheck=False, binding=False, auto_pickle=False
"""Compiled short ways of the closing handshake: a close frame of the peer that is answered at once, and a quiet end.

A short way handles the common case and hands everything else, unchanged, to the general way in ``closing``.
"""

import asyncio
from functools import partial

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from ..constants import State
from ..transport import send_queue
from . import closing

from ..protocol.state cimport ProtocolState
from ..transport._sendmsg cimport send_memory
from ..transport.channel cimport Channel
from ..transport.send_queue cimport SendQueue
from .core cimport ConnCore

cdef object CancelledError = asyncio.CancelledError
cdef object OPEN = State.OPEN
cdef object CLOSED = State.CLOSED
cdef Py_ssize_t WRITE_SIZE = send_queue.WRITE_SIZE


cdef inline bint reads_nothing(ConnCore conn) except -1:
    """Return True if no message is left to read, and none is incomplete."""
    return (
        conn._incoming is None
        and conn._stream is None
        and conn._discard_deadline is None
        and not conn._inbox.count()
    )


cdef bint answer_close(ConnCore conn, tuple close) except -1:
    """Answer the peer's close frame and close the socket, as ``ConnCore._tell`` and :func:`closing.peer_ended` do.

    Return False if that takes more than an answer that can leave at once. With one that the socket has taken, and a
    transport that holds nothing, the end needs no deadline.
    """
    cdef ProtocolState rules = conn._rules
    if (
        not conn._open
        or conn._ended
        or rules.state is not OPEN
        or rules.error is not None
        or conn._answer_deadline is not None
        or conn._close_deadline is not None
        or conn._reporters is not None
        or conn._waiters is not None
        or conn._drains is not None
        or not conn._past()
        or not reads_nothing(conn)
    ):
        return False
    rules.peer_closed(close[0], close[1])
    conn._ended = True
    frame = rules.reply_frame()
    conn._open = False
    try:
        if not leaves_at_once(conn, frame):
            conn._finish_output(frame, None)
    finally:
        if not conn._finished or conn._handed or conn._fd < 0:
            abort = partial(closing.abort, conn)
            conn._close_deadline = conn._state.timers.after(conn._config.close_timeout, abort)
    if conn._finished:
        close_transport(conn)
    else:
        conn._on_finished = partial(closing.close_frame_left, conn)
    conn._update_reading()
    conn._inbox.wake()
    return True


cdef bint leaves_at_once(ConnCore conn, bytes frame) except -1:
    """Write the close frame to the socket, if nothing waits before it. Return False if no byte of it has left."""
    cdef Py_ssize_t sent
    cdef SendQueue queue
    if not conn._in_batch or conn._queue is not None or conn._paused:
        return False
    sent = send_memory(conn._fd, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
    if sent == PyBytes_GET_SIZE(frame):
        conn._in_pieces = False
        conn._finished = True
    elif sent > 0:
        try:
            conn._in_pieces = False
            queue = Channel._fill(conn)
            queue.closing = frame
            conn._cut(queue, queue.plan(WRITE_SIZE), sent)
        except BaseException as exc:
            conn._fail_output(exc)
            if not isinstance(exc, Exception):
                raise
    return sent > 0


cdef close_transport(ConnCore conn):
    """Close the transport in the context of the connection, as :func:`closing.ask` does."""
    transport = conn._transport
    if transport is None:
        return
    try:
        if conn._context is None or conn._in_context:
            transport.close()
            return
        PyContext_Enter(conn._context)
        conn._in_context = True
        try:
            transport.close()
        finally:
            conn._in_context = False
            PyContext_Exit(conn._context)
    except Exception as exc:
        closing.transport_failed(conn, exc)


cdef lost(ConnCore conn):
    """Free what the connection held, and tell its end, as :func:`closing.lost` does."""
    cdef ProtocolState rules = conn._rules
    cdef bint done = False
    if (
        conn._fd >= 0
        and rules.state is not CLOSED
        and conn._evict_deadline is None
        and conn._reporters is None
        and conn._answer_deadline is None
        and conn._close_deadline is None
        and conn._end_look is None
        and conn._closed_future is None
        and conn._handshake is None
        and conn._queue is None
        and conn._waiters is None
        and conn._drains is None
        and conn._deflate is None
        and conn._inflate is None
        and reads_nothing(conn)
    ):
        try:
            rules.losing()  # first: the waits for pongs are told how it ended
            conn._keepalive.stop(rules.closed)
            conn._detach()
            done = True
        except BaseException as exc:
            closing.fail(conn, exc)
    if done:
        conn._transport = None
        end_quietly(conn)
    else:
        closing.lost(conn)


cdef end_quietly(ConnCore conn):
    """Note the end of a connection that is detached, tell the callbacks, and forget what it was used with."""
    cdef ProtocolState rules = conn._rules
    rules.lost()
    conn._open = False
    conn._ended = True
    try:
        conn._inbox.wake()
    except BaseException as exc:  # as without memory: what follows is done all the same
        closing.fail(conn, exc)
    conn._loss_watchers = None
    slot = conn._slot
    conn._slot = None
    if slot is not None:
        call(conn, slot.left)
    callbacks = conn._close_callbacks
    conn._close_callbacks = None
    if callbacks is not None:
        tell(conn, callbacks)
    if conn._on_message is not None or conn._filter is not None:
        conn._backlog = conn._rest = None
        rules.parser.stop()
    conn._on_message = conn._on_failure = conn._filter = conn._catch_up_hooks = conn._reporters = None


cdef tell(ConnCore conn, list callbacks):
    """Call the close callbacks in the context of the connection."""
    cdef bint enters = conn._context is not None and not conn._in_context
    if enters:
        PyContext_Enter(conn._context)
        conn._in_context = True
    try:
        for callback in callbacks:
            call(conn, callback)
    finally:
        if enters:
            conn._in_context = False
            PyContext_Exit(conn._context)


cdef call(ConnCore conn, callback):
    try:
        callback(conn)
    except (Exception, CancelledError) as exc:
        closing.report(conn, "a close callback failed", exc)
