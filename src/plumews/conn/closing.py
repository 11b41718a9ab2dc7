"""Closing handshake of a connection (RFC 6455 section 7), its failures, and its end.

Functions that take the connection. A close of ours begins with :func:`begin_close`, one of the peer with
:func:`peer_ended`. Both send a close frame by :func:`_send_close`, behind what is queued. When both frames are there,
:func:`_hang_up` ends the TCP connection, after a violation by :func:`close_gently`, which lingers until the peer has
read our close frame. :func:`abort` cuts it instead, :func:`fail` is the end after an exception of ours, and
:func:`lost` frees what the connection held.

Invariants: our close frame waits for a handler with earlier messages, for a second at most. The transport is closed at
most one ``close_timeout`` after the closing began. An exception in a call of the event loop ends the connection, by
:func:`guard`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import limits
from ..constants import CloseCode, Opcode, State
from ..errors import ConnectionClosed
from ..protocol.codec import Parser
from ..transport import send_buffer, sendmsg
from ..transport.forks import FOREIGN
from ..transport.tls import TLSTransport
from .logs import log_extra

if TYPE_CHECKING:
    from .core import ConnCore

__all__ = [
    "abort",
    "add_callback",
    "answer",
    "ask",
    "begin_close",
    "below_queue",
    "close_frame_left",
    "close_gently",
    "disown",
    "eof",
    "fail",
    "guard",
    "hasten",
    "look_ahead",
    "look_for_end",
    "lost",
    "past_the_end",
    "peer_ended",
    "progress",
    "report",
    "stop_discarding",
    "time_out",
    "transport_failed",
    "wait_closed",
]

logger = logging.getLogger("plumews.server")

_OPEN, _CLOSING, _CLOSED = State.OPEN, State.CLOSING, State.CLOSED

#: Seconds to wait for the FIN of the peer, so that it reads our close frame or response before a reset.
_FIN_WAIT = 1.0

#: Seconds between two checks if the peer of a paused connection has closed it.
_END_LOOK = 1.0


# --- failures -------------------------------------------------------------------------------------


def guard(conn: ConnCore, function: Callable[..., Any], *args: Any) -> Any:
    """Return ``function(*args)``, called for the event loop. If it fails, end the connection and return None."""
    try:
        return function(*args)
    except BaseException as exc:
        fail(conn, exc)
        return None


def fail(conn: ConnCore, exc: BaseException) -> None:
    """Log ``exc`` and end the connection with 1011. A second failure cuts it."""
    if isinstance(exc, (KeyboardInterrupt, SystemExit)):
        raise exc
    again, conn._failed = conn._failed, True
    conn._backlog = conn._rest = None
    try:
        if not again:
            logger.error("a connection failed", exc_info=exc, extra=log_extra(conn))
    finally:
        if conn._rules.state is _OPEN and not again:
            begin_close(conn, CloseCode.INTERNAL_ERROR, "the connection failed")
        elif conn._rules.state is not _CLOSED:
            abort(conn)


def report(conn: ConnCore, what: str, exc: BaseException) -> None:
    """Tell ``exc`` to the exception handler of the event loop."""
    try:
        conn._loop.call_exception_handler({"message": what, "exception": exc, "protocol": conn})
    except Exception:  # noqa: S110 - as without memory, which no log entry would help
        pass  # the caller ends the connection


def ask(conn: ConnCore, name: str, *args: Any) -> Any:
    """Call the method ``name`` of the transport. If that fails, end the connection and return None."""
    transport = conn._transport
    if transport is None:
        return None
    try:
        # In the context of this connection: asyncio keeps the context in which it is told to read or to close.
        return conn._run_in_context(getattr(transport, name), *args)
    except NotImplementedError:  # asyncio's base classes of transports raise it for what one does not implement
        return None
    except Exception as exc:
        transport_failed(conn, exc)
        return None


def transport_failed(conn: ConnCore, exc: BaseException | None) -> None:
    """Cut the connection, and report ``exc``. An ``OSError`` only says that the peer has gone, and is not reported."""
    transport = conn._transport
    if transport is None:
        return
    try:
        conn._transport = None  # it is not called again
        conn._ended = True
        if exc is not None and not isinstance(exc, OSError):
            report(conn, "a transport failed", exc)
    finally:  # without memory even an assignment may fail
        try:
            _abort_transport(conn, transport)
        finally:
            conn._detach()
            conn._inbox.wake()


# --- bytes below the send queue -------------------------------------------------------------------


def below_queue(conn: ConnCore, count: Callable[[Any], int | None]) -> int | None:
    """Return the bytes in the transport and those in the kernel by ``count(socket)``, or ``None``."""
    transport = conn._transport
    if transport is None:
        return None
    held = count(transport.get_extra_info("socket"))
    return None if held is None else held + transport.get_write_buffer_size()


def progress(conn: ConnCore) -> tuple[int, int] | None:
    """Return the bytes that the peer has acknowledged, and those below the send queue that it has not."""
    sock = ask(conn, "get_extra_info", "socket")
    buffered = ask(conn, "get_write_buffer_size")
    if sock is None or buffered is None:
        return None
    acknowledged = send_buffer.acknowledged(sock, conn._written - buffered)
    if acknowledged is None:
        return None
    return acknowledged, buffered + (send_buffer.unacknowledged(sock) or 0)


# --- our close ------------------------------------------------------------------------------------


def begin_close(conn: ConnCore, code: int, reason: str, *, discard: bool = False) -> None:
    """Start the closing handshake, unless it has begun. If that fails, cut the connection.

    With ``discard`` the queued messages are dropped, else they leave before the close frame.
    """
    try:
        _start_closing(conn, code, reason, discard)
    except Exception as exc:
        report(conn, "closing a connection failed", exc)
        abort(conn)


def _start_closing(conn: ConnCore, code: int, reason: str, discard: bool) -> None:
    if conn._rules.state is not _OPEN:
        return
    if conn._ended:
        answer(conn)
        return
    if discard:
        _discard(conn)
    else:
        conn._catch_up()
        conn._refuse_waiters()
        _report_last_losses(conn, delivered=True)
        if conn._rules.state is not _OPEN:
            return  # catching up overflowed its queue, or the application ended it meanwhile
    _send_close(conn, conn._rules.close_frame(code, reason))
    if discard:
        conn._write_last()


def _send_close(conn: ConnCore, frame: bytes) -> None:
    conn._open = False
    conn._close_deadline = conn._state.timers.after(conn._config.close_timeout, partial(abort, conn))
    _fail_streams(conn)
    conn._finish_output(frame, partial(close_frame_left, conn))
    conn._update_reading()


def close_frame_left(conn: ConnCore) -> None:
    """End the TCP connection if the peer's close frame was there before ours has left."""
    if conn._ended:
        _hang_up(conn)


# --- the peer's close -----------------------------------------------------------------------------


def peer_ended(conn: ConnCore) -> None:
    """Handle the end of the peer's side: a close frame or a violation."""
    conn._ended = True
    _fail_streams(conn)
    if conn._rules.state is _CLOSING:
        _hang_up(conn)
    elif not conn._rules.late and (len(conn._inbox) or _stream_is_open(conn)):  # the handler has unread messages
        _answer_after(conn, 0.0 if _only_waits(conn) else limits.END_GRACE)
    else:
        answer(conn)
    conn._inbox.wake()


def answer(conn: ConnCore) -> None:
    """Send the close frame that answers the end of the peer's side."""
    if conn._answer_deadline is not None:
        conn._answer_deadline.cancel()
        conn._answer_deadline = None
    if conn._rules.state is _OPEN:
        conn._refuse_waiters()
        _report_last_losses(conn, delivered=True)
    if conn._rules.state is _OPEN:
        _send_close(conn, conn._rules.reply_frame())


def past_the_end(conn: ConnCore) -> ConnectionClosed:
    """Answer the peer's close frame after the last message is read. Return the exception for the reader."""
    if conn._ended:
        answer(conn)
    return conn._rules.closed()


def _answer_after(conn: ConnCore, seconds: float) -> None:
    if conn._answer_deadline is not None:
        conn._answer_deadline.cancel()
    conn._answer_deadline = conn._state.timers.after(seconds, partial(guard, conn, answer, conn))


def _stream_is_open(conn: ConnCore) -> bool:
    return conn._stream is not None and not conn._stream.done


def _only_waits(conn: ConnCore) -> bool:
    """Return whether the handler only waits for the end, and no task reads."""
    return conn._end_waiters > 0 and not (conn._inbox.touched or conn._inbox.awaited or _stream_is_open(conn))


def look_ahead(conn: ConnCore) -> None:
    """Find a close frame behind unread messages, and handle it as the end."""
    if conn._ended or conn._rules.state is not _OPEN:
        return
    found = None
    for event in conn._backlog or ():
        if isinstance(event, tuple) and event[0] == Opcode.CLOSE:
            found = event[1]
            break
    if found is None and conn._rest is not None:
        found = _close_in(conn._rest)
    if found is not None:
        conn._rules.peer_closed(*found)
        peer_ended(conn)


def _close_in(data: memoryview) -> tuple[int, str] | None:
    """Return the code and the reason of the first close frame in ``data``, which begins with a frame."""
    at = 0
    while at + 1 < len(data):
        second = data[at + 1]
        if data[at] & 0x0F == Opcode.CLOSE:
            for kind, payload in Parser(client=second < 0x80, max_size=None).feed(data[at:]):
                return payload if kind == Opcode.CLOSE else None
            return None
        size = second & 0x7F
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            size = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
        at += 2 + extended + (4 if second >= 0x80 else 0) + size
    return None


# --- the peer's FIN -------------------------------------------------------------------------------


def eof(conn: ConnCore) -> bool:
    """Handle the peer's FIN. With False the transport closes itself after it has written its buffer."""
    if conn._reads_to_end:
        look_ahead(conn)  # a close frame may stand behind what the handler has not read
    if conn._ended and not conn._finished and conn._transport is not None:
        conn._reads_to_end = True  # for a client this is the end of TCP that it waits for
        return bool(ask(conn, "can_write_eof"))  # TLS cannot
    if conn._deflate is not None:
        conn._flush()  # answers that were gathered in this iteration must leave before the transport closes
    conn._ended = True
    conn._rules.losing()
    conn._open = False
    _fail_streams(conn)
    _discard(conn)
    if conn._close_deadline is None:  # a peer that does not read must not delay the end
        conn._close_deadline = conn._state.timers.after(conn._config.close_timeout, partial(abort, conn))
    conn._inbox.wake()
    return False


def look_for_end(conn: ConnCore) -> None:
    """Look once a second whether the peer has gone, while reading is paused: a paused transport does not tell.

    If it has, and sent no more than may wait, read all of that without a pause: its messages can still be read after
    the end. Callbacks and filters see no message after the end, so for them nothing is read early.
    """
    if conn._end_look is None and not conn._reads_to_end and conn._on_message is None and conn._filter is None:
        conn._end_look = conn._state.timers.after(_END_LOOK, partial(guard, conn, _seek_end, conn))


def _seek_end(conn: ConnCore) -> None:
    conn._end_look = None
    if not conn._reading_paused or conn._transport is None:
        return
    unread = sendmsg.unread_before_end(ask(conn, "get_extra_info", "socket"))
    if unread is None or unread > conn._config.max_queue_bytes:
        look_for_end(conn)
        return
    conn._reads_to_end, conn._reading_paused = True, False
    conn._keepalive.heard_again(conn._loop.time())
    ask(conn, "resume_reading")


# --- the end of the TCP connection ----------------------------------------------------------------


def _hang_up(conn: ConnCore) -> None:
    """End the TCP connection after both close frames, once ours has left.

    A client waits for the server to end it, up to the close timeout (RFC 6455 section 7.1.1).
    """
    if not conn._finished:
        return
    if conn._rules.error is not None:
        close_gently(conn)
    elif not conn._rules.client or conn._reads_to_end:
        ask(conn, "close")
    elif conn._reading_paused:
        conn._reading_paused = False
        ask(conn, "resume_reading")  # else the FIN of the server is not seen


def close_gently(conn: ConnCore, *, peer_is_done: bool = False) -> None:
    """End the TCP connection so that a peer that is still sending can read our close frame or response.

    A socket that is closed with unread bytes resets the connection, and a reset discards what the peer has not read. So
    we send our FIN, discard received bytes, and cut after ``_FIN_WAIT``, or up to the close timeout while bytes still
    leave. Our TLS ends with a close_notify, and discards what comes then. Other TLS cannot end one direction alone:
    there we close after that time, or at once if ``peer_is_done``.
    """
    if conn._transport is None:
        return
    if conn._close_deadline is not None:
        conn._close_deadline.cancel()
    if conn._reading_paused:
        conn._reading_paused = False
        ask(conn, "resume_reading")
    half = bool(ask(conn, "can_write_eof"))
    _linger(conn, conn._state.timers.time() + conn._config.close_timeout, half)
    if half:
        ask(conn, "write_eof")
    elif peer_is_done or isinstance(conn._transport, TLSTransport):
        ask(conn, "close")


def _linger(conn: ConnCore, last: float, half: bool) -> None:
    timers = conn._state.timers
    before = progress(conn)

    def over() -> None:
        if conn._transport is None:
            return
        after = progress(conn)
        # Bytes in the peer's kernel count as read. Bytes in ours get more time while some leave.
        moving = before is not None and after is not None and after[1] > 0 and after[0] > before[0]
        if (moving or ask(conn, "get_write_buffer_size")) and timers.time() < last:
            _linger(conn, last, half)
        elif half or ask(conn, "is_closing"):
            abort(conn)
        else:
            ask(conn, "close")
            _linger(conn, last, half)

    conn._close_deadline = timers.at(min(timers.time() + _FIN_WAIT, last), partial(guard, conn, over))


def hasten(conn: ConnCore, seconds: float) -> None:
    """Cut the connection, if it is closing, ``seconds`` from now at the latest."""
    deadline, when = conn._close_deadline, conn._state.timers.time() + seconds
    if deadline is not None and deadline.when > when:
        deadline.cancel()
        conn._close_deadline = conn._state.timers.at(when, partial(abort, conn))


def abort(conn: ConnCore) -> None:
    """End the TCP connection now. Queued messages are lost."""
    if conn._transport is not None:
        _abort_transport(conn, conn._transport)
    else:
        conn._rules.losing()
        conn._open = False
        _discard(conn)


def time_out(conn: ConnCore) -> None:
    """End the connection to a silent peer. A close frame tells a peer that only did not answer pings."""
    begin_close(conn, CloseCode.INTERNAL_ERROR, "keepalive ping timeout", discard=True)
    abort(conn)


def _abort_transport(conn: ConnCore, transport: asyncio.Transport) -> None:
    """Abort ``transport``. If that fails, too, call :func:`lost`."""
    try:
        conn._rules.losing()
        conn._open = False
        _discard(conn)
    finally:
        try:
            transport.abort()
        except Exception:
            conn._loop.call_soon(lost, conn)


# --- messages that are given up -------------------------------------------------------------------


def _discard(conn: ConnCore) -> None:
    """Give up the queued messages."""
    _count_lost(conn)
    conn._drop_output()
    _report_last_losses(conn, delivered=False)


def _count_lost(conn: ConnCore) -> None:
    queue = conn._queue
    if queue is None:
        return
    run = queue.run_messages()
    if queue.messages or run:
        messages, size = conn._lost
        more = queue.waiting_data()
        conn._lost = (messages + more[0] + run, size + more[1])


def _report_last_losses(conn: ConnCore, *, delivered: bool) -> None:
    """Let hubs report losses before the close frame. Without ``delivered`` no frame leaves any more."""
    reporters, conn._reporters = conn._reporters, None
    for reporter in reporters or ():
        reporter.report_last_losses(conn, delivered=delivered)
    conn._reporters = None  # losses of the reports themselves are part of them


def _fail_streams(conn: ConnCore) -> None:
    """End the streams of a message that stays incomplete."""
    if conn._incoming is None and conn._stream is None and conn._discard_deadline is None and not len(conn._inbox):
        return
    failure = conn._rules.closed if conn._transport is None else partial(past_the_end, conn)
    for stream in (conn._incoming, conn._stream, conn._inbox.stream):
        if stream is not None:
            stream.end(failure)
    conn._incoming = None
    stop_discarding(conn)


def stop_discarding(conn: ConnCore) -> None:
    """Cancel the deadline for the rest of a discarded message."""
    if conn._discard_deadline is not None:
        conn._discard_deadline.cancel()
        conn._discard_deadline = None


# --- after the end -------------------------------------------------------------------------------


def lost(conn: ConnCore) -> None:
    """Free what the connection held, and tell its end: the transport is gone."""
    if conn._evict_deadline is not None:
        conn._evict_deadline.cancel()
    conn._evict_deadline = None
    guard(conn, partial(_report_last_losses, conn, delivered=False))
    if conn._rules.state is not _CLOSED:  # else the end of a failed transport was told before
        _end(conn)
    conn._reporters = conn._loss_watchers = None


def _end(conn: ConnCore) -> None:
    ask(conn, "close")  # else Python 3.10 warns of an unclosed transport if a TLS peer has ended the connection
    conn._transport = None
    conn._rules.lost()
    conn._open = False
    conn._ended = True
    for deadline in (conn._answer_deadline, conn._close_deadline, conn._discard_deadline, conn._end_look):
        if deadline is not None:
            deadline.cancel()
    conn._answer_deadline = conn._close_deadline = conn._discard_deadline = conn._end_look = None
    guard(conn, _stop_pings, conn)
    guard(conn, _count_lost, conn)
    guard(conn, conn._detach)
    guard(conn, _fail_streams, conn)
    guard(conn, conn._inbox.wake)
    if conn._closed_future is not None and not conn._closed_future.done():
        conn._closed_future.set_result(None)
    handshake, conn._handshake = conn._handshake, None
    if handshake is not None:
        guard(conn, handshake.lost)
    slot, conn._slot = conn._slot, None
    if slot is not None:
        _call(conn, slot.left)
    callbacks, conn._close_callbacks = conn._close_callbacks, None
    if callbacks:
        conn._run_in_context(_call_all, conn, callbacks)
    guard(conn, _forget, conn)


def _stop_pings(conn: ConnCore) -> None:
    conn._keepalive.stop(conn._rules.closed)


def _forget(conn: ConnCore) -> None:
    """Free all but the messages that can still be read: a handler may hold the connection for long."""
    if conn._on_message is not None or conn._filter is not None:
        conn._backlog = conn._rest = None
        conn._rules.parser.stop()
    conn._on_message = conn._on_failure = conn._filter = conn._catch_up_hooks = None
    if conn._stream is not None and conn._stream.done:
        conn._stream = None
    if conn._inbox.stream is not None:
        conn._inbox.stream.give_up()
    if conn._deflate is not None:
        conn._deflate.end()
    if conn._inflate is not None and conn._backlog is None and conn._rest is None:
        conn._inflate.end()


def add_callback(conn: ConnCore, callback: Callable[[Any], object]) -> None:
    """Call ``callback(conn)`` when the connection is gone, at once if it is already."""
    if conn._rules.state is _CLOSED:
        conn._run_in_context(_call, conn, callback)
    else:
        if conn._close_callbacks is None:
            conn._close_callbacks = []
        conn._close_callbacks.append(callback)


def _call_all(conn: ConnCore, callbacks: Iterable[Callable[[Any], object]]) -> None:
    for callback in callbacks:
        _call(conn, callback)


def _call(conn: ConnCore, callback: Callable[[Any], object]) -> None:
    try:
        callback(conn)
    except (Exception, asyncio.CancelledError) as exc:
        report(conn, "a close callback failed", exc)


async def wait_closed(conn: ConnCore) -> None:
    """Wait until the connection is gone."""
    if conn._rules.state is _CLOSED:
        pause = conn._state.count_await()
        if pause is not None:
            await pause
        return
    if conn._closed_future is None:
        conn._closed_future = conn._loop.create_future()
    conn._inbox.touched = False
    conn._end_waiters += 1
    try:
        if conn._answer_deadline is not None and _only_waits(conn):
            _answer_after(conn, 0.0)
        look_ahead(conn)
        await asyncio.shield(conn._closed_future)
    finally:
        conn._end_waiters -= 1


def disown(conn: ConnCore) -> Iterable[int]:
    """Refuse all calls in a child process, whose parent has the connection. Return the descriptor of its socket."""
    conn._thread = FOREIGN
    conn._slot = conn._close_callbacks = None  # it does not end here
    sock = None if conn._transport is None else conn._transport.get_extra_info("socket")
    return () if sock is None else (sock.fileno(),)
