"""What all connections of one event loop share: receive buffer, timers, the flush, time slices (layer 3).

An idle connection keeps no receive buffer, and what many connections have to send leaves in one pass at
the end of the tick, not by a callback for each. The state lives on the loop itself, so that it goes when
the loop goes.

A task whose awaits never suspend would hold the loop for as long as it likes. All such awaits of a loop share one time
slice: when it is used up, each of them suspends until the loop has run everything else.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from time import monotonic
from typing import Any, Final

from .. import limits
from .read_waiter import ReadWaiter
from .timers import Timers

__all__ = ["Flushable", "LoopContext", "loop_context"]

_ATTRIBUTE: Final = "_plumews_state"

#: Flushes between two looks at the clock.
_STRIDE: Final = 64

#: Awaits between two looks at the clock, at first and at most; fewer while they take long.
_AWAITS: Final = 16
_MOST_AWAITS: Final = 32
#: How fast a long one is forgotten, with each look.
_DECAY: Final = 0.9


class Flushable:
    """Something with output that waits: a writer."""

    __slots__ = ()

    def flush(self) -> None:
        """Let it leave."""
        raise NotImplementedError

    def fail(self, exc: BaseException | None) -> None:
        """End the connection: its output cannot be right any more. Report ``exc``, if it is given."""
        raise NotImplementedError


class LoopContext:
    """The shared parts of one loop. What is in ``buffer`` holds until the next read: keep no view of it."""

    __slots__ = (
        "_dirty",
        "_flushed",
        "_flushing",
        "_gathered",
        "_gathered_until",
        "_lent",
        "_longest",
        "_looked_at",
        "_loop",
        "_queue",
        "_scheduled",
        "_slice_until",
        "_spare",
        "_used_up",
        "buffer",
        "in_batch",
        "left",
        "log_lines",
        "of_batch",
        "slicing",
        "stride",
        "timers",
        "view",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers = Timers(loop)
        self.buffer = bytearray(limits.READ_BUFFER)
        self.view = memoryview(self.buffer)
        self._dirty: list[Flushable] = []
        # The flush that is going on; the first `_flushed` are done. The two lists change places: that takes no memory.
        self._flushing: list[Flushable] = []
        self._flushed = 0
        self._gathered: list[Flushable] = []
        self._gathered_until = 0.0
        self._spare: list[list[Any]] = []
        self._lent = 0
        self._scheduled = False
        #: Whether a read is being handled: what is sent meanwhile leaves at its end.
        self.in_batch = False
        #: Awaits that may end without suspending before the clock is looked at, and of how many that is the rest.
        self.left = self.stride = _AWAITS
        #: Lines that this loop has logged lately (:mod:`plumews.conn.logs`).
        self.log_lines: Any = None
        #: Whether a time slice has begun, and whether it ends with the read that is being handled.
        self.slicing = self.of_batch = False
        self._used_up = False
        self._slice_until = self._looked_at = 0.0
        self._longest = 0.0  # seconds that such an await takes, with what its task does before the next one
        self._queue: list[ReadWaiter] = []  # of tasks that suspend because the slice is used up

    # --- time slices of awaits --------------------------------------------------------------------

    def turn(self) -> ReadWaiter | None:
        """Count an await that would end without suspending. Return what it must await first, mostly None."""
        self.left -= 1
        return None if self.left > 0 else self.look()

    def look(self) -> ReadWaiter | None:
        """Look at the clock: the rest of :meth:`turn`, whose first part stands where each message passes, too."""
        if not self._used_up:
            now = monotonic()
            if not self.slicing:
                self.slicing = True
                self._slice_until = now + limits.FAN_OUT_SLICE
                self.of_batch = self.in_batch
                if not self.in_batch:
                    self._loop.call_soon(self._end_slice, context=Context())
            else:
                self._longest = max((now - self._looked_at) / self.stride, self._longest * _DECAY, 1e-9)
                self.stride = max(1, int(min(limits.FAN_OUT_SLICE / 4 / self._longest, _MOST_AWAITS)))
                self._used_up = now >= self._slice_until
                if self._used_up and self.of_batch:
                    self.of_batch = False
                    self._loop.call_soon(self._end_slice, context=Context())
            self._looked_at = now
            self.left = self.stride
            if not self._used_up:
                return None
        waiting = ReadWaiter(self._loop)
        self._queue.append(waiting)
        self.left = 0
        return waiting

    def end_batch(self) -> None:
        """The read has been handled whose slice was not used up."""
        self.slicing = self.of_batch = False

    def _end_slice(self) -> None:
        """The loop has run everything else. The task that has used up the slice goes on behind the others."""
        self.slicing = self._used_up = False
        self.left = self.stride
        queue, self._queue = self._queue, []
        for waiting in queue[1:] + queue[:1]:
            waiting.tell()

    # --- the flush --------------------------------------------------------------------------------

    def mark_dirty(self, writer: Flushable) -> None:
        """Flush ``writer`` at the end of this tick. The writer sees to it that it is marked once.

        A writer that cannot be marked fails.
        """
        marked = False
        try:
            if not self._scheduled:
                self._schedule()
            self._dirty.append(writer)
            marked = True
        finally:
            if not marked:
                writer.fail(None)

    def gather(self, writer: Flushable) -> None:
        """Flush ``writer`` together with others that are gathered, at the end of this tick or after a time at most.

        They come before those that are dirty, which may be thousands.
        """
        now = monotonic()
        if not self._gathered:
            self._gathered_until = now + limits.GATHER_TIME
        marked = False
        try:
            if not self._scheduled:
                self._schedule()
            self._gathered.append(writer)
            marked = True
        finally:
            if not marked:
                writer.fail(None)
        if now >= self._gathered_until:
            self._flush_gathered()

    def _schedule(self) -> None:
        self._loop.call_soon(self._flush, context=Context())
        self._scheduled = True  # not before: if the call fails the next writer asks again

    def lend_queue(self, first: Any) -> list[Any]:
        """A list for the messages that one member of many is sent, with the ``first`` of them.

        A new one for each would have the garbage collector look at all connections again and again.
        """
        queue = self._spare.pop() if self._spare else []
        queue.append(first)
        self._lent += 1
        return queue

    def give_back(self, queue: list[Any]) -> None:
        """Nobody else has ``queue`` any more: keep it, if as many were lent."""
        if self._lent > 0:
            self._lent -= 1
            if len(self._spare) < limits.SPARE_QUEUES:
                queue.clear()
                self._spare.append(queue)

    def _flush(self) -> None:
        """One slice: thousands of system calls in a row would starve reads and pings."""
        self._scheduled = False
        try:
            while not self._flush_slice():
                pass  # one that failed is done, and those behind it have their flush
        finally:  # also when the handler of a signal has interrupted it
            if not self._scheduled and (self._dirty or self._gathered or self._flushing):
                self._schedule()

    def _flush_slice(self) -> bool:
        """Flush what is marked; False if one of them raised, and those behind it are still to be flushed."""
        flushed = self._flushed
        done = False
        try:
            if self._gathered:
                self._flush_gathered()
            if not self._flushing:
                self._dirty, self._flushing = self._flushing, self._dirty
            if self._flushing:
                until = monotonic() + limits.FAN_OUT_SLICE
                self._flush_until(until)
                if self._flushed == len(self._flushing):
                    self._flushing.clear()
                    self._flushed = 0
            done = True
        except Exception as exc:
            self._report(exc)
        return done or self._flushed == flushed

    def _flush_until(self, until: float) -> None:
        dirty, position = self._flushing, self._flushed
        look = position + _STRIDE
        while position < len(dirty):
            writer = dirty[position]
            position += 1
            self._flushed = position
            writer.flush()
            if position == look:
                if monotonic() >= until:
                    return
                look += _STRIDE

    def _flush_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        position = 0
        while position < len(gathered):
            writer = gathered[position]
            position += 1
            try:
                writer.flush()
            except BaseException as exc:
                if not isinstance(exc, Exception):
                    self._gathered += gathered[position:]
                self._report(exc)

    def _report(self, failure: BaseException) -> None:
        if not isinstance(failure, Exception):
            raise failure
        try:
            self._loop.call_exception_handler({"message": "a plumews flush failed", "exception": failure})
        except Exception:  # noqa: S110 - as without memory, which no log entry would help
            pass


def loop_context(loop: asyncio.AbstractEventLoop) -> LoopContext:
    """The state of ``loop``, made when it is first asked for."""
    state = getattr(loop, _ATTRIBUTE, None)
    if state is None:
        state = LoopContext(loop)
        setattr(loop, _ATTRIBUTE, state)
    assert isinstance(state, LoopContext)
    return state
