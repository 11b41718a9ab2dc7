"""Who wants to know how many members a room has (layer 4).

Counts change with every join and leave, in a storm thousands of times a second; each watcher is told at most
ten times a second, and always of the last change. One that fails does not keep it from the others. That cadence is
`RoomWatchers`, on which those stand as well who want to know who the members are.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .. import limits
from ..transport.loop_context import loop_context
from ..transport.safe_calls import Callback, call_safely, in_own_context
from ..transport.timers import Deadline
from ..validation import check_callback

__all__ = ["CountWatchers", "RoomWatchers"]

C = TypeVar("C", bound=Callback)


class RoomWatchers(ABC, Generic[C]):
    """Callbacks of one hub that each watch a room, and when they are told."""

    def __init__(self) -> None:
        # By a key of each watcher's own: the same callback may be given more than once.
        self._callbacks: dict[str, dict[object, C]] = {}
        self._due: dict[str, Deadline] = {}

    def add(self, room: str, callback: C) -> Callable[[], None]:
        """Call ``callback`` on changes of ``room``, until the function that this returns is called."""
        check_callback(callback)
        key = object()
        self._callbacks.setdefault(room, {})[key] = in_own_context(callback)
        self._added(room, key)

        def end() -> None:
            callbacks = self._callbacks.get(room, {})
            callbacks.pop(key, None)
            if not callbacks and self._callbacks.pop(room, None) is not None:
                self._forget(room)

        return end

    def changed(self, room: str) -> None:
        """There is something to tell those who watch ``room``."""
        if room in self._callbacks and room not in self._due:
            timers = loop_context(asyncio.get_running_loop()).timers
            self._due[room] = timers.after(limits.COUNT_EVERY, lambda: self._wake(room))

    def clear(self) -> None:
        """Forget everybody."""
        for room in list(self._callbacks):
            self._callbacks.pop(room).clear()
            self._forget(room)

    # --- inside -----------------------------------------------------------------------------------

    def _added(self, room: str, key: object) -> None:
        """Somebody began to watch ``room``."""

    def _forget(self, room: str) -> None:
        """Nobody watches ``room`` any more."""
        due = self._due.pop(room, None)
        if due is not None:
            due.cancel()

    def _wake(self, room: str) -> None:
        del self._due[room]
        self._tell(room)

    @abstractmethod
    def _tell(self, room: str) -> None:
        """Tell those who watch ``room``."""

    def _live(self, room: str) -> Iterator[tuple[object, C]]:
        """Those who watch ``room`` now, and still do when it is their turn."""
        callbacks = self._callbacks[room]
        for key in list(callbacks):
            callback = callbacks.get(key)  # one that was called before may have ended this one
            if callback is not None:
                yield key, callback


class CountWatchers(RoomWatchers[Callable[[str, int], object]]):
    """Those who are told counts."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def _tell(self, room: str) -> None:
        count = self._count(room)
        for _, callback in self._live(room):
            call_safely("a watcher of a member count", callback, room, count)
