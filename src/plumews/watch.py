"""Who wants to know how many members a room has (layer 4).

Counts change with every join and leave, in a storm thousands of times a second; each watcher is told at most
ten times a second, and always of the last change. One that fails does not keep it from the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from . import limits
from .loopstate import loop_state
from .timers import Deadline

__all__ = ["Watchers"]

Callback = Callable[[str, int], object]


class Watchers:
    """The callbacks of one hub."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        # By a key of each watcher's own: the same callback may be given more than once.
        self._callbacks: dict[str, dict[object, Callback]] = {}
        self._due: dict[str, Deadline] = {}

    def add(self, room: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback(room, count)`` on changes, until the function that this returns is called."""
        key = object()
        self._callbacks.setdefault(room, {})[key] = callback

        def end() -> None:
            callbacks = self._callbacks.get(room, {})
            callbacks.pop(key, None)
            if not callbacks:
                self._callbacks.pop(room, None)
                due = self._due.pop(room, None)
                if due is not None:
                    due.cancel()

        return end

    def changed(self, room: str) -> None:
        """The members of ``room`` changed."""
        if room in self._callbacks and room not in self._due:
            timers = loop_state(asyncio.get_running_loop()).timers
            self._due[room] = timers.after(limits.COUNT_EVERY, lambda: self._tell(room))

    def clear(self) -> None:
        """Forget everybody."""
        self._callbacks.clear()
        for due in self._due.values():
            due.cancel()
        self._due.clear()

    def _tell(self, room: str) -> None:
        del self._due[room]
        count = self._count(room)
        callbacks = self._callbacks[room]
        for key in list(callbacks):
            callback = callbacks.get(key)  # one that was called before may have ended this one
            if callback is not None:
                self._call(callback, room, count)

    def _call(self, callback: Callback, room: str, count: int) -> None:
        try:
            callback(room, count)
        except Exception as exc:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a watcher of a member count failed", "exception": exc})
