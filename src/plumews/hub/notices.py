"""Telling the application about slow members (layer 4).

It is told at the end of the tick and never within a broadcast, so that what it does to the hub cannot get in the way of
what goes on there. Invariant: drops of one member and room in one tick are told together, so that what waits to be told
is bounded by the members.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from ..conn.connection import Conn
from ..transport.safe_calls import Callback
from .events import EventDispatcher
from .results import Gap

__all__ = ["Notices"]


class Notices:
    """What the callbacks of one hub are to be told."""

    def __init__(self, callbacks: EventDispatcher, changed: Callable[[], None]) -> None:
        """``changed`` is called when somebody wants to hear of it, or does not any more."""
        self._callbacks = callbacks
        self._changed = changed
        self._slow: list[Conn] = []
        self._drops: dict[tuple[Conn, str | None], int] = {}
        self._gaps: list[tuple[Conn, Gap]] = []
        self._scheduled = False

    def register(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with what is told of ``slow``, ``drop`` or ``gap``, until what this returns is called.

        Raises ``TypeError`` if ``callback`` is no plain function.
        """
        remove = self._callbacks.add(kind, callback)
        self._changed()

        def end() -> None:
            remove()
            self._changed()

        return end

    def wanted(self, kind: str) -> bool:
        """Whether anybody is to hear of ``kind``."""
        return self._callbacks.wanted(kind)

    def slow(self, conn: Conn) -> None:
        """The queue of ``conn`` is half full."""
        if self.wanted("slow"):
            self._slow.append(conn)
            self._schedule()

    def dropped(self, conn: Conn, room: str | None, count: int) -> None:
        """``conn`` has lost ``count`` messages."""
        if self.wanted("drop"):
            self._drops[conn, room] = self._drops.get((conn, room), 0) + count
            self._schedule()

    def gap(self, conn: Conn, gap: Gap) -> None:
        """What ``conn`` gets next stands behind ``gap``."""
        if self.wanted("gap"):
            self._gaps.append((conn, gap))
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            asyncio.get_running_loop().call_soon(self._tell, context=Context())
            self._scheduled = True

    def _tell(self) -> None:
        self._scheduled = False
        slow, self._slow = self._slow, []
        drops, self._drops = self._drops, {}
        gaps, self._gaps = self._gaps, []
        self._callbacks.happened("slow", *[(conn,) for conn in slow])
        self._callbacks.happened("drop", *[(conn, room, count) for (conn, room), count in drops.items()])
        self._callbacks.happened("gap", *gaps)
