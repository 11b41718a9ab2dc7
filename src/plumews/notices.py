"""Telling the application about slow members (layer 4).

Callbacks are called at the end of the tick and never within a broadcast, so that what they do to the hub cannot get in
the way of what goes on there. Invariants: one that fails keeps it from nobody; drops of one member and room in one tick
are told together, so that what waits to be told is bounded by the members.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from .conn import Conn
from .reports import Gap

__all__ = ["Notices"]

F = TypeVar("F", bound=Callable[..., Any])
OnSlow = Callable[[Conn], object]
OnDrop = Callable[[Conn, "str | None", int], object]
OnGap = Callable[[Conn, Gap], object]


class Notices:
    """The callbacks of one hub, and what they are to be told."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """``changed`` is called when there is one more or one less."""
        self._changed = changed
        # By a key of each one's own: the same callback may be given more than once.
        self.on_slow: dict[object, OnSlow] = {}
        self.on_drop: dict[object, OnDrop] = {}
        self.on_gap: dict[object, OnGap] = {}
        self._slow: list[Conn] = []
        self._drops: dict[tuple[Conn, str | None], int] = {}
        self._gaps: list[tuple[Conn, Gap]] = []
        self._scheduled = False

    def register(self, callbacks: dict[object, F], callback: F) -> Callable[[], None]:
        """Add ``callback`` to one of the dicts above, until the function that this returns is called."""
        key = object()
        callbacks[key] = callback
        self._changed()

        def end() -> None:
            callbacks.pop(key, None)
            self._changed()

        return end

    def slow(self, conn: Conn) -> None:
        """The queue of ``conn`` is half full."""
        if self.on_slow:
            self._slow.append(conn)
            self._schedule()

    def dropped(self, conn: Conn, room: str | None, count: int) -> None:
        """``conn`` has lost ``count`` messages."""
        if self.on_drop:
            self._drops[conn, room] = self._drops.get((conn, room), 0) + count
            self._schedule()

    def gap(self, conn: Conn, gap: Gap) -> None:
        """What ``conn`` gets next stands behind ``gap``."""
        if self.on_gap:
            self._gaps.append((conn, gap))
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._scheduled = False
        slow, self._slow = self._slow, []
        drops, self._drops = self._drops, {}
        gaps, self._gaps = self._gaps, []
        for conn in slow:
            _call_each(self.on_slow, conn)
        for (conn, room), count in drops.items():
            _call_each(self.on_drop, conn, room, count)
        for conn, gap in gaps:
            _call_each(self.on_gap, conn, gap)


def _call_each(callbacks: dict[object, Any], *args: object) -> None:
    for key in list(callbacks):
        callback = callbacks.get(key)  # one that was called before may have ended this one
        if callback is None:
            continue
        try:
            callback(*args)
        except Exception as exc:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a callback about slow members failed", "exception": exc})
