"""Callbacks of the application: events of a hub, and watchers of single rooms.

A callback may cause more events: it joins, leaves, closes, publishes. They wait until the callbacks of the events
before them were called, so that each callback gets all events in order. An exception of a callback is reported to the
event loop and does not keep the event from other callbacks.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

from ..callback_list import CallbackList
from ..transport.loop_context import loop_context
from ..transport.safe_calls import Callback, call_safely, in_own_context
from ..transport.timers import Deadline
from ..validation import check_callback

__all__ = ["CountWatchers", "EventDispatcher", "RoomWatchers"]

C = TypeVar("C", bound=Callback)

#: Seconds between two calls of a watcher. A room changes thousands of times a second in a storm of joins.
WATCH_INTERVAL = 0.1


class EventDispatcher:
    """Callbacks of one hub, by the kind of event."""

    def __init__(self) -> None:
        self._callbacks: defaultdict[str, CallbackList[Callback]] = defaultdict(CallbackList)
        self._events: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._calling = False
        #: True while a member is asked, maybe in the midst of a broadcast, so that callbacks are called later.
        self.held = False
        #: Called after a callback was added or removed.
        self.changed: Callable[[], object] = lambda: None

    def add(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with the arguments of each event of ``kind``. Return the function that ends it."""
        check_callback(callback)
        end = self._callbacks[kind].add(in_own_context(callback), lambda: self.changed())
        self.changed()
        return end

    def wanted(self, kind: str) -> bool:
        """Return True if there is a callback for ``kind``."""
        return bool(self._callbacks.get(kind))

    def dispatch(self, kind: str, *each: tuple[Any, ...]) -> None:
        """Call the callbacks of ``kind`` with each of the arguments in ``each``."""
        if not self.wanted(kind):
            return
        self._events.extend((kind, args) for args in each)
        if self._calling:
            return
        if self.held:
            asyncio.get_running_loop().call_soon(self._call, context=Context())
        else:
            self._call()

    def _call(self) -> None:
        self._calling = True
        try:
            while self._events:
                kind, args = self._events.popleft()
                for callback in self._callbacks[kind]:
                    call_safely(f"a callback of the hub ({kind})", callback, *args)
        finally:
            self._calling = False


class RoomWatchers(ABC, Generic[C]):
    """Callbacks of one hub that each watch a room. They are called at most ten times a second, with the last change."""

    def __init__(self) -> None:
        self._watchers: dict[str, CallbackList[C]] = {}
        self._due: dict[str, Deadline] = {}

    def add(self, room: str, callback: C) -> Callable[[], None]:
        """Call ``callback`` on changes of ``room``. Return the function that ends it."""
        check_callback(callback)
        watchers = self._watchers.setdefault(room, CallbackList())
        watcher = in_own_context(callback)
        self._added(room, watcher)

        def removed() -> None:
            if not watchers:
                del self._watchers[room]
                self._forget(room)

        return watchers.add(watcher, removed)

    def changed(self, room: str) -> None:
        """Schedule the call of the watchers of ``room``."""
        if room in self._watchers and room not in self._due:
            timers = loop_context(asyncio.get_running_loop()).timers
            self._due[room] = timers.after(WATCH_INTERVAL, lambda: self._wake(room))

    def clear(self) -> None:
        """Forget all watchers."""
        for room in list(self._watchers):
            self._watchers.pop(room).clear()
            self._forget(room)

    # --- inside -----------------------------------------------------------------------------------

    def _added(self, room: str, watcher: C) -> None:
        """Note that a watcher of ``room`` was added."""

    def _forget(self, room: str) -> None:
        """Drop the state of ``room``, which has no watchers any more."""
        due = self._due.pop(room, None)
        if due is not None:
            due.cancel()

    def _wake(self, room: str) -> None:
        del self._due[room]
        self._call(room)

    @abstractmethod
    def _call(self, room: str) -> None:
        """Call the watchers of ``room``."""


class CountWatchers(RoomWatchers[Callable[[str, int], object]]):
    """Watchers of member counts. ``count`` returns the count of a room."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def _call(self, room: str) -> None:
        count = self._count(room)
        for watcher in self._watchers[room]:
            call_safely("a watcher of a member count", watcher, room, count)
