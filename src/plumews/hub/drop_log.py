"""One line a second about what slow members lost, however many messages it were (layer 4).

A line for each drop floods the log just when the machine is busy. There are numbers in a line and nothing that came
from outside.
"""

from __future__ import annotations

import asyncio
import logging

from .. import limits
from ..conn.connection import Conn
from ..transport.loop_context import loop_context
from ..transport.timers import Deadline

__all__ = ["DropLog"]

logger = logging.getLogger("plumews.hub")


class DropLog:
    """What one hub logs."""

    def __init__(self) -> None:
        self._messages = self._closed = 0
        self._members: set[int] = set()
        self._next: Deadline | None = None

    def dropped(self, conn: Conn, count: int) -> None:
        """``conn`` has lost ``count`` messages."""
        self._messages += count
        self._members.add(id(conn))
        if self._next is None:
            self._schedule()

    def closed(self, conn: Conn) -> None:
        """``conn`` is closed with 1013."""
        self._closed += 1
        self.dropped(conn, 0)

    def _schedule(self) -> None:
        self._next = loop_context(asyncio.get_running_loop()).timers.after(limits.DROP_LOG_EVERY, self.write)

    def write(self) -> None:
        """Log what there is to be logged, now."""
        if self._next is None:
            return
        self._next.cancel()
        self._next = None
        logger.warning(
            "slow members: %d messages dropped, %d members concerned, %d of them closed",
            self._messages,
            len(self._members),
            self._closed,
        )
        self._messages = self._closed = 0
        self._members.clear()
