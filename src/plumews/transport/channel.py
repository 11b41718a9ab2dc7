"""Channel: the output of one connection, from the acceptance of a message to the write on its socket.

With a plain socket, frames go straight to it. If the socket takes a part of a frame, the rest of that frame goes to the
transport. Later frames wait in the send queue until the transport is empty, so that the bounds of the queue hold. The
output of one loop iteration leaves in one write at its end, or at the end of the read that caused it. On macOS a write
may wait for the writable event: `send` does not heed the bound of `send_buffer` there.

:meth:`Channel._try_queue` only reports a full queue. Its caller decides: it lets the sender wait (`waiters`), displaces
queued messages (`displacing`), or gives the message up.

Invariants: nothing is written past a transport that holds data or is closed, after the close frame, or after a call of
the transport has failed, because part of a frame may have left. Nothing is written while the transport asks to wait,
except for a last frame. Transports write in an empty context, because asyncio keeps the context of a write until the
socket has taken it. A flush never raises: any failure, such as a lack of memory, ends this connection. An exception
before a message is accepted changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from .. import limits
from ..protocol.message import EncodedMessage
from . import send_buffer, sendmsg, waiters
from .flow_control import FlowControl
from .loop_context import Flushable, LoopContext
from .masking import MaskingTransport
from .send_queue import WRITE_SIZE, SendQueue, is_header
from .waiters import Waiter

__all__ = ["Channel"]

#: Causes for which data waits: the transport, an answered ping, the writable event.
_TRANSPORT: Final = 1
_ANSWER: Final = 2
_EVENT: Final = 4
_ANY: Final = 7

#: True for CPythons that never pause after ``writelines`` (CVE-2024-12254): their buffer has no bound.
_WRITELINES_HAS_NO_BOUND: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)

_OVERHEAD = limits.QUEUED_OVERHEAD


class Channel(Flushable):
    """Output of one connection. Used by the thread of the loop only."""

    # fmt: off
    __slots__ = (
        "_compressor", "_dirty", "_displaced_bytes", "_drains", "_dropped", "_event_fd", "_evicted", "_fd",
        "_finished", "_flow", "_gathered", "_handed", "_held", "_hot", "_in_pieces", "_limited", "_most_bytes",
        "_most_messages", "_on_finished", "_out", "_paused", "_queue", "_replaced", "_state", "_turn", "_waiters",
        "_waits_for_event", "_written",
    )
    # fmt: on

    def __init__(self, state: LoopContext, *, queue_size: int, queue_bytes: int) -> None:
        self._prepare(state, queue_size, queue_bytes)

    def _prepare(self, state: LoopContext, queue_size: int, queue_bytes: int) -> None:
        self._state = state
        self._most_messages = queue_size
        self._most_bytes = queue_bytes
        #: Queue of the output that waits, ``None`` without any.
        self._queue: SendQueue | None = None
        #: Transport of the output, ``None`` before the connection is made and after its output has ended.
        self._out: asyncio.WriteTransport | None = None
        self._fd = -1  # of the socket, if direct writes are possible
        self._handed = True  # the transport was given data and was not seen empty since
        self._limited = False  # the transport asks to wait as soon as it holds data
        #: True while the transport asks to wait, or data waits for an answered ping: nothing can leave.
        self._paused = False
        self._held = 0  # the causes of that
        self._dirty = False  # flushed at the end of this loop iteration
        self._hot = False  # has written in this loop iteration: more output waits for its end
        self._gathered = False  # flushed together with other channels (`LoopContext.gather`)
        self._turn = 0  # number of the read in which a short way last sent a frame at once
        #: True once the close frame has left.
        self._finished = False
        #: True while a message is sent in fragments: no other may begin before its end.
        self._in_pieces = False
        self._waits_for_event = False  # each write ends with a wait for the writable event
        self._event_fd = -1  # duplicate of the descriptor that the loop watches, or -1
        self._waiters: deque[Waiter] | None = None
        self._drains: list[Callable[[bool], None]] | None = None  # callers of `_when_empty`
        self._on_finished: Callable[[], None] | None = None
        self._flow: FlowControl | None = None
        #: Compressor with context takeover, if any. It compresses accepted messages, and is reset if they are dropped.
        self._compressor: Any = None
        #: Total bytes of messages written to the socket or its transport. Control frames do not count.
        self._written = 0
        #: Messages that a full queue refused.
        self._dropped = 0
        #: Accepted messages that were dropped for newer ones, or because too much waited.
        self._evicted = 0
        #: Accepted messages that a newer one with their key has replaced.
        self._replaced = 0
        #: Bytes of evicted and of replaced messages.
        self._displaced_bytes = 0

    # --- abstract: of the connection --------------------------------------------------------------

    def _output_failed(self, exc: BaseException | None) -> None:
        """End the connection, whose output has failed. Report ``exc`` if it is given."""

    def _may_write(self) -> None:
        """Call :meth:`_resume_output`, perhaps later: data may leave again."""
        self._resume_output()

    # --- state ------------------------------------------------------------------------------------

    @property
    def queued_messages(self) -> int:
        """Messages in the send queue."""
        return 0 if self._queue is None else len(self._queue.messages)

    @property
    def queued_bytes(self) -> int:
        """Bytes in the send queue."""
        return 0 if self._queue is None else self._queue.bytes

    @property
    def queued_age(self) -> float:
        """Seconds for which the oldest message of the send queue has waited; 0.0 while the peer keeps up."""
        return 0.0 if self._queue is None else self._queue.age()

    @property
    def unanswered_bytes(self) -> int | None:
        """Bytes of messages sent since the last answered ping; ``None`` without ``unanswered_bytes``."""
        return None if self._flow is None else self._flow.unanswered()

    @property
    def _held_bytes(self) -> int:
        """Approximate memory of the queued messages, in bytes."""
        return 0 if self._queue is None else self._queue.bytes + len(self._queue.messages) * _OVERHEAD

    @property
    def _counted_bytes(self) -> int:
        """Bytes that count against the byte bound: of the messages, and of their objects in a long queue."""
        return 0 if self._queue is None else self._queue.counted_bytes()

    @property
    def _waiting_data(self) -> tuple[int, int]:
        """Number of queued messages and their bytes, without loss reports."""
        return (0, 0) if self._queue is None else self._queue.waiting_data()

    def _has_space(self, size: int) -> bool:
        return self._queue is None or self._queue.has_space(size)

    def _fill(self) -> SendQueue:
        """Return the queue. Make one if there is none: the caller adds to it."""
        if self._queue is None:
            self._queue = self._state.lend_queue(self._most_messages, self._most_bytes)
        return self._queue

    def _return_queue(self) -> None:
        """Give back the queue if nothing waits."""
        if self._queue is not None and self._queue.is_empty():
            queue, self._queue = self._queue, None
            self._state.give_back(queue)

    # --- the transport ----------------------------------------------------------------------------

    def _attach(self, transport: asyncio.WriteTransport) -> None:
        """Write to ``transport`` from now on, or directly to its socket if that is possible."""
        self._out = transport
        self._fd = sendmsg.descriptor(transport)
        self._handed = True
        self._limited = False
        self._paused = False  # an earlier transport may have paused it
        self._held = 0
        if self._fd < 0:
            send_buffer.limit_transport(transport, limits.TRANSPORT_HIGH_WATER)

    def _hold_little(self) -> None:
        """Let a transport with a descriptor hold as little as possible: data in it blocks direct writes.

        Most transports are never given any, so this is called before the first time.
        """
        if self._fd >= 0 and not self._limited:
            assert self._out is not None
            self._limited = True
            send_buffer.limit_transport(self._out, 0)

    def _limit_unanswered(self, limit: int, keepalive: Any) -> None:
        """Limit the bytes beyond the last answered ping to ``limit``, with pings of ``keepalive``."""
        self._flow = FlowControl(limit, keepalive)

    def _cut_output(self) -> None:
        """Write nothing more."""
        self._out = None
        self._fd = -1  # another connection may get the same number

    def _detach(self) -> None:
        """Drop all output, because the transport is closed. Waiting senders are refused."""
        self._forget_event()
        self._cut_output()
        self._flow = self._on_finished = None
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.drop_data()
        self._refuse_waiters()
        self._tell_drained(False)

    def _fail_output(self, exc: BaseException | None) -> None:
        """End the connection: it is unknown what the peer has received, or output cannot be kept.

        ``exc`` is reported; ``None`` if the caller reports it.
        """
        attached = self._out is not None
        self._cut_output()  # first: no byte may follow
        try:
            if attached:
                self._output_failed(exc)
        finally:
            self._detach()

    # --- data -------------------------------------------------------------------------------------

    def _try_queue(self, entry: bytes | EncodedMessage) -> bool:
        """Queue a message if there is space, after a flush if necessary. Return False if not.

        ``entry`` is one frame, or an :class:`EncodedMessage`. It leaves with the next :meth:`_flush`: call
        :meth:`_kick_output`, too.
        """
        size = entry.size if isinstance(entry, EncodedMessage) else len(entry)
        if self._waiters is not None or self._in_pieces:
            return False
        queue = self._queue
        if queue is not None and not queue.has_space(size):
            if not Channel._can_queue(self, size):
                return False
            queue = self._queue
        if queue is None or self._paused or self._compressor is not None:
            Channel._enter(self, entry, size)
        else:
            queue.append(entry, size)
        return True

    def _can_queue(self, size: int) -> bool:
        """Return True if :meth:`_try_queue` would accept a message of ``size`` bytes. Flush if that makes space."""
        if self._waiters is not None or self._in_pieces:
            return False
        if not self._has_space(size):
            self._write_out()
            return self._waiters is None and self._has_space(size)
        return True

    def _try_queue_shared(self, frame: bytes | memoryview, size: int) -> bool:
        """Queue one message of a broadcast, to leave at the end of this loop iteration.

        Return False if that takes more than an append: call :meth:`_try_queue` and :meth:`_kick_output` then.
        """
        if self._paused or self._in_pieces or self._waiters is not None or self._compressor is not None:
            return False
        queue = self._queue
        if queue is None:
            queue = self._queue = self._state.lend_queue(self._most_messages, self._most_bytes)
        elif not queue.has_space(size):
            return False
        queue.messages.append(frame)
        queue.bytes += size
        if not self._dirty:
            self._state.mark_dirty(self)
            self._dirty = True
        return True

    def _is_stuck(self, size: int) -> bool:
        """Return True if a message of ``size`` bytes has no space, and nothing can leave to make space."""
        return self._paused and (self._waiters is not None or self._in_pieces or not self._has_space(size))

    def _enter(self, entry: Any, size: int) -> None:
        """Queue a message: compressed first, if that takes a context which all accepted messages share."""
        if self._compressor is not None and type(entry) is EncodedMessage:
            entry = self._compressor.enter(entry)
            size = entry.size
        queue = Channel._fill(self)
        queue.append(entry, size)
        if self._paused:
            queue.date()

    # --- a message in fragments -------------------------------------------------------------------

    def _begin_pieces(self) -> bool:
        """Begin a message in fragments. Return False if another one is being sent, or others wait for space."""
        if self._waiters is not None or self._in_pieces:
            return False
        self._in_pieces = True
        return True

    def _end_pieces(self) -> None:
        """End the message in fragments, complete or not: others may begin."""
        self._in_pieces = False
        self._admit()

    # --- control frames ---------------------------------------------------------------------------

    def _queue_ping(self, frame: bytes) -> None:
        """Queue a ping ahead of all data."""
        if not self._is_closing():
            Channel._fill(self).add_control(frame)

    def _queue_pong(self, frame: bytes) -> None:
        """Queue a pong. While the socket takes no bytes only the newest one is kept (section 5.5.3)."""
        if not self._is_closing():
            # Pongs still leave while data waits for an answer only.
            Channel._fill(self).add_pong(frame, only_newest=self._paused and self._held != _ANSWER)

    def _is_closing(self) -> bool:
        """Return True if a close frame was queued: no control frame may follow."""
        return self._finished or (self._queue is not None and self._queue.closing is not None)

    # --- waiting ----------------------------------------------------------------------------------

    def _when_empty(self, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` when all queued data has left, ``done(False)`` when it never will."""
        if self._out is None:
            done(False)
        elif not self._paused and self._queue is None:
            done(True)
        elif self._drains is None:
            self._drains = [done]
        else:
            self._drains.append(done)

    def _tell_drained(self, good: bool) -> None:
        drains, self._drains = self._drains, None
        while drains:
            self._call_done(drains.pop(0), good)

    def _call_done(self, done: Callable[[bool], None], good: bool) -> None:
        """Call ``done(good)``. Report its failure, so that others are called, too."""
        try:
            done(good)
        except Exception as exc:
            self._state._report(exc)

    def _admit(self) -> None:
        """Accept messages that wait for space."""
        if self._waiters is not None:
            waiters.admit(self)

    def _refuse_waiters(self) -> None:
        """Refuse all messages that wait for space."""
        if self._waiters is not None:
            waiters.refuse(self)

    # --- the end ----------------------------------------------------------------------------------

    def _finish_output(self, close_frame: bytes, on_finished: Callable[[], None]) -> None:
        """Send ``close_frame`` behind all accepted messages. Waiting senders are refused.

        ``on_finished()`` is called when the transport has taken the close frame.
        """
        if self._held & _ANSWER:
            self._release_answer()
            self._paused = self._held != 0
        Channel._fill(self).closing = close_frame
        self._on_finished = on_finished
        self._in_pieces = False  # a message that was not complete never will be
        self._refuse_waiters()
        self._write_out()

    def _drop_output(self) -> None:
        """Drop all queued data. Control frames and a close frame stay."""
        if self._queue is not None:
            self._queue.drop_data()
            Channel._return_queue(self)
        self._refuse_waiters()

    def _write_last(self) -> None:
        """Write the close frame although the transport is full: it is small, and the last frame."""
        if self._paused:
            self._paused = False
            self._write_out()

    # --- causes of waiting ------------------------------------------------------------------------

    def _pause_output(self, cause: int = _TRANSPORT) -> None:
        """Stop writing: the transport holds more than its high-water mark, or for another cause."""
        self._held |= cause
        self._paused = True
        if self._queue is not None:
            if cause == _TRANSPORT:
                self._queue.keep_newest_pong()
            self._queue.date()

    def _output_drained(self) -> bool:
        """Note that the transport has space again. Return True if data may leave: call :meth:`_resume_output` then."""
        return self._released(_TRANSPORT)

    def _ping_answered(self, place: int) -> bool:
        """Note the answer to a ping. Return True if data may leave for that: call :meth:`_resume_output` then."""
        if self._flow is None or not self._flow.answered(place) or not self._held & _ANSWER:
            return False
        self._release_answer()
        return not self._held

    def _release_answer(self) -> None:
        self._held &= _ANY - _ANSWER
        if self._flow is not None:
            self._flow.release()

    def _released(self, cause: int) -> bool:
        """Note that data does not wait for ``cause`` any more. Return True if it waits for nothing else."""
        self._held &= _ANY - cause
        if self._held == _ANSWER and not self._dirty and self._queue is not None and self._queue.has_control():
            self._dirty = True
            self._state.mark_dirty(self)
        return not self._held

    def _resume_output(self) -> None:
        """Write queued frames at the end of this loop iteration: the transport has space again.

        A write within the call of asyncio could end the connection twice, if it fails.
        """
        if self._held:
            return
        self._paused = False
        if not self._dirty and (self._drains is not None or self._queue is not None):
            self._state.mark_dirty(self)
            self._dirty = True

    def _await_event(self) -> None:
        """Pause until the kernel reports the socket as writable."""
        self._event_fd = send_buffer.watch(self._out, self._writable)
        if self._event_fd >= 0:
            self._pause_output(_EVENT)

    def _writable(self) -> None:
        """Note that the kernel reports the socket as writable."""
        self._forget_event()
        if self._released(_EVENT):
            self._may_write()

    def _forget_event(self) -> None:
        fd, self._event_fd = self._event_fd, -1
        if fd >= 0:
            send_buffer.unwatch(fd)

    # --- the time of a write ----------------------------------------------------------------------

    def _kick_output(self, at_once: bool) -> None:
        """Write new output now with ``at_once`` and if it is the first in this loop iteration, else at its end."""
        if self._paused:
            if self._held == _ANSWER and self._queue is not None and self._queue.has_control():
                self._write_out()
        elif not self._dirty:
            if at_once and not self._hot:
                self._write_out()
                self._hot = True  # a second message in this iteration leaves with those behind it
            else:
                self._state.mark_dirty(self)
                self._dirty = True

    def _gather(self) -> None:
        """Write the output of a slow read together with that of other connections in this loop iteration."""
        if self._gathered:
            return
        if self._dirty or self._paused or self._queue is None:
            self._write_out()
        else:
            self._dirty = self._gathered = True  # first: the call may flush it at once
            self._state.gather(self)

    def _flush(self) -> None:
        """Write all queued frames: :meth:`_write_out`, for callers that are not compiled."""
        self._write_out()

    def _write_out(self) -> None:
        """Write queued frames until the queue is empty or the transport asks to wait. A failure ends the connection."""
        self._dirty = self._hot = self._gathered = False
        try:
            if self._paused and self._held == _ANSWER:
                self._write_control()
                return
            while self._queue is not None and not self._paused and self._out is not None:
                if self._out.is_closing():
                    return
                self._write_some(self._queue)
                if self._finished:
                    finished, self._on_finished = self._on_finished, None
                    if finished is not None:
                        finished()
                    break
                if self._waiters is not None:
                    self._admit()
            if self._drains is not None and not self._paused and self._queue is None:
                self._tell_drained(True)
        except BaseException as exc:
            self._fail_output(exc)
            if not isinstance(exc, Exception):
                raise

    # --- writing ----------------------------------------------------------------------------------

    def _write_some(self, queue: SendQueue) -> None:
        """Write queued frames once. There is a transport."""
        if queue.closing is not None:
            self._write(queue, queue.plan(WRITE_SIZE))
        elif self._flow is not None:
            self._write_within(queue, self._flow)
        elif queue.is_plain() and self._past():
            self._write_messages(queue)
        else:
            self._write(queue, queue.plan(WRITE_SIZE))
        if self._waits_for_event and not self._finished and not self._held & (_EVENT | _ANSWER):
            self._await_event()

    def _write_within(self, queue: SendQueue, flow: FlowControl) -> None:
        """Write waiting data once, up to the next ping."""
        room = flow.room()
        if room <= 0 and queue.has_data():
            self._pause_output(_ANSWER)
            flow.hold()
            self._write_control()
            return
        written = self._written
        self._write(queue, queue.plan(room))
        ping = flow.wrote(self._written - written)
        if ping is not None and self._out is not None:
            self._queue_ping(ping)

    def _write_control(self) -> None:
        """Write pings and pongs only."""
        queue = self._queue
        if queue is not None and queue.has_control() and self._out is not None and not self._out.is_closing():
            self._write(queue, queue.plan_control())

    def _past(self) -> bool:
        """Return True if frames may go past the transport to the socket: it has one, and holds nothing."""
        if self._handed and self._fd >= 0 and self._out is not None:
            self._handed = self._out.get_write_buffer_size() != 0
        return self._fd >= 0 and not self._handed

    def _write_messages(self, queue: SendQueue) -> None:
        """Write all messages of the queue, and nothing else, directly: the common case."""
        sent = sendmsg.send(self._fd, queue.messages)
        if sent < 0:
            self._written += queue.sent_all()
            self._queue = None
            self._state.give_back(queue)
        else:
            self._cut(queue, queue.plan_all(), sent)

    def _write(self, queue: SendQueue, batch: list[bytes | memoryview]) -> None:
        """Write the planned ``batch`` directly, or through the transport."""
        if not batch:
            Channel._return_queue(self)  # it was made for an entry that found no memory
            return
        if self._past():
            sent = sendmsg.send(self._fd, batch)
            if sent < 0:
                self._left(queue, len(batch))
            else:
                self._cut(queue, batch, sent)
            return
        transport = self._out
        assert transport is not None
        self._hold_little()
        self._left(queue, len(batch))
        self._handed = True
        if len(batch) == 1:
            Context().run(transport.write, batch[0])
        elif (self._fd < 0 and type(transport) is not MaskingTransport) or _WRITELINES_HAS_NO_BOUND:
            Context().run(transport.write, b"".join(batch))  # a transport with TLS makes a record of each buffer
        else:
            Context().run(transport.writelines, batch)

    def _cut(self, queue: SendQueue, batch: list[bytes | memoryview], sent: int) -> None:
        """Give the rest of a frame to the transport: the socket took only ``sent`` bytes of ``batch``."""
        at = 0
        while sent >= len(batch[at]):
            sent -= len(batch[at])
            at += 1
        stop = at + 1
        if is_header(batch[at]):
            stop += 1
        self._hold_little()
        self._left(queue, stop)
        self._handed = True
        transport = self._out
        assert transport is not None
        Context().run(transport.write, memoryview(batch[at])[sent:])
        for buffer in batch[at + 1 : stop]:
            Context().run(transport.write, buffer)

    def _left(self, queue: SendQueue, count: int) -> None:
        """Count the first ``count`` buffers of the plan, which have left."""
        self._written += queue.left(count)
        if queue.closing == b"":
            self._finished = True
            queue.closing = None
        Channel._return_queue(self)
