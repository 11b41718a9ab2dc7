"""Calls of functions that the application registered: in their own context, errors reported to the loop (layer 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeAlias, TypeVar, cast

__all__ = ["Callback", "call_safely", "in_own_context"]

Callback: TypeAlias = Callable[..., object]


C = TypeVar("C", bound=Callable[..., Any])


def in_own_context(callback: C) -> C:
    """Return a function that calls ``callback`` in the context of now, in a new copy of it each time."""
    context = copy_context()
    return cast("C", lambda *args: context.copy().run(callback, *args))


def call_safely(what: str, callback: Callback, *args: Any) -> None:
    """Call ``callback``; if it raises, the event loop is told that ``what`` failed."""
    try:
        callback(*args)
    except (Exception, asyncio.CancelledError) as exc:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": f"{what} failed", "exception": exc})
