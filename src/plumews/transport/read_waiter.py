"""What a reader awaits until there is something to read (layer 3).

Like a future that has no result, with one difference: it can let its task go on there and then, instead of in the next
turn of the loop. So an ``async for`` handles what a read has brought while that read is being handled, and what it
answers leaves in the same write. asyncio's tasks take anything that is like a future in the way of
``asyncio.isfuture``; cancelling works as it does there. Invariant: one task waits, and goes on once.
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
    """Await it once. Somebody calls :meth:`tell` or :meth:`tell_now`, once."""

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

    # --- for who tells ----------------------------------------------------------------------------

    def tell(self) -> None:
        """Let the task go on in the next turn of the loop."""
        if not self._done:
            self._done = True
            self._schedule()

    def tell_now(self) -> None:
        """Let the task go on before this returns; in the next turn if another task is at work."""
        if self._done:
            return
        self._done = True
        if self._callback is None or self._context is None or _current_task(self._loop) is not None:
            self._schedule()
            return
        callback, self._callback = self._callback, None
        self._context.run(callback, self)

    def _schedule(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            self._loop.call_soon(callback, self, context=self._context)

    # --- for the task that awaits it --------------------------------------------------------------

    def step(self) -> Any:
        """Wait, or go on."""
        if not self._done:
            if self._callback is not None:
                raise RuntimeError("one task waits here, not two")
            self._asyncio_future_blocking = True
            return self
        self.over = True
        return self.result()

    def result(self) -> None:
        """``None`` when the task may go on; ``CancelledError`` if it was cancelled."""
        if not self._done:
            raise asyncio.InvalidStateError("nothing has come yet")
        if self._cancelled:
            raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))

    def done(self) -> bool:
        """Whether the waiting is over."""
        return self._done

    def cancelled(self) -> bool:
        """Whether it ended by :meth:`cancel`."""
        return self._cancelled

    def cancel(self, msg: Any = None) -> bool:
        """End the waiting with ``CancelledError``; False if it is over."""
        if self._done:
            return False
        self._done = self._cancelled = True
        self._message = msg
        self._schedule()
        return True

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """What lets the task go on."""
        self._callback = callback
        self._context = context
        if self._done:
            self._schedule()

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Forget ``callback``; how many were forgotten."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = None
        return 1

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the task."""
        return self._loop
