"""Probe of open clients after the machine was suspended: their servers may have given them up meanwhile.

The clock of an event loop stands still during a suspension, so the next ping of the keepalive could be far away. One
deadline for all clients of a loop compares two clocks once a second, while any of them is open.

Invariants: clients without a keepalive are not probed. The watch keeps no connection alive.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakSet

from ..conn.connection import Conn
from ..transport.timers import Deadline, Timers
from .reconnect import Clocks, suspended_time

__all__ = ["watch_suspension"]

#: Seconds between two looks at the clocks.
_TICK: Final = 1.0


def watch_suspension(conn: Conn) -> None:
    """Probe ``conn``, which is open, after each suspension of the machine."""
    state = conn._state
    if state.suspension_watch is None:
        state.suspension_watch = _Watch(state.timers)
    state.suspension_watch.add(conn)


class _Watch:
    """Watch of the clients of one event loop."""

    __slots__ = ("_clocks", "_conns", "_deadline", "_timers")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._conns: WeakSet[Conn] = WeakSet()
        self._clocks = Clocks.now()
        self._deadline: Deadline | None = None

    def add(self, conn: Conn) -> None:
        """Watch for ``conn`` until it is closed, or gone."""
        self._conns.add(conn)
        if self._deadline is None:
            self._clocks = Clocks.now()
            self._deadline = self._timers.after(_TICK, self._look)

    def _look(self) -> None:
        self._deadline = None
        earlier, self._clocks = self._clocks, Clocks.now()
        resumed = suspended_time(earlier, self._clocks) > 0
        for conn in list(self._conns):
            if not conn._open:
                self._conns.discard(conn)
            elif resumed:
                conn._keepalive.probe()
        if self._conns:
            self._deadline = self._timers.after(_TICK, self._look)
