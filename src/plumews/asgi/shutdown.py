"""Close of all connections of a server that stops, a slice at a time.

uvicorn calls ``shutdown()`` of each connection in one iteration of the event loop. With thousands of them the loop
would do nothing else, so they are closed in time slices. A connection that fails does not keep the next from its close.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context

from ..transport.safe_calls import call_safely
from ..transport.timers import TimeSlice

__all__ = ["ShutdownQueue"]

#: Connections between two checks of the clock.
_STRIDE = 16


class ShutdownQueue:
    """Connections of one server to close, by the function that closes each."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, close: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call ``close()`` in one of the next iterations of ``loop``."""
        if self._loop is not loop:  # the configuration runs again, after a loop that ended within its shutdown
            self._loop = loop
            self._waiting.clear()
        self._waiting.append(close)
        if len(self._waiting) == 1:
            loop.call_soon(self._run, loop, context=Context())

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        time_slice = TimeSlice(_STRIDE)
        try:
            while self._waiting:
                call_safely("closing a connection", self._waiting.popleft())
                if time_slice.is_over():
                    break
        finally:  # also when a connection ends the program: the others are closed all the same
            if self._waiting:
                loop.call_soon(self._run, loop, context=Context())
