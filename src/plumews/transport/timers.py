"""All deadlines of one event loop on one heap with one timer (layer 3).

Thousands of connections each have a next ping, a close timeout, a waiting sender; a ``call_later`` for each
would cost memory and a heap operation in the loop for every one. Here a deadline is cancelled by letting go
of its callback, and the loop's timer is only armed while something is due.

Invariants: a cancelled deadline holds no reference to what it was for; callbacks run in an empty context, whatever the
context in which they were asked for.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["Deadline", "Timers", "clock"]

#: CPU time of this thread, in seconds: what time slices are measured by.
clock = time.thread_time

#: Deadlines this close together fire in one wake-up; nothing here needs a finer clock.
_GRAIN = 0.002

#: Below this many entries cancelled ones are not worth collecting.
_COMPACT_ABOVE = 64


class Deadline:
    """A callback due at a time of the loop's clock."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], Any]) -> None:
        self._timers: Timers | None = timers
        self.when = when
        self.callback: Callable[[], Any] | None = callback

    def __lt__(self, other: Deadline) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            timers, self._timers = self._timers, None
            if timers is not None:
                timers._cancelled()


class Timers:
    """The deadlines of one loop."""

    __slots__ = ("_handle", "_heap", "_horizon", "_live", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Deadline] = []
        self._live = 0
        self._handle: asyncio.TimerHandle | None = None
        #: What is due until then fires in the wake-up that is going on, or in the last one.
        self._horizon = -math.inf

    def __len__(self) -> int:
        """How many deadlines are due some day."""
        return self._live

    def time(self) -> float:
        """Now, in seconds of the loop's clock."""
        return self._loop.time()

    def at(self, when: float, callback: Callable[[], Any]) -> Deadline:
        """Call ``callback()`` at ``when`` (seconds of ``loop.time()``), or a grain (2 ms) around it.

        What a deadline asks for is never due in the same wake-up: the sockets are polled in between.
        """
        if when <= self._horizon:
            when = math.nextafter(self._horizon, math.inf)
        deadline = Deadline(self, when, callback)
        heapq.heappush(self._heap, deadline)
        self._live += 1
        if self._heap[0] is deadline or self._handle is None:
            try:
                self._arm(self._heap[0].when)
            except BaseException:
                deadline.cancel()  # the caller does not know it
                raise
        return deadline

    def after(self, delay: float, callback: Callable[[], Any]) -> Deadline:
        """Call ``callback()`` in ``delay`` seconds."""
        return self.at(self._loop.time() + delay, callback)

    def _arm(self, when: float) -> None:
        former, self._handle = self._handle, self._loop.call_at(when, self._wake, context=Context())
        if former is not None:
            former.cancel()

    def _cancelled(self) -> None:
        self._live -= 1
        if self._live == 0:
            self._heap.clear()
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
        elif len(self._heap) > _COMPACT_ABOVE and len(self._heap) > 2 * self._live:
            self._heap = [deadline for deadline in self._heap if deadline.callback is not None]
            heapq.heapify(self._heap)

    def _wake(self) -> None:
        fired = self._handle
        self._horizon = self._loop.time() + _GRAIN
        try:
            while self._heap and (self._heap[0].callback is None or self._heap[0].when <= self._horizon):
                deadline = heapq.heappop(self._heap)
                callback, deadline.callback, deadline._timers = deadline.callback, None, None
                if callback is not None:
                    self._live -= 1
                    self._call(callback)
        finally:  # also when a callback ends the program: what is still due may have to close connections
            if self._handle is fired:
                self._handle = None
                if self._heap:
                    self._arm(self._heap[0].when)

    def _call(self, callback: Callable[[], Any]) -> None:
        try:
            callback()
        except (Exception, asyncio.CancelledError) as exc:
            self._loop.call_exception_handler({"message": "a plumews deadline failed", "exception": exc})
