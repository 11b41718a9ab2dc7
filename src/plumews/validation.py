"""Checks of arguments: counts, times, rates, lists and functions, with an error that says what is accepted."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, Final, Literal, TypeGuard, TypeVar

from . import limits

__all__ = [
    "check_call",
    "check_callback",
    "check_count",
    "check_function",
    "check_keepalive",
    "check_rate",
    "check_read_limit",
    "check_time",
    "entries_of",
    "is_coroutine_function",
    "is_plain_function",
    "near_name",
    "owned_options",
    "removed_options",
    "unknown_option",
]

T = TypeVar("T")

#: Flags of functions whose result is to be awaited, or iterated over.
_NOT_PLAIN: Final = (
    inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
)


def is_coroutine_function(function: object) -> bool:
    """Return True if the result of ``function`` is to be awaited, as far as its signature tells before a call.

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
    """Return the entries of the option ``name``, which may be a list, another collection or a generator.

    Raise ``TypeError`` if the option is a single entry, or an entry has none of the types ``kinds``.
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
    """Raise unless ``value`` is an int from ``least`` to ``most`` (default: the largest count of compiled modules)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        narrow = most is not None and most < limits.COUNT_MOST
        expected = f"{least} to {most}" if narrow else f"at least {least}" if value < least else f"at most {most}"
        raise ValueError(f"{name} must be {expected}, not {value}")


def check_time(name: str, value: object, *, zero: bool = False) -> None:
    """Raise unless ``value`` is a finite number of seconds, more than 0 or, with ``zero``, at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value <= sys.float_info.max or (value == 0 and not zero):  # an int may be larger than any float
        raise ValueError(f"{name} must be {'at least 0' if zero else 'more than 0'} seconds, not {value}")


def check_rate(name: str, value: object, unlimited: Literal[0] | None) -> None:
    """Raise unless ``value`` is a rate of connections a second, or ``unlimited``, which stands for no limit."""
    if value is None and unlimited is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number{'' if unlimited == 0 else ' or None'}, not {type(value).__name__}")
    if value != unlimited and not limits.ACCEPT_RATE_LEAST <= value <= limits.ACCEPT_RATE_MOST:
        raise ValueError(
            f"{name} must be {limits.ACCEPT_RATE_LEAST:g} to {limits.ACCEPT_RATE_MOST:,} connections a second, "
            f"or {unlimited} for no limit, not {value}"
        )


def check_read_limit(value: int | None, name: str = "the read limit") -> int | None:
    """Return ``value`` if it is a positive number of bytes, or ``None`` for no limit. Raise otherwise."""
    if value is not None:
        check_count(name, value)
    return value


def check_keepalive(ping_period: float | None, pong_wait: float | None) -> None:
    """Raise ``ValueError`` unless ``ping_period`` is less than ``pong_wait``; ``None`` is no limit.

    Otherwise a connection would be given up before a ping is sent.
    """
    if ping_period is not None:
        check_time("ping_period", ping_period)
    if pong_wait is not None:
        check_time("pong_wait", pong_wait)
    if ping_period is not None and pong_wait is not None and ping_period >= pong_wait:
        raise ValueError(
            f"ping_period ({ping_period:g} s) must be less than pong_wait ({pong_wait:g} s): "
            "set the one that makes room first"
        )


def is_plain_function(callback: object) -> TypeGuard[Callable[..., Any]]:
    """Return True if a call of ``callback`` does its work, not the awaiting or iterating over its result."""
    function = _simple_function(callback)
    if function is not None and not function.__code__.co_flags & _NOT_PLAIN:
        return True
    if not callable(callback) or is_coroutine_function(callback):
        return False
    return not inspect.isasyncgenfunction(callback) and not inspect.isgeneratorfunction(callback)


def _simple_function(function: object) -> FunctionType | None:
    """Return a function, or that of a bound method, if nothing can give it another signature than its own.

    It is the common case, and a client checks its callbacks for each connection.
    """
    if type(function) is MethodType:
        function = function.__func__
    return function if type(function) is FunctionType and not function.__dict__ else None


def check_call(name: str, function: Callable[..., object], *parameters: str) -> None:
    """Raise ``TypeError`` unless ``function`` accepts ``parameters``. A function without a signature passes."""
    simple = _simple_function(function)
    if simple is not None:
        code = simple.__code__
        if code.co_argcount == len(parameters) + (simple is not function) and not code.co_kwonlyargcount:
            return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        raise TypeError(f"{name} is called with ({', '.join(parameters)}), but takes {signature}") from None


def check_callback(callback: object, name: str = "the callback") -> None:
    """Raise ``TypeError`` unless ``callback`` is a plain function."""
    if not is_plain_function(callback):
        raise TypeError(f"{name} must be a plain function: it is called where nothing can be awaited")


def check_function(name: str, value: object, *, optional: bool = False) -> None:
    """Raise ``TypeError`` unless ``value`` can be called or, with ``optional``, is ``None``."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function{' or None' if optional else ''}, not {type(value).__name__}")


def removed_options(**instead: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that makes options of former versions a ``TypeError`` with the text ``instead``."""

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


def near_name(name: str, known: Sequence[str]) -> str:
    """Return ``do you mean …?`` with the one of ``known`` that is similar to ``name``, or an empty text."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"do you mean {near[0]}?" if near else ""


def unknown_option(name: str, known: Sequence[str], elsewhere: Mapping[str, str]) -> str:
    """Return ``name``, an option that does not exist, with a hint in parentheses if there is one.

    Args:
        name: the unknown option.
        known: names of the options. A similar one is the hint.
        elsewhere: hints by name, for options of other functions and packages.
    """
    hint = elsewhere.get(name)
    if hint is None:
        hint = near_name(name, known)
    return f"{name} ({hint})" if hint else name


@functools.cache
def _names_of(owner: type) -> frozenset[str]:
    """Return the names of the fields of a dataclass."""
    return frozenset(field.name for field in dataclasses.fields(owner))


def owned_options(
    given: Mapping[str, Any], owners: Sequence[type], elsewhere: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the keywords ``given`` that are fields of each of the dataclasses ``owners``, in their order.

    Raises:
        TypeError: an option is a field of none of them. ``elsewhere`` has hints as of :func:`unknown_option`.
    """
    fields = [_names_of(owner) for owner in owners]
    unknown = given.keys() - set().union(*fields)
    if unknown:
        known = sorted(set().union(*fields))
        names = ", ".join(unknown_option(name, known, elsewhere) for name in sorted(unknown))
        raise TypeError(f"unknown option {names}: there are {', '.join(known)}, and the parameters of the function")
    return [{name: given[name] for name in given.keys() & names} for names in fields]
