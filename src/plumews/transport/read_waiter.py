"""Awaitable of a reader that waits for input.

It acts like a future without a result, but :meth:`ReadWaiter.wake_now` resumes the waiting task at once and not in the
next iteration of the loop. An ``async for`` thus answers a message in the write that ends its read. asyncio's tasks
accept any object that passes ``asyncio.isfuture``. Invariant: one task waits, and is resumed once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .awaitable import StepAwaitable

__all__ = ["ReadWaiter"]

_current_task = asyncio.current_task


class ReadWaiter(StepAwaitable):
    """Awaitable for one task. :meth:`wake` or :meth:`wake_now` resumes the task."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_done", "_loop", "_message")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._prepare(loop)

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over = False
        self._asyncio_future_blocking = False
        self._loop = loop
        self._done = False
        self._cancelled = False
        self._message: Any = None
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None

    # --- for the source of the input --------------------------------------------------------------

    def wake(self) -> None:
        """Resume the task in the next iteration of the loop."""
        if not self._done:
            self._done = True
            self._schedule()

    def wake_now(self) -> None:
        """Resume the task before this returns; in the next iteration if another task is running."""
        if self._done:
            return
        self._done = True
        if self._callback is None or self._context is None or _current_task(self._loop) is not None:
            self._schedule()
            return
        callback, self._callback = self._callback, None
        context, self._context = self._context, None
        context.run(callback, self)

    def _schedule(self) -> None:
        callback, self._callback = self._callback, None
        context, self._context = self._context, None  # whatever its variables hold is free
        if callback is not None:
            self._loop.call_soon(callback, self, context=context)

    # --- for the task that waits ------------------------------------------------------------------

    def step(self) -> Any:
        """Return self until it is woken, then end."""
        if not self._done:
            if self._callback is not None:
                raise RuntimeError("one task waits here, not two")
            self._asyncio_future_blocking = True
            return self
        self.over = True
        return self.result()

    def result(self) -> None:
        """Return ``None`` when the task may go on. Raise ``CancelledError`` or ``InvalidStateError`` otherwise."""
        if not self._done:
            raise asyncio.InvalidStateError("nothing has come yet")
        if self._cancelled:
            raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))

    def done(self) -> bool:
        """Return whether the wait is over."""
        return self._done

    def cancelled(self) -> bool:
        """Return whether :meth:`cancel` ended the wait."""
        return self._cancelled

    def cancel(self, msg: Any = None) -> bool:
        """End the wait with ``CancelledError``. Return False if it is over."""
        if self._done:
            return False
        self._done = self._cancelled = True
        self._message = msg
        self._schedule()
        return True

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Set the function that resumes the task."""
        self._callback = callback
        self._context = context
        if self._done:
            self._schedule()

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Remove ``callback``. Return 1 if it was set, else 0."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = None
        return 1

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task."""
        return self._loop
