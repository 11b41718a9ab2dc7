"""Slow ways to receive: a message that has to be waited for or converted, a message as a stream, and backpressure.

Functions that take the connection. The fast path is in `core`.

Invariants: only the call that returns a message takes it from the queue, so a cancelled call loses nothing. Replies
leave before a reader waits. Messages that arrived before the end of the connection can be read after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..constants import COMPRESSED, CloseCode, Opcode, StreamEvent
from ..deflate.inbound import GO_ON, LATER, STOP
from ..errors import ConcurrencyError, ConnectionClosedOK
from . import receive_backlog
from .closing import answer, ask, begin_close, fail, look_for_end, past_the_end, stop_discarding
from .receive_queue import Item
from .stream import Stream

if TYPE_CHECKING:
    from .core import ConnCore

__all__ = [
    "NONE_AT_END",
    "deliver_to",
    "has_caught_up",
    "next_slowly",
    "pause_reading",
    "read_message",
    "read_stream",
    "recv",
    "start_streaming",
    "stream_changed",
    "stream_event",
]


# --- callbacks ------------------------------------------------------------------------------------


def deliver_to(
    conn: ConnCore, on_message: Callable[[Any, str | bytes], object], on_failure: Callable[[Any, BaseException], object]
) -> None:
    """Call ``on_message(conn, message)`` for the messages in the receive queue and for each later one."""
    conn._on_message = on_message
    conn._on_failure = on_failure
    if len(conn._inbox):
        conn._run_in_context(_deliver_waiting, conn)
    if conn._ended:
        answer(conn)
    conn._update_reading()


def _deliver_waiting(conn: ConnCore) -> None:
    """Deliver the messages in the receive queue to the callback."""
    while len(conn._inbox) and conn._on_message is not None:
        kind, data = conn._inbox.take()
        conn._deliver(kind, data)


# --- messages -------------------------------------------------------------------------------------


async def recv(conn: ConnCore, decode: bool | None) -> str | bytes:
    """Return the next message, converted as ``decode`` says. See :meth:`plumews.Conn.recv`."""
    kind, payload = await read_message(conn)
    if decode is None:
        # Text reaches us as str, but as bytes where it was collected from a stream.
        return payload.decode() if kind == Opcode.TEXT and isinstance(payload, bytes) else payload
    if decode:
        return payload if isinstance(payload, str) else payload.decode()
    return payload if isinstance(payload, bytes) else payload.encode()


#: Value of ``iterating`` with which a normal end returns ``None``: that costs no exception.
NONE_AT_END: Final = 2


async def next_slowly(conn: ConnCore, iterating: int) -> str | bytes | None:
    """Return the next message in all cases.

    With ``iterating`` a normal end raises ``StopAsyncIteration``. With :data:`NONE_AT_END` it returns ``None``.
    """
    try:
        return await recv(conn, None)
    except ConnectionClosedOK:
        if iterating == NONE_AT_END:
            return None
        if iterating:
            raise StopAsyncIteration from None
        raise


async def read_message(conn: ConnCore) -> tuple[int, str | bytes]:
    """Return the opcode and the payload of the next message."""
    _check_reader(conn)
    while True:
        kind, data = await _available(conn)
        if kind != StreamEvent.BEGIN:
            _take(conn)
            return kind, data
        # A read_stream() that was cancelled had asked for it in pieces: put them together.
        payload = await data.complete()
        _take(conn)
        if conn._filter is None or not conn._run_in_context(conn._filter, conn, _as_it_came(data.opcode, payload)):
            return data.opcode, payload


async def _available(conn: ConnCore, *, in_pieces: bool = False) -> Item:
    """Wait until there is an item, and leave it in the queue."""
    inbox = conn._own_inbox()
    if len(inbox) or conn._ended:
        pause = conn._state.count_await()
        if pause is not None:
            await pause
            _check_reader(conn)
    while not len(inbox):
        if conn._ended:
            if not _salvage(conn):
                raise past_the_end(conn)
            if not len(inbox):
                await asyncio.sleep(limits.FAN_OUT_SLICE)  # inflating has used up its share of the loop's time
            continue
        # It may be streaming: a rest that is being discarded. What was received before comes before.
        if in_pieces and not conn._rules.parser.streaming and not conn._backlog:
            start_streaming(conn)
            continue
        waiting = inbox.start_waiting(conn._loop)
        try:
            if not conn._in_batch:
                conn._flush()
            conn._update_reading()
            await waiting
        finally:
            inbox.stop_waiting()
    return inbox.peek()


def _salvage(conn: ConnCore) -> bool:
    """Queue the next messages that arrived before the end of the connection. Return whether there are any.

    With True and an empty queue, a part of a compressed one is inflated: call again later.
    """
    inbox = conn._own_inbox()
    while not len(inbox) and (conn._backlog is not None or conn._rest is not None):
        events = receive_backlog.next_events(conn)
        for position, event in enumerate(events, 1):
            if not isinstance(event, tuple):
                event = (Opcode.TEXT if isinstance(event, str) else Opcode.BINARY, event)
            outcome = _take_after_end(conn, *event)
            if outcome == LATER:
                conn._backlog = events[position - 1 :]
                return True
            if outcome == STOP:
                conn._backlog = conn._rest = None
                break
            if inbox.is_full(0):
                conn._backlog = events[position:] or None
                break
    if conn._rest is None:
        conn._rules.parser.stop()
        if conn._backlog is None and conn._inflate is not None:
            conn._inflate.end()
    return len(inbox) > 0


def _take_after_end(conn: ConnCore, kind: int, data: Any) -> int:
    """Queue the message of an event that came before the end. Return whether later events are taken (``GO_ON``)."""
    if kind in (Opcode.TEXT, Opcode.BINARY):
        conn._inbox.put((kind, data))
    elif conn._inflate is not None and kind in (COMPRESSED | Opcode.TEXT, COMPRESSED | Opcode.BINARY):
        return conn._inflate.take_after_end(conn, kind, data)
    elif kind not in (Opcode.PING, Opcode.PONG):
        return STOP
    return GO_ON


def _take(conn: ConnCore) -> None:
    conn._inbox.take()
    if conn._reading_paused:
        conn._update_reading()


def _check_reader(conn: ConnCore) -> None:
    conn._check_thread()
    if conn._on_message is not None:
        raise ConcurrencyError("messages of this connection go to its on_message callback")
    if conn._stream is not None and not conn._stream.done:
        raise ConcurrencyError("a stream is open: read it to its end or close it before the next message")
    if conn._inbox.awaited:
        raise ConcurrencyError("another task is already receiving from this connection")


def _as_it_came(opcode: Opcode, payload: bytes) -> str | bytes:
    return payload.decode() if opcode == Opcode.TEXT else payload


# --- streams --------------------------------------------------------------------------------------


async def read_stream(conn: ConnCore) -> Stream:
    """Return the next message as a stream. See :meth:`plumews.Conn.read_stream`."""
    _check_reader(conn)
    try:
        kind, data = await _available(conn, in_pieces=True)
    except BaseException:
        conn._rules.parser.stop_streaming()  # no message had begun: the next one comes whole again
        raise
    _take(conn)
    if kind == StreamEvent.BEGIN:
        assert isinstance(data, Stream)
        stream = data
    else:
        # It was complete before it was asked for.
        stream = Stream(kind, partial(stream_changed, conn))
        if data:
            stream.feed(data.encode() if isinstance(data, str) else data)
        stream.finish()
    if not stream.done:
        conn._stream = stream
    return stream


def start_streaming(conn: ConnCore) -> None:
    """Let the parser tell the next message, or the one that is arriving, in pieces."""
    try:
        conn._take_up(conn._parser.start_streaming())
    except MemoryError as exc:
        fail(conn, exc)  # a part of the message is lost


def stream_changed(conn: ConnCore) -> None:
    """React to a stream that was read, awaited or closed by the application."""
    stream = conn._stream or conn._incoming
    if stream is not None and stream is conn._stream and stream.done:
        conn._stream = None
        if stream.discarding:
            # The rest of a discarded message must come in time, too.
            deadline = conn._state.timers.after(conn._config.close_timeout, partial(_discarding_failed, conn))
            conn._discard_deadline = deadline
    elif stream is not None and stream.awaited:
        conn._flush()
    conn._update_reading()


def _discarding_failed(conn: ConnCore) -> None:
    begin_close(conn, CloseCode.POLICY_VIOLATION, "the rest of a discarded message did not come")


def stream_event(conn: ConnCore, kind: int, data: Any) -> int:
    """Handle a part of a streamed message. Return whether the events behind it go on, as `InboundDeflate` does."""
    inflate = conn._inflate
    if kind == StreamEvent.BEGIN:
        if data & COMPRESSED and inflate is not None:
            data ^= COMPRESSED
            inflate.begin(conn, data)
        if conn._open:
            _begin_stream(conn, data)
    elif inflate is not None and inflate.streaming:
        if kind == StreamEvent.CHUNK:
            return inflate.chunk(conn, data)
        outcome = inflate.end_of_stream(conn)
        if outcome:
            return outcome
        _finish_stream(conn)
    elif kind == StreamEvent.END:
        _finish_stream(conn)
    elif conn._incoming is not None:
        conn._incoming.feed(data)
    return 0


def _begin_stream(conn: ConnCore, opcode: Opcode) -> None:
    """Queue the stream of a message that begins to arrive."""
    conn._incoming = Stream(opcode, partial(stream_changed, conn))
    conn._own_inbox().put((StreamEvent.BEGIN, conn._incoming))


def _finish_stream(conn: ConnCore) -> None:
    """End the stream of a message that is complete."""
    if conn._incoming is not None:
        conn._incoming.finish()
        conn._incoming = None
    if conn._stream is not None and conn._stream.done:
        conn._stream = None
    stop_discarding(conn)
    conn._inbox.wake()  # a waiting read_stream() asks for the next message now


# --- backpressure ---------------------------------------------------------------------------------


def has_caught_up(conn: ConnCore) -> bool:
    """Return True if the handler has read nearly all of its messages, or none reads any more."""
    if conn._on_message is not None or not conn._open:
        return True
    stream = conn._stream or conn._incoming
    if conn._inbox.awaited or (stream is not None and stream.awaited):
        return True
    return conn._inbox.is_low(0 if stream is None else stream.held)


def pause_reading(conn: ConnCore, pause: bool) -> None:
    """Let the transport pause or resume reading, unless it is closing."""
    if conn._reads_to_end or conn._transport is None or ask(conn, "is_closing"):
        return
    conn._reading_paused = pause
    if pause:
        conn._keepalive.listening = False
        ask(conn, "pause_reading")
        look_for_end(conn)
    else:
        conn._keepalive.heard_again(conn._loop.time())
        ask(conn, "resume_reading")
