"""List of registered callbacks, each of which is removed by the function that its registration returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

__all__ = ["CallbackList"]

T = TypeVar("T")


class CallbackList(Generic[T]):
    """Callbacks in the order of their registration. Iterate over the list to call them.

    A callback may be registered more than once. Callbacks may register and remove others while the list is iterated
    over: a new one is left out, and so is one that is removed before it is reached. Any thread may use the list.
    """

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[object, T] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def __iter__(self) -> Iterator[T]:
        for key in list(self._callbacks):
            callback = self._callbacks.get(key, key)  # one step: another thread may remove it at any moment
            if callback is not key:
                yield cast("T", callback)

    def add(self, callback: T, on_removed: Callable[[], object] | None = None) -> Callable[[], None]:
        """Register ``callback``, and return a function that removes it. To call that again does nothing.

        ``on_removed()`` is called after the removal, once, and not after :meth:`clear`.
        """
        key = object()
        self._callbacks[key] = callback

        def remove() -> None:
            if self._callbacks.pop(key, key) is not key and on_removed is not None:
                on_removed()

        return remove

    def clear(self) -> None:
        """Remove all callbacks."""
        self._callbacks.clear()
