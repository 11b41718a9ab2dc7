"""Callbacks of the application: events of a hub, and watchers of single rooms.

A callback may cause more events: it joins, leaves, closes, publishes. They wait until the callbacks of the events
before them were called, so that each callback gets all events in order. An exception of a callback is reported to the
event loop and does not keep the event from other callbacks.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from .. import limits
from ..transport.loop_context import loop_context
from ..transport.safe_calls import Callback, call_safely, in_own_context
from ..transport.timers import Deadline
from ..validation import check_callback

__all__ = ["CountWatchers", "EventDispatcher", "RoomWatchers"]

C = TypeVar("C", bound=Callback)


class EventDispatcher:
    """Callbacks of one hub, by the kind of event."""

    def __init__(self) -> None:
        # Each has a key of its own, because the same function may be given more than once.
        self._callbacks: dict[str, dict[object, Callback]] = {}
        self._news: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._calling = False

    def add(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with the arguments of each event of ``kind``. Return the function that ends it.

        Raises:
            TypeError: ``callback`` is not a plain function.
        """
        check_callback(callback)
        key = object()
        self._callbacks.setdefault(kind, {})[key] = in_own_context(callback)

        def end() -> None:
            callbacks = self._callbacks.get(kind, {})
            callbacks.pop(key, None)
            if not callbacks:
                self._callbacks.pop(kind, None)

        return end

    def wanted(self, kind: str) -> bool:
        """Return True if there is a callback for ``kind``."""
        return kind in self._callbacks

    def happened(self, kind: str, *each: tuple[Any, ...]) -> None:
        """Call the callbacks of ``kind`` with each of the arguments in ``each``."""
        if kind not in self._callbacks:
            return
        self._news.extend((kind, args) for args in each)
        if self._calling:
            return
        self._calling = True
        try:
            while self._news:
                self._call(*self._news.popleft())
        finally:
            self._calling = False

    def _call(self, kind: str, args: tuple[Any, ...]) -> None:
        callbacks = self._callbacks.get(kind, {})
        for key in list(callbacks):
            callback = callbacks.get(key)  # an earlier callback may have ended this one
            if callback is not None:
                call_safely(f"a callback of the hub ({kind})", callback, *args)


class RoomWatchers(ABC, Generic[C]):
    """Callbacks of one hub that each watch a room, called at most ten times a second.

    In a storm of joins a room changes thousands of times a second. Each watcher gets the last change.
    """

    def __init__(self) -> None:
        # Each has a key of its own, because the same function may be given more than once.
        self._callbacks: dict[str, dict[object, C]] = {}
        self._due: dict[str, Deadline] = {}

    def add(self, room: str, callback: C) -> Callable[[], None]:
        """Call ``callback`` on changes of ``room``. Return the function that ends it."""
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
        """Schedule the call of the watchers of ``room``."""
        if room in self._callbacks and room not in self._due:
            timers = loop_context(asyncio.get_running_loop()).timers
            self._due[room] = timers.after(limits.COUNT_EVERY, lambda: self._wake(room))

    def clear(self) -> None:
        """Forget all watchers."""
        for room in list(self._callbacks):
            self._callbacks.pop(room).clear()
            self._forget(room)

    # --- inside -----------------------------------------------------------------------------------

    def _added(self, room: str, key: object) -> None:
        """Note that a watcher of ``room`` was added."""

    def _forget(self, room: str) -> None:
        """Drop the state of ``room``, which has no watchers any more."""
        due = self._due.pop(room, None)
        if due is not None:
            due.cancel()

    def _wake(self, room: str) -> None:
        del self._due[room]
        self._tell(room)

    @abstractmethod
    def _tell(self, room: str) -> None:
        """Call the watchers of ``room``."""

    def _live(self, room: str) -> Iterator[tuple[object, C]]:
        """Return the watchers of ``room``, without the ones that end while others are called."""
        callbacks = self._callbacks[room]
        for key in list(callbacks):
            callback = callbacks.get(key)
            if callback is not None:
                yield key, callback


class CountWatchers(RoomWatchers[Callable[[str, int], object]]):
    """Watchers of member counts. ``count`` returns the count of a room."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def _tell(self, room: str) -> None:
        count = self._count(room)
        for _, callback in self._live(room):
            call_safely("a watcher of a member count", callback, room, count)
