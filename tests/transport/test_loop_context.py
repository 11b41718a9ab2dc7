"""What the connections of a loop share."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from plumews import limits
from plumews.transport import sendmsg
from plumews.transport.loop_context import Flushable, LoopContext, loop_context
from support.fakes import ticks


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
    assert loop_context(loop) is loop_context(loop)
    assert len(loop_context(loop).view) == limits.READ_BUFFER


def test_two_loops_share_nothing() -> None:
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    try:
        one, other = map(loop_context, loops)
        assert one is not other
        assert one.buffer is not other.buffer
    finally:
        for loop in loops:
            loop.close()


def test_the_state_goes_with_its_loop() -> None:
    loop = asyncio.new_event_loop()
    loop_context(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


async def test_what_is_dirty_is_flushed_once_at_the_end_of_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_many_dirty_connections_cost_one_callback_of_the_loop() -> None:
    class Loop:
        scheduled = 0

        def call_soon(self, callback: Callable[[], object], context: Any) -> None:
            self.scheduled += 1

    loop = Loop()
    state = loop_context(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        state.mark_dirty(Output([], ""))
    assert loop.scheduled == 1


async def test_a_flush_that_fails_is_reported_and_keeps_nobody_back() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    state = loop_context(loop)
    log: list[str] = []
    state.mark_dirty(Output(log, "a"))
    state.mark_dirty(Output(log, "b", lambda: 1 / 0))
    state.mark_dirty(Output(log, "c"))
    await ticks(1)
    assert log == ["a", "b", "c"]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]


async def test_what_becomes_dirty_during_a_flush_is_flushed_in_the_next_tick() -> None:
    state = loop_context(asyncio.get_running_loop())
    log: list[str] = []
    second = Output(log, "second")
    state.mark_dirty(Output(log, "first", lambda: state.mark_dirty(second)))
    await ticks(1)
    assert log == ["first"]
    await ticks(1)
    assert log == ["first", "second"]


async def test_what_is_gathered_leaves_together_at_the_end_of_the_tick_before_what_is_dirty() -> None:
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


async def test_what_is_gathered_waits_for_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATHER_TIME", 3600.0)
    state = loop_context(asyncio.get_running_loop())
    log: list[str] = []
    state.gather(Output(log, "a"))
    state.gather(Output(log, "b"))
    assert log == []
    await ticks(1)
    monkeypatch.setattr(limits, "GATHER_TIME", 0.0005)
    state.gather(Output(log, "c"))
    began = time.monotonic()
    while time.monotonic() < began + 0.001:
        pass  # others have reads that take their time
    assert log == ["a", "b"]
    state.gather(Output(log, "d"))
    assert log == ["a", "b", "c", "d"]
    state.gather(Output(log, "e"))  # whose time begins anew
    assert log == ["a", "b", "c", "d"]
    await ticks(1)
    assert log == ["a", "b", "c", "d", "e"]


async def test_one_that_is_gathered_and_fails_is_reported_and_keeps_nobody_back() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    log: list[str] = []
    loop_context(loop).gather(Output(log, "a", lambda: 1 / 0))
    loop_context(loop).gather(Output(log, "b"))
    await ticks(1)
    assert log == ["a", "b"]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]


async def test_a_long_flush_is_sliced_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    loop = asyncio.get_running_loop()
    log: list[str] = []
    for number in range(200):
        loop_context(loop).mark_dirty(Output(log, str(number)))
    loop.call_soon(log.append, "somebody else")
    await ticks(5)
    assert log.index("somebody else") == 64
    log.remove("somebody else")
    assert log == [str(number) for number in range(200)]


# --- lists that are used again --------------------------------------------------------------------


async def test_a_list_that_was_lent_is_empty_when_it_is_lent_again() -> None:
    state = loop_context(asyncio.get_running_loop())
    queue = state.lend_queue(b"for one")
    state.give_back(queue)
    again = state.lend_queue(b"for another")
    assert again is queue
    assert again == [b"for another"]
    assert state.lend_queue(b"for a third") is not again


async def test_no_more_lists_are_kept_than_were_lent_nor_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    state = loop_context(asyncio.get_running_loop())
    mine = [b"nobody has lent it"]
    state.give_back(mine)
    assert mine == [b"nobody has lent it"]
    assert state._spare == []
    monkeypatch.setattr(limits, "SPARE_QUEUES", 3)
    for queue in [state.lend_queue(b"") for _ in range(5)]:
        state.give_back(queue)
    assert len(state._spare) == 3


# --- by threads -----------------------------------------------------------------------------------


class Writable(Output):
    """Something that others may send."""

    def __init__(self, log: list[str], name: str, *, sent: int = -1, apart: bool = True) -> None:
        super().__init__(log, name)
        self.sent = sent
        self.apart = apart
        self.gone = False

    def flush(self) -> None:
        if not self.gone:
            super().flush()

    def hand_over(self, fds: list[int], queues: list[list[Any]]) -> bool:
        if self.apart:
            fds.append(self.sent)
            queues.append([self.name.encode()])
        return self.apart

    def was_sent(self, sent: int) -> bool:
        assert sent == self.sent
        self.log.append(f"{self.name} sent")
        self.gone = sent < 0
        return not self.gone


class Batch:
    """What stands in for :class:`plumews.transport.sendmsg.Batch`: the descriptor says what comes of it."""

    sizes: list[int]

    def __init__(self, fds: list[int], queues: list[list[Any]]) -> None:
        assert len(fds) == len(queues)
        self.sizes.append(len(fds))
        self.sent = fds

    def help(self) -> None:
        pass

    def finish(self) -> None:
        pass


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches, on a loop that one thread helps; batches are made of four and more, up to six."""
    monkeypatch.setattr(Batch, "sizes", [], raising=False)
    monkeypatch.setattr(sendmsg, "Batch", Batch)
    monkeypatch.setattr(limits, "PARALLEL_LEAST", 4)
    monkeypatch.setattr(limits, "PARALLEL_SHARE", 3)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 10.0)
    return Batch.sizes


@pytest.fixture
async def helped(batches: list[int]) -> AsyncIterator[LoopContext]:
    state = loop_context(asyncio.get_running_loop())
    state.want_threads(1)
    yield state
    state.give_up_threads(1)


async def test_few_that_are_dirty_are_flushed_as_ever(helped: LoopContext, batches: list[int]) -> None:
    log: list[str] = []
    for name in "abc":
        helped.mark_dirty(Writable(log, name))
    await ticks(1)
    assert (log, batches) == (["a", "b", "c"], [])


async def test_many_that_are_dirty_are_sent_in_batches_and_the_rest_is_flushed(
    helped: LoopContext, batches: list[int]
) -> None:
    log: list[str] = []
    for name in "abcdefghijklmn":
        helped.mark_dirty(Writable(log, name))
    await ticks(1)
    assert batches == [6, 6]
    assert log == [f"{name} sent" for name in "abcdefghijkl"] + ["m", "n"]


async def test_who_was_not_sent_whole_is_flushed_in_the_same_slice_and_so_is_who_could_not_be_handed_over(
    helped: LoopContext, batches: list[int]
) -> None:
    log: list[str] = []
    for writer in (
        Writable(log, "a"),
        Writable(log, "b", sent=0),
        Writable(log, "c", apart=False),
        Writable(log, "d", sent=7),
        Writable(log, "e"),
    ):
        helped.mark_dirty(writer)
    await ticks(1)
    assert batches == [4]
    assert log[:4] == ["a sent", "b sent", "d sent", "e sent"]  # all know of it before one goes on
    assert sorted(log[4:]) == ["b", "c", "d"]


async def test_where_hardly_anybody_can_be_handed_over_no_thread_is_woken(
    helped: LoopContext, batches: list[int]
) -> None:
    log: list[str] = []
    for name in "abcdef":
        helped.mark_dirty(Writable(log, name, apart=name == "c"))
    await ticks(1)
    assert (log, batches) == (list("abcdef"), [])


async def test_between_batches_others_have_their_turn_when_the_slice_is_over(
    helped: LoopContext, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    log: list[str] = []
    for number in range(200):
        helped.mark_dirty(Writable(log, str(number)))
    asyncio.get_running_loop().call_soon(log.append, "somebody else")
    await ticks(10)
    assert log.index("somebody else") == 6 + 64
    assert batches == [6, 6, 6]
    assert len(log) == 201
    assert {line.removesuffix(" sent") for line in log} == {*map(str, range(200)), "somebody else"}


async def test_when_nobody_wants_threads_any_more_all_is_flushed_as_ever(batches: list[int]) -> None:
    state = loop_context(asyncio.get_running_loop())
    for count in (1, 2):
        state.want_threads(count)
    state.give_up_threads(2)
    log: list[str] = []
    for number in range(2):
        if number == 1:
            state.give_up_threads(1)
        for name in "abcdef":
            state.mark_dirty(Writable(log, name))
        await ticks(1)
    assert batches == [6]
    assert log == [f"{name} sent" for name in "abcdef"] + list("abcdef")
