"""Base class of connections: context variables (:mod:`contextvars`), and explained failures of assignments.

Each connection has a copy of the context in which its ``serve()`` was called. Callbacks and hooks run in that copy, and
a handler's task starts with a copy of it. So one connection never sees the variables of another. ``context.pyx`` is the
same in Cython and makes no Python call to enter a context or to assign. It is imported instead where it is built.

Invariant: a context is entered once at a time. A call from inside it stays in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from .attribute_hints import refuse_attribute

__all__ = ["ContextRunner"]

T = TypeVar("T")


class ContextRunner:
    """Base class of a connection that runs callbacks in its own context.

    Subclasses with a ``__dict__`` accept further attributes.
    """

    __slots__ = ("_context", "_in_context")

    #: ``None`` stays in the context of the caller.
    _context: Context | None
    _in_context: bool

    if not TYPE_CHECKING:  # checkers would take it for a sign that any attribute may be set

        def __setattr__(self, name: str, value: object) -> None:
            try:
                object.__setattr__(self, name, value)
            except AttributeError:
                refuse_attribute(self, name)
                raise

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
        """Handle the events of one read, and return those that are left over. Abstract: `ConnCore` implements it."""
        raise NotImplementedError
