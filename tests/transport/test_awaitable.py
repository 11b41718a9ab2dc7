"""Tests of the awaitable that a task runs step by step: in plain Python, and in the body in use.

The compiled body cannot be subclassed from Python. Its steps are those of the awaitables of a connection.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import inspect
import typing
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews.transport import awaitable
from support.fakes import fake_conn, feed
from support.raw_client import text


def plain() -> Any:
    """Return the module of ``awaitable.py``, even if the compiled one is imported in its place."""
    path = Path(plumews.__file__).with_name("transport") / "awaitable.py"
    spec = importlib.util.spec_from_file_location("plain_awaitable", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Plain: Any = plain().StepAwaitable


class Countdown(Plain):  # type: ignore[misc]
    """Awaitable that takes ``turns`` loop iterations, then returns ``result`` or raises it."""

    def __init__(self, turns: int, result: Any) -> None:
        self.over = False
        self.turns, self.result = turns, result

    def step(self) -> Any:
        if self.turns:
            self.turns -= 1
            return None
        if isinstance(self.result, Exception):
            raise self.result
        self.over = True
        return self.result


def received(message: str) -> Coroutine[Any, Any, str | bytes]:
    """Return an awaitable of the body in use that ends with ``message`` in its first step."""
    conn, _ = fake_conn()
    feed(conn, text(message))
    made = conn.recv()
    conn.abort()
    return made


MAKERS: list[Callable[[str], Any]] = [lambda result: Countdown(0, result), received]


async def awaiting(steps: Any) -> Any:
    return await steps


@pytest.mark.parametrize("make", MAKERS)
async def test_await_returns_the_result_of_the_last_step(make: Callable[[str], Any]) -> None:
    assert await make("done") == "done"
    with pytest.raises(StopIteration) as ended:
        awaiting(make("done")).send(None)  # no turn of a loop is needed
    assert ended.value.value == "done"


@pytest.mark.parametrize("make", MAKERS)
async def test_send_and_next_end_as_in_a_coroutine(make: Callable[[str], Any]) -> None:
    for take in (lambda made: made.send(None), next):
        with pytest.raises(StopIteration) as ended:
            take(make("done"))
        assert ended.value.value == "done"


@pytest.mark.parametrize("make", MAKERS)
async def test_await_and_iter_return_the_object_itself(make: Callable[[str], Any]) -> None:
    made = make("done")
    assert made.__await__() is iter(made) is made
    assert await made == "done"


async def test_each_step_but_the_last_takes_a_loop_iteration() -> None:
    awaitable = Countdown(5, "done")
    left = []

    def look() -> None:
        left.append(awaitable.turns)
        if not awaitable.over:
            asyncio.get_running_loop().call_soon(look)

    asyncio.get_running_loop().call_soon(look)
    assert await awaitable == "done"
    assert left == [4, 3, 2, 1, 0]


async def test_exception_of_a_step_is_raised_at_the_await() -> None:
    with pytest.raises(KeyError, match="no"):
        await Countdown(1, KeyError("no"))


@pytest.mark.parametrize("body", [Plain, awaitable.StepAwaitable], ids=["plain", "in use"])
async def test_base_class_without_step_cannot_be_awaited(body: Any) -> None:
    for take in (lambda made: made.step(), lambda made: made.send(None), next, lambda made: awaiting(made).send(None)):
        with pytest.raises(NotImplementedError):
            take(body())


# --- methods that are awaited ---------------------------------------------------------------------


class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, one: int, *, two: int = 2) -> int:
        """Add."""
        return self.base + one + two


async def like(self: Adder, one: int, *, two: int = 2) -> int:
    raise NotImplementedError


@pytest.mark.parametrize("body", [plain(), awaitable], ids=["plain", "in use"])
def test_awaited_method_is_called_as_it_is_and_passes_for_async(body: Any) -> None:
    class Told(Adder):
        pass

    method = body.AwaitedMethod(Adder.add, like)
    Told.add = method  # type: ignore[method-assign]
    told = Told(10)
    assert told.add(1) == told.add(one=1) == Told.add(told, 1) == functools.partial(told.add, 1)() == 13
    assert told.add(1, two=5) == told.add(*[1], two=5) == method(told, 1, two=5) == 16
    assert [told.add(number) for number in range(100)] == [12 + number for number in range(100)]
    for args, names in (((), {}), ((1, 2), {}), ((1,), {"three": 3})):
        with pytest.raises(TypeError):
            told.add(*args, **names)
    with pytest.raises(TypeError):
        method()
    for each in (method, Told.add, told.add, functools.partial(told.add, 1)):
        assert inspect.iscoroutinefunction(each)
    assert Told.add is method
    assert str(inspect.signature(told.add)) == "(one: 'int', *, two: 'int' = 2) -> 'int'"
    assert inspect.signature(method).parameters.keys() == {"self", "one", "two"}
    assert (inspect.getdoc(told.add), told.add.__name__, inspect.isroutine(method)) == ("Add.", "like", True)
    assert typing.get_type_hints(told.add)["one"] is int
    gone = weakref.ref(told)
    del told, each
    gc.collect()
    assert gone() is None
