"""What the connections of a loop share."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from fakes import ticks
from plumews import limits
from plumews.loopstate import Flushable, loop_state


class Output(Flushable):
    """Something to flush."""

    def __init__(self, log: list[str], name: str, then: Callable[[], object] = lambda: None) -> None:
        self.log = log
        self.name = name
        self.then = then

    def flush(self) -> None:
        self.log.append(self.name)
        self.then()


async def test_a_loop_has_one_state() -> None:
    loop = asyncio.get_running_loop()
    assert loop_state(loop) is loop_state(loop)
    assert len(loop_state(loop).view) == limits.READ_BUFFER


def test_two_loops_share_nothing() -> None:
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    try:
        one, other = map(loop_state, loops)
        assert one is not other
        assert one.buffer is not other.buffer
    finally:
        for loop in loops:
            loop.close()


def test_the_state_goes_with_its_loop() -> None:
    loop = asyncio.new_event_loop()
    loop_state(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


async def test_what_is_dirty_is_flushed_once_at_the_end_of_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    state = loop_state(loop)
    log: list[str] = []
    for name in "abc":
        state.mark_dirty(Output(log, name))
    assert log == []
    await ticks(1)
    assert log == ["a", "b", "c"]
    await ticks()
    assert log == ["a", "b", "c"]


def test_many_dirty_connections_cost_one_callback_of_the_loop() -> None:
    class Loop:
        scheduled = 0

        def call_soon(self, callback: Callable[[], object]) -> None:
            self.scheduled += 1

    loop = Loop()
    state = loop_state(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        state.mark_dirty(Output([], ""))
    assert loop.scheduled == 1


async def test_a_flush_that_fails_is_reported_and_keeps_nobody_back() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    state = loop_state(loop)
    log: list[str] = []
    state.mark_dirty(Output(log, "a"))
    state.mark_dirty(Output(log, "b", lambda: 1 / 0))
    state.mark_dirty(Output(log, "c"))
    await ticks(1)
    assert log == ["a", "b", "c"]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]


async def test_what_becomes_dirty_during_a_flush_is_flushed_in_the_next_tick() -> None:
    state = loop_state(asyncio.get_running_loop())
    log: list[str] = []
    second = Output(log, "second")
    state.mark_dirty(Output(log, "first", lambda: state.mark_dirty(second)))
    await ticks(1)
    assert log == ["first"]
    await ticks(1)
    assert log == ["first", "second"]


async def test_a_long_flush_is_sliced_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    loop = asyncio.get_running_loop()
    log: list[str] = []
    for number in range(200):
        loop_state(loop).mark_dirty(Output(log, str(number)))
    loop.call_soon(log.append, "somebody else")
    await ticks(5)
    assert log.index("somebody else") == 64
    log.remove("somebody else")
    assert log == [str(number) for number in range(200)]
