"""Calls of functions that the application registered: each in its own context, with errors reported to the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeAlias, TypeVar, cast

__all__ = ["Callback", "call_safely", "in_own_context"]

Callback: TypeAlias = Callable[..., object]

C = TypeVar("C", bound=Callable[..., Any])


def in_own_context(callback: C) -> C:
    """Return a function that calls ``callback`` in a new copy of the current context each time."""
    context = copy_context()
    return cast("C", lambda *args: context.copy().run(callback, *args))


def call_safely(what: str, callback: Callback, *args: Any) -> None:
    """Call ``callback(*args)``. If it raises, report to the event loop that ``what`` failed."""
    try:
        callback(*args)
    except (Exception, asyncio.CancelledError) as exc:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": f"{what} failed", "exception": exc})
