"""Tests of deadlines, on a clock that the test moves and on each real loop, and of time slices."""

from __future__ import annotations

import asyncio
import random
import weakref
from typing import Any

import pytest

from plumews import limits
from plumews.transport.timers import Timers, TimeSlice
from support.fakes import FakeLoop


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def timers(loop: FakeLoop) -> Timers:
    return Timers(loop)  # type: ignore[arg-type]


def test_deadline_is_called_once_at_its_time(loop: FakeLoop, timers: Timers) -> None:
    calls: list[float] = []
    timers.after(5, lambda: calls.append(loop.now))
    loop.advance(4.9)
    assert calls == []
    loop.advance(0.2)
    assert calls == [1005.0]
    loop.advance(100)
    assert calls == [1005.0]


def test_deadlines_are_called_in_order_of_time(loop: FakeLoop, timers: Timers) -> None:
    delays = [delay / 10 for delay in range(1, 200)]
    calls: list[float] = []
    for delay in random.Random(7).sample(delays, len(delays)):
        timers.after(delay, lambda delay=delay: calls.append(delay))  # type: ignore[misc]
    loop.advance(30)
    assert calls == delays


def test_loop_has_one_timer_for_the_earliest_deadline(loop: FakeLoop, timers: Timers) -> None:
    assert loop.armed == []
    late = timers.after(9, lambda: None)
    early = timers.after(3, lambda: None)
    timers.after(6, lambda: None)
    assert loop.armed == [1003.0]
    assert len(timers) == 3
    loop.advance(3)
    assert loop.armed == [1006.0]
    loop.advance(3)
    assert loop.armed == [1009.0]
    late.cancel()
    early.cancel()
    assert len(timers) == 0
    timers.after(9, lambda: None)
    assert loop.armed == [1009.0]  # it serves the next deadline, and is not armed anew
    loop.advance(3)
    assert loop.armed == [1015.0]


def test_cancelled_deadline_is_not_called_and_holds_nothing(loop: FakeLoop, timers: Timers) -> None:
    class Thing:
        def called(self) -> None:
            raise AssertionError

    thing = Thing()
    gone = weakref.ref(thing)
    timers.after(2, lambda: None)  # keeps the heap from being emptied as a whole
    deadline = timers.after(1, thing.called)
    deadline.cancel()
    del thing
    assert gone() is None
    loop.advance(5)


def test_called_deadline_holds_nothing(loop: FakeLoop, timers: Timers) -> None:
    class Thing:
        def called(self) -> None: ...

    thing = Thing()
    gone = weakref.ref(thing)
    deadline = timers.after(1, thing.called)
    loop.advance(1)
    del thing
    assert gone() is None
    assert deadline.callback is None


def test_cancel_counts_once_when_repeated_or_late(loop: FakeLoop, timers: Timers) -> None:
    cancelled, called, kept = (timers.after(delay, lambda: None) for delay in (2, 1, 3))
    cancelled.cancel()
    cancelled.cancel()
    loop.advance(1)
    called.cancel()
    assert len(timers) == 1
    kept.cancel()
    assert len(timers) == 0


def test_deadlines_close_together_share_one_wake_up(loop: FakeLoop, timers: Timers) -> None:
    calls: list[int] = []
    for index in range(100):
        timers.after(1 + index * 0.00001, lambda index=index: calls.append(index))  # type: ignore[misc]
    loop.advance(2)
    assert calls == list(range(100))
    assert loop.wakes == 1


def test_deadline_set_by_a_deadline_waits_for_the_next_wake_up(loop: FakeLoop, timers: Timers) -> None:
    """It would be called again and again until its time has come, and no socket would be polled in between."""
    calls: list[float] = []

    def look() -> None:
        calls.append(loop.now)
        if loop.now < 1001.0:
            timers.at(1001.0, look)

    timers.at(1001.0, look)
    timers.at(1000.999, lambda: None)  # wakes up a millisecond early
    loop.advance(2)
    assert len(calls) == 2
    assert calls[1] >= 1001.0
    assert loop.wakes == 2


def test_past_deadline_is_called_at_the_next_wake_up(loop: FakeLoop, timers: Timers) -> None:
    calls: list[float] = []
    timers.after(-5, lambda: calls.append(loop.now))
    assert calls == []
    loop.advance(0)
    assert calls == [1000.0]


def test_deadline_set_by_another_is_armed(loop: FakeLoop, timers: Timers) -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        timers.after(1, lambda: calls.append("second"))

    timers.after(1, first)
    timers.after(10, lambda: calls.append("third"))
    loop.advance(1)
    assert loop.armed == [1002.0]
    loop.advance(20)
    assert calls == ["first", "second", "third"]


def test_deadline_can_cancel_the_next_one(loop: FakeLoop, timers: Timers) -> None:
    calls: list[str] = []
    victim = timers.after(1.0001, lambda: calls.append("victim"))
    timers.after(1, victim.cancel)
    loop.advance(5)
    assert calls == []
    assert len(timers) == 0
    assert loop.armed == []


def test_failing_callback_is_reported_and_others_are_called(loop: FakeLoop, timers: Timers) -> None:
    calls: list[str] = []
    timers.after(1, lambda: calls.append("before"))
    timers.after(1.0001, lambda: 1 / 0)
    timers.after(1.0002, lambda: calls.append("after"))
    loop.advance(2)
    assert calls == ["before", "after"]
    assert [type(failure["exception"]) for failure in loop.failures] == [ZeroDivisionError]


def test_callback_that_ends_the_program_keeps_others_armed(loop: FakeLoop, timers: Timers) -> None:
    calls: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    timers.after(1, interrupt)
    timers.after(1.0001, lambda: calls.append("closing"))
    with pytest.raises(KeyboardInterrupt):
        loop.advance(1)
    assert len(timers) == 1
    loop.advance(1)  # while the loop shuts down
    assert calls == ["closing"]


def test_cancelled_deadlines_do_not_pile_up(loop: FakeLoop, timers: Timers) -> None:
    timers.after(3600, lambda: None)
    for _ in range(10_000):
        timers.after(10, lambda: None).cancel()
    assert len(timers) == 1
    assert len(timers._heap) <= 65
    loop.advance(7200)
    assert len(timers) == 0


def test_removal_of_cancelled_deadlines_keeps_the_order(loop: FakeLoop, timers: Timers) -> None:
    shuffled = random.Random(7)
    calls: list[int] = []
    deadlines = []
    for index in shuffled.sample(range(1000), 1000):
        deadlines.append((index, timers.after(index, lambda index=index: calls.append(index))))  # type: ignore[misc]
    shuffled.shuffle(deadlines)
    for _, deadline in deadlines[:900]:
        deadline.cancel()
    assert len(timers._heap) <= 200
    loop.advance(2000)
    assert calls == sorted(index for index, _ in deadlines[900:])


def test_long_stall_calls_each_deadline_once(loop: FakeLoop, timers: Timers) -> None:
    calls: list[int] = []
    for index in range(10):
        timers.after(index, lambda index=index: calls.append(index))  # type: ignore[misc]
    loop.stall(1e6)
    assert calls == list(range(10))
    assert loop.armed == []


async def test_deadlines_on_a_real_loop_are_called_near_their_time(anyio_backend: Any) -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    late: list[float] = []
    while not late or (min(late) >= 1 and len(late) < 5):  # the machine is not ours alone: the best of some
        called: asyncio.Future[float] = loop.create_future()
        started = loop.time()
        timers.after(0.01, lambda called=called: called.set_result(timers.time()))  # type: ignore[misc]
        never = timers.after(0.005, called.cancel)
        never.cancel()
        late.append(await called - started)
        assert len(timers) == 0
    assert min(late) >= 0.007
    assert min(late) < 1


# --- time slices ----------------------------------------------------------------------------------


def test_time_slice_is_over_when_its_time_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr("plumews.transport.timers.clock", lambda: now)
    time_slice = TimeSlice()
    assert time_slice.end == 10.0 + limits.FAN_OUT_SLICE
    assert not time_slice.is_over()
    now = time_slice.end
    assert time_slice.is_over()


def test_time_slice_checks_the_clock_once_per_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    time_slice = TimeSlice(stride=3)
    assert [time_slice.is_over() for _ in range(6)] == [False, False, True, False, False, True]
