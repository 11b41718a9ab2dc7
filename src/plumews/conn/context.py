"""Context variables of one connection (:mod:`contextvars`).

Each connection has a copy of the context in which its ``serve()`` was called. Callbacks and hooks run in that copy, and
a handler's task starts with a copy of it. So one connection never sees the variables of another. ``context.pyx`` is the
same in Cython, and enters the context without a Python call. It is imported instead of this module where it is built.

Invariant: a context is entered once at a time. A call from inside it stays in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

from .attributes import Attributes

__all__ = ["ContextRunner"]

T = TypeVar("T")


class ContextRunner(Attributes):
    """Base class of a connection that runs callbacks in its own context."""

    __slots__ = ("_context", "_in_context")

    #: ``None`` stays in the context of the caller.
    _context: Context | None
    _in_context: bool

    def _run_in_context(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)`` in the context of this connection, and return its result."""
        context = self._context
        if context is None or self._in_context:
            return function(*args)
        self._in_context = True
        try:
            return context.run(function, *args)
        finally:
            self._in_context = False

    def _dispatch_in_context(self, events: list[Any]) -> list[Any] | None:
        """Call :meth:`_dispatch` in the context of this connection, and return its result."""
        return self._run_in_context(self._dispatch, events)

    def _dispatch(self, events: list[Any]) -> list[Any] | None:
        """Handle the events of one read, and return those that are left over."""
        raise NotImplementedError
