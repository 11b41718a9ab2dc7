"""Checks of arguments: counts, times, lists and callbacks, with an error that says what would be right (layer 0)."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, TypeVar

from . import limits

__all__ = [
    "check_call",
    "check_callback",
    "check_count",
    "check_time",
    "entries_of",
    "is_coroutine_function",
    "is_plain_function",
    "removed_options",
]

T = TypeVar("T")


def is_coroutine_function(function: object) -> bool:
    """Return whether what ``function`` returns is to be awaited, as far as can be told before it is called.

    ``functools.partial``, objects with an ``async def __call__`` and mocks of coroutine functions count, too.
    """
    while isinstance(function, functools.partial):
        function = function.func
    # The mark of asyncio, up to Python 3.13, which `create_autospec` sets; a mock would make up any attribute.
    marked = type(getattr(function, "_is_coroutine", None)) is object
    return marked or inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def entries_of(
    name: str, given: object, example: str, kinds: tuple[type, ...] = (str,), what: str = "str"
) -> tuple[Any, ...]:
    """Return the entries of the option ``name``, which was given as a list, another collection or a generator.

    Raises:
        TypeError: one entry stands in place of a list, or an entry is none of ``kinds``.
    """
    lone = isinstance(given, (str, bytes, bytearray, *kinds))
    if lone or not isinstance(given, Iterable):
        shown = f"the {type(given).__name__} {given!r}" if lone else type(given).__name__
        raise TypeError(f"{name} must be a list of {what}, such as [{example}], not {shown}")
    entries = tuple(given)
    for entry in entries:
        if not isinstance(entry, kinds):
            raise TypeError(f"{name} must be a list of {what}, such as [{example}]: {entry!r} in it is none")
    return entries


def check_count(name: str, value: object, *, least: int = 1, most: int | None = limits.COUNT_MOST) -> None:
    """Raise unless ``value`` is an int from ``least`` to ``most``: by default what compiled modules count to."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value}")


def check_time(name: str, value: object, *, zero: bool = False) -> None:
    """Raise unless ``value`` is a finite number of seconds, more than 0 or, with ``zero``, at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'at least 0' if zero else 'more than 0'} seconds, not {value}")


def is_plain_function(callback: object) -> TypeGuard[Callable[..., Any]]:
    """Return whether ``callback`` can be called and does its work then, and not when it is awaited or iterated over."""
    if not callable(callback) or is_coroutine_function(callback):
        return False
    return not inspect.isasyncgenfunction(callback) and not inspect.isgeneratorfunction(callback)


def check_call(name: str, function: Callable[..., object], *parameters: str) -> None:
    """A ``TypeError`` unless ``function`` can be called with these; where nobody can tell it is believed."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        raise TypeError(f"{name} is called with ({', '.join(parameters)}), but takes {signature}") from None


def check_callback(callback: object) -> None:
    """A ``TypeError`` unless ``callback`` is a plain function."""
    if not is_plain_function(callback):
        raise TypeError("the callback must be a plain function: it is called where nothing can be awaited")


def removed_options(**instead: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that makes options of former versions a ``TypeError``.

    Args:
        instead: for the name of each option the text behind "removed: ".
    """

    def decorate(cls: type[T]) -> type[T]:
        init: Callable[..., None] = cls.__init__

        @functools.wraps(init)
        def checked(self: T, *args: Any, **options: Any) -> None:
            for name in options.keys() & instead.keys():
                raise TypeError(f"{name} was removed: {instead[name]}")
            init(self, *args, **options)

        cls.__init__ = checked  # type: ignore[method-assign, assignment]
        return cls

    return decorate
