"""State that all connections of one event loop share: receive buffer, timers, the flush, the time slice of awaits.

An idle connection keeps no receive buffer. The output of many connections leaves in one flush at the end of the loop
iteration, and not in a callback for each. The context is an attribute of the loop and ends with it.

A task whose awaits never suspend would hold the loop for as long as it likes. All such awaits of a loop share one time
slice. When it is used up, each of them suspends until the loop has run everything else.
"""

from __future__ import annotations

import asyncio
import math
import sys
from contextvars import Context
from time import monotonic
from typing import Any, Final

from .. import limits
from .read_waiter import ReadWaiter
from .send_queue import SendQueue
from .timers import Timers, TimeSlice, clock

__all__ = ["Flushable", "LoopContext", "loop_context"]

_ATTRIBUTE: Final = "_plumews_context"

#: Channels that are flushed between two checks of the clock.
_STRIDE: Final = 64

#: Awaits between two checks of the clock: at first, and at most. Slow awaits lower the number.
_AWAITS: Final = 16
_MOST_AWAITS: Final = 32
#: Factor by which the measured time of a slow await decreases at each check.
_DECAY: Final = 0.9

#: Seconds that a connection with permessage-deflate waits for the output of others in the same loop iteration. A write
#: that wakes its reader costs half of what compressing 1 KiB does, and the writes right behind it a fraction of that.
GATHER_TIME: Final = 0.001

#: Send queues of one loop that are kept for the next broadcast, for as many members: about 600 KiB.
SPARE_QUEUES: Final = 2048


class Flushable:
    """Abstract base of what has queued output. `Channel` implements both methods."""

    __slots__ = ()

    def _write_out(self) -> None:
        """Write the queued output."""
        raise NotImplementedError  # abstract

    def _fail_output(self, exc: BaseException | None) -> None:
        """End the connection, because its output would be wrong. Report ``exc`` if it is given."""
        raise NotImplementedError  # abstract


class LoopContext:
    """Shared state of one event loop.

    The next read overwrites ``buffer``: keep no view of it. A read within the handling of another one, as a transport
    or a nested loop may cause, gets another buffer.
    """

    __slots__ = (
        "_checked_at",
        "_dirty",
        "_flushed",
        "_flushing",
        "_gathered",
        "_gathered_until",
        "_longest",
        "_loop",
        "_scheduled",
        "_slice_end",
        "_spare",
        "_suspended",
        "_used_up",
        "awaits_left",
        "awaits_per_check",
        "buffer",
        "done_future",
        "ends_read",
        "flushing",
        "in_batch",
        "in_slice",
        "inflate_queue",
        "log_lines",
        "plain_clock",
        "slice_ends_with_batch",
        "spare_memory",
        "suspension_watch",
        "timers",
        "tls_buffer",
        "tls_view",
        "turn",
        "view",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers = Timers(loop)
        self.buffer = bytearray(limits.READ_BUFFER)
        self.view = memoryview(self.buffer)
        self._dirty: list[Flushable] = []
        # Channels of the current flush, the first `_flushed` of which are done. The two lists are swapped: that
        # allocates no memory.
        self._flushing: list[Flushable] = []
        self._flushed = 0
        self._gathered: list[Flushable] = []
        self._gathered_until = 0.0
        self._spare: list[SendQueue] = []
        self._scheduled = False
        #: True while a read is being handled: its output leaves at the end of the read.
        self.in_batch = False
        #: Future that is done, made by the first short way that wakes a task.
        self.done_future: Any = None
        #: Number of the reads that short ways have handled.
        self.turn = 0
        #: True while the last message of a read is handled: nothing else of this read follows.
        self.ends_read = False
        #: True while the loop runs a flush.
        self.flushing = False
        #: True if the clock of the loop is :func:`time.monotonic`.
        self.plain_clock = _has_plain_clock(loop)
        #: Awaits that may still end without suspending before the clock is checked, and how many in all.
        self.awaits_left = self.awaits_per_check = _AWAITS
        #: True while a time slice is measured; the second one if it ends with the current read.
        self.in_slice = self.slice_ends_with_batch = False
        #: Log lines that this loop wrote last. :mod:`plumews.conn.logs` limits their rate.
        self.log_lines: Any = None
        #: Weak reference to the memory of the last large message, which the connections that received some hold.
        self.spare_memory: Any = None
        #: Watch of clients for a suspension of the machine.
        self.suspension_watch: Any = None
        #: Memory of the encrypted bytes of a read, and a view of it, made for the first connection with TLS.
        self.tls_buffer: Any = None
        self.tls_view: Any = None
        self._used_up = False
        self._slice_end = self._checked_at = 0.0
        self._longest = 0.0  # seconds of such an await, with the work of its task until the next one
        self._suspended: list[ReadWaiter] = []  # tasks that wait for the next time slice
        #: Queue of `plumews.deflate.inbound`, made for the first connection that compresses.
        self.inflate_queue: Any = None

    def replace_buffer(self) -> None:
        """Use another receive buffer from now on: the read that is being handled needs the bytes in this one."""
        self.buffer = bytearray(limits.READ_BUFFER)
        self.view = memoryview(self.buffer)

    # --- time slices of awaits --------------------------------------------------------------------

    def count_await(self) -> ReadWaiter | None:
        """Count an await that would end without suspending.

        Return an awaitable that it must await first, mostly ``None``.
        """
        self.awaits_left -= 1
        return None if self.awaits_left > 0 else self.check_slice()

    def check_slice(self) -> ReadWaiter | None:
        """Check the clock: the second half of :meth:`count_await`. Compiled hot paths inline the first half."""
        if not self._used_up:
            now = monotonic()
            if not self.in_slice:
                self.in_slice = True
                self._slice_end = now + limits.FAN_OUT_SLICE
                self.slice_ends_with_batch = self.in_batch
                if not self.in_batch:
                    self._loop.call_soon(self._end_slice, context=Context())
            else:
                self._longest = max((now - self._checked_at) / self.awaits_per_check, self._longest * _DECAY, 1e-9)
                self.awaits_per_check = max(1, int(min(limits.FAN_OUT_SLICE / 4 / self._longest, _MOST_AWAITS)))
                self._used_up = now >= self._slice_end
                if self._used_up and self.slice_ends_with_batch:
                    self.slice_ends_with_batch = False
                    self._loop.call_soon(self._end_slice, context=Context())
            self._checked_at = now
            self.awaits_left = self.awaits_per_check
            if not self._used_up:
                return None
        waiter = ReadWaiter(self._loop)
        self._suspended.append(waiter)
        self.awaits_left = 0
        return waiter

    def end_batch(self) -> None:
        """End the time slice of a read that did not use it up."""
        self.in_slice = self.slice_ends_with_batch = False

    def _end_slice(self) -> None:
        """Begin a new time slice: the loop has run everything else.

        The task that used up the last slice continues behind the others.
        """
        self.in_slice = self._used_up = False
        self.awaits_left = self.awaits_per_check
        waiters, self._suspended = self._suspended, []
        for waiter in waiters[1:] + waiters[:1]:
            waiter.wake()

    # --- the flush --------------------------------------------------------------------------------

    def mark_dirty(self, channel: Flushable) -> None:
        """Flush ``channel`` at the end of this loop iteration. The channel calls this once for each flush.

        If there is no memory to mark a channel, its connection ends.
        """
        marked = False
        try:
            if not self._scheduled:
                self._schedule()
            self._dirty.append(channel)
            marked = True
        finally:
            if not marked:
                channel._fail_output(None)

    def gather(self, channel: Flushable) -> None:
        """Flush ``channel`` together with other gathered channels, within `GATHER_TIME`.

        The flush comes at the end of this loop iteration at the latest, before the dirty channels, which may be
        thousands.
        """
        now = monotonic()
        if not self._gathered:
            self._gathered_until = now + GATHER_TIME
        marked = False
        try:
            if not self._scheduled:
                self._schedule()
            self._gathered.append(channel)
            marked = True
        finally:
            if not marked:
                channel._fail_output(None)
        if now >= self._gathered_until:
            self._flush_gathered()

    def _schedule(self) -> None:
        self._loop.call_soon(self._flush, context=Context())
        self._scheduled = True  # not before: if the call fails the next channel asks again

    def lend_queue(self, most_messages: int, most_bytes: int) -> SendQueue:
        """Return an empty send queue with these bounds.

        New queues for each broadcast would make the garbage collector walk all connections again and again.
        """
        if self._spare:
            queue = self._spare.pop()
            queue.most_messages = most_messages
            queue.most_bytes = most_bytes
            return queue
        return SendQueue(most_messages, most_bytes)

    def give_back(self, queue: SendQueue) -> None:
        """Keep ``queue``, which is empty and which nothing else refers to, for :meth:`lend_queue`."""
        if len(self._spare) < SPARE_QUEUES:
            self._spare.append(queue)

    def _flush(self) -> None:
        """Flush for one time slice: thousands of system calls in a row would starve reads and pings."""
        self._scheduled = False
        self.flushing = True
        try:
            while not self._flush_slice():
                pass  # continue behind the channel that failed
        finally:  # also when a signal handler raised
            self.flushing = False
            if not self._scheduled and (self._dirty or self._gathered or self._flushing):
                self._schedule()

    def _flush_slice(self) -> bool:
        """Flush marked channels. Return False if one raised and others behind it are still to be flushed."""
        flushed = self._flushed
        done = False
        try:
            if self._gathered:
                self._flush_gathered()
            if not self._flushing:
                self._dirty, self._flushing = self._flushing, self._dirty
            if self._flushing:
                self._flush_until(TimeSlice().end if len(self._flushing) > _STRIDE else math.inf)
                if self._flushed == len(self._flushing):
                    self._flushing.clear()
                    self._flushed = 0
            done = True
        except Exception as exc:
            self._report(exc)
        return done or self._flushed == flushed

    def _flush_until(self, end: float) -> None:
        channels, position = self._flushing, self._flushed
        check = position + _STRIDE
        while position < len(channels):
            channel = channels[position]
            position += 1
            self._flushed = position
            channel._write_out()
            if position == check:
                if clock() >= end:
                    return
                check += _STRIDE

    def _flush_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        position = 0
        while position < len(gathered):
            channel = gathered[position]
            position += 1
            try:
                channel._write_out()
            except BaseException as exc:
                if not isinstance(exc, Exception):
                    self._gathered += gathered[position:]
                self._report(exc)

    def _report(self, failure: BaseException) -> None:
        if not isinstance(failure, Exception):
            raise failure
        try:
            self._loop.call_exception_handler({"message": "a plumews flush failed", "exception": failure})
        except Exception:  # noqa: S110 - without memory, for example, a log entry would fail, too
            pass


def loop_context(loop: asyncio.AbstractEventLoop) -> LoopContext:
    """Return the context of ``loop``. The first call makes it."""
    context = getattr(loop, _ATTRIBUTE, None)
    if context is None:
        context = LoopContext(loop)
        setattr(loop, _ATTRIBUTE, context)
    assert isinstance(context, LoopContext)
    return context


def _has_plain_clock(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if ``loop.time()`` reads the clock of :func:`time.monotonic`, as asyncio's and uvloop's loops do.

    On macOS the clock of uvloop goes on while the machine sleeps, and that of Python does not.
    """
    uvloop = None if sys.platform == "darwin" else sys.modules.get("uvloop")
    known = [asyncio.BaseEventLoop.time] if uvloop is None else [asyncio.BaseEventLoop.time, uvloop.Loop.time]
    return getattr(type(loop), "time", None) in known and "time" not in getattr(loop, "__dict__", ())
