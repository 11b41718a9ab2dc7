"""Work that others must not wait for, a slice at a time (layer 3).

A message of some kilobytes may take a tenth of a second to inflate, and peers may send many. Such work stands in one
line for the whole loop: one slice of it, then for as long everything else, whoever the work is for.

What is done at once, by those who have used little of their own time, is counted here, too: many who begin together
must not hold the loop either. Nor may they fill the memory with the beginnings of messages: with too much of that, what
was begun is completed first.

Invariants: each one in line has its turn; the line takes no more than its share of the loop's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from time import monotonic

from .. import limits

__all__ = ["Turns", "turns_of"]

_ATTRIBUTE = "_plumews_turns"


class Turns:
    """The line of one loop."""

    __slots__ = ("_free_at", "_line", "_loop", "_scheduled", "held", "used_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: deque[tuple[Callable[[float], None], float]] = deque()
        self._scheduled = False
        self._free_at = 0.0  # when the next turn may be had
        #: Until when all together have used their share of time for what was done at once.
        self.used_until = 0.0
        #: Bytes of all messages of which only the beginning was made.
        self.held = 0

    @property
    def full(self) -> bool:
        """Whether these are so many that nothing else is to be begun."""
        return self.held > limits.INFLATED_PARTS

    def is_free(self, now: float) -> bool:
        """Whether more may be done at once than what is short."""
        return self.used_until - now <= limits.INFLATE_BURST and not self.full

    def ask(self, take: Callable[[float], None], share: float, *, first: bool = False) -> None:
        """Call ``take(until)`` when it is its turn: it works until that time of `time.monotonic`, and may ask again.

        ``share`` is the share of time that it wants to take at most; ``first``: before all who are in line.
        """
        if first:
            self._line.appendleft((take, share))
        else:
            self._line.append((take, share))
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled or not self._line:
            return
        delay = self._free_at - monotonic()
        if delay > 0:
            self._loop.call_later(delay, self._next, context=Context())
        else:
            self._loop.call_soon(self._next, context=Context())
        self._scheduled = True

    def _next(self) -> None:
        take, share = self._line.popleft()
        began = monotonic()
        try:
            take(began + limits.FAN_OUT_SLICE)
        finally:
            ended = monotonic()
            self._free_at = ended + (ended - began) * (1 / share - 1)
            self._scheduled = False
            self._schedule()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """The line of ``loop``, made when it is first asked for."""
    turns = getattr(loop, _ATTRIBUTE, None)
    if turns is None:
        turns = Turns(loop)
        setattr(loop, _ATTRIBUTE, turns)
    assert isinstance(turns, Turns)
    return turns
