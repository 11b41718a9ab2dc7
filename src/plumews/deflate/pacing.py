"""When the work for one connection is done: at once while it has time, in its turn, or when there is room (layer 3).

A connection may use its share of time, and a little ahead of it; so may all together. Beyond that it stands in the line
of its loop (see `turns`); and where its application does not read, it waits for that. Invariant: what waits is woken by
exactly one of the two.
"""

from __future__ import annotations

import functools
from contextvars import Context
from time import monotonic
from typing import Any, Final

from .. import limits
from ..constants import State
from .turns import Turns

__all__ = ["GO_ON", "LATER", "ROOM", "STOP", "TURN", "Pacing"]

#: What becomes of the events behind: they go on, wait with this one, or never count.
GO_ON: Final = 0
LATER: Final = 1
STOP: Final = 2

#: What an event that waits waits for.
NOTHING: Final = 0
TURN: Final = 1
ROOM: Final = 2

#: A turn until then is one, and has ended.
_OVER: Final = 1e-9

# The same as C has them, where this is compiled.
_LATER, _NOTHING, _TURN, _ROOM = LATER, NOTHING, TURN, ROOM


class Pacing:
    """The waiting half of :class:`plumews.deflate.inbound.InboundDeflate`."""

    __slots__ = ("_asked", "_held", "_share", "_turn_until", "_turns", "_used_until", "_waits_for")

    def __init__(self, share: float, turns: Turns) -> None:
        self._share = share
        self._turns = turns
        #: Until when this connection has used its share of time.
        self._used_until = 0.0
        self._turn_until = 0.0  # not 0 while it has its turn
        self._asked = False
        self._waits_for = _NOTHING
        self._held = 0  # bytes of a message of which only the beginning was made

    def _has_room(self, conn: Any) -> bool:
        """Whether the application has asked for more, or may be given more without that."""
        raise NotImplementedError

    def _may_work(self, now: float) -> bool:
        if self._turn_until:
            return now < self._turn_until
        return self._has_time(now) and self._turns.is_free(now)

    def _has_time(self, now: float) -> bool:
        """Whether this connection has time left; what takes longer asks `_may_work`."""
        return self._used_until - now <= limits.INFLATE_BURST

    def _count(self, began: float) -> None:
        used = (monotonic() - began) / self._share
        self._used_until = max(self._used_until, began) + used
        if not self._turn_until:
            turns = self._turns
            turns.used_until = max(turns.used_until, began) + used

    def _hold(self, size: int) -> None:
        """So many bytes more wait for the rest of their message."""
        self._held += size
        self._turns.held += size

    def _let_go(self) -> None:
        """They wait no more. Who was let finish a message while there was no room for another begins none."""
        if self._turn_until and self._turns.full:
            self._turn_until = _OVER
        self._turns.held -= self._held
        self._held = 0

    def _wait_for(self, what: int) -> int:
        self._waits_for = what
        return _LATER

    def waits(self, conn: Any) -> bool:
        """Whether what is left over waits for something else than the next turn of the event loop."""
        if self._waits_for == _TURN and not self._asked:
            self._asked = True
            first = self._held > 0 and self._turns.full
            self._turns.ask(functools.partial(self._take_turn, conn), self._share, first=first)
        return self._waits_for != _NOTHING

    def _take_turn(self, conn: Any, until: float) -> None:
        self._asked = False
        self._waits_for = _NOTHING
        self._turn_until = until
        try:
            self._go_on(conn)
        finally:
            self._turn_until = 0.0

    def _go_on(self, conn: Any) -> None:
        conn._go_on()

    def changed(self, conn: Any) -> None:
        """The application has read something, or the connection is not open any more: then there is no work left."""
        closing = conn._rules.state is not State.OPEN
        if (self._waits_for == _ROOM and self._has_room(conn)) or (self._waits_for == _TURN and closing):
            self._waits_for = _NOTHING
            conn._loop.call_soon(self._go_on, conn, context=Context())
