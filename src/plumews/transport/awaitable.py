"""Awaitable object that a task runs step by step, as if it were a coroutine.

asyncio accepts as a coroutine any object with ``send``, ``throw``, ``close`` and ``__await__``. A subclass of
:class:`StepAwaitable` does its work in :meth:`StepAwaitable.step` and needs no frame. ``awaitable.pyx`` is the same in
Cython, and returns results to the interpreter without an exception for each. Once built, it is imported instead of
this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import MethodType
from typing import Any

__all__ = ["AwaitedMethod", "StepAwaitable"]


class StepAwaitable:
    """Base class of awaitables whose :meth:`step` is called until it sets :attr:`over`."""

    __slots__ = ("over",)

    over: bool

    def step(self) -> Any:
        """Return an object that the task must wait for, or set :attr:`over` and return the result."""
        raise NotImplementedError  # abstract: the steps are those of a subclass

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # an iterator is what await needs

    def __iter__(self) -> StepAwaitable:
        return self

    def __next__(self) -> Any:
        value = self.step()
        if self.over:
            raise StopIteration(value)
        return value

    def send(self, value: Any) -> Any:
        """Run the next step, as a task does."""
        return self.__next__()


class AwaitedMethod:
    """Method of a connection that returns an awaitable and passes for a coroutine function.

    Mocks and frameworks call ``inspect.iscoroutinefunction``, which reads ``__code__``. This class has the code of
    ``like``, an ``async def`` function with the same parameters. Python 3.10 lacks ``inspect.markcoroutinefunction``.
    """

    __slots__ = ("__dict__", "_function")

    def __init__(self, function: Callable[..., Any], like: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__
        for name in ("annotations", "code", "defaults", "globals", "kwdefaults", "module", "name"):
            setattr(self, f"__{name}__", getattr(like, f"__{name}__"))
        self.__qualname__ = f"Conn.{like.__name__}"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)
