"""Time budget of a graceful close: bounded work ends in time, and no deadline is left behind."""

from __future__ import annotations

import asyncio

import pytest

from plumews.conn.graceful_close import TimeBudget
from support.fakes import deadlines, pass_time, ticks


class Work:
    """Coroutine that lasts until its event is set, and records a cancellation."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.cancelled = False

    async def run(self) -> None:
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_budget_is_over_at_its_limit():
    before = deadlines()
    budget = TimeBudget(100)
    assert not budget.over
    assert 99 < budget.left <= 100
    pass_time(100)
    await budget.pause(100)
    assert (budget.over, budget.left) == (True, 0.0)
    assert deadlines() == before


async def test_budget_of_zero_seconds_is_over_at_once():
    budget = TimeBudget(0)
    assert budget.over
    await budget.pause(100)


async def test_pause_ends_before_the_limit():
    budget = TimeBudget(100)
    await budget.pause(0.001)
    assert not budget.over
    budget.end()


async def test_bound_returns_true_when_work_ends_in_time():
    budget, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(budget.bound(work.run()))
    await ticks()
    assert not bounded.done()
    work.ended.set()
    assert await bounded is True
    budget.end()


async def test_bound_raises_the_error_of_its_work():
    async def fail() -> None:
        raise LookupError("nothing there")

    budget = TimeBudget(100)
    with pytest.raises(LookupError, match="nothing there"):
        await budget.bound(fail())
    budget.end()


@pytest.mark.parametrize("how", ["limit", "hasten", "its own time"])
async def test_bound_cancels_work_that_takes_too_long(how):
    budget, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(budget.bound(work.run(), 0.01 if how == "its own time" else None))
    await ticks()
    if how == "limit":
        pass_time(100)
    elif how == "hasten":
        budget.hasten(0.001)
    assert await bounded is False
    assert work.cancelled
    assert budget.over is (how != "its own time")
    budget.end()


async def test_bound_does_not_begin_work_after_the_limit():
    work = Work()
    assert await TimeBudget(0).bound(work.run()) is False
    assert not work.cancelled


async def test_cancelling_bound_cancels_its_work():
    budget, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(budget.bound(work.run()))
    await ticks()
    bounded.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bounded
    assert work.cancelled
    budget.end()


async def test_hasten_shortens_and_never_extends_the_budget():
    before = deadlines()
    budget = TimeBudget(100)
    budget.hasten(200)
    assert budget.left <= 100
    budget.hasten(50)
    assert 49 < budget.left <= 50
    assert deadlines() == before + 1
    budget.hasten(-1)
    assert budget.over
    budget.hasten(-1)  # it cannot be over twice
    assert deadlines() == before


async def test_end_leaves_no_deadline_behind():
    before = deadlines()
    budget = TimeBudget(100)
    budget.end()
    budget.end()
    assert deadlines() == before
    assert not budget.over
