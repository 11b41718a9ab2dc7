"""How many bytes may wait in the queues of all members of a hub together (layer 4).

What is queued is added up; what has left is not seen. So the sum is an upper bound, and only when it passes the limit
the members that have a backlog are looked at, at most once a tick. Invariant: at the end of a tick in which a broadcast
took a hub over its limit, no more than the limit waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from .. import limits
from ..conn.connection import Conn

__all__ = ["ByteBudget"]


class ByteBudget:
    """The budget of one hub; ``limit`` 0 is none."""

    def __init__(self, limit: int, backlogs: Callable[[], list[Conn]], evict: Callable[[Conn], None]) -> None:
        """``backlogs`` gives the members that may have one, ``evict`` makes nothing wait for a member any more."""
        self.limit = limit
        self._backlogs = backlogs
        self._evict = evict
        self._at_most = 0
        self._scheduled = False

    def grew(self, size: int) -> None:
        """``size`` bytes more wait for a member that has a backlog."""
        self._at_most += size
        if self.limit and self._at_most > self.limit and not self._scheduled:
            asyncio.get_running_loop().call_soon(self._check, context=Context())
            self._scheduled = True

    def _check(self) -> None:
        self._scheduled = False
        backlogs = self._backlogs()
        self._at_most = sum(conn._writer.held_bytes for conn in backlogs)
        if self._at_most <= self.limit:
            return
        for conn in sorted(backlogs, key=lambda conn: conn._writer.held_bytes, reverse=True):
            self._at_most -= conn._writer.held_bytes
            try:
                self._evict(conn)
            except Exception as exc:
                conn._writer.fail(exc)  # others are still to be looked at
            self._at_most += conn._writer.held_bytes
            if self._at_most <= self.limit * limits.QUEUED_BYTES_LEFT:
                break
