"""What all connections of one event loop share: receive buffer, timers, the flush (layer 3).

An idle connection keeps no receive buffer, and what many connections have to send leaves in one pass at
the end of the tick, not by a callback for each. The state lives on the loop itself, so that it goes when
the loop goes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from . import limits
from .timers import Timers

__all__ = ["Flushable", "LoopState", "loop_state"]

_ATTRIBUTE: Final = "_plumews_state"

#: Flushes between two looks at the clock.
_STRIDE: Final = 64


class Flushable:
    """Something with output that waits: a writer."""

    __slots__ = ()

    def flush(self) -> None:
        """Let it leave."""
        raise NotImplementedError


class LoopState:
    """The shared parts of one loop. What is in ``buffer`` holds until the next read: keep no view of it."""

    __slots__ = ("_dirty", "_loop", "_scheduled", "buffer", "in_batch", "timers", "view")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers = Timers(loop)
        self.buffer = bytearray(limits.READ_BUFFER)
        self.view = memoryview(self.buffer)
        self._dirty: list[Flushable] = []
        self._scheduled = False
        #: Whether a read is being handled: what is sent meanwhile leaves at its end.
        self.in_batch = False

    def mark_dirty(self, writer: Flushable) -> None:
        """Flush ``writer`` at the end of this tick. The writer sees to it that it is marked once."""
        self._dirty.append(writer)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One slice: thousands of system calls in a row would starve reads and pings."""
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        until = time.monotonic() + limits.FAN_OUT_SLICE
        for position, writer in enumerate(dirty, 1):
            try:
                writer.flush()
            except Exception as exc:
                self._loop.call_exception_handler({"message": "a plumews flush failed", "exception": exc})
            if position % _STRIDE == 0 and position < len(dirty) and time.monotonic() >= until:
                self._dirty = dirty[position:] + self._dirty
                self._schedule()
                return


def loop_state(loop: asyncio.AbstractEventLoop) -> LoopState:
    """The state of ``loop``, made when it is first asked for."""
    state = getattr(loop, _ATTRIBUTE, None)
    if state is None:
        state = LoopState(loop)
        setattr(loop, _ATTRIBUTE, state)
    assert isinstance(state, LoopState)
    return state
