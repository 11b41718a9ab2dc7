"""Deadlines and time slices of one event loop.

All deadlines of a loop share one heap and one timer: a ``call_later`` for each ping, close timeout and waiting sender
would cost memory and a heap operation in the loop. A timer that no deadline needs any more stays armed: it fires once
in vain, or serves the next deadline. Most deadlines are cancelled, so setting and cancelling are compiled with Cython.
A time slice bounds how long one piece of work may hold the loop.

Invariants: a cancelled deadline refers to nothing. Callbacks run in an empty context and not in that of the caller.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any

from .. import limits

__all__ = ["Deadline", "TimeSlice", "Timers", "clock"]

#: CPU time of this thread in seconds, the clock of time slices. A machine that is busy with something else must not cut
#: the work into smaller pieces, and the clock of some loops does not advance within a callback.
clock = time.thread_time

#: Seconds within which deadlines fire in one wake-up. No deadline needs a finer clock.
_GRAIN = 0.002

#: Heap entries above which cancelled ones are removed.
_COMPACT_ABOVE = 64


class Deadline:
    """Callback that is due at a time of the loop's clock."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], Any]) -> None:
        self._timers: Timers | None = timers
        self.when = when
        self.callback: Callable[[], Any] | None = callback

    def __lt__(self, other: Deadline) -> bool:
        return self._is_before(other)

    def _is_before(self, other: Deadline) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Drop the callback. Do nothing if it has run or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            timers, self._timers = self._timers, None
            if timers is not None:
                timers._cancelled()


class TimeSlice:
    """Time that one piece of work may take, 4 ms, before it lets others go on.

    A check of the clock costs a system call: there is one for ``stride`` calls of :meth:`is_over`. Compiled loops
    compare :data:`clock` with ``end`` themselves.
    """

    __slots__ = ("_calls", "_stride", "end")

    def __init__(self, stride: int = 1) -> None:
        self._stride = stride
        self._calls = 0
        self.end = clock() + limits.FAN_OUT_SLICE

    def is_over(self) -> bool:
        """Return whether the slice is used up, as far as the last check of the clock tells."""
        self._calls += 1
        return self._calls % self._stride == 0 and clock() >= self.end


class Timers:
    """Deadlines of one loop."""

    __slots__ = ("_armed_for", "_handle", "_heap", "_horizon", "_live", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Deadline] = []
        self._live = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = math.inf  # the time at which it fires
        #: Deadlines up to this time fire in the current wake-up, or fired in the last one.
        self._horizon = -math.inf

    def __len__(self) -> int:
        """Return the number of deadlines that are neither cancelled nor over."""
        return self._live

    def time(self) -> float:
        """Return the time of the loop's clock in seconds."""
        return self._loop.time()

    def at(self, when: float, callback: Callable[[], Any]) -> Deadline:
        """Call ``callback()`` at ``when`` (seconds of ``loop.time()``), up to 2 ms early.

        A deadline that a callback of a deadline sets never fires in the same wake-up: sockets are polled in between.
        """
        if when <= self._horizon:
            when = math.nextafter(self._horizon, math.inf)
        deadline = Deadline(self, when, callback)
        heappush(self._heap, deadline)
        self._live += 1
        if self._handle is None or when < self._armed_for:
            try:
                self._arm()
            except BaseException:
                deadline.cancel()  # the caller never gets it
                raise
        return deadline

    def after(self, delay: float, callback: Callable[[], Any]) -> Deadline:
        """Call ``callback()`` in ``delay`` seconds, up to 2 ms early."""
        return self.at(self._loop.time() + delay, callback)

    def _arm(self) -> None:
        """Let the loop wake up for the first deadline."""
        when = self._heap[0].when
        former, self._handle = self._handle, self._loop.call_at(when, self._wake, context=Context())
        self._armed_for = when
        if former is not None:
            former.cancel()

    def _cancelled(self) -> None:
        self._live -= 1
        if self._live == 0:
            self._heap.clear()
        elif len(self._heap) > _COMPACT_ABOVE and len(self._heap) > 2 * self._live:
            self._heap = [deadline for deadline in self._heap if deadline.callback is not None]
            heapq.heapify(self._heap)

    def _wake(self) -> None:
        fired = self._handle
        self._horizon = self._loop.time() + _GRAIN
        try:
            while self._heap and (self._heap[0].callback is None or self._heap[0].when <= self._horizon):
                deadline = heappop(self._heap)
                callback, deadline.callback, deadline._timers = deadline.callback, None, None
                if callback is not None:
                    self._live -= 1
                    self._call(callback)
        finally:  # also when a callback ends the program: deadlines may still have to close connections
            if self._handle is fired:
                self._handle = None
                if self._heap:
                    self._arm()

    def _call(self, callback: Callable[[], Any]) -> None:
        try:
            callback()
        except (Exception, asyncio.CancelledError) as exc:
            self._loop.call_exception_handler({"message": "a plumews deadline failed", "exception": exc})
