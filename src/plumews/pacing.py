"""When the work for one connection is done: at once while it has time, in its turn, or when there is room (layer 3).

A connection may use its share of time, and a little ahead of it. Beyond that it stands in the line of its loop (see
`turns`); and where its application does not read, it waits for that. Invariant: what waits is woken by exactly one of
the two.
"""

from __future__ import annotations

import functools
from time import monotonic
from typing import Any, Final

from . import limits
from .turns import turns_of

__all__ = ["GO_ON", "LATER", "ROOM", "STOP", "TURN", "Pacing"]

#: What becomes of the events behind: they go on, wait with this one, or never count.
GO_ON: Final = 0
LATER: Final = 1
STOP: Final = 2

#: What an event that waits waits for.
NOTHING: Final = 0
TURN: Final = 1
ROOM: Final = 2

# The same as C has them, where this is compiled.
_LATER, _NOTHING, _TURN, _ROOM = LATER, NOTHING, TURN, ROOM


class Pacing:
    """The waiting half of :class:`plumews.inflow.Inflow`."""

    __slots__ = ("_asked", "_share", "_turn_until", "_used_until", "_waits_for")

    def __init__(self, share: float) -> None:
        self._share = share
        #: Until when this connection has used its share of time.
        self._used_until = 0.0
        self._turn_until = 0.0  # not 0 while it has its turn
        self._asked = False
        self._waits_for = _NOTHING

    def _has_room(self, conn: Any) -> bool:
        """Whether the application has asked for more, or may be given more without that."""
        raise NotImplementedError

    def _may_work(self, now: float) -> bool:
        if self._turn_until:
            return now < self._turn_until
        return self._has_time(now)

    def _has_time(self, now: float) -> bool:
        return self._used_until - now <= limits.INFLATE_BURST

    def _count(self, began: float) -> None:
        self._used_until = max(self._used_until, began) + (monotonic() - began) / self._share

    def _wait_for(self, what: int) -> int:
        self._waits_for = what
        return _LATER

    def waits(self, conn: Any) -> bool:
        """Whether what is left over waits for something else than the next turn of the event loop."""
        if self._waits_for == _TURN and not self._asked:
            self._asked = True
            turns_of(conn._loop).ask(functools.partial(self._take_turn, conn), self._share)
        return self._waits_for != _NOTHING

    def _take_turn(self, conn: Any, until: float) -> None:
        self._asked = False
        self._waits_for = _NOTHING
        self._turn_until = until
        try:
            conn._go_on()
        finally:
            self._turn_until = 0.0

    def changed(self, conn: Any) -> None:
        """The application has read something, or the connection does not wait for it any more."""
        if self._waits_for == _ROOM and self._has_room(conn):
            self._waits_for = _NOTHING
            conn._loop.call_soon(conn._go_on)
