"""An object that a task may await or run, step by step, as if it were a coroutine (layer 3).

asyncio takes for a coroutine what has ``send``, ``throw``, ``close`` and ``__await__``. This is that without a frame: a
subclass does its work in :meth:`Steps.step`. The same in Cython is ``steps.pyx``, which also gives results to the
interpreter without an exception for each; built, it is imported instead of this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import MethodType
from typing import Any

__all__ = ["AwaitedMethod", "StepAwaitable"]


class StepAwaitable:
    """Its :meth:`step` returns what the task is to wait for, or sets :attr:`over` and returns the result."""

    __slots__ = ("over",)

    over: bool

    def step(self) -> Any:
        """The next step."""
        raise NotImplementedError

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
        """The step of a task."""
        return self.__next__()


class AwaitedMethod:
    """Method of a connection that returns an awaitable without being a coroutine function, and passes for one.

    ``inspect.iscoroutinefunction``, which mocks and frameworks ask, goes by ``__code__``. Here it is that of ``like``,
    an ``async def`` function with the same parameters. The marks of ``inspect`` are younger than Python 3.10.
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
