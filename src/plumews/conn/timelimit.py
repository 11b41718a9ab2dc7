"""A time limit that may come nearer while something is under way (layer 3).

For ends that several may ask for, each with its own idea of how long it may take: the shortest counts. Invariant: what
is bounded here ends at the limit, however it moved; it never moves away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from ..transport.loop_context import loop_context
from ..transport.timers import Deadline

__all__ = ["TimeBudget"]


class TimeBudget:
    """The time from now until ``seconds`` later, on the running loop. :meth:`end` it when it is of no use any more."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers = loop_context(loop).timers
        self._over: asyncio.Future[None] = loop.create_future()
        self._deadline: Deadline | None = None
        self._when = self._timers.time() + seconds
        self._arm(seconds)

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self._over.done()

    @property
    def left(self) -> float:
        """Seconds until it is."""
        return 0.0 if self.over else max(0.0, self._when - self._timers.time())

    def hasten(self, seconds: float) -> None:
        """Bring the limit nearer, if ``seconds`` from now is before it."""
        if not self.over and self._timers.time() + seconds < self._when:
            self._when = self._timers.time() + seconds
            self._arm(seconds)

    def end(self) -> None:
        """Forget the limit: it will not be reached."""
        if self._deadline is not None:
            self._deadline.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the limit."""
        if not self.over:
            await asyncio.wait([self._over], timeout=seconds)

    async def bound(self, work: Coroutine[Any, Any, object], seconds: float | None = None) -> bool:
        """Run ``work`` until it is done, the limit is reached, or ``seconds`` are over; whether it is done."""
        if self.over:
            work.close()
            return False
        task = asyncio.ensure_future(work)
        ends: list[asyncio.Future[Any]] = [task, self._over]
        try:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _arm(self, seconds: float) -> None:
        self.end()
        if seconds <= 0:
            self._over.set_result(None)
        else:
            self._deadline = self._timers.at(self._when, lambda: self._over.set_result(None))
