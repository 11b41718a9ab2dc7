"""Calling the application back when something happens in a hub (layer 4).

What a callback does may make more happen: it joins, leaves, closes, publishes. Such news waits until the callbacks of
what came before it have been called, so that each of them hears everything in the order in which it happened. One
that fails is reported to the event loop and keeps the others from nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..transport.safe_calls import Callback, call_safely, in_own_context
from ..validation import check_callback

__all__ = ["EventDispatcher"]


class EventDispatcher:
    """The callbacks of one hub, by the kind of what they want to hear of."""

    def __init__(self) -> None:
        # By a key of each one's own: the same function may be given more than once.
        self._callbacks: dict[str, dict[object, Callback]] = {}
        self._news: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._calling = False

    def add(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with what :meth:`happened` tells of ``kind``, until what this returns is called.

        Raises ``TypeError`` if ``callback`` is no plain function.
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
        """Whether anybody is to hear of ``kind``."""
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
            callback = callbacks.get(key)  # one that was called before may have ended this one
            if callback is not None:
                call_safely(f"a callback of the hub ({kind})", callback, *args)
