"""A time limit that may come nearer: what is bounded by it ends in time, and nothing is left of either."""

from __future__ import annotations

import asyncio

import pytest

from plumews.conn.timelimit import TimeBudget
from support.fakes import deadlines, pass_time, ticks


class Work:
    """Something that lasts until it is told to end, and knows how it ended."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.cancelled = False

    async def run(self) -> None:
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_limit_is_over_when_its_time_is():
    before = deadlines()
    limit = TimeBudget(100)
    assert not limit.over
    assert 99 < limit.left <= 100
    pass_time(100)
    await limit.pause(100)
    assert (limit.over, limit.left) == (True, 0.0)
    assert deadlines() == before


async def test_no_time_is_over_at_once():
    limit = TimeBudget(0)
    assert limit.over
    await limit.pause(100)


async def test_a_pause_ends_before_the_limit():
    limit = TimeBudget(100)
    await limit.pause(0.001)
    assert not limit.over
    limit.end()


async def test_work_that_ends_in_time_is_done():
    limit, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(limit.bound(work.run()))
    await ticks()
    assert not bounded.done()
    work.ended.set()
    assert await bounded is True
    limit.end()


async def test_work_that_fails_says_so():
    async def fail() -> None:
        raise LookupError("nothing there")

    limit = TimeBudget(100)
    with pytest.raises(LookupError, match="nothing there"):
        await limit.bound(fail())
    limit.end()


@pytest.mark.parametrize("how", ["limit", "hasten", "its own time"])
async def test_work_that_takes_too_long_is_ended(how):
    limit, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(limit.bound(work.run(), 0.01 if how == "its own time" else None))
    await ticks()
    if how == "limit":
        pass_time(100)
    elif how == "hasten":
        limit.hasten(0.001)
    assert await bounded is False
    assert work.cancelled
    assert limit.over is (how != "its own time")
    limit.end()


async def test_work_that_comes_too_late_is_not_begun():
    work = Work()
    assert await TimeBudget(0).bound(work.run()) is False
    assert not work.cancelled


async def test_who_is_cancelled_takes_its_work_along():
    limit, work = TimeBudget(100), Work()
    bounded = asyncio.ensure_future(limit.bound(work.run()))
    await ticks()
    bounded.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bounded
    assert work.cancelled
    limit.end()


async def test_it_comes_nearer_but_never_moves_away():
    before = deadlines()
    limit = TimeBudget(100)
    limit.hasten(200)
    assert limit.left <= 100
    limit.hasten(50)
    assert 49 < limit.left <= 50
    assert deadlines() == before + 1
    limit.hasten(-1)
    assert limit.over
    limit.hasten(-1)  # it cannot be over twice
    assert deadlines() == before


async def test_a_limit_that_is_of_no_use_any_more_leaves_nothing_behind():
    before = deadlines()
    limit = TimeBudget(100)
    limit.end()
    limit.end()
    assert deadlines() == before
    assert not limit.over
