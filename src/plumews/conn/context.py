"""The context in which the application's code of one connection runs (layer 3).

Each connection has a copy of the context in which its ``serve()`` was called. Callbacks and hooks run in that copy, and
a handler's task starts with a copy of it, so that one connection never sees the variables of another. The same in
Cython is ``context.pyx``, which enters the context without a Python call; built, it is imported instead of this.

Invariant: a context is entered once at a time; a call from within it stays in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

from .attributes import Attributes

__all__ = ["InContext"]

T = TypeVar("T")


class InContext(Attributes):
    """Base of a connection: runs what belongs to it in its own context."""

    __slots__ = ("_context", "_inside")

    #: ``None`` stays in the context of the caller.
    _context: Context | None
    _inside: bool

    def _within(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``, called in the context of this connection."""
        context = self._context
        if context is None or self._inside:
            return function(*args)
        self._inside = True
        try:
            return context.run(function, *args)
        finally:
            self._inside = False

    def _dispatch_within(self, events: list[Any]) -> list[Any] | None:
        """Return ``self._dispatch(events)``, called in the context of this connection."""
        return self._within(self._dispatch, events)

    def _dispatch(self, events: list[Any]) -> list[Any] | None:
        """Handle what a read has brought."""
        raise NotImplementedError
