"""Tests of the state that all connections of a loop share."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from plumews import limits
from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from plumews.transport.channel import Channel
from plumews.transport.loop_context import Flushable, loop_context
from support.fakes import ticks


class Transport:
    """Transport that logs its writes, and then calls ``then()``."""

    def __init__(self, log: list[str], name: str, then: Callable[[], object]) -> None:
        self.log = log
        self.name = name
        self.then = then

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.log.append(self.name)
        self.then()


class Output(Channel):
    """Channel with a frame in its queue. It logs its flush."""

    def __init__(self, log: list[str], name: str, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(loop_context(asyncio.get_running_loop()), queue_size=1, queue_bytes=100)
        self._attach(Transport(log, name, then))  # type: ignore[arg-type]
        self._try_queue(build_frame(Opcode.BINARY, b""))


async def test_loop_has_one_context() -> None:
    loop = asyncio.get_running_loop()
    assert loop_context(loop) is loop_context(loop)
    assert len(loop_context(loop).view) == limits.READ_BUFFER


@pytest.mark.parametrize(("platform", "plain"), [("linux", True), ("darwin", False)])
def test_clock_of_uvloop_on_macos_is_not_that_of_python(
    platform: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop = pytest.importorskip("uvloop")
    loops = [uvloop.new_event_loop(), asyncio.SelectorEventLoop()]
    monkeypatch.setattr("plumews.transport.loop_context.sys.platform", platform)
    try:
        assert [loop_context(loop).plain_clock for loop in loops] == [plain, True]
    finally:
        for loop in loops:
            loop.close()


def test_loops_share_no_context() -> None:
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    try:
        one, other = map(loop_context, loops)
        assert one is not other
        assert one.buffer is not other.buffer
    finally:
        for loop in loops:
            loop.close()


def test_context_is_freed_with_its_loop() -> None:
    loop = asyncio.new_event_loop()
    loop_context(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


async def test_dirty_channels_are_flushed_once_per_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    state = loop_context(loop)
    log: list[str] = []
    for name in "abc":
        state.mark_dirty(Output(log, name))
    assert log == []
    await ticks(1)
    assert log == ["a", "b", "c"]
    await ticks()
    assert log == ["a", "b", "c"]


def test_many_dirty_channels_cost_one_loop_callback() -> None:
    class Loop:
        scheduled = 0

        def call_soon(self, callback: Callable[[], object], context: Any) -> None:
            self.scheduled += 1

    loop = Loop()
    state = loop_context(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        state.mark_dirty(Flushable())
    assert loop.scheduled == 1


async def test_failing_flush_is_reported_and_others_are_flushed() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    state = loop_context(loop)
    log: list[str] = []
    state.mark_dirty(Output(log, "a"))
    state.mark_dirty(Flushable())  # it is abstract
    state.mark_dirty(Output(log, "c"))
    await ticks(1)
    assert log == ["a", "c"]
    assert [type(failure["exception"]) for failure in failures] == [NotImplementedError]


async def test_channel_marked_during_a_flush_is_flushed_next() -> None:
    state = loop_context(asyncio.get_running_loop())
    log: list[str] = []
    second = Output(log, "second")
    state.mark_dirty(Output(log, "first", lambda: state.mark_dirty(second)))
    await ticks(1)
    assert log == ["first"]
    await ticks(1)
    assert log == ["first", "second"]


async def test_gathered_channels_are_flushed_before_dirty_ones() -> None:
    state = loop_context(asyncio.get_running_loop())
    log: list[str] = []
    state.mark_dirty(Output(log, "of thousands"))
    state.gather(Output(log, "a"))
    state.gather(Output(log, "b"))
    assert log == []
    await ticks(1)
    assert log == ["a", "b", "of thousands"]
    await ticks()
    assert log == ["a", "b", "of thousands"]


async def test_gathered_channels_wait_no_longer_than_gather_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumews.transport.loop_context.GATHER_TIME", 3600.0)
    state = loop_context(asyncio.get_running_loop())
    log: list[str] = []
    state.gather(Output(log, "a"))
    state.gather(Output(log, "b"))
    assert log == []
    await ticks(1)
    monkeypatch.setattr("plumews.transport.loop_context.GATHER_TIME", 0.0005)
    state.gather(Output(log, "c"))
    began = time.monotonic()
    while time.monotonic() < began + 0.001:
        pass  # as a slow read of another connection
    assert log == ["a", "b"]
    state.gather(Output(log, "d"))
    assert log == ["a", "b", "c", "d"]
    state.gather(Output(log, "e"))  # its time begins anew
    assert log == ["a", "b", "c", "d"]
    await ticks(1)
    assert log == ["a", "b", "c", "d", "e"]


async def test_failing_gathered_flush_is_reported_and_others_go_on() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    log: list[str] = []
    loop_context(loop).gather(Flushable())
    loop_context(loop).gather(Output(log, "b"))
    await ticks(1)
    assert log == ["b"]
    assert [type(failure["exception"]) for failure in failures] == [NotImplementedError]


async def test_long_flush_is_sliced_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    loop = asyncio.get_running_loop()
    log: list[str] = []
    for number in range(200):
        loop_context(loop).mark_dirty(Output(log, str(number)))
    loop.call_soon(log.append, "other work")
    await ticks(5)
    assert log.index("other work") == 64
    log.remove("other work")
    assert log == [str(number) for number in range(200)]


# --- queues that are used again -------------------------------------------------------------------


async def test_returned_queue_is_empty_when_lent_again() -> None:
    state = loop_context(asyncio.get_running_loop())
    queue = state.lend_queue(1, 100)
    queue.append(b"for one", 7)
    assert (queue.has_space(1), queue.sent_all()) == (False, 7)
    state.give_back(queue)
    again = state.lend_queue(2, 100)
    assert again is queue
    assert again.is_empty()
    again.append(b"for another", 11)
    assert again.has_space(1)
    assert state.lend_queue(1, 100) is not again


async def test_spare_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    state = loop_context(asyncio.get_running_loop())
    monkeypatch.setattr("plumews.transport.loop_context.SPARE_QUEUES", 3)
    for queue in [state.lend_queue(1, 100) for _ in range(5)]:
        state.give_back(queue)
    assert len(state._spare) == 3
