"""An object that a task may await or run, step by step, as if it were a coroutine (layer 3).

asyncio takes for a coroutine what has ``send``, ``throw``, ``close`` and ``__await__``. This is that without a frame: a
subclass does its work in :meth:`Steps.step`. The same in Cython is ``steps.pyx``, which also gives results to the
interpreter without an exception for each; built, it is imported instead of this.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

__all__ = ["Steps"]


class Steps:
    """Its :meth:`step` returns what the task is to wait for, or sets :attr:`over` and returns the result."""

    __slots__ = ("over",)

    over: bool

    def step(self) -> Any:
        """The next step."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # an iterator is what await needs

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        value = self.step()
        if self.over:
            raise StopIteration(value)
        return value

    def send(self, value: Any) -> Any:
        """The step of a task."""
        return self.__next__()
