"""The line for work that others must not wait for: in turn, a slice at a time, within its share of the time."""

from __future__ import annotations

import asyncio
import time

import pytest

from plumews import limits
from plumews.deflate.turns import Turns, turns_of
from support.fakes import PATIENCE


async def until_done(turns: Turns) -> None:
    end = time.monotonic() + PATIENCE
    while turns._scheduled:
        assert time.monotonic() < end
        await asyncio.sleep(0)


async def test_each_has_its_turn_in_the_order_in_which_they_asked() -> None:
    turns = turns_of(asyncio.get_running_loop())
    seen: list[str] = []

    def take(name: str, again: int, until: float) -> None:
        assert 0 < until - time.monotonic() <= limits.FAN_OUT_SLICE
        seen.append(name)
        if again:
            turns.ask(lambda until: take(name, again - 1, until), 1)

    for name in "abc":
        turns.ask(lambda until, name=name: take(name, 2, until), 1)  # type: ignore[misc]
    assert seen == []
    await until_done(turns)
    assert "".join(seen) == "abcabcabc"


async def test_who_is_to_finish_first_goes_before_all_others() -> None:
    turns = turns_of(asyncio.get_running_loop())
    seen: list[str] = []

    def take(until: float) -> None:
        seen.append("a")
        if len(seen) < 3:
            turns.ask(take, 1, first=True)

    turns.ask(take, 1)
    turns.ask(lambda until: seen.append("b"), 1)
    await until_done(turns)
    assert "".join(seen) == "aaab"


async def test_one_turn_of_the_loop_has_one_slice_at_most() -> None:
    turns = turns_of(asyncio.get_running_loop())
    seen: list[int] = []
    for index in range(3):
        turns.ask(lambda _, index=index: seen.append(index), 1)  # type: ignore[misc]
    await asyncio.sleep(0)
    assert seen == [0]
    await until_done(turns)
    assert seen == [0, 1, 2]


async def test_behind_a_slice_the_others_have_as_long_as_the_share_says() -> None:
    turns = Turns(asyncio.get_running_loop())
    times: list[float] = []

    def work(until: float) -> None:
        times.append(time.monotonic())
        while time.monotonic() < until:
            pass
        times.append(time.monotonic())
        if len(times) < 8:
            turns.ask(work, 0.25)

    turns.ask(work, 0.25)
    await until_done(turns)
    for end, begin in zip(times[1::2], times[2::2], strict=False):
        assert begin - end >= 2.5 * limits.FAN_OUT_SLICE


async def test_who_fails_does_not_hold_up_the_others() -> None:
    loop = asyncio.get_running_loop()
    turns = Turns(loop)
    failures: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    seen: list[float] = []

    def fail(until: float) -> None:
        raise RuntimeError("in its turn")

    turns.ask(fail, 0.5)
    turns.ask(seen.append, 0.5)
    await until_done(turns)
    assert len(seen) == 1
    assert [str(failure["exception"]) for failure in failures] == ["in its turn"]


async def test_a_loop_has_one_line() -> None:
    loop = asyncio.get_running_loop()
    assert turns_of(loop) is turns_of(loop)


def test_another_loop_has_another() -> None:
    async def mine() -> Turns:
        return turns_of(asyncio.get_running_loop())

    assert asyncio.run(mine()) is not asyncio.run(mine())


@pytest.mark.parametrize("share", [0.1, 1])
async def test_what_nobody_asks_for_costs_no_timer(share: float) -> None:
    turns = Turns(asyncio.get_running_loop())
    turns.ask(lambda _: None, share)
    await until_done(turns)
    assert not turns._scheduled
    assert not turns._line
